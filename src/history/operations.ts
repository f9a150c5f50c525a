// What may be asked of history, by name: for the command line, and for the routes of the HTTP API. Arguments come
// from outside and are checked here; answers are JSON, times in RFC 3339.

import { parseDuration, timestampText } from '../model/timestamp.ts';
import {
  type Arguments,
  checkNames,
  invalidArgument as invalid,
  momentArgument,
  optionalText,
  optionalWhole,
  requiredText,
} from '../platform/arguments.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { Answering, Told } from './answering.ts';
import { type Order, parseCursor, type Selection } from './query.ts';
import { type AggregateFunction, aggregateFunctions } from './summary.ts';

const defaults = { from: '-1h', to: 'now', window: '1h', limit: 1_000, functions: ['mean', 'min', 'max'] };
/** More would keep the event loop busy with JSON alone; `next` leads on. */
const limitMax = 10_000;
const limits = { min: 1, max: limitMax, fallback: defaults.limit };
const fieldsMax = 256;
const windowMsMin = 1_000;
const windowMsMax = 366 * 86_400_000;
const orders = ['oldest-first', 'newest-first'] as const satisfies readonly Order[];

/** A list, or its items with commas between. */
function list(args: Arguments, name: string): readonly string[] | undefined {
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  const items: unknown[] = typeof value === 'string' ? value.split(',') : Array.isArray(value) ? value : [];
  const isGood = items.every((item) => typeof item === 'string' && item !== '' && item.length <= 512);
  if (isGood && items.length > 0 && items.length <= fieldsMax) return items as string[];
  throw invalid(`${name}: expected 1 to ${fieldsMax} names`);
}

function selection(args: Arguments, nowMs: number): Selection {
  const deviceId = requiredText(args, 'device_id');
  const measurement = optionalText(args, 'measurement');
  const fields = list(args, 'fields');
  const fromNs = momentArgument(args, 'from', defaults.from, nowMs);
  const toNs = momentArgument(args, 'to', defaults.to, nowMs);
  if (fromNs >= toNs) throw invalid('from: expected a time before "to"');
  return {
    deviceId,
    fromNs,
    toNs,
    ...(measurement === undefined ? {} : { measurement }),
    ...(fields === undefined ? {} : { fields }),
  };
}

function windowMs(args: Arguments): number {
  const given = optionalText(args, 'window') ?? defaults.window;
  const found = parseDuration(given);
  if (found !== undefined && found >= windowMsMin && found <= windowMsMax) return found;
  throw invalid('window: expected a duration from 1s to 366d, such as 5m or 1h');
}

function functions(args: Arguments): readonly AggregateFunction[] {
  const given = list(args, 'functions') ?? defaults.functions;
  return given.map((name) => {
    const found = aggregateFunctions.find((known) => known === name);
    if (found !== undefined) return found;
    throw invalid(`functions: expected some of ${aggregateFunctions.join(', ')}`);
  });
}

function order(args: Arguments): Order {
  const given = optionalText(args, 'order') ?? 'oldest-first';
  const found = orders.find((known) => known === given);
  if (found !== undefined) return found;
  throw invalid(`order: expected ${orders.join(' or ')}`);
}

function after(args: Arguments): string | undefined {
  const given = optionalText(args, 'after');
  if (given === undefined || parseCursor(given) !== undefined) return given;
  throw invalid('after: expected "next" of the answer before');
}

const selecting = ['device_id', 'measurement', 'fields', 'from', 'to', 'limit'];

/**
 * `history.latest {device_id, measurement?}`,
 * `history.range {device_id, measurement?, fields?, from?, to?, limit?, order?, after?}`,
 * `history.aggregate {device_id, measurement?, fields?, from?, to?, limit?, window?, functions?}`.
 */
export function operations(history: Answering, clock: { wallMs(): number }): Operations {
  const latest: Operation = async (args, signal) => {
    checkNames(args, ['device_id', 'measurement']);
    const deviceId = requiredText(args, 'device_id');
    const found = await history.latest(deviceId, optionalText(args, 'measurement'), signal);
    const measurements = found.map(({ measurement, fields }) => ({
      measurement,
      fields: Object.fromEntries(
        [...fields].map(([name, { value, timeNs }]) => [name, { value, time: timestampText(timeNs) }]),
      ),
    }));
    const source = found.some(({ isRemote }) => isRemote) ? 'remote' : 'local';
    return { device_id: deviceId, measurements, source };
  };
  const range: Operation = async (args, signal) => {
    checkNames(args, [...selecting, 'order', 'after']);
    const selected = selection(args, clock.wallMs());
    const cursor = after(args);
    const query = {
      ...selected,
      limit: optionalWhole(args, 'limit', limits),
      order: order(args),
      ...(cursor === undefined ? {} : { after: cursor }),
    };
    const { rows, next, ...told } = await history.range(query, signal);
    const points = rows.map(({ measurement, timeNs, fields, isThinned }) => ({
      time: timestampText(timeNs),
      measurement,
      fields: Object.fromEntries(fields),
      ...(isThinned ? { thinned: true } : {}),
    }));
    return { ...described(selected), points, count: points.length, next: next ?? null, ...shown(told) };
  };
  const aggregate: Operation = async (args, signal) => {
    checkNames(args, [...selecting, 'window', 'functions']);
    const selected = selection(args, clock.wallMs());
    const asked = functions(args);
    const query = {
      ...selected,
      limit: optionalWhole(args, 'limit', limits),
      windowMs: windowMs(args),
      functions: asked,
    };
    const { windows, nextFromNs, ...told } = await history.aggregate(query, signal);
    const rows = windows.map(({ measurement, timeNs, fields }) => ({
      time: timestampText(timeNs),
      measurement,
      fields: Object.fromEntries([...fields].map(([name, values]) => [name, Object.fromEntries(values)])),
    }));
    const next = nextFromNs === undefined ? null : timestampText(nextFromNs);
    const count = rows.length;
    return { ...described(selected), functions: asked, windows: rows, count, next, ...shown(told) };
  };
  return new Map([
    ['history.latest', latest],
    ['history.range', range],
    ['history.aggregate', aggregate],
  ]);
}

/** The question as it was understood. */
function described({ deviceId, fromNs, toNs }: Selection): Record<string, string> {
  return { device_id: deviceId, from: timestampText(fromNs), to: timestampText(toNs) };
}

function shown({ source = 'local', missing }: Told): Record<string, unknown> {
  if (missing === undefined) return { source };
  const { fromNs, toNs, code, reason } = missing;
  return { source, missing: { from: timestampText(fromNs), to: timestampText(toNs), code, reason } };
}
