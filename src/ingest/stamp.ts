// Gives every sample a time. A node without a clock gets the time of arrival, made strictly increasing so that
// two samples of one series never become one point. A time no clock could have meant (before 2000: a node that
// never heard of NTP; more than a day ahead) is replaced as well and counted: a point from the year 2106 would
// be "the latest" of every query from now on, and refusing it would lose a good value over a bad clock.

import type { Clock } from '../platform/clock.ts';

const year2000Ns = 946_684_800_000_000_000n;
const dayNs = 86_400_000_000_000n;
// The gateway's own clock is not believed before this moment (no RTC, no NTP yet): then nothing is "ahead".
const gatewayClockPlausibleMs = Date.UTC(2025, 0, 1);
// A step back of the wall clock beyond this is followed; below it, time stands still instead.
const backstepNs = 1_000_000_000n;

export class Stamp {
  readonly #clock: Clock;
  #lastNs = 0n;
  #counter = 0;
  #replaced = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** How many given times were not plausible. */
  get replaced(): number {
    return this.#replaced;
  }

  /** Nanoseconds since the Unix epoch, for a sample that says this about its time. */
  timeOf(givenNs: bigint | undefined): bigint {
    if (givenNs !== undefined && this.isPlausible(givenNs)) return givenNs;
    if (givenNs !== undefined) this.#replaced += 1;
    return this.#next(Math.floor(this.#clock.wallMs()));
  }

  /** Whether a clock could have meant it. */
  isPlausible(givenNs: bigint): boolean {
    const wallMs = Math.floor(this.#clock.wallMs());
    const isAhead = wallMs >= gatewayClockPlausibleMs && givenNs > BigInt(wallMs) * 1_000_000n + dayNs;
    return givenNs >= year2000Ns && !isAhead;
  }

  #next(wallMs: number): bigint {
    // The digits below a millisecond count samples: after the clock was set back, the same millisecond comes
    // again but hardly the same count.
    this.#counter = (this.#counter + 1) % 1_000_000;
    let ns = BigInt(wallMs) * 1_000_000n + BigInt(this.#counter);
    if (ns <= this.#lastNs && this.#lastNs - ns < backstepNs) ns = this.#lastNs + 1n;
    this.#lastNs = ns;
    return ns;
  }
}
