// Who is logged in. Promises: a session is on the disk before its cookie is told, as a hash; it ends after being unused,
// after its longest life, and with whatever ended its user's rights; a wall clock that jumps ends none. Bounded per
// user and in total: the one unused for longest goes. How lately it was used is noted on the disk now and then only.

import { createHash } from 'node:crypto';
import type { Store, StoreWrite } from '../platform/store.ts';
import { elapsedMs, isMoment, type KnownTime, type Moment, momentNow } from './moment.ts';
import type { RandomBytes } from './password.ts';
import type { User } from './user.ts';
import type { Users } from './users.ts';

const defaults = { idleMs: 24 * 3_600_000, lifetimeMs: 14 * 86_400_000, perUserMax: 10, sessionsMax: 200 };

/** Each note costs the card a write. */
const noteIntervalMs = 15 * 60_000;
const cookieBytes = 32;
const cookiePattern = /^[\w-]{43}$/;
const keyPrefix = 'session/';
const keysEnd = 'session0';

interface Session {
  readonly name: string;
  /** The user's when it began. */
  readonly stamp: string;
  readonly address: string;
  readonly begun: Moment;
  readonly used: Moment;
}

export interface SessionsOptions {
  readonly store: Store;
  readonly users: Users;
  readonly time: KnownTime;
  readonly randomBytes: RandomBytes;
  /** Default 24 h. */
  readonly idleMs?: number;
  /** Default 14 days. */
  readonly lifetimeMs?: number;
  readonly perUserMax?: number;
  readonly sessionsMax?: number;
}

export interface SessionsStats {
  readonly sessions: number;
  readonly begun: number;
  readonly expired: number;
  readonly evicted: number;
}

function keyOf(cookie: string): string {
  return keyPrefix + createHash('sha256').update(cookie).digest('hex');
}

function decode(bytes: Buffer): Session | undefined {
  try {
    const session = JSON.parse(bytes.toString()) as Session;
    const texts = [session.name, session.stamp, session.address];
    if (!isMoment(session.begun) || !isMoment(session.used)) return undefined;
    return texts.every((text) => typeof text === 'string') ? session : undefined;
  } catch {
    return undefined;
  }
}

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #limits: typeof defaults;
  /** By key; the one used longest ago comes first. */
  readonly #sessions = new Map<string, Session>();
  /** When each was last noted on the disk. */
  readonly #noted = new Map<string, Moment>();
  #begun = 0;
  #expired = 0;
  #evicted = 0;
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(options: SessionsOptions) {
    const { idleMs, lifetimeMs, perUserMax, sessionsMax } = { ...defaults, ...options };
    this.#options = options;
    this.#limits = { idleMs, lifetimeMs, perUserMax, sessionsMax };
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(options: SessionsOptions): Promise<Sessions> {
    const sessions = new Sessions(options);
    const found: [string, Session][] = [];
    const useless: string[] = [];
    for await (const [key, bytes] of options.store.entries({ gte: keyPrefix, lt: keysEnd })) {
      const session = decode(bytes);
      if (session === undefined || sessions.#userOf(session) === undefined) useless.push(key);
      else found.push([key, session]);
    }
    const unusedMs = ([, { used }]: [string, Session]) => elapsedMs(used, options.time);
    for (const [key, session] of found.sort((a, b) => unusedMs(b) - unusedMs(a))) {
      sessions.#sessions.set(key, session);
      sessions.#noted.set(key, session.used);
    }
    // What cannot be deleted now is of no use later either.
    await sessions.#write(useless.map((key) => ({ key, value: undefined }))).catch(() => undefined);
    return sessions;
  }

  /** @returns The cookie, told this once. @throws GatewayError `STORE_FAILED`, `DATA_UNWRITABLE` */
  async begin(user: User, address: string): Promise<string> {
    const cookie = this.#options.randomBytes(cookieBytes).toString('base64url');
    const now = momentNow(this.#options.time);
    const key = keyOf(cookie);
    const gone = this.#surplus(user.name);
    const session = { name: user.name, stamp: user.stamp, address, begun: now, used: now };
    await this.#write([
      { key, value: Buffer.from(JSON.stringify(session)) },
      ...gone.map((old) => ({ key: old, value: undefined })),
    ]);
    for (const old of gone) this.#forget(old);
    this.#sessions.set(key, session);
    this.#noted.set(key, now);
    this.#begun += 1;
    return cookie;
  }

  /** Whose session the cookie is; undefined for anything else. Counts as use. */
  verify(cookie: string): User | undefined {
    if (!cookiePattern.test(cookie)) return undefined;
    const key = keyOf(cookie);
    const session = this.#sessions.get(key);
    if (session === undefined) return undefined;
    const user = this.#userOf(session);
    if (user === undefined) {
      this.#forget(key);
      this.#expired += 1;
      this.#write([{ key, value: undefined }]).catch(() => undefined);
      return undefined;
    }
    this.#use(key, session);
    return user;
  }

  /** Whether somebody is logged in by it. Does not count as use. */
  holds(cookie: string): boolean {
    const session = this.#sessions.get(keyOf(cookie));
    return session !== undefined && this.#userOf(session) !== undefined;
  }

  /** Logs out. @throws GatewayError `STORE_FAILED`, `DATA_UNWRITABLE`: it has ended, but a restart would bring it back */
  async end(cookie: string): Promise<void> {
    const key = keyOf(cookie);
    if (!this.#sessions.has(key)) return;
    this.#forget(key);
    await this.#write([{ key, value: undefined }]);
  }

  /** Whether somebody is logged in by this name from there: no stranger. */
  isKnown(name: string, address: string): boolean {
    for (const session of this.#sessions.values()) {
      if (session.name === name && session.address === address && this.#userOf(session)) return true;
    }
    return false;
  }

  stats(): SessionsStats {
    return {
      sessions: this.#sessions.size,
      begun: this.#begun,
      expired: this.#expired,
      evicted: this.#evicted,
    };
  }

  /** When everything is on the disk. */
  async close(): Promise<void> {
    await this.#writing.catch(() => undefined);
  }

  #userOf({ name, stamp, begun, used }: Session): User | undefined {
    const { users, time } = this.#options;
    const user = users.get(name);
    if (user === undefined || user.isDisabled || user.stamp !== stamp) return undefined;
    if (elapsedMs(used, time) >= this.#limits.idleMs) return undefined;
    return elapsedMs(begun, time) >= this.#limits.lifetimeMs ? undefined : user;
  }

  #use(key: string, session: Session): void {
    const { time } = this.#options;
    const used = { ...session, used: momentNow(time) };
    this.#sessions.delete(key);
    this.#sessions.set(key, used);
    const noted = this.#noted.get(key);
    if (noted !== undefined && elapsedMs(noted, time) < noteIntervalMs) return;
    this.#noted.set(key, used.used);
    this.#write([{ key, value: Buffer.from(JSON.stringify(used)) }]).catch(() => undefined);
  }

  /** What must go for one more of this user: what has ended, then the one unused for longest. */
  #surplus(name: string): string[] {
    const gone = [...this.#sessions].filter(([, session]) => this.#userOf(session) === undefined);
    const live = [...this.#sessions].filter(([, session]) => this.#userOf(session) !== undefined);
    this.#expired += gone.length;
    const own = live.filter(([, session]) => session.name === name);
    const { perUserMax, sessionsMax } = this.#limits;
    const evicted = own.slice(0, Math.max(0, own.length + 1 - perUserMax));
    const rest = live.filter((entry) => !evicted.includes(entry));
    evicted.push(...rest.slice(0, Math.max(0, rest.length + 1 - sessionsMax)));
    this.#evicted += evicted.length;
    return [...gone, ...evicted].map(([key]) => key);
  }

  #forget(key: string): void {
    this.#sessions.delete(key);
    this.#noted.delete(key);
  }

  /** One after another: a note of use must not bring back what was ended after it. */
  #write(writes: readonly StoreWrite[]): Promise<void> {
    if (writes.length === 0) return Promise.resolve();
    const written = this.#writing.then(() => this.#options.store.write(writes));
    this.#writing = written.catch(() => undefined);
    return written;
  }
}
