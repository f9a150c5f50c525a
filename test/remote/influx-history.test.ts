// InfluxDB and local history are asked the same of the same readings, apart and joined: the answers must not differ.

import { join } from 'node:path';
import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { History } from '../../src/history/history.ts';
import type { AggregateQuery, RangeQuery, Row } from '../../src/history/query.ts';
import { aggregateFunctions } from '../../src/history/summary.ts';
import { type RemoteHistory, wholeHistory } from '../../src/history/whole-history.ts';
import { encodePoint } from '../../src/model/line-protocol.ts';
import type { FieldValue, Point } from '../../src/model/point.ts';
import { createLog } from '../../src/platform/log.ts';
import { influxHistory } from '../../src/remote/influx-history.ts';
import { InfluxQuery } from '../../src/remote/influx-query.ts';
import { fakeClock } from '../ingest/fakes.ts';
import { type FluxInflux, queryToken, startFluxInflux } from '../support/flux-influx.ts';
import { tempFolder } from '../support/temp.ts';

const startMs = Date.UTC(2026, 10, 21, 10);
const endMs = startMs + 2 * 3_600_000;
const ns = (ms: number) => BigInt(ms) * 1_000_000n;

function pointAt(index: number): Point {
  const measurement = index % 4 === 3 ? 'power, "main"' : 'climate';
  const fields = new Map<string, FieldValue>([['t', 15 + ((index * 7) % 40) / 4]]);
  if (index % 3 === 0) fields.set('wet', index % 2 === 0);
  if (index % 5 === 0) fields.set('state', `mode ${index % 7}`);
  // Described anew half-way: another series in InfluxDB.
  const tags = new Map([
    ['device_id', 'node-1'],
    ['gateway', 'gw-1'],
    ['location', index < 46 ? 'kitchen' : 'cellar'],
  ]);
  // Two measurements share some moments.
  const timeNs = ns(startMs + Math.floor(index / 2) * 150_000) + BigInt(index % 2 === 0 ? 0 : index % 3);
  return { measurement, tags, fields, timeNs };
}

const points = Array.from({ length: 90 }, (_, index) => pointAt(index));

interface Sources {
  readonly history: History;
  readonly remote: RemoteHistory;
  readonly server: FluxInflux;
}

async function opened(restMs = 0): Promise<Sources> {
  const server = await startFluxInflux();
  const strangers = points.map((point, index) => ({
    ...point,
    tags: new Map([...point.tags, index % 2 === 0 ? ['device_id', 'node-2'] : ['gateway', 'gw-2']] as const),
  }));
  await server.write([...points, ...strangers].map(encodePoint).join('\n'));
  const clock = fakeClock(endMs);
  const history = await History.open({
    directory: join(tempFolder(), 'history'),
    clock,
    log: createLog('silent'),
    flushIntervalMs: 0,
    tidyIntervalMs: 0,
  });
  onTestFinished(() => history.close());
  for (const point of points) history.record([point], 'node-1');
  const target = { url: server.url, token: queryToken, org: 'iotflow', bucket: 'telemetry' };
  const query = InfluxQuery.open(target, { timeoutMs: 10_000, monotonicMs: () => 0, restMs });
  onTestFinished(() => query.close());
  const remote = influxHistory({ query, gatewayId: 'gw-1', wallMs: () => endMs });
  return { history, remote, server };
}

function covering({ history, remote }: Sources, coveredFromNs: bigint) {
  const local = {
    latest: history.latest.bind(history),
    range: history.range.bind(history),
    aggregate: history.aggregate.bind(history),
    coveredFromNs,
  };
  return wholeHistory({ local, remote, wallMs: () => endMs });
}

const moment = fc
  .integer({ min: -5, max: 50 })
  .map((step) => ns(startMs + step * 150_000) + BigInt(Math.max(0, step % 3)));
const stretch = fc
  .tuple(moment, moment)
  .filter(([a, b]) => a !== b)
  .map(([a, b]) => (a < b ? { fromNs: a, toNs: b } : { fromNs: b, toNs: a }));
const selection = fc.record(
  {
    measurement: fc.constantFrom('climate', 'power, "main"', 'nothing'),
    fields: fc.subarray(['t', 'wet', 'state', 'nothing'], { minLength: 1 }),
  },
  { requiredKeys: [] },
);

test('a range is the same from InfluxDB, from local history and from both, page by page, wherever one ends', async () => {
  const sources = await opened();
  const asked = fc.record({
    stretch,
    selection,
    order: fc.constantFrom('oldest-first' as const, 'newest-first' as const),
    limit: fc.integer({ min: 1, max: 30 }),
    boundary: moment,
  });
  await fc.assert(
    fc.asyncProperty(asked, async ({ stretch: times, selection: only, order, limit, boundary }) => {
      const query: RangeQuery = { deviceId: 'node-1', ...times, ...only, order, limit: 1_000 };
      const expected = (await sources.history.range(query)).rows;
      const whole = covering(sources, boundary);
      const rows: Row[] = [];
      let after: string | undefined;
      for (let pages = 0; pages <= 100; pages += 1) {
        const page = { ...query, limit, ...(after !== undefined && { after }) };
        const { rows: some, next, missing } = await whole.range(page);
        expect(missing).toBeUndefined();
        expect(some.length).toBeLessThanOrEqual(limit);
        rows.push(...some);
        after = next;
        if (next === undefined) break;
      }
      expect(after).toBeUndefined();
      expect(rows).toEqual(expected);
    }),
    { numRuns: 150 },
  );
});

test('windows come to the same from InfluxDB, from local history and from both', async () => {
  const sources = await opened();
  const asked = fc.record({
    stretch,
    selection,
    functions: fc.subarray([...aggregateFunctions], { minLength: 1 }),
    windowMs: fc.constantFrom(60_000, 450_000, 3_600_000),
    limit: fc.integer({ min: 1, max: 30 }),
    boundary: moment,
  });
  await fc.assert(
    fc.asyncProperty(
      asked,
      async ({ stretch: times, selection: only, functions, windowMs, limit, boundary }) => {
        const query: AggregateQuery = {
          deviceId: 'node-1',
          ...times,
          ...only,
          functions,
          windowMs,
          limit: 1_000,
        };
        const expected = (await sources.history.aggregate(query)).windows;
        const whole = covering(sources, boundary);
        const windows: (typeof expected)[number][] = [];
        let fromNs: bigint | undefined = query.fromNs;
        for (let pages = 0; pages <= 200 && fromNs !== undefined; pages += 1) {
          const page = await whole.aggregate({ ...query, fromNs, limit });
          expect(page.missing).toBeUndefined();
          windows.push(...page.windows);
          fromNs = page.nextFromNs;
        }
        expect(fromNs).toBeUndefined();
        const plain = (rows: typeof expected) =>
          rows.map(({ measurement, timeNs, fields }) => ({
            measurement,
            timeNs,
            fields: Object.fromEntries(
              [...fields].map(([name, values]) => [name, Object.fromEntries(values)]),
            ),
          }));
        expect(rounded(plain(windows))).toEqual(rounded(plain(expected)));
      },
    ),
    { numRuns: 100 },
  );
});

/** Numbers to 12 digits: parts of a mean are added in another order. */
function rounded(value: unknown): unknown {
  return JSON.parse(
    JSON.stringify(value, (_key, one: unknown) => {
      if (typeof one === 'bigint') return String(one);
      return typeof one === 'number' ? Number(one.toPrecision(12)) : one;
    }),
  );
}

test('what local history covers is asked of nobody else; what it does not know any more is, also the latest values', async () => {
  const sources = await opened();
  const query: RangeQuery = {
    deviceId: 'node-1',
    fromNs: ns(startMs),
    toNs: ns(endMs),
    limit: 5,
    order: 'newest-first',
  };
  const covered = covering(sources, ns(startMs));
  expect(await covered.range(query)).not.toHaveProperty('source');
  // The newest rows of a range that begins before it are here as well.
  expect(await covered.range({ ...query, fromNs: 0n })).not.toHaveProperty('source');
  expect(await covered.latest('node-1')).toHaveLength(2);
  expect(sources.server.queries).toEqual([]);
  const { source } = await covered.range({ ...query, fromNs: 0n, limit: 1_000 });
  expect(source).toBe('both');
  const nothingHere = wholeHistory({ local: undefined, remote: sources.remote, wallMs: () => endMs });
  expect(await nothingHere.range(query)).toMatchObject({ source: 'remote', rows: { length: 5 } });
  const latest = await nothingHere.latest('node-1', 'climate');
  const local = await sources.history.latest('node-1', 'climate');
  expect(latest).toEqual(local.map((one) => ({ ...one, isRemote: true })));
});

test('when InfluxDB cannot be asked the answer is what is here, and says what may be missing', async () => {
  const down = await opened();
  down.server.influx.outage(true);
  const boundary = ns(startMs + 3_600_000);
  const whole = covering(down, boundary);
  const query: RangeQuery = {
    deviceId: 'node-1',
    fromNs: ns(startMs),
    toNs: ns(endMs),
    limit: 1_000,
    order: 'oldest-first',
  };
  const missing = { fromNs: query.fromNs, toNs: boundary, code: 'REMOTE_UNREACHABLE' };
  const { rows } = await down.history.range(query);
  expect(await whole.range(query)).toMatchObject({ rows, source: 'local', missing });
  const windows: AggregateQuery = { ...query, windowMs: 60_000, functions: ['mean'] };
  expect(await whole.aggregate(windows)).toMatchObject({ source: 'local', missing });
  expect(await whole.latest('nobody')).toEqual([]);
});
