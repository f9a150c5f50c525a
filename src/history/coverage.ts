// Since when local history has everything that came. Pure. Errs towards later: what is asked elsewhere as well is
// answered, what is taken for complete and is not would be missed. Does not know of up to five minutes that a power
// cut may have taken (docs/history.md).

import { type Bucket, hourMs } from './chunk-store.ts';

/** A bucket that came later after its time than this holds readings somebody held back: it says nothing of the rest. */
const lateMs = 2 * hourMs;
const dayMs = 24 * hourMs;

/** @param runMs history's own clock, on which buckets are born */
export function coveredFromMs(buckets: readonly Bucket[], runMs: number, wallMs: number): number {
  const startedMs = wallMs - runMs;
  let oldestMs = Number.POSITIVE_INFINITY;
  for (const { level, number, bornMs } of buckets) {
    const lengthMs = level === 'raw' ? hourMs : dayMs;
    const cameMs = startedMs + bornMs;
    if (cameMs - (number + 1) * lengthMs <= lateMs) oldestMs = Math.min(oldestMs, number * lengthMs);
  }
  // Nothing there: nothing came, or all of it is gone; only this run is sure.
  return oldestMs === Number.POSITIVE_INFINITY ? startedMs : Math.max(startedMs, oldestMs);
}
