// Group commit: what arrives while one write is being synced goes into the next. Promises: an append resolves
// only when its bytes are on the disk, all of it is in one frame, and appends resolve in the order of the calls.
// The loop waits for nothing but the disk and one turn of the event loop, unless it was told to linger to spare the
// card: then telemetry waits for company, never beyond `ackDelayMaxMs`, and never together with an alarm or event.

import assert from 'node:assert/strict';
import { pointClasses } from '../model/point.ts';
import { type DiskTrouble, diskTroubleOf } from '../platform/disk-trouble.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { Histogram, type HistogramSnapshot } from '../platform/histogram.ts';
import type { Append, Appender, StateWrite } from './contract.ts';
import {
  type FrameHeader,
  frameBytesMax,
  headerBytes,
  keyBytesMax,
  type PerClass,
  padded,
  putStateWrite,
  sealFrame,
  stateWriteBytes,
} from './frame.ts';
import type { StateMap } from './hot-state.ts';
import type { Ring } from './ring.ts';

/** A frame takes no more appends beyond this; a larger one means more lost to one flipped bit. */
const framePayloadBytesMax = 512 * 1024;
/** A segment holds several frames, however small it is. */
const framesPerSegmentMin = 8;

/** With this much in it padding to whole blocks wastes an eighth at most: nothing is gained by waiting for more. */
const lingerBytesMax = 8 * 4096;
/** Part of `ackDelayMaxMs` that is left to the write, however fast those of late were. */
const reserve = 0.1;

/** Upper bounds of the sync-time histogram, milliseconds. */
export const syncBucketsMs = [0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000] as const;

export interface CommitterOptions {
  readonly ring: Ring;
  readonly state: StateMap;
  readonly pendingBytesMax: number;
  readonly appendBytesMax: number;
  readonly lazyMs: number;
  readonly retryMs: number;
  /** The longest an append may wait for its acknowledgement because of lingering, the write included. */
  readonly ackDelayMaxMs: number;
  /** Sequence of the newest frame there is, and the points in all frames so far. */
  readonly lastSequence: number;
  readonly points: number;
  readonly monotonicMs: () => number;
  readonly journalMs: () => number;
  /** The newest frame with lines, and the watermarks, as they were found. */
  readonly lastLinesSequence: number;
  readonly lastWatermarks: PerClass;
  /** By class the lowest sequence with lines that are not gone; `none` if there are none. */
  readonly watermarks: (none: number) => PerClass;
  /** What the journal has to say of itself in the first frame of a commit, if there is padding for it. */
  readonly remark: (sequence: number, points: number, own: number, room: number) => StateWrite | undefined;
  /** Whether there is a remark that must not wait for the next start. */
  readonly isRemarkDue: (lastSequence: number) => boolean;
  /** A frame is durable at the position. Called before its appends resolve. */
  readonly onFrame: (header: FrameHeader, position: number) => void;
  /** A commit ended, well or not: the place for what is done once a commit. */
  readonly onCommit: (points: number) => void;
  /** There is no room; answers whether there is hope of some soon. */
  readonly onNoRoom: () => boolean;
}

interface Entry {
  readonly class: 0 | 1 | 2;
  readonly lines: string;
  readonly linesBytes: number;
  readonly points: number;
  readonly isUndated: boolean;
  readonly bytes: number;
  readonly state: readonly StateWrite[];
  readonly resolve: () => void;
  readonly reject: (error: GatewayError) => void;
}

/** Writes that may wait. A place in the queue of their own keeps the order of writes to one key. */
interface LazyEntry {
  readonly writes: Map<string, StateWrite>;
  bytes: number;
}

/** State that is to be appended once more. */
interface Carrying {
  readonly segment: number;
  readonly resolve: () => void;
  readonly reject: (error: GatewayError) => void;
}

interface EncodedFrame {
  readonly header: FrameHeader;
  readonly offset: number;
  readonly state: readonly StateWrite[];
}

export interface CommitterStats {
  readonly appends: number;
  readonly points: number;
  readonly linesBytes: number;
  readonly commits: number;
  readonly frames: number;
  readonly writtenBytes: number;
  readonly failedCommits: number;
  readonly refusedFull: number;
  readonly refusedStalled: number;
  readonly refusedFailed: number;
  /** Readings were refused for want of room or because the disk failed, and none were taken since. */
  readonly isRefusing: boolean;
  readonly pendingBytes: number;
  /** Counts by `syncBucketsMs`, the last one beyond them all. */
  readonly syncCounts: readonly number[];
  readonly syncSumMs: number;
  /** What `linger` asked for last. */
  readonly lingerMs: number;
  /** Of each commit the append that waited longest, from the call to the disk. */
  readonly ackDelay: HistogramSnapshot;
}

function isLazy(entry: Entry | LazyEntry): entry is LazyEntry {
  return 'writes' in entry;
}

export class Committer implements Appender {
  readonly #options: CommitterOptions;
  readonly #ring: Ring;
  readonly #state: StateMap;
  readonly #buffer = Buffer.alloc(frameBytesMax);
  readonly #ackDelay = new Histogram();
  readonly #syncCounts: number[] = new Array(syncBucketsMs.length + 1).fill(0);
  #queue: (Entry | LazyEntry)[] = [];
  /** Entries of the queue that want a commit now. */
  #eager = 0;
  /** When the oldest of them came. */
  #eagerSinceMs = 0;
  /** Among them is an alarm or event: nobody lingers. */
  #isUrgent = false;
  #isSettling = false;
  #lingerMs = 0;
  #lingerTimer: NodeJS.Timeout | undefined;
  /** How much later than planned appends are durable, smoothed: the write, and timers that fire late. */
  #overrunMs = 0;
  #overrunDeviationMs = 0;
  #isLazyDue = false;
  #carrying: Carrying | undefined;
  #lazyTimer: NodeJS.Timeout | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #isRunning = false;
  #isClosed = false;
  #idle: (() => void)[] = [];
  #sequence: number;
  #committedSequence: number;
  #pointsBefore: number;
  #pendingBytes = 0;
  #appends = 0;
  #points = 0;
  #linesBytes = 0;
  #commits = 0;
  #frames = 0;
  #writtenBytes = 0;
  #failedCommits = 0;
  #refusedFull = 0;
  #refusedStalled = 0;
  #refusedFailed = 0;
  #isRefusing = false;
  #trouble: DiskTrouble | undefined;
  #syncSumMs = 0;
  #lastLinesSequence: number;
  #writtenWatermarks: PerClass;

  constructor(options: CommitterOptions) {
    this.#options = options;
    this.#ring = options.ring;
    this.#state = options.state;
    this.#sequence = options.lastSequence;
    this.#committedSequence = options.lastSequence;
    this.#pointsBefore = options.points;
    this.#lastLinesSequence = options.lastLinesSequence;
    this.#writtenWatermarks = options.lastWatermarks;
  }

  get pendingBytes(): number {
    return this.#pendingBytes;
  }

  /** What the last commit failed for; undefined when it did not. */
  get trouble(): DiskTrouble | undefined {
    return this.#trouble;
  }

  append(append: Append): Promise<void> {
    const state = append.state ?? [];
    let bytes = Buffer.byteLength(append.lines);
    const linesBytes = bytes;
    for (const write of state) bytes += stateWriteBytes(write);
    const refusal = this.#refusal(bytes);
    if (refusal !== undefined) return Promise.reject(refusal);
    for (const write of state) {
      assert(Buffer.byteLength(write.key) <= keyBytesMax, `BUG: state key too long: ${write.key}`);
      this.#state.stage(write);
    }
    const classIndex = pointClasses.indexOf(append.class);
    assert(classIndex === 0 || classIndex === 1 || classIndex === 2, `BUG: no class ${append.class}`);
    this.#pendingBytes += bytes;
    if (this.#eager === 0) this.#eagerSinceMs = this.#options.monotonicMs();
    this.#eager += 1;
    if (append.class !== 'telemetry' && append.points > 0) this.#isUrgent = true;
    const { lines, points } = append;
    const isUndated = append.undated === true;
    return new Promise((resolve, reject) => {
      this.#queue.push({
        ...{ class: classIndex, lines, linesBytes, points, isUndated, bytes, state },
        ...{ resolve, reject },
      });
      this.kick();
    });
  }

  #refusal(bytes: number): GatewayError | undefined {
    if (this.#isClosed) return new GatewayError('JOURNAL_CLOSED', 'the journal is closed');
    if (bytes > this.#options.appendBytesMax) {
      return new GatewayError(
        'JOURNAL_TOO_LARGE',
        `one append is at most ${this.#options.appendBytesMax} bytes`,
      );
    }
    if (this.#pendingBytes + bytes <= this.#options.pendingBytesMax) return undefined;
    this.#refusedStalled += 1;
    return new GatewayError('JOURNAL_STALLED', `${this.#pendingBytes} bytes wait for the disk`);
  }

  writeLazily(writes: readonly StateWrite[]): void {
    if (writes.length === 0 || this.#isClosed) return;
    const bytes = writes.reduce((sum, write) => sum + stateWriteBytes(write), 0);
    if (bytes > this.#options.appendBytesMax) {
      assert(writes.length > 1, 'BUG: too much state at once');
      const half = Math.ceil(writes.length / 2);
      this.writeLazily(writes.slice(0, half));
      this.writeLazily(writes.slice(half));
      return;
    }
    const last = this.#queue[this.#queue.length - 1];
    let entry: LazyEntry;
    if (last !== undefined && isLazy(last) && last.bytes + bytes <= this.#lazyBytesMax) entry = last;
    else {
      entry = { writes: new Map(), bytes: 0 };
      this.#queue.push(entry);
    }
    for (const write of writes) {
      assert(Buffer.byteLength(write.key) <= keyBytesMax, `BUG: state key too long: ${write.key}`);
      const before = entry.writes.get(write.key);
      if (before !== undefined) entry.bytes -= stateWriteBytes(before);
      entry.writes.set(write.key, write);
      entry.bytes += stateWriteBytes(write);
      this.#state.stage(write);
    }
    this.#armLazyTimer();
  }

  #armLazyTimer(): void {
    this.#lazyTimer ??= setTimeout(() => {
      this.#lazyTimer = undefined;
      this.#isLazyDue = true;
      this.kick();
    }, this.#options.lazyMs);
  }

  /**
   * From now on a commit of telemetry waits this long for more to go with it, less where the disk is so slow that
   * `ackDelayMaxMs` would be exceeded. 0: not at all.
   */
  linger(lingerMs: number): void {
    this.#lingerMs = lingerMs;
    clearTimeout(this.#lingerTimer);
    this.#lingerTimer = undefined;
    if (this.#eager > 0) this.kick();
  }

  /**
   * As long as was asked for, with room for a slow write. How slow is learnt as TCP learns when to send again
   * (RFC 6298), so that one stall of a card is not held against it for long.
   */
  get #plannedMs(): number {
    if (this.#lingerMs === 0) return 0;
    const { ackDelayMaxMs } = this.#options;
    const slowMs = this.#overrunMs + 4 * this.#overrunDeviationMs;
    const reserveMs = Math.max(slowMs, reserve * ackDelayMaxMs);
    return Math.max(0, Math.min(this.#lingerMs, ackDelayMaxMs - reserveMs));
  }

  /** How long what waits may go on waiting for company. */
  get #lingerLeftMs(): number {
    if (this.#lingerMs === 0 || this.#eager === 0) return 0;
    if (this.#isUrgent || this.#isSettling || this.#pendingBytes >= lingerBytesMax) return 0;
    return this.#eagerSinceMs + this.#plannedMs - this.#options.monotonicMs();
  }

  #armLingerTimer(ms: number): void {
    this.#lingerTimer ??= setTimeout(() => {
      this.#lingerTimer = undefined;
      this.kick();
    }, ms);
  }

  /** Something changed that may let the queue move: new entries, or room in the ring. */
  kick(): void {
    if (this.#isRunning || this.#retryTimer !== undefined) return;
    this.#isRunning = true;
    // Started from append itself, the first of a burst would be committed alone.
    setImmediate(() => {
      this.#run().catch((error: unknown) => {
        // Only our own mistakes come here; they must not vanish in a promise.
        setImmediate(() => {
          throw error;
        });
      });
    });
  }

  /** Resolves when nothing is being written: all that could be committed is. */
  async settle(): Promise<void> {
    this.#isLazyDue = true;
    this.#isSettling = true;
    this.kick();
    if (this.#isRunning) await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  /** Commits what is lazy and a last watermark; appends are refused from now on. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = undefined;
    await this.settle();
    // A commit that was failing just then has put them back.
    if (this.#queue.some(isLazy)) await this.settle();
    clearTimeout(this.#lazyTimer);
    clearTimeout(this.#retryTimer);
    clearTimeout(this.#lingerTimer);
    for (const entry of this.#queue) {
      if (!isLazy(entry))
        this.#rejectEntry(entry, new GatewayError('JOURNAL_CLOSED', 'the journal is closed'));
    }
    this.#queue = [];
    const known = this.#options.watermarks(this.#lastLinesSequence + 1);
    const isNews = known.some((watermark, index) => watermark > (this.#writtenWatermarks[index] ?? 0));
    if (!this.#options.isRemarkDue(this.#committedSequence) && !isNews) return;
    if (!this.#ring.claim(padded(headerBytes), 0)) return;
    const watermarks = this.#watermarks();
    await this.#write([this.#encode([], 0, 0, watermarks)]).catch(() => undefined);
  }

  stats(): CommitterStats {
    return {
      appends: this.#appends,
      points: this.#points,
      linesBytes: this.#linesBytes,
      commits: this.#commits,
      frames: this.#frames,
      writtenBytes: this.#writtenBytes,
      failedCommits: this.#failedCommits,
      refusedFull: this.#refusedFull,
      refusedStalled: this.#refusedStalled,
      refusedFailed: this.#refusedFailed,
      isRefusing: this.#isRefusing,
      pendingBytes: this.#pendingBytes,
      syncCounts: [...this.#syncCounts],
      syncSumMs: this.#syncSumMs,
      lingerMs: this.#lingerMs,
      ackDelay: this.#ackDelay.snapshot(),
    };
  }

  get #lazyBytesMax(): number {
    return Math.min(this.#framePayloadBytes / 4, this.#options.appendBytesMax);
  }

  /** Once no alarm can come any more, the room kept for alarms is theirs: they have nowhere else to go. */
  get #lazyClass(): 0 | 1 {
    return this.#isClosed && !this.#queue.some((entry) => !isLazy(entry) && entry.class === 0) ? 0 : 1;
  }

  get #framePayloadBytes(): number {
    return Math.min(framePayloadBytesMax, this.#ring.segmentBytes / framesPerSegmentMin);
  }

  get #wantsCommit(): boolean {
    return this.#eager > 0 || (this.#isLazyDue && this.#queue.length > 0);
  }

  async #run(): Promise<void> {
    while ((this.#wantsCommit || this.#carrying !== undefined) && this.#retryTimer === undefined) {
      if (this.#carrying !== undefined) {
        await this.#commitCarried(this.#carrying);
        continue;
      }
      const lingerLeftMs = this.#lingerLeftMs;
      if (lingerLeftMs > 0) {
        this.#armLingerTimer(lingerLeftMs);
        break;
      }
      if (!this.#claim()) {
        // Segments that cannot be made anew before the disk knows the floor, and nobody else to tell it.
        if (!this.#ring.isWaitingForFloor || !this.#ring.claim(padded(headerBytes), 0)) break;
        await this.#commitFloor();
      } else if (this.#ring.isFloorDue) await this.#commitFloor();
      else await this.#commit();
      await new Promise(setImmediate);
    }
    if (this.#queue.length === 0) this.#isLazyDue = false;
    this.#isRunning = false;
    this.#isSettling = false;
    for (const resolve of this.#idle.splice(0)) resolve();
  }

  /** Finds room for the first entry of the queue, refusing what there is no room for. */
  #claim(): boolean {
    for (;;) {
      const first = this.#queue[0];
      if (first === undefined) return false;
      const bytes = padded(headerBytes + first.bytes);
      if (this.#ring.claim(bytes, isLazy(first) ? this.#lazyClass : first.class)) return true;
      const isHopeful = this.#options.onNoRoom();
      if (isLazy(first)) {
        if (this.#letAlarmPass()) continue;
        // Not even the reserve is left. Lazy writes stay; what their senders wait for is refused.
        if (!isHopeful) this.#refuseAll();
        this.#isLazyDue = false;
        if (!this.#isClosed) this.#armLazyTimer();
        return false;
      }
      // Room is being made: telemetry waits for it, unless that would keep an alarm waiting behind it.
      const holdsUp = this.#queue.some(
        (entry) => !isLazy(entry) && entry.class < first.class && (entry.class === 0 || entry.points > 0),
      );
      if (isHopeful && !holdsUp) return false;
      this.#queue.shift();
      this.#refuse(first);
    }
  }

  /** Lazy writes at the head wait behind the first alarm, if there is one; not where it would change what wins. */
  #letAlarmPass(): boolean {
    const at = this.#queue.findIndex((entry) => !isLazy(entry) && entry.class === 0);
    if (at < 0) return false;
    const ahead = this.#queue.slice(0, at + 1);
    const lazy = ahead.filter(isLazy);
    const eager = ahead.flatMap((entry) => (isLazy(entry) ? [] : [entry]));
    const isWritten = (key: string) => lazy.some(({ writes }) => writes.has(key));
    if (eager.some((entry) => entry.state.some(({ key }) => isWritten(key)))) return false;
    this.#queue = [...eager, ...lazy, ...this.#queue.slice(at + 1)];
    return true;
  }

  #refuseAll(): void {
    const entries = this.#queue;
    for (const entry of entries) if (!isLazy(entry)) this.#refuse(entry);
    this.#queue = this.#merge(entries.filter(isLazy));
  }

  /**
   * Lazy writes that have to wait, nothing between them: what a newer one replaces goes, as do deletes of what was
   * never stored, so that a disk that fails for days costs no more memory than there are keys. Calls stay whole.
   */
  #merge(entries: readonly LazyEntry[]): LazyEntry[] {
    const merged: LazyEntry[] = [];
    const newer = new Set<string>();
    for (const entry of [...entries].reverse()) {
      for (const [key, write] of entry.writes) {
        const isReplaced = newer.has(key);
        newer.add(key);
        const isNothing = write.value === undefined && !this.#state.mayHave(key);
        if (isReplaced || isNothing) {
          entry.writes.delete(key);
          entry.bytes -= stateWriteBytes(write);
          this.#state.unstage(write);
        } else this.#state.restage(write);
      }
      const [next] = merged;
      if (entry.writes.size === 0) continue;
      if (next === undefined || next.bytes + entry.bytes > this.#lazyBytesMax) merged.unshift(entry);
      else {
        for (const [key, write] of next.writes) entry.writes.set(key, write);
        entry.bytes += next.bytes;
        merged[0] = entry;
      }
    }
    return merged;
  }

  #refuse(entry: Entry): void {
    this.#eager -= 1;
    this.#refusedFull += 1;
    this.#isRefusing = true;
    this.#rejectEntry(entry, new GatewayError('JOURNAL_FULL', 'no room in the journal'));
  }

  #rejectEntry(entry: Entry, error: GatewayError): void {
    this.#pendingBytes -= entry.bytes;
    for (const write of entry.state) this.#state.unstage(write);
    entry.reject(error);
  }

  /** A frame of nothing, which carries the floor. */
  async #commitFloor(): Promise<void> {
    try {
      await this.#write([this.#encode([], 0, 0, this.#watermarks())]);
    } catch (error) {
      this.#fail([], error);
    }
  }

  /**
   * Appends once more, ahead of everything that waits, the state that would be lost with the segment; whoever
   * asks can then do without it.
   * @throws GatewayError `JOURNAL_FULL` when there is no room, `JOURNAL_FAILED`.
   */
  carry(segment: number): Promise<void> {
    assert(this.#carrying === undefined, 'BUG: carried twice at once');
    return new Promise((resolve, reject) => {
      this.#carrying = { segment, resolve, reject };
      this.kick();
    });
  }

  /** One frame of it. Between two commits: what is committed is what counts, and all that waits is newer. */
  async #commitCarried({ segment, resolve, reject }: Carrying): Promise<void> {
    const writes = new Map<string, StateWrite>();
    let bytes = 0;
    for (const write of this.#state.onlyIn(segment)) {
      const more = stateWriteBytes(write);
      if (bytes > 0 && bytes + more > this.#framePayloadBytes) break;
      writes.set(write.key, write);
      bytes += more;
    }
    if (writes.size === 0) {
      this.#carrying = undefined;
      resolve();
      return;
    }
    if (!this.#ring.claim(padded(headerBytes + bytes), 0)) {
      this.#carrying = undefined;
      reject(new GatewayError('JOURNAL_FULL', 'no room in the journal'));
      return;
    }
    if (this.#ring.isFloorDue) {
      await this.#commitFloor();
      return;
    }
    try {
      await this.#write([this.#encode([{ writes, bytes }], 0, 0, this.#watermarks())]);
    } catch (error) {
      this.#carrying = undefined;
      this.#fail([], error);
      reject(new GatewayError('JOURNAL_FAILED', 'the disk did not take it', { cause: error }));
    }
  }

  #watermarks(): PerClass {
    // Of all frames of the commit the first one's number: what is in the others nobody has delivered yet.
    return this.#options.watermarks(this.#sequence + 1);
  }

  async #commit(): Promise<void> {
    const watermarks = this.#watermarks();
    const room = Math.min(this.#ring.remainingBytes, this.#buffer.length);
    const isReserve = this.#ring.freeSegments === 0;
    const taken: (Entry | LazyEntry)[] = [];
    const frames: EncodedFrame[] = [];
    let offset = 0;
    let at = 0;
    while (at < this.#queue.length) {
      const group: (Entry | LazyEntry)[] = [];
      let bytes = headerBytes;
      for (let entry = this.#queue[at]; entry !== undefined; entry = this.#queue[at]) {
        if (offset + padded(bytes + entry.bytes) > room) break;
        if (group.length > 0 && bytes + entry.bytes > this.#framePayloadBytes) break;
        // Written on in the reserve, others would take the room kept for alarms.
        const isAlarm = !isLazy(entry) && entry.class === 0;
        const end = offset + padded(bytes + entry.bytes);
        if (isReserve && !isAlarm && !(isLazy(entry) && this.#lazyClass === 0)) {
          if (!isLazy(entry) && entry.class === 2) break;
          if (this.#ring.remainingBytes - end < this.#ring.alarmReserveBytes) break;
        }
        group.push(entry);
        bytes += entry.bytes;
        at += 1;
      }
      if (group.length === 0) break;
      const frame = this.#encode(group, offset, frames.length, watermarks);
      frames.push(frame);
      offset += padded(frame.header.length);
      for (const entry of group) taken.push(entry);
    }
    assert(frames.length > 0, 'BUG: room was claimed for nothing');
    this.#queue = at === this.#queue.length ? [] : this.#queue.slice(at);
    const sinceMs = this.#eager > 0 ? this.#eagerSinceMs : undefined;
    const startMs = this.#options.monotonicMs();
    const lateMs = sinceMs === undefined ? 0 : Math.max(0, startMs - sinceMs - this.#plannedMs);
    for (const entry of taken) if (!isLazy(entry)) this.#eager -= 1;
    if (this.#eager === 0) this.#isUrgent = false;
    try {
      await this.#write(frames);
    } catch (error) {
      this.#fail(taken, error);
      return;
    }
    const endMs = this.#options.monotonicMs();
    if (sinceMs !== undefined) this.#ackDelay.observe(endMs - sinceMs);
    this.#learnOverrun(lateMs + endMs - startMs);
    let points = 0;
    for (const entry of taken) {
      if (isLazy(entry)) continue;
      this.#pendingBytes -= entry.bytes;
      this.#appends += 1;
      this.#points += entry.points;
      this.#linesBytes += entry.linesBytes;
      points += entry.points;
      entry.resolve();
    }
    this.#options.onCommit(points);
  }

  #fail(taken: readonly (Entry | LazyEntry)[], error: unknown): void {
    this.#failedCommits += 1;
    const lazy: LazyEntry[] = [];
    for (const entry of taken) {
      if (isLazy(entry)) {
        lazy.push(entry);
        continue;
      }
      this.#refusedFailed += 1;
      this.#isRefusing = true;
      const message = `the disk did not take it: ${errorCode(error) ?? String(error)}`;
      this.#rejectEntry(entry, new GatewayError('JOURNAL_FAILED', message, { cause: error }));
    }
    // Lazy writes are tried again, still before anything that came after them.
    let next = this.#queue[0];
    for (; next !== undefined && isLazy(next); next = this.#queue[0]) {
      lazy.push(next);
      this.#queue.shift();
    }
    this.#queue = [...this.#merge(lazy), ...this.#queue];
    if (lazy.length > 0 && !this.#isClosed) this.#armLazyTimer();
    this.#isLazyDue = false;
    // Every failure costs a segment: a failing disk must not use them all up at once.
    if (!this.#isClosed) {
      this.#retryTimer = setTimeout(() => {
        this.#retryTimer = undefined;
        this.kick();
      }, this.#options.retryMs);
    }
    this.#options.onCommit(0);
  }

  #encode(
    group: readonly (Entry | LazyEntry)[],
    offset: number,
    place: number,
    watermarks: PerClass,
  ): EncodedFrame {
    const buffer = this.#buffer;
    const lines: [string, string, string] = ['', '', ''];
    const points: [number, number, number] = [0, 0, 0];
    const bytes: [number, number, number] = [0, 0, 0];
    const undated: [boolean, boolean, boolean] = [false, false, false];
    // The last write of a key wins within a frame; the others never were.
    let state: Map<string, StateWrite> | undefined;
    for (const entry of group) {
      if (isLazy(entry)) {
        state ??= new Map();
        for (const write of entry.writes.values()) state.set(write.key, write);
        continue;
      }
      lines[entry.class] += entry.lines;
      points[entry.class] += entry.points;
      bytes[entry.class] += entry.linesBytes;
      if (entry.isUndated) undated[entry.class] = true;
      if (entry.state.length === 0) continue;
      state ??= new Map();
      for (const write of entry.state) state.set(write.key, write);
    }
    let at = offset + headerBytes;
    for (const index of [0, 1, 2] as const) {
      if (bytes[index] > 0) at += buffer.write(lines[index], at);
    }
    const stateAt = at;
    const writes = state === undefined ? [] : [...state.values()];
    for (const write of writes) at = putStateWrite(buffer, write, at);
    const sequence = this.#sequence + 1;
    if (place === 0) {
      const own = points[0] + points[1] + points[2];
      const room = offset + padded(at - offset) - at;
      const remark = this.#options.remark(sequence, this.#pointsBefore + own, own, room);
      if (remark !== undefined) {
        at = putStateWrite(buffer, remark, at);
        writes.push(remark);
      }
    }
    const header: FrameHeader = {
      length: at - offset,
      segment: this.#ring.active.id,
      life: this.#ring.active.life,
      sequence,
      place,
      isAfterOpening: this.#ring.active.isAfterOpening,
      previous: this.#committedSequence,
      watermarks,
      floor: this.#ring.floor,
      pointsBefore: this.#pointsBefore,
      atMs: Math.floor(this.#options.journalMs()),
      points,
      bytes,
      undated,
      stateWrites: writes.length,
      stateBytes: at - stateAt,
    };
    sealFrame(buffer, offset, header);
    this.#sequence = sequence;
    this.#committedSequence = sequence;
    this.#pointsBefore += points[0] + points[1] + points[2];
    return { header, offset, state: writes };
  }

  async #write(frames: readonly EncodedFrame[]): Promise<void> {
    const first = frames[0];
    const last = frames[frames.length - 1];
    assert(first !== undefined && last !== undefined, 'BUG: nothing to write');
    const end = last.offset + padded(last.header.length);
    const position = this.#ring.active.end;
    const startMs = this.#options.monotonicMs();
    try {
      await this.#ring.commit(this.#buffer.subarray(0, end));
    } catch (error) {
      // The numbers are not used again: the frames may be on the disk after all.
      this.#trouble = diskTroubleOf(error);
      this.#committedSequence = first.header.previous;
      this.#pointsBefore = first.header.pointsBefore;
      throw error;
    }
    this.#trouble = undefined;
    // Also without readings: with two segments free there is room for them.
    const hasReadings = frames.some(({ header }) => header.points[2] > 0);
    if (hasReadings || this.#ring.freeSegments > 1) this.#isRefusing = false;
    this.#countSync(this.#options.monotonicMs() - startMs);
    this.#commits += 1;
    this.#frames += frames.length;
    this.#writtenBytes += end;
    this.#writtenWatermarks = last.header.watermarks;
    for (const frame of frames) {
      if (frame.header.length > headerBytes + frame.header.stateBytes) {
        this.#lastLinesSequence = frame.header.sequence;
      }
      for (const write of frame.state) this.#state.commit(write, frame.header.segment);
      this.#options.onFrame(frame.header, position + frame.offset);
    }
  }

  #learnOverrun(ms: number): void {
    this.#overrunDeviationMs += (Math.abs(ms - this.#overrunMs) - this.#overrunDeviationMs) / 4;
    this.#overrunMs += (ms - this.#overrunMs) / 8;
  }

  #countSync(ms: number): void {
    this.#syncSumMs += ms;
    let bucket = 0;
    while (bucket < syncBucketsMs.length && ms > (syncBucketsMs[bucket] ?? 0)) bucket += 1;
    this.#syncCounts[bucket] = (this.#syncCounts[bucket] ?? 0) + 1;
  }
}
