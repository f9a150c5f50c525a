// Tier 1: a ring of preallocated segments, written over and over. Promises: segments are used up in the order
// of their ids and the one freed first is used first, so what is live is always one unbroken run of frames;
// a segment whose write or sync failed is not written again before it has been made anew. Knows nothing of
// lanes and delivery.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import type { Disk, DiskFile } from '../platform/disk.ts';
import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { StateWrite } from './contract.ts';
import { type FrameHeader, headerBytes, type PerClass, readFrame, readStateWrites } from './frame.ts';
import { type FoundFrame, type Frame, type Scan, type Segment, scanSegment } from './segment.ts';

export interface RingOptions {
  readonly directory: string;
  readonly disk: Disk;
  readonly log: Log;
  readonly segmentBytes: number;
  readonly segments: number;
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
}

const quarantineFilesMax = 16;
const quarantineFileBytesMax = 512 * 1024;
const aliensMax = 2;
const firstSegments = 2;

export class Ring {
  readonly quarantined: Quarantined = { segments: 0, bytes: 0, points: 0, tornTails: 0 };
  readonly segmentBytes: number;
  readonly slots: number;
  readonly #directory: string;
  readonly #disk: Disk;
  readonly #log: Log;
  #active: Segment | undefined;
  /** Full or from before the last start; oldest first. */
  readonly #used: Segment[] = [];
  /** Freed first, used first. */
  readonly #free: Segment[] = [];
  #lastId = 0;
  #filling: Promise<void> | undefined;
  #isClosing = false;
  #missing: number[] = [];

  private constructor(options: RingOptions) {
    this.#directory = options.directory;
    this.#disk = options.disk;
    this.#log = options.log;
    this.segmentBytes = options.segmentBytes;
    this.slots = options.segments;
  }

  /** Reads what is there and makes sure of two usable segments; `fill` makes the rest. */
  static async open(options: RingOptions): Promise<{ ring: Ring; recovered: Recovered }> {
    const ring = new Ring(options);
    const recovered = await ring.#recover();
    return { ring, recovered };
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

  /** The oldest segment that is full. */
  get oldest(): Segment | undefined {
    return this.#used[0];
  }

  /** Lowest segment id still needed. */
  get floor(): number {
    return this.#used[0]?.id ?? this.#active?.id ?? this.#lastId + 1;
  }

  get activeId(): number {
    assert(this.#active !== undefined, 'BUG: no segment claimed');
    return this.#active.id;
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

  /**
   * Makes room for so many bytes in the active segment, turning to the next one if needed. The last free
   * segment is a reserve: only who may use it gets it, or writes on in it.
   */
  claim(bytes: number, mayUseReserve: boolean): boolean {
    const reserve = mayUseReserve ? 0 : 1;
    if (this.#active !== undefined && !this.#active.suspect && this.remainingBytes >= bytes) {
      return this.#free.length >= reserve;
    }
    if (this.#free.length < reserve + 1) return false;
    const next = this.#free.shift();
    if (next === undefined) return false;
    if (this.#active !== undefined) this.#used.push(this.#active);
    this.#lastId += 1;
    next.id = this.#lastId;
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
    assert(segment.end + frames.length <= segment.file.bytes, 'BUG: frame beyond its segment');
    try {
      await segment.file.write(frames, segment.end);
      await segment.file.datasync();
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
        await segment.file.close().catch(() => undefined);
      }
      throw error;
    }
    segment.end += frames.length;
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
    this.#used.shift();
    segment.frames = [];
    segment.firstLeft.fill(0);
    if (!segment.suspect && segment.slot < this.slots) {
      this.#free.push(segment);
      return;
    }
    await segment.file.close().catch(() => undefined);
    if (segment.slot >= this.slots) {
      await this.#disk.remove(segment.path);
      return;
    }
    this.#missing.push(segment.slot);
    await this.#make();
  }

  /** Makes the segments that are missing, one after the other, in the background. Rejects when the disk refuses. */
  fill(): Promise<void> {
    this.#filling ??= this.#fillAll().finally(() => {
      this.#filling = undefined;
    });
    return this.#filling;
  }

  async #fillAll(): Promise<void> {
    while (this.#missing.length > 0 && !this.#isClosing) await this.#make();
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#filling?.catch(() => undefined);
    for (const segment of [...this.live(), ...this.#free]) await segment.file.close();
  }

  async #make(): Promise<void> {
    const slot = this.#missing.shift();
    if (slot === undefined) return;
    const path = this.#path(slot);
    try {
      this.#free.push(newSegment(slot, path, await this.#disk.allocate(path, this.segmentBytes)));
    } catch (error) {
      this.#missing.unshift(slot);
      throw error;
    }
  }

  #path(slot: number): string {
    return join(this.#directory, 'ring', `ring-${String(slot).padStart(3, '0')}`);
  }

  async #recover(): Promise<Recovered> {
    const present = new Map<number, Segment>();
    const scans: { segment: Segment; scan: Scan }[] = [];
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
      const { file, content } = read;
      const scan = scanSegment(content);
      if (scan.isAlien) {
        await file.close();
        await this.#moveAside(path, name);
        continue;
      }
      const segment = newSegment(Number(slot), path, file);
      segment.id = scan.id;
      segment.suspect = file.bytes !== this.segmentBytes;
      present.set(segment.slot, segment);
      scans.push({ segment, scan });
      await this.#quarantine(content, scan);
    }

    const headers = scans.flatMap(({ scan }) => scan.frames.map((frame) => frame.header));
    const newest = headers.reduce<FrameHeader | undefined>(
      (best, header) => (best === undefined || header.sequence > best.sequence ? header : best),
      undefined,
    );
    const floor = newest?.floor ?? 0;
    scans.sort((a, b) => a.segment.id - b.segment.id);
    for (const { segment, scan } of scans) {
      if (scan.id > 0 && scan.id >= floor) this.#used.push(segment);
      else if (!segment.suspect && segment.slot < this.slots) this.#free.push(segment);
      else {
        await segment.file.close();
        present.delete(segment.slot);
        if (segment.slot >= this.slots) await this.#disk.remove(segment.path);
      }
      this.#lastId = Math.max(this.#lastId, segment.id);
    }
    this.#missing = Array.from({ length: this.slots }, (_, slot) => slot).filter(
      (slot) => !present.has(slot),
    );
    const live = scans.filter(({ segment }) => this.#used.includes(segment));
    const frames = live.flatMap(({ segment, scan }) => scan.frames.map((found) => ({ segment, found })));
    this.#countGaps(frames.map(({ found }) => found.header));
    for (const { scan } of live) {
      this.quarantined.segments += scan.gaps.length;
      for (const gap of scan.gaps) this.quarantined.bytes += gap.bytes;
      if (scan.tornBytes > 0) this.quarantined.tornTails += 1;
    }
    // A full disk must not keep the gateway from starting: then the journal refuses until there is room.
    try {
      while (this.#missing.length > 0 && this.#free.length < firstSegments) await this.#make();
    } catch (error) {
      this.#log.error({ event: 'journal-allocate-failed', code: errorCode(error) }, 'no room for the ring');
    }
    const points = newest === undefined ? 0 : newest.pointsBefore + total(newest);
    return {
      frames,
      lastSequence: newest?.sequence ?? 0,
      points,
      watermarks: newest?.watermarks ?? [0, 0, 0],
      atMs: newest?.atMs ?? 0,
    };
  }

  async #readWhole(path: string): Promise<{ file: DiskFile; content: Buffer } | undefined> {
    try {
      const file = await this.#disk.open(path);
      const content = Buffer.alloc(file.bytes);
      await file.read(content, 0);
      return { file, content };
    } catch (error) {
      this.#log.error({ event: 'journal-read-failed', path, code: errorCode(error) }, 'segment unreadable');
      return undefined;
    }
  }

  /** The state writes of recovered frames, oldest first. */
  async *recoveredState(recovered: Recovered): AsyncGenerator<StateWrite[], void, void> {
    for (const { segment, found } of recovered.frames) {
      const { header, position } = found;
      if (header.stateBytes === 0) continue;
      const section = Buffer.alloc(header.stateBytes);
      await segment.file.read(section, position + header.length - header.stateBytes);
      yield readStateWrites(section);
    }
  }

  #countGaps(headers: readonly FrameHeader[]): void {
    let before: FrameHeader | undefined;
    for (const header of headers) {
      if (before !== undefined && header.previous > before.sequence) {
        const lost = header.pointsBefore - before.pointsBefore - total(before);
        this.quarantined.points += lost;
        this.#log.error(
          { event: 'journal-frames-lost', after: before.sequence, until: header.sequence, points: lost },
          'acknowledged frames are damaged',
        );
      }
      before = header;
    }
  }

  /** Keeps the bytes of damaged regions for people to look at; a few, and only once each. */
  async #quarantine(content: Buffer, scan: Scan): Promise<void> {
    if (scan.gaps.length === 0) return;
    const directory = join(this.#directory, 'quarantine');
    try {
      const names = await this.#disk.list(directory);
      for (const gap of scan.gaps) {
        const name = `segment-${scan.id}-${gap.position}`;
        if (names.includes(name) || names.length >= quarantineFilesMax) continue;
        names.push(name);
        const bytes = Math.min(gap.bytes, quarantineFileBytesMax);
        const damaged = content.subarray(gap.position, gap.position + bytes);
        await this.#disk.writeFile(join(directory, name), damaged);
      }
    } catch (error) {
      this.#log.warn({ event: 'journal-quarantine-failed', code: errorCode(error) }, 'no copy kept');
    }
  }

  /** If even that fails the file is made anew in its place: it held nothing we could read. */
  async #moveAside(path: string, name: string): Promise<void> {
    this.quarantined.segments += 1;
    this.#log.error({ event: 'journal-file-unknown', name }, 'moved to quarantine');
    const directory = join(this.#directory, 'quarantine');
    try {
      const aliens = (await this.#disk.list(directory)).filter((other) => other.startsWith('ring-')).sort();
      while (aliens.length >= aliensMax) await this.#disk.remove(join(directory, aliens.shift() ?? ''));
      let copy = 1;
      while (aliens.includes(`${name}.${copy}`)) copy += 1;
      await this.#disk.rename(path, join(directory, `${name}.${copy}`));
    } catch (error) {
      this.#log.warn({ event: 'journal-quarantine-failed', code: errorCode(error) }, 'no copy kept');
    }
  }
}

function newSegment(slot: number, path: string, file: DiskFile): Segment {
  return { slot, path, file, id: 0, end: 0, frames: [], firstLeft: [0, 0, 0], pins: 0, suspect: false };
}

function total(header: FrameHeader): number {
  return header.points[0] + header.points[1] + header.points[2];
}

/** The most one append may carry into a segment of this size. */
export function appendBytesMaxOf(segmentBytes: number): number {
  return Math.min(1024 * 1024, segmentBytes - headerBytes);
}
