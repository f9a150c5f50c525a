// `iotflow history …`: recent readings from the gateway's own disk, forwarded or not, with the gateway running and
// stopped; and deleting them, with the gateway running.

import { existsSync } from 'node:fs';
import { dataPaths } from '../config/paths.ts';
import { historyOptions } from '../config/stage-options.ts';
import { History } from '../history/history.ts';
import { operations } from '../history/operations.ts';
import { systemClock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import { createLog } from '../platform/log.ts';
import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { type OpenStored, withOperations } from './operator.ts';

/** Rows of one request; the gateway answers no more at once. */
const pageRows = 5_000;
const rowsMax = 1_000_000;
const rowsDefault = 100;
/** Between two lines of progress. */
const tellIntervalMs = 2_000;

const common = { config: configOption, json: jsonOption };
const measurementOption = {
  measurement: { type: 'string', value: 'NAME', help: 'Only this measurement, such as climate' },
} as const;
const selecting = {
  from: {
    type: 'string',
    value: 'TIME',
    help: 'From here on: -1h, -7d, 2026-11-21T06:00:00Z; default -1h. Write --from=-1h',
  },
  to: { type: 'string', value: 'TIME', help: 'Up to here, not included; default now' },
  ...measurementOption,
  fields: { type: 'string', value: 'A,B', help: 'Only these fields' },
} as const;

const openStored: OpenStored = async ({ config }) => {
  const directory = dataPaths(config.dataDir).history;
  if (!existsSync(directory)) {
    throw new GatewayError('NO_HISTORY', `there is no history in ${config.dataDir}`);
  }
  const clock = systemClock();
  const history = await History.open({
    directory,
    clock,
    log: createLog('silent'),
    ...historyOptions(config),
    flushIntervalMs: 0,
    tidyIntervalMs: 0,
  });
  return { operations: operations(history, clock), close: () => history.close() };
};

/** What is to be deleted may wait in the journal and lie in InfluxDB: only the gateway reaches all of it. */
const nothingStored: OpenStored = async () => {
  throw new GatewayError('ERASURE_UNAVAILABLE', 'readings can be deleted while the gateway runs');
};

type Args = Readonly<Record<string, unknown>>;

interface Page<Row> {
  readonly next: string | null;
  readonly rows: readonly Row[];
  readonly rest: Args;
}

/** Asks page after page until there is enough; answers the first page's frame with all rows. */
async function rowsOf<Row>(
  given: Call,
  operation: string,
  args: Args,
  rowsName: string,
  nextName: string,
): Promise<{ rows: Row[]; frame: Args; isCut: boolean }> {
  const limit = Number(given.text('limit') ?? rowsDefault);
  if (!Number.isInteger(limit) || limit < 1 || limit > rowsMax) {
    throw new GatewayError('ARGUMENT_INVALID', `--limit: expected a whole number from 1 to ${rowsMax}`);
  }
  const { config } = requireConfig(given);
  return await withOperations(config, openStored, async (call) => {
    const rows: Row[] = [];
    let frame: Args = {};
    let further: Args = {};
    let toldMs = performance.now();
    for (;;) {
      const asked = { ...args, ...further, limit: Math.min(pageRows, limit - rows.length) };
      const page = pageOf<Row>(await call(operation, asked), rowsName);
      if (rows.length === 0) frame = page.rest;
      rows.push(...page.rows);
      if (page.next === null || rows.length >= limit) return { rows, frame, isCut: page.next !== null };
      if (performance.now() > toldMs + tellIntervalMs) {
        given.stderr.write(`${rows.length} rows so far\n`);
        toldMs = performance.now();
      }
      // Times before now would move from page to page.
      const { from, to } = page.rest;
      further = { from, to, [nextName]: page.next };
    }
  });
}

function pageOf<Row>(result: unknown, rowsName: string): Page<Row> {
  const { [rowsName]: rows, next, count: _count, ...rest } = result as Record<string, unknown>;
  return { rows: rows as readonly Row[], next: next as string | null, rest };
}

function selectionOf(given: Call, names = ['from', 'to', 'measurement', 'fields']): Args {
  const found = names.map((name) => [name, given.text(name)] as const);
  return {
    device_id: given.positionals[0],
    ...Object.fromEntries(found.filter(([, value]) => value !== undefined)),
  };
}

function fieldsText(fields: Readonly<Record<string, unknown>>): string {
  return Object.entries(fields)
    .map(([name, value]) => `${name}=${typeof value === 'string' ? JSON.stringify(value) : String(value)}`)
    .join(' ');
}

interface LatestResult {
  readonly measurements: readonly {
    readonly measurement: string;
    readonly fields: Readonly<Record<string, { readonly value: unknown; readonly time: string }>>;
  }[];
}

const latestCommand: Command = {
  name: 'history latest',
  summary: 'Show the newest value of each field of a device',
  positionals: ['DEVICE'],
  options: { ...measurementOption, ...common },
  run: async (given) => {
    const measurement = given.text('measurement');
    const args = { device_id: given.positionals[0], ...(measurement === undefined ? {} : { measurement }) };
    const { config } = requireConfig(given);
    const result = await withOperations(config, openStored, (call) => call('history.latest', args));
    const rows = (result as LatestResult).measurements.flatMap(({ measurement: name, fields }) =>
      Object.entries(fields).map(([field, { value, time }]) => [name, field, String(value), time]),
    );
    const table = formatTable(['MEASUREMENT', 'FIELD', 'VALUE', 'TIME'], rows);
    answer(given, result, rows.length === 0 ? 'nothing is known of this device' : table);
    return 0;
  },
};

interface ShownPoint {
  readonly time: string;
  readonly measurement: string;
  readonly fields: Readonly<Record<string, unknown>>;
}

const more = (isCut: boolean) => (isCut ? '\nthere is more: --limit' : '');

const rangeCommand: Command = {
  name: 'history range',
  summary: 'Show the readings of a device in the order of time',
  positionals: ['DEVICE'],
  options: {
    ...selecting,
    'newest-first': { type: 'boolean', help: 'The newest first' },
    limit: { type: 'string', value: 'N', help: `How many readings, default ${rowsDefault}` },
    ...common,
  },
  details: 'Older readings are one row a minute: the mean, with FIELD_min and FIELD_max where they differ.',
  run: async (given) => {
    const order = given.flag('newest-first') ? 'newest-first' : 'oldest-first';
    const args = { ...selectionOf(given), order };
    const { rows, frame, isCut } = await rowsOf<ShownPoint>(given, 'history.range', args, 'points', 'after');
    const shown = rows.map(({ time, measurement, fields }) => [time, measurement, fieldsText(fields)]);
    const table = formatTable(['TIME', 'MEASUREMENT', 'FIELDS'], shown) + more(isCut);
    const result = { ...frame, points: rows, count: rows.length, truncated: isCut };
    answer(given, result, rows.length === 0 ? 'no readings in this time' : table);
    return 0;
  },
};

const aggregateCommand: Command = {
  name: 'history aggregate',
  summary: 'Show what the readings of a device come to, window by window',
  positionals: ['DEVICE'],
  options: {
    window: { type: 'string', value: 'TIME', help: 'Length of a window: 5m, 1h, 1d; default 1h' },
    functions: {
      type: 'string',
      value: 'A,B',
      help: 'Some of mean, min, max, sum, count, first, last; default mean,min,max',
    },
    ...selecting,
    limit: { type: 'string', value: 'N', help: `How many windows, default ${rowsDefault}` },
    ...common,
  },
  details:
    'Windows begin at multiples of their length since 1970, in UTC. Those without a reading are left out.',
  run: async (given) => {
    const window = given.text('window');
    const functions = given.text('functions');
    const args = {
      ...selectionOf(given),
      ...(window === undefined ? {} : { window }),
      ...(functions === undefined ? {} : { functions }),
    };
    const { rows, frame, isCut } = await rowsOf<ShownPoint>(
      given,
      'history.aggregate',
      args,
      'windows',
      'from',
    );
    const names = Array.isArray(frame.functions) ? frame.functions.map(String) : [];
    const shown = rows.flatMap(({ time, measurement, fields }) =>
      Object.entries(fields).map(([field, values]) => [
        time,
        measurement,
        field,
        ...names.map((name) => shortNumber((values as Record<string, unknown>)[name])),
      ]),
    );
    const head = ['WINDOW', 'MEASUREMENT', 'FIELD', ...names.map((name) => name.toUpperCase())];
    const result = { ...frame, windows: rows, count: rows.length, truncated: isCut };
    answer(
      given,
      result,
      shown.length === 0 ? 'no readings in this time' : formatTable(head, shown) + more(isCut),
    );
    return 0;
  },
};

interface ShownErasure {
  readonly id: number;
  readonly device_id: string;
  readonly from: string | null;
  readonly to: string;
  readonly local: string;
  readonly remote: string;
  readonly reason?: string;
}

function erasureRow({ id, device_id, from, to, local, remote, reason = '-' }: ShownErasure): string[] {
  return [String(id), device_id, from ?? 'everything', to, local, remote, reason];
}

const erasureHead = ['ID', 'DEVICE', 'FROM', 'TO', 'HERE', 'INFLUXDB', 'REASON'];

const eraseCommand: Command = {
  name: 'history erase',
  summary: 'Delete what a device has measured, here and in InfluxDB',
  positionals: ['DEVICE'],
  options: {
    from: {
      type: 'string',
      value: 'TIME',
      help: 'From here on; without --from and --to everything up to now',
    },
    to: { type: 'string', value: 'TIME', help: 'Up to here, not included; default now' },
    yes: { type: 'boolean', help: 'Yes, delete it' },
    ...common,
  },
  details: 'Needs the running gateway. Backups keep what they hold.',
  run: async (given) => {
    if (!given.flag('yes')) throw new GatewayError('NOT_CONFIRMED', 'this cannot be undone: add --yes');
    const args = selectionOf(given, ['from', 'to']);
    const { config } = requireConfig(given);
    const result = await withOperations(config, nothingStored, (call) => call('history.erase', args));
    answer(given, result, formatTable(erasureHead, [erasureRow(result as ShownErasure)]));
    return 0;
  },
};

const erasuresCommand: Command = {
  name: 'history erasures',
  summary: 'Show what is being deleted, and what became of the last hundred deletions',
  options: common,
  run: async (given) => {
    const { config } = requireConfig(given);
    const result = await withOperations(config, nothingStored, (call) => call('history.erasures', {}));
    const { erasures } = result as { erasures: readonly ShownErasure[] };
    const table = formatTable(erasureHead, erasures.map(erasureRow));
    answer(given, result, erasures.length === 0 ? 'nothing was deleted' : table);
    return 0;
  },
};

/** For people: a mean has more digits than anybody measured. */
function shortNumber(value: unknown): string {
  if (value === undefined) return '-';
  return typeof value === 'number' ? String(Number(value.toPrecision(7))) : String(value);
}

export const historyCommands: readonly Command[] = [
  latestCommand,
  rangeCommand,
  aggregateCommand,
  eraseCommand,
  erasuresCommand,
];
