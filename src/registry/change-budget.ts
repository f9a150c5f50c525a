// How often a device may change what is kept of it: every change is a write that the card has to bear, and a node that
// reports another configuration every second would wear it out. Promises: a bucket for each device; what is no change
// costs nothing. A restart fills the buckets.

import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';

/** So many at once, then one in a minute: 1,440 a day. */
const atOnceMax = 60;
const everyMs = 60_000;

export class ChangeBudget {
  readonly #clock: Pick<Clock, 'monotonicMs'>;
  /** When the bucket will be full again. */
  readonly #fullAtMs = new Map<string, number>();

  constructor(clock: Pick<Clock, 'monotonicMs'>) {
    this.#clock = clock;
  }

  /** @throws GatewayError `RATE_LIMITED`. */
  spend(deviceId: string): void {
    const nowMs = this.#clock.monotonicMs();
    const fullAtMs = Math.max(nowMs, this.#fullAtMs.get(deviceId) ?? nowMs) + everyMs;
    if (fullAtMs - nowMs > atOnceMax * everyMs) {
      throw new GatewayError('RATE_LIMITED', 'too many changes; one in a minute is taken');
    }
    this.#fullAtMs.set(deviceId, fullAtMs);
  }

  forget(deviceId: string): void {
    this.#fullAtMs.delete(deviceId);
  }
}
