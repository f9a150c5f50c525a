// Questions to InfluxDB over a real connection, and every way they can go wrong.

import { expect, onTestFinished, test } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { lastFlux } from '../../src/remote/flux.ts';
import { type Cell, InfluxQuery, type InfluxQueryOptions } from '../../src/remote/influx-query.ts';
import { type FluxInflux, queryToken, startFluxInflux } from '../support/flux-influx.ts';
import { until } from '../support/until.ts';

const scope = {
  bucket: 'telemetry',
  gatewayId: 'gw-1',
  deviceId: 'node-1',
  fromNs: 0n,
  toNs: 2n * 10n ** 18n,
};
const flux = lastFlux(scope);
const tags = 'device_id=node-1,gateway=gw-1';

function open(server: FluxInflux, options: Partial<InfluxQueryOptions> = {}, token = queryToken) {
  const { monotonicMs } = systemClock();
  const query = InfluxQuery.open(
    { url: server.url, token, org: 'iotflow', bucket: 'telemetry' },
    { timeoutMs: 5_000, monotonicMs, restMs: 0, ...options },
  );
  onTestFinished(() => query.close());
  const ask = async (signal?: AbortSignal) => {
    const cells: Cell[] = [];
    await query.ask(flux, (cell) => cells.push(cell), signal);
    return cells;
  };
  return { query, ask };
}

test('every type of value arrives as what it was, its time to the nanosecond, texts with all their characters', async () => {
  const server = await startFluxInflux();
  await server.write(
    `climate,${tags} t=21.5,n=-0,wet=true,note="a, \\"b\\" c\\\\" 1700000000000000001\nm\\,\\ 2,${tags} f=1e21 5`,
  );
  const { ask } = open(server);
  const cell = (measurement: string, field: string, value: unknown, timeNs: bigint) =>
    expect.objectContaining({ measurement, field, value, timeNs });
  const at = 1_700_000_000_000_000_001n;
  const cells = await ask();
  expect(cells).toHaveLength(5);
  expect(cells).toEqual(
    expect.arrayContaining([
      cell('climate', 't', 21.5, at),
      cell('climate', 'wet', true, at),
      cell('climate', 'note', 'a, "b" c\\', at),
      cell('m, 2', 'f', 1e21, 5n),
    ]),
  );
});

test('each way it fails has its code, and none shows the token', async () => {
  const server = await startFluxInflux();
  await server.write(`m,${tags} f=1 5`);
  const { ask } = open(server);
  const codes: string[] = [];
  const failing = async (one: Promise<unknown>) => {
    const error = (await one.then(
      () => expect.fail('it was answered'),
      (thrown: unknown) => thrown,
    )) as { code: string; message: string };
    expect(error.message).not.toContain(queryToken);
    codes.push(error.code);
  };
  for (const status of [400, 401, 404, 429, 503]) {
    server.script('query', [{ status, message: `no: ${queryToken}` }]);
    await failing(ask());
  }
  server.script('query', ['error-table']);
  await failing(ask());
  await failing(open(server, {}, 'wrong').ask());
  server.influx.outage(true);
  await failing(ask());
  expect(codes).toEqual([
    'REMOTE_FAILED',
    'REMOTE_REFUSED',
    'REMOTE_REFUSED',
    'REMOTE_UNREACHABLE',
    'REMOTE_UNREACHABLE',
    'REMOTE_FAILED',
    'REMOTE_REFUSED',
    'REMOTE_UNREACHABLE',
  ]);
});

test.each(['hang', 'stall'] as const)(
  'an answer that never ends (%s) is given up, and its connection closed',
  async (how) => {
    const server = await startFluxInflux();
    const { ask, query } = open(server, { timeoutMs: 100 });
    server.script('query', [how]);
    await expect(ask()).rejects.toMatchObject({ code: 'REMOTE_TIMEOUT' });
    await until(() => server.gone() === 1);
    expect(query.stats()).toMatchObject({ queries: 1, failures: 1, inFlight: 0 });
  },
);

test.each(['hang', 'stall'] as const)('a question (%s) ends when whoever asked goes', async (how) => {
  const server = await startFluxInflux();
  const { ask, query } = open(server);
  server.script('query', [how]);
  const gone = new AbortController();
  const asked = ask(gone.signal);
  await until(() => server.queries.length === 1);
  gone.abort();
  await expect(asked).rejects.toMatchObject({ code: 'REMOTE_CANCELLED' });
  await until(() => server.gone() === 1);
  expect(query.stats()).toMatchObject({ cancelled: 1, failures: 0, resting: undefined });
  await expect(ask(gone.signal)).rejects.toMatchObject({ code: 'REMOTE_CANCELLED' });
  expect(server.queries).toHaveLength(1);
});

test('an answer that is larger than can be held ends early', async () => {
  const server = await startFluxInflux();
  await server.write(`m,${tags} a=1,b=2,c=3,d=4 5`);
  await expect(open(server, { cellsMax: 3 }).ask()).rejects.toMatchObject({ code: 'REMOTE_TOO_LARGE' });
  await expect(open(server, { charactersMax: 40 }).ask()).rejects.toMatchObject({ code: 'REMOTE_TOO_LARGE' });
  expect(await open(server, { cellsMax: 4 }).ask()).toHaveLength(4);
});

test('after a failure nothing is asked for a while; a known outage costs no question at all', async () => {
  const server = await startFluxInflux();
  let nowMs = 0;
  let outage: string | undefined;
  const { ask, query } = open(server, { monotonicMs: () => nowMs, restMs: 10_000, outage: () => outage });
  server.script('query', [{ status: 503, message: 'starting' }]);
  await expect(ask()).rejects.toMatchObject({ code: 'REMOTE_UNREACHABLE' });
  nowMs = 9_999;
  await expect(ask()).rejects.toMatchObject({
    code: 'REMOTE_UNREACHABLE',
    message: expect.stringContaining('503'),
  });
  expect(server.queries).toHaveLength(1);
  nowMs = 10_000;
  expect(await ask()).toEqual([]);
  expect(query.stats().resting).toBeUndefined();
  outage = 'ENETUNREACH';
  await expect(ask()).rejects.toMatchObject({ code: 'REMOTE_UNREACHABLE', message: 'ENETUNREACH' });
  expect(server.queries).toHaveLength(2);
});

test('only so many questions are under way at the same time', async () => {
  const server = await startFluxInflux();
  const { ask } = open(server, { inFlightMax: 2, timeoutMs: 60_000 });
  server.script('query', ['hang', 'hang']);
  const gone = new AbortController();
  const asked = [ask(gone.signal), ask(gone.signal)];
  const ended = Promise.allSettled(asked);
  await until(() => server.queries.length === 2);
  await expect(ask()).rejects.toMatchObject({ code: 'REMOTE_BUSY' });
  gone.abort();
  await ended;
  expect(await ask()).toEqual([]);
});
