// What the journal says of itself in its own state, so that what is missing at either end is noticed at the next
// opening: a chain shows a gap between two links, but not links lost at its ends. LevelDB's blocks are anchored in
// frames of the ring, the ring's frames in the checkpoint in LevelDB. An anchor is written only where padding would
// be. One that is older than the truth lets a loss go unnoticed; it never makes one up.

import type { StateWrite } from './contract.ts';
import { stateWriteBytes } from './frame.ts';
import type { Break, Recovered } from './ring.ts';

/** Of one row of blocks. */
export interface RowAnchor {
  /** Blocks from this number to below `end` wait. */
  readonly first: number;
  readonly end: number;
  /** Points of all blocks before `first`, and before `end`. */
  readonly pointsFinished: number;
  readonly pointsPut: number;
}

export interface Anchor {
  /** The frame it is in, and all points up to and with that frame. */
  readonly sequence: number;
  readonly points: number;
  /** Of those, points in frames neither delivered nor in blocks. */
  readonly waiting: number;
  /** The oldest segment needed, and all points in frames before it. */
  readonly floor: number;
  readonly floorPoints: number;
  readonly rows: readonly RowAnchor[];
}

const key = 'journal/anchor';
const version = 1;
const frameNumbers = 5;
const rowNumbers = 4;

function encodeAnchor({ sequence, points, waiting, floor, floorPoints, rows }: Anchor): Buffer {
  const values = [sequence, points, waiting, floor, floorPoints];
  for (const { first, end, pointsFinished, pointsPut } of rows) {
    values.push(first, end, pointsFinished, pointsPut);
  }
  const buffer = Buffer.alloc(1 + values.length * 8);
  buffer[0] = version;
  for (const [index, value] of values.entries()) buffer.writeDoubleLE(value, 1 + index * 8);
  return buffer;
}

function decodeAnchor(buffer: Buffer): Anchor | undefined {
  const values: number[] = [];
  for (let at = 1; at + 8 <= buffer.length; at += 8) values.push(buffer.readDoubleLE(at));
  const [sequence, points, waiting, floor, floorPoints, ...rest] = values;
  if (buffer[0] !== version || floorPoints === undefined) return undefined;
  if (sequence === undefined || points === undefined || waiting === undefined || floor === undefined) {
    return undefined;
  }
  const rows: RowAnchor[] = [];
  for (let at = 0; at + rowNumbers <= rest.length; at += rowNumbers) {
    const [first = 0, end = 0, pointsFinished = 0, pointsPut = 0] = rest.slice(at, at + rowNumbers);
    rows.push({ first, end, pointsFinished, pointsPut });
  }
  return { sequence, points, waiting, floor, floorPoints, rows };
}

/** The newest anchor in the state; undefined when there is none yet. */
export async function findAnchor(state: {
  get(key: string): Promise<Buffer | undefined>;
}): Promise<Anchor | undefined> {
  const found = await state.get(key);
  return found === undefined || found.length < 1 + frameNumbers * 8 ? undefined : decodeAnchor(found);
}

/** The one that knows of more frames. */
export function newerAnchor(one: Anchor | undefined, other: Anchor | undefined): Anchor | undefined {
  return (one?.sequence ?? 0) > (other?.sequence ?? 0) ? one : other;
}

/** Says when an anchor is worth writing, and what it is. */
export class AnchorLine {
  readonly #measure: () => Omit<Anchor, 'sequence' | 'points'>;
  readonly #changes: () => number;
  #offered: { readonly sequence: number; readonly changes: number } | undefined;
  /** Of the last one on the disk. */
  #sequence = 0;
  #written = -1;

  /** `changes` counts what happened to blocks and to the floor. */
  constructor(measure: () => Omit<Anchor, 'sequence' | 'points'>, changes: () => number) {
    this.#measure = measure;
    this.#changes = changes;
  }

  /** For a frame that is being made and has so many bytes left; `waiting` of the measure lacks its own points. */
  offer(sequence: number, points: number, own: number, room: number): StateWrite | undefined {
    const changes = this.#changes();
    if (changes === this.#written) return undefined;
    const measured = this.#measure();
    const anchor = { ...measured, waiting: measured.waiting + own, sequence, points };
    const write: StateWrite = { key, value: encodeAnchor(anchor) };
    if (stateWriteBytes(write) > room) return undefined;
    this.#offered = { sequence, changes };
    return write;
  }

  /** A frame is on the disk, with what was offered for it or without. */
  committed(sequence: number): void {
    if (this.#offered?.sequence !== sequence) return;
    this.#written = this.#offered.changes;
    this.#sequence = sequence;
    this.#offered = undefined;
  }

  /** At a stop: the next frame takes one along if anything was committed since the last. */
  finish(lastSequence: number): boolean {
    if (lastSequence <= this.#sequence) return false;
    this.#written = -1;
    return true;
  }
}

/**
 * Frames missing before the first one found, or behind the last. Frames up to `movedUntil` are in blocks at least in
 * part, so their segment may be gone with good reason before the disk knows; without any sign of damage nothing is
 * said of the first ones at all.
 */
export function lostAtEnds(
  recovered: Recovered,
  anchor: Anchor | undefined,
  movedUntil: number,
): Break | undefined {
  const first = recovered.frames[0]?.found.header;
  const { lastSequence, points, isSpoilt, watermarks } = recovered;
  if (anchor !== undefined && anchor.sequence > lastSequence) {
    const lost = Math.min(anchor.points - points, anchor.waiting);
    return { after: lastSequence, last: anchor.sequence, until: anchor.sequence + 1, points: lost };
  }
  const goneUntil = Math.max(movedUntil, Math.min(...watermarks) - 1);
  if (!isSpoilt || first === undefined || first.previous <= goneUntil || first.place > 0) return undefined;
  const lost = anchor === undefined ? 0 : first.pointsBefore - anchor.floorPoints;
  return { after: goneUntil, last: first.previous, until: first.sequence, points: Math.max(0, lost) };
}
