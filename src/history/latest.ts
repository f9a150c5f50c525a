// The newest value of each field of one series, and how it is stored. Pure. A value from the future (a clock that was
// wrong) gives way to one that is not: else it would be the latest for ever.

import type { FieldValue } from '../model/point.ts';
import { type Moment, type Table, valueAt } from './table.ts';

export interface LatestValue extends Moment {
  readonly value: FieldValue;
}

export type LatestFields = Map<string, LatestValue>;

const dayMs = 86_400_000;

function isNewer(candidate: Moment, known: Moment | undefined, wallMs: number): boolean {
  if (known === undefined) return true;
  const aheadMs = wallMs + dayMs;
  if (known.ms > aheadMs !== candidate.ms > aheadMs) return known.ms > aheadMs;
  return candidate.ms > known.ms || (candidate.ms === known.ms && candidate.ns >= known.ns);
}

export function addLatest(fields: LatestFields, name: string, candidate: LatestValue, wallMs: number): void {
  if (isNewer(candidate, fields.get(name), wallMs)) fields.set(name, candidate);
}

/** From a sorted table of samples. */
export function addLatestOf(fields: LatestFields, table: Table, wallMs: number): void {
  for (const column of table.columns) {
    for (let row = table.rows - 1; row >= 0; row -= 1) {
      const value = valueAt(column, row);
      if (value === undefined) continue;
      addLatest(fields, column.name, { value, ms: table.ms[row] ?? 0, ns: table.ns[row] ?? 0 }, wallMs);
      break;
    }
  }
}

/** `runMs` is history's own clock. */
export function encodeLatest(fields: LatestFields, runMs: number): Buffer {
  const entries = [...fields].map(([name, { value, ms, ns }]) => [name, value, ms, ns]);
  return Buffer.from(JSON.stringify({ runMs, fields: entries }));
}

export interface LatestRecord {
  readonly runMs: number;
  readonly fields: LatestFields;
}

/** What cannot be read is left out. */
export function decodeLatest(value: Buffer | undefined): LatestRecord {
  const fields: LatestFields = new Map();
  let record: { readonly runMs?: unknown; readonly fields?: unknown } | null;
  try {
    record = value === undefined ? null : JSON.parse(value.toString());
  } catch {
    record = null;
  }
  for (const entry of Array.isArray(record?.fields) ? record.fields : []) {
    if (!Array.isArray(entry)) continue;
    const [name, one, ms, ns] = entry as unknown[];
    const isValue = typeof one === 'number' || typeof one === 'boolean' || typeof one === 'string';
    const isMoment = Number.isSafeInteger(ms) && Number.isSafeInteger(ns);
    if (typeof name !== 'string' || !isValue || !isMoment) continue;
    fields.set(name, { value: one, ms: ms as number, ns: ns as number });
  }
  return { runMs: typeof record?.runMs === 'number' ? record.runMs : 0, fields };
}
