// The journal as it lies on the disk at one moment, to be read while it goes on: what a `kill -9` at that moment
// would have left. So opening a copy of it is the recovery that every power cut tests (docs/journal.md). Promises:
// nobody waits for its reader. A segment the ring wants back is first read into memory, up to a bound; beyond it
// the snapshot is lost, not an append.

import assert from 'node:assert/strict';
import { basename } from 'node:path';
import type { DiskFile } from '../platform/disk.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { LevelSnapshot } from '../platform/level-store.ts';
import type { ByClass } from './class-index.ts';
import { blockBytes } from './frame.ts';
import type { Ring } from './ring.ts';
import type { Segment } from './segment.ts';

/** Four segments of the default size: what arrives while some 64 MiB of ring are read. */
const heldBytesMax = 16 * 1024 * 1024;
const pieceBytes = 256 * 1024;

/** A part of one file of the ring. Pieces of a file come in order; what no piece covers is of no account. */
export interface RingPiece {
  readonly name: string;
  /** Of the whole file. */
  readonly fileBytes: number;
  readonly position: number;
  readonly bytes: Buffer;
}

export interface JournalSnapshot {
  /** Waiting for the uplink at that moment, and so in the copy. */
  readonly points: ByClass<number>;
  /** Telemetry may just be becoming less than that. */
  readonly isThinning: boolean;
  /** Bytes in memory because the ring wanted its segment back. */
  readonly heldBytes: number;
  /** Bytes of the ring that the disk refused to give so far: zeros in the copy. */
  readonly unreadableBytes: number;
  /**
   * Once, and before the blocks: the ring turns meanwhile.
   * @throws GatewayError `SNAPSHOT_LOST` when the ring turned faster than it was read, or was closed.
   */
  ring(): AsyncIterable<RingPiece>;
  /** Once. Entries of the block store as they lie there. */
  blocks(): AsyncIterable<readonly [key: string, sealed: Buffer]>;
  close(): Promise<void>;
}

/** A file of the ring as far as it was committed. */
interface Part {
  readonly segment: Segment;
  readonly file: DiskFile;
  readonly end: number;
  /** Read so far. */
  at: number;
  held: { readonly from: number; readonly bytes: Buffer } | undefined;
}

export class RingSnapshot implements JournalSnapshot {
  readonly points: ByClass<number>;
  readonly isThinning: boolean;
  readonly #ring: Ring;
  readonly #blocks: LevelSnapshot;
  readonly #parts: readonly Part[];
  #heldBytes = 0;
  #unreadableBytes = 0;
  #lost: GatewayError | undefined;

  constructor(ring: Ring, blocks: LevelSnapshot, now: Pick<JournalSnapshot, 'points' | 'isThinning'>) {
    assert(ring.beforeRecycle === undefined, 'BUG: one snapshot at a time');
    this.points = now.points;
    this.isThinning = now.isThinning;
    this.#ring = ring;
    this.#blocks = blocks;
    this.#parts = [...ring.live()]
      .filter(({ end }) => end > 0)
      .map((segment) => ({ segment, file: segment.file, end: segment.end, at: 0, held: undefined }));
    ring.beforeRecycle = (segment) => this.#hold(segment);
  }

  get unreadableBytes(): number {
    return this.#unreadableBytes;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  async *ring(): AsyncGenerator<RingPiece, void, void> {
    for (const part of this.#parts) {
      while (part.at < part.end) {
        const bytes = await this.#read(part, part.at, Math.min(pieceBytes, part.end - part.at));
        if (this.#lost !== undefined) throw this.#lost;
        const position = part.at;
        part.at += bytes.length;
        yield { name: basename(part.segment.path), fileBytes: part.file.bytes, position, bytes };
      }
      this.#heldBytes -= part.held?.bytes.length ?? 0;
      part.held = undefined;
    }
  }

  blocks(): AsyncIterable<readonly [key: string, sealed: Buffer]> {
    return this.#blocks.entries();
  }

  async close(): Promise<void> {
    this.#lose('the snapshot was closed');
    await this.#blocks.close();
  }

  async #read(part: Part, position: number, length: number): Promise<Buffer> {
    if (this.#lost !== undefined) throw this.#lost;
    const { held } = part;
    if (held !== undefined) return held.bytes.subarray(position - held.from, position - held.from + length);
    const bytes = Buffer.alloc(length);
    // Keeps the file from being closed under the read.
    part.segment.pins += 1;
    try {
      await part.file.read(bytes, position);
    } catch (error) {
      if (errorCode(error) !== 'EIO') throw error;
      await this.#readPatiently(part, position, bytes);
    } finally {
      part.segment.pins -= 1;
    }
    return bytes;
  }

  /** A card that goes bad is when a copy is wanted most: what it cannot read any more stays zeros, and is counted. */
  async #readPatiently(part: Part, position: number, bytes: Buffer): Promise<void> {
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = bytes.subarray(at, at + blockBytes);
      try {
        await part.file.read(block, position + at);
      } catch {
        block.fill(0);
        this.#unreadableBytes += block.length;
      }
    }
  }

  /** Never rejects: what fails here fails the snapshot. */
  async #hold(segment: Segment): Promise<void> {
    const part = this.#parts.find((other) => other.segment === segment && other.at < other.end);
    if (part === undefined || part.held !== undefined || this.#lost !== undefined) return;
    const from = part.at;
    const length = part.end - from;
    if (this.#heldBytes + length > heldBytesMax) {
      this.#lose('more came in than could be set aside meanwhile; try again when it is quieter');
      return;
    }
    this.#heldBytes += length;
    try {
      part.held = { from, bytes: await this.#read(part, from, length) };
    } catch (error) {
      this.#lose(`a segment could not be read: ${String(error)}`);
    }
  }

  #lose(reason: string): void {
    this.#lost ??= new GatewayError('SNAPSHOT_LOST', reason);
    this.#ring.beforeRecycle = undefined;
    for (const part of this.#parts) part.held = undefined;
    this.#heldBytes = 0;
  }
}
