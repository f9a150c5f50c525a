import { connect } from 'node:net';
import { generate, type Packet } from 'mqtt-packet';
import { expect, test } from 'vitest';
import { startGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { until } from '../../support/until.ts';

/** Connections of the mutation test; more in the long form. */
const connections = Number(process.env.IOTFLOW_FUZZ_CONNECTIONS ?? 400);

function packets(protocolVersion: 4 | 5): Buffer[] {
  const own = 'iotflow/devices/probe-1';
  const all = [
    { cmd: 'publish', topic: `${own}/telemetry/x`, payload: '1', qos: 0, dup: false, retain: false },
    {
      cmd: 'publish',
      topic: `${own}/status/x`,
      payload: 'on',
      qos: 1,
      messageId: 3,
      dup: false,
      retain: true,
    },
    {
      cmd: 'publish',
      topic: `${own}/telemetry/x`,
      payload: '1',
      qos: 2,
      messageId: 4,
      dup: false,
      retain: false,
    },
    { cmd: 'pubrel', messageId: 4 },
    { cmd: 'puback', messageId: 4 },
    { cmd: 'pubrec', messageId: 4 },
    {
      cmd: 'subscribe',
      messageId: 5,
      subscriptions: [{ topic: `${own}/#`, qos: 2, nl: false, rap: true, rh: 0 }],
    },
    { cmd: 'unsubscribe', messageId: 6, unsubscriptions: [`${own}/#`, 'constructor'] },
    { cmd: 'pingreq' },
    { cmd: 'disconnect' },
  ];
  return all.map((packet) => generate(packet as Packet, { protocolVersion }));
}

function login(protocolVersion: 4 | 5, clean: boolean): Buffer {
  return generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion,
    clientId: 'probe-1',
    clean,
    keepalive: 10,
    username: 'probe-1',
    password: Buffer.from('key-probe-1'),
    will: {
      topic: 'iotflow/devices/probe-1/status/online',
      payload: Buffer.from('off'),
      qos: 1,
      retain: true,
    },
  } as Packet);
}

test('mutated sessions neither stop the gateway nor another device', { timeout: 600_000 }, async () => {
  const gateway = await startGateway();
  const witness = await Wire.tcp(gateway.port);
  await witness.login('probe-2');
  let state = 0x1234567;
  function random(below: number): number {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  }
  for (let index = 1; index <= connections; index += 1) {
    const version = random(2) === 0 ? 4 : 5;
    const corpus = packets(version);
    const session = Buffer.concat(
      Array.from({ length: 1 + random(6) }, () => corpus[random(corpus.length)]!),
    );
    for (let flips = random(5); flips > 0; flips -= 1) session[random(session.length)] = random(256);
    const hello = login(version, random(2) === 0);
    if (random(10) === 0) hello[random(hello.length)] = random(256);
    const socket = connect({ port: gateway.port, host: '127.0.0.1' });
    socket.on('error', () => {});
    const closed = new Promise((resolve) => socket.once('close', resolve));
    socket.resume();
    socket.write(hello);
    for (let at = 0; at < session.length; at += 1 + random(40)) {
      socket.write(session.subarray(at, Math.min(session.length, at + 1 + random(40))));
      if (random(4) === 0) await new Promise((resolve) => setImmediate(resolve));
    }
    setTimeout(() => socket.destroy(), random(10));
    await closed;
    if (index % 100 !== 0) continue;
    witness.publish('iotflow/devices/probe-2/telemetry/x', '1', { qos: 1, messageId: 1 + (index % 60_000) });
    await witness.next('puback');
  }
  await until(() => gateway.source.stats().sockets === 1);
  expect(gateway.source.stats()).toMatchObject({
    brokerErrors: 0,
    pendingAcknowledgements: 0,
    heldBytes: 0,
    unsentBytes: 0,
  });
  expect(gateway.messages.every((message) => ['probe-1', 'probe-2'].includes(message.deviceId))).toBe(true);
});
