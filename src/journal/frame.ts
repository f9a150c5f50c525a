// The frame: what one group commit writes, and the unit that survives a power cut whole or not at all.
// Header of 128 bytes, then the lines of each class one behind the other, then the state writes; padded with
// zeros to 4 KiB, so that an acknowledged block is never written again. docs/journal.md has the table.

import assert from 'node:assert/strict';
import { crc32 } from 'node:zlib';
import type { StateWrite } from './contract.ts';

/** Frames start and end at multiples of this: the page of the file system and of most cards. */
export const blockBytes = 4096;
export const headerBytes = 128;
/** A state key's longest, in bytes of UTF-8. */
export const keyBytesMax = 512;

/** 'IFJ' and the version of the format. */
const magic = 0x014a4649;
const wordSize = 2 ** 32;
const deleted = 0xffffffff;
/** Beside the place in the commit: the flags of the frame, and which classes have lines without a date. */
const afterOpeningBit = 2 ** 31;
const undatedBits = [2 ** 28, 2 ** 29, 2 ** 30] as const;
const placeEnd = 2 ** 28;
const stateOverheadBytes = 6;
/** No frame is longer: what claims to be is damage, and its CRC is not worth calculating. */
export const frameBytesMax = 1024 * 1024 + 64 * 1024;

/** Numbers of a frame, by class in the order of `pointClasses`. */
export type PerClass = readonly [alarm: number, event: number, telemetry: number];

export interface FrameHeader {
  /** Of header and payload, without the padding. */
  readonly length: number;
  /** Number of the segment's present life: what a former life left behind has a lower one. */
  readonly segment: number;
  /** Chosen at random for each life of a segment: bytes a device sent cannot be taken for a frame. */
  readonly life: number;
  readonly sequence: number;
  /** Frames of the same commit before this one. */
  readonly place: number;
  /** In the first segment written after the journal was opened: the one before ended with what was being written. */
  readonly isAfterOpening: boolean;
  /** Sequence of the committed frame before; tells a lost frame from one that never was. */
  readonly previous: number;
  /** Lines of the class in frames below it are delivered or moved to blocks. */
  readonly watermarks: PerClass;
  /** Segments below it are free: their state is checkpointed. */
  readonly floor: number;
  /** Points in all committed frames before this one: says how many a gap swallowed. */
  readonly pointsBefore: number;
  /** On the journal's own clock: milliseconds it has been running. */
  readonly atMs: number;
  readonly points: PerClass;
  readonly bytes: PerClass;
  /** Some lines of the class have no date yet. */
  readonly undated: readonly [alarm: boolean, event: boolean, telemetry: boolean];
  readonly stateWrites: number;
  readonly stateBytes: number;
}

function flagsOf({ undated, isAfterOpening }: FrameHeader): number {
  let flags = isAfterOpening ? afterOpeningBit : 0;
  for (const index of [0, 1, 2] as const) if (undated[index]) flags += undatedBits[index];
  return flags;
}

export function padded(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes;
}

function put64(buffer: Buffer, value: number, at: number): void {
  buffer.writeUInt32LE(value % wordSize, at);
  buffer.writeUInt32LE(Math.floor(value / wordSize), at + 4);
}

function get64(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at) + buffer.readUInt32LE(at + 4) * wordSize;
}

/** Writes the header before a payload that is already in place, and zeros behind it. */
export function sealFrame(buffer: Buffer, at: number, header: FrameHeader): void {
  buffer.fill(0, at, at + headerBytes);
  buffer.writeUInt32LE(magic, at);
  buffer.writeUInt32LE(header.length, at + 8);
  buffer.writeUInt32LE(header.place + flagsOf(header), at + 12);
  put64(buffer, header.segment, at + 16);
  put64(buffer, header.sequence, at + 24);
  put64(buffer, header.previous, at + 32);
  put64(buffer, header.floor, at + 40);
  put64(buffer, header.pointsBefore, at + 48);
  put64(buffer, header.atMs, at + 56);
  for (const index of [0, 1, 2] as const) {
    put64(buffer, header.watermarks[index], at + 64 + index * 8);
    buffer.writeUInt32LE(header.points[index], at + 88 + index * 8);
    buffer.writeUInt32LE(header.bytes[index], at + 92 + index * 8);
  }
  buffer.writeUInt32LE(header.stateWrites, at + 112);
  buffer.writeUInt32LE(header.stateBytes, at + 116);
  put64(buffer, header.life, at + 120);
  buffer.fill(0, at + header.length, at + padded(header.length));
  buffer.writeUInt32LE(crc32(buffer.subarray(at + 8, at + header.length)), at + 4);
}

/** The frame that starts at `at`, of the life if one is given; undefined when there is none or it is damaged. */
export function readFrame(buffer: Buffer, at: number, of?: FrameHeader): FrameHeader | undefined {
  if (!startsFrame(buffer, at)) return undefined;
  const length = buffer.readUInt32LE(at + 8);
  if (length < headerBytes || length > frameBytesMax || at + length > buffer.length) return undefined;
  if (of !== undefined && !belongsTo(buffer, at, of)) return undefined;
  const word = (offset: number) => buffer.readUInt32LE(at + offset);
  // Cheaper than the CRC, which would otherwise go over the same damaged bytes again and again.
  if (headerBytes + word(92) + word(100) + word(108) + word(116) !== length) return undefined;
  if (word(4) !== crc32(buffer.subarray(at + 8, at + length))) return undefined;
  return {
    length,
    place: word(12) % placeEnd,
    isAfterOpening: word(12) >= afterOpeningBit,
    undated: [
      (word(12) & undatedBits[0]) !== 0,
      (word(12) & undatedBits[1]) !== 0,
      (word(12) & undatedBits[2]) !== 0,
    ],
    segment: get64(buffer, at + 16),
    life: get64(buffer, at + 120),
    sequence: get64(buffer, at + 24),
    previous: get64(buffer, at + 32),
    floor: get64(buffer, at + 40),
    pointsBefore: get64(buffer, at + 48),
    atMs: get64(buffer, at + 56),
    watermarks: [get64(buffer, at + 64), get64(buffer, at + 72), get64(buffer, at + 80)],
    points: [word(88), word(96), word(104)],
    bytes: [word(92), word(100), word(108)],
    stateWrites: word(112),
    stateBytes: word(116),
  };
}

/** Whether a frame of this version begins here, whole or not. */
export function startsFrame(buffer: Buffer, at: number): boolean {
  return at + headerBytes <= buffer.length && buffer.readUInt32LE(at) === magic;
}

/** The length a frame that may be damaged claims to have. */
export function claimedLength(buffer: Buffer, at: number): number {
  return buffer.readUInt32LE(at + 8);
}

/** Whether a frame that may be damaged claims to be of the same life of its segment. */
export function belongsTo(buffer: Buffer, at: number, of: FrameHeader): boolean {
  return get64(buffer, at + 16) === of.segment && get64(buffer, at + 120) === of.life;
}

export function stateWriteBytes(write: StateWrite): number {
  return stateOverheadBytes + Buffer.byteLength(write.key) + (write.value?.length ?? 0);
}

/** Writes one state write; answers where the next one goes. */
export function putStateWrite(buffer: Buffer, write: StateWrite, at: number): number {
  const keyBytes = buffer.write(write.key, at + stateOverheadBytes);
  assert(keyBytes <= keyBytesMax, 'BUG: state key too long');
  buffer.writeUInt16LE(keyBytes, at);
  buffer.writeUInt32LE(write.value === undefined ? deleted : write.value.length, at + 2);
  const valueAt = at + stateOverheadBytes + keyBytes;
  if (write.value === undefined) return valueAt;
  write.value.copy(buffer, valueAt);
  return valueAt + write.value.length;
}

/** Reads a frame's state section. Values are copies. Stops at what does not fit (the frame's CRC was right). */
export function readStateWrites(section: Buffer): StateWrite[] {
  const writes: StateWrite[] = [];
  let at = 0;
  while (at + stateOverheadBytes <= section.length) {
    const keyEnd = at + stateOverheadBytes + section.readUInt16LE(at);
    const length = section.readUInt32LE(at + 2);
    const end = length === deleted ? keyEnd : keyEnd + length;
    if (end > section.length) break;
    const key = section.toString('utf8', at + stateOverheadBytes, keyEnd);
    writes.push({ key, value: length === deleted ? undefined : Buffer.from(section.subarray(keyEnd, end)) });
    at = end;
  }
  return writes;
}
