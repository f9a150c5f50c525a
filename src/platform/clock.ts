// Time as the stages see it. Durations and deadlines use the monotonic clock; only points carry wall time.

import { readFileSync } from 'node:fs';

export interface Clock {
  /** Wall clock in milliseconds since the Unix epoch. May be wrong, may jump. */
  wallMs(): number;
  /** Milliseconds since some fixed moment of this boot. Never jumps. */
  monotonicMs(): number;
  /** Different after every boot of the machine. */
  readonly bootId: string;
}

function readBootId(): string {
  try {
    return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
  } catch {
    // Not Linux (a developer's machine): a process then counts as a boot.
    return `process-${process.pid}-${Date.now()}`;
  }
}

export function systemClock(): Clock {
  return {
    wallMs: () => Date.now(),
    monotonicMs: () => performance.now(),
    bootId: readBootId(),
  };
}

/** Clocks read one behind the other differ a little. */
const toleranceNs = 50_000_000n;
/** A machine that wakes up finds out after so much running time at the latest. */
const checkIntervalNs = 20_000_000n;

function uptimeNs(): bigint | undefined {
  try {
    const seconds = Number.parseFloat(readFileSync('/proc/uptime', 'utf8'));
    return Number.isFinite(seconds) ? BigInt(Math.round(seconds * 1000)) * 1_000_000n : undefined;
  } catch {
    return undefined;
  }
}

/**
 * Nanoseconds since the machine was started, the same for all processes of a boot. The monotonic clock stands still
 * while the machine sleeps; its uptime does not, but counts in hundredths of a second: what the uptime is ahead was
 * slept.
 */
export function bootTime(
  monotonicNs: () => bigint = () => process.hrtime.bigint(),
  readUptimeNs: () => bigint | undefined = uptimeNs,
): () => bigint {
  let sleptNs = 0n;
  let checkedNs: bigint | undefined;
  return () => {
    const ns = monotonicNs();
    if (checkedNs === undefined || ns - checkedNs >= checkIntervalNs) {
      checkedNs = ns;
      const aheadNs = (readUptimeNs() ?? 0n) - ns;
      if (aheadNs - sleptNs > toleranceNs) sleptNs = aheadNs;
    }
    return ns + sleptNs;
  };
}
