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
