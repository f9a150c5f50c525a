// The boots of this machine that points without a date may be of, in order, and what is known of when they were. Pure.
// A boot has a date once somebody knew the time during it. Of one that never had, all that can be said is that it ended
// before the next one began: its points get the latest time they can have had, as if the machine had been off for no
// time at all in between.

import { createHash } from 'node:crypto';

export interface Boot {
  /** Made of the machine's boot id, so that it names this boot and no other, even if the table is lost. */
  readonly number: number;
  /** How long it has been seen running, nanoseconds. */
  readonly lastNs: bigint;
  /** When it began, nanoseconds since the Unix epoch. Never changed: what was sent once is sent again the same. */
  readonly startNs?: bigint;
  /** Nanoseconds the wall clock was ahead of the running time when last looked at, if the wall clock was believed. */
  readonly wallOffsetNs?: bigint;
}

/** How long a boot the table knows nothing of may have lasted. */
const forgottenBootNs = 30n * 24n * 3600n * 1_000_000_000n;

/** 48 bits of the boot id: no two boots of a machine will ever share them. */
export function bootNumberOf(bootId: string): number {
  return createHash('sha256').update(bootId).digest().readUIntBE(0, 6);
}

/** Undefined while nobody knows: no boot from this one on has a date. */
export function dateOf(
  boots: readonly Boot[],
  number: number,
  bootNs: bigint,
): { readonly timeNs: bigint; readonly isCertain: boolean } | undefined {
  const at = boots.findIndex((boot) => boot.number === number);
  const start = boots[at]?.startNs;
  if (start !== undefined) return { timeNs: start + bootNs, isCertain: true };
  const next = boots.findIndex((boot, index) => index > at && boot.startNs !== undefined);
  let endNs = boots[next]?.startNs;
  if (endNs === undefined) return undefined;
  for (const between of boots.slice(at + 1, next)) endNs -= between.lastNs;
  // One the table has forgotten was before all that it knows.
  const assumedNs = bootNs > forgottenBootNs ? bootNs : forgottenBootNs;
  return { timeNs: endNs - (boots[at]?.lastNs ?? assumedNs) + bootNs, isCertain: false };
}

/** It is later than this, whatever the clock says; undefined when nothing was ever known. */
export function newestKnownNs(boots: readonly Boot[]): bigint | undefined {
  const known = boots.findLastIndex((boot) => boot.startNs !== undefined);
  let ns = boots[known]?.startNs;
  if (ns === undefined) return undefined;
  for (const boot of boots.slice(known)) ns += boot.lastNs;
  return ns;
}

export function encodeBoot(boot: Boot): Buffer {
  const { number, lastNs, startNs, wallOffsetNs } = boot;
  return Buffer.from(
    JSON.stringify({
      v: 1,
      number,
      last: String(lastNs),
      start: startNs === undefined ? undefined : String(startNs),
      wall: wallOffsetNs === undefined ? undefined : String(wallOffsetNs),
    }),
  );
}

function isDigits(value: unknown): value is string {
  return typeof value === 'string' && /^-?\d{1,19}$/.test(value);
}

/** Undefined when the bytes are none. */
export function decodeBoot(bytes: Buffer): Boot | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const { v, number, last, start, wall } = value as Record<string, unknown>;
  if (v !== 1 || typeof number !== 'number' || !Number.isSafeInteger(number) || !isDigits(last)) {
    return undefined;
  }
  return {
    number,
    lastNs: BigInt(last),
    ...(isDigits(start) ? { startNs: BigInt(start) } : {}),
    ...(isDigits(wall) ? { wallOffsetNs: BigInt(wall) } : {}),
  };
}
