import { connect } from 'node:net';
import { Duplex } from 'node:stream';
import { Aedes } from 'aedes';
import { generate } from 'mqtt-packet';
import { expect, test } from 'vitest';
import { startGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { until } from '../../support/until.ts';

/** A v5 PUBLISH to `a/b` whose property list holds the id of the response topic and nothing more. */
const responseTopicMissing = [0x30, 7, 0, 3, 0x61, 0x2f, 0x62, 1, 8];

/** Feeds packets to an unguarded broker and returns what it throws out of its parser. */
async function throwsOutOfAedes(packets: readonly (readonly number[])[]): Promise<unknown> {
  const broker = await Aedes.createBroker();
  const stream = new Duplex({ read() {}, write: (_chunk, _encoding, done) => done() });
  const client = broker.handle(stream) as unknown as {
    _parser: { parse(bytes: Buffer): void };
    connected: boolean;
  };
  // CONNECT, level 5, client id "x"; as from a socket, so that what follows is not put aside.
  stream.push(Buffer.from([0x10, 14, 0, 4, 0x4d, 0x51, 0x54, 0x54, 5, 2, 0, 60, 0, 0, 1, 0x78]));
  await until(() => client.connected);
  try {
    for (const packet of packets) client._parser.parse(Buffer.from(packet));
    return undefined;
  } catch (error) {
    return error;
  } finally {
    stream.destroy();
    await new Promise<void>((resolve) => broker.close(() => resolve()));
  }
}

/** UNSUBSCRIBE from "constructor", which is a property of every plain object. */
const unsubscribeConstructor = [0xa2, 16, 0, 1, 0, 0, 11, ...Buffer.from('constructor')];

test.each([
  ['a PUBLISH whose response topic is missing', responseTopicMissing],
  ['UNSUBSCRIBE from a property of every object', unsubscribeConstructor],
])('one packet that kills a stock broker is refused or harmless here: %s', async (_what, packet) => {
  expect(await throwsOutOfAedes([packet])).toBeInstanceOf(Error);
  const gateway = await startGateway();
  const wire = await Wire.tcp(gateway.port, 5);
  await wire.login('probe-1');
  wire.raw(packet as number[]);
  wire.send({ cmd: 'pingreq' });
  await until(() => wire.closed || wire.count('pingresp') === 1);
  const next = await Wire.tcp(gateway.port);
  expect((await next.login('probe-2')).returnCode).toBe(0);
});

test('a wrong protocol level is told so: CONNACK 0x01', async () => {
  const { port, source } = await startGateway();
  const wire = await Wire.tcp(port);
  wire.raw([0x10, 13, 0, 4, 0x4d, 0x51, 0x54, 0x54, 9, 2, 0, 60, 0, 1, 0x78]);
  expect((await wire.next('connack')).returnCode).toBe(1);
  await wire.ended();
  expect(source.stats().offences).toEqual({ 'protocol-version': 1 });
});

test('an empty client id without a clean session is rejected: CONNACK 0x02', async () => {
  const { port } = await startGateway();
  const wire = await Wire.tcp(port);
  // A well-behaved encoder refuses to build it.
  const credentials = [0, 7, ...Buffer.from('probe-1'), 0, 11, ...Buffer.from('key-probe-1')];
  wire.raw([
    0x10,
    12 + credentials.length,
    0,
    4,
    0x4d,
    0x51,
    0x54,
    0x54,
    4,
    0xc0,
    0,
    60,
    0,
    0,
    ...credentials,
  ]);
  expect((await wire.next('connack')).returnCode).toBe(2);
});

test.each([
  ['a packet too large', [0x30, 0xff, 0xff, 0xff, 0x7f], 0x95],
  ['a malformed packet', [0x36, 0], 0x81],
  ['a protocol error', [0x20, 2, 0, 0], 0x82],
  ['an invalid topic', [0x30, 4, 0, 1, 0x23, 0], 0x90],
])('MQTT 5 hears why it is disconnected: %s', async (_what, bytes, reasonCode) => {
  const { port } = await startGateway();
  const wire = await Wire.tcp(port, 5);
  await wire.login('probe-1');
  wire.raw(bytes);
  expect((await wire.next('disconnect')).reasonCode).toBe(reasonCode);
  await wire.ended();
});

test('a silent socket is closed after the connect timeout', async () => {
  const { port, source } = await startGateway({ limits: { connectTimeoutMs: 200 } });
  const silent = await Wire.tcp(port);
  const drip = await Wire.tcp(port);
  drip.raw([0x10, 100, 0]);
  await Promise.all([silent.ended(), drip.ended()]);
  await until(() => source.stats().sockets === 0);
});

test('strangers cannot keep a device out: the one that is silent longest makes room', async () => {
  const { port, source } = await startGateway({ limits: { unauthenticatedLoopback: 3 } });
  const strangers = [];
  for (let index = 0; index < 3; index += 1) strangers.push(await Wire.tcp(port));
  const refused = await Wire.tcp(port);
  await refused.ended();
  await new Promise((resolve) => setTimeout(resolve, 600));
  const device = await Wire.tcp(port);
  expect((await device.login('probe-1')).returnCode).toBe(0);
  await strangers[0]!.ended();
  expect(source.stats()).toMatchObject({ refusedSockets: 2, unauthenticatedSockets: 2 });
});

test('sockets are limited in total and per address', async () => {
  const total = await startGateway({ limits: { sockets: 2 } });
  const perAddress = await startGateway({ limits: { socketsPerLoopback: 2 } });
  for (const { port } of [total, perAddress]) {
    const first = await Wire.tcp(port);
    await Wire.tcp(port);
    const third = await Wire.tcp(port);
    await third.ended();
    expect(first.closed).toBe(false);
    first.destroy();
    await until(() => (port === total.port ? total : perAddress).source.stats().sockets === 1);
    const fourth = await Wire.tcp(port);
    expect((await fourth.login('probe-1')).returnCode).toBe(0);
  }
});

test('half-open giants are refused before they cost memory', async () => {
  const { port, source } = await startGateway();
  for (let index = 0; index < 20; index += 1) {
    const socket = connect({ port, host: '127.0.0.1' });
    socket.on('error', () => {});
    // 200 MB announced, 1 MB sent.
    socket.write(Buffer.from([0x10, 0x80, 0x84, 0xaf, 0x5f]));
    socket.write(Buffer.alloc(1024 * 1024));
    await new Promise((resolve) => socket.on('close', resolve));
  }
  expect(source.stats()).toMatchObject({ heldBytes: 0, offences: { 'packet-too-large': 20 } });
});

test('QoS 2 messages that are never released end the connection at the limit', async () => {
  const { port, messages } = await startGateway({ limits: { inflightInbound: 10 } });
  const wire = await Wire.tcp(port, 5);
  await wire.login('probe-1');
  for (let messageId = 1; messageId <= 12; messageId += 1) {
    wire.publish('iotflow/devices/probe-1/telemetry/x', '1', { qos: 2, messageId });
  }
  expect((await wire.next('disconnect')).reasonCode).toBe(0x93);
  expect(messages.length).toBe(10);
});

test('subscriptions of one client are limited, in one packet as in many, and in its session', async () => {
  const { port, sessionLog } = await startGateway({ limits: { subscriptionsPerClient: 2 } });
  const wire = await Wire.tcp(port);
  await wire.login('probe-1', { clean: false });
  const subscriptions = ['a', 'b', 'c'].map((name) => ({
    topic: `iotflow/devices/probe-1/commands/${name}`,
    qos: 1,
  }));
  wire.send({ cmd: 'subscribe', messageId: 1, subscriptions });
  expect((await wire.next('suback')).granted).toEqual([1, 1, 0x80]);
  expect((await wire.subscribe('iotflow/devices/probe-1/commands/c', 1)).granted).toEqual([0x80]);
  expect((await wire.subscribe('iotflow/devices/probe-1/commands/a', 1)).granted).toEqual([1]);
  expect(sessionLog.keys('mqtt/sub/').length).toBe(2);
  wire.send({ cmd: 'unsubscribe', messageId: 2, unsubscriptions: ['iotflow/devices/probe-1/commands/a'] });
  await wire.next('unsuback');
  expect((await wire.subscribe('iotflow/devices/probe-1/commands/c', 1)).granted).toEqual([1]);
});

test('a subscriber that stops reading costs the others nothing', async () => {
  const { port, source } = await startGateway();
  const frozen = [];
  for (const qos of [0, 1]) {
    const wire = await Wire.tcp(port);
    await wire.login(`service-${qos}`);
    await wire.subscribe('iotflow/devices/#', qos);
    wire.stream.pause();
    frozen.push(wire);
  }
  const reader = await Wire.tcp(port);
  await reader.login('service-good');
  await reader.subscribe('iotflow/devices/#', 0);
  let received = 0;
  reader.stream.on('data', (bytes: Buffer) => {
    received += bytes.length;
  });
  const device = await Wire.tcp(port);
  await device.login('probe-1');
  const payload = Buffer.alloc(30_000, 'x');
  for (let messageId = 1; messageId <= 1000; messageId += 1) {
    device.publish('iotflow/devices/probe-1/telemetry/bulk', payload, { qos: 1, messageId });
    if (messageId % 20 === 0) await until(() => device.count('puback') === messageId);
  }
  await until(() => received > 30_000_000);
  reader.packets.length = 0;
  const stats = source.stats();
  expect(stats.droppedQos0).toBeGreaterThan(0);
  expect(stats.slowReadersCut).toBe(1);
  expect(stats.unsentBytes).toBeLessThan(2 * 1024 * 1024);
});

test.each([4, 5] as const)(
  'a publisher that never reads its answers is cut off (level %i)',
  async (version) => {
    const { port, source } = await startGateway({ limits: { clientQueueBytes: 4096 } });
    const wire = await Wire.tcp(port, version);
    await wire.login('probe-1');
    wire.stream.pause();
    // The kernel takes some megabytes of answers before the gateway notices.
    const packet = generate(
      {
        cmd: 'publish',
        topic: 'iotflow/devices/probe-1/telemetry/x',
        payload: '1',
        qos: 1,
        messageId: 1,
        dup: false,
        retain: false,
      },
      { protocolVersion: version },
    );
    const many = Buffer.concat(Array.from({ length: 5000 }, () => packet));
    while (source.stats().slowReadersCut === 0) {
      expect(wire.closed).toBe(false);
      if (wire.stream.writableLength < many.length) wire.stream.write(many);
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    expect(source.stats().slowReadersCut).toBe(1);
  },
);

test('a session whose reader was cut off for being slow still has its queue', async () => {
  const { port, source } = await startGateway({ limits: { clientQueueBytes: 64 * 1024 } });
  const frozen = await Wire.tcp(port);
  await frozen.login('service-1', { clean: false });
  await frozen.subscribe('iotflow/devices/#', 1);
  frozen.stream.pause();
  const device = await Wire.tcp(port);
  await device.login('probe-1');
  let messageId = 0;
  while (source.stats().slowReadersCut === 0) {
    messageId += 1;
    device.publish('iotflow/devices/probe-1/telemetry/bulk', Buffer.alloc(5000, 'x'), { qos: 1, messageId });
    await device.next('puback');
  }
  const again = await Wire.tcp(port);
  await again.login('service-1', { clean: false });
  for (let index = 0; index < 20; index += 1) {
    const got = await again.next('publish');
    again.send({ cmd: 'puback', messageId: got.messageId });
  }
});

test('a backlog larger than the socket takes reaches a slow reader whole', async () => {
  const { port, source } = await startGateway({ limits: { clientQueueBytes: 128 * 1024 } });
  const reader = await Wire.tcp(port);
  await reader.login('service-1', { clean: false });
  await reader.subscribe('iotflow/devices/#', 1);
  reader.send({ cmd: 'disconnect' });
  await reader.ended();
  const device = await Wire.tcp(port);
  await device.login('probe-1');
  for (let messageId = 1; messageId <= 300; messageId += 1) {
    device.publish('iotflow/devices/probe-1/status/x', Buffer.alloc(3000, 'x'), { qos: 1, messageId });
    await device.next('puback');
  }
  const again = await Wire.tcp(port);
  await again.login('service-1', { clean: false });
  for (let index = 0; index < 300; index += 1) {
    const got = await again.next('publish');
    again.send({ cmd: 'puback', messageId: got.messageId });
    if (index % 50 === 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
  await until(() => source.stats().queuedMessages === 0);
  expect(source.stats()).toMatchObject({ slowReadersCut: 0, droppedQueued: 0 });
});
