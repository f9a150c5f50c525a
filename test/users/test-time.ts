// A machine's time under the test's hand: it passes, its date is unknown, found, and set wrong; the machine restarts.

import type { KnownTime } from '../../src/users/moment.ts';

export class TestTime implements KnownTime {
  boot = 1;
  #ranMs = 1_000_000;
  /** When each boot began, where that is known. */
  readonly #starts = new Map<number, number>([[1, Date.UTC(2026, 0, 1) - 1_000_000]]);
  #floorMs = Date.UTC(2025, 0, 1);

  get isKnown(): boolean {
    return this.#starts.has(this.boot);
  }

  wallMs(): number {
    const start = this.#starts.get(this.boot);
    return start === undefined ? this.#floorMs : start + this.#ranMs;
  }

  bootNs(): bigint {
    return BigInt(this.#ranMs) * 1_000_000n;
  }

  dateOf(boot: number, bootNs: bigint) {
    const start = this.#starts.get(boot);
    return start === undefined ? undefined : { timeNs: BigInt(start) * 1_000_000n + bootNs, isCertain: true };
  }

  monotonicMs(): number {
    return this.#ranMs;
  }

  passMs(ms: number): void {
    this.#ranMs += ms;
  }

  forgetDate(): void {
    this.#starts.delete(this.boot);
  }

  learnDate(wallMs: number): void {
    this.#starts.set(this.boot, wallMs - this.#ranMs);
  }

  /** Off for a while; the new boot does not know its date yet. */
  restart(): void {
    this.#floorMs = Math.max(this.#floorMs, this.isKnown ? this.wallMs() : 0);
    this.boot += 1;
    this.#ranMs = 0;
  }
}
