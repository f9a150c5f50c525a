// Everything of this room that a running gateway needs, opened together.

import type { Store } from '../platform/store.ts';
import type { Witness } from '../platform/witness.ts';
import type { AuditTrail } from './audit.ts';
import type { KnownTime } from './moment.ts';
import { type ShownToken, type ShownUser, shownTokens, shownUser } from './operations.ts';
import { PasswordHasher, type RandomBytes } from './password.ts';
import { Sessions } from './sessions.ts';
import { SignIn } from './sign-in.ts';
import type { User } from './user.ts';
import { Users } from './users.ts';

export interface PeopleOptions {
  readonly store: Store;
  readonly time: KnownTime;
  readonly monotonicMs: () => number;
  readonly randomBytes: RandomBytes;
  readonly witness: Witness;
  readonly audit: AuditTrail;
  readonly idleMs: number;
  readonly lifetimeMs: number;
}

export interface People {
  readonly users: Users;
  readonly sessions: Sessions;
  readonly signIn: SignIn;
  readonly time: KnownTime;
  /** Of a session, at most. */
  readonly lifetimeMs: number;
  shown(user: User): ShownUser;
  /** Of a user. @throws GatewayError `USER_UNKNOWN` */
  shownTokens(name: string): ShownToken[];
}

/** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
export async function openPeople(options: PeopleOptions): Promise<People> {
  const { time } = options;
  const hasher = new PasswordHasher(options.randomBytes);
  const users = await Users.open({ ...options, hasher, wallMs: () => time.wallMs() });
  const sessions = await Sessions.open({ ...options, users });
  const signIn = new SignIn({ ...options, users, sessions, hasher });
  return {
    users,
    sessions,
    signIn,
    time,
    lifetimeMs: options.lifetimeMs,
    shown: (user) => shownUser(user, time),
    shownTokens: (name) => shownTokens(users, name, time),
  };
}
