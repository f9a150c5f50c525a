// Whether this machine's wall clock is right, as far as the machine can tell. Cheapest first: the file that
// systemd-timesyncd touches when it has set the clock, a battery clock the kernel took the time from, the kernel's own
// word (which chrony and ntpd set as well) by way of timedatectl. Never throws.

import { execFile } from 'node:child_process';
import { access, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { ClockVerdict } from './time-base.ts';

const run = promisify(execFile);

export interface MachineOptions {
  /** Trusted as soon as it exists, and not before; nobody else is asked. */
  readonly synchronizedPath?: string | undefined;
  readonly wallMs: () => number;
  readonly monotonicMs: () => number;
  /** Where `run` and `sys` are, and what answers `show --property=NTPSynchronized --value`. For tests. */
  readonly root?: string;
  readonly timedatectl?: string;
}

/** A battery clock says the time to the second; when the system clock says another, it was not set from it. */
const rtcToleranceMs = 60_000;
/** A process each time, and one more for the bus: not every second. */
const askIntervalMs = 10_000;
const askIntervalMaxMs = 60_000;
const askTimeoutMs = 5_000;

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

async function text(path: string): Promise<string | undefined> {
  return await readFile(path, 'utf8').then(
    (content) => content.trim(),
    () => undefined,
  );
}

export function clockProbe(options: MachineOptions): () => Promise<ClockVerdict> {
  const { root = '/', timedatectl = 'timedatectl', synchronizedPath } = options;
  let nextAskMs = Number.NEGATIVE_INFINITY;
  let intervalMs = askIntervalMs;

  /**
   * Whether the kernel set the clock from a battery clock that knew the time. An empty one (a Pi 5 without its battery)
   * starts in 1970, and the system clock is then moved to when the machine was last on: the two disagree.
   */
  async function isSetFromRtc(): Promise<boolean> {
    const rtc = join(root, 'sys/class/rtc/rtc0');
    if ((await text(join(rtc, 'hctosys'))) !== '1') return false;
    const seconds = Number((await text(join(rtc, 'since_epoch'))) ?? Number.NaN);
    return Math.abs(seconds * 1000 - options.wallMs()) <= rtcToleranceMs;
  }

  async function isKernelSynchronized(): Promise<boolean> {
    if (options.monotonicMs() < nextAskMs) return false;
    try {
      const { stdout } = await run(timedatectl, ['show', '--property=NTPSynchronized', '--value'], {
        timeout: askTimeoutMs,
      });
      return stdout.trim() === 'yes';
    } catch {
      // Not there, or the bus is not up yet.
      return false;
    } finally {
      nextAskMs = options.monotonicMs() + intervalMs;
      intervalMs = Math.min(askIntervalMaxMs, intervalMs * 1.2);
    }
  }

  return async () => {
    if (synchronizedPath !== undefined) {
      return (await exists(synchronizedPath))
        ? { kind: 'synchronized', source: synchronizedPath }
        : { kind: 'waiting' };
    }
    // On a tmpfs: when it is there it was made in this boot.
    if (await exists(join(root, 'run/systemd/timesync/synchronized'))) {
      return { kind: 'synchronized', source: 'systemd-timesyncd' };
    }
    if (await isSetFromRtc()) return { kind: 'battery' };
    // No init that would know (a container, another system): nothing will ever tell.
    if (!(await exists(join(root, 'run/systemd/system')))) return { kind: 'silent' };
    return (await isKernelSynchronized())
      ? { kind: 'synchronized', source: 'the kernel' }
      : { kind: 'waiting' };
  };
}
