// Tier 1: a ring of preallocated segments, written over and over. Promises: segments are used up in the order
// of their ids and the one freed first is used first, so what is live is always one unbroken run of frames;
// a segment whose write or sync failed is not written again before it has been made anew. Knows nothing of
// lanes and delivery.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import type { Disk, DiskFile } from '../platform/disk.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { ClassIndex } from './class-index.ts';
import type { StateWrite } from './contract.ts';
import {
  blockBytes,
  type FrameHeader,
  headerBytes,
  type PerClass,
  padded,
  readFrame,
  readStateWrites,
} from './frame.ts';
import {
  type FoundFrame,
  type Frame,
  type Gap,
  isSameCommit,
  lastCommitAt,
  type Scan,
  type Segment,
  scanSegment,
} from './segment.ts';

export interface RingOptions {
  readonly directory: string;
  readonly disk: Disk;
  readonly log: Log;
  readonly segmentBytes: number;
  readonly segments: number;
  /** A number below 2^48 nobody can guess, for each life of a segment. */
  readonly randomLife?: () => number;
}

interface Found {
  readonly segment: Segment;
  readonly scan: Scan;
}

export interface Quarantined {
  /** Regions found damaged between good frames, or at reading back. */
  segments: number;
  bytes: number;
  points: number;
  /** Tails cut at open: commits nobody was told of. */
  tornTails: number;
}

/** What the ring held when it was opened, oldest first. */
export interface Recovered {
  readonly frames: readonly { readonly segment: Segment; readonly found: FoundFrame }[];
  readonly lastSequence: number;
  readonly points: number;
  readonly watermarks: PerClass;
  readonly atMs: number;
  /** What was found damaged between good frames; `report` judges it. */
  readonly gaps: readonly { readonly segment: Segment; readonly gap: Gap }[];
  readonly breaks: readonly Break[];
  readonly cuts: readonly Cut[];
  /** Something of the ring is damaged or gone, wherever. */
  readonly isSpoilt: boolean;
}

/** A file of a size nobody gave it. */
interface Cut {
  readonly name: string;
  readonly bytes: number;
  /** 0 when nothing is left of it: the file is gone. */
  readonly segment: number;
}

/** Between two good frames there were others. */
export interface Break {
  /** The last one before, the last one missing, and the one that tells. */
  readonly after: number;
  readonly last: number;
  readonly until: number;
  readonly points: number;
}

const quarantineFilesMax = 16;
const quarantineFileBytesMax = 512 * 1024;
const firstSegments = 2;
/** A file that is longer is none of ours, whatever the size of segments was. */
const segmentBytesMax = 256 * 1024 * 1024;
/** What a path that is no readable file answers; other errors (no permission, no descriptors) say nothing of it. */
const unreadableCodes: readonly (string | undefined)[] = [
  'EIO',
  'EISDIR',
  'ELOOP',
  'ENOENT',
  'ENXIO',
  'EINVAL',
];

function randomLife(): number {
  return randomBytes(6).readUIntLE(0, 6);
}

export class Ring {
  readonly quarantined: Quarantined = { segments: 0, bytes: 0, points: 0, tornTails: 0 };
  readonly segmentBytes: number;
  readonly slots: number;
  /** Awaited before a segment becomes free: the last moment at which its bytes can be read. */
  beforeRecycle: ((segment: Segment) => Promise<void>) | undefined;
  readonly #directory: string;
  readonly #disk: Disk;
  readonly #log: Log;
  readonly #randomLife: () => number;
  #active: Segment | undefined;
  /** Full or from before the last start; oldest first. */
  readonly #used: Segment[] = [];
  /** Freed first, used first. */
  readonly #free: Segment[] = [];
  #lastId = 0;
  /** The highest floor that is surely on the disk. */
  #durableFloor = 0;
  #hasCommitted = false;
  #filling: Promise<void> | undefined;
  #isClosing = false;
  #missing: number[] = [];
  /** By slot: what a missing segment's file still holds. */
  readonly #stale = new Map<number, number>();
  /** Put into quarantine at this opening. */
  readonly #movedAside: string[] = [];

  private constructor(options: RingOptions) {
    this.#directory = options.directory;
    this.#disk = options.disk;
    this.#log = options.log;
    this.#randomLife = options.randomLife ?? randomLife;
    this.segmentBytes = options.segmentBytes;
    this.slots = options.segments;
  }

  /** Reads what is there and makes sure of two usable segments; `fill` makes the rest. */
  static async open(options: RingOptions): Promise<{ ring: Ring; recovered: Recovered }> {
    const ring = new Ring(options);
    const found: Found[] = [];
    try {
      const recovered = await ring.#recover(found);
      return { ring, recovered };
    } catch (error) {
      for (const { segment } of found) await segment.file.close().catch(() => undefined);
      throw error;
    }
  }

  get freeSegments(): number {
    return this.#free.length;
  }

  /** Including the one being written. */
  get usedSegments(): number {
    return this.#used.length + (this.#active === undefined ? 0 : 1);
  }

  /** Slots that have no file yet. */
  get missingSegments(): number {
    return this.#missing.length;
  }

  /** Whether one of them may be made now. */
  get canFill(): boolean {
    return this.#missing.some((slot) => this.#mayErase(this.#stale.get(slot) ?? 0));
  }

  /** Whether there are some, and the next commit is what makes it possible. */
  get isWaitingForFloor(): boolean {
    return this.#missing.length > 0 && !this.canFill && this.floor > this.#durableFloor;
  }

  /** The oldest segment that is full. */
  get oldest(): Segment | undefined {
    return this.#used[0];
  }

  /** Lowest segment id still needed. */
  get floor(): number {
    return this.#used[0]?.id ?? this.#active?.id ?? this.#lastId + 1;
  }

  /**
   * Whether the active segment may not take frames before a small one of its own: should the power go in the midst
   * of a first large one, what the disk knows is a floor that still counts the former life in, of which frames
   * in between would be missing, and state of older frames would come back.
   */
  get isFloorDue(): boolean {
    const { active } = this;
    return active.end === 0 && active.formerId > 0 && active.formerId >= this.#durableFloor;
  }

  /** Points in all frames before the oldest needed; undefined when there is none yet. */
  get floorPoints(): number | undefined {
    for (const { frames, pointsBefore } of this.live()) if (frames.length > 0) return pointsBefore;
    return undefined;
  }

  get active(): Segment {
    assert(this.#active !== undefined, 'BUG: no segment claimed');
    return this.#active;
  }

  get remainingBytes(): number {
    return this.#active === undefined ? 0 : this.#active.file.bytes - this.#active.end;
  }

  /** Segments that hold frames, oldest first. */
  *live(): Iterable<Segment> {
    yield* this.#used;
    if (this.#active !== undefined) yield this.#active;
  }

  /** Of the reserve so much is for alarms alone: what else goes on while the disk is full must not use it up. */
  get alarmReserveBytes(): number {
    return this.segmentBytes / 4;
  }

  /**
   * Makes room for so many bytes in the active segment, turning to the next one if needed. The last free segment
   * is a reserve: telemetry neither gets it nor writes on in it, events and state have three quarters of it.
   */
  claim(bytes: number, classIndex: ClassIndex): boolean {
    if (this.#active !== undefined && !this.#active.suspect && this.remainingBytes >= bytes) {
      if (this.#free.length > 0 || classIndex === 0) return true;
      return classIndex === 1 && this.remainingBytes - bytes >= this.alarmReserveBytes;
    }
    if (this.#free.length < (classIndex === 2 ? 2 : 1)) return false;
    const isLast = this.#free.length === 1;
    if (isLast && classIndex === 1 && this.segmentBytes - bytes < this.alarmReserveBytes) return false;
    const next = this.#free.shift();
    if (next === undefined) return false;
    if (this.#active !== undefined) this.#used.push(this.#active);
    this.#lastId += 1;
    next.formerId = next.id;
    next.id = this.#lastId;
    next.life = this.#randomLife();
    next.isAfterOpening = !this.#hasCommitted;
    next.end = 0;
    next.frames = [];
    next.firstLeft.fill(0);
    this.#active = next;
    return true;
  }

  /**
   * Writes whole frames to the active segment and syncs them. After an error the segment gets no further frame:
   * what a failed fsync left in the page cache can look written and never be.
   */
  async commit(frames: Buffer): Promise<void> {
    const segment = this.active;
    const { floor } = this;
    assert(segment.end + frames.length <= segment.file.bytes, 'BUG: frame beyond its segment');
    try {
      await segment.file.write(frames, segment.end);
    } catch (error) {
      segment.suspect = true;
      this.#log.error(
        { event: 'journal-write-failed', segment: segment.id, code: errorCode(error) },
        'segment abandoned',
      );
      if (segment.frames.length === 0) {
        // Nothing of it was ever acknowledged.
        this.#active = undefined;
        this.#missing.push(segment.slot);
        this.#stale.set(segment.slot, segment.formerId);
        await segment.file.close().catch(() => undefined);
      }
      throw error;
    }
    segment.end += frames.length;
    this.#durableFloor = floor;
    this.#hasCommitted = true;
  }

  /**
   * Reads frames of one segment back, in order. A frame that cannot be read, or whose CRC no longer fits, is left
   * undefined and counted: one bad sector must not stop what is behind it.
   */
  async read(segment: Segment, frames: readonly Frame[]): Promise<(Buffer | undefined)[]> {
    const first = frames[0];
    const last = frames[frames.length - 1];
    if (first === undefined || last === undefined) return [];
    segment.pins += 1;
    try {
      const content = Buffer.allocUnsafe(last.position + last.length - first.position);
      try {
        await segment.file.read(content, first.position);
      } catch (error) {
        if (frames.length === 1) {
          this.#log.error({ event: 'journal-read-failed', code: errorCode(error) }, 'frame unreadable');
          return [this.#checked(segment, first, Buffer.alloc(0))];
        }
        const single: (Buffer | undefined)[] = [];
        for (const frame of frames) single.push(...(await this.read(segment, [frame])));
        return single;
      }
      return frames.map((frame) => {
        const start = frame.position - first.position;
        return this.#checked(segment, frame, content.subarray(start, start + frame.length));
      });
    } finally {
      segment.pins -= 1;
    }
  }

  #checked(segment: Segment, frame: Frame, content: Buffer): Buffer | undefined {
    const header = readFrame(content, 0);
    if (header?.sequence === frame.sequence && header.segment === segment.id) return content;
    this.quarantined.segments += 1;
    this.quarantined.bytes += frame.length;
    this.#log.error(
      { event: 'journal-frame-damaged', segment: segment.id, sequence: frame.sequence },
      'lost at reading back',
    );
    return undefined;
  }

  /** The oldest segment holds nothing that is needed any more. */
  async recycle(segment: Segment): Promise<void> {
    assert(this.#used[0] === segment, 'BUG: only the oldest segment is recycled');
    await this.beforeRecycle?.(segment);
    this.#used.shift();
    segment.frames = [];
    segment.firstLeft.fill(0);
    if (!segment.suspect && segment.slot < this.slots) {
      this.#free.push(segment);
      return;
    }
    await segment.file.close().catch(() => undefined);
    if (segment.slot >= this.slots) {
      // Else the next opening does it.
      if (this.#mayErase(segment.id)) await this.#disk.remove(segment.path);
      return;
    }
    this.#missing.push(segment.slot);
    this.#stale.set(segment.slot, segment.id);
    await this.#make();
  }

  /**
   * Whether frames of a life that ended may go. As long as the disk does not know that they are not needed they are
   * read again after a power cut, and then all behind them must be there too, or older state would win.
   */
  #mayErase(id: number): boolean {
    if (id < this.#durableFloor) return true;
    const isOlder = (other: number) => other >= this.#durableFloor && other > 0 && other < id;
    return !this.#free.some((segment) => isOlder(segment.id)) && ![...this.#stale.values()].some(isOlder);
  }

  /** Makes the segments that are missing, one after the other, in the background. Rejects when the disk refuses. */
  fill(): Promise<void> {
    this.#filling ??= this.#fillAll().finally(() => {
      this.#filling = undefined;
    });
    return this.#filling;
  }

  async #fillAll(): Promise<void> {
    let failure: { readonly error: unknown } | undefined;
    // One that cannot be made must not keep the others from being made.
    for (let left = this.#missing.length; left > 0 && !this.#isClosing; left -= 1) {
      try {
        if (!(await this.#make())) break;
      } catch (error) {
        failure = { error };
        if (errorCode(error) === 'ENOSPC') break;
      }
    }
    if (failure !== undefined) throw failure.error;
  }

  /** Resolves when no segment in use is being read. */
  async unpinned(): Promise<void> {
    for (const segment of [...this.live()]) {
      while (segment.pins > 0) await new Promise(setImmediate);
    }
  }

  /** Makes no further segments. */
  stopFilling(): void {
    this.#isClosing = true;
  }

  async close(): Promise<void> {
    this.stopFilling();
    await this.#filling?.catch(() => undefined);
    for (const segment of [...this.live(), ...this.#free]) await segment.file.close();
  }

  /** Answers whether there was one that may be made now. */
  async #make(): Promise<boolean> {
    const index = this.#missing.findIndex((slot) => this.#mayErase(this.#stale.get(slot) ?? 0));
    const [slot] = index < 0 ? [] : this.#missing.splice(index, 1);
    if (slot === undefined) return false;
    const path = this.#path(slot);
    try {
      this.#free.push(newSegment(slot, path, await this.#disk.allocate(path, this.segmentBytes)));
      this.#stale.delete(slot);
      return true;
    } catch (error) {
      this.#missing.push(slot);
      throw error;
    }
  }

  #path(slot: number): string {
    return join(this.#directory, 'ring', `ring-${String(slot).padStart(3, '0')}`);
  }

  async #recover(scans: Found[]): Promise<Recovered> {
    const present = new Map<number, Segment>();
    const cuts: Cut[] = [];
    const names = await this.#disk.list(join(this.#directory, 'ring'));
    for (const name of names.sort()) {
      const slot = /^ring-(\d{3,})$/.exec(name)?.[1];
      if (slot === undefined) continue;
      const path = this.#path(Number(slot));
      const read = await this.#readWhole(path);
      if (read === undefined) {
        await this.#moveAside(path, name);
        continue;
      }
      const { file, content, isBad } = read;
      const scan = scanSegment(content);
      if (scan.isAlien) {
        await file.close();
        await this.#moveAside(path, name);
        continue;
      }
      // Files are made whole under another name: somebody else has cut or lengthened this one.
      if (file.bytes === 0 || file.bytes % blockBytes !== 0) {
        cuts.push({ name, bytes: file.bytes, segment: scan.id });
        if (scan.id === 0) {
          await file.close();
          await this.#disk.remove(path);
          continue;
        }
      }
      const segment = newSegment(Number(slot), path, file);
      const last = scan.frames[scan.frames.length - 1];
      if (last !== undefined) segment.end = last.position + padded(last.header.length);
      segment.id = scan.id;
      segment.suspect = isBad || file.bytes !== this.segmentBytes;
      present.set(segment.slot, segment);
      scans.push({ segment, scan });
    }

    const headers = scans.flatMap(({ scan }) => scan.frames.map((frame) => frame.header));
    const newest = headers.reduce<FrameHeader | undefined>(
      (best, header) => (best === undefined || header.sequence > best.sequence ? header : best),
      undefined,
    );
    const floor = newest?.floor ?? 0;
    scans.sort((a, b) => a.segment.id - b.segment.id);
    const surplus: Segment[] = [];
    for (const { segment, scan } of scans) {
      if (scan.id > 0 && scan.id >= floor) this.#used.push(segment);
      else if (!segment.suspect && segment.slot < this.slots) this.#free.push(segment);
      else {
        await segment.file.close();
        present.delete(segment.slot);
        if (segment.slot < this.slots) this.#stale.set(segment.slot, segment.id);
        else surplus.push(segment);
      }
      this.#lastId = Math.max(this.#lastId, segment.id);
    }
    this.#missing = Array.from({ length: this.slots }, (_, slot) => slot).filter(
      (slot) => !present.has(slot),
    );
    // They are made in order: one that is missing between others was there.
    const isIncomplete = this.#missing.some(
      (slot) => slot < Math.max(...present.keys()) && !this.#stale.has(slot),
    );
    const live = scans.filter(({ segment }) => this.#used.includes(segment));
    const all = live.flatMap(({ segment, scan }) => scan.frames.map((found) => ({ segment, found })));
    // They are in this order already, unless somebody copied a file.
    all.sort((a, b) => a.segment.id - b.segment.id || a.found.header.sequence - b.found.header.sequence);
    const frames = withoutRefused(all);
    // Frames of one commit reach the disk in any order: what is missing of the last one before the power went
    // nobody was told of.
    const ends = live.flatMap(({ scan }, index) => {
      const last = scan.frames[scan.frames.length - 1];
      const next = live[index + 1];
      const isEnd = next === undefined || next.scan.frames[0]?.header.isAfterOpening === true;
      return last !== undefined && isEnd ? [last.header] : [];
    });
    const isTorn = (header: FrameHeader) => header.place > 0 && ends.some((end) => isSameCommit(header, end));
    const breaks = breaksIn(
      frames.map(({ found }) => found.header),
      isTorn,
    );
    const gaps: { segment: Segment; gap: Gap }[] = [];
    const kept = new Set(frames.map(({ found }) => found));
    for (const { segment, scan } of live) {
      const isNewest = scan.id === newest?.segment;
      // A segment that was free while the disk did not know yet, and about to be used again.
      const isFree = scan.isOverwritten && segment === live[0]?.segment;
      for (const gap of scan.gaps) {
        const { next, position } = gap;
        if (kept.has(next) && !isTorn(next.header) && !(isFree && position === 0))
          gaps.push({ segment, gap });
      }
      const isTail = scan.tornBytes > 0 || scan.gaps.some(({ next }) => isTorn(next.header));
      if (isNewest && isTail) this.quarantined.tornTails += 1;
      const isDurable = await this.#writeAgain(segment, lastCommitAt(scan));
      if (isNewest && isDurable) this.#durableFloor = floor;
    }
    for (const { id, path } of surplus) {
      if (id === 0 || id < this.#durableFloor) await this.#disk.remove(path);
    }
    // A full disk must not keep the gateway from starting: then the journal refuses until there is room.
    for (let left = this.#missing.length; left > 0 && this.#free.length < firstSegments; left -= 1) {
      try {
        if (!(await this.#make())) break;
      } catch (error) {
        this.#log.error({ event: 'journal-allocate-failed', code: errorCode(error) }, 'no room for the ring');
        if (errorCode(error) === 'ENOSPC') break;
      }
    }
    const points = newest === undefined ? 0 : newest.pointsBefore + total(newest);
    return {
      frames,
      lastSequence: newest?.sequence ?? 0,
      points,
      watermarks: newest?.watermarks ?? [0, 0, 0],
      atMs: newest?.atMs ?? 0,
      gaps,
      breaks,
      cuts,
      isSpoilt: gaps.length + cuts.length + this.quarantined.segments > 0 || isIncomplete,
    };
  }

  /**
   * What can be read may still be in memory only: after a kill in the midst of a commit, or after a failed sync,
   * when the kernel takes the pages for written. Everybody who reads it now takes it for durable, so it is made
   * so: the same bytes once more, and a sync. Only the last commit of a segment can be like that.
   */
  async #writeAgain(segment: Segment, position: number): Promise<boolean> {
    const last = segment.end;
    try {
      const bytes = Buffer.alloc(last - position);
      const length = await segment.file.read(bytes, position);
      await segment.file.write(bytes.subarray(0, length), position);
      return true;
    } catch (error) {
      segment.suspect = true;
      this.#log.error(
        { event: 'journal-write-failed', segment: segment.id, code: errorCode(error) },
        'what was recovered may not be durable',
      );
      return false;
    }
  }

  /** @throws GatewayError `STORE_FAILED` when it may well be a good segment that we are not allowed to read. */
  async #readWhole(path: string): Promise<{ file: DiskFile; content: Buffer; isBad: boolean } | undefined> {
    let file: DiskFile;
    try {
      file = await this.#disk.open(path);
    } catch (error) {
      const code = errorCode(error);
      if (!unreadableCodes.includes(code)) {
        throw new GatewayError('STORE_FAILED', `cannot open ${path}: ${code}`, { cause: error });
      }
      this.#log.error({ event: 'journal-read-failed', path, code }, 'segment unreadable');
      return undefined;
    }
    if (file.bytes > segmentBytesMax) {
      await file.close();
      return undefined;
    }
    const content = Buffer.alloc(file.bytes);
    return { file, content, isBad: await this.#readPatiently(path, file, content) };
  }

  /** Leaves zeros where the disk cannot be read: one bad sector costs its own frame. Answers whether there are. */
  async #readPatiently(path: string, file: DiskFile, content: Buffer): Promise<boolean> {
    let isBad = false;
    const read = async (from: number, bytes: number, step: number): Promise<void> => {
      for (let at = from; at < from + bytes; at += step) {
        const part = content.subarray(at, Math.min(at + step, from + bytes));
        try {
          await file.read(part, at);
        } catch (error) {
          if (step > blockBytes) {
            await read(at, part.length, step > 16 * blockBytes ? 16 * blockBytes : blockBytes);
            continue;
          }
          part.fill(0);
          if (!isBad)
            this.#log.error({ event: 'journal-read-failed', path, at, code: errorCode(error) }, 'bad sector');
          isBad = true;
        }
      }
    };
    if (content.length > 0) await read(0, content.length, content.length);
    return isBad;
  }

  /** The state writes of recovered frames, oldest first. */
  async *recoveredState(
    recovered: Recovered,
  ): AsyncGenerator<{ readonly segment: number; readonly writes: StateWrite[] }, void, void> {
    for (const { segment, found } of recovered.frames) {
      const { header, position } = found;
      if (header.stateBytes === 0) continue;
      const section = Buffer.alloc(header.stateBytes);
      try {
        await segment.file.read(section, position + header.length - header.stateBytes);
      } catch (error) {
        // It could be read a moment ago; the store must open all the same.
        this.quarantined.segments += 1;
        this.#log.error(
          { event: 'journal-read-failed', segment: segment.id, code: errorCode(error) },
          'state lost',
        );
        continue;
      }
      yield { segment: segment.id, writes: readStateWrites(section) };
    }
  }

  /**
   * Counts and keeps what was found damaged, but for what an earlier opening has reported. Frames up to `goneUntil`
   * had been delivered or moved: nothing is lost with them.
   * @returns what is to be known at the next opening: the frames behind each damage, and cut segments as negative.
   */
  async report(recovered: Recovered, known: ReadonlySet<number>, goneUntil: number): Promise<Set<number>> {
    for (const { after, last, until, points } of recovered.breaks) {
      if (known.has(until)) continue;
      const lost = last <= goneUntil ? 0 : points;
      this.quarantined.points += lost;
      this.#log.error(
        { event: 'journal-frames-lost', after, until, points: lost },
        lost === 0 ? 'damaged frames whose points had been delivered' : 'acknowledged frames are damaged',
      );
    }
    const news = recovered.gaps.filter(({ gap }) => !known.has(gap.next.header.sequence));
    this.quarantined.segments += news.length;
    for (const { gap } of news) this.quarantined.bytes += gap.bytes;
    await this.#quarantine(news);
    for (const { name, bytes, segment } of recovered.cuts) {
      if (known.has(-segment)) continue;
      this.quarantined.segments += 1;
      this.#log.error({ event: 'journal-file-cut', name, bytes }, 'not of the size it was made');
    }
    return new Set([
      ...recovered.cuts.flatMap(({ segment }) => (segment > 0 ? [-segment] : [])),
      ...recovered.breaks.map(({ until }) => until),
      ...recovered.gaps.map(({ gap }) => gap.next.header.sequence),
    ]);
  }

  /** Keeps the bytes of damaged regions for people to look at; a few, and only once each. */
  async #quarantine(gaps: Recovered['gaps']): Promise<void> {
    if (gaps.length === 0) return;
    const directory = join(this.#directory, 'quarantine');
    try {
      const names = await this.#disk.list(directory);
      for (const { segment, gap } of gaps) {
        const name = `segment-${segment.id}-${gap.position}`;
        if (names.includes(name) || names.length >= quarantineFilesMax) continue;
        names.push(name);
        const damaged = Buffer.alloc(Math.min(gap.bytes, quarantineFileBytesMax));
        await segment.file.read(damaged, gap.position);
        await this.#disk.writeFile(join(directory, name), damaged);
      }
    } catch (error) {
      this.#log.warn({ event: 'journal-quarantine-failed', code: errorCode(error) }, 'no copy kept');
    }
  }

  /**
   * As many files as there are segments: a ring of a later version is kept whole. If even that fails the file is
   * made anew in its place: it held nothing we could read.
   */
  async #moveAside(path: string, name: string): Promise<void> {
    this.quarantined.segments += 1;
    this.#log.error({ event: 'journal-file-unknown', name }, 'moved to quarantine');
    const directory = join(this.#directory, 'quarantine');
    try {
      const aliens = (await this.#disk.list(directory)).filter((other) => other.startsWith('ring-')).sort();
      let copy = 1;
      while (aliens.includes(`${name}.${copy}`)) copy += 1;
      const older = aliens.filter((other) => !this.#movedAside.includes(other));
      for (const other of older.slice(0, Math.max(0, aliens.length + 1 - this.slots))) {
        await this.#disk.remove(join(directory, other));
      }
      await this.#disk.rename(path, join(directory, `${name}.${copy}`));
      this.#movedAside.push(`${name}.${copy}`);
    } catch (error) {
      this.#log.warn({ event: 'journal-quarantine-failed', code: errorCode(error) }, 'no copy kept');
    }
  }
}

/**
 * Without frames whose appends were refused because the sync failed, and that are there all the same: each frame
 * names the committed one before it. Of an append that was refused the state must not stay behind without its
 * lines, which the watermark passes over.
 */
function withoutRefused<T extends { readonly found: FoundFrame }>(frames: readonly T[]): T[] {
  const kept: T[] = [];
  let limit = Number.POSITIVE_INFINITY;
  for (const frame of [...frames].reverse()) {
    const { sequence, previous } = frame.found.header;
    if (sequence > limit) continue;
    limit = previous;
    kept.push(frame);
  }
  return kept.reverse();
}

function breaksIn(headers: readonly FrameHeader[], isTorn: (header: FrameHeader) => boolean): Break[] {
  const breaks: Break[] = [];
  let before: FrameHeader | undefined;
  for (const header of headers) {
    if (before !== undefined && header.previous > before.sequence && !isTorn(header)) {
      breaks.push({
        after: before.sequence,
        last: header.previous,
        until: header.sequence,
        points: header.pointsBefore - before.pointsBefore - total(before),
      });
    }
    before = header;
  }
  return breaks;
}

function newSegment(slot: number, path: string, file: DiskFile): Segment {
  return {
    slot,
    path,
    file,
    id: 0,
    life: 0,
    pointsBefore: 0,
    formerId: 0,
    isAfterOpening: false,
    end: 0,
    frames: [],
    firstLeft: [0, 0, 0],
    pins: 0,
    suspect: false,
  };
}

function total(header: FrameHeader): number {
  return header.points[0] + header.points[1] + header.points[2];
}

/** The most one append may carry into a segment of this size. */
export function appendBytesMaxOf(segmentBytes: number): number {
  // One block less than there is: a segment may have to begin with a small frame.
  return Math.min(1024 * 1024, segmentBytes - blockBytes - headerBytes);
}
