// What an account may do over MQTT in each of its states, and what is left of it once it was shut out: with real
// clients against the whole gateway, and across its restarts.

import { randomBytes } from 'node:crypto';
import { Agent, request as httpRequest } from 'node:http';
import { join } from 'node:path';
import { connectAsync, type IClientOptions, type MqttClient } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { openRegistry } from '../../src/registry/open.ts';
import type { RegistryParts } from '../../src/registry/operations.ts';
import { ask as request } from '../support/api.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

async function ask(gateway: Gateway, operation: string, args: Record<string, unknown>): Promise<unknown> {
  return await gateway.operations.get(operation)?.(args);
}

async function connectAs(
  gateway: Gateway,
  username: string,
  password: string,
  options: IClientOptions = {},
): Promise<MqttClient> {
  const url = `mqtt://127.0.0.1:${gateway.ports.mqtt}`;
  const client = await connectAsync(url, { username, password, reconnectPeriod: 0, ...options });
  client.on('error', () => undefined);
  onTestFinished(() => void client.end(true));
  return client;
}

/** The reason a login was refused for; `in` when it was not. */
async function loginOf(gateway: Gateway, username: string, password: string, protocolVersion: 4 | 5 = 4) {
  try {
    await (await connectAs(gateway, username, password, { protocolVersion })).endAsync();
    return 'in';
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
}

/** What an operator does beside a stopped gateway. */
async function beside(folder: string, use: (parts: RegistryParts) => Promise<unknown>): Promise<void> {
  const log = createLog('silent');
  const path = join(folder, 'data', 'state');
  const state = await LevelStore.open(path, { log });
  const witness = fileWitness(join(path, 'registry-revisions'));
  const store = state.room('registry');
  const parts = await openRegistry({ store, clock: systemClock(), randomBytes, witness, log });
  await use(parts);
  await state.close();
}

test('each status lets in whom it should, and says so to nobody without the key', async () => {
  const gateway = await openGateway(tempFolder());
  const { api_key } = (await ask(gateway, 'devices.add', { device_id: 'probe' })) as { api_key: string };
  const expected = { active: 'in', inactive: 5, maintenance: 'in' } as const;
  for (const [status, outcome] of Object.entries(expected)) {
    await ask(gateway, 'devices.update', { device_id: 'probe', status });
    expect(await loginOf(gateway, 'probe', api_key), status).toBe(outcome);
    // 0x87, not authorized.
    expect(await loginOf(gateway, 'probe', api_key, 5), status).toBe(outcome === 5 ? 0x87 : 'in');
    expect(await loginOf(gateway, 'probe', `${api_key}x`), status).toBe(4);
  }
  await ask(gateway, 'devices.revoke', { device_id: 'probe' });
  expect(await loginOf(gateway, 'probe', api_key)).toBe(4);
});

test('a key that was rotated holds as long as it was told to, and so do its connections', async () => {
  const gateway = await openGateway(tempFolder());
  const old = await connectDevice(gateway, 'probe');
  const ended = new Promise<void>((resolve) => old.once('close', () => resolve()));
  const rotate = async (grace_ms: number) =>
    ((await ask(gateway, 'devices.rotate', { device_id: 'probe', grace_ms })) as { api_key: string }).api_key;
  const next = await rotate(500);
  expect(old.connected).toBe(true);
  await ended;
  expect(await loginOf(gateway, 'probe', old.apiKey)).toBe(4);
  expect(await loginOf(gateway, 'probe', next)).toBe('in');
  const last = await rotate(0);
  expect(await loginOf(gateway, 'probe', next)).toBe(4);
  expect(await loginOf(gateway, 'probe', last)).toBe('in');
});

test('a key that was revoked ends on an HTTP connection that is already open', async () => {
  const gateway = await openGateway(tempFolder());
  const { apiKey } = await connectDevice(gateway, 'probe');
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  const beat = () =>
    new Promise<readonly [status: number | undefined, port: number | undefined]>((resolve, reject) => {
      const path = '/api/v1/devices/heartbeat';
      const options = {
        port: gateway.ports.http,
        path,
        method: 'POST',
        agent,
        headers: { 'x-api-key': apiKey },
      };
      const sent = httpRequest(options, (reply) => {
        const { localPort } = reply.socket;
        reply.resume().once('end', () => resolve([reply.statusCode, localPort]));
      });
      sent.once('error', reject).end();
    });
  const [before, connection] = await beat();
  await ask(gateway, 'devices.revoke', { device_id: 'probe' });
  expect([before, await beat()]).toEqual([200, [401, connection]]);
});

test('a connection ends when its device is made inactive, and is shown as gone', async () => {
  const gateway = await openGateway(tempFolder());
  const client = await connectDevice(gateway, 'probe');
  expect(await ask(gateway, 'devices.show', { device_id: 'probe' })).toMatchObject({
    online: true,
    seen: true,
  });
  const closed = new Promise<void>((resolve) => client.once('close', () => resolve()));
  await ask(gateway, 'devices.update', { device_id: 'probe', status: 'inactive' });
  await closed;
  expect(await ask(gateway, 'devices.show', { device_id: 'probe' })).toMatchObject({ online: false });
});

test('a device that registers over HTTP in a pairing window is let in over MQTT, and its key by HTTP, until it is removed', async () => {
  const gateway = await openGateway(tempFolder());
  await ask(gateway, 'devices.pair', { for_ms: 60_000 });
  const headers = { 'content-type': 'application/json' };
  const post = await request(
    { port: gateway.ports.http },
    '/api/v1/devices/register',
    'POST',
    headers,
    '{"name":"Probe"}',
  );
  const { api_key } = (JSON.parse(post.body) as { device: { api_key: string } }).device;
  const key = { 'x-api-key': api_key };
  expect(await loginOf(gateway, 'probe', api_key)).toBe('in');
  const statusOf = async (path: string) =>
    (await request({ port: gateway.ports.http }, path, 'GET', key)).status;
  expect(await statusOf('/api/v1/devices/status')).toBe(200);
  await ask(gateway, 'devices.remove', { device_id: '1' });
  expect(await statusOf('/api/v1/devices/status')).toBe(401);
  expect(await loginOf(gateway, 'probe', api_key)).toBe(4);
});

test('the dashboard sums up what runs, for a service account', async () => {
  const gateway = await openGateway(tempFolder());
  const service = await connectDevice(gateway, 'home', { service: true });
  await ask(gateway, 'devices.add', { device_id: 'probe', type: 'leak_probe' });
  const key = { 'x-api-key': service.apiKey };
  const { status, body } = await request({ port: gateway.ports.http }, '/api/v1/admin/dashboard', 'GET', key);
  expect(status).toBe(200);
  expect(JSON.parse(body)).toMatchObject({
    status: 'success',
    device_stats: {
      total: 2,
      active: 2,
      inactive: 0,
      maintenance: 0,
      pending: 0,
      online: 1,
      offline: 1,
      by_type: { '': 1, leak_probe: 1 },
    },
    recent_devices: [{ device_id: 'probe' }, { device_id: 'home' }],
    recently_seen: [{ device_id: 'home', online: true }],
    telemetry_stats: { points_since_start: 0 },
    alarm_stats: { count: 0 },
    command_stats: { pending: 0 },
    user_stats: { users: 0 },
    backlog: { points: 0, state: 'disabled' },
  });
});

test('a device that registered by itself waits outside until it is approved', async () => {
  const folder = tempFolder();
  let apiKey = '';
  await (await openGateway(folder)).close();
  await beside(folder, async ({ enrolment }) => {
    ({ apiKey } = await enrolment.register({ name: 'Probe' }));
  });
  const gateway = await openGateway(folder);
  expect(await loginOf(gateway, 'probe', apiKey)).toBe(5);
  expect(await loginOf(gateway, 'probe', `${apiKey}x`)).toBe(4);
  await ask(gateway, 'devices.approve', { device_id: 'probe' });
  expect(await loginOf(gateway, 'probe', apiKey)).toBe('in');
});

/** A device with a session, a queued command, and a retained status, whose gateway was stopped. */
async function leftBehind(folder: string) {
  const gateway = await openGateway(folder);
  const service = await connectDevice(gateway, 'service', { service: true });
  const key = ((await ask(gateway, 'devices.add', { device_id: 'probe' })) as { api_key: string }).api_key;
  const durable: IClientOptions = { clientId: 'probe-1', clean: false };
  const probe = await connectAs(gateway, 'probe', key, durable);
  await probe.subscribeAsync('iotflow/devices/probe/commands/#', { qos: 1 });
  await probe.publishAsync('iotflow/devices/probe/status/online', 'yes', { qos: 1, retain: true });
  await probe.endAsync();
  await service.publishAsync('iotflow/devices/probe/commands/open', 'now', { qos: 1 });
  expect(gateway.figures().mqtt).toMatchObject({ queuedMessages: 1, retained: 1 });
  await gateway.close();
  return { key, durable };
}

test('what a device left at the broker is still its own after a restart', async () => {
  const folder = tempFolder();
  const { key, durable } = await leftBehind(folder);
  const gateway = await openGateway(folder);
  expect(gateway.figures().mqtt).toMatchObject({ sessions: 1, queuedMessages: 1, retained: 1 });
  const probe = await connectAs(gateway, 'probe', key, durable);
  await expect.poll(() => gateway.figures().mqtt.queuedMessages).toBe(0);
  await probe.endAsync();
});

test('nothing of a device that was removed while the gateway was stopped is left at the broker', async () => {
  const folder = tempFolder();
  await leftBehind(folder);
  await beside(folder, ({ registry }) => registry.remove('probe'));
  const gateway = await openGateway(folder);
  expect(gateway.figures().mqtt).toMatchObject({ sessions: 0, queuedMessages: 0, retained: 0 });
});

test('nor is the session of one that was revoked and let in again, or removed and made anew, meanwhile', async () => {
  const rounds: ((parts: RegistryParts) => Promise<unknown>)[] = [
    ({ registry }) => registry.revoke('probe').then(() => registry.rotate('probe')),
    ({ registry }) => registry.remove('probe').then(() => registry.add({ deviceId: 'probe' })),
  ];
  for (const round of rounds) {
    const folder = tempFolder();
    await leftBehind(folder);
    await beside(folder, round);
    const gateway = await openGateway(folder);
    expect(gateway.figures().mqtt).toMatchObject({ sessions: 0, queuedMessages: 0 });
    await gateway.close();
  }
});

test('a device that is removed while it is connected goes at once, with all it left', async () => {
  const gateway = await openGateway(tempFolder());
  const service = await connectDevice(gateway, 'service', { service: true });
  const key = ((await ask(gateway, 'devices.add', { device_id: 'probe' })) as { api_key: string }).api_key;
  const will = {
    topic: 'iotflow/devices/probe/status/offline',
    payload: Buffer.from('will'),
    qos: 1,
    retain: false,
  };
  const probe = await connectAs(gateway, 'probe', key, {
    clientId: 'p',
    clean: false,
    will: { ...will, qos: 1 },
  });
  await probe.subscribeAsync('iotflow/devices/probe/#', { qos: 1 });
  await probe.publishAsync('iotflow/devices/probe/status/online', 'yes', { qos: 1, retain: true });
  await service.subscribeAsync('iotflow/devices/probe/status/offline', { qos: 1 });
  const heard: string[] = [];
  service.on('message', (topic) => heard.push(topic));
  const closed = new Promise<void>((resolve) => probe.once('close', () => resolve()));
  await ask(gateway, 'devices.remove', { device_id: 'probe' });
  await closed;
  await service.publishAsync('iotflow/devices/service/status/heartbeat', '1', { qos: 1 });
  expect(heard).toEqual([]);
  expect(gateway.figures().mqtt).toMatchObject({ sessions: 0, retained: 0 });
  expect(await loginOf(gateway, 'probe', key)).toBe(4);
});

test('a device that is removed with its readings leaves none to whoever gets its id', async () => {
  const gateway = await openGateway(tempFolder());
  const probe = await connectDevice(gateway, 'probe');
  const send = () =>
    probe.publishAsync('iotflow/devices/probe/telemetry/climate', '{"temperature": 21}', { qos: 1 });
  const readings = async () =>
    ((await ask(gateway, 'history.latest', { device_id: 'probe' })) as { measurements: unknown[] })
      .measurements;
  await send();
  expect(await readings()).toHaveLength(1);
  const closed = new Promise<void>((resolve) => probe.once('close', () => resolve()));
  expect(await ask(gateway, 'devices.remove', { device_id: 'probe', readings: true })).toMatchObject({
    removed: true,
    erasure: { local: 'done', remote: 'none' },
  });
  await closed;
  await connectDevice(gateway, 'probe');
  expect(await readings()).toEqual([]);
});
