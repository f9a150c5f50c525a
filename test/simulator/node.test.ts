// A virtual node at the real gateway: what it says, what it obeys, and that its books balance.

import type { MqttClient } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { isDeviceId } from '../../src/model/topic.ts';
import { MqttLink } from '../../src/simulator/mqtt-link.ts';
import { SimulatedNode, type SimulatedNodeOptions } from '../../src/simulator/node.ts';
import { fleetDevices, presets } from '../../src/simulator/presets.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

async function startNode(
  gateway: Gateway,
  deviceId: string,
  options: Partial<SimulatedNodeOptions> = {},
): Promise<SimulatedNode> {
  const added = (await gateway.operations.get('devices.add')?.({ device_id: deviceId })) as {
    api_key: string;
  };
  const node = SimulatedNode.start({
    kind: 'door-lock',
    intervalMs: 50,
    lossShare: 0,
    random: seededRandom(1),
    openLink: (onCommand) =>
      MqttLink.open({
        url: `mqtt://127.0.0.1:${gateway.ports.mqtt}`,
        topicRoot: 'iotflow',
        deviceId,
        login: { username: deviceId, password: added.api_key },
        reconnectWaitMs: () => 50,
        onCommand,
      }),
    ...options,
  });
  onTestFinished(() => node.stop(0));
  return node;
}

interface Heard {
  readonly topic: string;
  readonly payload: string;
}

async function hear(client: MqttClient, filter: string): Promise<Heard[]> {
  const heard: Heard[] = [];
  client.on('message', (topic, payload) => heard.push({ topic, payload: payload.toString() }));
  await client.subscribeAsync(filter, { qos: 1 });
  return heard;
}

test('a door lock unlocks on command, says so, and shows it in its readings', async () => {
  const gateway = await openGateway(await tempFolder());
  const node = await startNode(gateway, 'door');
  const service = await connectDevice(gateway, 'home', { service: true });
  const heard = await hear(service, 'iotflow/devices/door/#');
  await expect.poll(() => node.figures().acknowledged).toBeGreaterThan(0);

  await service.publishAsync('iotflow/devices/door/commands/unlock', '{"id":"c1"}', { qos: 1 });
  await expect
    .poll(() => heard)
    .toContainEqual({
      topic: 'iotflow/devices/door/commands/unlock/ack',
      payload: '{"id":"c1","status":"ok"}',
    });
  await expect
    .poll(() => heard.filter(({ topic }) => topic.endsWith('/lock')).at(-1)?.payload)
    .toMatch(/"locked":false/);
  expect(node.figures().commands).toBe(1);
});

test('a new interval holds at once, and a command a device does not know is answered as failed', async () => {
  const gateway = await openGateway(await tempFolder());
  const node = await startNode(gateway, 'door', { intervalMs: 3_600_000 });
  const service = await connectDevice(gateway, 'home', { service: true });
  const heard = await hear(service, 'iotflow/devices/door/commands/+/ack');
  await expect.poll(() => node.figures().acknowledged).toBe(1);

  await service.publishAsync('iotflow/devices/door/commands/config', '{"id":1,"interval_ms":10}', { qos: 1 });
  await expect.poll(() => node.figures().acknowledged).toBeGreaterThan(5);
  await service.publishAsync('iotflow/devices/door/commands/config', '{"id":2,"interval_ms":-1}', { qos: 1 });
  await service.publishAsync('iotflow/devices/door/commands/snapshot', '{"id":3}', { qos: 1 });
  await expect
    .poll(() => heard.map(({ payload }) => payload))
    .toEqual([
      '{"id":1,"status":"ok"}',
      '{"id":2,"status":"failed","message":"interval_ms: expected 1 to 86400000"}',
      '{"id":3,"status":"failed","message":"a door-lock does not know snapshot"}',
    ]);
});

test('a node that fails leaves without a goodbye, and delivers again once it is mended', async () => {
  const gateway = await openGateway(await tempFolder());
  const node = await startNode(gateway, 'door');
  const service = await connectDevice(gateway, 'home', { service: true });
  const heard = await hear(service, 'iotflow/devices/door/status/online');
  await expect.poll(() => node.figures().acknowledged).toBeGreaterThan(2);

  node.setFailed(true);
  await expect.poll(() => heard.at(-1)?.payload).toBe('offline');
  expect(node.figures().connected).toBe(false);
  const before = node.figures().sent;
  await new Promise((resolve) => setTimeout(resolve, 300));
  expect(node.figures().sent).toBe(before);

  node.setFailed(false);
  await expect.poll(() => heard.at(-1)?.payload).toBe('online');
  await expect.poll(() => node.figures().acknowledged).toBeGreaterThan(before);
  expect(node.figures().reconnects).toBe(1);
  await node.stop(20_000);
  expect(node.figures()).toMatchObject({ refused: 0, overflowed: 0 });
  expect(node.figures().acknowledged).toBe(node.figures().sent);
});

test('what a node measures without a network arrives when it is back: all of it, in order, once', async () => {
  const gateway = await openGateway(await tempFolder());
  const node = await startNode(gateway, 'door', { intervalMs: 10 });
  const service = await connectDevice(gateway, 'home', { service: true });
  const heard = await hear(service, 'iotflow/devices/door/telemetry/lock');
  await expect.poll(() => heard.length).toBeGreaterThan(2);
  for (let times = 1; times <= 3; times += 1) {
    node.setCutOff(true);
    expect(node.figures().connected).toBe(false);
    const { sent, acknowledged } = node.figures();
    // More than may be out at once.
    await expect.poll(() => node.figures().sent).toBeGreaterThan(sent + 50);
    expect(node.figures().acknowledged).toBe(acknowledged);
    node.setCutOff(false);
    await expect.poll(() => node.figures().acknowledged).toBeGreaterThan(sent + 50);
  }
  await node.stop(20_000);
  const { sent, acknowledged, reconnects } = node.figures();
  expect([acknowledged, reconnects]).toEqual([sent, 3]);
  const sequence = () => heard.map(({ payload }) => (JSON.parse(payload) as { seq: number }).seq);
  await expect.poll(() => sequence().at(-1)).toBe(sent);
  const [first = 0] = sequence();
  const expected = Array.from({ length: sent - first + 1 }, (_, index) => first + index);
  expect([...new Set(sequence())]).toEqual(expected);
});

test('what is lost on purpose is counted and never sent', async () => {
  const gateway = await openGateway(await tempFolder());
  const node = await startNode(gateway, 'door', { intervalMs: 5, lossShare: 0.5 });
  await expect.poll(() => node.figures().lost).toBeGreaterThan(20);
  await node.stop(5000);
  const { sent, lost, acknowledged } = node.figures();
  expect(acknowledged).toBe(sent);
  expect(lost / (lost + sent)).toBeGreaterThan(0.2);
  expect(lost / (lost + sent)).toBeLessThan(0.8);
});

test('a home has 9 devices, an office 16, a factory 30, all under names of their own', () => {
  expect(presets.map((preset) => fleetDevices(preset).length)).toEqual([9, 16, 30]);
  const ids = presets.flatMap((preset) => fleetDevices(preset)).map(({ deviceId }) => deviceId);
  expect(new Set(ids).size).toBe(55);
  expect(ids.filter((id) => !isDeviceId(id) || !id.startsWith('sim-'))).toEqual([]);
});
