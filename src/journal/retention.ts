// The caps over what waits in blocks, by bytes and by age. Promises: the least valuable goes first and the oldest of
// it; telemetry is thinned to minutes, then to hours, before any is dropped; what is being sent is left alone; each
// drop and each thinning is counted and reported. Age is that of the journal's own running clock: a wall clock that was
// set wrong, or right after years, deletes nothing.

import { type PointClass, pointClasses } from '../model/point.ts';
import { hourNs, minuteNs } from '../model/thinning.ts';
import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { refOf, type Span, spanOf, type ThinnedBlock, thinBlocks } from './block-thinning.ts';
import {
  type Block,
  type BlockRef,
  type Blocks,
  hourRow,
  minuteRow,
  type RowIndex,
  rawRow,
  rowsOf,
} from './blocks.ts';
import { type ByClass, byClass, type ClassIndex, classIndexes } from './class-index.ts';

/** Thinning starts so far below the cap, and goes down to twice that: not once for every block. */
const marginShare = 1 / 16;
/** Of all telemetry so much, the newest, stays as it came, and as much as minutes. */
const keptShare = 1 / 4;
/** A thinned block must be smaller than its sources by so much, or it is not worth writing. */
const worthwhileShare = 3 / 4;

export type DropReason = 'capacity' | 'age' | 'damage';
export type Drops = ByClass<Readonly<Record<DropReason, number>>>;

/** What one run did, told once. */
export interface RetentionReport extends Span {
  readonly kind: 'thinned' | 'dropped';
  readonly class: PointClass;
  /** Of what was thinned: the window; of what was dropped: why. */
  readonly detail: '1m' | '1h' | 'capacity' | 'age';
  readonly points: number;
  /** Points that are left of them. */
  readonly kept: number;
  /** Stored bytes saved. */
  readonly bytes: number;
}

export interface ThinnedFigures {
  /** Points that were thinned, points they became, stored bytes saved. */
  readonly points: number;
  readonly kept: number;
  readonly bytes: number;
  readonly runs: number;
}

export interface RetentionStats {
  readonly thinned: Readonly<Record<'1m' | '1h', ThinnedFigures>>;
  /** The newest report of each kind since the start. */
  readonly lastThinned: RetentionReport | undefined;
  readonly lastDropped: RetentionReport | undefined;
  readonly isRunning: boolean;
}

export interface RetentionOptions {
  readonly blocks: Blocks;
  readonly log: Log;
  readonly maxBytes: number;
  readonly maxAgeMs: ByClass<number>;
  readonly intervalMs: number;
  readonly blockPoints: number;
  readonly gzipLevel: number;
  readonly journalMs: () => number;
  /** The block without what was deleted of it. */
  readonly strip: (block: Block) => Promise<Block>;
  /** Another number after each deletion. */
  readonly erasures: () => number;
  /** Whether a deletion that has begun must tell these two frames apart. */
  readonly isErasureBetween: (sequence: number, later: number) => boolean;
  readonly onReport: (report: RetentionReport) => void;
  /** What was held back meanwhile can be taken, thinned or not. */
  readonly onDone: () => void;
}

interface Level {
  readonly name: '1m' | '1h';
  readonly row: RowIndex;
  readonly windowNs: bigint;
}

const minutes: Level = { name: '1m', row: minuteRow, windowNs: minuteNs };
const hours: Level = { name: '1h', row: hourRow, windowNs: hourNs };

function noDrops(): Record<DropReason, number> {
  return { capacity: 0, age: 0, damage: 0 };
}

function nothingThinned(): ThinnedFigures {
  return { points: 0, kept: 0, bytes: 0, runs: 0 };
}

export class Retention {
  readonly #options: RetentionOptions;
  readonly #highBytes: number;
  readonly #lowBytes: number;
  readonly #dropped = [noDrops(), noDrops(), noDrops()] as const;
  readonly #thinned = { '1m': nothingThinned(), '1h': nothingThinned() };
  /** Done and not yet told: once a run and not more often than the interval. */
  readonly #reports = new Map<string, RetentionReport>();
  #lastThinned: RetentionReport | undefined;
  #lastDropped: RetentionReport | undefined;
  #reportedAtMs = Number.NEGATIVE_INFINITY;
  /** Rows whose oldest blocks would not become smaller; asked again in the next run. */
  readonly #useless = new Set<RowIndex>();
  #running: Promise<void> | undefined;
  #isStopping = false;
  readonly #timer: NodeJS.Timeout;

  constructor(options: RetentionOptions) {
    this.#options = options;
    this.#highBytes = options.maxBytes * (1 - marginShare);
    this.#lowBytes = options.maxBytes * (1 - 2 * marginShare);
    // Ages pass also when nothing is moved to blocks.
    this.#timer = setInterval(() => {
      this.#tell();
      this.#start().catch(() => undefined);
    }, options.intervalMs);
    this.#timer.unref();
  }

  /** Points given up. */
  drops(): Drops {
    return byClass((index) => ({ ...this.#dropped[index] }));
  }

  stats(): RetentionStats {
    return {
      thinned: { ...this.#thinned },
      lastThinned: this.#lastThinned,
      lastDropped: this.#lastDropped,
      isRunning: this.#running !== undefined,
    };
  }

  countDamage(index: ClassIndex, points: number): void {
    this.#dropped[index].damage += points;
  }

  /**
   * Keeps the caps. Goes on beside the caller while there is still room; beyond the cap the caller waits.
   * @throws GatewayError `STORE_FAILED`.
   */
  async enforce(): Promise<void> {
    const run = this.#start();
    if (this.#options.blocks.bytes > this.#options.maxBytes) await run;
    else run.catch(() => undefined);
  }

  stop(): void {
    this.#isStopping = true;
    clearInterval(this.#timer);
  }

  /** Waits for what is under way. */
  async settle(): Promise<void> {
    await this.#running?.catch(() => undefined);
  }

  #start(): Promise<void> {
    if (this.#isStopping || !this.#isDue()) return Promise.resolve();
    this.#running ??= this.#run()
      .catch((error: unknown) => {
        this.#options.log.error({ event: 'journal-retention-failed', code: errorCode(error) }, 'tried again');
        throw error;
      })
      .finally(() => {
        this.#running = undefined;
        this.#options.onDone();
        this.#tell();
      });
    return this.#running;
  }

  #isDue(): boolean {
    if (this.#options.blocks.bytes > this.#highBytes) return true;
    return classIndexes.some((index) => rowsOf[index].some((row) => this.#isAged(row, index)));
  }

  #isAged(row: RowIndex, index: ClassIndex): boolean {
    return (this.#options.blocks.oldestMs(row) ?? Number.POSITIVE_INFINITY) < this.#limitMs(index);
  }

  #limitMs(index: ClassIndex): number {
    return this.#options.journalMs() - this.#options.maxAgeMs[pointClasses[index]];
  }

  async #run(): Promise<void> {
    const { blocks, maxBytes } = this.#options;
    for (const index of classIndexes) {
      for (const row of rowsOf[index]) {
        while (this.#isAged(row, index) && !this.#isStopping) {
          if (!(await this.#dropOldest(index, row, 'age'))) break;
        }
      }
    }
    if (blocks.bytes <= this.#highBytes) return;
    this.#useless.clear();
    while (blocks.bytes > this.#lowBytes && !this.#isStopping) {
      const outcome = await this.#thinSome();
      if (outcome === 'thinned' || outcome === 'again') continue;
      // What is being sent comes back, or is gone, in a while: nothing is dropped for that, as long as there is room.
      if (blocks.bytes <= (outcome === 'held' ? maxBytes : this.#highBytes)) return;
      if (!(await this.#dropSome())) return;
    }
  }

  async #thinSome(): Promise<'thinned' | 'again' | 'held' | 'useless'> {
    const { blocks } = this.#options;
    const bytes = (row: RowIndex) => blocks.stats(row).bytes;
    const keptBytes = rowsOf[2].reduce<number>((sum, row) => sum + bytes(row), 0) * keptShare;
    for (const [row, levels] of [
      [rawRow, [minutes, hours]],
      [minuteRow, [hours]],
    ] as const) {
      if (this.#useless.has(row) || bytes(row) <= keptBytes) continue;
      for (const level of levels) {
        // Readings that come once in ten minutes are as many by the minute, and one in six by the hour.
        const outcome = await this.#thinOldest(row, level, bytes(row) - keptBytes);
        if (outcome !== 'useless') return outcome;
      }
      this.#useless.add(row);
    }
    return 'useless';
  }

  async #thinOldest(
    row: RowIndex,
    level: Level,
    sourceBytesMax: number,
  ): Promise<'thinned' | 'again' | 'held' | 'useless'> {
    const { blocks, blockPoints, gzipLevel, strip, erasures, isErasureBetween } = this.#options;
    const before = erasures();
    let joined: number | undefined;
    let hasEmptied = false;
    const taken: BlockRef[] = [];
    let result: ThinnedBlock | undefined;
    try {
      result = await thinBlocks({
        windowNs: level.windowNs,
        pointsMax: blockPoints,
        sourceBytesMax,
        gzipLevel,
        isStopping: () => this.#isStopping,
        next: async (behind) => {
          for (;;) {
            const block = await blocks.takeRun(row, behind);
            if (block === undefined) return undefined;
            if (joined !== undefined && isErasureBetween(joined, block.toSequence)) {
              blocks.release(block);
              return undefined;
            }
            const stripped = await strip(block);
            if (stripped.body.length > 0) {
              joined = block.toSequence;
              taken.push(refOf(block));
              return stripped;
            }
            await blocks.finish(block);
            hasEmptied = true;
          }
        },
        onDamaged: async (block) => {
          taken.splice(
            taken.findIndex(({ number }) => number === block.number),
            1,
          );
          this.countDamage(2, block.points);
          await blocks.finish(block);
        },
      });
      // What was deleted meanwhile may be in it, among what came later.
      if (erasures() !== before) return 'again';
      if (result === undefined) return hasEmptied ? 'again' : 'held';
      if (result.body.length > result.sourceBytes * worthwhileShare) return 'useless';
      await blocks.replace(result.sources, level.row, result.header, result.body);
      taken.length = 0;
    } finally {
      for (const block of taken) blocks.release(block);
    }
    const kept = result.header.points;
    const bytes = result.sourceBytes - result.body.length;
    const soFar = this.#thinned[level.name];
    this.#thinned[level.name] = {
      points: soFar.points + result.sourcePoints,
      kept: soFar.kept + kept,
      bytes: soFar.bytes + bytes,
      runs: soFar.runs + 1,
    };
    const { fromMs, toMs, sourcePoints: points } = result;
    this.#note({
      kind: 'thinned',
      class: 'telemetry',
      detail: level.name,
      points,
      kept,
      bytes,
      fromMs,
      toMs,
    });
    return 'thinned';
  }

  async #dropSome(): Promise<boolean> {
    for (const index of [2, 1, 0] as const) {
      for (const row of rowsOf[index]) if (await this.#dropOldest(index, row, 'capacity')) return true;
      // What is being sent is not dropped, and nothing more valuable in its place.
      if (rowsOf[index].some((row) => this.#options.blocks.stats(row).blocks > 0)) return false;
    }
    return false;
  }

  async #dropOldest(index: ClassIndex, row: RowIndex, reason: 'capacity' | 'age'): Promise<boolean> {
    const { blocks } = this.#options;
    const block = await blocks.take(row);
    if (block === undefined) return false;
    if (reason === 'age' && block.newestMs >= this.#limitMs(index)) {
      blocks.release(block);
      return false;
    }
    const span = await spanOf(block);
    this.#dropped[index][reason] += block.points;
    await blocks.finish(block);
    const { points, storedBytes: bytes } = block;
    this.#note({
      kind: 'dropped',
      class: pointClasses[index],
      detail: reason,
      points,
      kept: 0,
      bytes,
      ...span,
    });
    return true;
  }

  #note(report: RetentionReport): void {
    const key = `${report.kind} ${report.class} ${report.detail}`;
    const before = this.#reports.get(key);
    const sum = before === undefined ? report : added(before, report);
    this.#reports.set(key, sum);
    if (report.kind === 'thinned') this.#lastThinned = sum;
    else this.#lastDropped = sum;
  }

  #tell(): void {
    const nowMs = this.#options.journalMs();
    if (this.#reports.size === 0 || nowMs - this.#reportedAtMs < this.#options.intervalMs || this.#isStopping)
      return;
    this.#reportedAtMs = nowMs;
    const reports = [...this.#reports.values()];
    this.#reports.clear();
    for (const report of reports) {
      this.#options.log.warn({ event: `journal-${report.kind}`, ...report }, 'the journal is at its cap');
      this.#options.onReport(report);
    }
  }
}

function added(one: RetentionReport, other: RetentionReport): RetentionReport {
  const least = [one.fromMs, other.fromMs].filter((ms) => ms !== undefined);
  const most = [one.toMs, other.toMs].filter((ms) => ms !== undefined);
  return {
    ...one,
    points: one.points + other.points,
    kept: one.kept + other.kept,
    bytes: one.bytes + other.bytes,
    fromMs: least.length === 0 ? undefined : Math.min(...least),
    toMs: most.length === 0 ? undefined : Math.max(...most),
  };
}
