import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { History } from '../../src/history/history.ts';
import { operations } from '../../src/history/operations.ts';
import type { FieldValue } from '../../src/model/point.ts';
import { createLog } from '../../src/platform/log.ts';
import { fakeClock } from '../ingest/fakes.ts';
import { tempFolder } from '../support/temp.ts';

const nowMs = Date.UTC(2026, 10, 21, 12);

async function opened() {
  const clock = fakeClock(nowMs);
  const history = await History.open({
    directory: join(tempFolder(), 'history'),
    clock,
    log: createLog('silent'),
    flushIntervalMs: 0,
    tidyIntervalMs: 0,
  });
  onTestFinished(() => history.close());
  const table = operations(history, clock);
  const call = async (name: string, args: Record<string, unknown>) => {
    const operation = table.get(`history.${name}`);
    if (operation === undefined) throw new Error(name);
    // As it leaves through the control socket.
    return JSON.parse(JSON.stringify(await operation(args))) as Record<string, unknown>;
  };
  const record = (agoMs: number, fields: Record<string, FieldValue>, measurement = 'climate') =>
    history.record(
      [
        {
          measurement,
          tags: new Map(),
          fields: new Map(Object.entries(fields)),
          timeNs: BigInt(nowMs - agoMs) * 1_000_000n,
        },
      ],
      'node-1',
    );
  return { call, record };
}

test('answers in JSON, with times people and programs can read', async () => {
  const { call, record } = await opened();
  record(90 * 60_000, { temperature: 19 });
  record(30 * 60_000, { temperature: 21.5, wet: true });
  record(1_500, { temperature: 22.5 });
  expect(await call('latest', { device_id: 'node-1' })).toEqual({
    device_id: 'node-1',
    measurements: [
      {
        measurement: 'climate',
        fields: {
          temperature: { value: 22.5, time: '2026-11-21T11:59:58.5Z' },
          wet: { value: true, time: '2026-11-21T11:30:00Z' },
        },
      },
    ],
    source: 'local',
  });
  expect(await call('range', { device_id: 'node-1' })).toEqual({
    device_id: 'node-1',
    from: '2026-11-21T11:00:00Z',
    to: '2026-11-21T12:00:00Z',
    points: [
      { time: '2026-11-21T11:30:00Z', measurement: 'climate', fields: { temperature: 21.5, wet: true } },
      { time: '2026-11-21T11:59:58.5Z', measurement: 'climate', fields: { temperature: 22.5 } },
    ],
    count: 2,
    next: null,
    source: 'local',
  });
  expect(
    await call('aggregate', {
      device_id: 'node-1',
      from: '-24h',
      window: '1h',
      functions: 'mean,count',
      fields: ['temperature'],
    }),
  ).toMatchObject({
    functions: ['mean', 'count'],
    windows: [
      { time: '2026-11-21T10:00:00Z', fields: { temperature: { mean: 19, count: 1 } } },
      { time: '2026-11-21T11:00:00Z', fields: { temperature: { mean: 22, count: 2 } } },
    ],
    next: null,
  });
});

test('understands the times the clients of the HTTP API send', async () => {
  const { call, record } = await opened();
  record(30 * 60_000, { v: 1 });
  const times = [
    ['-1h', 'now()'],
    ['-1d', 'now'],
    ['2026-11-21T11:00:00Z', '2026-11-21T13:00:00+01:00'],
    [String(nowMs / 1_000 - 3_600), String(nowMs)],
    [nowMs - 3_600_000, nowMs],
  ];
  for (const [from, to] of times) {
    expect(await call('range', { device_id: 'node-1', from, to }), String(from)).toMatchObject({ count: 1 });
  }
});

test('leads through long answers page by page', async () => {
  const { call, record } = await opened();
  for (let second = 1; second <= 25; second += 1) record(second * 1_000, { v: second });
  const found: unknown[] = [];
  let after: unknown;
  do {
    const page = await call('range', { device_id: 'node-1', limit: 10, order: 'newest-first', after });
    found.push(...(page.points as { fields: { v: number } }[]).map(({ fields }) => fields.v));
    after = page.next ?? undefined;
  } while (after !== undefined);
  expect(found).toEqual(Array.from({ length: 25 }, (_, index) => index + 1));
  const windows = await call('aggregate', { device_id: 'node-1', window: '1s', limit: 20 });
  expect(windows).toMatchObject({ count: 20, next: '2026-11-21T11:59:55Z' });
});

test.each([
  ['range', {}, 'device_id: expected text of 1 to 512 characters'],
  ['range', { device_id: 'a', since: 1 }, 'unknown argument "since"'],
  ['range', { device_id: 'a', from: 'yesterday' }, 'from: expected now, a time before it such as -1h'],
  ['range', { device_id: 'a', from: '-1y' }, 'from: expected now, a time before it such as -1h'],
  ['range', { device_id: 'a', from: 'now', to: '-1h' }, 'from: expected a time before "to"'],
  ['range', { device_id: 'a', limit: 10_001 }, 'limit: expected a whole number from 1 to 10000'],
  ['range', { device_id: 'a', order: 'up' }, 'order: expected oldest-first or newest-first'],
  ['range', { device_id: 'a', after: 'x' }, 'after: expected "next" of the answer before'],
  ['range', { device_id: 'a', fields: [] }, 'fields: expected 1 to 256 names'],
  ['aggregate', { device_id: 'a', window: '5' }, 'window: expected a duration from 1s to 366d'],
  ['aggregate', { device_id: 'a', window: '1ms' }, 'window: expected a duration from 1s to 366d'],
  ['aggregate', { device_id: 'a', functions: 'median' }, 'functions: expected some of mean, min'],
  ['latest', { device_id: 7 }, 'device_id: expected text'],
] as const)('%s %j is refused with the field and what was expected', async (name, args, message) => {
  const { call } = await opened();
  await expect(call(name, args)).rejects.toThrow(message);
});
