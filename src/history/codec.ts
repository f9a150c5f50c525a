// A table as bytes and back. Promises: what `encode` writes, `decode` reads as the same table; whatever else it is
// given, it answers undefined, never throws and never takes more memory than `cellsMax` values. Small before fast:
// bytes wear the card. Times as differences of differences, decimals as whole numbers, other floats as what changed.
//
// Version 1, little endian, numbers as varints (7 bits a byte, zigzag where they can be negative) unless said:
//   version (1 byte), flags (1; 1 = the body is deflated), first and last ms (2 × float64), rows, then the body:
//   times: differences of differences of ms; ns: 0 all zero | 1 differences
//   columns: how many; each: length in bytes, then name, kind | stat << 2 | all present << 5, bitmap unless all are
//   floats: 0 one value | 1 decimals, scaled differences | 2 bytes that differ from the value before
//   booleans: bitmap. texts: dictionary, indices.

import { deflateRawSync, inflateRawSync } from 'node:zlib';
import { type Column, kinds, type Stat, stats, type Table } from './table.ts';

const version = 1;
const deflated = 1;
/** Shorter ones gain nothing. */
const deflateFromBytes = 200;
const bodyBytesMax = 32 * 1024 * 1024;
const rowsMax = 65_536;
const cellsMax = 4_000_000;
const decimalsMax = 6;
/** Differences of such values stay exact as doubles, doubled for the zigzag. */
const scaledMax = 2 ** 50;
const powers = Array.from({ length: decimalsMax + 1 }, (_, decimals) => 10 ** decimals);

const bits = new Float64Array(1);
const words = new Uint32Array(bits.buffer);
const bytesOfBits = new Uint8Array(bits.buffer);

class Writer {
  buffer = Buffer.allocUnsafe(1024);
  at = 0;

  reserve(bytes: number): void {
    if (this.at + bytes <= this.buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, this.at + bytes));
    this.buffer.copy(larger, 0, 0, this.at);
    this.buffer = larger;
  }

  byte(value: number): void {
    this.reserve(1);
    this.buffer[this.at] = value;
    this.at += 1;
  }

  /** Whole and not negative, below 2^53. */
  varint(value: number): void {
    this.reserve(8);
    let rest = value;
    while (rest >= 0x80) {
      this.buffer[this.at] = (rest % 128) + 128;
      this.at += 1;
      rest = Math.floor(rest / 128);
    }
    this.buffer[this.at] = rest;
    this.at += 1;
  }

  signed(value: number): void {
    this.varint(value >= 0 ? value * 2 : -value * 2 - 1);
  }

  double(value: number): void {
    this.reserve(8);
    this.at = this.buffer.writeDoubleLE(value, this.at);
  }

  bytes(bytes: Uint8Array): void {
    this.reserve(bytes.length);
    this.buffer.set(bytes, this.at);
    this.at += bytes.length;
  }

  text(text: string): void {
    const bytes = Buffer.from(text);
    this.varint(bytes.length);
    this.bytes(bytes);
  }

  done(): Buffer {
    return this.buffer.subarray(0, this.at);
  }
}

/** Why bytes are no table; never leaves this file. */
class Damaged extends Error {}

class Reader {
  readonly #buffer: Buffer;
  at: number;
  readonly #end: number;

  constructor(buffer: Buffer, at: number, end: number) {
    this.#buffer = buffer;
    this.at = at;
    this.#end = end;
  }

  get left(): number {
    return this.#end - this.at;
  }

  byte(): number {
    if (this.at >= this.#end) throw new Damaged('too short');
    const value = this.#buffer[this.at] ?? 0;
    this.at += 1;
    return value;
  }

  varint(): number {
    let byte = this.byte();
    if (byte < 0x80) return byte;
    let value = byte - 128;
    let scale = 128;
    for (let index = 1; index < 8; index += 1) {
      byte = this.byte();
      if (byte < 0x80) return value + byte * scale;
      value += (byte - 128) * scale;
      scale *= 128;
    }
    throw new Damaged('number too long');
  }

  signed(): number {
    const value = this.varint();
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  }

  double(): number {
    const at = this.#take(8);
    return this.#buffer.readDoubleLE(at);
  }

  bytes(length: number): Buffer {
    const at = this.#take(length);
    return this.#buffer.subarray(at, at + length);
  }

  text(): string {
    const length = this.varint();
    const at = this.#take(length);
    return this.#buffer.toString('utf8', at, at + length);
  }

  skip(length: number): void {
    this.#take(length);
  }

  /** The next bytes, to be read on their own. */
  part(length: number): Reader {
    const at = this.#take(length);
    return new Reader(this.#buffer, at, at + length);
  }

  #take(length: number): number {
    const at = this.at;
    if (length > this.left) throw new Damaged('too short');
    this.at += length;
    return at;
  }
}

/** How many decimals write every value exactly; undefined when more than six, or the numbers are too large. */
export function decimalsOf(values: Float64Array): number | undefined {
  let decimals = 0;
  for (const value of values) {
    if (Number.isNaN(value)) continue;
    for (;;) {
      const power = powers[decimals] ?? 1;
      const scaled = Math.round(value * power);
      if (Math.abs(scaled) > scaledMax) return undefined;
      if (scaled / power === value) break;
      decimals += 1;
      if (decimals > decimalsMax) return undefined;
    }
  }
  // The first ones were only tried with fewer.
  const power = powers[decimals] ?? 1;
  const isExact = (value: number): boolean => {
    const scaled = Math.round(value * power);
    return Number.isNaN(value) || (Math.abs(scaled) <= scaledMax && scaled / power === value);
  };
  return decimals === 0 || values.every(isExact) ? decimals : undefined;
}

function writeTimes(writer: Writer, { rows, ms, ns }: Table): void {
  let difference = 0;
  for (let row = 1; row < rows; row += 1) {
    const next = (ms[row] ?? 0) - (ms[row - 1] ?? 0);
    writer.signed(next - difference);
    difference = next;
  }
  if (ns.every((value) => value === 0)) {
    writer.byte(0);
    return;
  }
  writer.byte(1);
  let last = 0;
  for (const value of ns) {
    writer.signed(value - last);
    last = value;
  }
}

function writeDifferentBytes(writer: Writer, present: Float64Array): void {
  let high = 0;
  let low = 0;
  for (const value of present) {
    bits[0] = value;
    const valueLow = words[0] ?? 0;
    const valueHigh = words[1] ?? 0;
    words[0] = valueLow ^ low;
    words[1] = valueHigh ^ high;
    low = valueLow;
    high = valueHigh;
    let start = 0;
    let end = 8;
    while (start < 8 && bytesOfBits[start] === 0) start += 1;
    while (end > start && bytesOfBits[end - 1] === 0) end -= 1;
    // 0 for the same value; else where the bytes that changed start, and how many there are.
    writer.byte(start === 8 ? 0 : (start << 4) | (end - start));
    for (let index = start; index < end; index += 1) writer.byte(bytesOfBits[index] ?? 0);
  }
}

function writeFloats(writer: Writer, present: Float64Array): void {
  const first = present[0] ?? Number.NaN;
  if (present.every((value) => value === first)) {
    writer.byte(0);
    writer.double(first);
    return;
  }
  const decimals = decimalsOf(present);
  if (decimals === undefined) {
    writer.byte(2);
    writeDifferentBytes(writer, present);
    return;
  }
  writer.byte(1);
  writer.byte(decimals);
  const power = powers[decimals] ?? 1;
  let last = 0;
  for (const value of present) {
    const scaled = Math.round(value * power);
    writer.signed(scaled - last);
    last = scaled;
  }
}

function bitmap(length: number, isSet: (index: number) => boolean): Buffer {
  const map = Buffer.alloc(Math.ceil(length / 8));
  for (let index = 0; index < length; index += 1) {
    if (isSet(index)) map[index >> 3] = (map[index >> 3] ?? 0) | (1 << (index & 7));
  }
  return map;
}

function writeTexts(writer: Writer, present: readonly string[]): void {
  const indexOf = new Map<string, number>();
  for (const text of present) if (!indexOf.has(text)) indexOf.set(text, indexOf.size);
  writer.varint(indexOf.size);
  for (const text of indexOf.keys()) writer.text(text);
  if (indexOf.size > 1) for (const text of present) writer.varint(indexOf.get(text) ?? 0);
}

/** Sums and counts of booleans are numbers. */
function isBits({ kind, stat }: { readonly kind: Column['kind']; readonly stat: Stat }): boolean {
  return kind === 'boolean' && stat !== 'sum' && stat !== 'count';
}

function columnBytes(column: Column, rows: number): Buffer {
  const writer = new Writer();
  writer.text(column.name);
  const texts: string[] = [];
  let present = new Float64Array(0);
  if (column.kind === 'string') {
    for (let row = 0; row < rows; row += 1) {
      const value = column.values[row];
      if (value !== undefined) texts.push(value);
    }
  } else present = column.values.filter((value) => !Number.isNaN(value));
  const isWhole = (column.kind === 'string' ? texts.length : present.length) === rows;
  writer.byte(kinds.indexOf(column.kind) | (stats.indexOf(column.stat) << 2) | (isWhole ? 1 << 5 : 0));
  if (!isWhole) {
    const { values } = column;
    writer.bytes(bitmap(rows, (row) => values[row] !== undefined && !Number.isNaN(values[row])));
  }
  if (column.kind === 'string') writeTexts(writer, texts);
  else if (isBits(column)) writer.bytes(bitmap(present.length, (index) => present[index] !== 0));
  else writeFloats(writer, present);
  return writer.done();
}

/** The table must be sorted, not empty and within the limits of a chunk. */
export function encode(table: Table): Buffer {
  const body = new Writer();
  writeTimes(body, table);
  body.varint(table.columns.length);
  for (const column of table.columns) {
    const bytes = columnBytes(column, table.rows);
    body.varint(bytes.length);
    body.bytes(bytes);
  }
  let stored = body.done();
  let flags = 0;
  if (stored.length >= deflateFromBytes) {
    const smaller = deflateRawSync(stored, { level: 1 });
    if (smaller.length < stored.length * 0.9) {
      stored = smaller;
      flags = deflated;
    }
  }
  const head = new Writer();
  head.byte(version);
  head.byte(flags);
  head.double(table.ms[0] ?? 0);
  head.double(table.ms[table.rows - 1] ?? 0);
  head.varint(table.rows);
  return Buffer.concat([head.done(), stored]);
}

function readPresence(reader: Reader, rows: number): { map: Buffer | undefined; present: number } {
  const map = reader.bytes(Math.ceil(rows / 8));
  let present = 0;
  for (let row = 0; row < rows; row += 1) if (isSet(map, row)) present += 1;
  return { map, present };
}

function isSet(map: Buffer, index: number): boolean {
  return ((map[index >> 3] ?? 0) & (1 << (index & 7))) !== 0;
}

function readFloats(reader: Reader, present: number): Float64Array {
  const values = new Float64Array(present);
  const way = reader.byte();
  if (way === 0) return values.fill(reader.double());
  if (way === 1) {
    const power = powers[reader.byte()];
    if (power === undefined) throw new Damaged('too many decimals');
    let last = 0;
    for (let index = 0; index < present; index += 1) {
      last += reader.signed();
      values[index] = last / power;
    }
    return values;
  }
  if (way !== 2) throw new Damaged('unknown way of floats');
  let high = 0;
  let low = 0;
  for (let index = 0; index < present; index += 1) {
    const head = reader.byte();
    const start = head >> 4;
    const end = start + (head & 15);
    if (end > 8) throw new Damaged('too many bytes in a float');
    words[0] = 0;
    words[1] = 0;
    for (let byte = start; byte < end; byte += 1) bytesOfBits[byte] = reader.byte();
    low ^= words[0] ?? 0;
    high ^= words[1] ?? 0;
    words[0] = low;
    words[1] = high;
    values[index] = bits[0] ?? 0;
  }
  return values;
}

function readTexts(reader: Reader, present: number): string[] {
  const size = reader.varint();
  if (size > present) throw new Damaged('dictionary too large');
  const dictionary = Array.from({ length: size }, () => reader.text());
  return Array.from({ length: present }, () => {
    const text = dictionary[size > 1 ? reader.varint() : 0];
    if (text === undefined) throw new Damaged('no such text');
    return text;
  });
}

function readColumn(reader: Reader, name: string, rows: number): Column {
  const shape = reader.byte();
  const kind = kinds[shape & 3];
  const stat = stats[(shape >> 2) & 7];
  if (kind === undefined || stat === undefined) throw new Damaged('unknown kind of column');
  const isWhole = (shape & (1 << 5)) !== 0;
  const { map, present } = isWhole ? { map: undefined, present: rows } : readPresence(reader, rows);
  if (kind === 'string') {
    const texts = readTexts(reader, present);
    let next = 0;
    const values =
      map === undefined
        ? texts
        : Array.from({ length: rows }, (_, row) => (isSet(map, row) ? texts[next++] : undefined));
    return { name, kind, stat, values };
  }
  let dense: Float64Array;
  if (!isBits({ kind, stat })) {
    dense = readFloats(reader, present);
    if (!dense.every(Number.isFinite)) throw new Damaged('not a finite number');
  } else {
    const flags = reader.bytes(Math.ceil(present / 8));
    dense = new Float64Array(present).map((_, index) => (isSet(flags, index) ? 1 : 0));
  }
  if (map === undefined) return { name, kind, stat, values: dense };
  const values = new Float64Array(rows).fill(Number.NaN);
  let next = 0;
  for (let row = 0; row < rows; row += 1) {
    if (!isSet(map, row)) continue;
    values[row] = dense[next] ?? 0;
    next += 1;
  }
  return { name, kind, stat, values };
}

function readTimes(reader: Reader, rows: number, firstMs: number): { ms: Float64Array; ns: Uint32Array } {
  const ms = new Float64Array(rows);
  ms[0] = firstMs;
  let difference = 0;
  for (let row = 1; row < rows; row += 1) {
    difference += reader.signed();
    ms[row] = (ms[row - 1] ?? 0) + difference;
  }
  const ns = new Uint32Array(rows);
  const way = reader.byte();
  if (way > 1) throw new Damaged('unknown way of nanoseconds');
  let last = 0;
  for (let row = 0; way === 1 && row < rows; row += 1) {
    last += reader.signed();
    if (last < 0 || last >= 1_000_000) throw new Damaged('nanoseconds out of range');
    ns[row] = last;
  }
  for (let row = 1; row < rows; row += 1) {
    const gap = (ms[row] ?? 0) - (ms[row - 1] ?? 0);
    if (gap < 0 || (gap === 0 && (ns[row] ?? 0) <= (ns[row - 1] ?? 0))) throw new Damaged('time runs back');
  }
  return { ms, ns };
}

/** First and last millisecond of a chunk and its rows, without reading it. */
export interface ChunkHead {
  readonly firstMs: number;
  readonly lastMs: number;
  readonly rows: number;
}

function readHead(reader: Reader): ChunkHead & { readonly flags: number } {
  if (reader.byte() !== version) throw new Damaged('unknown version');
  const flags = reader.byte();
  const firstMs = reader.double();
  const lastMs = reader.double();
  const rows = reader.varint();
  const isTime = Number.isSafeInteger(firstMs) && Number.isSafeInteger(lastMs) && firstMs <= lastMs;
  if (!isTime || rows < 1 || rows > rowsMax) throw new Damaged('impossible head');
  return { flags, firstMs, lastMs, rows };
}

/** Undefined when the bytes are no chunk of this version. */
export function headOf(chunk: Buffer): ChunkHead | undefined {
  try {
    return readHead(new Reader(chunk, 0, chunk.length));
  } catch (error) {
    if (error instanceof Damaged) return undefined;
    throw error;
  }
}

/** Undefined when the bytes are no table of this version. Columns that are not wanted are passed over. */
export function decode(chunk: Buffer, isWanted: (field: string) => boolean = () => true): Table | undefined {
  try {
    return decodeOrThrow(chunk, isWanted);
  } catch (error) {
    if (error instanceof Damaged) return undefined;
    throw error;
  }
}

function decodeOrThrow(chunk: Buffer, isWanted: (field: string) => boolean): Table {
  const head = new Reader(chunk, 0, chunk.length);
  const { flags, firstMs, lastMs, rows } = readHead(head);
  let body = chunk.subarray(head.at);
  if (flags === deflated) body = inflate(body);
  else if (flags !== 0) throw new Damaged('unknown flags');
  const reader = new Reader(body, 0, body.length);
  // Every time but the first takes a byte at least: nothing is allocated for a number that is only claimed.
  if (reader.left < rows) throw new Damaged('too short');
  const { ms, ns } = readTimes(reader, rows, firstMs);
  if (ms[rows - 1] !== lastMs) throw new Damaged('times do not end where the head says');
  const count = reader.varint();
  if (count * rows > cellsMax) throw new Damaged('too many values');
  const columns: Column[] = [];
  for (let index = 0; index < count; index += 1) {
    const part = reader.part(reader.varint());
    const name = part.text();
    if (isWanted(name)) columns.push(readColumn(part, name, rows));
  }
  return { rows, ms, ns, columns };
}

function inflate(body: Buffer): Buffer {
  try {
    return inflateRawSync(body, { maxOutputLength: bodyBytesMax });
  } catch (error) {
    throw new Damaged('not deflated', { cause: error });
  }
}
