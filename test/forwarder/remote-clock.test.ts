import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { RemoteClock } from '../../src/forwarder/remote-clock.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { until } from '../support/until.ts';

test('any answer says what time it is, whoever cannot answer is asked again, and nobody once it is stopped', async () => {
  const asked: (string | undefined)[] = [];
  const server = createServer((request, response) => {
    asked.push(`${request.method} ${request.url} ${request.headers.authorization ?? 'no token'}`);
    if (asked.length === 1) {
      request.destroy();
      return;
    }
    response.writeHead(404, { date: 'Sat, 21 Nov 2026 10:00:00 GMT' }).end('no such page');
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const heard: { dateMs: number; roundTripMs: number }[] = [];
  const remote = RemoteClock.start({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/influx/`,
    clock: systemClock(),
    observe: (answer) => heard.push(answer),
    intervalMs: 5,
  });
  onTestFinished(() => remote.stop());
  await until(() => heard.length >= 2);
  remote.stop();
  expect(heard[0]?.dateMs).toBe(Date.UTC(2026, 10, 21, 10));
  expect(heard[0]?.roundTripMs).toBeGreaterThan(0);
  expect(new Set(asked)).toEqual(new Set(['GET /influx/ping no token']));
  const { length } = heard;
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(heard.length).toBe(length);
});
