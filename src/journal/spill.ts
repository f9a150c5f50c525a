// From the ring to blocks: keeps segments free, by making those that are missing and by moving what the oldest one
// still holds to LevelDB. Promises: lines are in a block before the ring forgets them, state is in the store; a failure
// is tried again until it works, and nothing is lost meanwhile. Knows nothing of caps: see retention.ts.

import { promisify } from 'node:util';
import { gzip } from 'node:zlib';
import { type DiskTrouble, diskTroubleOf } from '../platform/disk-trouble.ts';
import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Blocks } from './blocks.ts';
import { type ClassIndex, classIndexes } from './class-index.ts';
import { countLines } from './erasures.ts';
import type { StateMap } from './hot-state.ts';
import type { Ring } from './ring.ts';
import type { Section, Segment } from './segment.ts';

/** Lines of a block before compression. */
const blockLinesBytesMax = 2 * 1024 * 1024;

const compress = promisify(gzip) as (lines: Buffer, options: { level: number }) => Promise<Buffer>;

export interface SpillOptions {
  readonly ring: Ring;
  readonly blocks: Blocks;
  readonly state: StateMap;
  readonly log: Log;
  readonly freeSegmentsMin: number;
  readonly blockPoints: number;
  readonly gzipLevel: number;
  readonly retryMs: number;
  /** The lines of each section, none where all were deleted; undefined for those that are damaged and given up. */
  readonly readLines: (sections: readonly Section[]) => Promise<(readonly [Section, Buffer | undefined])[]>;
  /** The section's lines are in a block. */
  readonly forget: (section: Section) => void;
  /** Sections that were being moved wait again. */
  readonly rewind: () => void;
  /** What was being moved can be taken: as a block, or from the ring as before. */
  readonly onMoved: () => void;
  /** There is room in the ring, or there is no hope of some for now. */
  readonly onRoom: () => void;
  /** The store takes no state: answers whether it could be kept in the ring instead. */
  readonly carry: (segment: Segment) => Promise<boolean>;
  /** Whether a deletion that has begun must tell these two frames apart. */
  readonly isErasureBetween: (sequence: number, later: number) => boolean;
  /** Before a segment is free again: the place to make room among the blocks. */
  readonly enforceCaps: () => Promise<void>;
}

export class Spill {
  readonly #options: SpillOptions;
  #running: Promise<void> | undefined;
  #trouble: DiskTrouble | undefined;
  #isCarrying = false;
  #isStopping = false;
  #retry: NodeJS.Timeout | undefined;
  #points = 0;
  #blocks = 0;

  constructor(options: SpillOptions) {
    this.#options = options;
  }

  /** What the last attempt failed for; undefined when it did not. */
  get trouble(): DiskTrouble | undefined {
    return this.#trouble;
  }

  /** Whether state went from segment to segment the last time, for want of a store to put it in. */
  get isCarrying(): boolean {
    return this.#isCarrying;
  }

  /** Points moved, and blocks made of them. */
  get points(): number {
    return this.#points;
  }

  get blocks(): number {
    return this.#blocks;
  }

  /** Begins, if there is something to do and it is not being done. */
  start(): void {
    if (this.#running !== undefined || this.#retry !== undefined || this.#isStopping) return;
    this.#running = this.#moveAll().finally(() => {
      this.#running = undefined;
      if (this.#trouble === undefined && this.#isWanted) this.start();
    });
  }

  get #isWanted(): boolean {
    const { freeSegments, oldest, canFill } = this.#options.ring;
    if (this.#isStopping) return false;
    return canFill || (freeSegments < this.#options.freeSegmentsMin && oldest !== undefined);
  }

  async #moveAll(): Promise<void> {
    try {
      while (this.#isWanted) {
        // Segments that were never made, or were abandoned, come before moving anything.
        const failure = await this.#options.ring.fill().then(
          () => undefined,
          (error: unknown) => ({ error }),
        );
        const { oldest, freeSegments } = this.#options.ring;
        if (oldest !== undefined && freeSegments < this.#options.freeSegmentsMin)
          await this.#moveOldest(oldest);
        else if (failure !== undefined) throw failure.error;
        this.#trouble = undefined;
        this.#options.onRoom();
      }
      this.#trouble = undefined;
      this.#options.onRoom();
    } catch (error) {
      if (this.#isStopping) return;
      if (this.#trouble === undefined) {
        this.#options.log.error(
          { event: 'journal-spill-failed', code: errorCode(error), error: String(error) },
          'stuck',
        );
      }
      this.#trouble = diskTroubleOf(error);
      this.#retry = setTimeout(() => {
        this.#retry = undefined;
        this.start();
      }, this.#options.retryMs);
      // What waited for room is refused now.
      this.#options.onRoom();
    }
  }

  /** Moves what is left in the oldest segment to blocks, then its state to the store, then frees it. */
  async #moveOldest(segment: Segment): Promise<void> {
    for (const index of classIndexes) {
      const left = segment.frames.flatMap((frame) =>
        frame.sections.filter((section) => section.class === index && section.state !== 'gone'),
      );
      for (const chunk of this.#chunks(left)) {
        if (this.#isStopping) return;
        // Not handed out meanwhile: it would be sent twice.
        for (const section of chunk) if (section.state === 'waiting') section.state = 'moving';
        try {
          await this.#moveChunk(index, chunk);
        } catch (error) {
          for (const section of chunk) if (section.state === 'moving') section.state = 'waiting';
          this.#options.rewind();
          // Whoever asked meanwhile was told there was nothing, and does not ask again by itself.
          this.#options.onMoved();
          throw error;
        }
        this.#options.onMoved();
      }
    }
    await this.#checkpoint(segment);
    while (segment.pins > 0) await new Promise(setImmediate);
    if (this.#isStopping) return;
    await this.#options.enforceCaps();
    await this.#options.ring.recycle(segment);
  }

  async #checkpoint(segment: Segment): Promise<void> {
    try {
      await this.#options.state.checkpoint();
      this.#isCarrying = false;
    } catch (error) {
      // On a full disk the ring still turns, as long as what it holds is delivered.
      if (this.#isStopping || !(await this.#options.carry(segment))) throw error;
      if (!this.#isCarrying) {
        this.#options.log.warn(
          { event: 'journal-state-carried', code: errorCode(error) },
          'kept in the ring',
        );
      }
      this.#isCarrying = true;
    }
  }

  async #moveChunk(index: ClassIndex, chunk: readonly Section[]): Promise<void> {
    const kept: Section[] = [];
    const lines: Buffer[] = [];
    let points = 0;
    for (const [section, bytes] of await this.#options.readLines(chunk)) {
      if (bytes === undefined) continue;
      if (bytes.length === 0) {
        if (section.state !== 'gone') this.#options.forget(section);
        continue;
      }
      kept.push(section);
      lines.push(bytes);
      points += bytes.length === section.bytes ? section.points : countLines(bytes);
    }
    const plain = Buffer.concat(lines);
    const body = await compress(plain, { level: this.#options.gzipLevel });
    const left = kept.filter((section) => section.state !== 'gone');
    // Some was delivered meanwhile: what is left is made into a block again.
    if (left.length < kept.length) return await this.#moveChunk(index, left);
    const [first] = kept;
    const last = kept[kept.length - 1];
    if (first === undefined || last === undefined) return;
    const header = {
      isUndated: kept.some((section) => section.isUndated),
      points,
      linesBytes: plain.length,
      toSequence: last.frame.sequence,
      oldestMs: first.frame.atMs,
      newestMs: last.frame.atMs,
    };
    await this.#options.blocks.put(index, header, body);
    // Sections in a batch that is held go too: if it is released they are taken from the block, and if it is
    // accepted now the block sends them once more, which is harmless; waiting for the uplink here would not be.
    for (const section of kept) if (section.state !== 'gone') this.#options.forget(section);
    this.#points += points;
    this.#blocks += 1;
  }

  /** What goes into a block each: as much as it takes, and nothing that a deletion must tell apart. */
  *#chunks(sections: readonly Section[]): Iterable<readonly Section[]> {
    const { blockPoints, isErasureBetween } = this.#options;
    let chunk: Section[] = [];
    let points = 0;
    let bytes = 0;
    for (const section of sections) {
      const last = chunk[chunk.length - 1];
      const isFull = points + section.points > blockPoints || bytes + section.bytes > blockLinesBytesMax;
      if (last && (isFull || isErasureBetween(last.frame.sequence, section.frame.sequence))) {
        yield chunk;
        chunk = [];
        points = 0;
        bytes = 0;
      }
      chunk.push(section);
      points += section.points;
      bytes += section.bytes;
    }
    if (chunk.length > 0) yield chunk;
  }

  /** Moves no more from now on. */
  stop(): void {
    this.#isStopping = true;
    clearTimeout(this.#retry);
  }

  /** Waits for what is under way. */
  async settle(): Promise<void> {
    await this.#running;
  }
}
