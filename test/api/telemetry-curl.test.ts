// The telemetry requests of the IoTFlow documents, as their curl lines send them, against a whole gateway. Only port
// and key differ from the documents; what was open there needs a key here.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const run = promisify(execFile);

async function addDevice(gateway: Gateway, device: Record<string, unknown>): Promise<string> {
  const answer = await gateway.operations.get('devices.add')?.(device);
  return (answer as { api_key: string }).api_key;
}

async function opened() {
  const gateway = await openGateway(tempFolder());
  const location = 'Living Room';
  const key = await addDevice(gateway, { device_id: 'esp32_001', type: 'temperature_sensor', location });
  const curl = async (path: string, ...args: string[]) => {
    const url = `http://127.0.0.1:${gateway.ports.http}${path}`;
    const { stdout } = await run('curl', ['-s', '-w', '\n%{http_code}', ...args, url]);
    const end = stdout.lastIndexOf('\n');
    return { status: Number(stdout.slice(end + 1)), body: JSON.parse(stdout.slice(0, end)) };
  };
  const json = ['-H', 'Content-Type: application/json'];
  return { gateway, key, curl, json, withKey: ['-H', `X-API-Key: ${key}`] };
}

const readmeBody = `{
    "data": {
      "temperature": 23.5,
      "humidity": 65.2,
      "pressure": 1013.25,
      "battery_level": 87,
      "signal_strength": -52
    },
    "metadata": {
      "location": "Living Room",
      "sensor_status": "active"
    },
    "timestamp": "2025-07-02T14:30:00Z"
  }`;

const integrationBody = `{
    "data": {"temperature": 25.0, "humidity": 60.0},
    "type": "environmental"
  }`;

test('both documents’ curl lines for readings are taken, and the queries of the README find them', async () => {
  const { curl, json, withKey } = await opened();
  const post = ['-X', 'POST', ...json, ...withKey, '-d'];
  expect(await curl('/api/v1/devices/telemetry', ...post, readmeBody)).toMatchObject({
    status: 201,
    body: { measurement: 'device_telemetry', timestamp: '2025-07-02T14:30:00Z' },
  });
  expect(await curl('/api/v1/devices/telemetry', ...post, integrationBody)).toMatchObject({
    status: 201,
    body: { measurement: 'environmental' },
  });
  const latest = await curl('/api/v1/telemetry/esp32_001/latest', ...withKey);
  expect(latest.body.latest_data.fields).toMatchObject({ temperature: 25, humidity: 60, pressure: 1013.25 });
  const range = await curl('/api/v1/telemetry/esp32_001?start_time=-1h&limit=100', ...withKey);
  expect(range.body).toMatchObject({ count: 1, data: [{ fields: { temperature: 25, humidity: 60 } }] });
  const aggregated = '/api/v1/telemetry/esp32_001/aggregated?window=1h&start_time=-24h';
  expect((await curl(aggregated, ...withKey)).body.data).toContainEqual(
    expect.objectContaining({ field: 'temperature', aggregation: 'mean', value: 25 }),
  );
  const rows = '/api/v1/influxdb/device/esp32_001/data?start=-1h&stop=now()&measurement=environmental';
  expect((await curl(rows, ...withKey)).body).toMatchObject({
    count: 2,
    start_time: '-1h',
    stop_time: 'now()',
  });
});

test('the batch of the InfluxDB document by a device’s own key: its point is stored, the other’s is refused', async () => {
  const { curl, json, withKey } = await opened();
  const batch = `{
  "points": [
    {
      "device_id": "esp32_001",
      "measurement": "temperature",
      "fields": {"value": 23.5},
      "tags": {"location": "office"}
    },
    {
      "device_id": "esp32_002",
      "measurement": "humidity", 
      "fields": {"value": 55.0},
      "tags": {"location": "kitchen"}
    }
  ]
}`;
  const path = '/api/v1/influxdb/telemetry/batch';
  expect(await curl(path, '-X', 'POST', ...json, ...withKey, '-d', batch)).toMatchObject({
    status: 207,
    body: { count: 1, refused: [{ index: 1, error: { code: 'FORBIDDEN' } }], dropped: ['tags.location'] },
  });
});

test('a thousand points go in one request', async () => {
  const { curl, json, withKey } = await opened();
  const points = Array.from({ length: 1_000 }, (_, seq) => ({
    measurement: 'power',
    fields: { watts: seq, state: 'a text of some length' },
    boot: 'b1',
    seq,
  }));
  const path = '/api/v1/influxdb/telemetry/batch';
  const post = [...json, ...withKey, '-d', JSON.stringify({ points })];
  expect(await curl(path, ...post)).toEqual({
    status: 201,
    body: { message: 'Successfully written 1000 telemetry points', count: 1_000 },
  });
  expect(await curl(path, ...post)).toMatchObject({ status: 201, body: { duplicates: 1_000 } });
  const more = JSON.stringify({ points: [...points, points[0]] });
  expect(await curl(path, ...json, ...withKey, '-d', more)).toMatchObject({
    status: 400,
    body: { error: { code: 'BODY_INVALID', field: 'points' } },
  });
});

test('what the documents left open needs a key', async () => {
  const { curl, json } = await opened();
  for (const path of ['/api/v1/telemetry/1/latest', '/api/v1/telemetry/1?start_time=-1h&limit=100']) {
    expect(await curl(path)).toMatchObject({ status: 401, body: { error: { code: 'UNAUTHENTICATED' } } });
  }
  const wrong = [
    '-X',
    'POST',
    ...json,
    '-H',
    'X-API-Key: rnby0SIR2kF8mN3Q7vX9L1cE6tA5Y4pB',
    '-d',
    readmeBody,
  ];
  expect(await curl('/api/v1/devices/telemetry', ...wrong)).toMatchObject({ status: 401 });
});

test('a leak that is told over HTTP sounds like one over MQTT, also when its message is refused', async () => {
  const { gateway, curl, json, withKey } = await opened();
  const body = '{"data":{"wet":true,"oops":{}},"type":"leak"}';
  expect(await curl('/api/v1/devices/telemetry', ...json, ...withKey, '-d', body)).toMatchObject({
    status: 400,
  });
  expect(await gateway.operations.get('alarms.list')?.({})).toMatchObject({
    alarms: [{ id: 'wet/esp32_001', active: true }],
  });
});

test('what came by MQTT is read over HTTP, and both count as one sequence', async () => {
  const { gateway, curl, json, withKey, key } = await opened();
  const client = await connectDevice(gateway, 'esp32_001', { apiKey: key });
  const reading = '{"temperature":21,"boot":"b1","seq":1}';
  await client.publishAsync('iotflow/devices/esp32_001/telemetry/climate', reading, { qos: 1 });
  const body = `{"data":${reading},"type":"climate"}`;
  expect(await curl('/api/v1/devices/telemetry', ...json, ...withKey, '-d', body)).toMatchObject({
    status: 201,
    body: { duplicates: 1 },
  });
  const range = await curl('/api/v1/telemetry/esp32_001?measurement=climate', ...withKey);
  expect(range.body).toMatchObject({ count: 1 });
});
