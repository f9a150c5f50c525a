// A desired configuration on its way to a device, through sleep, restarts and shutting out, and what comes back: with
// real clients against the whole gateway.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { connectAsync, type MqttClient } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { openRegistry } from '../../src/registry/open.ts';
import { ask as request } from '../support/api.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

type Told = Record<string, unknown>;

async function ask(gateway: Gateway, operation: string, args: Told): Promise<Told> {
  return (await gateway.operations.get(operation)?.(args)) as Told;
}

async function add(gateway: Gateway): Promise<string> {
  return (await ask(gateway, 'devices.add', { device_id: 'lamp' })).api_key as string;
}

/** A node that listens to its commands and remembers them; it answers `ok`, or not at all. */
async function wake(gateway: Gateway, password: string, isAnswering = true) {
  const client = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
    username: 'lamp',
    password,
    reconnectPeriod: 0,
  });
  client.on('error', () => undefined);
  onTestFinished(() => void client.end(true));
  const got: Told[] = [];
  client.on('message', (topic, payload) => {
    const command = JSON.parse(payload.toString()) as Told;
    got.push(command);
    const answer = JSON.stringify({ id: command.id, status: 'ok' });
    if (isAnswering) client.publish(`${topic}/ack`, answer, { qos: 1 });
  });
  await client.subscribeAsync('iotflow/devices/lamp/commands/+', { qos: 1 });
  return { got, sleep: () => client.endAsync(), client };
}

async function configOf(gateway: Gateway) {
  return (await ask(gateway, 'devices.config', { device_id: 'lamp' })) as {
    desired: { version: number };
    reported: { desired_version: number; config: Told; version: number };
  };
}

function configure(gateway: Gateway, config: Told) {
  return ask(gateway, 'devices.configure', { device_id: 'lamp', config });
}

function report(client: MqttClient, said: unknown) {
  return client.publishAsync('iotflow/devices/lamp/status/config', JSON.stringify(said), { qos: 1 });
}

test('what an administrator sets is pushed to the device, and what it answers is seen', async () => {
  const gateway = await openGateway(tempFolder());
  const lamp = await wake(gateway, await add(gateway));
  await ask(gateway, 'users.add', { name: 'anna', role: 'admin', password: 'correct horse battery' });
  const { token } = await ask(gateway, 'users.token_add', { name: 'anna', label: 'shell' });
  const headers = { authorization: `Bearer ${String(token)}`, 'content-type': 'application/json' };
  const put = (body: string) =>
    request({ port: gateway.ports.http }, '/api/v1/admin/devices/lamp/config', 'PUT', headers, body);
  const first = await put('{"interval_s": 30, "led": {"level": 7}}');
  expect(first.status).toBe(200);
  expect(JSON.parse(first.body)).toMatchObject({
    desired: { version: 1 },
    command: { command_id: expect.any(String), state: expect.any(String) },
  });
  await until(async () => (await configOf(gateway)).reported.desired_version === 1);
  expect(lamp.got).toMatchObject([
    { kind: 'config', version: 1, config: { interval_s: 30, led: { level: 7 } } },
  ]);
  // The device has it: nothing is to be sent.
  expect(JSON.parse((await put('{"interval_s": 30, "led": {"level": 7}}')).body)).toMatchObject({
    desired: { version: 1 },
    command: null,
  });

  await report(lamp.client, { config: { interval_s: 30 }, firmware_version: '1.2.3' });
  expect((await configOf(gateway)).reported).toMatchObject({ version: 1, config: { interval_s: 30 } });
  expect(await ask(gateway, 'devices.show', { device_id: 'lamp' })).toMatchObject({
    firmware_version: '1.2.3',
  });
  expect(gateway.figures().journal.deadLetters.letters).toBe(0);
});

test('a device that slept through changes and restarts gets the newest version alone', async () => {
  const folder = tempFolder();
  const first = await openGateway(folder);
  const key = await add(first);
  await configure(first, { interval_s: 10 });
  await configure(first, { interval_s: 20 });
  await first.close();
  const gateway = await openGateway(folder);
  expect(gateway.figures().commands).toMatchObject({ pending: 1 });
  const lamp = await wake(gateway, key);
  await until(async () => (await configOf(gateway)).reported.desired_version === 2);
  expect(lamp.got).toMatchObject([{ version: 2, config: { interval_s: 20 } }]);
  await lamp.sleep();
  // Connected again it has nothing to do.
  const again = await wake(gateway, key);
  expect(gateway.figures().commands).toMatchObject({ pending: 0 });
  expect(again.got).toEqual([]);
});

test('what was set and is not on its way yet, as after a power cut in between, goes on its way at the next start', async () => {
  const folder = tempFolder();
  const first = await openGateway(folder);
  const key = await add(first);
  await first.close();
  const log = createLog('silent');
  const state = await LevelStore.open(join(folder, 'data', 'state'), { log });
  const witness = fileWitness(join(folder, 'data', 'state', 'registry-revisions'));
  const store = state.room('registry');
  const { registry, configs } = await openRegistry({
    store,
    clock: systemClock(),
    randomBytes,
    witness,
    log,
  });
  await configs.setDesired(registry.find('lamp')!, { interval_s: 10 }, 'cli');
  await state.close();
  const gateway = await openGateway(folder);
  const lamp = await wake(gateway, key);
  await until(async () => (await configOf(gateway)).reported.desired_version === 1);
  expect(lamp.got).toMatchObject([{ version: 1, config: { interval_s: 10 } }]);
});

test('one that could not come in meanwhile gets it when it may', async () => {
  const gateway = await openGateway(tempFolder());
  const key = await add(gateway);
  await configure(gateway, { interval_s: 10 });
  await ask(gateway, 'devices.update', { device_id: 'lamp', status: 'inactive' });
  expect(await configure(gateway, { interval_s: 20 })).toMatchObject({ command: null });
  expect(gateway.figures().commands).toMatchObject({ pending: 0 });
  await ask(gateway, 'devices.update', { device_id: 'lamp', status: 'active' });
  await wake(gateway, key);
  await until(async () => (await configOf(gateway)).reported.desired_version === 2);
});

test('one that says by itself what it took over is asked no more, and is told only the version of what is too large', async () => {
  const gateway = await openGateway(tempFolder());
  const lamp = await wake(gateway, await add(gateway), false);
  await configure(gateway, { text: 'x'.repeat(10_000) });
  await until(async () => lamp.got.length === 1);
  expect(lamp.got[0]).toEqual({ id: expect.any(String), kind: 'config', version: 1 });
  await report(lamp.client, { desired_version: 1 });
  expect((await configOf(gateway)).reported.desired_version).toBe(1);
  expect(gateway.figures().commands).toMatchObject({ pending: 0, cancelled: 1 });
});

test('what is no report is a message like any other', async () => {
  const gateway = await openGateway(tempFolder());
  const lamp = await wake(gateway, await add(gateway));
  for (const said of [
    'loaded',
    { config: 'loaded' },
    { desired_version: -1 },
    { config: { x: 'x'.repeat(20_000) } },
  ]) {
    await report(lamp.client, said);
  }
  expect((await configOf(gateway)).reported.version).toBe(0);
  expect(gateway.figures().ingest.messages).toBe(4);
});
