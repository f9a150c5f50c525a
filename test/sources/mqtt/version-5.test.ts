import { expect, test } from 'vitest';
import { startGateway } from '../../support/mqtt-gateway.ts';
import { Wire, type WirePacket } from '../../support/mqtt-wire.ts';
import { until } from '../../support/until.ts';

const own = 'iotflow/devices/probe-1';

async function login(
  port: number,
  account: string,
  options: Parameters<Wire['login']>[1] = {},
): Promise<{ wire: Wire; connack: WirePacket }> {
  const wire = await Wire.tcp(port, 5);
  const connack = await wire.login(account, options);
  expect(connack.reasonCode).toBe(0);
  return { wire, connack };
}

test('a topic alias stands for its topic on the connection that set it, and is not sent on', async () => {
  const { port, messages } = await startGateway();
  const { wire: reader } = await login(port, 'service-1');
  await reader.subscribe('iotflow/devices/#', 1);
  const { wire, connack } = await login(port, 'probe-1');
  expect(connack.properties?.topicAliasMaximum).toBe(32);
  const properties = { topicAlias: 3 };
  wire.publish(`${own}/telemetry/a`, '1', { qos: 1, messageId: 1, properties });
  wire.publish('', '2', { qos: 1, messageId: 2, properties });
  wire.publish(`${own}/telemetry/b`, '3', { qos: 0, properties });
  wire.publish('', '4', { qos: 2, messageId: 3, properties });
  await wire.next('pubrec');
  expect(messages.map(({ name, payload }) => `${name} ${payload}`)).toEqual(['a 1', 'a 2', 'b 3', 'b 4']);
  for (let index = 0; index < 4; index += 1) {
    const got = await reader.next('publish');
    expect(got.topic).toContain(own);
    expect(got.properties?.topicAlias).toBeUndefined();
  }
  const { wire: other } = await login(port, 'probe-1', { clientId: 'other' });
  other.publish('', '5', { qos: 1, messageId: 1, properties });
  expect((await other.next('disconnect')).reasonCode).toBe(0x94);
  await other.ended();
});

test('a topic alias beyond the announced maximum ends the connection: 0x94', async () => {
  const { port, messages } = await startGateway();
  const { wire } = await login(port, 'probe-1');
  wire.publish(`${own}/telemetry/a`, '1', { qos: 1, messageId: 1, properties: { topicAlias: 33 } });
  expect((await wire.next('disconnect')).reasonCode).toBe(0x94);
  await wire.ended();
  expect(messages).toEqual([]);
});

test('a DISCONNECT may change how long the session is kept, also over a restart', async () => {
  const before = await startGateway();
  const properties = { sessionExpiryInterval: 3600 };
  const { wire } = await login(before.port, 'probe-1', { properties });
  wire.send({ cmd: 'disconnect', reasonCode: 0, properties: { sessionExpiryInterval: 1 } });
  await wire.ended();
  await until(() => before.sessionLog.keys('mqtt/session/').length === 1);
  const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
  expect(after.source.stats().sessions).toBe(1);
  await until(() => before.source.stats().sessions === 0 && after.source.stats().sessions === 0);
  expect(after.sessionLog.keys('mqtt/session/')).toEqual([]);
});

test('a revoked account hears that an administrator ended its connection: 0x98', async () => {
  const { port, credentials } = await startGateway();
  const { wire } = await login(port, 'probe-1');
  await wire.ping();
  credentials.revoke('probe-1');
  expect((await wire.next('disconnect')).reasonCode).toBe(0x98);
  await wire.ended();
});

test('a client that falls silent hears that its keep-alive ran out: 0x8D', async () => {
  const { port } = await startGateway();
  const { wire } = await login(port, 'probe-1', { keepalive: 1 });
  expect((await wire.next('disconnect')).reasonCode).toBe(0x8d);
  await wire.ended();
});

test('the connection a session is taken from hears so: 0x8E', async () => {
  const { port } = await startGateway();
  const { wire } = await login(port, 'probe-1');
  await login(port, 'probe-1');
  expect((await wire.next('disconnect')).reasonCode).toBe(0x8e);
  await wire.ended();
});

test('a login by AUTH packets is refused: 0x8C', async () => {
  const { port } = await startGateway();
  const wire = await Wire.tcp(port, 5);
  const connack = await wire.login('probe-1', { properties: { authenticationMethod: 'SCRAM-SHA-1' } });
  expect(connack.reasonCode).toBe(0x8c);
  await wire.ended();
});

test('a client without an id is told the one it was given', async () => {
  const { port } = await startGateway();
  const { connack } = await login(port, 'probe-1', { clientId: '' });
  expect(connack.properties?.assignedClientIdentifier).toMatch(/^.{8,}$/);
});

/** A device with these properties that reads its commands, and a service account ready to command it. */
async function reader(port: number, properties: Record<string, unknown>, qos: 0 | 1 | 2 = 1) {
  const { wire: device } = await login(port, 'probe-1', { properties });
  await device.subscribe(`${own}/commands/#`, qos);
  const { wire: service } = await login(port, 'service-1');
  return { device, service };
}

async function command(service: Wire, payload: string, messageId: number, more = {}): Promise<void> {
  service.publish(`${own}/commands/do`, payload, { qos: 1, messageId, ...more });
  await service.next('puback');
}

test.each([0, 3600])(
  'a client gets no more unacknowledged messages than its Receive Maximum, the rest in order (session expiry %i)',
  async (sessionExpiryInterval) => {
    const { port, source } = await startGateway();
    const { device, service } = await reader(port, { receiveMaximum: 2, sessionExpiryInterval });
    for (let index = 1; index <= 6; index += 1) await command(service, `${index}`, index);
    await device.ping();
    expect(device.count('publish')).toBe(2);
    for (let index = 1; index <= 6; index += 1) {
      expect(device.count('publish')).toBeLessThanOrEqual(2);
      const got = await device.next('publish');
      expect(`${got.payload}`).toBe(`${index}`);
      device.send({ cmd: 'puback', messageId: got.messageId });
    }
    await device.ping();
    expect(device.packets).toEqual([]);
    expect(source.stats().queuedMessages).toBe(0);
  },
);

test('QoS 2 takes its place in the Receive Maximum until PUBCOMP, or a PUBREC that refuses', async () => {
  const { port } = await startGateway();
  const { device, service } = await reader(port, { receiveMaximum: 1, sessionExpiryInterval: 60 }, 2);
  for (let messageId = 1; messageId <= 3; messageId += 1) {
    service.publish(`${own}/commands/do`, `${messageId}`, { qos: 2, messageId });
    await service.next('pubrec');
  }
  const first = await device.next('publish');
  device.send({ cmd: 'pubrec', messageId: first.messageId });
  await device.next('pubrel');
  await device.ping();
  expect(device.count('publish')).toBe(0);
  device.send({ cmd: 'pubcomp', messageId: first.messageId });
  const second = await device.next('publish');
  device.send({ cmd: 'pubrec', messageId: second.messageId, reasonCode: 0x97 });
  expect(`${(await device.next('publish')).payload}`).toBe('3');
});

test('without a session what exceeds the Receive Maximum waits in memory, bounded: the oldest makes room', async () => {
  const { port, source } = await startGateway({ limits: { sessionQueueMessages: 2 } });
  const { device, service } = await reader(port, { receiveMaximum: 1 });
  for (let index = 1; index <= 5; index += 1) await command(service, `${index}`, index);
  const payloads: string[] = [];
  for (let index = 0; index < 3; index += 1) {
    const got = await device.next('publish');
    payloads.push(`${got.payload}`);
    device.send({ cmd: 'puback', messageId: got.messageId });
  }
  expect(payloads).toEqual(['1', '4', '5']);
  expect(source.stats().droppedWaiting).toBe(2);
});

test('a message larger than the client takes is not sent, and those behind it are', async () => {
  const { port, source } = await startGateway();
  const { device, service } = await reader(port, { maximumPacketSize: 200, sessionExpiryInterval: 60 });
  const fixed = await headSize(service, device);
  await command(service, 'x'.repeat(200 - fixed), 2);
  const largest = await device.next('publish');
  expect(largest.payload?.length).toBe(200 - fixed);
  device.send({ cmd: 'puback', messageId: largest.messageId });
  await command(service, 'x'.repeat(201 - fixed), 3);
  await command(service, 'small', 4);
  expect(`${(await device.next('publish')).payload}`).toBe('small');
  expect(source.stats()).toMatchObject({ droppedTooLarge: 1, queuedMessages: 1 });
});

/** Bytes ahead of the payload of a command that is larger than 127 bytes. */
async function headSize(service: Wire, device: Wire): Promise<number> {
  let bytes = 0;
  const count = (chunk: Buffer) => {
    bytes += chunk.length;
  };
  device.stream.on('data', count);
  await command(service, 'x'.repeat(100), 1);
  const got = await device.next('publish');
  device.stream.off('data', count);
  device.send({ cmd: 'puback', messageId: got.messageId });
  return bytes - 100;
}

test('one copy carries the identifiers of all matching subscriptions, also from a queue after a crash', async () => {
  const before = await startGateway();
  const properties = { sessionExpiryInterval: 60 };
  const { wire: device } = await login(before.port, 'probe-1', { properties });
  for (const [topic, subscriptionIdentifier] of [
    [`${own}/commands/#`, 7],
    [`${own}/commands/do`, 268_435_455],
    [`${own}/commands/other`, 9],
  ] as const) {
    device.send({
      cmd: 'subscribe',
      messageId: 1,
      subscriptions: [{ topic, qos: 1, nl: false, rap: false, rh: 0 }],
      properties: { subscriptionIdentifier },
    });
    await device.next('suback');
  }
  const { wire: service } = await login(before.port, 'service-1');
  await command(service, 'now', 1);
  const live = await device.next('publish');
  expect(live.properties?.subscriptionIdentifier).toEqual([7, 268_435_455]);
  await device.ping();
  expect(device.count('publish')).toBe(0);
  device.send({ cmd: 'puback', messageId: live.messageId });
  await device.ping();
  device.destroy();
  await command(service, 'later', 2);
  const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
  const { wire: again } = await login(after.port, 'probe-1', { clean: false, properties });
  const queued = await again.next('publish');
  expect(`${queued.payload}`).toBe('later');
  expect(queued.properties?.subscriptionIdentifier).toEqual([7, 268_435_455]);
  const { wire: other } = await login(after.port, 'service-1');
  await command(other, 'last', 3);
  expect((await again.next('publish')).properties?.subscriptionIdentifier).toEqual([7, 268_435_455]);
});

test('No Local and Retain As Published do as they say, also from a queue', async () => {
  const { port } = await startGateway();
  const properties = { sessionExpiryInterval: 60 };
  const options = { clean: false, properties };
  const { wire: device } = await login(port, 'probe-1', options);
  device.send({
    cmd: 'subscribe',
    messageId: 1,
    subscriptions: [
      { topic: `${own}/status/#`, qos: 1, nl: true, rap: false, rh: 0 },
      { topic: `${own}/alarms/#`, qos: 1, nl: false, rap: true, rh: 0 },
    ],
  });
  await device.next('suback');
  const publish = async (channel: string, messageId: number) => {
    device.publish(`${own}/${channel}/x`, channel, { qos: 1, messageId, retain: true });
    await device.next('puback');
  };
  await publish('status', 1);
  await publish('alarms', 2);
  const got = await device.next('publish');
  expect(got).toMatchObject({ topic: `${own}/alarms/x`, retain: true });
  await device.ping();
  expect(device.count('publish')).toBe(0);
  // Not acknowledged: it comes again from the queue.
  device.destroy();
  const { wire: again } = await login(port, 'probe-1', options);
  expect(await again.next('publish')).toMatchObject({ topic: `${own}/alarms/x`, retain: true, dup: true });
});

test.each([
  [0, [1, 1]],
  [1, [1, 0]],
  [2, [0, 0]],
])(
  'Retain Handling %i sends retained messages at a new and at a repeated subscription: %j',
  async (rh, counts) => {
    const { port } = await startGateway();
    const { wire } = await login(port, 'probe-1');
    wire.publish(`${own}/status/mode`, 'eco', { qos: 1, messageId: 1, retain: true });
    await wire.next('puback');
    for (const expected of counts) {
      wire.send({
        cmd: 'subscribe',
        messageId: 2,
        subscriptions: [{ topic: `${own}/status/#`, qos: 0, nl: false, rap: false, rh }],
        properties: { subscriptionIdentifier: 5 },
      });
      await wire.next('suback');
      await wire.ping();
      await wire.ping();
      expect(wire.count('publish')).toBe(expected);
      for (const { retain, properties } of wire.packets.splice(0))
        expect({ retain, id: properties?.subscriptionIdentifier }).toEqual({ retain: true, id: 5 });
    }
  },
);

test('a queued message is sent with the lifetime that remains, or not at all, over a restart as well', async () => {
  const before = await startGateway();
  const properties = { sessionExpiryInterval: 60 };
  const { device, service } = await reader(before.port, properties);
  device.destroy();
  await until(() => before.source.stats().sockets === 1);
  await command(service, 'short', 1, { properties: { messageExpiryInterval: 1 } });
  await command(service, 'long', 2, { properties: { messageExpiryInterval: 100 } });
  await new Promise((resolve) => setTimeout(resolve, 1100));
  const after = await startGateway({ sessionLog: before.sessionLog.afterPowerCut() });
  const { wire: again } = await login(after.port, 'probe-1', { clean: false, properties });
  const got = await again.next('publish');
  expect(`${got.payload}`).toBe('long');
  expect(got.properties?.messageExpiryInterval).toBeLessThan(100);
  expect(got.properties?.messageExpiryInterval).toBeGreaterThan(80);
  expect(after.source.stats()).toMatchObject({ expiredMessages: 1, queuedMessages: 1 });
});

test('a client that takes topic aliases gets a topic once, and no more aliases than it takes', async () => {
  const { port } = await startGateway();
  const { device, service } = await reader(port, { topicAliasMaximum: 1 });
  const topics = ['do', 'do', 'other', 'other', 'do'];
  for (const [index, name] of topics.entries()) {
    service.publish(`${own}/commands/${name}`, 'x', { qos: 1, messageId: index + 1 });
    await service.next('puback');
  }
  const got = [];
  for (const _topic of topics) {
    const { topic, properties } = await device.next('publish');
    got.push([topic, properties?.topicAlias]);
  }
  expect(got).toEqual([
    [`${own}/commands/do`, 1],
    ['', 1],
    [`${own}/commands/other`, undefined],
    [`${own}/commands/other`, undefined],
    ['', 1],
  ]);
});

test('request and response: what belongs to a message arrives with it, live and from a queue', async () => {
  const { port } = await startGateway();
  const session = { sessionExpiryInterval: 60 };
  const { device, service } = await reader(port, session);
  const properties = {
    payloadFormatIndicator: true,
    contentType: 'text/plain',
    responseTopic: `${own}/commands/do/ack`,
    correlationData: Buffer.from([0, 1, 255]),
    userProperties: { a: ['1', '2'], b: '3' },
  };
  await command(service, 'live', 1, { properties });
  const live = await device.next('publish');
  expect(live.properties).toEqual(properties);
  device.destroy();
  const { wire: again } = await login(port, 'probe-1', { clean: false, properties: session });
  expect((await again.next('publish')).properties).toEqual(properties);
});

/** A probe whose will waits this long, and the will's topic. */
async function doomed(port: number, willDelayInterval: number, options: Record<string, unknown> = {}) {
  const topic = `${own}/status/online`;
  const properties = { willDelayInterval };
  const will = { topic, payload: Buffer.from('offline'), qos: 1, retain: true, properties } as const;
  return await login(port, 'probe-1', { will, properties: { sessionExpiryInterval: 60 }, ...options });
}

test.each(['is killed', 'is stopped', 'was away when the gateway is killed'])(
  'a delayed will waits on after a restart: a client that %s is back in time, and nobody hears of it',
  async (how) => {
    const before = await startGateway();
    const { wire } = await doomed(before.port, 30);
    await until(() => before.sessionLog.keys('mqtt/will/').length === 1);
    if (how.startsWith('was')) {
      wire.destroy();
      await until(() => before.source.stats().delayedWills === 1);
    }
    if (how === 'is stopped') await before.source.close();
    const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
    expect(after.messages).toEqual([]);
    expect(after.source.stats().delayedWills).toBe(1);
    const { wire: back } = await login(after.port, 'probe-1', {
      clean: false,
      properties: { sessionExpiryInterval: 60 },
    });
    await back.ping();
    expect(after.source.stats().delayedWills).toBe(0);
    expect(after.sessionLog.keys('mqtt/will/')).toEqual([]);
    expect(after.messages).toEqual([]);
  },
);

test('a delay that began before a restart ends after it', async () => {
  const before = await startGateway();
  const { wire } = await doomed(before.port, 1);
  wire.destroy();
  await until(() => before.source.stats().delayedWills === 1);
  const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
  await until(() => after.messages.length === 1);
  expect(`${after.messages[0]?.payload}`).toBe('offline');
  await until(() => after.sessionLog.keys('mqtt/will/').length === 0);
});

test('a delayed will does not wait for a client that starts anew: its session is over', async () => {
  const { port, source, messages } = await startGateway();
  const { wire } = await doomed(port, 30);
  wire.destroy();
  await until(() => source.stats().delayedWills === 1);
  await login(port, 'probe-1');
  await until(() => messages.length === 1);
  const { wire: taken } = await doomed(port, 30);
  await login(port, 'probe-1');
  await taken.ended();
  await until(() => messages.length === 2);
  expect(source.stats().delayedWills).toBe(0);
});

test('the delayed will of a client whose session is taken over and goes on is not published', async () => {
  const { port, source, messages, sessionLog } = await startGateway();
  const { wire } = await doomed(port, 30);
  const { wire: again } = await doomed(port, 30, { clean: false });
  await wire.ended();
  await again.ping();
  expect(messages).toEqual([]);
  expect(source.stats().delayedWills).toBe(0);
  expect(sessionLog.keys('mqtt/will/')).toHaveLength(1);
});

test('nothing is said in the name of a client that was revoked while its will waited', async () => {
  const { port, source, messages, sessionLog, credentials } = await startGateway();
  const { wire } = await doomed(port, 30);
  wire.destroy();
  await until(() => source.stats().delayedWills === 1);
  credentials.revoke('probe-1');
  expect(source.stats().delayedWills).toBe(0);
  expect(sessionLog.keys('mqtt/will/')).toEqual([]);
  expect(messages).toEqual([]);
});

test('who is refused reads why, except where it asked not to', async () => {
  const { port } = await startGateway();
  const stranger = await Wire.tcp(port, 5);
  const connack = await stranger.login('probe-1', { password: Buffer.from('wrong') });
  expect(connack).toMatchObject({
    reasonCode: 0x86,
    properties: { reasonString: 'bad user name or password' },
  });
  for (const requestProblemInformation of [true, false]) {
    const { wire } = await login(port, 'probe-1', { properties: { requestProblemInformation } });
    wire.publish('iotflow/devices/probe-2/telemetry/a', '1', { qos: 1, messageId: 1 });
    const puback = await wire.next('puback');
    expect(puback.reasonCode).toBe(0x87);
    expect(puback.properties?.reasonString).toEqual(
      requestProblemInformation ? expect.stringContaining('not authorized') : undefined,
    );
    // A DISCONNECT may say it to anybody [MQTT-3.1.2-29].
    wire.raw([0x36, 0]);
    expect(await wire.next('disconnect')).toMatchObject({
      reasonCode: 0x81,
      properties: { reasonString: 'a packet is malformed' },
    });
  }
});

test('who asks for nothing to keep it alive is told what the server takes instead', async () => {
  const { port } = await startGateway({ limits: { keepaliveS: 300 } });
  for (const [keepalive, told] of [
    [0, 300],
    [301, 300],
    [300, undefined],
    [10, undefined],
  ] as const) {
    const { connack } = await login(port, 'probe-1', { keepalive });
    expect(connack.properties?.serverKeepAlive).toBe(told);
  }
});

test('PUBACK says when nobody is there to take a command: 0x10', async () => {
  const { port } = await startGateway();
  const { wire: service } = await login(port, 'service-1');
  const publish = async (topic: string) => {
    service.publish(topic, 'x', { qos: 1, messageId: 1 });
    return (await service.next('puback')).reasonCode;
  };
  expect(await publish(`${own}/commands/do`)).toBe(0x10);
  expect(await publish('homeassistant/x/config')).toBe(0x10);
  const { wire: device } = await login(port, 'probe-1');
  await device.subscribe(`${own}/commands/#`, 1);
  expect(await publish(`${own}/commands/do`)).toBe(0);
  expect((await device.next('publish')).topic).toBe(`${own}/commands/do`);
  // The gateway itself takes it.
  device.publish(`${own}/telemetry/a`, '1', { qos: 1, messageId: 1 });
  expect((await device.next('puback')).reasonCode).toBe(0);
});

test.each([1, 2] as const)(
  'a client with more unanswered QoS %i messages than it was told is disconnected: 0x93',
  async (qos) => {
    let release = (): void => {};
    const stored = new Promise<void>((resolve) => {
      release = resolve;
    });
    const { port, source } = await startGateway({ limits: { inflightInbound: 3 }, sink: () => stored });
    const { wire, connack } = await login(port, 'probe-1');
    expect(connack.properties?.receiveMaximum).toBe(3);
    // In one piece: while answers are due, reading soon pauses, which holds a client to its limit as well.
    wire.stream.cork();
    for (const messageId of [1, 2, 3]) wire.publish(`${own}/telemetry/a`, 'x', { qos, messageId });
    // Sent again it counts once.
    wire.publish(`${own}/telemetry/a`, 'x', { qos, messageId: 3, dup: true });
    expect(source.stats().inboundOverflows).toBe(0);
    wire.publish(`${own}/telemetry/a`, 'x', { qos, messageId: 4 });
    wire.stream.uncork();
    expect((await wire.next('disconnect')).reasonCode).toBe(0x93);
    await wire.ended();
    expect(source.stats().inboundOverflows).toBe(1);
    release();
  },
);

test('Response Information begins topics on which the client can be answered, for who asks', async () => {
  const { port } = await startGateway();
  const properties = { requestResponseInformation: true };
  const informationFor = async (account: string, asks: boolean) =>
    (await login(port, account, asks ? { properties } : {})).connack.properties?.responseInformation;
  expect(await informationFor('probe-1', false)).toBeUndefined();
  expect(await informationFor('service-1', true)).toBe('iotflow/devices/');
  expect(await informationFor('probe-1', true)).toBe(`${own}/commands/`);
});
