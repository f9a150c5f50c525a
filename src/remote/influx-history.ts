// What InfluxDB knows of a device of this gateway, in the words of history. Promises: a row of an answer is complete
// (all fields of its moment); windows come to what local history would have made of the same samples. Describing a
// device anew gives its points other tags, and InfluxDB keeps them as other series: they are put together again here.

import type { LatestAnswer } from '../history/history.ts';
import type { AggregateQuery, Row, WindowRow } from '../history/query.ts';
import type { AggregateFunction } from '../history/summary.ts';
import type { RemoteHistory, RemoteRangeQuery } from '../history/whole-history.ts';
import type { FieldValue } from '../model/point.ts';
import { GatewayError } from '../platform/errors.ts';
import {
  additive,
  type FluxScope,
  lastFlux,
  ordered,
  samplesFlux,
  type WindowedFields,
  type WindowFunction,
  windowsFlux,
} from './flux.ts';
import type { Cell, InfluxQuery } from './influx-query.ts';

/** Names in one question. */
const fieldsMax = 256;

export interface InfluxHistoryParts {
  readonly query: Pick<InfluxQuery, 'ask' | 'bucket'>;
  readonly gatewayId: string;
  readonly wallMs: () => number;
}

type Asked = Pick<FluxScope, 'deviceId' | 'measurement' | 'fields' | 'fromNs' | 'toNs'>;

export function influxHistory({ query, gatewayId, wallMs }: InfluxHistoryParts): RemoteHistory {
  const scopeOf = ({ deviceId, measurement, fields, fromNs, toNs }: Asked): FluxScope => ({
    bucket: query.bucket,
    gatewayId,
    deviceId,
    fromNs,
    toNs,
    ...(measurement !== undefined && { measurement }),
    ...(fields !== undefined && { fields }),
  });

  async function range(asked: RemoteRangeQuery, signal?: AbortSignal) {
    const { momentsMax, order } = asked;
    const moments = new Map<bigint, Map<string, Map<string, FieldValue>>>();
    const flux = samplesFlux(scopeOf(asked), order === 'newest-first', momentsMax + 1);
    await query.ask(
      flux,
      ({ timeNs, measurement, field, value }) => {
        const rows = valueIn(moments, timeNs, () => new Map<string, Map<string, FieldValue>>());
        valueIn(rows, measurement, () => new Map<string, FieldValue>()).set(field, value);
      },
      signal,
    );
    const direction = order === 'oldest-first' ? 1 : -1;
    const times = [...moments.keys()].sort((a, b) => (a < b ? -direction : direction));
    // Every field brought as many of its samples: up to so many moments nothing of any field can be missing.
    const rows = times
      .slice(0, momentsMax)
      .flatMap((timeNs) =>
        [...(moments.get(timeNs) ?? [])].map(
          ([measurement, fields]): Row => ({ measurement, timeNs, fields, isThinned: false }),
        ),
      );
    return { rows, isCut: times.length > momentsMax };
  }

  async function latest(deviceId: string, measurement: string | undefined, signal?: AbortSignal) {
    const toNs = BigInt(Math.floor(wallMs())) * 1_000_000n;
    const asked = { deviceId, fromNs: 0n, toNs, ...(measurement !== undefined && { measurement }) };
    const newest = await newestCells(asked, signal);
    const found = new Map<string, Map<string, { value: FieldValue; timeNs: bigint }>>();
    for (const { measurement: name, field, value, timeNs } of newest) {
      valueIn(found, name, () => new Map<string, { value: FieldValue; timeNs: bigint }>()).set(field, {
        value,
        timeNs,
      });
    }
    return [...found]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([name, fields]): LatestAnswer => ({ measurement: name, fields, isRemote: true }));
  }

  /** Of each field of each measurement one. */
  async function newestCells(asked: Asked, signal?: AbortSignal): Promise<Cell[]> {
    const newest = new Map<string, Cell>();
    await query.ask(
      lastFlux(scopeOf(asked)),
      (cell) => {
        const name = JSON.stringify([cell.measurement, cell.field]);
        const known = newest.get(name);
        if (known === undefined || known.timeNs < cell.timeNs) newest.set(name, cell);
      },
      signal,
    );
    return [...newest.values()];
  }

  async function aggregate(asked: Omit<AggregateQuery, 'limit'>, signal?: AbortSignal): Promise<WindowRow[]> {
    const cells = await newestCells(asked, signal);
    const parts = partsOf(cells, asked.functions);
    if (parts.length === 0) return [];
    const sums = new Windows(asked.windowMs);
    const flux = windowsFlux(scopeOf(asked), asked.windowMs, parts);
    await query.ask(flux, (cell) => sums.add(cell), signal);
    return sums.rows(asked.functions);
  }

  return { latest, range, aggregate };
}

/** What is to be asked of which fields: Flux sums up no booleans, and refuses a question that asks it of a text. */
function partsOf(cells: readonly Cell[], functions: readonly AggregateFunction[]): WindowedFields[] {
  const named = (...types: readonly string[]) => cells.filter(({ value }) => types.includes(typeof value));
  const wanted = new Set<WindowFunction>();
  for (const name of functions) {
    if (name !== 'mean') wanted.add(name);
    else for (const part of ['sum', 'count'] as const) wanted.add(part);
  }
  const sums = additive.filter((name) => wanted.has(name));
  const ends = ordered.filter((name) => wanted.has(name));
  const parts: WindowedFields[] = [
    { name: 'numbers', fields: named('number'), functions: sums },
    { name: 'booleans', fields: named('boolean'), functions: sums },
    { name: 'all', fields: cells, functions: ends },
  ];
  const used = parts.filter(({ fields, functions: some }) => fields.length > 0 && some.length > 0);
  if (used.some(({ fields }) => fields.length > fieldsMax)) {
    throw new GatewayError('REMOTE_TOO_LARGE', `the device has more than ${fieldsMax} fields; name some`);
  }
  return used;
}

interface Sums {
  isBoolean: boolean;
  sum: number | undefined;
  count: number;
  min: number;
  max: number;
  first: FieldValue | undefined;
  last: FieldValue | undefined;
}

/** Parts of windows put together. */
class Windows {
  readonly #windowNs: bigint;
  readonly #windows = new Map<bigint, Map<string, Map<string, Sums>>>();

  constructor(windowMs: number) {
    this.#windowNs = BigInt(windowMs) * 1_000_000n;
  }

  add({ result, measurement, field, timeNs, value }: Cell): void {
    // The first window of a range may be said to begin where the range does.
    const startNs = timeNs - (timeNs % this.#windowNs);
    const measurements = valueIn(this.#windows, startNs, () => new Map<string, Map<string, Sums>>());
    const fields = valueIn(measurements, measurement, () => new Map<string, Sums>());
    const sums = valueIn(fields, field, emptySums);
    const [part, name] = result.split('_');
    if (part === 'booleans') sums.isBoolean = true;
    if (name === 'first') sums.first = value;
    if (name === 'last') sums.last = value;
    if (typeof value !== 'number') return;
    if (name === 'sum') sums.sum = (sums.sum ?? 0) + value;
    if (name === 'count') sums.count += value;
    if (name === 'min') sums.min = Math.min(sums.min, value);
    if (name === 'max') sums.max = Math.max(sums.max, value);
  }

  rows(functions: readonly AggregateFunction[]): WindowRow[] {
    const rows: WindowRow[] = [];
    for (const timeNs of [...this.#windows.keys()].sort((a, b) => (a < b ? -1 : 1))) {
      const measurements = [...(this.#windows.get(timeNs) ?? [])].sort(([a], [b]) => (a < b ? -1 : 1));
      for (const [measurement, sums] of measurements) {
        const fields = new Map<string, ReadonlyMap<AggregateFunction, FieldValue>>();
        for (const [field, one] of sums) {
          const values = new Map<AggregateFunction, FieldValue>();
          for (const name of functions) {
            const value = resultOf(one, name);
            if (value !== undefined) values.set(name, value);
          }
          if (values.size > 0) fields.set(field, values);
        }
        if (fields.size > 0) rows.push({ measurement, timeNs, fields });
      }
    }
    return rows;
  }
}

function emptySums(): Sums {
  return {
    isBoolean: false,
    sum: undefined,
    count: 0,
    min: Number.POSITIVE_INFINITY,
    max: Number.NEGATIVE_INFINITY,
    first: undefined,
    last: undefined,
  };
}

function resultOf(sums: Sums, name: AggregateFunction): FieldValue | undefined {
  if (name === 'first' || name === 'last') return sums[name];
  if (name === 'min' || name === 'max') {
    if (!Number.isFinite(sums[name])) return undefined;
    return sums.isBoolean ? sums[name] !== 0 : sums[name];
  }
  const { sum, count } = sums;
  if (name === 'sum') return sum;
  if (count === 0) return undefined;
  if (name === 'count') return count;
  return sum === undefined ? undefined : sum / count;
}

function valueIn<Key, Value>(map: Map<Key, Value>, key: Key, make: () => Value): Value {
  let value = map.get(key);
  if (value === undefined) {
    value = make();
    map.set(key, value);
  }
  return value;
}
