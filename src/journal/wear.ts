// Measures what is written to the card and makes the group commit linger when it is more than the card can bear for
// as long as it should last. Promises: figures go on across restarts and reboots (what a power cut can take is the
// last hour of them), and measuring costs the card a kilobyte an hour. Counts time the machine was on. Where the
// block device is not known, only what this process writes is counted.

import {
  type BlockDevice,
  findBlockDevice,
  readDeviceWrittenBytes,
  readLifeUsed,
  readOwnWrittenBytes,
} from '../platform/block-device.ts';
import type { Clock } from '../platform/clock.ts';
import type { Log } from '../platform/log.ts';
import type { HotState } from './contract.ts';
import type { JournalStats } from './journal.ts';
import { nextLingerMs } from './linger.ts';

/** The journal, as far as wear goes. */
interface WornJournal extends HotState {
  stats(): Pick<JournalStats, 'points' | 'commits' | 'writtenBytes'>;
  linger(lingerMs: number): void;
}

export interface WearOptions {
  readonly journal: WornJournal;
  /** The folder whose disk matters. */
  readonly dataDirectory: string;
  readonly clock: Pick<Clock, 'bootId'>;
  /** Milliseconds since boot. */
  readonly uptimeMs: () => number;
  readonly log: Log;
  readonly sampleIntervalMs: number;
  /** Bytes the card bears in its life; undefined: guessed from its size. */
  readonly cardEnduranceBytes: number | undefined;
  /** Undefined: what makes the card last `lifeYears`. */
  readonly budgetBytesPerDay: number | undefined;
  readonly lifeYears: number;
  readonly lingerMaxMs: number;
  /** Elsewhere in tests. */
  readonly sysDirectory?: string;
  readonly procDirectory?: string;
}

export interface WearStats {
  /** `mmcblk0`; undefined where the block device is not known and only this process is counted. */
  readonly device: string | undefined;
  /** Since this process started. */
  readonly deviceWrittenBytes: number;
  readonly ownWrittenBytes: number;
  /** Over the last day the machine was on, or what has been seen of it; undefined in the first minutes. */
  readonly bytesPerDay: number | undefined;
  /** At the rate of the last hour. */
  readonly bytesPerDayLastHour: number | undefined;
  /** How long `bytesPerDay` was measured. */
  readonly measuredMs: number;
  /** What this process wrote for each point made durable. */
  readonly ownBytesPerPoint: number | undefined;
  readonly enduranceBytes: number;
  /** What the card says of itself, 0 to 1; most say nothing. */
  readonly lifeUsed: number | undefined;
  /** How long it lasts if every day is like the last one. */
  readonly lifeYears: number | undefined;
  readonly budgetBytesPerDay: number;
  readonly lingerMs: number;
}

/** What was written in a stretch of time. */
interface Stretch {
  ms: number;
  deviceBytes: number;
  ownBytes: number;
  points: number;
}

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const yearDays = 365.25;
const hoursKept = 24;
/** A rate of fewer samples says little. */
const samplesMin = 10;
/**
 * How often a card can be written full: cheap TLC bears some 300 cycles, and each byte of small synced writes costs
 * it about three. A card of 32 GB then bears 3.2 TB, the low end of what such cards are measured to bear.
 */
const fullWrites = 100;
/** Where not even the size is known: a card of 32 GB. */
const bytesGuessed = 32e9;
const stateKey = 'wear/hours';

interface Counters {
  readonly uptimeMs: number;
  readonly deviceBytes: number;
  readonly ownBytes: number;
  readonly points: number;
  readonly commits: number;
  readonly commitBytes: number;
}

interface Stored {
  readonly boot: string;
  readonly disk: string;
  readonly uptimeMs: number;
  readonly deviceBytes: number;
  readonly hours: readonly Stretch[];
}

function nothing(): Stretch {
  return { ms: 0, deviceBytes: 0, ownBytes: 0, points: 0 };
}

function sum(stretches: readonly Stretch[]): Stretch {
  const total = nothing();
  for (const { ms, deviceBytes, ownBytes, points } of stretches) {
    total.ms += ms;
    total.deviceBytes += deviceBytes;
    total.ownBytes += ownBytes;
    total.points += points;
  }
  return total;
}

function isStretch(value: unknown): value is Stretch {
  if (typeof value !== 'object' || value === null) return false;
  const { ms, deviceBytes, ownBytes, points } = value as Record<string, unknown>;
  return [ms, deviceBytes, ownBytes, points].every(
    (figure) => Number.isFinite(figure) && Number(figure) >= 0,
  );
}

/** Undefined for what this version did not write: figures that are lost are only figures. */
function parseStored(value: Buffer | undefined): Stored | undefined {
  if (value === undefined) return undefined;
  try {
    const { boot, disk, uptimeMs, deviceBytes, hours } = JSON.parse(value.toString()) as Record<
      string,
      unknown
    >;
    if (typeof boot !== 'string' || typeof disk !== 'string' || !Array.isArray(hours)) return undefined;
    if (!Number.isFinite(uptimeMs) || !Number.isFinite(deviceBytes) || !hours.every(isStretch))
      return undefined;
    return { boot, disk, uptimeMs: Number(uptimeMs), deviceBytes: Number(deviceBytes), hours };
  } catch {
    return undefined;
  }
}

export class WearMeter {
  readonly #options: WearOptions;
  readonly #device: BlockDevice | undefined;
  readonly #first: Counters;
  #last: Counters;
  /** The last hour, by sample. */
  #recent: Stretch[] = [];
  /** The last day by hours, the newest last and still growing. */
  #hours: Stretch[];
  #lifeUsed: number | undefined;
  #lingerMs = 0;
  #timer: NodeJS.Timeout | undefined;
  #underWay: Promise<void> | undefined;

  private constructor(
    options: WearOptions,
    device: BlockDevice | undefined,
    first: Counters,
    hours: readonly Stretch[],
  ) {
    this.#options = options;
    this.#device = device;
    this.#first = first;
    this.#last = first;
    this.#hours = hours.length === 0 ? [nothing()] : hours.slice(-hoursKept);
  }

  static async start(options: WearOptions): Promise<WearMeter> {
    const device = await findBlockDevice(options.dataDirectory, options.sysDirectory);
    const first = await countersOf(options, device, 0);
    const stored = parseStored(await options.journal.get(stateKey));
    const isSameDisk = stored?.disk === diskOf(device);
    const meter = new WearMeter(options, device, first, isSameDisk ? stored.hours : []);
    if (isSameDisk && device !== undefined) {
      // What was written while we were away, or by a boot: since the last look, or all of it when the counters began
      // anew. Points are only counted while we are there to take them.
      const before = stored.boot === options.clock.bootId ? stored : { uptimeMs: 0, deviceBytes: 0 };
      meter.#add({
        ...nothing(),
        ms: Math.max(0, first.uptimeMs - before.uptimeMs),
        deviceBytes: Math.max(0, first.deviceBytes - before.deviceBytes),
      });
    }
    if (device !== undefined) meter.#lifeUsed = await readLifeUsed(device);
    meter.#timer = setInterval(() => void meter.look(), options.sampleIntervalMs);
    meter.#timer.unref();
    return meter;
  }

  /** Takes a sample now, or joins the one under way. Never rejects. */
  look(): Promise<void> {
    this.#underWay ??= this.#sample().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  stats(): WearStats {
    const day = sum(this.#hours);
    const isKnown = day.ms >= samplesMin * this.#options.sampleIntervalMs;
    const bytesPerDay = isKnown ? (day.deviceBytes / day.ms) * dayMs : undefined;
    const enduranceBytes = this.#enduranceBytes;
    const leftBytes = enduranceBytes * (1 - (this.#lifeUsed ?? 0));
    return {
      device: this.#device?.name,
      deviceWrittenBytes: Math.max(0, this.#last.deviceBytes - this.#first.deviceBytes),
      ownWrittenBytes: Math.max(0, this.#last.ownBytes - this.#first.ownBytes),
      bytesPerDay,
      bytesPerDayLastHour: this.#bytesPerDayLastHour,
      measuredMs: day.ms,
      ownBytesPerPoint: day.points === 0 ? undefined : day.ownBytes / day.points,
      enduranceBytes,
      lifeUsed: this.#lifeUsed,
      lifeYears:
        bytesPerDay === undefined || bytesPerDay === 0 ? undefined : leftBytes / bytesPerDay / yearDays,
      budgetBytesPerDay: this.#budgetBytesPerDay,
      lingerMs: this.#lingerMs,
    };
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.look();
    this.#save();
  }

  get #enduranceBytes(): number {
    return this.#options.cardEnduranceBytes ?? (this.#device?.bytes ?? bytesGuessed) * fullWrites;
  }

  get #budgetBytesPerDay(): number {
    const { budgetBytesPerDay, lifeYears } = this.#options;
    return budgetBytesPerDay ?? this.#enduranceBytes / (lifeYears * yearDays);
  }

  get #bytesPerDayLastHour(): number | undefined {
    const hour = sum(this.#recent);
    return this.#recent.length < samplesMin ? undefined : (hour.deviceBytes / hour.ms) * dayMs;
  }

  async #sample(): Promise<void> {
    const before = this.#last;
    const now = await countersOf(this.#options, this.#device, before.deviceBytes);
    const stretch: Stretch = {
      ms: now.uptimeMs - before.uptimeMs,
      deviceBytes: Math.max(0, now.deviceBytes - before.deviceBytes),
      ownBytes: Math.max(0, now.ownBytes - before.ownBytes),
      points: now.points - before.points,
    };
    if (stretch.ms <= 0) return;
    this.#last = now;
    this.#recent.push(stretch);
    while (this.#recent.length > samplesMin && sum(this.#recent).ms > hourMs) this.#recent.shift();
    this.#add(stretch);
    const commitBytes = now.commitBytes - before.commitBytes;
    this.#govern({
      elapsedMs: stretch.ms,
      commits: now.commits - before.commits,
      commitBytes,
      otherBytes: Math.max(0, stretch.deviceBytes - commitBytes),
    });
  }

  #add(stretch: Stretch): void {
    const hour = this.#hours.at(-1) ?? nothing();
    Object.assign(hour, sum([hour, stretch]));
    if (hour.ms < hourMs) return;
    this.#save();
    this.#hours.push(nothing());
    this.#hours = this.#hours.slice(-hoursKept);
  }

  #govern(sample: { elapsedMs: number; commits: number; commitBytes: number; otherBytes: number }): void {
    const lingerMs = nextLingerMs({
      lingerMs: this.#lingerMs,
      lingerMaxMs: this.#options.lingerMaxMs,
      budgetBytesPerDay: this.#budgetBytesPerDay,
      projectedBytesPerDay: this.#bytesPerDayLastHour,
      ...sample,
    });
    if ((lingerMs === 0) !== (this.#lingerMs === 0)) {
      this.#options.log.info(
        { event: 'linger', lingerMs, budgetBytesPerDay: Math.round(this.#budgetBytesPerDay) },
        lingerMs === 0 ? 'The card is written within its budget again' : 'Commits linger to spare the card',
      );
    }
    this.#lingerMs = lingerMs;
    this.#options.journal.linger(lingerMs);
  }

  /** Rides with the next commit. */
  #save(): void {
    const stored: Stored = {
      boot: this.#options.clock.bootId,
      disk: diskOf(this.#device),
      uptimeMs: this.#last.uptimeMs,
      deviceBytes: this.#last.deviceBytes,
      hours: this.#hours,
    };
    this.#options.journal.writeLazily([{ key: stateKey, value: Buffer.from(JSON.stringify(stored)) }]);
  }
}

/** A card that was exchanged begins anew. */
function diskOf(device: BlockDevice | undefined): string {
  return device === undefined ? '' : `${device.name} ${device.bytes}`;
}

/** @param deviceBytes for a device that cannot be read just now */
async function countersOf(
  options: WearOptions,
  device: BlockDevice | undefined,
  deviceBytes: number,
): Promise<Counters> {
  const own = (await readOwnWrittenBytes(options.procDirectory)) ?? 0;
  const written = device === undefined ? own : await readDeviceWrittenBytes(device);
  const { points, commits, writtenBytes } = options.journal.stats();
  return {
    uptimeMs: options.uptimeMs(),
    deviceBytes: written ?? deviceBytes,
    ownBytes: own,
    points,
    commits,
    commitBytes: writtenBytes,
  };
}
