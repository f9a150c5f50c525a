// An administrator deletes what a device has measured, through the whole gateway: nothing of it comes back, whatever
// waited, whether InfluxDB could be reached or not, and after a restart.

import { expect, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { ask } from '../support/api.ts';
import { queryToken, startFluxInflux } from '../support/flux-influx.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

async function adminOf(gateway: Gateway): Promise<string> {
  await gateway.operations.get('users.add')?.({
    name: 'anna',
    role: 'admin',
    password: 'correct horse battery',
  });
  const made = await gateway.operations.get('users.token_add')?.({ name: 'anna', label: 'test' });
  return (made as { token: string }).token;
}

async function opened(folder: string, url: string) {
  const influx = { url, token: queryToken, flush_interval_ms: 20, timeout_ms: 2_000 };
  return await openGateway(folder, { influx });
}

const port = (gateway: Gateway) => ({ port: gateway.ports.http });

test('deleted while there is no internet: gone here at once, in InfluxDB when it is back, also after a restart', async () => {
  const server = await startFluxInflux();
  const folder = tempFolder();
  let gateway = await opened(folder, server.url);
  const admin = await adminOf(gateway);
  const send = async (deviceId: string, apiKey: string, value: number) => {
    const headers = { 'x-api-key': apiKey, 'content-type': 'application/json' };
    const body = JSON.stringify({ data: { value } });
    const { status } = await ask(port(gateway), '/api/v1/devices/telemetry', 'POST', headers, body);
    expect([deviceId, status]).toEqual([deviceId, 201]);
  };
  const keys: Record<string, string> = {};
  for (const id of ['a', 'b']) keys[id] = (await connectDevice(gateway, id)).apiKey;
  for (const [id, key] of Object.entries(keys)) await send(id, key, 1);
  await until(() => server.influx.count === 2);
  server.influx.outage(true);
  for (const [id, key] of Object.entries(keys)) await send(id, key, 2);

  const call = (method: string, path: string) =>
    ask(port(gateway), path, method, { 'x-api-key': admin }).then(({ status, body }) => ({
      status,
      body: JSON.parse(body),
    }));
  expect(await call('DELETE', '/api/v1/telemetry/a')).toMatchObject({
    status: 202,
    body: { device_id: 'a', start_time: null, erasure: { local: 'done', remote: 'waiting' } },
  });
  expect((await call('GET', '/api/v1/telemetry/a/latest')).status).toBe(404);
  await send('a', keys.a ?? '', 3);
  // It is not connected once a batch has found out, and while none is tried again.
  let shown: { influxdb?: { connected: boolean } } = {};
  await until(async () => {
    shown = (await call('GET', '/api/v1/telemetry/status')).body;
    return shown.influxdb?.connected === false;
  });
  expect(shown).toMatchObject({
    influxdb: { configured: true, connected: false },
    erasures: [{ device_id: 'a', remote: 'waiting' }],
  });
  expect(await gateway.operations.get('audit.list')?.({})).toMatchObject({
    entries: expect.arrayContaining([
      expect.objectContaining({ action: 'telemetry.delete', actor: 'user:anna', target: 'a' }),
    ]),
  });

  await gateway.close();
  server.influx.outage(false);
  gateway = await opened(folder, server.url);
  await until(() => gateway.figures().erasures.waiting === 0);
  await until(() => server.influx.count === 3);
  const values = [...server.influx.points()].map(({ series, fields }) => [
    /device_id=(\w+)/.exec(series)?.[1],
    fields.get('value'),
  ]);
  expect(values.sort()).toEqual([
    ['a', 3],
    ['b', 1],
    ['b', 2],
  ]);
  expect(server.deletes).toMatchObject([{ predicate: 'device_id="a" AND gateway="test"' }]);
});

test('a stretch of time by the route of the InfluxDB document, and who may not ask for it', async () => {
  const server = await startFluxInflux();
  const gateway = await opened(tempFolder(), server.url);
  const admin = await adminOf(gateway);
  const { apiKey } = await connectDevice(gateway, 'esp32_001');
  const call = (key: string, method: string, path: string, body = '') =>
    ask(port(gateway), path, method, { 'x-api-key': key, 'content-type': 'application/json' }, body);
  for (const timestamp of ['2024-01-01T00:00:00Z', '2024-01-01T12:00:00Z', '2024-01-02T00:00:00Z']) {
    await call(
      apiKey,
      'POST',
      '/api/v1/devices/telemetry',
      JSON.stringify({ data: { value: 1 }, timestamp }),
    );
  }
  await until(() => server.influx.count === 3);
  const path = '/api/v1/influxdb/device/esp32_001/data?start=2024-01-01T00:00:00Z&stop=2024-01-02T00:00:00Z';
  expect((await call(apiKey, 'DELETE', path)).status).toBe(403);
  expect((await call('', 'DELETE', path)).status).toBe(401);
  const reply = await call(admin, 'DELETE', path);
  expect(JSON.parse(reply.body)).toMatchObject({
    start_time: '2024-01-01T00:00:00Z',
    stop_time: '2024-01-02T00:00:00Z',
  });
  await until(() => gateway.figures().erasures.waiting === 0);
  expect([...server.influx.points()].map(({ timeNs }) => timeNs)).toEqual([1_704_153_600_000_000_000n]);
  const wrong = await call(admin, 'DELETE', path.replace('start=2024-01-01', 'start=2025-01-01'));
  expect(JSON.parse(wrong.body)).toMatchObject({
    error: { code: 'QUERY_INVALID', message: expect.stringContaining('start') },
  });
});
