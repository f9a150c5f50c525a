// All that waits, as line protocol, page by page and without taking it: blocks first, then the ring, oldest first.
// Promises: memory is bounded by a page, and what waited when it began and was not delivered meanwhile is in it. What
// moves from the ring to a block meanwhile may be in it twice, which InfluxDB takes as the same points.

import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';
import type { PointClass } from '../model/point.ts';
import { GatewayError } from '../platform/errors.ts';
import { type Blocks, type RowIndex, rowsOf } from './blocks.ts';
import { type ClassIndex, classIndexes } from './class-index.ts';
import type { Dating } from './contract.ts';
import { dateLines } from './dating.ts';
import type { Ring } from './ring.ts';
import type { Section } from './segment.ts';

const decompress = promisify(gunzip);
const pageBytes = 512 * 1024;

export interface ExportPage {
  readonly lines: Buffer;
  /** Where to go on; undefined at the end. */
  readonly next: string | undefined;
}

interface Cursor {
  readonly phase: 'blocks' | 'ring' | 'moved';
  readonly row: number;
  readonly number: number;
  /** The newest frame and the ends of the rows when the ring's turn came. */
  readonly until: number;
  readonly ends: readonly number[];
}

export interface Exported {
  readonly ring: Ring;
  readonly blocks: Blocks;
  readonly lastSequence: number;
  readonly dating: Dating | undefined;
  /** The lines up to the frame without those that were deleted. */
  readonly strip: (lines: Buffer, sequence: number) => Buffer;
}

function cursorOf(after: string | undefined): Cursor {
  if (after === undefined) return { phase: 'blocks', row: 0, number: 0, until: 0, ends: [] };
  try {
    const value = JSON.parse(after) as Cursor;
    const numbers = [value.row, value.number, value.until, ...value.ends];
    if (numbers.every((number) => Number.isSafeInteger(number))) return value;
  } catch {
    // Refused below.
  }
  throw new GatewayError('ARGUMENT_INVALID', 'after: expected what an earlier page answered as next');
}

/** The next page. @throws GatewayError `ARGUMENT_INVALID`, `STORE_FAILED` */
export async function readPage(
  { ring, blocks, lastSequence, dating, strip }: Exported,
  classes: readonly PointClass[] | undefined,
  after: string | undefined,
  classOf: (index: ClassIndex) => PointClass,
): Promise<ExportPage> {
  const wanted = classIndexes.filter((index) => classes === undefined || classes.includes(classOf(index)));
  const rows: readonly RowIndex[] = wanted.flatMap((index) => rowsOf[index]);
  let cursor = cursorOf(after);
  const lines: Buffer[] = [];
  let bytes = 0;
  const add = (some: Buffer): void => {
    const dated = dating === undefined ? some : dateLines(some, dating);
    lines.push(dated);
    bytes += dated.length;
  };
  while (bytes < pageBytes) {
    if (cursor.phase === 'ring') {
      const section = nextSection(ring, wanted, cursor.number, cursor.until);
      if (section === undefined) {
        cursor = { ...cursor, phase: 'moved', row: 0, number: cursor.ends[0] ?? 0 };
        continue;
      }
      const { frame } = section;
      const [content] = await ring.read(frame.segment, [frame]);
      for (const { class: index, offset, bytes: length, state } of frame.sections) {
        if (state === 'gone' || !wanted.includes(index) || content === undefined) continue;
        add(strip(content.subarray(offset, offset + length), frame.sequence));
      }
      cursor = { ...cursor, number: frame.sequence };
      continue;
    }
    const row = rows[cursor.row];
    if (row === undefined) {
      if (cursor.phase === 'moved') return { lines: Buffer.concat(lines), next: undefined };
      const ends = rows.map((index) => blocks.end(index));
      cursor = { phase: 'ring', row: 0, number: 0, until: lastSequence, ends };
      continue;
    }
    const block = await blocks.peek(row, cursor.number);
    if (block === undefined) {
      const next = cursor.row + 1;
      cursor = { ...cursor, row: next, number: cursor.ends[next] ?? 0 };
      continue;
    }
    if (block.body.length > 0) add(strip(await decompress(block.body), block.toSequence));
    cursor = { ...cursor, number: block.number + 1 };
  }
  return { lines: Buffer.concat(lines), next: JSON.stringify(cursor) };
}

/** The first section that waits behind the frame. */
function nextSection(
  ring: Ring,
  wanted: readonly ClassIndex[],
  after: number,
  until: number,
): Section | undefined {
  for (const { frames } of ring.live()) {
    for (const { sequence, sections } of frames) {
      if (sequence <= after || sequence > until) continue;
      const found = sections.find((one) => one.state !== 'gone' && wanted.includes(one.class));
      if (found !== undefined) return found;
    }
  }
  return undefined;
}
