// How often somebody may try a password: five wrong ones, then a wait that doubles up to its cap, per address and per
// account. Promises: nobody is ever locked out for good, and whoever hammers an account from elsewhere keeps nobody
// waiting where its owner has logged in before; tries are counted when they begin, so that a hundred at once are no
// hundred free ones; the tables are bounded. In memory alone: a restart forgives, and forgets who is at home where.

import { isIPv6 } from 'node:net';

const freeTries = 5;
const firstWaitMs = 1_000;
/** Without a wrong one for so long, all is forgotten. */
const forgetMs = 15 * 60_000;

const defaults = { entriesMax: 1_000 };

/** Of an address: ten tries in the first minute and one a minute later. */
const addressWaitMsMax = 60_000;
/** Of an account, from whatever address: an attacker must not keep its owner out for longer than this. */
const accountWaitMsMax = 2_000;

interface Entry {
  failures: number;
  untilMs: number;
  lastMs: number;
  /** Which try was the last. */
  attempt: number;
}

export interface LockoutStats {
  readonly entries: number;
  readonly failures: number;
  /** Tries not even looked at. */
  readonly refused: number;
}

export type Attempt =
  | { readonly kind: 'wait'; readonly waitMs: number }
  | {
      readonly kind: 'try';
      /** It was right: not counted as a failure. */
      succeeded(): void;
      /** So many wrong ones from this address, this one among them. */
      readonly failures: number;
    };

/** Whoever has an IPv6 address has at least 2^64 of them. */
function addressKey(address: string): string {
  const mapped = /^::ffff:(\d+\.\d+\.\d+\.\d+)$/i.exec(address)?.[1];
  if (mapped !== undefined) return `address ${mapped}`;
  if (!isIPv6(address)) return `address ${address}`;
  const [plain = ''] = address.split('%');
  const [head = '', tail] = plain.split('::');
  const front = head === '' ? [] : head.split(':');
  const back = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : Math.max(0, 8 - front.length - back.length);
  const groups = [...front, ...Array.from({ length: zeros }, () => '0'), ...back];
  const network = groups.slice(0, 4).map((group) => Number.parseInt(group, 16).toString(16));
  return `address ${network.join(':')}`;
}

function pairKey(address: string, account: string): string {
  return `${addressKey(address)} ${account.slice(0, 64)}`;
}

export class Lockout {
  readonly #monotonicMs: () => number;
  readonly #entriesMax: number;
  /** The one touched longest ago comes first. */
  readonly #entries = new Map<string, Entry>();
  /** Account and address where somebody logged in; the pair used longest ago comes first. */
  readonly #atHome = new Set<string>();
  #attempts = 0;
  #failures = 0;
  #refused = 0;

  constructor(options: { readonly monotonicMs: () => number; readonly entriesMax?: number }) {
    this.#monotonicMs = options.monotonicMs;
    this.#entriesMax = options.entriesMax ?? defaults.entriesMax;
  }

  /** @param account Undefined where only the address counts: its owner is known to be there. */
  begin(address: string, account: string | undefined): Attempt {
    const nowMs = this.#monotonicMs();
    const keys = [{ key: addressKey(address), capMs: addressWaitMsMax, isAccount: false }];
    if (account !== undefined && !this.#atHome.has(pairKey(address, account))) {
      keys.push({ key: `account ${account.slice(0, 64)}`, capMs: accountWaitMsMax, isAccount: true });
    }
    const waitMs = Math.max(0, ...keys.map(({ key }) => (this.#entries.get(key)?.untilMs ?? 0) - nowMs));
    if (waitMs > 0) {
      this.#refused += 1;
      return { kind: 'wait', waitMs };
    }
    this.#attempts += 1;
    this.#failures += 1;
    const attempt = this.#attempts;
    const counted = keys.map(({ key, capMs, isAccount }) => {
      const before = this.#live(key, nowMs);
      const failures = (before?.failures ?? 0) + 1;
      const waits = failures - freeTries;
      const untilMs = waits < 0 ? 0 : nowMs + Math.min(capMs, firstWaitMs * 2 ** Math.min(waits, 10));
      this.#put(key, { failures, untilMs, lastMs: nowMs, attempt });
      return { key, before, isAccount };
    });
    return {
      kind: 'try',
      failures: this.#entries.get(addressKey(address))?.failures ?? 1,
      succeeded: () => {
        this.#failures -= 1;
        for (const { key, before, isAccount } of counted) this.#restore(key, before, isAccount, attempt);
      },
    };
  }

  /** Logged in there: from now on others do not make this account wait there. */
  welcome(address: string, account: string): void {
    const pair = pairKey(address, account);
    this.#atHome.delete(pair);
    this.#atHome.add(pair);
    const [oldest] = this.#atHome;
    if (this.#atHome.size > this.#entriesMax && oldest !== undefined) this.#atHome.delete(oldest);
  }

  stats(): LockoutStats {
    return { entries: this.#entries.size, failures: this.#failures, refused: this.#refused };
  }

  /** An account begins anew. An address does not: its own account would buy an attacker further guesses. */
  #restore(key: string, before: Entry | undefined, isAccount: boolean, attempt: number): void {
    const entry = this.#entries.get(key);
    if (entry === undefined) return;
    if (isAccount || (entry.attempt === attempt && before === undefined)) this.#entries.delete(key);
    else if (entry.attempt === attempt && before !== undefined) this.#entries.set(key, before);
    else entry.failures = Math.max(0, entry.failures - 1);
  }

  #live(key: string, nowMs: number): Entry | undefined {
    const entry = this.#entries.get(key);
    return entry !== undefined && nowMs - entry.lastMs < forgetMs ? entry : undefined;
  }

  #put(key: string, entry: Entry): void {
    this.#entries.delete(key);
    if (this.#entries.size >= this.#entriesMax) {
      const [oldest] = this.#entries.keys();
      if (oldest !== undefined) this.#entries.delete(oldest);
    }
    this.#entries.set(key, entry);
  }
}
