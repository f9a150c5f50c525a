// Latencies in fixed buckets: a few number fields, nothing allocated per observation. Promises counts that
// never lose an observation and an honest maximum; does not promise exact quantiles, only the bucket's bound.

/** Upper bounds of the buckets in milliseconds; what is slower falls into a last one without a bound. */
const boundsMs = [
  0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000,
] as const satisfies readonly number[];

export interface HistogramSnapshot {
  /** Upper bounds, inclusive, ascending, in milliseconds. */
  readonly boundsMs: readonly number[];
  /** Observations per bucket, not cumulative; one more than there are bounds. */
  readonly counts: readonly number[];
  readonly count: number;
  readonly sumMs: number;
  readonly maxMs: number;
}

export class Histogram {
  readonly #counts: number[] = new Array<number>(boundsMs.length + 1).fill(0);
  #count = 0;
  #sumMs = 0;
  #maxMs = 0;

  /** A negative duration (a clock that ran backwards) counts as zero; NaN is ignored. */
  observe(durationMs: number): void {
    if (Number.isNaN(durationMs)) return;
    const ms = Math.max(0, durationMs);
    let bucket = 0;
    while (bucket < boundsMs.length && ms > (boundsMs[bucket] ?? 0)) bucket += 1;
    this.#counts[bucket] = (this.#counts[bucket] ?? 0) + 1;
    this.#count += 1;
    this.#sumMs += ms;
    if (ms > this.#maxMs) this.#maxMs = ms;
  }

  snapshot(): HistogramSnapshot {
    return {
      boundsMs,
      counts: [...this.#counts],
      count: this.#count,
      sumMs: this.#sumMs,
      maxMs: this.#maxMs,
    };
  }
}
