// The requests of the document on InfluxDB, before an InfluxDB that answers, and without one.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { hasCommand } from '../support/debian.ts';
import { queryToken, startFluxInflux } from '../support/flux-influx.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';
import { adminOf, curl, send } from './asking.ts';
import { integration } from './documents.ts';

const run = promisify(execFile);

async function opened(influx?: Record<string, unknown>) {
  const gateway = await openGateway(tempFolder(), influx === undefined ? {} : { influx });
  const location = 'office';
  await gateway.operations.get('devices.add')?.({ device_id: 'esp32_002', location: 'kitchen' });
  const made = await gateway.operations.get('devices.add')?.({ device_id: 'esp32_001', location });
  const { api_key: key } = made as { api_key: string };
  return { gateway, key };
}

const keys = (key: string) => ({ 'your-api-key': key, 'device-api-key': key, '{device_id}': 'esp32_001' });

test('the document from the first point to its deletion, with InfluxDB behind the gateway', async () => {
  const server = await startFluxInflux();
  const { gateway, key } = await opened({ url: server.url, token: queryToken, flush_interval_ms: 20 });
  const admin = await adminOf(gateway);
  const asDevice = (block: string, changes = {}) => send(gateway, block, { ...keys(key), ...changes });
  expect(await send(gateway, integration.health, {}, key)).toMatchObject({
    status: 200,
    body: { influxdb: { status: 'pass' }, connected: true },
  });
  expect((await curl(gateway, integration.curlHealth, keys(key))).status).toBe(200);

  expect(await asDevice(integration.write)).toMatchObject({
    status: 201,
    body: { device_id: 'esp32_001', measurement: 'temperature', timestamp: '2024-01-01T12:00:00Z' },
  });
  // A key of one device writes for one device; an administrator's for all.
  expect(await asDevice(integration.batch)).toMatchObject({ status: 207, body: { count: 1 } });
  expect(await send(gateway, integration.batch, keys(admin))).toMatchObject({
    status: 201,
    body: { count: 2 },
  });
  expect((await asDevice(integration.telemetry)).body.measurement).toBe('environmental');
  expect((await curl(gateway, integration.curlTelemetry, keys(key))).status).toBe(201);
  await until(() => server.influx.count === 6);

  expect(await asDevice(integration.data)).toMatchObject({
    status: 200,
    body: {
      device_id: 'esp32_001',
      measurement: 'temperature',
      start_time: '-1h',
      stop_time: 'now()',
      data_points: [
        {
          measurement: 'temperature',
          device_id: 'esp32_001',
          field: 'value',
          value: 23.5,
          location: 'office',
        },
        { field: 'value', value: 23.5 },
      ],
      count: 2,
    },
  });
  expect(await asDevice(integration.latest)).toMatchObject({
    status: 200,
    body: {
      latest_data: expect.arrayContaining([expect.objectContaining({ field: 'humidity', value: 45 })]),
    },
  });

  expect((await asDevice(integration.delete)).status).toBe(403);
  const deleted = await send(gateway, integration.delete, keys(admin));
  expect([200, 202]).toContain(deleted.status);
  await until(() => server.influx.count === 5);
  expect(server.deletes).toMatchObject([{ start: '2024-01-01T00:00:00Z' }]);
});

test('without an InfluxDB everything is taken and answered all the same, and its health says why', async () => {
  const { gateway, key } = await opened();
  expect(await curl(gateway, integration.curlHealth, keys(key))).toMatchObject({
    status: 503,
    body: { influxdb: { status: 'fail' }, connected: false },
  });
  expect((await send(gateway, integration.write, keys(key))).status).toBe(201);
  expect(await send(gateway, integration.latest, keys(key))).toMatchObject({
    status: 200,
    body: { count: 2 },
  });
});

describe.skipIf(!hasCommand('mosquitto_pub'))('with Debian package mosquitto-clients', () => {
  const publish = async (gateway: Gateway, changes: Record<string, string>) => {
    let command = integration.mosquitto
      .replace('-h localhost -p 1883', `-h 127.0.0.1 -p ${gateway.ports.mqtt}`)
      // As the document has it nobody waits for an answer.
      .replace('mosquitto_pub', 'mosquitto_pub -q 1');
    for (const [from, to] of Object.entries(changes)) command = command.replaceAll(from, to);
    return await run('bash', ['-c', command]).then(
      () => 'published',
      (error: { stderr: string }) => error.stderr.trim(),
    );
  };

  test('the line of mosquitto_pub publishes, as the device whose topic it is', async () => {
    const { gateway, key } = await opened();
    const own = { device_001: 'esp32_001', device_password: key };
    expect(await publish(gateway, own)).toBe('published');
    const { body } = await send(gateway, integration.latest, keys(key));
    expect(body.latest_data).toContainEqual(
      expect.objectContaining({ field: 'temperature', value: 25.5, time: '2024-01-01T12:00:00Z' }),
    );
    // With the account of another device, as printed, it does not.
    const { apiKey: others } = await connectDevice(gateway, 'device_001');
    expect(
      await publish(gateway, { device_password: others, 'telemetry/temperature': 'telemetry/stolen' }),
    ).not.toBe('published');
    expect((await send(gateway, integration.latest.replace('temperature', 'stolen'), keys(key))).status).toBe(
      404,
    );
  });
});
