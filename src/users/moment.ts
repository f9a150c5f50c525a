// Moments that are kept over restarts, and how long ago they were. Promises: a wall clock that jumps makes nothing
// older or younger. Within a boot of the machine the running time decides; between boots their dates, as soon as
// they are known; until then at least what is certain.

/** `TimeBase`, as far as it is needed here. */
export interface KnownTime {
  readonly isKnown: boolean;
  wallMs(): number;
  readonly boot: number;
  bootNs(): bigint;
  dateOf(boot: number, bootNs: bigint): { readonly timeNs: bigint; readonly isCertain: boolean } | undefined;
}

/** As it is stored. */
export interface Moment {
  readonly wallMs: number;
  /** Missing where nobody knew whether the wall clock was right: beside a stopped gateway. */
  readonly boot?: number;
  readonly bootMs?: number;
}

const nsPerMs = 1_000_000n;

export function momentNow(time: KnownTime): Moment {
  return { wallMs: Math.round(time.wallMs()), boot: time.boot, bootMs: Number(time.bootNs() / nsPerMs) };
}

/** When it was; what nobody is sure of says so. */
export function dated(moment: Moment, time: KnownTime | undefined): { wallMs: number; isCertain: boolean } {
  const { wallMs, boot, bootMs } = moment;
  if (boot === undefined || bootMs === undefined || time === undefined) return { wallMs, isCertain: false };
  const date = time.dateOf(boot, BigInt(Math.round(bootMs)) * nsPerMs);
  if (date === undefined) return { wallMs, isCertain: false };
  return { wallMs: Number(date.timeNs / nsPerMs), isCertain: date.isCertain };
}

export function isMoment(value: unknown): value is Moment {
  if (typeof value !== 'object' || value === null) return false;
  const { wallMs, boot, bootMs } = value as Record<string, unknown>;
  const isCount = (part: unknown) =>
    part === undefined || (typeof part === 'number' && Number.isFinite(part));
  return typeof wallMs === 'number' && Number.isFinite(wallMs) && isCount(boot) && isCount(bootMs);
}

/** RFC 3339; a time no calendar knows (a damaged clock) is shown as the epoch rather than as an error. */
export function isoTime(wallMs: number): string {
  const time = new Date(wallMs);
  return Number.isNaN(time.getTime()) ? new Date(0).toISOString() : time.toISOString();
}
/** How long ago it was, at least. */
export function elapsedMs(moment: Moment, time: KnownTime): number {
  const runningMs = Number(time.bootNs() / nsPerMs);
  const { boot, bootMs = 0 } = moment;
  if (boot === time.boot) return Math.max(0, runningMs - bootMs);
  const isDated = boot === undefined || time.dateOf(boot, BigInt(Math.round(bootMs)) * nsPerMs) !== undefined;
  const byDateMs = isDated ? time.wallMs() - dated(moment, time).wallMs : 0;
  // It was before this boot, so this boot's running time has passed since.
  return Math.max(0, byDateMs, boot === undefined ? 0 : runningMs);
}
