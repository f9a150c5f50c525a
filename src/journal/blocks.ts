// Tier 2: gzip blocks of line protocol in LevelDB, numbered without gaps in each class. Promises: a block that
// was put is on the disk, blocks come back oldest first and as they were stored, and what LevelDB lost is
// noticed by its number and counted. Opening reads the first and the last block of a row and no more: every
// block carries what came before it. A row is the blocks of a class; telemetry has two more, of what was thinned.

import assert from 'node:assert/strict';
import { pointClasses } from '../model/point.ts';
import type { LevelRoom } from '../platform/level-store.ts';
import type { Log } from '../platform/log.ts';
import type { StoreWrite } from '../platform/store.ts';
import type { RowAnchor } from './anchor.ts';
import type { ClassIndex } from './class-index.ts';

const headerBytes = 64;
const version = 1;
const numberDigits = 16;
/** Deleted blocks still lie on the disk: so many bytes are worth a compaction of their range. */
const compactBytes = 32 * 1024 * 1024;
/** The same once nothing is left, when there is nothing to rewrite. */
const compactDrainedBytes = 1024 * 1024;

export const rowNames = [...pointClasses, 'telemetry-1m', 'telemetry-1h'] as const;
export type RowName = (typeof rowNames)[number];
export type RowIndex = 0 | 1 | 2 | 3 | 4;
/** Telemetry as it came, thinned to minutes, and to hours. */
export const rawRow = 2;
export const minuteRow = 3;
export const hourRow = 4;
/** By class its rows, the oldest points first. */
export const rowsOf: Readonly<Record<ClassIndex, readonly RowIndex[]>> = {
  0: [0],
  1: [1],
  2: [hourRow, minuteRow, rawRow],
};

export interface BlockHeader {
  readonly points: number;
  /** Of the lines, uncompressed. */
  readonly linesBytes: number;
  /** Some of the lines have no date yet. */
  readonly isUndated: boolean;
  /** The newest frame in it. */
  readonly toSequence: number;
  /** On the journal's own clock. */
  readonly oldestMs: number;
  readonly newestMs: number;
}

/** What must be known of a block to end it. */
export interface BlockRef {
  readonly row: RowIndex;
  readonly number: number;
  readonly points: number;
  readonly isUndated: boolean;
  readonly storedBytes: number;
  readonly newestMs: number;
}

export interface Block extends BlockHeader, BlockRef {
  /** Points and stored bytes of all blocks of the row before this one, since there were any. */
  readonly pointsBefore: number;
  readonly bytesBefore: number;
  /** Points of those among them that are undated. */
  readonly undatedBefore: number;
  /** Gzip. */
  readonly body: Buffer;
}

export interface BlockStats {
  readonly blocks: number;
  readonly points: number;
  readonly bytes: number;
  /** Points of blocks with lines that had no date when they were put. */
  readonly undatedPoints: number;
}

/** Over some blocks. */
interface Sums {
  readonly points: number;
  readonly bytes: number;
  readonly undated: number;
}

const undatedFlag = 1;

function put64(buffer: Buffer, value: number, at: number): void {
  buffer.writeBigUInt64LE(BigInt(value), at);
}

function get64(buffer: Buffer, at: number): number {
  return Number(buffer.readBigUInt64LE(at));
}

function encode(header: BlockHeader, before: Sums, body: Buffer): Buffer {
  const value = Buffer.alloc(headerBytes + body.length);
  value.writeUInt32LE(version, 0);
  value.writeUInt32LE(header.points, 4);
  value.writeUInt32LE(header.linesBytes, 8);
  value.writeUInt32LE(header.isUndated ? undatedFlag : 0, 12);
  put64(value, header.toSequence, 16);
  put64(value, header.oldestMs, 24);
  put64(value, header.newestMs, 32);
  put64(value, before.points, 40);
  put64(value, before.bytes, 48);
  put64(value, before.undated, 56);
  body.copy(value, headerBytes);
  return value;
}

function decode(row: RowIndex, number: number, value: Buffer): Block | undefined {
  if (value.length < headerBytes || value.readUInt32LE(0) !== version) return undefined;
  return {
    row,
    number,
    points: value.readUInt32LE(4),
    linesBytes: value.readUInt32LE(8),
    isUndated: (value.readUInt32LE(12) & undatedFlag) !== 0,
    toSequence: get64(value, 16),
    oldestMs: get64(value, 24),
    newestMs: get64(value, 32),
    pointsBefore: get64(value, 40),
    bytesBefore: get64(value, 48),
    undatedBefore: get64(value, 56),
    storedBytes: value.length,
    body: value.subarray(headerBytes),
  };
}

function insert(numbers: number[], number: number): void {
  numbers.push(number);
  numbers.sort((a, b) => a - b);
}

const noAnchor: RowAnchor = { first: 0, end: 0, pointsFinished: 0, pointsPut: 0 };

/** Outside the range of any row. */
function markKey(name: string): string {
  return `first/${name}`;
}

/** Beside the deletions it goes with: what is below is missing with good reason. */
function markOf(name: string, first: number, pointsFinished: number): StoreWrite {
  return { key: markKey(name), value: Buffer.from(JSON.stringify({ first, pointsFinished })) };
}

function decodeMark(value: Buffer | undefined): Pick<RowAnchor, 'first' | 'pointsFinished'> {
  if (value === undefined) return noAnchor;
  // Ours, and under a checksum.
  return JSON.parse(value.toString()) as Pick<RowAnchor, 'first' | 'pointsFinished'>;
}

/** What is known of a row: the anchor, unless more was finished since. */
function later(anchor: RowAnchor, mark: Pick<RowAnchor, 'first' | 'pointsFinished'>): RowAnchor {
  if (mark.first <= anchor.first) return anchor;
  const end = Math.max(anchor.end, mark.first);
  return { ...mark, end, pointsPut: Math.max(anchor.pointsPut, mark.pointsFinished) };
}

class Row {
  readonly index: RowIndex;
  readonly name: RowName;
  /** Lowest number not finished; everything below is deleted. */
  first = 0;
  /** Number of the next block put. */
  end = 0;
  /** Next one to hand out, if none was given back. */
  next = 0;
  /** Blocks below it have been read once; points of all before it. */
  seenEnd = 0;
  seenPoints = 0;
  /** Given back, in order. */
  returned: number[] = [];
  /** Undated and passed over, in order. */
  undated: number[] = [];
  /** Finished above `first`. */
  readonly finished = new Set<number>();
  /** Points and stored bytes of all blocks put so far, and of those finished. */
  pointsPut = 0;
  bytesPut = 0;
  pointsFinished = 0;
  bytesFinished = 0;
  /** The same of undated blocks. */
  undatedPut = 0;
  undatedFinished = 0;
  toSequence = 0;
  oldestMs = 0;
  newestMs = 0;
  deletedFrom = 0;
  deletedBytes = 0;

  constructor(index: RowIndex) {
    this.index = index;
    this.name = rowNames[index];
  }

  /** Blocks up to this one have been read, or known to be missing, with so many points so far. */
  see(number: number, points: number): void {
    this.seenEnd = number + 1;
    this.seenPoints = points;
  }

  /** The number of the oldest block nobody holds, which from now on somebody does. */
  pick(mayBeUndated: boolean): number | undefined {
    const [returned = this.next] = this.returned;
    const [undated = Number.POSITIVE_INFINITY] = mayBeUndated ? this.undated : [];
    if (undated < returned) return this.undated.shift();
    if (this.returned.length > 0) return this.returned.shift();
    if (this.next >= this.end) return undefined;
    this.next += 1;
    return this.next - 1;
  }

  key(number: number): string {
    return `${this.name}/${String(number).padStart(numberDigits, '0')}`;
  }
}

function sumsOf(blocks: readonly BlockRef[]): Sums {
  const sums = { points: 0, bytes: 0, undated: 0 };
  for (const { points, storedBytes, isUndated } of blocks) {
    sums.points += points;
    sums.bytes += storedBytes;
    if (isUndated) sums.undated += points;
  }
  return sums;
}

export class Blocks {
  readonly #room: LevelRoom;
  readonly #log: Log;
  readonly #rows = [new Row(0), new Row(1), new Row(2), new Row(3), new Row(4)] as const;
  #lost = 0;
  #lostPoints = 0;
  #changes = 0;
  #compacting: Promise<void> | undefined;

  private constructor(room: LevelRoom, log: Log) {
    this.#room = room;
    this.#log = log;
  }

  /** `anchors` say, by row, what was there at least. */
  static async open(room: LevelRoom, log: Log, anchors: readonly RowAnchor[] = []): Promise<Blocks> {
    const blocks = new Blocks(room, log);
    for (const [index, row] of blocks.#rows.entries()) await blocks.#openRow(row, anchors[index]);
    return blocks;
  }

  async #openRow(row: Row, anchor: RowAnchor = noAnchor): Promise<void> {
    const range = { gte: `${row.name}/`, lt: `${row.name}0` };
    const first = await this.#edge(row, range);
    const last = await this.#edge(row, { ...range, reverse: true });
    const known = later(anchor, decodeMark(await this.#room.get(markKey(row.name))));
    this.#countLost(row, known, first, last);
    if (first === undefined || last === undefined) {
      // Numbers are not used again: an anchor would not fit to them.
      row.first = known.end;
      row.next = known.end;
      row.see(known.end - 1, known.pointsPut);
      row.end = known.end;
      row.deletedFrom = known.end;
      row.pointsPut = known.pointsPut;
      row.pointsFinished = known.pointsPut;
      return;
    }
    row.first = first.number;
    row.next = first.number;
    row.see(first.number - 1, first.pointsBefore);
    row.deletedFrom = first.number;
    row.end = last.number + 1;
    row.pointsPut = last.pointsBefore + last.points;
    row.bytesPut = last.bytesBefore + last.storedBytes;
    row.pointsFinished = first.pointsBefore;
    row.bytesFinished = first.bytesBefore;
    row.undatedPut = last.undatedBefore + (last.isUndated ? last.points : 0);
    row.undatedFinished = first.undatedBefore;
    row.toSequence = last.toSequence;
    row.oldestMs = first.oldestMs;
    row.newestMs = last.newestMs;
  }

  async #edge(row: Row, range: { gte: string; lt: string; reverse?: boolean }): Promise<Block | undefined> {
    for await (const [key, value] of this.#room.entries(range)) {
      const block = decode(row.index, Number(key.slice(row.name.length + 1)), value);
      if (block !== undefined) return block;
    }
    return undefined;
  }

  /** What LevelDB lost at the ends of a row; in between it shows when it is wanted. */
  #countLost(row: Row, known: RowAnchor, first: Block | undefined, last: Block | undefined): void {
    const from = first?.number ?? known.end;
    const to = last === undefined ? known.end : last.number + 1;
    const before = Math.max(0, Math.min(from, known.end) - known.first);
    const behind = Math.max(0, known.end - Math.max(to, known.first));
    if (before + behind === 0) return;
    let points = 0;
    if (before > 0) points += Math.max(0, (first?.pointsBefore ?? known.pointsPut) - known.pointsFinished);
    if (behind > 0 && last !== undefined) {
      points += Math.max(
        0,
        known.pointsPut - Math.max(last.pointsBefore + last.points, known.pointsFinished),
      );
    }
    this.#lost += before + behind;
    this.#lostPoints += points;
    this.#log.error(
      { event: 'journal-block-lost', row: row.name, number: known.first, blocks: before + behind, points },
      'LevelDB lost blocks',
    );
  }

  /**
   * Counts a block that is missing, with all points up to the next that is there, and writes one of nothing in its
   * place: it is counted once, however often the journal is opened before the row has drained.
   */
  async #replaceLost(row: Row, number: number): Promise<void> {
    const next = await this.#edge(row, { gte: row.key(number), lt: row.key(row.end) });
    const points = number === row.seenEnd ? (next?.pointsBefore ?? row.pointsPut) - row.seenPoints : 0;
    this.#lost += 1;
    this.#lostPoints += points;
    this.#log.error({ event: 'journal-block-lost', row: row.name, number, points }, 'LevelDB lost a block');
    if (number === row.seenEnd) row.see(number, row.seenPoints + points);
    const header: BlockHeader = {
      points,
      linesBytes: 0,
      isUndated: false,
      toSequence: next === undefined ? row.toSequence : 0,
      oldestMs: row.oldestMs,
      newestMs: next?.oldestMs ?? row.newestMs,
    };
    const before = {
      points: (next?.pointsBefore ?? row.pointsPut) - points,
      bytes: (next?.bytesBefore ?? row.bytesPut) - headerBytes,
      undated: next?.undatedBefore ?? row.undatedPut,
    };
    const value = encode(header, before, Buffer.alloc(0));
    await this.#room.write([{ key: row.key(number), value }]).catch((error: unknown) => {
      // It may be counted again after the next start.
      this.#log.warn({ event: 'journal-block-lost-again', number, error: String(error) }, 'not written down');
    });
    await this.#finish(row, number, { points, bytes: headerBytes, undated: 0 });
  }

  /** The first block of the row from this number on, which stays where it is. */
  async peek(index: RowIndex, number: number): Promise<Block | undefined> {
    const row = this.#rows[index];
    for (let from = Math.max(number, row.first); ; ) {
      const block = await this.#edge(row, { gte: row.key(from), lt: row.key(row.end) });
      if (block === undefined || !row.finished.has(block.number)) return block;
      from = block.number + 1;
    }
  }

  /** The number the next block of the row will have. */
  end(index: RowIndex): number {
    return this.#rows[index].end;
  }

  /** What is true of the rows at this moment, for the next opening to compare with. */
  anchors(): RowAnchor[] {
    return this.#rows.map(({ first, end, pointsFinished, pointsPut }) => ({
      first,
      end,
      pointsFinished,
      pointsPut,
    }));
  }

  /** Grows with everything that changes the anchors. */
  get changes(): number {
    return this.#changes;
  }

  stats(index: RowIndex): BlockStats {
    const row = this.#rows[index];
    return {
      blocks: row.end - row.first - row.finished.size,
      points: row.pointsPut - row.pointsFinished,
      bytes: row.bytesPut - row.bytesFinished,
      undatedPoints: row.undatedPut - row.undatedFinished,
    };
  }

  get points(): number {
    return this.#rows.reduce((sum, row) => sum + row.pointsPut - row.pointsFinished, 0);
  }

  get bytes(): number {
    return this.#rows.reduce((sum, row) => sum + row.bytesPut - row.bytesFinished, 0);
  }

  /** Blocks LevelDB no longer had when they were wanted. */
  get lost(): number {
    return this.#lost;
  }

  /** Points in lost blocks, known once their class has drained. */
  get lostPoints(): number {
    return this.#lostPoints;
  }

  /** The newest frame whose lines of the class are in a block. */
  toSequence(classIndex: ClassIndex): number {
    return Math.max(...rowsOf[classIndex].map((index) => this.#rows[index].toSequence));
  }

  /** The newest frame in any block, and the journal's clock then. */
  newest(): { sequence: number; atMs: number } {
    return {
      sequence: Math.max(...this.#rows.map((row) => row.toSequence)),
      atMs: Math.max(...this.#rows.map((row) => row.newestMs)),
    };
  }

  /** On the journal's clock, or later: known exactly for the first block read. Undefined when there is none. */
  oldestMs(index: RowIndex): number | undefined {
    const row = this.#rows[index];
    return row.first === row.end ? undefined : row.oldestMs;
  }

  /** Whether `take` may find one. */
  isWaiting(index: RowIndex): boolean {
    const row = this.#rows[index];
    return row.returned.length > 0 || row.undated.length > 0 || row.next < row.end;
  }

  /**
   * Durable when it resolves.
   * @throws GatewayError `STORE_FAILED`.
   */
  async put(index: RowIndex, header: BlockHeader, body: Buffer): Promise<void> {
    await this.#put(this.#rows[index], header, body, []);
  }

  /**
   * Puts a block in place of others, which `takeRun` answered: after a power cut there is either the one or the others.
   * @throws GatewayError `STORE_FAILED`; the others are still held.
   */
  async replace(
    sources: readonly BlockRef[],
    index: RowIndex,
    header: BlockHeader,
    body: Buffer,
  ): Promise<void> {
    const last = sources[sources.length - 1];
    assert(last !== undefined, 'BUG: a block in place of none');
    const from = this.#rows[last.row];
    // Among them may be some that had been finished, and waited for those before them.
    const gone = sumsOf(sources);
    const mark = markOf(from.name, last.number + 1, from.pointsFinished + gone.points);
    const writes: StoreWrite[] = [mark];
    for (let number = from.first; number <= last.number; number += 1) {
      writes.push({ key: from.key(number), value: undefined });
    }
    await this.#put(this.#rows[index], header, body, writes);
    for (let number = from.first; number <= last.number; number += 1) from.finished.delete(number);
    from.first = last.number + 1;
    from.oldestMs = Math.max(from.oldestMs, last.newestMs);
    // The next ones may have been delivered meanwhile.
    await this.#forgetFinished(from, gone);
  }

  async #put(row: Row, header: BlockHeader, body: Buffer, writes: readonly StoreWrite[]): Promise<void> {
    const before = { points: row.pointsPut, bytes: row.bytesPut, undated: row.undatedPut };
    const value = encode(header, before, body);
    await this.#room.write([{ key: row.key(row.end), value }, ...writes]);
    if (row.first === row.end) row.oldestMs = header.oldestMs;
    row.end += 1;
    this.#changes += 1;
    row.pointsPut += header.points;
    row.bytesPut += value.length;
    if (header.isUndated) row.undatedPut += header.points;
    row.toSequence = header.toSequence;
    row.newestMs = header.newestMs;
  }

  /** The oldest block of the row if nobody holds it, or the one next to `behind`: those that can be replaced. */
  async takeRun(index: RowIndex, behind: number | undefined): Promise<Block | undefined> {
    const block = await this.take(index);
    if (block === undefined) return undefined;
    const { first, finished } = this.#rows[index];
    let next = behind === undefined ? first : behind + 1;
    while (finished.has(next)) next += 1;
    if (block.number === next) return block;
    this.release(block);
    return undefined;
  }

  /**
   * The oldest block nobody holds. Lost ones are passed over and counted; undated ones, unless wanted, are put by until
   * they are.
   */
  async take(index: RowIndex, mayBeUndated = true): Promise<Block | undefined> {
    const row = this.#rows[index];
    for (;;) {
      const number = row.pick(mayBeUndated);
      if (number === undefined) return undefined;
      let value: Buffer | undefined;
      try {
        value = await this.#room.get(row.key(number));
      } catch (error) {
        insert(row.returned, number);
        throw error;
      }
      const block = value === undefined ? undefined : decode(index, number, value);
      if (block !== undefined && number === row.seenEnd) row.see(number, block.pointsBefore + block.points);
      if (block?.isUndated && !mayBeUndated) {
        insert(row.undated, number);
        continue;
      }
      if (block === undefined) await this.#replaceLost(row, number);
      // In place of a lost one, which an earlier take has counted.
      else if (block.body.length === 0) await this.finish(block);
      else return block;
    }
  }

  release(block: BlockRef): void {
    insert(this.#rows[block.row].returned, block.number);
  }

  /**
   * Delivered or dropped. Not synced: after a power cut the block may be back and is sent again, which InfluxDB
   * takes as the same points.
   */
  async finish(block: BlockRef): Promise<void> {
    const row = this.#rows[block.row];
    await this.#finish(row, block.number, sumsOf([block]));
    if (block.number < row.first) row.oldestMs = Math.max(row.oldestMs, block.newestMs);
  }

  async #finish(row: Row, number: number, gone: Sums): Promise<void> {
    row.finished.add(number);
    this.#changes += 1;
    await this.#forgetFinished(row, gone);
  }

  async #forgetFinished(row: Row, gone: Sums): Promise<void> {
    // Deleted in order only, so that a missing number always means that LevelDB lost it.
    const keys: string[] = [];
    while (row.finished.delete(row.first)) {
      keys.push(row.key(row.first));
      row.first += 1;
    }
    this.#account(row, gone);
    try {
      if (keys.length > 0) await this.#room.forget(keys, markOf(row.name, row.first, row.pointsFinished));
    } catch (error) {
      // They are sent again after the next start, which is harmless.
      this.#log.warn({ event: 'journal-blocks-kept', row: row.name, error: String(error) }, 'not deleted');
    }
    this.#tidy(row);
  }

  #account(row: Row, gone: Sums): void {
    row.pointsFinished += gone.points;
    row.bytesFinished += gone.bytes;
    row.undatedFinished += gone.undated;
    row.deletedBytes += gone.bytes;
    if (row.first < row.end) return;
    // Whatever was lost on the way is accounted for here.
    this.#lostPoints += row.pointsPut - row.pointsFinished;
    row.pointsFinished = row.pointsPut;
    row.bytesFinished = row.bytesPut;
    row.undatedFinished = row.undatedPut;
  }

  #tidy(row: Row): void {
    const worthwhileBytes = row.first === row.end ? compactDrainedBytes : compactBytes;
    if (row.deletedBytes >= worthwhileBytes) this.#compact(row);
  }

  #compact(row: Row): void {
    if (this.#compacting !== undefined) return;
    const from = row.deletedFrom;
    row.deletedFrom = row.first;
    row.deletedBytes = 0;
    // Only the range that was deleted: the rest would be rewritten for nothing.
    this.#compacting = this.#room
      .compact(row.key(from), row.key(row.first))
      .catch((error: unknown) => {
        this.#log.warn({ event: 'journal-compact-failed', error: String(error) }, 'tried again later');
      })
      .finally(() => {
        this.#compacting = undefined;
      });
  }

  /** Waits for a compaction under way. */
  async settle(): Promise<void> {
    await this.#compacting;
  }
}
