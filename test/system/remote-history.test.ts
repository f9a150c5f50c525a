// Old readings through the whole gateway: forwarded to InfluxDB, and asked for there once local history begins later.

import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { ask } from '../support/api.ts';
import { queryToken, startFluxInflux } from '../support/flux-influx.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

async function opened() {
  const server = await startFluxInflux();
  const influx = { url: server.url, token: queryToken, flush_interval_ms: 20 };
  const gateway = await openGateway(tempFolder(), { influx });
  const { apiKey } = await connectDevice(gateway, 'esp32_001');
  const port = gateway.ports.http;
  const headers = { 'x-api-key': apiKey, 'content-type': 'application/json' };
  const post = (body: unknown) =>
    ask({ port }, '/api/v1/devices/telemetry', 'POST', headers, JSON.stringify(body));
  const get = async (path: string) => JSON.parse((await ask({ port }, path, 'GET', headers)).body);
  return { server, gateway, post, get, apiKey, port };
}

test('a reading of long ago is found in InfluxDB, one of now here, both in one answer that says so', async () => {
  const { server, post, get } = await opened();
  await post({ data: { temperature: 19 }, timestamp: '2025-07-02T14:30:00Z' });
  await post({ data: { temperature: 21 } });
  await until(() => server.influx.count === 2);
  const path = '/api/v1/telemetry/esp32_001?start_time=2025-07-01T00:00:00Z';
  expect(await get(path)).toMatchObject({
    source: 'both',
    count: 2,
    data: [
      { fields: { temperature: 21 } },
      { timestamp: '2025-07-02T14:30:00Z', fields: { temperature: 19 } },
    ],
  });
  expect(
    await get('/api/v1/telemetry/esp32_001/aggregated?start_time=2025-07-01T00:00:00Z&window=7d'),
  ).toMatchObject({
    source: 'remote',
    data: [{ field: 'temperature', aggregation: 'mean', value: 19 }, { value: 21 }],
  });
  expect(
    await get('/api/v1/influxdb/device/esp32_001/data?start=2025-07-01T00:00:00Z&stop=2025-08-01T00:00:00Z'),
  ).toMatchObject({
    source: 'remote',
    data_points: [{ field: 'temperature', value: 19 }],
  });
  server.influx.outage(true);
  expect(await get(path)).toMatchObject({
    source: 'local',
    count: 2,
    missing: { from: '2025-07-01T00:00:00Z', code: 'REMOTE_UNREACHABLE' },
  });
});

test('a question ends in InfluxDB as well when its client hangs up', async () => {
  const { server, gateway, apiKey, port } = await opened();
  server.script('query', ['hang']);
  const socket = connect(port ?? 0, '127.0.0.1');
  const path = '/api/v1/telemetry/esp32_001?start_time=-7d';
  socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: ${apiKey}\r\n\r\n`);
  await until(() => server.queries.length === 1);
  socket.destroy();
  await until(() => server.gone() === 1);
  await until(() => gateway.figures().remoteQuery?.cancelled === 1);
  // Nor is it a fault of the gateway, to be logged and counted as one.
  await ask({ port }, '/health');
  expect(gateway.figures().api?.failed).toBe(0);
});
