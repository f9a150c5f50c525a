// Who may look at the gateway and change it. Promises: a change is on the disk before it resolves; passwords and tokens
// are stored as hashes alone; a record that is damaged or outdated lets nobody in; an administrator who may log in
// always remains; whatever ends a user's rights (password, role, disabling, removal) ends the sessions in the same
// write. All entries are in memory; `usersMax` bounds them.

import { createHash, timingSafeEqual } from 'node:crypto';
import { GatewayError } from '../platform/errors.ts';
import type { Store } from '../platform/store.ts';
import type { Witness } from '../platform/witness.ts';
import { elapsedMs, type KnownTime, type Moment, momentNow } from './moment.ts';
import { checkPassword, type PasswordHasher, type RandomBytes } from './password.ts';
import {
  canonicalName,
  checkName,
  checkRole,
  checkTokenLabel,
  decodeUser,
  encodeUser,
  type User,
  type UserToken,
} from './user.ts';

const defaults = { usersMax: 50 };

const tokensMax = 10;
/** The witness remembers so many removed users: their records must not come back. */
const removedMax = 200;

const recordPrefix = 'user/';
const recordsEnd = 'user0';
const tokenCharactersMax = 128;

export interface UsersOptions {
  readonly store: Store;
  readonly hasher: PasswordHasher;
  readonly randomBytes: RandomBytes;
  /** Undefined beside a stopped gateway, where nobody knows whether the clock is right. */
  readonly time?: KnownTime;
  readonly wallMs: () => number;
  readonly witness?: Witness;
  /** Default 50. */
  readonly usersMax?: number;
}

export interface NewUser {
  readonly name: string;
  readonly role: string;
  readonly password: string;
}

export interface UsersStats {
  readonly users: number;
  readonly admins: number;
  readonly tokens: number;
  /** Records damaged or outdated at the start: these users cannot log in. */
  readonly damagedRecords: number;
}

export class Users {
  readonly #options: UsersOptions;
  readonly #users = new Map<string, User>();
  /** The newest of each user, also of those who are gone or whose record is damaged. */
  readonly #revisions = new Map<string, number>();
  /** Changes happen one after another: what the next one checks is what this one leaves. */
  #changing: Promise<unknown> = Promise.resolve();
  #damagedRecords = 0;

  private constructor(options: UsersOptions) {
    this.#options = options;
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(options: UsersOptions): Promise<Users> {
    const users = new Users(options);
    const newest = (await options.witness?.read()) ?? new Map<string, number>();
    for (const [name, revision] of newest) users.#revisions.set(name, revision);
    for await (const [key, bytes] of options.store.entries({ gte: recordPrefix, lt: recordsEnd })) {
      const name = key.slice(recordPrefix.length);
      const user = decodeUser(name, bytes);
      // An outdated one may have a password that was changed since, or have been removed.
      if (user === undefined || user.revision < (newest.get(name) ?? 0)) {
        users.#damagedRecords += 1;
        continue;
      }
      users.#revisions.set(name, user.revision);
      users.#users.set(name, user);
    }
    return users;
  }

  get(name: string): User | undefined {
    return this.#users.get(canonicalName(name));
  }

  list(): User[] {
    return [...this.#users.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** Whether somebody may log in who may change things; until then the gateway can be claimed. */
  get hasAdmin(): boolean {
    return this.#admins().length > 0;
  }

  /**
   * @throws GatewayError `USER_NAME_INVALID`, `USER_ROLE_INVALID`, `PASSWORD_INVALID`, `USER_EXISTS`, `USERS_FULL`,
   * `STORE_FAILED`; `CLAIM_CONFLICT` when it is to be the first administrator and is not.
   */
  async add(wanted: NewUser, { isFirst = false } = {}): Promise<User> {
    const name = canonicalName(wanted.name);
    const { role } = wanted;
    checkName(name);
    checkRole(role);
    checkPassword(wanted.password, name);
    const checkRoom = () => {
      if (isFirst && this.hasAdmin) {
        throw new GatewayError('CLAIM_CONFLICT', 'there is an administrator already');
      }
      if (this.#users.has(name)) throw new GatewayError('USER_EXISTS', `there is a user ${name} already`);
      const { usersMax = defaults.usersMax } = this.#options;
      if (this.#users.size >= usersMax) {
        throw new GatewayError('USERS_FULL', `there are ${usersMax} users already, as many as there may be`);
      }
    };
    checkRoom();
    const password = await this.#options.hasher.hash(wanted.password);
    return await this.#change(async () => {
      checkRoom();
      const now = this.#now();
      const stamp = this.#stamp();
      return await this.#put({
        name,
        role,
        isDisabled: false,
        password,
        stamp,
        created: now,
        passwordSet: now,
        tokens: [],
        revision: 0,
      });
    });
  }

  /** Ends the user's sessions. @throws GatewayError `USER_UNKNOWN`, `PASSWORD_INVALID`, `STORE_FAILED` */
  async setPassword(name: string, password: string): Promise<User> {
    checkPassword(password, this.#known(name).name);
    const hash = await this.#options.hasher.hash(password);
    return await this.#change(() =>
      this.#put({ ...this.#known(name), password: hash, passwordSet: this.#now(), stamp: this.#stamp() }),
    );
  }

  /** Ends the user's sessions. @throws GatewayError `USER_UNKNOWN`, `USER_ROLE_INVALID`, `LAST_ADMIN_CONFLICT`, `STORE_FAILED` */
  setRole(name: string, role: string): Promise<User> {
    return this.#change(async () => {
      const user = this.#known(name);
      checkRole(role);
      if (role !== 'admin') this.#checkOthersAdmin(user);
      return await this.#put({ ...user, role, stamp: this.#stamp() });
    });
  }

  /** Ends the user's sessions; tokens hold again once the user is enabled. @throws GatewayError as `setRole` */
  setDisabled(name: string, isDisabled: boolean): Promise<User> {
    return this.#change(async () => {
      const user = this.#known(name);
      if (isDisabled) this.#checkOthersAdmin(user);
      return await this.#put({ ...user, isDisabled, stamp: this.#stamp() });
    });
  }

  /** @throws GatewayError `USER_UNKNOWN`, `STORE_FAILED` */
  endSessions(name: string): Promise<User> {
    return this.#change(() => this.#put({ ...this.#known(name), stamp: this.#stamp() }));
  }

  /** Sessions and tokens end with the user. @throws GatewayError `USER_UNKNOWN`, `LAST_ADMIN_CONFLICT`, `STORE_FAILED` */
  remove(name: string): Promise<User> {
    return this.#change(async () => {
      const user = this.#known(name);
      this.#checkOthersAdmin(user);
      await this.#options.store.write([{ key: recordPrefix + user.name, value: undefined }]);
      this.#users.delete(user.name);
      this.#revisions.delete(user.name);
      this.#revisions.set(user.name, user.revision + 1);
      await this.#witness(user.name);
      return user;
    });
  }

  /** The user with this name and password, who may log in. The work is the same when there is no such user. */
  async verifyPassword(name: string, password: string): Promise<User | undefined> {
    const user = this.get(name);
    const matches = await this.#options.hasher.matches(password, user?.password);
    const now = this.get(name);
    // Not one that was changed meanwhile.
    return matches && now !== undefined && now === user && !now.isDisabled ? now : undefined;
  }

  /** @returns The token's text, told this once. @throws GatewayError `USER_UNKNOWN`, `TOKEN_LABEL_INVALID`, `TOKENS_FULL`, `STORE_FAILED` */
  issueToken(
    name: string,
    { label, lifetimeMs }: { readonly label: string; readonly lifetimeMs?: number | undefined },
  ): Promise<{ readonly token: string; readonly stored: UserToken }> {
    return this.#change(async () => {
      const user = this.#known(name);
      checkTokenLabel(label);
      if (user.tokens.length >= tokensMax) {
        throw new GatewayError('TOKENS_FULL', `${user.name} has ${tokensMax} tokens already; revoke one`);
      }
      const id = this.#options.randomBytes(5).toString('hex');
      const token = `gu_${id}_${this.#options.randomBytes(32).toString('base64url')}`;
      const stored: UserToken = {
        id,
        label,
        sha256: sha256(token).toString('hex'),
        created: this.#now(),
        ...(lifetimeMs !== undefined && { lifetimeMs }),
      };
      await this.#put({ ...user, tokens: [...user.tokens, stored] });
      return { token, stored };
    });
  }

  /** @throws GatewayError `USER_UNKNOWN`, `TOKEN_UNKNOWN`, `STORE_FAILED` */
  revokeToken(name: string, id: string): Promise<UserToken> {
    return this.#change(async () => {
      const user = this.#known(name);
      const revoked = user.tokens.find((token) => token.id === id);
      if (revoked === undefined) {
        throw new GatewayError(
          'TOKEN_UNKNOWN',
          `${user.name} has no token ${JSON.stringify(id.slice(0, 40))}`,
        );
      }
      await this.#put({ ...user, tokens: user.tokens.filter((token) => token !== revoked) });
      return revoked;
    });
  }

  /** The user whose API token this is; undefined for anything else. Says nothing about why. */
  verifyToken(text: string): User | undefined {
    const [, id] = /^gu_([0-9a-f]{10})_/.exec(text) ?? [];
    if (id === undefined || text.length > tokenCharactersMax) return undefined;
    const given = sha256(text);
    for (const user of this.#users.values()) {
      const token = user.tokens.find((candidate) => candidate.id === id);
      if (token === undefined || !timingSafeEqual(given, Buffer.from(token.sha256, 'hex'))) continue;
      return user.isDisabled || this.isExpired(token) ? undefined : user;
    }
    return undefined;
  }

  isExpired({ created, lifetimeMs }: UserToken): boolean {
    const { time } = this.#options;
    return lifetimeMs !== undefined && time !== undefined && elapsedMs(created, time) >= lifetimeMs;
  }

  stats(): UsersStats {
    const users = [...this.#users.values()];
    return {
      users: users.length,
      admins: this.#admins().length,
      tokens: users.reduce((sum, { tokens }) => sum + tokens.length, 0),
      damagedRecords: this.#damagedRecords,
    };
  }

  #admins(): User[] {
    return [...this.#users.values()].filter(({ role, isDisabled }) => role === 'admin' && !isDisabled);
  }

  #checkOthersAdmin(user: User): void {
    const admins = this.#admins();
    if (!admins.includes(user) || admins.length > 1) return;
    throw new GatewayError(
      'LAST_ADMIN_CONFLICT',
      `${user.name} is the only administrator; make another first`,
    );
  }

  #known(given: string): User {
    const user = this.get(given);
    if (user !== undefined) return user;
    throw new GatewayError('USER_UNKNOWN', `there is no user ${JSON.stringify(given.slice(0, 40))}`);
  }

  #now(): Moment {
    const { time, wallMs } = this.#options;
    return time === undefined ? { wallMs: Math.round(wallMs()) } : momentNow(time);
  }

  #stamp(): string {
    return this.#options.randomBytes(16).toString('hex');
  }

  #change<Result>(step: () => Promise<Result>): Promise<Result> {
    const changed = this.#changing.then(step);
    this.#changing = changed.catch(() => undefined);
    return changed;
  }

  async #put(changed: User): Promise<User> {
    const { name } = changed;
    const user: User = { ...changed, revision: (this.#revisions.get(name) ?? 0) + 1 };
    await this.#options.store.write([{ key: recordPrefix + name, value: encodeUser(user) }]);
    this.#users.set(name, user);
    this.#revisions.set(name, user.revision);
    await this.#witness(name);
    return user;
  }

  /** After the record: a power cut in between leaves a record newer than its witness, which is as good. */
  async #witness(name: string): Promise<void> {
    const gone = [...this.#revisions.keys()].filter((known) => !this.#users.has(known));
    for (const forgotten of gone.slice(0, Math.max(0, gone.length - removedMax))) {
      this.#revisions.delete(forgotten);
    }
    await this.#options.witness?.write(this.#revisions).catch((error: unknown) => {
      throw new GatewayError('STORE_FAILED', `cannot write down the change of ${name}`, { cause: error });
    });
  }
}

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}
