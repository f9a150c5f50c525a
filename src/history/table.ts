// Samples of one series as columns: what a chunk holds in memory, on disk and in a query. Plain data and pure
// functions. Promises: a sorted table rises strictly in time; of two samples of the same moment the later arrival
// wins field by field, as in InfluxDB. Booleans are 0 and 1 here, so that their mean is the share of time.

import type { FieldValue } from '../model/point.ts';

/** `value` is a sample's own; the others are what thinning keeps of the samples of one minute. */
export const stats = ['value', 'sum', 'count', 'min', 'max', 'first', 'last'] as const;
export type Stat = (typeof stats)[number];

export const kinds = ['float', 'boolean', 'string'] as const;

/** Absent values are NaN; every number that is there is finite. */
export interface NumberColumn {
  readonly name: string;
  readonly kind: 'float' | 'boolean';
  readonly stat: Stat;
  readonly values: Float64Array;
}

export interface TextColumn {
  readonly name: string;
  readonly kind: 'string';
  readonly stat: Stat;
  readonly values: readonly (string | undefined)[];
}

export type Column = NumberColumn | TextColumn;

/** A moment: milliseconds since the Unix epoch and the nanoseconds within; both are exact as numbers. */
export interface Moment {
  readonly ms: number;
  readonly ns: number;
}

export interface Table {
  readonly rows: number;
  readonly ms: Float64Array;
  readonly ns: Uint32Array;
  readonly columns: readonly Column[];
}

export const emptyTable: Table = {
  rows: 0,
  ms: new Float64Array(0),
  ns: new Uint32Array(0),
  columns: [],
};

const nsPerMs = 1_000_000;

/** Rounded towards the past. */
export function momentOf(timeNs: bigint): Moment {
  let ms = timeNs / 1_000_000n;
  let ns = timeNs % 1_000_000n;
  if (ns < 0n) {
    ms -= 1n;
    ns += 1_000_000n;
  }
  return { ms: Number(ms), ns: Number(ns) };
}

export function timeNsOf(ms: number, ns: number): bigint {
  return BigInt(ms) * 1_000_000n + BigInt(ns);
}

const scratch = new BigInt64Array(1);
const halves = new Int32Array(scratch.buffer);

/** The milliseconds of a time that is not negative, and through `subMsOf` the rest, without making a bigint: the hot path. */
export function splitTime(timeNs: bigint, into: { ms: number; ns: number }): void {
  scratch[0] = timeNs;
  const high = halves[1] ?? 0;
  const low = (halves[0] ?? 0) >>> 0;
  const highMs = Math.floor(high / nsPerMs);
  // Below 10^6 × 2^32: exact.
  const rest = (high - highMs * nsPerMs) * 4_294_967_296 + low;
  const restMs = Math.floor(rest / nsPerMs);
  into.ms = highMs * 4_294_967_296 + restMs;
  into.ns = rest - restMs * nsPerMs;
}

/** A value of a column as a field has it; undefined where there is none. */
export function valueAt(column: Column, row: number): FieldValue | undefined {
  if (column.kind === 'string') return column.values[row];
  const value = column.values[row];
  if (value === undefined || Number.isNaN(value)) return undefined;
  return column.kind === 'boolean' ? value !== 0 : value;
}

/** First row at or after the moment. */
export function rowAtOrAfter(table: Table, ms: number, ns: number): number {
  let low = 0;
  let high = table.rows;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const at = table.ms[middle] ?? 0;
    if (at < ms || (at === ms && (table.ns[middle] ?? 0) < ns)) low = middle + 1;
    else high = middle;
  }
  return low;
}

function sameColumn(a: Column, b: Column): boolean {
  return a.name === b.name && a.kind === b.kind && a.stat === b.stat;
}

/** One sorted table of several, given in the order they arrived. */
export function mergeTables(tables: readonly Table[]): Table {
  const total = tables.reduce((sum, { rows }) => sum + rows, 0);
  const tableOf = new Uint32Array(total);
  const rowOf = new Uint32Array(total);
  let at = 0;
  for (const [index, { rows }] of tables.entries()) {
    for (let row = 0; row < rows; row += 1) {
      tableOf[at] = index;
      rowOf[at] = row;
      at += 1;
    }
  }
  const msAt = (position: number) => tables[tableOf[position] ?? 0]?.ms[rowOf[position] ?? 0] ?? 0;
  const nsAt = (position: number) => tables[tableOf[position] ?? 0]?.ns[rowOf[position] ?? 0] ?? 0;
  const order = new Uint32Array(total).map((_, position) => position);
  let isSorted = true;
  for (let next = 1; next < total && isSorted; next += 1) {
    const step = msAt(next) - msAt(next - 1) || nsAt(next) - nsAt(next - 1);
    isSorted = step >= 0;
  }
  // Most are. Positions rise with arrival: the last comparison keeps the order stable.
  if (!isSorted) order.sort((a, b) => msAt(a) - msAt(b) || nsAt(a) - nsAt(b) || a - b);

  const ms = new Float64Array(total);
  const ns = new Uint32Array(total);
  const target = new Uint32Array(total);
  let rows = 0;
  for (const position of order) {
    const atMs = msAt(position);
    const atNs = nsAt(position);
    if (rows === 0 || ms[rows - 1] !== atMs || ns[rows - 1] !== atNs) {
      ms[rows] = atMs;
      ns[rows] = atNs;
      rows += 1;
    }
    target[position] = rows - 1;
  }

  const shapes: Column[] = [];
  for (const { columns } of tables) {
    for (const column of columns) {
      if (!shapes.some((shape) => sameColumn(shape, column))) shapes.push(column);
    }
  }
  const columns = shapes.map((shape): Column => {
    const sources = tables.map((table) => table.columns.find((column) => sameColumn(shape, column)));
    const { name, stat } = shape;
    if (shape.kind === 'string') {
      const values = new Array<string | undefined>(rows).fill(undefined);
      for (const position of order) {
        const value = sources[tableOf[position] ?? 0]?.values[rowOf[position] ?? 0];
        if (typeof value === 'string') values[target[position] ?? 0] = value;
      }
      return { name, kind: 'string', stat, values };
    }
    const values = new Float64Array(rows).fill(Number.NaN);
    for (const position of order) {
      const value = sources[tableOf[position] ?? 0]?.values[rowOf[position] ?? 0];
      if (typeof value === 'number' && !Number.isNaN(value)) values[target[position] ?? 0] = value;
    }
    return { name, kind: shape.kind, stat, values };
  });
  return { rows, ms: ms.subarray(0, rows), ns: ns.subarray(0, rows), columns };
}
