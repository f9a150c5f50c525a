// One file of the ring, what lies in it, and how it is read again after a power cut. A scan never gives up at
// the first bad frame: it goes on in steps of 4 KiB, so one flipped bit costs one frame and not all behind it.

import type { DiskFile } from '../platform/disk.ts';
import {
  belongsTo,
  blockBytes,
  claimedLength,
  type FrameHeader,
  padded,
  readFrame,
  startsFrame,
} from './frame.ts';

/** The lines of one class in one frame: what is handed out, delivered or moved as a whole. */
export interface Section {
  readonly frame: Frame;
  readonly class: 0 | 1 | 2;
  readonly points: number;
  readonly bytes: number;
  /** Some of the lines have no date yet. */
  readonly isUndated: boolean;
  /** Bytes from the frame's start to the first line. */
  readonly offset: number;
  /** `moving`: being made into a block; `gone`: delivered, buried, moved to a block or lost. */
  state: 'waiting' | 'held' | 'moving' | 'gone';
}

/** What is remembered of a frame; its lines stay on the disk. */
export interface Frame {
  readonly segment: Segment;
  readonly sequence: number;
  readonly position: number;
  readonly length: number;
  readonly atMs: number;
  readonly sections: readonly Section[];
}

export interface Segment {
  readonly slot: number;
  readonly path: string;
  file: DiskFile;
  /** Of its present life; 0 when it never had one. */
  id: number;
  /** Random, of its present life. */
  life: number;
  /** No frame was committed since the journal was opened when this life began. */
  isAfterOpening: boolean;
  /** Points in all frames before its first. */
  pointsBefore: number;
  /** Id of the life before, whose frames lie behind those of the present one; 0 when there was none. */
  formerId: number;
  /** Where the next frame goes. */
  end: number;
  frames: Frame[];
  /** By class: frames before this one have nothing left of it. */
  readonly firstLeft: [number, number, number];
  /** Reads under way; the file is not written over while there are any. */
  pins: number;
  /** A write or sync failed, or it has the wrong size: emptied, then made anew before it is used again. */
  suspect: boolean;
}

export interface FoundFrame {
  readonly header: FrameHeader;
  readonly position: number;
}

/** Bytes between two good frames that ought to be a frame. */
export interface Gap {
  readonly position: number;
  readonly bytes: number;
  /** The one behind it. */
  readonly next: FoundFrame;
}

export interface Scan {
  /** 0 when the file has never been used. */
  readonly id: number;
  readonly frames: readonly FoundFrame[];
  readonly gaps: readonly Gap[];
  /** A frame that was being written when the power went. */
  readonly tornBytes: number;
  /** The first frame was being written over by a next life when the power went. */
  readonly isOverwritten: boolean;
  /** Neither zeros nor anything this version writes. */
  readonly isAlien: boolean;
}

const sectorBytes = 512;
const zeros = Buffer.alloc(sectorBytes);

function isZero(content: Buffer): boolean {
  return content.compare(zeros, 0, content.length) === 0;
}

function commitOf(header: FrameHeader): number {
  return header.sequence - header.place;
}

/** Whether both frames were written by one commit. */
export function isSameCommit(one: FrameHeader, other: FrameHeader): boolean {
  return one.segment === other.segment && commitOf(one) === commitOf(other);
}

/**
 * Looks through a whole segment. Pure. A life is written from the start of the file, so the first good frame says
 * which one it is: what a former life left lies behind it, and there it may look like anything a device sent.
 */
export function scanSegment(content: Buffer): Scan {
  const frames: FoundFrame[] = [];
  const gaps: Gap[] = [];
  let end = 0;
  let last: FrameHeader | undefined;
  for (let at = 0; at + blockBytes <= content.length; ) {
    const header = readFrame(content, at, last);
    if (header === undefined || (last !== undefined && header.sequence <= last.sequence)) {
      at += blockBytes;
      continue;
    }
    const next = { header, position: at };
    if (at > end) gaps.push({ position: end, bytes: at - end, next });
    frames.push(next);
    last = header;
    at += padded(header.length);
    end = at;
  }
  if (last === undefined) {
    const torn = startsFrame(content, 0);
    // The first sector is written by every first commit; where it is not, the others are of one that was torn.
    const isAlien = !torn && !isZero(content.subarray(0, sectorBytes));
    return { id: 0, frames, gaps: [], tornBytes: torn ? blockBytes : 0, isOverwritten: false, isAlien };
  }
  const torn = startsFrame(content, end) && belongsTo(content, end, last);
  const [gap] = gaps;
  const isOverwritten = gap?.position === 0 && isPartlyOverwritten(content, last, gap.bytes);
  return { id: last.segment, frames, gaps, tornBytes: torn ? blockBytes : 0, isOverwritten, isAlien: false };
}

/**
 * Whether parts of the first frame are zeros, as a small frame of the next life has them behind its header. (With
 * the header there as well it would be a good frame.)
 */
function isPartlyOverwritten(content: Buffer, life: FrameHeader, bytes: number): boolean {
  if (!startsFrame(content, 0) || !belongsTo(content, 0, life)) return false;
  const length = claimedLength(content, 0);
  if (padded(length) !== bytes) return false;
  const end = Math.min(length, blockBytes);
  for (let at = sectorBytes; at < end; at += sectorBytes) {
    if (isZero(content.subarray(at, Math.min(at + sectorBytes, end)))) return true;
  }
  return false;
}

/** Where the last commit begins among the frames of a scan. */
export function lastCommitAt(scan: Scan): number {
  const last = scan.frames[scan.frames.length - 1];
  if (last === undefined) return 0;
  const commit = commitOf(last.header);
  return scan.frames.find(({ header }) => commitOf(header) === commit)?.position ?? last.position;
}

/** The frame as the ring remembers it. Sections up to the given sequences are gone already. */
export function rememberFrame(
  segment: Segment,
  position: number,
  header: FrameHeader,
  isGone: (classIndex: 0 | 1 | 2) => boolean,
): Frame {
  const sections: Section[] = [];
  const frame: Frame = {
    segment,
    sequence: header.sequence,
    position,
    length: header.length,
    atMs: header.atMs,
    sections,
  };
  let offset = header.length - header.stateBytes - header.bytes[0] - header.bytes[1] - header.bytes[2];
  for (const index of [0, 1, 2] as const) {
    const points = header.points[index];
    const bytes = header.bytes[index];
    if (points > 0 && bytes > 0 && !isGone(index)) {
      const isUndated = header.undated[index];
      sections.push({ frame, class: index, points, bytes, isUndated, offset, state: 'waiting' });
    }
    offset += bytes;
  }
  if (segment.frames.length === 0) segment.pointsBefore = header.pointsBefore;
  segment.frames.push(frame);
  return frame;
}
