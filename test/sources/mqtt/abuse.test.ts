// What a broker without limits lets anybody do, probe by probe: here each is refused or bounded. Beyond these,
// access-matrix.test.ts has who may do what, limits.test.ts the bounds one by one, hostile.test.ts mutated sessions.

import { once } from 'node:events';
import { connect } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { expect, onTestFinished, test } from 'vitest';
import { collectGarbage } from '../../support/garbage.ts';
import { startGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { tempFolder } from '../../support/temp.ts';
import { until } from '../../support/until.ts';

const own = 'iotflow/devices/probe-1';

async function device(port: number, name = 'probe-1', options = {}): Promise<Wire> {
  const wire = await Wire.tcp(port, 5);
  expect((await wire.login(name, options)).reasonCode).toBe(0);
  return wire;
}

test('nobody is anonymous', async () => {
  const { port } = await startGateway();
  const wire = await Wire.tcp(port, 5);
  const nobody = { username: undefined, password: undefined } as unknown as { username: string };
  expect((await wire.login('probe-1', nobody)).reasonCode).toBe(0x86);
});

test.each(['#', '+/#', '$SYS/#', '$SYS/broker/clients/total', 'iotflow/#'])(
  'a device does not listen in on %s',
  async (filter) => {
    const { port } = await startGateway();
    const spy = await device(port, 'probe-2');
    expect((await spy.subscribe(filter, 1)).granted).toEqual([0x87]);
    const victim = await device(port);
    victim.publish(`${own}/status/x`, 'private', { qos: 1, messageId: 1 });
    await victim.next('puback');
    await spy.ping();
    expect(spy.packets).toEqual([]);
  },
);

test.each([`${own}/telemetry/leak`, '$SYS/broker/uptime', 'iotflow/gateway/alarms', 'homeassistant/status'])(
  'a device does not speak as %s',
  async (topic) => {
    const { port, messages } = await startGateway();
    const reader = await device(port, 'service-1');
    for (const filter of ['iotflow/devices/#', 'iotflow/gateway/#', 'homeassistant/#'])
      await reader.subscribe(filter);
    const liar = await device(port, 'probe-2');
    liar.publish(topic, 'untrue', { qos: 1, messageId: 1, retain: true });
    expect((await liar.next('puback')).reasonCode).toBe(0x87);
    await reader.ping();
    expect(reader.packets).toEqual([]);
    expect(messages).toEqual([]);
  },
);

test('500 silent sockets are not held, and a device comes in beside them', async () => {
  const { port, source } = await startGateway({ limits: { connectTimeoutMs: 1000 } });
  const silent = Array.from({ length: 500 }, () => {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    return socket;
  });
  onTestFinished(() => {
    for (const socket of silent) socket.destroy();
  });
  await Promise.all(silent.slice(0, 100).map((socket) => once(socket, 'connect').catch(() => {})));
  expect(source.stats().unauthenticatedSockets).toBeLessThanOrEqual(50);
  let answer: Awaited<ReturnType<Wire['next']>> | undefined;
  while (answer === undefined) {
    const wire = await Wire.tcp(port, 5);
    answer = await wire.login('probe-1').catch(() => undefined);
  }
  expect(answer.reasonCode).toBe(0);
  await until(() => source.stats().unauthenticatedSockets === 0);
});

test('TLS handshakes that never end are cut off', async () => {
  const listen = { host: '127.0.0.1', lanPlaintext: false, tlsPort: 0 };
  const { source } = await startGateway({
    dataDirectory: tempFolder(),
    listen,
    limits: { connectTimeoutMs: 500 },
  });
  const port = source.ports.mqtts ?? 0;
  const half = connect(port, '127.0.0.1');
  const begun = connect(port, '127.0.0.1', () => begun.write(Buffer.from([0x16, 3, 1, 2, 0, 1])));
  const quiet = tlsConnect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  const ends = [half, begun, quiet].map((socket) => {
    socket.on('error', () => {});
    socket.resume();
    return new Promise((resolve) => socket.once('close', resolve));
  });
  await Promise.all(ends);
  await until(() => source.stats().sockets === 0);
});

test('giants announced before the login cost no memory', async () => {
  const { port, source } = await startGateway();
  collectGarbage();
  const before = process.memoryUsage().arrayBuffers;
  for (let index = 0; index < 20; index += 1) {
    const socket = connect(port, '127.0.0.1');
    socket.on('error', () => {});
    // 200 MB announced by one who sends a good deal of it.
    socket.write(Buffer.from([0x10, 0x80, 0x84, 0xaf, 0x5f]));
    socket.write(Buffer.alloc(2 * 1024 * 1024));
    socket.resume();
    await new Promise((resolve) => socket.once('close', resolve));
  }
  await until(() => source.stats().sockets === 0);
  expect(source.stats()).toMatchObject({ heldBytes: 0, offences: { 'packet-too-large': 20 } });
  await until(() => {
    collectGarbage();
    return process.memoryUsage().arrayBuffers - before < 5 * 1024 * 1024;
  });
});

test('a PUBLISH of 20 MB is refused at its length', async () => {
  const { port, messages } = await startGateway();
  const wire = await device(port);
  wire.raw([0x32, 0x80, 0xda, 0xc4, 0x09]);
  expect((await wire.next('disconnect')).reasonCode).toBe(0x95);
  await wire.ended();
  expect(messages).toEqual([]);
});

test.each([17, 101, 250])('a topic of %i levels is refused', async (levels) => {
  const { port } = await startGateway();
  for (const packet of ['publish', 'subscribe', 'will'] as const) {
    const topic = `${'/'.repeat(levels - 1)}x`;
    const wire = await Wire.tcp(port, 5);
    if (packet === 'will') {
      const will = { topic, payload: Buffer.from('x'), qos: 0, retain: false } as const;
      expect((await wire.login('probe-1', { will })).reasonCode).toBe(0x90);
      continue;
    }
    await wire.login('probe-1');
    if (packet === 'publish') wire.publish(topic, 'x');
    else
      wire.send({
        cmd: 'subscribe',
        messageId: 1,
        subscriptions: [{ topic, qos: 0, nl: false, rap: false, rh: 0 }],
      });
    expect((await wire.next('disconnect')).reasonCode).toBe(0x90);
  }
});

test('a client id is not taken over by another account, nor its session read', async () => {
  const { port } = await startGateway();
  const lasting = { clientId: 'mine', clean: false, properties: { sessionExpiryInterval: 60 } };
  const victim = await device(port, 'probe-1', lasting);
  await victim.subscribe(`${own}/commands/#`, 1);
  for (const clean of [true, false]) {
    const thief = await Wire.tcp(port, 5);
    expect((await thief.login('probe-2', { ...lasting, clean })).reasonCode).toBe(0x87);
    await thief.ended();
  }
  await victim.ping();
});

test('4,000 retained messages of 10 kB are not kept', async () => {
  const { port, source } = await startGateway();
  const wire = await device(port);
  for (let index = 0; index < 4000; index += 1) {
    // Small ones as well: those are bounded by their number.
    const payload = index % 2 === 0 ? Buffer.alloc(10_000, 'x') : 'x';
    wire.publish(`${own}/status/${index}`, payload, { retain: true });
    if (index % 100 === 0) await wire.ping();
  }
  await wire.ping();
  expect(source.stats().retained).toBe(20);
});

test('a will is not kept beyond the bounds of a retained message', async () => {
  const { port, source } = await startGateway({ limits: { retainedBytes: 100 } });
  const will = { topic: `${own}/status/x`, payload: Buffer.alloc(2000, 'x'), qos: 1, retain: true } as const;
  const wire = await device(port, 'probe-1', { will });
  wire.destroy();
  await until(() => source.stats().messages === 1);
  expect(source.stats()).toMatchObject({ retained: 0, refusedRetained: 1 });
});

test('QoS 2 that is never released ends at the bound', async () => {
  const { port, messages } = await startGateway();
  const wire = await device(port);
  for (let messageId = 1; messageId <= 20_000 && !wire.closed; messageId += 1) {
    wire.publish(`${own}/telemetry/x`, '1', { qos: 2, messageId });
    if (messageId % 500 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  await wire.ended();
  expect(messages.length).toBeLessThanOrEqual(1024);
});

test('20,000 messages for a client that is away are not all kept', async () => {
  const { port, source } = await startGateway();
  const lasting = { clean: false, properties: { sessionExpiryInterval: 60 } };
  const away = await device(port, 'service-1', lasting);
  await away.subscribe('iotflow/devices/#', 1);
  away.destroy();
  const wire = await device(port);
  for (let index = 0; index < 20_000; index += 1) {
    wire.publish(`${own}/telemetry/x`, '1', { qos: 1, messageId: 1 + (index % 60_000) });
    if (index % 500 === 499) await until(() => wire.count('puback') === index + 1);
  }
  const { queuedMessages, queuedBytes, droppedQueued } = source.stats();
  expect(queuedMessages).toBeLessThanOrEqual(1000);
  expect(queuedBytes).toBeLessThanOrEqual(1024 * 1024);
  expect(droppedQueued).toBe(20_000 - queuedMessages);
});
