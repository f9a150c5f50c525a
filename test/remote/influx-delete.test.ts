import { expect, test } from 'vitest';
import { influxDeleter } from '../../src/remote/influx-delete.ts';
import { influxHealth } from '../../src/remote/influx-health.ts';
import { queryToken, startFluxInflux } from '../support/flux-influx.ts';

const targetOf = (url: string, token = queryToken) => ({ url, token, org: 'iotflow', bucket: 'telemetry' });
const deletion = { deviceId: 'node-1', fromNs: 10n, toNs: 20n };
const never = new AbortController().signal;

test('deletes between the two times, of this device of this gateway alone', async () => {
  const server = await startFluxInflux();
  const lines = [9, 10, 19, 20].map((time) => `m,device_id=node-1,gateway=gw-1 v=1 ${time}`);
  await server.write(
    [...lines, 'm,device_id=node-1,gateway=gw-2 v=1 15', 'm,device_id=node-2,gateway=gw-1 v=1 15'].join('\n'),
  );
  expect(await influxDeleter(targetOf(server.url), 'gw-1', 5_000)(deletion, never)).toEqual({ kind: 'done' });
  expect([...server.influx.points()].map(({ series, timeNs }) => `${series} ${timeNs}`).sort()).toEqual([
    'm,device_id=node-1,gateway=gw-1 20',
    'm,device_id=node-1,gateway=gw-1 9',
    'm,device_id=node-1,gateway=gw-2 15',
    'm,device_id=node-2,gateway=gw-1 15',
  ]);
});

test('tries again what may be mended, gives up on what InfluxDB itself says it never will, and keeps the token to itself', async () => {
  const server = await startFluxInflux();
  const remove = influxDeleter(targetOf(server.url), 'gw-1', 200);
  const kinds: string[] = [];
  for (const status of [400, 401, 404, 429, 501, 503]) {
    server.script('delete', [{ status, message: `no ${queryToken}` }]);
    const outcome = await remove(deletion, never);
    kinds.push(`${status} ${outcome.kind}${'isForPeople' in outcome && outcome.isForPeople ? '!' : ''}`);
    expect(JSON.stringify(outcome)).not.toContain(queryToken);
  }
  expect(kinds).toEqual(['400 refused', '401 retry!', '404 refused', '429 retry', '501 retry', '503 retry']);
  server.script('delete', ['hang']);
  expect(await remove(deletion, never)).toMatchObject({
    kind: 'retry',
    reason: 'no complete answer within 200 ms',
  });
  server.script('delete', ['stall']);
  expect(await remove(deletion, never)).toMatchObject({ kind: 'retry' });
  const stop = new AbortController();
  stop.abort();
  expect(await remove(deletion, stop.signal)).toMatchObject({ kind: 'retry', reason: 'stopped' });
  server.influx.outage(true);
  expect(await remove(deletion, never)).toMatchObject({ kind: 'retry' });
});

test('a server that only pings is alive, one that is away is not', async () => {
  const server = await startFluxInflux();
  const health = influxHealth(targetOf(server.url), 5_000);
  expect(await health()).toMatchObject({ status: 'pass', message: 'ready for queries and writes' });
  server.influx.outage(true);
  expect(await health()).toMatchObject({ status: 'fail' });
});
