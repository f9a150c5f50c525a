import { setTimeout as sleep } from 'node:timers/promises';
import { connectAsync, type MqttClient } from 'mqtt';
import { expect, test } from 'vitest';
import type { ShownCommand } from '../../src/commands/shown.ts';
import type { Gateway } from '../../src/gateway.ts';
import { ask as askHttp } from '../support/api.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { isSounding, makeLed } from '../support/led.ts';
import { canMount, fillDisk, smallDisk } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const topics = 'iotflow/devices/valve/commands';

async function ask(gateway: Gateway, operation: string, args: Record<string, unknown>): Promise<unknown> {
  const run = gateway.operations.get(operation);
  if (run === undefined) throw new Error(`no operation ${operation}`);
  return await run(args);
}

async function send(
  gateway: Gateway,
  kind: string,
  more: Record<string, unknown> = {},
): Promise<ShownCommand> {
  return (await ask(gateway, 'commands.send', { device_id: 'valve', kind, ...more })) as ShownCommand;
}

async function show(gateway: Gateway, { command_id }: ShownCommand): Promise<ShownCommand> {
  return (await ask(gateway, 'commands.show', { device_id: 'valve', command_id })) as ShownCommand;
}

/** What the device is sent; it answers as it is told. */
function listen(device: MqttClient, answer?: (command: { id: string; kind: string }) => string): string[] {
  const got: string[] = [];
  device.on('message', (topic, payload) => {
    const command = JSON.parse(payload.toString()) as { id: string; kind: string };
    got.push(command.kind);
    if (answer !== undefined) device.publish(`${topic}/ack`, answer(command), { qos: 1 });
  });
  return got;
}

test('a command reaches its device, its answer is seen, and both are in the history of the house', async () => {
  const gateway = await openGateway(tempFolder());
  const device = await connectDevice(gateway, 'valve');
  const got = listen(device, ({ id }) => JSON.stringify({ id, status: 'ok', message: 'shut' }));
  await device.subscribeAsync(`${topics}/+`, { qos: 1 });
  const sent = await send(gateway, 'close', { payload: { speed: 3 }, by: 'anna' });
  await until(async () => (await show(gateway, sent)).state === 'acknowledged');
  expect(await show(gateway, sent)).toMatchObject({ message: 'shut', actor: 'anna', attempts: 1 });
  expect(got).toEqual(['close']);
  // By the registry's number as well.
  expect(await ask(gateway, 'commands.list', { device_id: '1' })).toMatchObject({
    count: 1,
    commands: [{ device_id: 'valve' }],
  });
  await expect(ask(gateway, 'commands.list', { device_id: 'vlave' })).rejects.toMatchObject({
    code: 'DEVICE_UNKNOWN',
  });
  expect(gateway.figures().commands).toMatchObject({ submitted: 1, acknowledged: 1, pending: 0 });
  await until(async () => {
    const latest = (await ask(gateway, 'history.latest', { device_id: 'valve' })) as object;
    return JSON.stringify(latest).includes('command_ack');
  });
});

test('a simple node that subscribes with QoS 0 and answers without words is understood, and leaves no dead letters', async () => {
  const gateway = await openGateway(tempFolder());
  const device = await connectDevice(gateway, 'valve');
  listen(device, () => '');
  await device.subscribeAsync(`${topics}/+`, { qos: 0 });
  const sent = await send(gateway, 'restart');
  await until(async () => (await show(gateway, sent)).state === 'acknowledged');
  expect(gateway.figures().journal.deadLetters.letters).toBe(0);
});

test('a node asleep, and a gateway that is started again: every command comes in order when both are awake', async () => {
  const folder = tempFolder();
  const first = await openGateway(folder);
  const { apiKey } = await connectDevice(first, 'valve');
  const kinds = ['one', 'two', 'three'];
  const sent: ShownCommand[] = [];
  for (const kind of kinds) sent.push(await send(first, kind));
  await first.close();

  const gateway = await openGateway(folder);
  const device = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
    username: 'valve',
    password: apiKey,
    reconnectPeriod: 0,
  });
  const got = listen(device, ({ id }) => JSON.stringify({ id, status: 'ok' }));
  await device.subscribeAsync(`${topics}/+`, { qos: 1 });
  await until(async () => (await show(gateway, sent[2]!)).state === 'acknowledged');
  expect(got).toEqual(kinds);
  await device.endAsync();
});

test('a device that is revoked has nothing more waiting for it', async () => {
  const gateway = await openGateway(tempFolder());
  await ask(gateway, 'devices.add', { device_id: 'valve' });
  const sent = await send(gateway, 'open');
  await ask(gateway, 'devices.revoke', { device_id: 'valve' });
  expect(await show(gateway, sent)).toMatchObject({ state: 'failed' });
  await expect(send(gateway, 'open')).rejects.toMatchObject({ code: 'DEVICE_CONFLICT' });
});

test('while the card hangs a leak sounds whatever number of commands waits for it, and the valve is told all the same', async () => {
  const folder = tempFolder();
  const led = makeLed(folder);
  const disk = faultyDisk();
  const gateway = await openGateway(folder, { buzzer: { led } }, { disk });
  const probe = await connectDevice(gateway, 'probe');
  const device = await connectDevice(gateway, 'valve');
  const got = listen(device, ({ id }) => JSON.stringify({ id, status: 'ok' }));
  await device.subscribeAsync(`${topics}/+`, { qos: 1 });
  const release = disk.holdDatasync();
  let accepted = 0;
  const sending = Array.from({ length: 100 }, (_, n) =>
    send(gateway, `k${n}`).then(() => {
      accepted += 1;
    }),
  );
  const published = probe.publishAsync('iotflow/devices/probe/telemetry/leak', '{"wet": true}', { qos: 1 });
  await until(() => isSounding(led));
  await until(() => got.length > 0);
  expect(accepted).toBe(0);
  release();
  await Promise.all([...sending, published]);
  await until(() => gateway.figures().commands.acknowledged === 100);
  expect(got).toEqual(sending.map((_, n) => `k${n}`));
});

test.skipIf(!canMount())(
  'a command that a full disk refuses is told 503 and not given to its device; once there is room, the same is taken (needs root)',
  { timeout: 60_000 },
  async () => {
    const disk = smallDisk(64);
    const gateway = await openGateway(disk, { journal: { ring_segments: 4 } });
    await ask(gateway, 'users.add', { name: 'anna', role: 'admin', password: 'three blind mice' });
    const { token } = (await ask(gateway, 'users.token_add', { name: 'anna', label: 'test' })) as {
      token: string;
    };
    const device = await connectDevice(gateway, 'valve');
    const got = listen(device, ({ id }) => JSON.stringify({ id, status: 'ok' }));
    await device.subscribeAsync(`${topics}/+`, { qos: 1 });
    const headers = { 'x-api-key': token, 'content-type': 'application/json' };
    const path = '/api/v1/devices/valve/commands';
    const give = (kind: string) => {
      const body = JSON.stringify({ kind, idempotency_key: kind });
      return askHttp({ port: gateway.ports.http }, path, 'POST', headers, body);
    };
    expect((await give('before')).status).toBe(202);
    await ask(gateway, 'devices.add', { device_id: 'asleep' });

    const makeRoom = fillDisk(disk);
    // What is kept for events is used up as well.
    const fill = { device_id: 'asleep', kind: 'fill', payload: { text: 'x'.repeat(8_000) } };
    const fillMore = async () => {
      const { command_id } = (await ask(gateway, 'commands.send', fill)) as ShownCommand;
      await ask(gateway, 'commands.cancel', { device_id: 'asleep', command_id });
    };
    const codes = new Set<string>();
    while (!codes.has('JOURNAL_FULL')) {
      const filled = await Promise.allSettled(Array.from({ length: 20 }, fillMore));
      for (const one of filled) if (one.status === 'rejected') codes.add(one.reason.code);
    }
    expect([...codes]).toEqual(['JOURNAL_FULL']);
    const refused = await give('close');
    expect([refused.status, refused.headers['retry-after'], JSON.parse(refused.body)]).toMatchObject([
      503,
      '10',
      { error: { code: 'JOURNAL_FULL' } },
    ]);
    const list = async () =>
      ((await ask(gateway, 'commands.list', { device_id: 'valve' })) as { commands: ShownCommand[] })
        .commands;
    expect((await list()).map(({ kind }) => kind)).not.toContain('close');

    makeRoom();
    // No more often than the API allows.
    while ((await give('close')).status !== 202) await sleep(100);
    await until(async () => (await list()).at(-1)?.state === 'acknowledged');
    expect(got.filter((kind) => kind === 'close')).toEqual(['close']);
  },
);
