// How old a command is, on a machine whose clock may be wrong or unknown (docs/decisions/0005). Within a boot that is
// exact. Across boots it takes both their dates, which are only given once something knows them; until then it is at
// least as old as this boot. An age is never too great, so nothing expires because a clock was set.

import type { Moment } from './command.ts';

/** What `platform/time-base.ts` knows. */
export interface CommandTime {
  readonly boot: number;
  bootNs(): bigint;
  /** Undefined while nobody knows when the boot began; when that is only bounded, not certain. */
  dateOf(boot: number, bootNs: bigint): { readonly timeNs: bigint; readonly isCertain: boolean } | undefined;
}

export interface Age {
  readonly ms: number;
  /** Otherwise it may be any older. */
  readonly isExact: boolean;
}

export function momentOf(time: CommandTime): Moment {
  return { boot: time.boot, bootNs: time.bootNs() };
}

export function ageOf(time: CommandTime, since: Moment): Age {
  const now = momentOf(time);
  if (since.boot === now.boot) return { ms: toMs(now.bootNs - since.bootNs), isExact: true };
  const from = time.dateOf(since.boot, since.bootNs);
  const to = time.dateOf(now.boot, now.bootNs);
  const thisBootMs = toMs(now.bootNs);
  if (from === undefined || to === undefined) return { ms: thisBootMs, isExact: false };
  return {
    ms: Math.max(toMs(to.timeNs - from.timeNs), thisBootMs),
    isExact: from.isCertain && to.isCertain,
  };
}

function toMs(ns: bigint): number {
  return Number(ns / 1_000_000n);
}
