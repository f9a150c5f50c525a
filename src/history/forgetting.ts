// Takes a stretch of time of one device out of the chunks on disk. Promises: each hour of a series is one change of the
// store, so that a power cut between two leaves a reading there or not, and doing it again does the rest; the latest
// values are those of what is left.

import {
  type ChunkStore,
  dayOf,
  hourMs,
  type Level,
  latestWrite,
  type NewChunk,
  type StoredChunk,
} from './chunk-store.ts';
import { decode, encode, headOf } from './codec.ts';
import { addLatestOf, decodeLatest, encodeLatest, type LatestFields } from './latest.ts';
import type { Pacer } from './query.ts';
import { type Column, momentOf, rowAtOrAfter, type Table } from './table.ts';

/** Nanoseconds since the epoch, inclusive and exclusive. */
export interface TimeRange {
  readonly fromNs: bigint;
  readonly toNs: bigint;
}

export async function forgetRange(
  store: ChunkStore,
  deviceId: string,
  range: TimeRange,
  wallMs: number,
  pacer: Pacer,
): Promise<void> {
  for (const level of ['raw', 'thinned'] as const) {
    for (const { number } of store.buckets(level).filter((bucket) => overlaps(level, bucket.number, range))) {
      const gone: StoredChunk[] = [];
      const left: NewChunk[] = [];
      for await (const chunk of store.chunks(level, number, deviceId)) {
        const rest = without(chunk, level, range);
        await pacer.pause();
        if (rest === 'untouched') continue;
        gone.push(chunk);
        if (rest !== undefined) left.push(rest);
      }
      if (gone.length > 0) await store.change(left, gone);
    }
  }
  await renewLatest(store, deviceId, range, wallMs, pacer);
}

function overlaps(level: Level, number: number, { fromNs, toNs }: TimeRange): boolean {
  const from = Math.floor(momentOf(fromNs).ms / hourMs);
  const last = Math.floor(momentOf(toNs - 1n).ms / hourMs);
  return level === 'raw' ? number >= from && number <= last : number >= dayOf(from) && number <= dayOf(last);
}

/** What is left of a chunk; undefined when nothing is, or nobody can read it. */
function without(
  { deviceId, measurement, hour, value }: StoredChunk,
  level: Level,
  { fromNs, toNs }: TimeRange,
): NewChunk | 'untouched' | undefined {
  const head = headOf(value);
  const from = momentOf(fromNs);
  const to = momentOf(toNs);
  if (head !== undefined && (head.lastMs < from.ms || head.firstMs > to.ms)) return 'untouched';
  const table = decode(value);
  if (table === undefined) return undefined;
  const start = rowAtOrAfter(table, from.ms, from.ns);
  const end = Math.max(start, rowAtOrAfter(table, to.ms, to.ns));
  if (start === end) return 'untouched';
  const rest = cut(table, start, end);
  if (rest.rows === 0) return undefined;
  return { level, deviceId, measurement, hour, value: encode(rest), rows: rest.rows };
}

/** The table without some rows, and without columns that have no value then. */
function cut(table: Table, start: number, end: number): Table {
  const isKept = (row: number) => row < start || row >= end;
  const columns = table.columns.flatMap((column): Column[] => {
    if (column.kind === 'string') {
      const values = column.values.filter((_, row) => isKept(row));
      return values.some((value) => value !== undefined) ? [{ ...column, values }] : [];
    }
    const values = column.values.filter((_, row) => isKept(row));
    return values.some((value) => !Number.isNaN(value)) ? [{ ...column, values }] : [];
  });
  return {
    rows: table.rows - (end - start),
    ms: table.ms.filter((_, row) => isKept(row)),
    ns: table.ns.filter((_, row) => isKept(row)),
    columns,
  };
}

async function renewLatest(
  store: ChunkStore,
  deviceId: string,
  { fromNs, toNs }: TimeRange,
  wallMs: number,
  pacer: Pacer,
): Promise<void> {
  for await (const { measurement, value } of store.latest(deviceId)) {
    const { fields, runMs } = decodeLatest(value);
    const isGone = ({ ms, ns }: { ms: number; ns: number }) => {
      const timeNs = BigInt(ms) * 1_000_000n + BigInt(ns);
      return timeNs >= fromNs && timeNs < toNs;
    };
    const gone = [...fields].filter(([, latest]) => isGone(latest)).map(([name]) => name);
    if (gone.length === 0) continue;
    const left: LatestFields = new Map();
    for (const level of ['raw', 'thinned'] as const) {
      for (const { number } of store.buckets(level)) {
        for await (const chunk of store.chunks(level, number, deviceId, measurement)) {
          const table = decode(chunk.value, (field) => gone.includes(field));
          if (table !== undefined) addLatestOf(left, samplesOf(table), wallMs);
          await pacer.pause();
        }
      }
    }
    for (const name of gone) {
      const latest = left.get(name);
      if (latest === undefined) fields.delete(name);
      else fields.set(name, latest);
    }
    const renewed = fields.size === 0 ? undefined : encodeLatest(fields, runMs);
    await store.change([], [], [latestWrite(deviceId, measurement, renewed)]);
  }
}

/** Of what thinning keeps, the last of a minute is a sample as it came. */
function samplesOf(table: Table): Table {
  return { ...table, columns: table.columns.filter(({ stat }) => stat === 'value' || stat === 'last') };
}
