// Every place where a password or the claim code is tried: each guess is counted before it is looked at. Promises: what
// is answered, and how long it takes, does not tell whether there is such a user; guessing slows down without ever
// locking anybody out; of guessing in earnest the audit log knows.

import type { AuditTrail } from './audit.ts';
import { ClaimCode } from './claim-code.ts';
import { Lockout, type LockoutStats } from './lockout.ts';
import type { PasswordHasher, PasswordStats, RandomBytes } from './password.ts';
import type { Sessions, SessionsStats } from './sessions.ts';
import { canonicalName, type User } from './user.ts';
import type { Users, UsersStats } from './users.ts';

export interface SignInOptions {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly hasher: PasswordHasher;
  readonly audit: AuditTrail;
  readonly monotonicMs: () => number;
  readonly randomBytes: RandomBytes;
}

export type Refused = { readonly kind: 'wrong' } | { readonly kind: 'wait'; readonly waitMs: number };

export type SignedIn = { readonly kind: 'in'; readonly user: User; readonly cookie: string };

export interface Attempted {
  readonly address: string;
  readonly password: string;
}

/** The gateway's own name for the account that is claimed: no user can have it. */
const claimAccount = '(claim)';
/** Tries in a row from one address that are no typing error any more. */
const guessesNoted = 5;
const noteIntervalMs = 60_000;

export interface SignInStats {
  readonly lockout: LockoutStats;
  readonly passwords: PasswordStats;
  readonly sessions: SessionsStats;
  readonly users: UsersStats;
}

export class SignIn {
  readonly #options: SignInOptions;
  readonly #lockout: Lockout;
  readonly #claimCode: ClaimCode;
  #notedMs = Number.NEGATIVE_INFINITY;

  constructor(options: SignInOptions) {
    this.#options = options;
    this.#lockout = new Lockout(options);
    this.#claimCode = new ClaimCode(options);
  }

  /** @throws GatewayError `LOGIN_BUSY`, and what keeps the session from the disk */
  async login({
    name,
    address,
    password,
  }: Attempted & { readonly name: string }): Promise<SignedIn | Refused> {
    const tried = await this.#tryPassword(name, { address, password });
    return tried.kind === 'in' ? await this.#begin(tried.user, address) : tried;
  }

  /** Whether it is the user's password; for what a session alone is not enough. @throws GatewayError `LOGIN_BUSY` */
  async confirm(name: string, attempted: Attempted): Promise<Refused | { kind: 'in'; user: User }> {
    return await this.#tryPassword(name, attempted);
  }

  /**
   * Changes the user's own password. Ends the user's sessions and begins one.
   * @throws GatewayError `LOGIN_BUSY`, `PASSWORD_INVALID`, `STORE_FAILED`
   */
  async changePassword(name: string, attempted: Attempted, wanted: string): Promise<SignedIn | Refused> {
    const tried = await this.#tryPassword(name, attempted);
    if (tried.kind !== 'in') return tried;
    const user = await this.#options.users.setPassword(name, wanted);
    return await this.#begin(user, attempted.address);
  }

  /** For the command line of this machine, and for nobody else. Undefined when there is an administrator. */
  issueClaimCode(): { readonly code: string; readonly lifetimeMs: number } | undefined {
    return this.#options.users.hasAdmin ? undefined : this.#claimCode.issue();
  }

  /**
   * Makes the first administrator and logs in.
   * @throws GatewayError `LOGIN_BUSY`, `USER_NAME_INVALID`, `PASSWORD_INVALID`, `CLAIM_CONFLICT`, `STORE_FAILED`
   */
  async claim(
    given: Attempted & { readonly code: string; readonly name: string },
  ): Promise<SignedIn | Refused> {
    const { code, name, password, address } = given;
    const attempt = this.#lockout.begin(address, claimAccount);
    if (attempt.kind === 'wait') return attempt;
    if (this.#options.users.hasAdmin || !this.#claimCode.matches(code)) {
      await this.#noteGuesses(attempt.failures, address, 'claim');
      return { kind: 'wrong' };
    }
    attempt.succeeded();
    const user = await this.#options.users.add({ name, role: 'admin', password }, { isFirst: true });
    this.#claimCode.end();
    return await this.#begin(user, address);
  }

  stats(): SignInStats {
    const { users, sessions, hasher } = this.#options;
    return {
      lockout: this.#lockout.stats(),
      passwords: hasher.stats(),
      sessions: sessions.stats(),
      users: users.stats(),
    };
  }

  async #begin(user: User, address: string): Promise<SignedIn> {
    return { kind: 'in', user, cookie: await this.#options.sessions.begin(user, address) };
  }

  async #tryPassword(
    name: string,
    { address, password }: Attempted,
  ): Promise<Refused | { kind: 'in'; user: User }> {
    const { users, sessions } = this.#options;
    const account = canonicalName(name);
    // An attacker who hammers an account from elsewhere does not slow down whoever is logged in from here.
    const attempt = this.#lockout.begin(address, sessions.isKnown(account, address) ? undefined : account);
    if (attempt.kind === 'wait') return attempt;
    const user = await users.verifyPassword(account, password);
    if (user !== undefined) {
      attempt.succeeded();
      this.#lockout.welcome(address, account);
      return { kind: 'in', user };
    }
    // A name that is none may be a password in the wrong field.
    await this.#noteGuesses(attempt.failures, address, users.get(account)?.name ?? 'unknown');
    return { kind: 'wrong' };
  }

  /** Not each of them: guessing must not push what people did out of the log. */
  async #noteGuesses(failures: number, address: string, target: string): Promise<void> {
    const nowMs = this.#options.monotonicMs();
    if (failures < guessesNoted || nowMs - this.#notedMs < noteIntervalMs) return;
    this.#notedMs = nowMs;
    const actor = `anyone@${address}`;
    await this.#options.audit.record({ actor, action: 'login.guessed', target, detail: { tries: failures } });
  }
}
