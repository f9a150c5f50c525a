// Telemetry over HTTP, from the body to the journal and back out of history.

import { join } from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import type { Caller } from '../../../src/api/route.ts';
import { influxdbRoutes } from '../../../src/api/routes/influxdb.ts';
import { telemetryRoutes } from '../../../src/api/routes/telemetry.ts';
import { History } from '../../../src/history/history.ts';
import { operations } from '../../../src/history/operations.ts';
import { Ingest } from '../../../src/ingest/ingest.ts';
import { GatewayError } from '../../../src/platform/errors.ts';
import { fakeClock, knownTime, MemoryJournal } from '../../ingest/fakes.ts';
import { tempFolder } from '../../support/temp.ts';
import { ask, type Question } from './asking.ts';

const log = pino({ level: 'silent' });
const node: Caller = { kind: 'device', deviceId: 'esp32_001' };
const admin: Caller = { kind: 'user', name: 'ada', role: 'admin' };

const devices = [
  { deviceId: 'esp32_001', id: 1, name: 'Desk', type: 'environmental', location: 'office', status: 'active' },
  {
    deviceId: 'esp32_002',
    id: 2,
    name: 'Stove',
    type: 'environmental',
    location: 'kitchen',
    status: 'active',
  },
  { deviceId: 'esp32_003', id: 3, name: 'Gone', type: '', location: '', status: 'inactive' },
] as const;

async function opened(withHistory = true) {
  const clock = fakeClock(Date.parse('2024-01-01T12:30:00Z'));
  const journal = new MemoryJournal();
  const history = withHistory
    ? await History.open({ directory: join(tempFolder(), 'history'), clock, log })
    : undefined;
  if (history !== undefined) onTestFinished(() => history.close());
  const find = (text: string) => devices.find(({ deviceId, id }) => deviceId === text || String(id) === text);
  const ingest = await Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    describe: find,
    gatewayId: 'gw-1',
    observe: () => undefined,
    onDurable: (points, deviceId) => history?.record(points, deviceId),
    time: knownTime(clock),
    log,
  });
  const touched: string[] = [];
  const parts = {
    find,
    history: history === undefined ? new Map() : operations(history, clock),
    submit: (points: Parameters<Ingest['submit']>[0]) => ingest.submit(points, { receivedMonotonicMs: 0 }),
    touch: (deviceId: string) => void touched.push(deviceId),
  };
  const routes = [...telemetryRoutes(parts), ...influxdbRoutes(parts)];
  return { journal, touched, ask: (line: string, question: Question) => ask(routes, line, question) };
}

const onePoint = {
  device_id: 'esp32_001',
  measurement: 'temperature',
  fields: { value: 23.5, humidity: 45.0 },
  tags: { location: 'office', sensor_type: 'dht22' },
  timestamp: '2024-01-01T12:00:00Z',
};

test('a device hands over readings in the form of the README', async () => {
  const { ask, journal, touched } = await opened();
  const body = {
    data: { temperature: 23.5, humidity: 65.2 },
    metadata: { location: 'Living Room' },
    timestamp: '2023-12-31T14:30:00Z',
  };
  expect(await ask('POST /api/v1/devices/telemetry', { caller: node, body })).toMatchObject({
    status: 201,
    body: {
      message: 'Telemetry data received successfully',
      device_id: 'esp32_001',
      measurement: 'device_telemetry',
      timestamp: '2023-12-31T14:30:00Z',
      dropped: ['metadata'],
    },
  });
  expect(journal.lines()).toEqual([
    'device_telemetry,device_id=esp32_001,device_name=Desk,device_type=environmental,gateway=gw-1,location=office ' +
      'temperature=23.5,humidity=65.2 1704033000000000000',
  ]);
  expect(touched).toEqual(['esp32_001']);
});

test('the type of the InfluxDB document’s form is the measurement, its fields and tags are those of the point', async () => {
  const { ask, journal } = await opened();
  const data = { temperature: 24.5, humidity: 60.0, battery_level: 85.0 };
  const first = await ask('POST /api/v1/devices/telemetry', {
    caller: node,
    body: { data, type: 'environmental' },
  });
  expect(first).toMatchObject({ status: 201, body: { measurement: 'environmental' } });
  expect(await ask('POST /api/v1/influxdb/telemetry', { caller: node, body: onePoint })).toMatchObject({
    status: 201,
    body: { measurement: 'temperature', timestamp: '2024-01-01T12:00:00Z', dropped: ['tags.sensor_type'] },
  });
  expect(journal.points().map(({ measurement }) => measurement)).toEqual(['environmental', 'temperature']);
});

test('a batch of an administrator is stored for both devices', async () => {
  const { ask, journal, touched } = await opened();
  const points = [
    {
      device_id: 'esp32_001',
      measurement: 'temperature',
      fields: { value: 23.5 },
      tags: { location: 'office' },
    },
    {
      device_id: 'esp32_002',
      measurement: 'humidity',
      fields: { value: 55.0 },
      tags: { location: 'kitchen' },
    },
  ];
  expect(
    await ask('POST /api/v1/influxdb/telemetry/batch', { caller: admin, body: { points } }),
  ).toMatchObject({
    status: 201,
    body: { message: 'Successfully written 2 telemetry points', count: 2 },
  });
  expect(journal.appends).toHaveLength(1);
  expect(journal.points().map(({ tags }) => tags.get('device_id'))).toEqual(['esp32_001', 'esp32_002']);
  expect(touched).toEqual([]);
});

test('of a batch that is good in part the answer lists every refused point with its code and field', async () => {
  const { ask, journal } = await opened();
  const points = [
    { measurement: 'm', fields: { v: 1 } },
    { device_id: 'esp32_002', measurement: 'm', fields: { v: 2 } },
    { measurement: 'm', fields: { v: [3] } },
    7,
    { measurement: 'm', fields: 'v=5' },
    { measurement: 'm', fields: { v: 6 }, timestamp: 'noon' },
    { measurement: 'm', fields: { v: 'seven' } },
    { measurement: 'm', fields: { v: 8 }, extra: 1 },
  ];
  const { status, body } = await ask('POST /api/v1/influxdb/telemetry/batch', {
    caller: node,
    body: { points },
  });
  expect(status).toBe(207);
  expect(body.count).toBe(2);
  expect(body.dropped).toEqual(['extra']);
  expect(
    body.refused.map(({ index, error }: { index: number; error: { code: string; field?: string } }) => [
      index,
      error.code,
      error.field,
    ]),
  ).toEqual([
    [1, 'FORBIDDEN', 'device_id'],
    [2, 'FIELD_NOT_SCALAR', 'fields.v'],
    [3, 'POINT_INVALID', undefined],
    [4, 'POINT_INVALID', 'fields'],
    [5, 'TIMESTAMP_INVALID', 'timestamp'],
    [6, 'FIELD_TYPE_CONFLICT', 'fields.v'],
  ]);
  expect(journal.points().map(({ fields }) => fields.get('v'))).toEqual([1, 8]);
});

test('a batch without one good point is 400 and stores nothing', async () => {
  const { ask, journal } = await opened();
  const body = { points: [{ measurement: 'm', fields: {} }] };
  expect(await ask('POST /api/v1/influxdb/telemetry/batch', { caller: node, body })).toMatchObject({
    status: 400,
    body: {
      error: { code: 'POINTS_INVALID' },
      count: 0,
      refused: [{ index: 0, error: { code: 'NO_FIELDS' } }],
    },
  });
  expect(journal.appends).toEqual([]);
});

test.each([
  ['nothing to store', { caller: node, body: {} }, 400, 'POINT_INVALID', 'fields'],
  ['an array', { caller: node, body: { data: [1] } }, 400, 'POINT_INVALID', 'data'],
  ['an object in a field', { caller: node, body: { data: { t: {} } } }, 400, 'FIELD_NOT_SCALAR', 'data.t'],
  [
    'another device',
    { caller: node, body: { ...onePoint, device_id: 'esp32_002' } },
    403,
    'FORBIDDEN',
    'device_id',
  ],
  [
    'an unknown device',
    { caller: admin, body: { ...onePoint, device_id: 'x' } },
    404,
    'DEVICE_UNKNOWN',
    'device_id',
  ],
  [
    'a revoked one',
    { caller: admin, body: { ...onePoint, device_id: '3' } },
    404,
    'DEVICE_UNKNOWN',
    'device_id',
  ],
  ['nobody', { caller: admin, body: { data: { t: 1 } } }, 400, 'POINT_INVALID', 'device_id'],
] as const)(
  'readings of %s are refused with a code and the field',
  async (_what, question, status, code, field) => {
    const { ask, journal } = await opened();
    expect(await ask('POST /api/v1/devices/telemetry', question)).toMatchObject({
      status,
      body: { error: { code, field } },
    });
    expect(journal.lines()).toEqual([]);
  },
);

test('what is sent again with its boot and sequence number is told to be a duplicate', async () => {
  const { ask, journal } = await opened();
  const body = { data: { t: 1 }, boot: 'b1', seq: 1 };
  const first = await ask('POST /api/v1/devices/telemetry', { caller: node, body });
  expect(first.body).not.toHaveProperty('duplicates');
  expect(await ask('POST /api/v1/devices/telemetry', { caller: node, body })).toMatchObject({
    status: 201,
    body: { duplicates: 1 },
  });
  expect(journal.points()).toHaveLength(1);
});

test('a field may be called like anything JavaScript knows', async () => {
  const { ask, journal } = await opened();
  const body = JSON.parse('{"data":{"__proto__":1,"constructor":2,"toString":3}}');
  expect(await ask('POST /api/v1/devices/telemetry', { caller: node, body })).toMatchObject({ status: 201 });
  expect([...(journal.points()[0]?.fields ?? [])]).toEqual([
    ['__proto__', 1],
    ['constructor', 2],
    ['toString', 3],
  ]);
});

test('while the disk takes nothing, the answer is 503 and says when to try again', async () => {
  const { ask, journal } = await opened();
  journal.failWith = new GatewayError('JOURNAL_FULL', 'no room');
  expect(await ask('POST /api/v1/influxdb/telemetry', { caller: node, body: onePoint })).toMatchObject({
    status: 503,
    headers: { 'retry-after': '10' },
    body: { error: { code: 'JOURNAL_FULL' } },
  });
});

async function withReadings() {
  const opening = await opened();
  for (const [minute, value] of [
    [0, 20],
    [10, 22],
    [20, 27],
  ]) {
    const timestamp = `2024-01-01T12:${String(minute).padStart(2, '0')}:00Z`;
    const body = { data: { temperature: value }, type: 'climate', timestamp };
    await opening.ask('POST /api/v1/devices/telemetry', { caller: node, body });
  }
  return opening;
}

test('readings can be asked for at once, by the device’s id or number, the newest first', async () => {
  const { ask } = await withReadings();
  for (const id of ['esp32_001', '1']) {
    const query = { start_time: '-1h', limit: '2' };
    const { status, body } = await ask(`GET /api/v1/telemetry/${id}`, { caller: node, query });
    expect(status).toBe(200);
    expect(body).toMatchObject({
      device_id: 'esp32_001',
      device_name: 'Desk',
      count: 2,
      source: 'local',
      data: [
        { timestamp: '2024-01-01T12:20:00Z', measurement: 'climate', fields: { temperature: 27 } },
        { timestamp: '2024-01-01T12:10:00Z', fields: { temperature: 22 } },
      ],
    });
    const rest = await ask(`GET /api/v1/telemetry/${id}`, {
      caller: node,
      query: { ...query, after: body.next },
    });
    expect(rest.body).toMatchObject({ count: 1, next: null, data: [{ fields: { temperature: 20 } }] });
  }
});

test('latest, aggregated and the rows of the InfluxDB document come from the same readings', async () => {
  const { ask } = await withReadings();
  expect((await ask('GET /api/v1/telemetry/1/latest', { caller: admin })).body).toMatchObject({
    latest_data: { timestamp: '2024-01-01T12:20:00Z', fields: { temperature: 27 } },
    measurements: [{ measurement: 'climate' }],
  });
  const query = { window: '1h', start_time: '-24h', aggregation: 'mean,max' };
  expect((await ask('GET /api/v1/telemetry/1/aggregated', { caller: admin, query })).body).toMatchObject({
    count: 2,
    data: [
      { timestamp: '2024-01-01T12:00:00Z', field: 'temperature', aggregation: 'mean', value: 23 },
      { field: 'temperature', aggregation: 'max', value: 27 },
    ],
  });
  const range = { start: '-1h', stop: 'now()', measurement: 'climate' };
  const rows = await ask('GET /api/v1/influxdb/device/esp32_001/data', { caller: node, query: range });
  expect(rows.body).toMatchObject({
    measurement: 'climate',
    start_time: '-1h',
    stop_time: 'now()',
    count: 3,
  });
  expect(rows.body.data_points[0]).toEqual({
    time: '2024-01-01T12:00:00Z',
    measurement: 'climate',
    device_id: 'esp32_001',
    field: 'temperature',
    value: 20,
    location: 'office',
  });
  expect((await ask('GET /api/v1/influxdb/device/esp32_001/latest', { caller: node })).body).toMatchObject({
    latest_data: [{ field: 'temperature', value: 27 }],
    count: 1,
  });
});

test.each([
  ['GET /api/v1/telemetry/esp32_002', node, {}, 403, 'FORBIDDEN'],
  ['GET /api/v1/telemetry/nothing', node, {}, 403, 'FORBIDDEN'],
  ['GET /api/v1/telemetry/nothing', admin, {}, 404, 'DEVICE_UNKNOWN'],
  ['GET /api/v1/telemetry/2/latest', admin, {}, 404, 'TELEMETRY_UNKNOWN'],
  ['GET /api/v1/influxdb/device/2/latest', admin, {}, 404, 'TELEMETRY_UNKNOWN'],
] as const)('%s is refused', async (line, caller, query, status, code) => {
  const { ask } = await withReadings();
  expect(await ask(line, { caller, query })).toMatchObject({ status, body: { error: { code } } });
});

test('a refused parameter has the name it has in the URL', async () => {
  const { ask } = await opened();
  const messageOf = async (line: string, query: Record<string, string>) =>
    (await ask(line, { caller: admin, query })).body.error;
  expect(await messageOf('GET /api/v1/telemetry/1', { start_time: 'soon' })).toMatchObject({
    code: 'QUERY_INVALID',
    message: expect.stringMatching(/^start_time: expected now/),
  });
  expect(await messageOf('GET /api/v1/telemetry/1/aggregated', { aggregation: 'median' })).toMatchObject({
    message: expect.stringMatching(/^aggregation: expected some of mean/),
  });
  expect(await messageOf('GET /api/v1/influxdb/device/1/data', { start: 'x' })).toMatchObject({
    message: expect.stringMatching(/^start: /),
  });
});

test('without history queries say so, and readings are taken all the same', async () => {
  const { ask } = await opened(false);
  expect(await ask('POST /api/v1/influxdb/telemetry', { caller: node, body: onePoint })).toMatchObject({
    status: 201,
  });
  expect(await ask('GET /api/v1/telemetry/1/latest', { caller: node })).toMatchObject({
    status: 503,
    body: { error: { code: 'HISTORY_UNAVAILABLE' } },
  });
});
