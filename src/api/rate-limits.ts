// How often one may ask: a token bucket for each valid caller, and one for each address for everybody else, so that
// whoever guesses keys or floods does not use up what a device has. Promises: memory is bounded; the longest unused
// bucket goes first. An IPv6 address counts as its /64, which is what one house or attacker is given.

import { isIPv6 } from 'node:net';
import type { Clock } from '../platform/clock.ts';
import type { Caller } from './route.ts';

interface Rate {
  readonly perSecond: number;
  /** How many at once after a pause. */
  readonly burst: number;
}

interface RateLimitsOptions {
  readonly clock: Pick<Clock, 'monotonicMs'>;
  /** Default: 20 a second, 200 at once. A node that sends its backlog uses batches. */
  readonly caller?: Rate;
  /** Default: 5 a second, 60 at once; a page with everything on it asks some ten times. */
  readonly address?: Rate;
  readonly bucketsMax?: number;
}

interface Bucket {
  tokens: number;
  atMs: number;
}

const defaults = {
  caller: { perSecond: 20, burst: 200 },
  address: { perSecond: 5, burst: 60 },
  bucketsMax: 4_096,
} as const;

/** The first four groups of an IPv6 address; anything else as it is. */
function networkOf(address: string): string {
  if (!isIPv6(address) || address.includes('.')) return address;
  const [head = '', tail] = (address.split('%')[0] ?? '').split('::');
  const left = head === '' ? [] : head.split(':');
  const right = tail === undefined || tail === '' ? [] : tail.split(':');
  const zeros = tail === undefined ? 0 : 8 - left.length - right.length;
  return [...left, ...Array<string>(zeros).fill('0'), ...right].slice(0, 4).join(':');
}

export class RateLimits {
  readonly #options: RateLimitsOptions;
  /** The longest unused first. */
  readonly #buckets = new Map<string, Bucket>();

  constructor(options: RateLimitsOptions) {
    this.#options = options;
  }

  get buckets(): number {
    return this.#buckets.size;
  }

  /** Takes one request; when there is none to take, in how many milliseconds there will be. */
  take(caller: Caller, address: string): number | undefined {
    const { clock, bucketsMax = defaults.bucketsMax } = this.#options;
    const isKnown = caller.kind !== 'anyone';
    const rate = isKnown
      ? (this.#options.caller ?? defaults.caller)
      : (this.#options.address ?? defaults.address);
    const nowMs = clock.monotonicMs();
    const name = isKnown ? nameOf(caller) : `address ${networkOf(address)}`;
    const bucket = this.#buckets.get(name) ?? { tokens: rate.burst, atMs: nowMs };
    const refilled = bucket.tokens + ((nowMs - bucket.atMs) / 1000) * rate.perSecond;
    bucket.tokens = Math.min(rate.burst, refilled);
    bucket.atMs = nowMs;
    this.#buckets.delete(name);
    this.#buckets.set(name, bucket);
    if (this.#buckets.size > bucketsMax) {
      for (const oldest of this.#buckets.keys()) {
        this.#buckets.delete(oldest);
        break;
      }
    }
    if (bucket.tokens < 1) return ((1 - bucket.tokens) / rate.perSecond) * 1000;
    bucket.tokens -= 1;
    return undefined;
  }
}

function nameOf(caller: Exclude<Caller, { readonly kind: 'anyone' }>): string {
  return caller.kind === 'user' ? `user ${caller.name}` : `device ${caller.deviceId}`;
}
