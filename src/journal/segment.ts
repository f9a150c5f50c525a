// One file of the ring, what lies in it, and how it is read again after a power cut. A scan never gives up at
// the first bad frame: it goes on in steps of 4 KiB, so one flipped bit costs one frame and not all behind it.

import type { DiskFile } from '../platform/disk.ts';
import { blockBytes, claimedSegment, type FrameHeader, padded, readFrame, startsFrame } from './frame.ts';

/** The lines of one class in one frame: what is handed out, delivered or moved as a whole. */
export interface Section {
  readonly frame: Frame;
  readonly class: 0 | 1 | 2;
  readonly points: number;
  readonly bytes: number;
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
}

export interface Scan {
  /** 0 when the file has never been used. */
  readonly id: number;
  readonly frames: readonly FoundFrame[];
  readonly gaps: readonly Gap[];
  /** A frame that was being written when the power went. */
  readonly tornBytes: number;
  /** Neither zeros nor anything this version writes. */
  readonly isAlien: boolean;
}

const zeros = Buffer.alloc(blockBytes);

function isZero(content: Buffer): boolean {
  for (let at = 0; at < content.length; at += blockBytes) {
    const length = Math.min(blockBytes, content.length - at);
    if (content.compare(zeros, 0, length, at, at + length) !== 0) return false;
  }
  return true;
}

/** Looks through a whole segment. Pure. */
export function scanSegment(content: Buffer): Scan {
  const found: FoundFrame[] = [];
  let id = 0;
  for (let at = 0; at + blockBytes <= content.length; ) {
    const header = readFrame(content, at);
    if (header === undefined) {
      at += blockBytes;
      continue;
    }
    found.push({ header, position: at });
    id = Math.max(id, header.segment);
    at += padded(header.length);
  }
  if (found.length === 0) {
    const torn = startsFrame(content, 0);
    const isAlien = !torn && !isZero(content);
    return { id, frames: [], gaps: [], tornBytes: torn ? blockBytes : 0, isAlien };
  }

  // What a former life of the file left behind has a lower id.
  const frames: FoundFrame[] = [];
  const gaps: Gap[] = [];
  let end = 0;
  let sequence = -1;
  for (const frame of found) {
    if (frame.header.segment !== id || frame.header.sequence <= sequence) continue;
    if (frame.position > end) gaps.push({ position: end, bytes: frame.position - end });
    frames.push(frame);
    sequence = frame.header.sequence;
    end = frame.position + padded(frame.header.length);
  }
  const torn = startsFrame(content, end) && claimedSegment(content, end) === id;
  return { id, frames, gaps, tornBytes: torn ? blockBytes : 0, isAlien: false };
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
      sections.push({ frame, class: index, points, bytes, offset, state: 'waiting' });
    }
    offset += bytes;
  }
  segment.frames.push(frame);
  return frame;
}
