import { generate } from 'mqtt-packet';
import { expect, test } from 'vitest';
import type { Message } from '../../../src/model/message.ts';
import { GatewayError } from '../../../src/platform/errors.ts';
import { startGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { until } from '../../support/until.ts';

const leak = 'iotflow/devices/probe-1/telemetry/leak';

interface Gate {
  readonly taken: Message[];
  readonly open: (() => void)[];
  sink(message: Message): Promise<void>;
}

/** A sink whose messages become durable one by one, when the test says so. */
function gate(): Gate {
  const taken: Message[] = [];
  const open: (() => void)[] = [];
  return {
    taken,
    open,
    sink: (message) => {
      taken.push(message);
      return new Promise((resolve) => open.push(resolve));
    },
  };
}

test.each([1, 2] as const)('QoS %i is acknowledged only once the sink says durable', async (qos) => {
  const { sink, taken, open } = gate();
  const { port } = await startGateway({ sink });
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  wire.publish(leak, '{"wet":true}', { qos, messageId: 11 });
  await until(() => taken.length === 1);
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(wire.packets).toEqual([]);
  expect(taken[0]).toMatchObject({
    transport: 'mqtt',
    deviceId: 'probe-1',
    channel: 'telemetry',
    name: 'leak',
  });
  expect(taken[0]?.payload.toString()).toBe('{"wet":true}');
  open[0]?.();
  expect((await wire.next(qos === 1 ? 'puback' : 'pubrec')).messageId).toBe(11);
});

test('acknowledgements keep the order of their publishes when the sink finishes out of order', async () => {
  const { sink, open } = gate();
  const { port } = await startGateway({ sink });
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  for (const messageId of [1, 2, 3]) wire.publish(leak, `${messageId}`, { qos: 1, messageId });
  await until(() => open.length === 3);
  open[2]?.();
  open[1]?.();
  await new Promise((resolve) => setTimeout(resolve, 30));
  expect(wire.count('puback')).toBe(0);
  open[0]?.();
  const ids = [];
  for (let index = 0; index < 3; index += 1) ids.push((await wire.next('puback')).messageId);
  expect(ids).toEqual([1, 2, 3]);
});

test('messages keep their order, however they and what comes between them are mixed on the wire', async () => {
  const { port, messages } = await startGateway();
  const reader = await Wire.tcp(port);
  await reader.login('service-1', { clean: false });
  await reader.subscribe('iotflow/devices/#', 1);
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  wire.stream.cork();
  let messageId = 0;
  for (let round = 0; round < 40; round += 1) {
    // After something that is no message the rest of a chunk goes another way through the broker.
    if (round % 3 === 1) wire.send({ cmd: 'pingreq' });
    for (let count = 0; count < 5; count += 1) {
      messageId += 1;
      wire.publish(leak, `${messageId}`, { qos: 1, messageId });
    }
    if (round % 4 === 3) {
      // Each write becomes a chunk of its own.
      wire.stream.uncork();
      await new Promise((resolve) => setImmediate(resolve));
      wire.stream.cork();
    }
  }
  wire.stream.uncork();
  const acknowledged: unknown[] = [];
  const received: string[] = [];
  const wanted = Array.from({ length: messageId }, (_, index) => index + 1);
  for (const _ of wanted) {
    acknowledged.push((await wire.next('puback')).messageId);
    const got = await reader.next('publish');
    received.push(String(got.payload));
    reader.send({ cmd: 'puback', messageId: got.messageId });
  }
  expect(acknowledged).toEqual(wanted);
  expect(received).toEqual(wanted.map(String));
  expect(messages.map(({ payload }) => payload.toString())).toEqual(wanted.map(String));
});

test('a message cut anywhere by the network is taken once it is whole', async () => {
  const { port, messages } = await startGateway();
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  const packet = generate({
    cmd: 'publish',
    topic: leak,
    payload: 'x'.repeat(200),
    qos: 1,
    messageId: 5,
    dup: false,
    retain: false,
  });
  const twice = Buffer.concat([packet, packet]);
  for (const at of [1, 2, 3, 20, packet.length - 1, packet.length + 1, packet.length + 30]) {
    wire.raw(twice.subarray(0, at));
    await new Promise((resolve) => setTimeout(resolve, 10));
    wire.raw(twice.subarray(at));
    expect([await wire.next('puback'), await wire.next('puback')]).toMatchObject([
      { messageId: 5 },
      { messageId: 5 },
    ]);
  }
  expect(messages).toHaveLength(14);
});

test('a topic nobody wanted reaches who subscribes to it later', async () => {
  const { port } = await startGateway();
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  wire.publish(leak, 'before', { qos: 1, messageId: 1 });
  await wire.next('puback');
  const reader = await Wire.tcp(port);
  await reader.login('service-1');
  await reader.subscribe('iotflow/devices/+/telemetry/#', 0);
  wire.publish(leak, 'after', { qos: 1, messageId: 2 });
  expect(String((await reader.next('publish')).payload)).toBe('after');
});

test('QoS 0 is taken at once while the sink keeps up, and at its pace while it is behind', async () => {
  const { sink, taken, open } = gate();
  let behind = false;
  const { port } = await startGateway({ sink, isBehind: () => behind });
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  wire.publish(leak, '1');
  await wire.ping();
  expect(taken.length).toBe(1);
  behind = true;
  wire.publish(leak, '2');
  await until(() => taken.length === 2);
  wire.publish(leak, '3');
  await new Promise((resolve) => setTimeout(resolve, 50));
  expect(taken.length).toBe(2);
  behind = false;
  open[1]?.();
  await until(() => taken.length === 3);
});

test.each([1, 2] as const)(
  'a copy sent while QoS %i is in flight is stored once and answered once',
  async (qos) => {
    const { sink, taken, open } = gate();
    const { port, source } = await startGateway({ sink });
    const wire = await Wire.tcp(port);
    await wire.login('probe-1');
    const answer = qos === 1 ? 'puback' : 'pubrec';
    // One chunk: both are handled before the first is durable.
    wire.stream.cork();
    wire.publish(leak, 'x', { qos, messageId: 5 });
    wire.publish(leak, 'x', { qos, messageId: 5, dup: true });
    wire.stream.uncork();
    await until(() => source.stats().duplicates === 1);
    // And one that is read only after the first was acknowledged, as from an ESP32 after a second without an answer.
    wire.publish(leak, 'x', { qos, messageId: 5, dup: true });
    open[0]?.();
    await wire.next(answer);
    if (qos === 2) {
      await wire.next(answer);
      wire.send({ cmd: 'pubrel', messageId: 5 });
      await wire.next('pubcomp');
    }
    await wire.ping();
    expect(taken.length).toBe(1);
    expect(wire.count(answer)).toBe(0);
    expect(source.stats().duplicates).toBe(2);
    // A new message may use the packet id again.
    wire.publish(leak, 'y', { qos, messageId: 5 });
    await until(() => open.length === 2);
    open[1]?.();
    await wire.next(answer);
  },
);

test('a QoS 2 message is taken once however often it is sent before PUBREL', async () => {
  const { port, messages } = await startGateway();
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  for (let copy = 0; copy < 3; copy += 1) {
    wire.publish(leak, 'x', { qos: 2, messageId: 5, dup: copy > 0 });
    await wire.next('pubrec');
  }
  wire.send({ cmd: 'pubrel', messageId: 5 });
  await wire.next('pubcomp');
  wire.send({ cmd: 'pubrel', messageId: 5 });
  await wire.next('pubcomp');
  expect(messages.length).toBe(1);
  wire.publish(leak, 'y', { qos: 2, messageId: 5 });
  await wire.next('pubrec');
  expect(messages.length).toBe(2);
});

test('a full journal holds the acknowledgement and answers when there is room again', async () => {
  let full = true;
  let tries = 0;
  const { port, source } = await startGateway({
    sink: async () => {
      tries += 1;
      if (full) throw new GatewayError('JOURNAL_FULL', 'no room');
    },
  });
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  wire.publish(leak, 'x', { qos: 1, messageId: 5 });
  await until(() => tries >= 2);
  expect(wire.packets).toEqual([]);
  full = false;
  expect((await wire.next('puback')).messageId).toBe(5);
  expect(source.stats()).toMatchObject({ heldAcknowledgements: 1, abandonedAcknowledgements: 0 });
});

test.each([
  [4, 'JOURNAL_FULL', undefined],
  [5, 'JOURNAL_FULL', 0x97],
  [5, 'JOURNAL_FAILED', 0x83],
] as const)(
  'a journal that stays full closes the connection unacknowledged (level %i, %s)',
  async (version, code, reasonCode) => {
    const { port, source } = await startGateway({
      limits: { ackTimeoutMs: 400 },
      sink: async () => {
        throw new GatewayError(code, 'refused');
      },
    });
    const wire = await Wire.tcp(port, version);
    await wire.login('probe-1');
    wire.publish(leak, 'x', { qos: 1, messageId: 5 });
    await wire.ended();
    expect(wire.count('puback')).toBe(0);
    expect(wire.packets.find((packet) => packet.cmd === 'disconnect')?.reasonCode).toBe(reasonCode);
    expect(source.stats()).toMatchObject({ abandonedAcknowledgements: 1, pendingAcknowledgements: 0 });
  },
);

test('a disk that never answers closes the connection in the end, and its keep-alive does not before', async () => {
  const { sink, taken } = gate();
  const { port, source } = await startGateway({ sink, limits: { ackTimeoutMs: 2500 } });
  const wire = await Wire.tcp(port);
  await wire.login('probe-1', { keepalive: 1 });
  const sinceMs = performance.now();
  wire.publish(leak, 'x', { qos: 1, messageId: 5 });
  await until(() => taken.length === 1);
  await wire.ended();
  expect(performance.now() - sinceMs).toBeGreaterThanOrEqual(2400);
  expect(wire.packets).toEqual([]);
  expect(source.stats().abandonedAcknowledgements).toBe(1);
});

test('a message that became durable after its publisher left still reaches the subscribers', async () => {
  const { sink, open } = gate();
  const { port } = await startGateway({ sink });
  const reader = await Wire.tcp(port);
  await reader.login('service-1');
  await reader.subscribe('iotflow/devices/#', 1);
  const wire = await Wire.tcp(port);
  await wire.login('probe-1');
  wire.publish(leak, 'x', { qos: 1, messageId: 5 });
  await until(() => open.length === 1);
  wire.destroy();
  await new Promise((resolve) => setTimeout(resolve, 30));
  open[0]?.();
  expect((await reader.next('publish')).payload?.toString()).toBe('x');
});

test('a gateway command is carried out before it is acknowledged', async () => {
  const commands: unknown[] = [];
  let carryOut = () => {};
  const { port } = await startGateway({
    onCommand: (kind, payload, accountId) => {
      commands.push([kind, payload.toString(), accountId]);
      return new Promise((resolve) => {
        carryOut = resolve;
      });
    },
  });
  const wire = await Wire.tcp(port);
  await wire.login('service-1');
  wire.publish('iotflow/gateway/commands/silence', 'now', { qos: 1, messageId: 5 });
  await until(() => commands.length === 1);
  expect(wire.packets).toEqual([]);
  carryOut();
  await wire.next('puback');
  expect(commands).toEqual([['silence', 'now', 'service-1']]);
});

test('a command that fails for good is acknowledged, or it would come back for ever', async () => {
  const { port, source } = await startGateway({
    onCommand: () => {
      throw new GatewayError('ALARM_UNKNOWN', 'no such alarm');
    },
  });
  const wire = await Wire.tcp(port);
  await wire.login('service-1');
  wire.publish('iotflow/gateway/commands/acknowledge', 'x', { qos: 1, messageId: 5 });
  await wire.next('puback');
  expect(source.stats().failedCommands).toBe(1);
});

test('closing waits for what was received, then tells MQTT 5 clients that the server goes', async () => {
  const { sink, open } = gate();
  const { port, source } = await startGateway({ sink });
  const wire = await Wire.tcp(port, 5);
  await wire.login('probe-1');
  wire.publish(leak, 'x', { qos: 1, messageId: 5 });
  await until(() => open.length === 1);
  const closed = source.close();
  open[0]?.();
  await closed;
  await wire.ended();
  expect(wire.packets.map((packet) => [packet.cmd, packet.reasonCode])).toEqual([
    ['puback', 0],
    ['disconnect', 0x8b],
  ]);
});
