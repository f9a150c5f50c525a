// How long the group commit should linger so that the card lasts as long as it should. Pure. Promises a value from 0
// to the maximum that settles where the bytes a day are just under the budget, and goes back to 0 when there is
// no need. A budget that lingering cannot meet is not met: acknowledgements are never held back further.

export interface LingerInput {
  /** As it is now. */
  readonly lingerMs: number;
  readonly lingerMaxMs: number;
  readonly budgetBytesPerDay: number;
  /** At the rate of the last hour; undefined while too little is known. */
  readonly projectedBytesPerDay: number | undefined;
  /** The last sample: how long it was, the commits in it and what they wrote, and what else was written. */
  readonly elapsedMs: number;
  readonly commits: number;
  readonly commitBytes: number;
  readonly otherBytes: number;
}

const dayMs = 86_400_000;
/** Of what the budget leaves for commits; the rest is for samples that differ. */
const aim = 0.9;
/** Below this part of the aim there is room to linger less. Between the two nothing changes: no hunting. */
const comfortable = 0.8;
/** Part of the way that is taken back at once. Forwards all of it: what was written is never given back. */
const relaxing = 0.25;
/** Part of the maximum that one sample may add or take: few messages in it, and it says little. */
const stepMax = 0.1;
/** Shorter waiting gathers nothing. */
const worthMs = 5;

/** Milliseconds to linger until the next sample. */
export function nextLingerMs(input: LingerInput): number {
  const { lingerMs, lingerMaxMs, budgetBytesPerDay, projectedBytesPerDay, elapsedMs, commits } = input;
  const isBurst = projectedBytesPerDay === undefined || projectedBytesPerDay <= budgetBytesPerDay;
  if (lingerMs === 0 && isBurst) return 0;
  if (commits === 0 || elapsedMs <= 0) return settled(lingerMs / 2, lingerMaxMs);
  const aimBytes = aim * ((budgetBytesPerDay * elapsedMs) / dayMs - input.otherBytes);
  const ratio = aimBytes > 0 ? input.commitBytes / aimBytes : Number.POSITIVE_INFINITY;
  if (ratio <= 1 && ratio >= comfortable) return lingerMs;
  // From one commit to the next passes the lingering and a gap that does not depend on it; bytes go with one over
  // their sum. So this change of the sum, and therefore of the lingering, is the one that makes the ratio 1.
  const change = (elapsedMs / commits) * (ratio - 1);
  const stepMs = stepMax * lingerMaxMs;
  const limited = change > 0 ? Math.min(change, stepMs) : Math.max(change * relaxing, -stepMs);
  return settled(lingerMs + limited, lingerMaxMs);
}

function settled(lingerMs: number, lingerMaxMs: number): number {
  if (lingerMs < worthMs) return 0;
  return Math.min(Math.round(lingerMs), lingerMaxMs);
}
