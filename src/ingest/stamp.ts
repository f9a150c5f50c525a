// Gives every sample a time. A node without a clock gets the time of arrival, made strictly increasing so that
// two samples of one series never become one point. A time no clock could have meant (before 2000: a node that
// never heard of NTP; more than a day ahead) is replaced as well and counted: a point from the year 2106 would
// be "the latest" of every query from now on, and refusing it would lose a good value over a bad clock. While the
// gateway's own clock is not to be trusted, arrivals are counted from the start of the boot, and a node that knows
// the time is believed.

import type { PointTime } from '../model/point.ts';

/** What is known of the time; `platform/time-base.ts`. */
export interface StampTime {
  readonly isKnown: boolean;
  /** The number of this boot of the machine. */
  readonly boot: number;
  /** The date, milliseconds; while it is not known: it is at least so late. */
  wallMs(): number;
  /** Nanoseconds since the machine was started. */
  bootNs(): bigint;
  /** When a moment of a boot was; undefined while nobody knows. */
  dateOf(boot: number, bootNs: bigint): { readonly timeNs: bigint } | undefined;
}

const year2000Ns = 946_684_800_000_000_000n;
const dayNs = 86_400_000_000_000n;
/** A gateway may have lain in a drawer since it last knew the time, but hardly longer. */
const drawerNs = 3_650n * dayNs;
// A step back of the wall clock beyond this is followed; below it, time stands still instead.
const backstepNs = 1_000_000_000n;
/** Before times come that have been given out already, so that none is given twice: as many steps back as are told apart. */
const laps = 8;
const countMax = 1_000_000 / laps;

export class Stamp {
  readonly #time: StampTime;
  #lastNs = 0n;
  #lastBootNs = 0n;
  #count = 0;
  #lap = 0;
  #replaced = 0;

  constructor(time: StampTime) {
    this.#time = time;
  }

  /** How many given times were not plausible. */
  get replaced(): number {
    return this.#replaced;
  }

  /** When a sample was that says this about its time, in nanoseconds since the Unix epoch. */
  timeOf(givenNs: bigint | undefined): PointTime {
    if (givenNs !== undefined && this.isPlausible(givenNs)) return { timeNs: givenNs };
    if (givenNs !== undefined) this.#replaced += 1;
    const { boot, isKnown } = this.#time;
    return isKnown ? { timeNs: this.#next() } : { timeNs: this.#nextOfBoot(), boot };
  }

  /** Whether a clock could have meant it. */
  isPlausible(givenNs: bigint): boolean {
    const latestNs = this.#wallMsNs() + (this.#time.isKnown ? dayNs : drawerNs);
    return givenNs >= year2000Ns && givenNs <= latestNs;
  }

  /** The wall clock's milliseconds. */
  #wallMsNs(): bigint {
    return BigInt(Math.floor(this.#time.wallMs())) * 1_000_000n;
  }

  #next(): bigint {
    if (this.#lastBootNs > 0n) this.#continueBoot();
    // The digits below a millisecond count samples, and say after which step back: the same milliseconds may come again.
    this.#count = (this.#count + 1) % countMax;
    const wallNs = this.#wallMsNs();
    let ns = wallNs + BigInt(this.#count * laps + this.#lap);
    if (ns <= this.#lastNs) {
      if (this.#lastNs - ns < backstepNs) ns = this.#lastNs + BigInt(laps);
      else {
        this.#lap = (this.#lap + 1) % laps;
        ns = wallNs + BigInt(this.#count * laps + this.#lap);
      }
    }
    this.#lastNs = ns;
    return ns;
  }

  #nextOfBoot(): bigint {
    const ns = this.#time.bootNs();
    this.#lastBootNs = ns > this.#lastBootNs ? ns : this.#lastBootNs + 1n;
    return this.#lastBootNs;
  }

  /** The first dated sample comes after the last one that had no date. */
  #continueBoot(): void {
    const last = this.#time.dateOf(this.#time.boot, this.#lastBootNs)?.timeNs ?? 0n;
    if (last > this.#lastNs) this.#lastNs = last;
    this.#lastBootNs = 0n;
  }
}
