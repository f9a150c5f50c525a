import fc from 'fast-check';
import { expect, test } from 'vitest';
import { systemClock } from '../../../src/platform/clock.ts';
import { GatewayError } from '../../../src/platform/errors.ts';
import { defaultLimits } from '../../../src/sources/mqtt/limits.ts';
import { Sessions } from '../../../src/sources/mqtt/sessions.ts';
import { decodeStoredMessage, encodeStoredMessage } from '../../../src/sources/mqtt/stored-message.ts';
import { startGateway, TestCredentials } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { MemorySessionLog } from '../../support/session-log.ts';
import { until } from '../../support/until.ts';

const commands = 'iotflow/devices/probe-1/commands';
const persistent = { clean: false } as const;

async function login(port: number, account: string, options = {}, version: 4 | 5 = 4): Promise<Wire> {
  const wire = await Wire.tcp(port, version);
  const connack = await wire.login(account, options);
  expect(connack[version === 5 ? 'reasonCode' : 'returnCode']).toBe(0);
  return wire;
}

async function leave(wire: Wire): Promise<void> {
  wire.send({ cmd: 'disconnect' });
  await wire.ended();
}

/** A device with a session that subscribes to its commands and leaves; a service account ready to command. */
async function offlineDevice(port: number, qos = 1): Promise<Wire> {
  const device = await login(port, 'probe-1', persistent);
  expect((await device.subscribe(`${commands}/#`, qos)).granted).toEqual([qos]);
  await leave(device);
  return await login(port, 'service-1');
}

test('a power cut right after the acknowledgements loses no session, subscription, queued or retained message', async () => {
  const before = await startGateway();
  const service = await offlineDevice(before.port);
  for (let messageId = 1; messageId <= 20; messageId += 1) {
    service.publish(`${commands}/open`, `c${messageId}`, { qos: 1, messageId });
  }
  for (let messageId = 1; messageId <= 20; messageId += 1) await service.next('puback');
  const other = await login(before.port, 'probe-2');
  const status = 'iotflow/devices/probe-2/status/mode';
  other.publish(status, 'eco', { qos: 1, messageId: 1, retain: true });
  await other.next('puback');

  const after = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const device = await Wire.tcp(after.port);
  expect((await device.login('probe-1', persistent)).sessionPresent).toBe(true);
  for (let index = 1; index <= 20; index += 1) {
    const got = await device.next('publish');
    expect(got).toMatchObject({ topic: `${commands}/open`, qos: 1, retain: false });
    expect(got.payload?.toString()).toBe(`c${index}`);
    device.send({ cmd: 'puback', messageId: got.messageId });
  }
  const reader = await login(after.port, 'service-1');
  await reader.subscribe(status, 1);
  expect(await reader.next('publish')).toMatchObject({ topic: status, retain: true });
  await until(() => after.source.stats().queuedMessages === 0);
  expect(after.sessionLog.keys('mqtt/queue/')).toEqual([]);
});

test('an unacknowledged message is sent again at the next connection, marked as a duplicate', async () => {
  const gateway = await startGateway();
  const service = await offlineDevice(gateway.port);
  service.publish(`${commands}/open`, 'now', { qos: 1, messageId: 1 });
  await service.next('puback');
  const first = await login(gateway.port, 'probe-1', persistent);
  expect(await first.next('publish')).toMatchObject({ dup: false });
  first.destroy();
  const second = await login(gateway.port, 'probe-1', persistent);
  const again = await second.next('publish');
  expect(again).toMatchObject({ dup: true });
  second.send({ cmd: 'puback', messageId: again.messageId });
  await second.ping();
  await leave(second);
  const third = await login(gateway.port, 'probe-1', persistent);
  await third.ping();
  expect(third.packets).toEqual([]);
});

test('QoS 2 goes on after a power cut with the same packet id, and after PUBREC only with PUBREL', async () => {
  const before = await startGateway();
  const service = await offlineDevice(before.port, 2);
  service.publish(`${commands}/open`, 'once', { qos: 2, messageId: 1 });
  await service.next('pubrec');
  const device = await login(before.port, 'probe-1', persistent);
  const sent = await device.next('publish');
  expect(sent).toMatchObject({ qos: 2, dup: false });

  const middle = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const again = await login(middle.port, 'probe-1', persistent);
  expect(await again.next('publish')).toMatchObject({ qos: 2, dup: true, messageId: sent.messageId });
  again.send({ cmd: 'pubrec', messageId: sent.messageId });
  await again.next('pubrel');

  const after = await startGateway({ sessionLog: middle.sessionLog.afterPowerCut() });
  const third = await login(after.port, 'probe-1', persistent);
  expect((await third.next('pubrel')).messageId).toBe(sent.messageId);
  expect(third.count('publish')).toBe(0);
  third.send({ cmd: 'pubcomp', messageId: sent.messageId });
  await until(() => after.source.stats().queuedMessages === 0);
});

test('an incoming QoS 2 message is not taken again when PUBREL comes after a power cut', async () => {
  const before = await startGateway();
  const device = await login(before.port, 'probe-1', persistent);
  const topic = 'iotflow/devices/probe-1/telemetry/x';
  device.publish(topic, '1', { qos: 2, messageId: 9 });
  await device.next('pubrec');
  expect(before.messages.length).toBe(1);
  const after = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const again = await login(after.port, 'probe-1', persistent);
  again.publish(topic, '1', { qos: 2, messageId: 9, dup: true });
  await again.next('pubrec');
  again.send({ cmd: 'pubrel', messageId: 9 });
  await again.next('pubcomp');
  expect(after.messages).toEqual([]);
  expect(after.sessionLog.keys('mqtt/incoming/')).toEqual([]);
});

test('a session without subscriptions is present all the same, a clean start ends it', async () => {
  const gateway = await startGateway();
  const first = await Wire.tcp(gateway.port);
  expect((await first.login('probe-1', persistent)).sessionPresent).toBe(false);
  await leave(first);
  const second = await Wire.tcp(gateway.port);
  expect((await second.login('probe-1', persistent)).sessionPresent).toBe(true);
  await second.subscribe(`${commands}/#`, 1);
  await leave(second);
  const clean = await Wire.tcp(gateway.port);
  expect((await clean.login('probe-1', { clean: true })).sessionPresent).toBe(false);
  await leave(clean);
  expect(gateway.sessionLog.afterPowerCut().keys('mqtt/')).toEqual([]);
  const last = await Wire.tcp(gateway.port);
  expect((await last.login('probe-1', persistent)).sessionPresent).toBe(false);
});

test('filters that were refused are not part of the session, removed ones neither', async () => {
  const before = await startGateway();
  const device = await login(before.port, 'probe-1', persistent);
  device.send({
    cmd: 'subscribe',
    messageId: 1,
    subscriptions: [
      { topic: `${commands}/#`, qos: 1 },
      { topic: 'iotflow/devices/probe-2/commands/#', qos: 1 },
      { topic: 'iotflow/devices/probe-1/status/#', qos: 1 },
    ],
  });
  expect((await device.next('suback')).granted).toEqual([1, 0x80, 1]);
  device.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['iotflow/devices/probe-1/status/#'] });
  await device.next('unsuback');
  expect(before.sessionLog.afterPowerCut().keys('mqtt/sub/')).toEqual([`mqtt/sub/1/${commands}/#`]);
});

test('the will of a client that was connected when the gateway died is published after the restart, once', async () => {
  const before = await startGateway();
  const topic = 'iotflow/devices/probe-1/status/online';
  const will = { topic, payload: Buffer.from('offline'), qos: 1, retain: true } as const;
  await login(before.port, 'probe-1', { will });
  const polite = await login(before.port, 'probe-2', {
    will: { ...will, topic: 'iotflow/devices/probe-2/status/online' },
  });
  await leave(polite);
  await until(() => before.sessionLog.keys('mqtt/will/').length === 1);

  const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
  expect(
    after.messages.map(({ deviceId, channel, payload }) => [deviceId, channel, payload.toString()]),
  ).toEqual([['probe-1', 'status', 'offline']]);
  const reader = await login(after.port, 'service-1');
  await reader.subscribe('iotflow/devices/#', 1);
  expect(await reader.next('publish')).toMatchObject({ topic, retain: true });
  const third = await startGateway({ sessionLog: after.sessionLog.afterKill() });
  expect(third.messages).toEqual([]);
});

test('the will of a client whose account was shut out while the gateway was down is not published', async () => {
  const before = await startGateway();
  const topic = (id: string) => `iotflow/devices/${id}/status/online`;
  for (const id of ['probe-1', 'probe-2', 'probe-3']) {
    await login(before.port, id, {
      will: { topic: topic(id), payload: Buffer.from('offline'), qos: 1, retain: true },
    });
  }
  await until(() => before.sessionLog.keys('mqtt/will/').length === 3);
  const credentials = new TestCredentials();
  // One is gone, one was shut out and let in again, one is as it was.
  const account = (deviceId: string) => {
    if (deviceId === 'probe-1') return undefined;
    return { deviceId, service: false, epoch: deviceId === 'probe-2' ? 7 : 0 };
  };
  const accounts = Object.assign(credentials, { account });
  const after = await startGateway({ sessionLog: before.sessionLog.afterKill(), credentials: accounts });
  expect(after.messages.map(({ deviceId }) => deviceId)).toEqual(['probe-3']);
  await until(() => after.sessionLog.keys('mqtt/will/').length === 0);
});

test('a connection that breaks publishes its will, a goodbye or a revocation does not', async () => {
  const gateway = await startGateway();
  const will = (id: string) => ({
    will: {
      topic: `iotflow/devices/${id}/status/online`,
      payload: Buffer.from('offline'),
      qos: 1,
      retain: true,
    } as const,
  });
  const polite = await login(gateway.port, 'probe-2', will('probe-2'));
  await leave(polite);
  const revoked = await login(gateway.port, 'probe-3', will('probe-3'));
  gateway.credentials.revoke('probe-3');
  await revoked.ended();
  const broken = await login(gateway.port, 'probe-1', will('probe-1'));
  broken.destroy();
  await until(() => gateway.messages.length > 0);
  // A protocol offence is no goodbye.
  const offender = await login(gateway.port, 'probe-4', will('probe-4'));
  offender.raw([0x36, 0]);
  await offender.ended();
  await until(() => gateway.messages.length > 1);
  expect(gateway.messages.map((message) => message.deviceId)).toEqual(['probe-1', 'probe-4']);
  await until(() => gateway.sessionLog.keys('mqtt/will/').length === 0);
});

test('a gateway that stops publishes the wills of who is connected, durable before it is gone', async () => {
  const stored: string[] = [];
  const gateway = await startGateway({
    sink: async (message) => {
      await new Promise((resolve) => setTimeout(resolve, 100));
      stored.push(`${message.deviceId} ${message.payload}`);
    },
  });
  const topic = 'iotflow/devices/probe-1/status/online';
  const will = { topic, payload: Buffer.from('offline'), qos: 1, retain: true } as const;
  const device = await login(gateway.port, 'probe-1', { will });
  await gateway.source.close();
  await device.ended();
  expect(stored).toEqual(['probe-1 offline']);
  // Said once: not again at the next start.
  expect(gateway.sessionLog.keys('mqtt/will/')).toEqual([]);
});

test('the session of an account revoked for good ends, and collects nothing more', async () => {
  const gateway = await startGateway();
  const service = await offlineDevice(gateway.port);
  service.publish(`${commands}/open`, 'now', { qos: 1, messageId: 1 });
  await service.next('puback');
  expect(gateway.source.stats()).toMatchObject({ sessions: 1, queuedMessages: 1 });
  gateway.credentials.revoke('probe-1', 'active');
  // A new key was issued: the device comes back for what waits.
  expect(gateway.source.stats()).toMatchObject({ sessions: 1, queuedMessages: 1 });
  gateway.credentials.revoke('probe-1', 'inactive');
  expect(gateway.source.stats()).toMatchObject({ sessions: 0, queuedMessages: 0 });
  for (const room of ['session', 'sub', 'queue'])
    expect(gateway.sessionLog.keys(`mqtt/${room}/`)).toEqual([]);
});

test('a subscription the log refused is written when it is asked for again', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port, 'probe-1', persistent);
  gateway.sessionLog.beforeWrite = async () => {
    throw new GatewayError('JOURNAL_FULL', 'no room');
  };
  device.send({
    cmd: 'subscribe',
    messageId: 7,
    subscriptions: [{ topic: `${commands}/#`, qos: 1 }],
  });
  await device.ended();
  gateway.sessionLog.beforeWrite = undefined;
  const again = await login(gateway.port, 'probe-1', persistent);
  expect((await again.subscribe(`${commands}/#`, 1)).granted).toEqual([1]);
  const after = await startGateway({ sessionLog: gateway.sessionLog.afterPowerCut() });
  const service = await login(after.port, 'service-1');
  service.publish(`${commands}/open`, 'now', { qos: 1, messageId: 1 });
  await service.next('puback');
  expect(after.source.stats().queuedMessages).toBe(1);
});

test('QoS 2: after PUBCOMP and a power cut, the packet id may name another message', async () => {
  const before = await startGateway();
  const topic = 'iotflow/devices/probe-1/telemetry/x';
  const device = await login(before.port, 'probe-1', persistent);
  device.publish(topic, 'first', { qos: 2, messageId: 1 });
  await device.next('pubrec');
  device.send({ cmd: 'pubrel', messageId: 1 });
  await device.next('pubcomp');
  const after = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const again = await login(after.port, 'probe-1', persistent);
  again.publish(topic, 'second', { qos: 2, messageId: 1 });
  await again.next('pubrec');
  expect(after.messages.map(({ payload }) => payload.toString())).toEqual(['second']);
});

test('QoS 2: a copy on a new connection is not answered before the first one is durable', async () => {
  const open: (() => void)[] = [];
  const gateway = await startGateway({ sink: () => new Promise((resolve) => open.push(resolve)) });
  const topic = 'iotflow/devices/probe-1/telemetry/x';
  const first = await login(gateway.port, 'probe-1', persistent);
  first.publish(topic, '1', { qos: 2, messageId: 1 });
  await until(() => open.length === 1);
  const second = await login(gateway.port, 'probe-1', persistent);
  await first.ended();
  second.publish(topic, '1', { qos: 2, messageId: 1, dup: true });
  await second.ping();
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(second.count('pubrec')).toBe(0);
  open[0]?.();
  expect((await second.next('pubrec')).messageId).toBe(1);
  expect(open).toHaveLength(1);
});

test('QoS 2: a message the journal refused is not taken for received after a power cut', async () => {
  const before = await startGateway({
    sink: async () => {
      throw new GatewayError('JOURNAL_FULL', 'no room');
    },
  });
  const topic = 'iotflow/devices/probe-1/telemetry/x';
  const device = await login(before.port, 'probe-1', persistent);
  device.publish(topic, '1', { qos: 2, messageId: 1 });
  await until(() => before.source.stats().heldAcknowledgements === 1);
  await new Promise((resolve) => setTimeout(resolve, 20));
  const after = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const again = await login(after.port, 'probe-1', persistent);
  again.publish(topic, '1', { qos: 2, messageId: 1, dup: true });
  await again.next('pubrec');
  expect(after.messages).toHaveLength(1);
});

test('a delayed will of MQTT 5 comes without the property that delayed it, and keeps the others', async () => {
  const gateway = await startGateway();
  const reader = await login(gateway.port, 'service-1', {}, 5);
  await reader.subscribe('iotflow/devices/#', 1);
  const topic = 'iotflow/devices/probe-1/status/online';
  const properties = { willDelayInterval: 1, contentType: 'text' };
  const will = { topic, payload: Buffer.from('offline'), qos: 1, retain: true, properties } as const;
  const device = await login(gateway.port, 'probe-1', { will, properties: { sessionExpiryInterval: 60 } }, 5);
  device.destroy();
  expect((await reader.next('publish')).properties).toEqual({ contentType: 'text' });
  expect(gateway.messages.length).toBe(1);
});

test('a retained message of MQTT 5 expires, also when it was acknowledged', async () => {
  const gateway = await startGateway();
  const device = await login(gateway.port, 'probe-1', {}, 5);
  const topic = 'iotflow/devices/probe-1/status/mode';
  const properties = { messageExpiryInterval: 1 };
  device.publish(topic, 'eco', { qos: 1, messageId: 1, retain: true, properties });
  await device.next('puback');
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const reader = await login(gateway.port, 'service-1');
  await reader.subscribe(topic, 1);
  await until(() => gateway.source.stats().retained === 0);
  await reader.ping();
  expect(reader.packets).toEqual([]);
});

test('a message for nobody but clean sessions costs the log nothing', async () => {
  const gateway = await startGateway();
  const reader = await login(gateway.port, 'service-1');
  await reader.subscribe('iotflow/devices/#', 1);
  const device = await login(gateway.port, 'probe-1');
  for (let messageId = 1; messageId <= 5; messageId += 1) {
    device.publish('iotflow/devices/probe-1/telemetry/x', '1', { qos: 1, messageId });
    await device.next('puback');
    await reader.next('publish');
  }
  expect(gateway.sessionLog.writes).toBe(0);
});

test('the publisher is acknowledged only once the message is durable for the offline session', async () => {
  const gateway = await startGateway();
  const service = await offlineDevice(gateway.port);
  let commit = () => {};
  gateway.sessionLog.beforeWrite = () => new Promise((resolve) => (commit = resolve));
  service.publish(`${commands}/open`, 'x', { qos: 1, messageId: 1 });
  await until(() => gateway.sessionLog.keys('mqtt/queue/').length === 1);
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(service.packets).toEqual([]);
  commit();
  await service.next('puback');
});

test('at its bound an offline queue keeps the newest messages and counts what it drops', async () => {
  const gateway = await startGateway({ limits: { sessionQueueMessages: 10 } });
  const service = await offlineDevice(gateway.port);
  for (let messageId = 1; messageId <= 25; messageId += 1) {
    service.publish(`${commands}/open`, `${messageId}`, { qos: 1, messageId });
    await service.next('puback');
  }
  expect(gateway.source.stats()).toMatchObject({ queuedMessages: 10, droppedQueued: 15 });
  expect(gateway.sessionLog.keys('mqtt/queue/').length).toBe(10);
  const device = await login(gateway.port, 'probe-1', persistent);
  expect((await device.next('publish')).payload?.toString()).toBe('16');
});

test('beyond the limit the session that was left longest ago makes room', async () => {
  const gateway = await startGateway({ limits: { sessions: 2 } });
  for (const id of ['probe-1', 'probe-2', 'probe-3']) {
    await leave(await login(gateway.port, id, persistent));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  expect(gateway.source.stats()).toMatchObject({ sessions: 2, evictedSessions: 1 });
  const oldest = await Wire.tcp(gateway.port);
  expect((await oldest.login('probe-1', persistent)).sessionPresent).toBe(false);
  const newest = await Wire.tcp(gateway.port);
  expect((await newest.login('probe-3', persistent)).sessionPresent).toBe(true);
  const refused = await Wire.tcp(gateway.port);
  expect((await refused.login('probe-4', persistent)).returnCode).toBe(3);
});

test('an MQTT 5 session ends with its expiry interval', async () => {
  const gateway = await startGateway();
  const kept = await login(gateway.port, 'probe-1', { properties: { sessionExpiryInterval: 1 } }, 5);
  await leave(kept);
  expect(gateway.source.stats().sessions).toBe(1);
  await until(() => gateway.source.stats().sessions === 0);
  expect(gateway.sessionLog.keys('mqtt/session/')).toEqual([]);
});

test('retained messages are bounded in size and per device, and are taken all the same', async () => {
  const gateway = await startGateway({ limits: { retainedPerDevice: 2, retainedBytes: 10 } });
  const device = await login(gateway.port, 'probe-1');
  const publishes = [
    ['status/a', '1'],
    ['status/b', '1'],
    ['status/c', '1'],
    ['status/a', '2'],
    ['status/b', 'more than ten bytes'],
    ['telemetry/x', '1'],
  ] as const;
  for (const [index, [topic, payload]] of publishes.entries()) {
    device.publish(`iotflow/devices/probe-1/${topic}`, payload, {
      qos: 1,
      messageId: index + 1,
      retain: true,
    });
    await device.next('puback');
  }
  expect(gateway.messages.length).toBe(publishes.length);
  expect(gateway.source.stats()).toMatchObject({ retained: 2, refusedRetained: 3 });
  device.publish('iotflow/devices/probe-1/status/a', '', { qos: 1, messageId: 9, retain: true });
  await device.next('puback');
  expect(gateway.source.stats().retained).toBe(1);
});

test("the gateway's own messages reach offline sessions and newcomers, also after a power cut", async () => {
  const before = await startGateway();
  const reader = await login(before.port, 'service-1', persistent);
  await reader.subscribe('iotflow/gateway/#', 1);
  await leave(reader);
  await before.source.publish('iotflow/gateway/alarms', Buffer.from('wet'), { qos: 1, retain: true });
  const after = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const again = await login(after.port, 'service-1', persistent);
  expect((await again.next('publish')).payload?.toString()).toBe('wet');
  const newcomer = await login(after.port, 'service-2');
  await newcomer.subscribe('iotflow/gateway/#', 1);
  expect(await newcomer.next('publish')).toMatchObject({ retain: true });
});

test('the QoS of a delivery never exceeds the subscription, wildcards included, and a message comes once', async () => {
  const gateway = await startGateway();
  const reader = await login(gateway.port, 'service-1', persistent);
  await reader.subscribe('iotflow/devices/+/status/#', 1);
  await reader.subscribe('iotflow/devices/#', 0);
  const device = await login(gateway.port, 'probe-1');
  device.publish('iotflow/devices/probe-1/status/online', 'x', { qos: 2, messageId: 1 });
  await device.next('pubrec');
  const got = await reader.next('publish');
  expect(got.qos).toBe(1);
  reader.send({ cmd: 'puback', messageId: got.messageId });
  await reader.ping();
  expect(reader.count('publish')).toBe(0);
  expect(gateway.source.stats().queuedMessages).toBe(0);
});

test('damaged records are dropped and counted, and everything else is restored', async () => {
  const before = await startGateway();
  const service = await offlineDevice(before.port);
  for (let messageId = 1; messageId <= 3; messageId += 1) {
    service.publish(`${commands}/open`, `${messageId}`, { qos: 1, messageId });
    await service.next('puback');
  }
  const log = before.sessionLog.afterPowerCut();
  const [queued] = log.keys('mqtt/queue/');
  log.put(queued!, Buffer.from([9, 9, 9]));
  log.put('mqtt/session/zz', Buffer.from('{"v":1'));
  log.put('mqtt/session/yy', Buffer.from('{"v":1,"id":5}'));
  log.put('mqtt/sub/1/x', Buffer.from('[]'));
  log.put('mqtt/queue/nobody/1', Buffer.from('x'));
  log.put('mqtt/retained/a', Buffer.alloc(0));
  log.put('mqtt/will/1', Buffer.from([255, 255]));
  log.put('mqtt/incoming/1/0', Buffer.from('x'));
  log.put('mqtt/unknown', Buffer.from('x'));
  const after = await startGateway({ sessionLog: log });
  expect(after.source.stats()).toMatchObject({ damagedRecords: 9, queuedMessages: 2, sessions: 1 });
});

test('any bytes in the log are survived', async () => {
  const keys = [
    'session/1',
    'sub/1/a',
    'queue/1/1',
    'out/1/1',
    'incoming/1/1',
    'retained/a',
    'will/2',
    'x/y/z',
    '',
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.tuple(fc.constantFrom(...keys), fc.oneof(fc.uint8Array({ maxLength: 60 }), fc.json())), {
        maxLength: 12,
      }),
      async (entries) => {
        const log = new MemorySessionLog();
        log.put('mqtt/session/1', Buffer.from('{"v":1,"id":"a","account":"a","expiry":60}'));
        for (const [key, value] of entries) log.put(`mqtt/${key}`, Buffer.from(value as string));
        await Sessions.open({ log, clock: systemClock(), limits: defaultLimits });
      },
    ),
    { numRuns: 300 },
  );
});

test('a stored message reads back as it was, and anything else as nothing or a message', () => {
  fc.assert(
    fc.property(
      fc.record({
        topic: fc.string({ minLength: 1, maxLength: 80, unit: 'binary' }),
        payload: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
        qos: fc.constantFrom(0 as const, 1 as const, 2 as const),
        retain: fc.boolean(),
        messageExpiry: fc.option(fc.nat(), { nil: undefined }),
        properties: fc.constantFrom(undefined, {
          contentType: 'text',
          correlationData: Buffer.from([0, 255]),
        }),
      }),
      (message) => {
        expect(decodeStoredMessage(encodeStoredMessage(message))).toEqual(
          message.properties === undefined && message.messageExpiry === undefined
            ? { topic: message.topic, payload: message.payload, qos: message.qos, retain: message.retain }
            : message,
        );
      },
    ),
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 60 }), (bytes) => {
      const message = decodeStoredMessage(Buffer.from(bytes));
      if (message !== undefined) expect(message.topic.length).toBeGreaterThan(0);
    }),
  );
});
