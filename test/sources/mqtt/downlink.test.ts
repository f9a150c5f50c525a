import { expect, test } from 'vitest';
import type { Delivery } from '../../../src/model/command.ts';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { until } from '../../support/until.ts';

const commands = 'iotflow/devices/probe-1/commands';
const open = { id: 'c1', kind: 'open', payload: Buffer.from('{"id":"c1"}') };

async function login(port: number, options = {}, version: 4 | 5 = 4): Promise<Wire> {
  const wire = await Wire.tcp(port, version);
  const connack = await wire.login('probe-1', options);
  expect(connack[version === 5 ? 'reasonCode' : 'returnCode']).toBe(0);
  return wire;
}

function reachedIn(gateway: TestGateway): string[] {
  const reached: string[] = [];
  gateway.source.downlink.onReachable((deviceId) => reached.push(deviceId));
  return reached;
}

async function outcome(delivery: Promise<Delivery>): Promise<string> {
  return (await delivery).kind;
}

test.each([
  [4, `${commands}/+`, true],
  [4, `${commands}/#`, false],
  [5, `${commands}/open`, true],
] as const)(
  'version %i, subscribed to %s, clean %s: delivered means that the device sent its PUBACK',
  async (version, filter, clean) => {
    const gateway = await startGateway();
    const reached = reachedIn(gateway);
    const device = await login(gateway.port, { clean }, version);
    expect(reached).toEqual([]);
    await device.subscribe(filter, 1);
    await until(() => reached.length === 1);
    let delivery: Delivery | undefined;
    void gateway.source.downlink.deliver('probe-1', open).then((found) => (delivery = found));
    const got = await device.next('publish');
    expect(got).toMatchObject({ topic: `${commands}/open`, qos: 1, retain: false, dup: false });
    expect(got.payload?.toString()).toBe('{"id":"c1"}');
    await device.ping();
    expect(delivery).toBeUndefined();
    device.send({ cmd: 'puback', messageId: got.messageId });
    await until(() => delivery !== undefined);
    expect(delivery).toEqual({ kind: 'taken' });
  },
);

test('a session that comes back with its subscriptions is reachable at once, and nothing was queued in it', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port, { clean: false });
  await device.subscribe(`${commands}/#`, 1);
  device.destroy();
  await until(() => gateway.source.stats().sockets === 0);
  expect(await gateway.source.downlink.deliver('probe-1', open)).toEqual({ kind: 'offline', wasSent: false });
  const reached = reachedIn(gateway);
  const again = await login(gateway.port, { clean: false });
  await until(() => reached.length === 1);
  const delivery = gateway.source.downlink.deliver('probe-1', open);
  const got = await again.next('publish');
  again.send({ cmd: 'puback', messageId: got.messageId });
  expect(await outcome(delivery)).toBe('taken');
  await again.ping();
  expect(again.count('publish')).toBe(0);
  expect(gateway.source.stats().queuedMessages).toBe(0);
});

test('a device that goes away before its PUBACK has not got it', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port);
  await device.subscribe(`${commands}/+`, 1);
  const delivery = gateway.source.downlink.deliver('probe-1', open);
  await device.next('publish');
  device.destroy();
  expect(await delivery).toEqual({ kind: 'offline', wasSent: true });
});

test('a subscription with QoS 0 can confirm nothing: sent is all there is', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port);
  await device.subscribe(`${commands}/+`, 0);
  expect(await outcome(gateway.source.downlink.deliver('probe-1', open))).toBe('sent');
  expect(await device.next('publish')).toMatchObject({ qos: 0 });
});

test('a device that refuses it (MQTT 5) is not sent it again', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port, {}, 5);
  await device.subscribe(`${commands}/+`, 1);
  const delivery = gateway.source.downlink.deliver('probe-1', open);
  const got = await device.next('publish');
  device.send({ cmd: 'puback', messageId: got.messageId, reasonCode: 0x99 });
  expect(await delivery).toEqual({ kind: 'refused', reason: 'MQTT reason 0x99' });
});

test('a client that takes few or small messages gets no more and no larger ones (MQTT 5)', async () => {
  const gateway = await startGateway();
  const properties = { receiveMaximum: 1, maximumPacketSize: 100 };
  const device = await login(gateway.port, { properties }, 5);
  await device.subscribe(`${commands}/+`, 1);
  const { downlink } = gateway.source;
  const large = { ...open, payload: Buffer.alloc(100) };
  expect(await downlink.deliver('probe-1', large)).toMatchObject({ kind: 'refused' });
  const first = downlink.deliver('probe-1', open);
  const got = await device.next('publish');
  expect(await outcome(downlink.deliver('probe-1', open))).toBe('busy');
  device.send({ cmd: 'puback', messageId: got.messageId });
  expect(await outcome(first)).toBe('taken');
  const second = downlink.deliver('probe-1', open);
  device.send({ cmd: 'puback', messageId: (await device.next('publish')).messageId });
  expect(await outcome(second)).toBe('taken');
});

test('only the device itself gets it, and of several connections the latest that listens', async () => {
  const gateway = await startGateway();
  const older = await login(gateway.port, { clientId: 'older' });
  await older.subscribe(`${commands}/+`, 1);
  const newer = await login(gateway.port, { clientId: 'newer' });
  await newer.subscribe(`${commands}/+`, 1);
  const deaf = await login(gateway.port, { clientId: 'deaf' });
  await deaf.subscribe('iotflow/devices/probe-1/status/#', 1);
  const service = await Wire.tcp(gateway.port);
  await service.login('service-1');
  await service.subscribe('iotflow/devices/#', 1);
  const delivery = gateway.source.downlink.deliver('probe-1', open);
  const got = await newer.next('publish');
  newer.send({ cmd: 'puback', messageId: got.messageId });
  expect(await outcome(delivery)).toBe('taken');
  for (const other of [older, deaf, service]) {
    await other.ping();
    expect(other.count('publish')).toBe(0);
  }
});

test('beside what a session is sent, each PUBACK is for its own message', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port, { clean: false });
  await device.subscribe(`${commands}/+`, 1);
  const service = await Wire.tcp(gateway.port);
  await service.login('service-1');
  service.publish(`${commands}/other`, 'x', { qos: 1, messageId: 1 });
  const other = await device.next('publish');
  let delivery: Delivery | undefined;
  void gateway.source.downlink.deliver('probe-1', open).then((found) => (delivery = found));
  const got = await device.next('publish');
  expect(got.messageId).not.toBe(other.messageId);
  device.send({ cmd: 'puback', messageId: other.messageId });
  await device.ping();
  expect(delivery).toBeUndefined();
  device.send({ cmd: 'puback', messageId: got.messageId });
  await until(() => delivery?.kind === 'taken');
});

test('a device whose key was revoked gets nothing on the connection it still has', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port);
  await device.subscribe(`${commands}/+`, 1);
  gateway.credentials.revoke('probe-1');
  expect(await outcome(gateway.source.downlink.deliver('probe-1', open))).toBe('offline');
});
