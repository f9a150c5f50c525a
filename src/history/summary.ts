// What is kept of many samples: of each minute when history thins, of each window when a query asks. Numbers and
// booleans (as 0 and 1) keep sum, count, extremes, first and last, so that parts of a window add up exactly; of
// texts the last is kept. Pure.

import type { FieldValue } from '../model/point.ts';
import { decimalsOf } from './codec.ts';
import { type Column, emptyTable, type NumberColumn, type Stat, type Table } from './table.ts';

export const thinnedWindowMs = 60_000;

/** One field of one window so far. Rows are taken in the order of time. */
export interface Summary {
  readonly kind: Column['kind'];
  sum: number;
  count: number;
  min: number;
  max: number;
  first: number;
  last: number;
  text: string | undefined;
  firstText: string | undefined;
}

export function newSummary(kind: Column['kind']): Summary {
  return {
    kind,
    sum: 0,
    count: 0,
    min: Number.POSITIVE_INFINITY,
    max: Number.NEGATIVE_INFINITY,
    first: Number.NaN,
    last: Number.NaN,
    text: undefined,
    firstText: undefined,
  };
}

function addNumber(summary: Summary, value: number): void {
  if (summary.count === 0) summary.first = value;
  summary.sum += value;
  summary.count += 1;
  if (value < summary.min) summary.min = value;
  if (value > summary.max) summary.max = value;
  summary.last = value;
}

/** The columns of one field of one kind in a table: its samples, or what thinning kept of them. */
export interface FieldColumns {
  readonly name: string;
  readonly kind: Column['kind'];
  readonly byStat: Partial<Record<Stat, Column>>;
}

/** The columns of a table, those of one field together. */
export function fieldColumns(table: Table): FieldColumns[] {
  const fields: FieldColumns[] = [];
  for (const column of table.columns) {
    let field = fields.find(({ name, kind }) => name === column.name && kind === column.kind);
    if (field === undefined) {
      field = { name: column.name, kind: column.kind, byStat: {} };
      fields.push(field);
    }
    field.byStat[column.stat] = column;
  }
  return fields;
}

function numberAt(field: FieldColumns, stat: Stat, row: number): number {
  const value = field.byStat[stat]?.values[row];
  return typeof value === 'number' ? value : Number.NaN;
}

/**
 * Takes a row of the field in, thinned or not; rows without it change nothing. Where a row is both, its sample came
 * again after it had been thinned.
 */
export function addRow(summary: Summary, field: FieldColumns, row: number): void {
  if (field.kind === 'string') {
    const text = field.byStat.last?.values[row] ?? field.byStat.value?.values[row];
    if (typeof text !== 'string') return;
    summary.count += 1;
    summary.text = text;
    summary.firstText ??= text;
    return;
  }
  const count = field.byStat.count === undefined ? Number.NaN : numberAt(field, 'count', row);
  if (Number.isNaN(count)) {
    const sample = numberAt(field, 'value', row);
    if (!Number.isNaN(sample)) addNumber(summary, sample);
    return;
  }
  if (summary.count === 0) summary.first = numberAt(field, 'first', row);
  summary.sum += numberAt(field, 'sum', row);
  summary.count += count;
  summary.min = Math.min(summary.min, numberAt(field, 'min', row));
  summary.max = Math.max(summary.max, numberAt(field, 'max', row));
  summary.last = numberAt(field, 'last', row);
}

export const aggregateFunctions = ['mean', 'min', 'max', 'sum', 'count', 'first', 'last'] as const;
export type AggregateFunction = (typeof aggregateFunctions)[number];

/** Undefined where the function has no meaning: texts have a first and a last. */
export function aggregateOf(summary: Summary, name: AggregateFunction): FieldValue | undefined {
  const { kind, count, sum } = summary;
  if (count === 0) return undefined;
  if (kind === 'string') {
    if (name === 'first') return summary.firstText;
    return name === 'last' ? summary.text : undefined;
  }
  if (name === 'count') return count;
  if (name === 'sum') return sum;
  // Kept between the extremes, which rounding could leave: a constant value stays exactly what it is.
  if (name === 'mean') return Math.min(summary.max, Math.max(summary.min, sum / count));
  return kind === 'boolean' ? summary[name] !== 0 : summary[name];
}

const numberStats = ['sum', 'count', 'min', 'max', 'first', 'last'] as const satisfies readonly Stat[];

/** The windows of a sorted table, as rows: [first row, row behind the last]. */
function windowsOf({ rows, ms }: Table): [number, number][] {
  const windows: [number, number][] = [];
  let start = 0;
  for (let row = 1; row <= rows; row += 1) {
    const isSame =
      row < rows &&
      Math.floor((ms[row] ?? 0) / thinnedWindowMs) === Math.floor((ms[start] ?? 0) / thinnedWindowMs);
    if (isSame) continue;
    windows.push([start, row]);
    start = row;
  }
  return windows;
}

function thinNumbers(field: FieldColumns, windows: readonly [number, number][]): Column[] {
  const { name } = field;
  const kind = field.kind === 'boolean' ? 'boolean' : 'float';
  const made = numberStats.map(
    (stat): NumberColumn => ({
      name,
      kind,
      stat,
      values: new Float64Array(windows.length).fill(Number.NaN),
    }),
  );
  const samples = field.byStat.value?.values;
  const decimals = samples instanceof Float64Array ? decimalsOf(samples) : undefined;
  const power = decimals === undefined ? undefined : 10 ** decimals;
  for (const [index, [start, end]] of windows.entries()) {
    const summary = newSummary(kind);
    for (let row = start; row < end; row += 1) addRow(summary, field, row);
    if (summary.count === 0) continue;
    // What a double cannot hold is the largest it can.
    summary.sum = Math.min(Number.MAX_VALUE, Math.max(-Number.MAX_VALUE, summary.sum));
    // Decimals add up to a decimal; what rounding added would only take bytes.
    if (power !== undefined) summary.sum = Math.round(summary.sum * power) / power;
    for (const column of made) column.values[index] = summary[column.stat as (typeof numberStats)[number]];
  }
  return made;
}

function thinTexts(field: FieldColumns, windows: readonly [number, number][]): Column[] {
  const values = windows.map(([start, end]) => {
    const summary = newSummary('string');
    for (let row = start; row < end; row += 1) addRow(summary, field, row);
    return summary.text;
  });
  return [{ name: field.name, kind: 'string', stat: 'last', values }];
}

/**
 * One row for each minute of a sorted table of samples. Its time is that of the last sample in it, so that two parts
 * of one minute never pass for the same.
 */
export function thin(table: Table): Table {
  if (table.rows === 0) return emptyTable;
  const windows = windowsOf(table);
  const ms = new Float64Array(windows.length);
  const ns = new Uint32Array(windows.length);
  for (const [index, [, end]] of windows.entries()) {
    ms[index] = table.ms[end - 1] ?? 0;
    ns[index] = table.ns[end - 1] ?? 0;
  }
  const columns = fieldColumns(table).flatMap((field) =>
    field.kind === 'string' ? thinTexts(field, windows) : thinNumbers(field, windows),
  );
  return { rows: windows.length, ms, ns, columns };
}
