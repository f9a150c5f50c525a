// A node's HTTP side against a gateway that answers what the test wants, and against the real one.

import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { HttpLink } from '../../src/simulator/http-link.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

interface Heard {
  readonly path: string;
  readonly body: { readonly points?: readonly unknown[]; readonly data?: { readonly n: number } };
  readonly atMs: number;
}

interface Answer {
  readonly status: number;
  readonly headers?: Record<string, string>;
  readonly body?: unknown;
}

/** Answers request by request, then 201 to all; `cut` closes the connection instead. */
async function startServer(...answers: readonly (Answer | 'cut')[]) {
  const heard: Heard[] = [];
  const connections = new Set<unknown>();
  const server = createServer(async (request: IncomingMessage, response) => {
    connections.add(request.socket);
    let text = '';
    for await (const chunk of request) text += String(chunk);
    heard.push({ path: request.url ?? '', body: JSON.parse(text), atMs: performance.now() });
    const answer = answers[heard.length - 1] ?? { status: 201 };
    if (answer === 'cut') return void request.socket.destroy();
    response.writeHead(answer.status, { 'content-type': 'application/json', ...answer.headers });
    response.end(JSON.stringify(answer.body ?? {}));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const link = HttpLink.open({
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    deviceId: 'room',
    apiKey: 'gw_test',
    reconnectWaitMs: () => 10,
    onCommand: () => ({ status: 'ok' }),
  });
  onTestFinished(async () => {
    await link.close();
    server.close();
  });
  let seq = 0;
  const send = () => {
    seq += 1;
    return link.sendReading({ measurement: 'climate', fields: { n: seq } }, { boot: 7, seq });
  };
  return { link, heard, connections, send };
}

test('readings go one at a time over one connection, and those that waited in one batch', async () => {
  const { heard, connections, send } = await startServer();
  const deliveries = await Promise.all([send(), send(), send()]);
  expect(deliveries).toEqual(Array(3).fill({ kind: 'acknowledged' }));
  expect(heard.map(({ path }) => path)).toEqual([
    '/api/v1/devices/telemetry',
    '/api/v1/influxdb/telemetry/batch',
  ]);
  expect(heard[0]?.body).toEqual({ type: 'climate', data: { n: 1 }, boot: 7, seq: 1 });
  expect(heard[1]?.body.points).toEqual([
    { measurement: 'climate', fields: { n: 2 }, boot: 7, seq: 2 },
    { measurement: 'climate', fields: { n: 3 }, boot: 7, seq: 3 },
  ]);
  await send();
  expect(connections.size).toBe(1);
});

test('a busy gateway is asked again after its Retry-After, and not before', async () => {
  const { link, heard, send } = await startServer({ status: 429, headers: { 'retry-after': '1' } });
  expect(await send()).toEqual({ kind: 'acknowledged' });
  const [first, second] = heard;
  expect(second?.body).toEqual(first?.body);
  expect((second?.atMs ?? 0) - (first?.atMs ?? 0)).toBeGreaterThan(900);
  expect(link.figures()).toEqual({ isConnected: true, reconnects: 1, lastError: undefined });
});

test('what got no answer, or one that may change, is sent again until it is acknowledged', async () => {
  const { link, heard, send } = await startServer('cut', { status: 500 }, { status: 401 });
  expect(await send()).toEqual({ kind: 'acknowledged' });
  expect(heard.map(({ body }) => body.data?.n)).toEqual([1, 1, 1, 1]);
  expect(link.figures().reconnects).toBe(3);
});

test('of a batch exactly those are refused that the gateway names, with its reasons', async () => {
  const refused = [{ index: 1, error: { code: 'FIELD_TYPE', message: 'n: expected a number' } }];
  const { send } = await startServer(
    { status: 400, body: { error: { message: 'data.n: expected less' } } },
    { status: 207, body: { refused } },
  );
  expect(await Promise.all([send(), send(), send()])).toEqual([
    { kind: 'refused', reason: '400 data.n: expected less' },
    { kind: 'acknowledged' },
    { kind: 'refused', reason: 'n: expected a number' },
  ]);
});

test('out of reach it keeps what it has, and delivers it in order once it is back', async () => {
  const { link, heard, send } = await startServer();
  await send();
  link.setReach(false);
  const waiting = Promise.all([send(), send()]);
  expect(link.figures().isConnected).toBe(false);
  expect(heard).toHaveLength(1);
  link.setReach(true);
  expect(await waiting).toEqual(Array(2).fill({ kind: 'acknowledged' }));
  expect(heard.slice(1).map(({ body }) => body.points?.length ?? 1)).toEqual([2]);
});

test('the real gateway takes its readings, refuses a field of another type, and has its commands carried out', async () => {
  const gateway = await openGateway(await tempFolder());
  const added = await gateway.operations.get('devices.add')?.({ device_id: 'room' });
  const link = HttpLink.open({
    url: `http://127.0.0.1:${gateway.ports.http}`,
    deviceId: 'room',
    apiKey: (added as { api_key: string }).api_key,
    reconnectWaitMs: () => 50,
    onCommand: ({ kind }) => ({ status: kind === 'blink' ? 'ok' : 'failed' }),
    commandIntervalMs: 20,
  });
  onTestFinished(() => link.close());
  const send = (seq: number, value: number | string) =>
    link.sendReading({ measurement: 'climate', fields: { temperature_c: value } }, { boot: 1, seq });
  const deliveries = await Promise.all([send(1, 20), send(2, 21), send(3, 'warm'), send(4, 22), send(4, 22)]);
  expect(deliveries.map(({ kind }) => kind)).toEqual([
    'acknowledged',
    'acknowledged',
    'refused',
    'acknowledged',
    'acknowledged',
  ]);
  expect(deliveries[2]).toMatchObject({ reason: expect.stringContaining('temperature_c') });
  const latest = await gateway.operations.get('history.latest')?.({ device_id: 'room' });
  expect(latest).toMatchObject({ measurements: [{ fields: { temperature_c: { value: 22 } } }] });

  expect(await link.sendHeartbeat()).toEqual({ kind: 'acknowledged' });
  const commands = gateway.operations;
  for (const kind of ['blink', 'jump']) await commands.get('commands.send')?.({ device_id: 'room', kind });
  await expect
    .poll(async () => {
      const listed = await commands.get('commands.list')?.({ device_id: 'room' });
      const { commands: all } = listed as { commands: { kind: string; state: string }[] };
      return all.map(({ kind, state }) => `${kind} ${state}`).sort();
    })
    .toEqual(['blink acknowledged', 'jump failed']);
});
