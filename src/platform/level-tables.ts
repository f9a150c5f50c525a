// LevelDB's tables, looked through before LevelDB reads them. It checks no checksum when it answers, compacts or repairs,
// and aborts the process over what it then believes: asserts on keys, allocations of damaged lengths. Promises: after
// `disarmTable` each block of the table is as it was written, or LevelDB refuses it with an ordinary error: the byte
// behind a damaged block that names its compression is overwritten with one there is not, and the rest of the table
// stays readable. Format: doc/table_format.md of LevelDB. Does not notice a table that is damaged while it is open.

import { open, readFile, rename, stat } from 'node:fs/promises';
import { errorCode } from './errors.ts';

const footerBytes = 48;
const magic = 0xdb4775248b80fb57n;
const trailerBytes = 5;
const snappyType = 1;
const noType = 0xff;
/** LevelDB ends a table at 2 MiB; what is so much larger is none. */
const tableBytesMax = 64 * 1024 * 1024;

/** What is wrong in a table. */
export interface TableDamage {
  readonly part: 'data' | 'filter' | 'index' | 'footer' | 'file';
  /** Bytes from the start of the file. */
  readonly position: number;
  readonly bytes: number;
  /** What to overwrite so that LevelDB sees it; undefined where it does by itself. */
  readonly disarm: { readonly position: number; readonly byte: number } | undefined;
}

export interface TableReport {
  readonly bytes: number;
  readonly damages: readonly TableDamage[];
}

interface Handle {
  readonly offset: number;
  readonly size: number;
}

/** For each distance of a byte from the end of four, one behind the other ("slicing by 4"). */
const crcTable = new Int32Array(4 * 256);
for (let byte = 0; byte < 256; byte += 1) {
  let crc = byte;
  for (let distance = 0; distance < 4; distance += 1) {
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
    crcTable[distance * 256 + byte] = crc;
  }
}

/** CRC-32C as LevelDB writes it (doc/log_format.md, util/crc32c.h). */
export function maskedCrc(bytes: Buffer): number {
  const table = crcTable;
  const wholeWords = bytes.length - (bytes.length % 4);
  let crc = -1;
  let at = 0;
  for (; at < wholeWords; at += 4) {
    crc ^= bytes.readInt32LE(at);
    crc =
      (table[768 + (crc & 255)] ?? 0) ^
      (table[512 + ((crc >>> 8) & 255)] ?? 0) ^
      (table[256 + ((crc >>> 16) & 255)] ?? 0) ^
      (table[crc >>> 24] ?? 0);
  }
  for (; at < bytes.length; at += 1) crc = (table[(crc ^ (bytes[at] ?? 0)) & 255] ?? 0) ^ (crc >>> 8);
  crc = ~crc >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

/** A number as LevelDB writes it, 7 bits a byte, and where it ends. */
export function varint(bytes: Buffer, from: number): readonly [value: bigint, next: number] {
  let value = 0n;
  let at = from;
  for (let shift = 0n; at < bytes.length && shift < 70n; shift += 7n) {
    const byte = bytes[at] ?? 0;
    at += 1;
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) break;
  }
  return [value, at];
}

function smallVarint(bytes: Buffer, from: number): readonly [value: number, next: number] {
  const [value, next] = varint(bytes, from);
  return [Number(value), next];
}

/** Snappy without its framing (format_description.txt of Snappy). What it gets has a good checksum. */
function unsnap(bytes: Buffer): Buffer {
  const [length, start] = smallVarint(bytes, 0);
  const result = Buffer.alloc(length);
  let at = start;
  let filled = 0;
  while (at < bytes.length) {
    const tag = bytes[at] ?? 0;
    at += 1;
    if ((tag & 3) === 0) {
      const extra = Math.max(0, (tag >> 2) - 59);
      const literal = extra === 0 ? (tag >> 2) + 1 : bytes.readUIntLE(at, extra) + 1;
      at += extra;
      filled += bytes.copy(result, filled, at, at + literal);
      at += literal;
      continue;
    }
    const isShort = (tag & 3) === 1;
    const copied = isShort ? 4 + ((tag >> 2) & 7) : 1 + (tag >> 2);
    const offsetBytes = [0, 1, 2, 4][tag & 3] ?? 0;
    const offset = bytes.readUIntLE(at, offsetBytes) + (isShort ? (tag >> 5) * 256 : 0);
    at += offsetBytes;
    // Byte by byte: what is copied may be what has just been written.
    for (let count = 0; count < copied; count += 1, filled += 1)
      result[filled] = result[filled - offset] ?? 0;
  }
  return result;
}

function handleAt(bytes: Buffer, from: number): readonly [Handle, next: number] {
  const [offset, sizeAt] = smallVarint(bytes, from);
  const [size, next] = smallVarint(bytes, sizeAt);
  return [{ offset, size }, next];
}

/** The handles that an index holds as values. */
function handlesIn(block: Buffer): Handle[] {
  const restarts = block.readUInt32LE(block.length - 4);
  const end = block.length - 4 * (restarts + 1);
  const handles: Handle[] = [];
  for (let at = 0; at < end; ) {
    const [, keyBytesAt] = smallVarint(block, at);
    const [keyBytes, valueBytesAt] = smallVarint(block, keyBytesAt);
    const [valueBytes, keyAt] = smallVarint(block, valueBytesAt);
    handles.push(handleAt(block, keyAt + keyBytes)[0]);
    at = keyAt + keyBytes + valueBytes;
  }
  return handles;
}

function blockDamage(
  table: Buffer,
  part: TableDamage['part'],
  { offset, size }: Handle,
): TableDamage | undefined {
  const end = offset + size;
  const damage = { part, position: offset, bytes: size, disarm: undefined };
  if (end + trailerBytes > table.length) return damage;
  if ((table[end] ?? noType) > snappyType) return damage;
  if (table.readUInt32LE(end + 1) === maskedCrc(table.subarray(offset, end + 1))) return undefined;
  return { ...damage, disarm: { position: end, byte: noType } };
}

/** Of a block without damage. */
function contentOf(table: Buffer, { offset, size }: Handle): Buffer {
  const content = table.subarray(offset, offset + size);
  return table[offset + size] === snappyType ? unsnap(content) : content;
}

function judge(table: Buffer): TableDamage[] {
  const footerAt = table.length - footerBytes;
  const footer: TableDamage = { part: 'footer', position: footerAt, bytes: footerBytes, disarm: undefined };
  if (footerAt < 0 || table.readBigUInt64LE(table.length - 8) !== magic) return [footer];
  // Its last byte is one of the magic number: LevelDB does not look at the rest then.
  const refused: TableDamage = { ...footer, disarm: { position: table.length - 1, byte: 0 } };
  const [meta, indexAt] = handleAt(table, footerAt);
  const [index] = handleAt(table, indexAt);
  // They are the last blocks, one behind the other. Handles that say otherwise would have us overwrite other blocks.
  const isMetaWrong = meta.offset + meta.size + trailerBytes !== index.offset;
  if (isMetaWrong || index.offset + index.size + trailerBytes !== footerAt) return [refused];
  const indexDamage = blockDamage(table, 'index', index);
  if (indexDamage !== undefined) return [indexDamage];
  const blocks = handlesIn(contentOf(table, index));
  // LevelDB never writes such a table, and its repair aborts over one.
  if (blocks.length === 0) return [refused];
  const damages = blocks.flatMap((one) => blockDamage(table, 'data', one) ?? []);
  // What only makes reading faster is no damage once LevelDB goes without it: a repair does not make it anew.
  const armed = (one: TableDamage | undefined): TableDamage[] => (one?.disarm === undefined ? [] : [one]);
  if (blockDamage(table, 'filter', meta) !== undefined) {
    return [...damages, ...armed(blockDamage(table, 'filter', meta))];
  }
  const filters = handlesIn(contentOf(table, meta));
  return [...damages, ...filters.flatMap((one) => armed(blockDamage(table, 'filter', one)))];
}

/**
 * Reads all of a table and changes nothing; undefined when there is none. Behind `bytes`, what the manifest says is the
 * table, LevelDB does not look.
 */
export async function checkTable(path: string, bytes?: number): Promise<TableReport | undefined> {
  let size = 0;
  try {
    ({ size } = await stat(path));
    if (size <= tableBytesMax) {
      const content = await readFile(path);
      return { bytes: size, damages: judge(content.subarray(0, bytes ?? size)) };
    }
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
  }
  return { bytes: size, damages: [{ part: 'file', position: 0, bytes: size, disarm: undefined }] };
}

/** Writes over what LevelDB must not believe. A file that cannot be read is renamed to `<path>.damaged`. */
export async function disarmTable(path: string, damages: readonly TableDamage[]): Promise<void> {
  if (damages.some(({ part }) => part === 'file')) return rename(path, `${path}.damaged`);
  const places = damages.flatMap(({ disarm }) => disarm ?? []);
  if (places.length === 0) return;
  const file = await open(path, 'r+');
  try {
    for (const { position, byte } of places) await file.write(Buffer.of(byte), 0, 1, position);
    await file.sync();
  } finally {
    await file.close();
  }
}
