// Readings over HTTP through a whole gateway: many at once, a leak, and beside the same device's MQTT.

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
