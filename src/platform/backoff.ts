// How long to wait before the next try. Pure: the caller keeps the count of failures and brings the chance.

export interface BackoffRange {
  /** The first wait, before jitter. */
  readonly minMs: number;
  /** No wait is longer. */
  readonly maxMs: number;
}

/**
 * Doubles with every failure from `minMs` to `maxMs`; the upper half of it is chance, so that a street of
 * gateways does not knock in step when its provider comes back.
 * @param failures how many tries failed in a row, 1 being the first
 * @param random uniform in [0, 1)
 */
export function backoffMs(failures: number, random: () => number, range: BackoffRange): number {
  // Past 2^30 the ceiling has long been reached; without the bound the power would become infinite.
  const doublings = Math.min(Math.max(failures, 1) - 1, 30);
  const ceiling = Math.min(range.maxMs, range.minMs * 2 ** doublings);
  return Math.round(ceiling / 2 + (ceiling / 2) * random());
}
