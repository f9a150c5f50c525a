// The durable spool of the gateway: append → ring → (offline: blocks) → take. Promises: what `append` resolved
// is handed out by `take` until it was accepted, buried or dropped by a cap that is counted; the journal opens
// whatever the power cut left; memory does not grow with the backlog. Delivery is at least once: after a power
// cut the last accepted batches may be handed out again. docs/journal.md has the format and the recovery.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type PointClass, pointClasses } from '../model/point.ts';
import type { Clock } from '../platform/clock.ts';
import type { Disk } from '../platform/disk.ts';
import type { DiskTrouble } from '../platform/disk-trouble.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { LevelStore, type LevelStoreStats } from '../platform/level-store.ts';
import type { Log } from '../platform/log.ts';
import type { Store } from '../platform/store.ts';
import { type Anchor, AnchorLine, findAnchor, lostAtEnds, newerAnchor } from './anchor.ts';
import {
  type Block,
  type BlockStats,
  Blocks,
  type RowIndex,
  type RowName,
  rowNames,
  rowsOf,
} from './blocks.ts';
import { type ByClass, byClass, type ClassIndex, classIndexes } from './class-index.ts';
import { Committer, type CommitterStats } from './committer.ts';
import type {
  Append,
  Appender,
  Batch,
  Dating,
  DeadLetter,
  DeadLetters,
  HotState,
  Lane as LaneName,
  Spool,
  StateWrite,
  StoredLetter,
} from './contract.ts';
import { dateGzip, dateLines, mapGzip } from './dating.ts';
import { DeadLetterBox, type DeadLetterStats, type LetterFilter } from './dead-letters.ts';
import { countLines, Erasures, type Selected } from './erasures.ts';
import { type ExportPage, readPage } from './export.ts';
import { type FrameHeader, headerBytes, type PerClass, padded, stateWriteBytes } from './frame.ts';
import { StateMap } from './hot-state.ts';
import { Lane } from './lane.ts';
import { type Drops, Retention, type RetentionReport, type RetentionStats } from './retention.ts';
import { appendBytesMaxOf, type Quarantined, type Recovered, Ring } from './ring.ts';
import { rememberFrame, type Section, type Segment } from './segment.ts';
import { type JournalSnapshot, RingSnapshot } from './snapshot.ts';
import { Spill } from './spill.ts';

export interface JournalOptions {
  /** Bytes of a ring segment; a multiple of 4096. */
  readonly segmentBytes: number;
  /** Segments in the ring, at least 4. */
  readonly ringSegments: number;
  /** Fewer free segments than this, and the oldest is moved to blocks. At least 2. */
  readonly freeSegmentsMin: number;
  /** Bytes that may wait for the disk; beyond it `append` rejects `JOURNAL_STALLED`. */
  readonly pendingBytesMax: number;
  /** Points a block holds at most, unless one frame alone has more. */
  readonly blockPoints: number;
  /** Cap over all blocks as stored; towards it the oldest telemetry is thinned, then goes, then events, then alarms. */
  readonly maxBytes: number;
  /** Blocks older than this go. Counts only the time the journal has been running. */
  readonly maxAgeMs: ByClass<number>;
  /** How often ages are looked at when nothing is moved to blocks; what the caps cost is told no more often. */
  readonly retentionMs: number;
  /** The longest a lazy write waits for a commit. */
  readonly lazyMs: number;
  /** The longest an acknowledgement may be held back by `linger`. */
  readonly ackDelayMaxMs: number;
  /** Pause after a failed commit or a failed move to blocks. */
  readonly retryMs: number;
  readonly gzipLevel: number;
  readonly deadLettersMax: number;
  readonly deadLetterBytesMax: number;
}

const dayMs = 24 * 3600 * 1000;

export const journalDefaults: JournalOptions = {
  segmentBytes: 4 * 1024 * 1024,
  ringSegments: 16,
  freeSegmentsMin: 3,
  pendingBytesMax: 8 * 1024 * 1024,
  blockPoints: 5000,
  maxBytes: 2 * 1024 * 1024 * 1024,
  maxAgeMs: { alarm: 3650 * dayMs, event: 3650 * dayMs, telemetry: 365 * dayMs },
  retentionMs: 60_000,
  lazyMs: 1000,
  ackDelayMaxMs: 250,
  retryMs: 1000,
  gzipLevel: 1,
  deadLettersMax: 10_000,
  deadLetterBytesMax: 8 * 1024 * 1024,
};

/** A batch's lines; more would only be memory. */
const batchBytesMax = 4 * 1024 * 1024;
/** State not yet in the store beyond this is checkpointed without waiting for a segment to be recycled. */
const dirtyBytesMax = 4 * 1024 * 1024;
const letterBytesMax = 64 * 1024;

export interface JournalDependencies {
  /** The journal's own: `ring/`, `blocks/`, `quarantine/`. */
  readonly directory: string;
  /** For hot state and dead letters; nobody else writes to it. */
  readonly store: Store;
  readonly disk: Disk;
  readonly clock: Clock;
  readonly log: Log;
  readonly options?: Partial<JournalOptions>;
  /**
   * For a disk that cannot be written, and why: every write is refused, what lies in the ring is handed out, and what
   * lies in blocks waits (the store in this folder takes their place).
   */
  readonly readOnly?: { readonly blocks: string; readonly trouble: DiskTrouble };
  /** The store of the blocks; default LevelDB in `blocks/`. */
  readonly openBlockStore?: typeof LevelStore.open;
}

export interface JournalStats extends CommitterStats {
  /** What the last commit, or the last attempt to make room for the next, failed for; undefined when neither did. */
  readonly trouble: DiskTrouble | undefined;
  readonly ring: {
    readonly segments: number;
    readonly used: number;
    readonly free: number;
    readonly missing: number;
    /** Points not yet gone. */
    readonly points: ByClass<number>;
  };
  readonly blocks: Readonly<Record<RowName, BlockStats>>;
  readonly blockStore: LevelStoreStats;
  readonly pending: Readonly<Record<LaneName, number>>;
  /** Points that wait for the date to be known; not in `pending`. */
  readonly undated: ByClass<number>;
  /** By the journal's own clock; undefined when nothing of the class waits. */
  readonly oldestAgeMs: ByClass<number | undefined>;
  /** Points given up. */
  readonly dropped: Drops;
  readonly retention: RetentionStats;
  /** Points moved from the ring to blocks. */
  readonly spilledPoints: number;
  readonly spilledBlocks: number;
  /** Whether the last attempt to move a segment to blocks failed. */
  readonly isSpillFailing: boolean;
  /** Whether hot state goes from segment to segment because the store cannot be written. */
  readonly isStateCarried: boolean;
  readonly quarantined: Readonly<Quarantined>;
  readonly lostBlocks: number;
  readonly lostBlockPoints: number;
  readonly acceptedPoints: number;
  readonly hotState: {
    readonly dirtyEntries: number;
    readonly dirtyBytes: number;
    readonly storedEntries: number | undefined;
  };
  readonly deadLetters: DeadLetterStats;
  /** Deletions whose lines may still wait, and lines not handed out for them. */
  readonly erasures: { readonly open: number; readonly points: number };
}

interface Taken {
  readonly sections: readonly Section[];
  readonly blocks: readonly Block[];
}

interface Held extends Taken {
  readonly ended: Promise<void>;
  readonly end: () => void;
}

const reportedKey = 'journal/reported';

export class Journal implements Appender, HotState, DeadLetters, Spool {
  readonly #ring: Ring;
  readonly #blocks: Blocks;
  readonly #blockStore: LevelStore;
  readonly #state: StateMap;
  readonly #committer: Committer;
  readonly #spill: Spill;
  readonly #retention: Retention;
  readonly #anchors: AnchorLine;
  readonly #log: Log;
  readonly #journalMs: () => number;
  readonly #lanes: Readonly<Record<LaneName, Lane>> = {
    urgent: new Lane(),
    fresh: new Lane(),
    backlog: new Lane(),
  };
  readonly #held = new Map<Batch, Held>();
  /** Batches that are being read. */
  readonly #taking = new Set<Promise<unknown>>();
  readonly #ringPoints: [number, number, number] = [0, 0, 0];
  /** Those of them without a date. */
  readonly #undatedPoints: [number, number, number] = [0, 0, 0];
  #undatedFreshPoints = 0;
  #dating: Dating | undefined;
  #letters: DeadLetterBox | undefined;
  #erasures = new Erasures();
  /** Telemetry in the ring newer than the mark. */
  #freshPoints = 0;
  /** Frames up to this one are backlog. */
  #markSequence = 0;
  #lastSequence: number;
  #listener: (() => void) | undefined;
  #reportListener: ((report: RetentionReport) => void) | undefined;
  #checkpointing: Promise<void> | undefined;
  readonly #retryMs: number;
  #closing: Promise<void> | undefined;
  #acceptedPoints = 0;
  #readOnlyFor: DiskTrouble | undefined;

  private constructor(parts: {
    ring: Ring;
    blocks: Blocks;
    blockStore: LevelStore;
    state: StateMap;
    log: Log;
    options: JournalOptions;
    journalMs: () => number;
    monotonicMs: () => number;
    lastSequence: number;
    lastLinesSequence: number;
    lastWatermarks: PerClass;
    points: number;
  }) {
    const { ring, state, options } = parts;
    this.#ring = ring;
    this.#blocks = parts.blocks;
    this.#blockStore = parts.blockStore;
    this.#state = state;
    this.#log = parts.log;
    this.#journalMs = parts.journalMs;
    this.#retryMs = options.retryMs;
    this.#lastSequence = parts.lastSequence;
    this.#retention = new Retention({
      blocks: parts.blocks,
      log: parts.log,
      maxBytes: options.maxBytes,
      maxAgeMs: options.maxAgeMs,
      intervalMs: options.retentionMs,
      blockPoints: options.blockPoints,
      gzipLevel: options.gzipLevel,
      journalMs: parts.journalMs,
      strip: async (block) => (await this.#stripped(block)).block,
      erasures: () => this.#erasures.changes,
      isErasureBetween: (sequence, later) => this.#erasures.isBetween(sequence, later),
      onReport: (report) => this.#reportListener?.(report),
      onDone: () => this.#listener?.(),
    });
    this.#spill = new Spill({
      ring,
      blocks: parts.blocks,
      state,
      log: parts.log,
      freeSegmentsMin: options.freeSegmentsMin,
      blockPoints: options.blockPoints,
      gzipLevel: options.gzipLevel,
      retryMs: options.retryMs,
      readLines: (sections) => this.#readLines(sections),
      forget: (section) => this.#forget(section),
      rewind: () => this.#rewind(),
      onMoved: () => this.#listener?.(),
      onRoom: () => this.#committer.kick(),
      carry: (segment) => this.#carry(segment),
      isErasureBetween: (sequence, later) => this.#erasures.isBetween(sequence, later),
      enforceCaps: () => this.#retention.enforce(),
    });
    this.#anchors = new AnchorLine(
      () => ({
        waiting: this.#ringPoints[0] + this.#ringPoints[1] + this.#ringPoints[2],
        floor: ring.floor,
        floorPoints: ring.floorPoints ?? parts.points,
        rows: parts.blocks.anchors(),
      }),
      () => parts.blocks.changes + ring.floor,
    );
    this.#committer = new Committer({
      ring,
      state,
      pendingBytesMax: options.pendingBytesMax,
      appendBytesMax: appendBytesMaxOf(options.segmentBytes),
      lazyMs: options.lazyMs,
      retryMs: options.retryMs,
      ackDelayMaxMs: options.ackDelayMaxMs,
      lastSequence: parts.lastSequence,
      lastLinesSequence: parts.lastLinesSequence,
      lastWatermarks: parts.lastWatermarks,
      points: parts.points,
      monotonicMs: parts.monotonicMs,
      journalMs: parts.journalMs,
      watermarks: (none) => [this.#watermark(0, none), this.#watermark(1, none), this.#watermark(2, none)],
      remark: (sequence, points, own, room) => this.#anchors.offer(sequence, points, own, room),
      isRemarkDue: (lastSequence) => this.#anchors.finish(lastSequence),
      onFrame: (header, position) => {
        this.#lastSequence = header.sequence;
        this.#anchors.committed(header.sequence);
        this.#remember(ring.active, position, header, () => false);
      },
      onCommit: (points) => {
        if (ring.freeSegments < options.freeSegmentsMin) this.#spill.start();
        if (state.dirtyBytes > dirtyBytesMax) this.#checkpoint();
        if (points > 0) this.#listener?.();
      },
      onNoRoom: () => {
        this.#spill.start();
        return this.#spill.trouble === undefined;
      },
    });
  }

  /**
   * Opens, whatever lies there. The rest of the ring is made in the background.
   * @throws GatewayError `STORE_LOCKED` when another process has it open, `STORE_FAILED` when the disk cannot
   * be read.
   */
  static async open(dependencies: JournalDependencies): Promise<Journal> {
    const { directory, store, disk, clock, log } = dependencies;
    const options: JournalOptions = { ...journalDefaults, ...dependencies.options };
    assert(options.ringSegments >= 4, 'BUG: a ring has at least 4 segments');
    assert(options.freeSegmentsMin >= 2, 'BUG: at least 2 segments must be kept free');
    assert(options.segmentBytes % 4096 === 0 && options.segmentBytes >= 16_384, 'BUG: segmentBytes');
    // First of all, because its lock keeps a second process away from the ring as well.
    const { readOnly } = dependencies;
    const openBlockStore = dependencies.openBlockStore ?? LevelStore.open;
    const blockStore = await openBlockStore(readOnly?.blocks ?? join(directory, 'blocks'), { log });
    let ring: Ring | undefined;
    try {
      const opened = await Ring.open({
        directory,
        disk,
        log,
        segmentBytes: options.segmentBytes,
        segments: options.ringSegments,
      });
      const { recovered } = opened;
      ring = opened.ring;
      const state = await StateMap.open(store);
      const storedAnchor = await findAnchor(state);
      for await (const { segment, writes } of ring.recoveredState(recovered)) {
        for (const write of writes) state.commit(write, segment);
      }
      // A ring that lost its end holds an older one than the checkpoint.
      const anchor = readOnly ? undefined : newerAnchor(storedAnchor, await findAnchor(state));
      const blocks = await Blocks.open(blockStore.room('blocks'), log, anchor?.rows);
      // A ring that was lost must not number its frames below what the blocks have seen.
      const newest = blocks.newest();
      const startMs = clock.monotonicMs();
      const atMs = Math.max(recovered.atMs, newest.atMs);
      const withLines = recovered.frames.findLast(
        ({ found }) => found.header.length > found.header.stateBytes + headerBytes,
      );
      const journal = new Journal({
        ring,
        blocks,
        blockStore,
        state,
        log,
        options,
        journalMs: () => atMs + clock.monotonicMs() - startMs,
        monotonicMs: () => clock.monotonicMs(),
        lastSequence: Math.max(recovered.lastSequence, newest.sequence, anchor?.sequence ?? 0),
        lastLinesSequence: withLines?.found.header.sequence ?? 0,
        lastWatermarks: recovered.watermarks,
        points: Math.max(recovered.points, anchor?.points ?? 0),
      });
      for (const { segment, found } of recovered.frames) {
        const { header, position } = found;
        journal.#remember(segment, position, header, (index) => {
          return header.sequence < recovered.watermarks[index] || header.sequence <= blocks.toSequence(index);
        });
      }
      journal.#readOnlyFor = readOnly?.trouble;
      journal.#erasures = await Erasures.open(state);
      if (readOnly === undefined) await journal.#reportDamage(recovered, anchor);
      journal.#letters = await DeadLetterBox.open(journal, {
        lettersMax: options.deadLettersMax,
        bytesMax: options.deadLetterBytesMax,
        letterBytesMax: Math.min(letterBytesMax, Math.floor(options.segmentBytes / 4)),
        commitBytesMax: Math.floor(appendBytesMaxOf(options.segmentBytes) / 4),
        wallMs: () => clock.wallMs(),
      });
      if (readOnly === undefined) {
        await journal.#forgetErasures(true);
        journal.#spill.start();
      }
      return journal;
    } catch (error) {
      await ring?.close();
      await blockStore.close();
      throw error;
    }
  }

  /** Once: what has been reported is remembered as long as it is in the ring. */
  async #reportDamage(recovered: Recovered, anchor: Anchor | undefined): Promise<void> {
    const known = await this.#state.get(reportedKey);
    const before = new Set(known === undefined ? [] : (JSON.parse(known.toString()) as number[]));
    const goneUntil = Math.min(
      ...classIndexes.map((index) =>
        Math.max(recovered.watermarks[index] - 1, this.#blocks.toSequence(index)),
      ),
    );
    const movedUntil = Math.max(...classIndexes.map((index) => this.#blocks.toSequence(index)));
    const ends = lostAtEnds(recovered, anchor, movedUntil);
    const complete = ends === undefined ? recovered : { ...recovered, breaks: [ends, ...recovered.breaks] };
    const now = await this.#ring.report(complete, before, goneUntil);
    if (now.size === before.size && [...now].every((sequence) => before.has(sequence))) return;
    const value = now.size === 0 ? undefined : Buffer.from(JSON.stringify([...now]));
    this.writeLazily([{ key: reportedKey, value }]);
  }

  // Appender

  append(append: Append): Promise<void> {
    if (this.#readOnlyFor !== undefined) {
      return Promise.reject(new GatewayError('JOURNAL_FAILED', 'the disk cannot be written'));
    }
    return this.#committer.append(append);
  }

  /** The journal's own clock: milliseconds it has been running, over all starts. */
  get runningMs(): number {
    return this.#journalMs();
  }

  get pendingBytes(): number {
    return this.#committer.pendingBytes;
  }

  /**
   * To spare the card: telemetry waits so long for more to share a commit with, at most `ackDelayMaxMs`. Alarms and
   * events never wait. 0 (the default): nothing does.
   */
  linger(lingerMs: number): void {
    this.#committer.linger(lingerMs);
  }

  // HotState

  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]> {
    return this.#state.entries(prefix);
  }

  get(key: string): Promise<Buffer | undefined> {
    return this.#state.get(key);
  }

  write(writes: readonly StateWrite[]): Promise<void> {
    // As an event: state is small, and fits into the reserve when telemetry no longer does.
    return this.append({ class: 'event', lines: '', points: 0, state: writes });
  }

  writeLazily(writes: readonly StateWrite[]): void {
    if (this.#readOnlyFor === undefined) this.#committer.writeLazily(writes);
  }

  // DeadLetters

  add(letter: DeadLetter): Promise<void> {
    return this.#deadLetters.add(letter);
  }

  replace(id: string, append: Append, letters: readonly DeadLetter[]): Promise<boolean> {
    return this.#deadLetters.replace(id, append, letters);
  }

  /** Letters for people, the oldest first. */
  listDeadLetters(options: LetterFilter & { readonly limit: number }): Promise<StoredLetter[]> {
    return this.#deadLetters.list(options);
  }

  /** Later ones have higher ids. */
  get newestDeadLetter(): string | undefined {
    return this.#deadLetters.newest;
  }

  getDeadLetter(id: string): Promise<StoredLetter | undefined> {
    return this.#deadLetters.get(id);
  }

  /** Resolves when they are durably gone, to those that were there; at most a thousand at once. */
  dropDeadLetters(ids: readonly string[]): Promise<string[]> {
    assert(ids.length <= 1000, 'BUG: more letters than one append carries');
    return this.#deadLetters.drop(ids);
  }

  get #deadLetters(): DeadLetterBox {
    assert(this.#letters !== undefined, 'BUG: used before it was open');
    return this.#letters;
  }

  // Spool

  async take(lane: LaneName, pointsMax: number): Promise<Batch | undefined> {
    // The files are being closed: what cannot be read any more must not be taken for damaged.
    if (this.#closing !== undefined) return undefined;
    const taking = this.#take(lane, pointsMax);
    this.#taking.add(taking);
    try {
      return await taking;
    } finally {
      this.#taking.delete(taking);
    }
  }

  async #take(lane: LaneName, pointsMax: number): Promise<Batch | undefined> {
    if (lane !== 'fresh') {
      const batch = await this.#takeBlocks(lane, pointsMax);
      if (batch !== undefined) return batch;
    }
    return await this.#takeFrames(lane, pointsMax);
  }

  async accept(batch: Batch): Promise<void> {
    const held = this.#unhold(batch);
    this.#acceptedPoints += batch.points;
    // Of frames only memory knows, until the next frame's header carries the watermark to the disk.
    for (const section of held.sections) if (section.state === 'held') this.#forget(section);
    for (const block of held.blocks) await this.#blocks.finish(block);
  }

  async bury(batch: Batch, letters: readonly DeadLetter[]): Promise<void> {
    assert(this.#held.has(batch), 'BUG: a batch that is not held');
    await this.#deadLetters.addAll(letters, { isUrgent: batch.lane === 'urgent' });
    await this.accept(batch);
  }

  release(batch: Batch): void {
    const held = this.#unhold(batch);
    for (const section of held.sections) if (section.state === 'held') section.state = 'waiting';
    this.#rewind();
    for (const block of held.blocks) this.#blocks.release(block);
    this.#listener?.();
  }

  uplinkReturned(): void {
    this.#markSequence = this.#lastSequence;
    this.#freshPoints = 0;
    this.#undatedFreshPoints = 0;
    this.#lanes.fresh.drainInto(this.#lanes.backlog);
  }

  onAvailable(listener: () => void): void {
    this.#listener = listener;
  }

  pending(): Readonly<Record<LaneName, number>> {
    const [alarms, events, telemetry] = this.#ringPoints;
    const blocks = (index: ClassIndex) => this.#inBlocks(index, 'points');
    const undated = (index: ClassIndex) => this.#undatedOf(index);
    const undatedFresh = this.#dating === undefined ? this.#undatedFreshPoints : 0;
    return {
      urgent: alarms + events + blocks(0) + blocks(1) - undated(0) - undated(1),
      fresh: this.#freshPoints - undatedFresh,
      backlog: telemetry - this.#freshPoints + blocks(2) - (undated(2) - undatedFresh),
    };
  }

  /** From now on it is known when points without a date were: they are handed out like all others. */
  date(dating: Dating): void {
    this.#dating = dating;
    this.#rewind();
    this.#listener?.();
  }

  /** Points that wait for a date. */
  #undatedOf(index: ClassIndex): number {
    if (this.#dating !== undefined) return 0;
    return this.#undatedPoints[index] + this.#inBlocks(index, 'undatedPoints');
  }

  #inBlocks(index: ClassIndex, figure: 'points' | 'undatedPoints'): number {
    return rowsOf[index].reduce<number>((sum, row) => sum + this.#blocks.stats(row)[figure], 0);
  }

  /** Called at most once a minute and kind with what the caps have cost. One listener. */
  onRetention(listener: (report: RetentionReport) => void): void {
    this.#reportListener = listener;
  }

  stats(): JournalStats {
    return {
      ...this.#committer.stats(),
      isRefusing: this.#readOnlyFor !== undefined || this.#committer.stats().isRefusing,
      trouble: this.#readOnlyFor ?? this.#committer.trouble ?? this.#spill.trouble,
      ring: {
        segments: this.#ring.slots,
        used: this.#ring.usedSegments,
        free: this.#ring.freeSegments,
        missing: this.#ring.missingSegments,
        points: byClass((index) => this.#ringPoints[index]),
      },
      blocks: Object.fromEntries(
        rowNames.map((name, row) => [name, this.#blocks.stats(row as RowIndex)]),
      ) as Record<RowName, BlockStats>,
      blockStore: this.#blockStore.stats(),
      pending: this.pending(),
      undated: byClass((index) => this.#undatedOf(index)),
      oldestAgeMs: byClass((index) => this.#oldestAgeMs(index)),
      dropped: this.#retention.drops(),
      retention: this.#retention.stats(),
      spilledPoints: this.#spill.points,
      spilledBlocks: this.#spill.blocks,
      isSpillFailing: this.#spill.trouble !== undefined,
      isStateCarried: this.#spill.isCarrying,
      quarantined: { ...this.#ring.quarantined },
      lostBlocks: this.#blocks.lost,
      lostBlockPoints: this.#blocks.lostPoints,
      acceptedPoints: this.#acceptedPoints,
      hotState: {
        dirtyEntries: this.#state.dirtyEntries,
        dirtyBytes: this.#state.dirtyBytes,
        storedEntries: this.#state.storedEntries,
      },
      deadLetters: this.#deadLetters.stats(),
      erasures: { open: this.#erasures.size, points: this.#erasures.erased },
    };
  }

  // Deletions

  /**
   * What waits of the device now is handed out no more; what was handed out already, `passed` waits for. Resolves when
   * that is durable, together with the state.
   * @throws GatewayError as `append` does; nothing is deleted then.
   */
  async erase(selected: Selected, state: readonly StateWrite[] = []): Promise<void> {
    const erasure = { ...selected, sequence: this.#lastSequence, atMs: this.#journalMs() };
    const write = this.#erasures.begin(erasure);
    let isDurable = false;
    try {
      await this.append({ class: 'event', lines: '', points: 0, state: [write, ...state] });
      isDurable = true;
    } finally {
      this.#erasures.ended(write.key, erasure, isDurable);
    }
    await this.#forgetErasures(false);
  }

  /** Resolves when every batch that is with somebody now has ended: accepted, buried or released. */
  async passed(): Promise<void> {
    await Promise.allSettled([...this.#taking]);
    await Promise.all([...this.#held.values()].map(({ ended }) => ended));
  }

  async #forgetErasures(isOpening: boolean): Promise<void> {
    if (this.#erasures.size === 0) return;
    let oldest = Math.min(...classIndexes.map((index) => this.#watermark(index, Number.POSITIVE_INFINITY)));
    try {
      for (const row of classIndexes.flatMap((index) => rowsOf[index])) {
        const block = await this.#blocks.peek(row, 0);
        if (block !== undefined) oldest = Math.min(oldest, block.toSequence);
      }
    } catch (error) {
      this.#log.warn({ event: 'journal-blocks-unreadable', code: errorCode(error) }, 'tried again later');
      return;
    }
    this.writeLazily(this.#erasures.settled(oldest, this.#journalMs(), isOpening));
  }

  /** A block without what was deleted, and how many points are left; with an empty body when there are none. */
  async #stripped(block: Block): Promise<{ block: Block; points: number }> {
    const whole = { block, points: block.points };
    if (!this.#erasures.mayTouch(block.toSequence)) return whole;
    let { points } = block;
    try {
      const body = await mapGzip(block.body, (lines) => {
        const left = this.#erasures.strip(lines, block.toSequence, this.#dating);
        if (left !== lines) points = countLines(left);
        return left;
      });
      return { block: { ...block, body }, points };
    } catch {
      // It is no gzip, and whoever gets it will say so.
      return whole;
    }
  }

  /** A page of all that waits, without taking it; `after` is what the page before answered. Throws as `take` does. */
  read(classes: readonly PointClass[] | undefined, after: string | undefined): Promise<ExportPage> {
    const parts = {
      ring: this.#ring,
      blocks: this.#blocks,
      lastSequence: this.#lastSequence,
      dating: this.#dating,
      strip: (lines: Buffer, sequence: number) => this.#erasures.strip(lines, sequence, this.#dating),
    };
    return readPage(parts, classes, after, (index) => pointClasses[index]);
  }

  /**
   * What lies on the disk at this moment; one at a time. Take that of the state store in the same turn.
   * @throws GatewayError `JOURNAL_CLOSED`, `STORE_FAILED`.
   */
  snapshot(): JournalSnapshot {
    if (this.#closing !== undefined) throw new GatewayError('JOURNAL_CLOSED', 'the journal is closed');
    return new RingSnapshot(this.#ring, this.#blockStore.snapshot(), {
      points: byClass((index) => this.#ringPoints[index] + this.#inBlocks(index, 'points')),
      isThinning: this.#retention.stats().isRunning,
    });
  }

  /**
   * Commits what is lazy and the exact watermark, so that a clean restart sends nothing twice. Idempotent.
   * Batches still held are handed out again after the next start.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#spill.stop();
    this.#retention.stop();
    this.#ring.stopFilling();
    await this.#committer.close();
    await this.#spill.settle();
    await this.#retention.settle();
    // Reads under way end before their files do.
    await this.#ring.unpinned();
    await this.#checkpointing;
    try {
      await this.#state.checkpoint();
    } catch (error) {
      // Nothing is lost: the frames that hold it stay in the ring.
      this.#log.warn({ event: 'journal-checkpoint-failed', code: errorCode(error) }, 'kept in the ring');
    }
    await this.#ring.close();
    await this.#blocks.settle();
    await this.#blockStore.close();
  }

  // Frames and lanes

  #remember(
    segment: Segment,
    position: number,
    header: FrameHeader,
    isGone: (classIndex: ClassIndex) => boolean,
  ): void {
    for (const section of rememberFrame(segment, position, header, isGone).sections) {
      this.#ringPoints[section.class] += section.points;
      if (section.class === 2) this.#freshPoints += section.points;
      this.#lanes[section.class === 2 ? 'fresh' : 'urgent'].push(section);
      if (!section.isUndated) continue;
      this.#undatedPoints[section.class] += section.points;
      if (section.class === 2) this.#undatedFreshPoints += section.points;
    }
  }

  #forget(section: Section): void {
    section.state = 'gone';
    this.#ringPoints[section.class] -= section.points;
    if (section.isUndated) this.#undatedPoints[section.class] -= section.points;
    if (section.class !== 2 || section.frame.sequence <= this.#markSequence) return;
    this.#freshPoints -= section.points;
    if (section.isUndated) this.#undatedFreshPoints -= section.points;
  }

  #watermark(index: ClassIndex, none: number): number {
    for (const { frames, firstLeft } of this.#ring.live()) {
      for (let at = firstLeft[index]; at < frames.length; at += 1) {
        firstLeft[index] = at;
        const frame = frames[at];
        if (frame?.sections.some((section) => section.class === index && section.state !== 'gone')) {
          return frame.sequence;
        }
      }
      firstLeft[index] = frames.length;
    }
    return none;
  }

  #hold(lane: LaneName, body: Buffer, encoding: Batch['encoding'], points: number, taken: Taken): Batch {
    const batch: Batch = { lane, points, encoding, body };
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    this.#held.set(batch, { ...taken, ended, end });
    return batch;
  }

  #rewind(): void {
    for (const lane of Object.values(this.#lanes)) lane.rewind();
  }

  #unhold(batch: Batch): Held {
    const held = this.#held.get(batch);
    assert(held !== undefined, 'BUG: a batch that is not held');
    this.#held.delete(batch);
    held.end();
    return held;
  }

  async #takeFrames(lane: LaneName, pointsMax: number): Promise<Batch | undefined> {
    for (;;) {
      const dating = this.#dating;
      const wanted = this.#lanes[lane].hold(pointsMax, batchBytesMax, dating !== undefined);
      if (wanted.length === 0) return undefined;
      const sections: Section[] = [];
      const lines: Buffer[] = [];
      let points = 0;
      try {
        for (const [section, bytes] of await this.#readLines(wanted)) {
          if (bytes === undefined) continue;
          if (bytes.length === 0) {
            this.#forget(section);
            continue;
          }
          sections.push(section);
          points += bytes.length === section.bytes ? section.points : countLines(bytes);
          lines.push(section.isUndated && dating !== undefined ? dateLines(bytes, dating) : bytes);
        }
      } catch (error) {
        for (const section of wanted) if (section.state === 'held') section.state = 'waiting';
        this.#rewind();
        throw error;
      }
      if (lines.length > 0)
        return this.#hold(lane, Buffer.concat(lines), 'identity', points, { sections, blocks: [] });
    }
  }

  /**
   * The lines of each section, without those that were deleted; undefined for those whose frame is damaged, which are
   * given up and counted.
   */
  async #readLines(sections: readonly Section[]): Promise<(readonly [Section, Buffer | undefined])[]> {
    const runs: Section[][] = [];
    for (const section of sections) {
      const run = runs[runs.length - 1];
      if (run?.[0]?.frame.segment === section.frame.segment) run.push(section);
      else runs.push([section]);
    }
    // Started together: a segment under reading is not recycled.
    const read = await Promise.all(
      runs.map(async (run) => {
        const first = run[0];
        if (first === undefined) return [];
        const frames = await this.#ring.read(
          first.frame.segment,
          run.map((section) => section.frame),
        );
        return run.map((section, index) => {
          const read = frames[index]?.subarray(section.offset, section.offset + section.bytes);
          const lines = read && this.#erasures.strip(read, section.frame.sequence, this.#dating);
          if (lines === undefined && section.state !== 'gone') {
            this.#retention.countDamage(section.class, section.points);
            this.#forget(section);
          }
          return [section, lines] as const;
        });
      }),
    );
    return read.flat();
  }

  async #takeBlocks(lane: LaneName, pointsMax: number): Promise<Batch | undefined> {
    for (const index of lane === 'urgent' ? [...rowsOf[0], ...rowsOf[1]] : rowsOf[2]) {
      if (!this.#blocks.isWaiting(index)) continue;
      const dating = this.#dating;
      const blocks: Block[] = [];
      let points = 0;
      let bytes = 0;
      while (points < pointsMax && bytes < batchBytesMax && this.#blocks.isWaiting(index)) {
        let block: Block | undefined;
        try {
          block = await this.#blocks.take(index, dating !== undefined);
        } catch (error) {
          // The ring can be delivered while LevelDB cannot be read.
          this.#log.warn({ event: 'journal-blocks-unreadable', code: errorCode(error) }, 'tried again later');
          break;
        }
        if (block === undefined) break;
        if (blocks.length > 0 && points + block.points > pointsMax) {
          this.#blocks.release(block);
          break;
        }
        const left = await this.#stripped(block);
        if (left.points === 0) {
          await this.#blocks.finish(block);
          continue;
        }
        blocks.push(left.block);
        points += left.points;
        bytes += left.block.body.length;
      }
      const [first, ...more] = blocks;
      if (first === undefined) continue;
      // Gzip members one behind the other are one gzip stream (RFC 1952 §2.2).
      const body =
        more.length === 0 && !first.isUndated
          ? first.body
          : Buffer.concat(await Promise.all(blocks.map((block) => this.#datedBody(block, dating))));
      return this.#hold(lane, body, 'gzip', points, { sections: [], blocks });
    }
    return undefined;
  }

  /** As it lies, or made anew with dates. */
  async #datedBody(block: Block, dating: Dating | undefined): Promise<Buffer> {
    if (!block.isUndated || dating === undefined) return block.body;
    try {
      return await dateGzip(block.body, dating);
    } catch (error) {
      // It is no gzip, and InfluxDB will say so; the batch must not be held for ever.
      this.#log.error(
        { event: 'journal-block-unreadable', number: block.number, error: String(error) },
        'sent',
      );
      return block.body;
    }
  }

  #checkpoint(): void {
    this.#checkpointing ??= this.#state
      .checkpoint()
      .catch(async (error: unknown) => {
        this.#log.warn({ event: 'journal-checkpoint-failed', code: errorCode(error) }, 'tried again later');
        // Not with every commit.
        await sleep(this.#retryMs, undefined, { ref: false });
      })
      .finally(() => {
        this.#checkpointing = undefined;
      });
  }

  /** Worth it only as long as a segment is freed for less than half of one. */
  async #carry(segment: Segment): Promise<boolean> {
    let bytes = 0;
    for (const write of this.#state.onlyIn(segment.id)) bytes += stateWriteBytes(write);
    if (padded(bytes) > this.#ring.segmentBytes / 2) return false;
    try {
      await this.#committer.carry(segment.id);
      return true;
    } catch (error) {
      this.#log.warn({ event: 'journal-carry-failed', code: errorCode(error) }, 'tried again later');
      return false;
    }
  }

  #oldestAgeMs(index: ClassIndex): number | undefined {
    const lanes = index === 2 ? [this.#lanes.backlog, this.#lanes.fresh] : [this.#lanes.urgent];
    const times = lanes.flatMap((lane) => lane.oldest(index)?.frame.atMs ?? []);
    times.push(...rowsOf[index].flatMap((row) => this.#blocks.oldestMs(row) ?? []));
    return times.length === 0 ? undefined : Math.max(0, this.#journalMs() - Math.min(...times));
  }
}
