// Answers from chunks: the samples of a range in the order of time, or what a window of time comes to. Samples that
// are still in memory, on disk and thinned look alike from here on. Promises: a query works in slices and lets
// others run between them; it holds one hour of one device, and its answer is bounded.

import { setImmediate as nextTurn } from 'node:timers/promises';
import type { FieldValue } from '../model/point.ts';
import { summaryFields } from '../model/thinning.ts';
import {
  type AggregateFunction,
  addRow,
  aggregateOf,
  type FieldColumns,
  fieldColumns,
  newSummary,
  type Summary,
} from './summary.ts';
import { type Moment, mergeTables, momentOf, rowAtOrAfter, type Table, timeNsOf, valueAt } from './table.ts';

/** A chunk of one series, stored or in memory. */
export interface Piece {
  readonly measurement: string;
  readonly firstMs: number;
  readonly lastMs: number;
  /** Undefined when it is damaged. Columns that are not wanted may be missing. */
  table(isWanted: (field: string) => boolean): Table | undefined;
}

/** What there is of one device and hour, in the order it arrived. */
export interface HourOfPieces {
  readonly hour: number;
  readonly pieces: readonly Piece[];
}

export interface Selection {
  readonly deviceId: string;
  /** Default: all of the device. */
  readonly measurement?: string;
  /** Default: all. */
  readonly fields?: readonly string[];
  /** Inclusive. */
  readonly fromNs: bigint;
  /** Exclusive. */
  readonly toNs: bigint;
}

export type Order = 'oldest-first' | 'newest-first';

export interface RangeQuery extends Selection {
  /** Rows in the answer, at most. */
  readonly limit: number;
  readonly order: Order;
  /** `next` of the answer before. */
  readonly after?: string;
}

export interface Row {
  readonly measurement: string;
  readonly timeNs: bigint;
  /** Numbers of a thinned row are means, with `f_min` and `f_max` beside them where they differ. */
  readonly fields: ReadonlyMap<string, FieldValue>;
  /** One row for all samples of a minute; its time is that of the last of them. */
  readonly isThinned: boolean;
}

export interface RangeAnswer {
  readonly rows: readonly Row[];
  /** Set when there is more: `after` of the next query. */
  readonly next: string | undefined;
}

export interface AggregateQuery extends Selection {
  /** Windows are aligned to the epoch. Exact on thinned history when a multiple of a minute. */
  readonly windowMs: number;
  readonly functions: readonly AggregateFunction[];
  /** Windows in the answer, at most. */
  readonly limit: number;
}

export interface WindowRow {
  readonly measurement: string;
  /** When the window begins. */
  readonly timeNs: bigint;
  readonly fields: ReadonlyMap<string, ReadonlyMap<AggregateFunction, FieldValue>>;
}

export interface AggregateAnswer {
  /** Windows without a sample are left out. */
  readonly windows: readonly WindowRow[];
  /** Set when there is more: `fromNs` of the next query. */
  readonly nextFromNs: bigint | undefined;
}

/** Lets others run when it is their turn: an alarm waits for no query. */
export class Pacer {
  readonly #monotonicMs: () => number;
  readonly #sliceMs: number;
  #sinceMs: number;

  constructor(monotonicMs: () => number, sliceMs = 5) {
    this.#monotonicMs = monotonicMs;
    this.#sliceMs = sliceMs;
    this.#sinceMs = monotonicMs();
  }

  get isDue(): boolean {
    return this.#monotonicMs() - this.#sinceMs >= this.#sliceMs;
  }

  async pause(): Promise<void> {
    if (!this.isDue) return;
    await nextTurn();
    this.#sinceMs = this.#monotonicMs();
  }
}

function byMeasurement(pieces: readonly Piece[]): Map<string, Piece[]> {
  const found = new Map<string, Piece[]>();
  for (const piece of pieces) {
    const list = found.get(piece.measurement);
    if (list === undefined) found.set(piece.measurement, [piece]);
    else list.push(piece);
  }
  return found;
}

/** Pieces that overlap in time belong together; the groups follow one another, oldest first. */
function groupsOf(pieces: readonly Piece[]): Piece[][] {
  // Stable: pieces that begin together stay in the order they arrived.
  const sorted = [...pieces].sort((a, b) => a.firstMs - b.firstMs);
  const groups: Piece[][] = [];
  let endMs = Number.NEGATIVE_INFINITY;
  for (const piece of sorted) {
    const group = groups.at(-1);
    if (group === undefined || piece.firstMs > endMs) groups.push([piece]);
    else group.push(piece);
    endMs = Math.max(endMs, piece.lastMs);
  }
  // Within a group the later arrival wins.
  const arrival = new Map(pieces.map((piece, index) => [piece, index]));
  for (const group of groups) group.sort((a, b) => (arrival.get(a) ?? 0) - (arrival.get(b) ?? 0));
  return groups;
}

function wantedOf({ fields }: Selection): (field: string) => boolean {
  if (fields === undefined) return () => true;
  const names = new Set(fields);
  return (field) => names.has(field);
}

function tableOf(group: readonly Piece[], isWanted: (field: string) => boolean): Table | undefined {
  const tables = group.flatMap((piece) => piece.table(isWanted) ?? []);
  return tables.length > 1 ? mergeTables(tables) : tables[0];
}

/** The rows of one measurement in one hour, one after the other. */
class RowStream {
  readonly measurement: string;
  ms = 0;
  ns = 0;
  readonly #groups: Piece[][];
  readonly #isWanted: (field: string) => boolean;
  readonly #from: Moment;
  readonly #to: Moment;
  readonly #step: 1 | -1;
  #table: Table | undefined;
  #fields: FieldColumns[] = [];
  #row = 0;
  #end = 0;

  constructor(measurement: string, pieces: readonly Piece[], query: RangeQuery, from: Moment, to: Moment) {
    this.measurement = measurement;
    this.#isWanted = wantedOf(query);
    this.#from = from;
    this.#to = to;
    this.#step = query.order === 'oldest-first' ? 1 : -1;
    const inside = (group: readonly Piece[]) =>
      group.some(({ firstMs, lastMs }) => lastMs >= from.ms && firstMs <= to.ms);
    this.#groups = groupsOf(pieces).filter(inside);
    if (this.#step === -1) this.#groups.reverse();
  }

  /** Whether there is a next row; its moment is then in `ms` and `ns`. */
  hasNext(): boolean {
    while (this.#table === undefined || this.#row === this.#end) {
      const group = this.#groups.shift();
      if (group === undefined) return false;
      const table = tableOf(group, this.#isWanted);
      this.#table = table;
      this.#row = 0;
      this.#end = 0;
      if (table === undefined) continue;
      this.#fields = fieldColumns(table);
      const first = rowAtOrAfter(table, this.#from.ms, this.#from.ns);
      const behind = Math.max(first, rowAtOrAfter(table, this.#to.ms, this.#to.ns));
      this.#row = this.#step === 1 ? first : behind - 1;
      this.#end = this.#step === 1 ? behind : first - 1;
    }
    this.ms = this.#table.ms[this.#row] ?? 0;
    this.ns = this.#table.ns[this.#row] ?? 0;
    return true;
  }

  /** The next row, which is then behind us; undefined when it has none of the fields. */
  take(): Row | undefined {
    const table = this.#table;
    if (table === undefined) return undefined;
    const row = this.#row;
    this.#row += this.#step;
    const fields = new Map<string, FieldValue>();
    let isThinned = false;
    for (const field of this.#fields) isThinned = addFields(fields, field, row) || isThinned;
    if (fields.size === 0) return undefined;
    const timeNs = timeNsOf(table.ms[row] ?? 0, table.ns[row] ?? 0);
    return { measurement: this.measurement, timeNs, fields, isThinned };
  }
}

/** Answers whether the row is a thinned one. */
function addFields(into: Map<string, FieldValue>, field: FieldColumns, row: number): boolean {
  const { name, kind, byStat } = field;
  if (kind === 'string') {
    const text = byStat.last === undefined ? undefined : valueAt(byStat.last, row);
    const sample = byStat.value === undefined ? undefined : valueAt(byStat.value, row);
    const value = text ?? sample;
    if (value !== undefined) into.set(name, value);
    return text !== undefined;
  }
  if (byStat.count !== undefined) {
    const summary = newSummary(kind);
    addRow(summary, field, row);
    const isStored = !Number.isNaN(byStat.count.values[row] as number);
    if (summary.count > 0 && isStored) {
      const { min, max, count } = summary;
      // Any true makes a minute true.
      const value = kind === 'boolean' ? max !== 0 : (aggregateOf(summary, 'mean') ?? 0);
      for (const [as, one] of summaryFields(name, { value, count, min, max })) into.set(as, one);
      return true;
    }
  }
  const value = byStat.value === undefined ? undefined : valueAt(byStat.value, row);
  if (value !== undefined) into.set(name, value);
  return false;
}

/** `after` of the query that goes on behind the row. */
export function cursorOf(row: Row): string {
  return `${row.timeNs}/${row.measurement}`;
}

/** Undefined: not a cursor of ours. */
export function parseCursor(
  text: string,
): { readonly timeNs: bigint; readonly measurement: string } | undefined {
  const match = /^(\d{1,19})\/(.*)$/s.exec(text);
  if (match === null) return undefined;
  return { timeNs: BigInt(match[1] ?? '0'), measurement: match[2] ?? '' };
}

/** The query without what earlier answers have shown: hours and chunks before the cursor are not even read. */
export function resumed(query: RangeQuery): RangeQuery {
  const cursor = query.after === undefined ? undefined : parseCursor(query.after);
  if (cursor === undefined) return query;
  const { timeNs } = cursor;
  // Of the cursor's own moment other measurements may still come.
  if (query.order === 'oldest-first') return timeNs > query.fromNs ? { ...query, fromNs: timeNs } : query;
  return timeNs + 1n < query.toNs ? { ...query, toNs: timeNs + 1n } : query;
}

/** Whether earlier answers have shown the row. */
export function behindCursor({ after, order }: RangeQuery): (row: Row) => boolean {
  const cursor = after === undefined ? undefined : parseCursor(after);
  if (cursor === undefined) return () => false;
  const direction = order === 'oldest-first' ? 1 : -1;
  return (row) => {
    if (row.timeNs !== cursor.timeNs) return row.timeNs < cursor.timeNs === (direction === 1);
    return compareText(row.measurement, cursor.measurement) * direction <= 0;
  };
}

/** In the order of an answer: by time, then by measurement. */
export function compareRows(a: Row, b: Row, order: Order): number {
  const direction = order === 'oldest-first' ? 1 : -1;
  if (a.timeNs !== b.timeNs) return a.timeNs < b.timeNs ? -direction : direction;
  return compareText(a.measurement, b.measurement) * direction;
}

function compareText(a: string, b: string): number {
  if (a === b) return 0;
  return a < b ? -1 : 1;
}

export async function range(
  hours: AsyncIterable<HourOfPieces>,
  query: RangeQuery,
  pacer: Pacer,
): Promise<RangeAnswer> {
  const rows: Row[] = [];
  const direction = query.order === 'oldest-first' ? 1 : -1;
  const isBehindUs = behindCursor(query);
  const from = momentOf(query.fromNs);
  const to = momentOf(query.toNs);
  let visited = 0;
  for await (const { pieces } of hours) {
    const streams = [...byMeasurement(pieces)]
      .sort(([a], [b]) => compareText(a, b) * direction)
      .map(([measurement, own]) => new RowStream(measurement, own, query, from, to));
    for (;;) {
      let first: RowStream | undefined;
      for (const stream of streams) {
        if (!stream.hasNext()) continue;
        // Equal moments: the stream that sorts first.
        const isFirst = first === undefined || (stream.ms - first.ms || stream.ns - first.ns) * direction < 0;
        if (isFirst) first = stream;
      }
      if (first === undefined) break;
      visited += 1;
      if (visited % 128 === 0) await pacer.pause();
      const row = first.take();
      if (row === undefined || isBehindUs(row)) continue;
      const last = rows.at(-1);
      if (rows.length === query.limit && last !== undefined) return { rows, next: cursorOf(last) };
      rows.push(row);
    }
    await pacer.pause();
  }
  return { rows, next: undefined };
}

/** Window → measurement → field. */
type Windows = Map<number, Map<string, Map<string, Summary>>>;

function summaryIn(windows: Windows, window: number, measurement: string, field: FieldColumns): Summary {
  let measurements = windows.get(window);
  if (measurements === undefined) {
    measurements = new Map();
    windows.set(window, measurements);
  }
  let fields = measurements.get(measurement);
  if (fields === undefined) {
    fields = new Map();
    measurements.set(measurement, fields);
  }
  let summary = fields.get(field.name);
  // A field that changed its type begins anew.
  if (summary === undefined || summary.kind !== field.kind) {
    summary = newSummary(field.kind);
    fields.set(field.name, summary);
  }
  return summary;
}

function addTable(windows: Windows, table: Table, measurement: string, query: AggregateQuery): void {
  const from = momentOf(query.fromNs);
  const to = momentOf(query.toNs);
  const first = rowAtOrAfter(table, from.ms, from.ns);
  const end = rowAtOrAfter(table, to.ms, to.ns);
  for (const field of fieldColumns(table)) {
    let endMs = Number.NEGATIVE_INFINITY;
    let summary: Summary | undefined;
    for (let row = first; row < end; row += 1) {
      const ms = table.ms[row] ?? 0;
      if (summary === undefined || ms >= endMs) {
        const window = Math.floor(ms / query.windowMs) * query.windowMs;
        endMs = window + query.windowMs;
        summary = summaryIn(windows, window, measurement, field);
      }
      addRow(summary, field, row);
    }
  }
}

export async function aggregate(
  hours: AsyncIterable<HourOfPieces>,
  query: AggregateQuery,
  pacer: Pacer,
): Promise<AggregateAnswer> {
  const windows: Windows = new Map();
  const isWanted = wantedOf(query);
  for await (const { pieces } of hours) {
    for (const [measurement, own] of byMeasurement(pieces)) {
      for (const group of groupsOf(own)) {
        const table = tableOf(group, isWanted);
        if (table !== undefined) addTable(windows, table, measurement, query);
        await pacer.pause();
      }
    }
    // Hours come oldest first: what is in a window before the last is complete.
    if (windows.size > query.limit) break;
  }
  const starts = [...windows.keys()].sort((a, b) => a - b);
  const next = starts[query.limit];
  const rows: WindowRow[] = [];
  for (const start of starts.slice(0, query.limit)) {
    const measurements = [...(windows.get(start) ?? [])].sort(([a], [b]) => compareText(a, b));
    for (const [measurement, summaries] of measurements) {
      const fields = new Map<string, ReadonlyMap<AggregateFunction, FieldValue>>();
      for (const [name, summary] of summaries) {
        const values = new Map<AggregateFunction, FieldValue>();
        for (const wanted of query.functions) {
          const value = aggregateOf(summary, wanted);
          if (value !== undefined) values.set(wanted, value);
        }
        if (values.size > 0) fields.set(name, values);
      }
      if (fields.size > 0) rows.push({ measurement, timeNs: timeNsOf(start, 0), fields });
    }
    if (rows.length % 512 === 0) await pacer.pause();
  }
  return { windows: rows, nextFromNs: next === undefined ? undefined : timeNsOf(next, 0) };
}
