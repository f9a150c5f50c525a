// Malformed input by the million: `npm run fuzz -- --inputs 1000000 --seed 1`. Structure-aware mutations of valid
// packets of both protocol levels go through the guard into the broker's own parser (`direct`), and one in fifty over
// real sockets, where the session goes on behind the mutation. The same seed gives the same inputs. Ends with 1 when
// a witness gets no answer, an exception or rejection was not caught, or memory grew.

import { once } from 'node:events';
import { connect } from 'node:net';
import { parseArgs } from 'node:util';
import { generate, type Packet, parser } from 'mqtt-packet';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { defaultLimits } from '../../src/sources/mqtt/limits.ts';
import { MqttSource } from '../../src/sources/mqtt/mqtt-source.ts';
import { PacketGuard } from '../../src/sources/mqtt/packet-guard.ts';
import { collectGarbage } from '../support/garbage.ts';
import { TestCredentials } from '../support/mqtt-gateway.ts';
import { Wire } from '../support/mqtt-wire.ts';
import { MemorySessionLog } from '../support/session-log.ts';

const socketShare = 50;
const sideBySide = 16;
const growthMaxMib = 32;
const own = 'iotflow/devices/probe-1';

const { values } = parseArgs({
  options: { inputs: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } },
});
const inputs = Number(values.inputs);
const seed = Number(values.seed);

type Random = (below: number) => number;

/** xorshift32: small, fast, and the same everywhere. */
function randomFrom(start: number): Random {
  let state = Math.imul(start, 0x9e3779b1) | 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

function corpus(protocolVersion: 4 | 5): Buffer[] {
  const v5 = protocolVersion === 5;
  const publish = {
    cmd: 'publish',
    topic: `${own}/telemetry/x`,
    payload: '{"a":1}',
    dup: false,
    retain: false,
  };
  const all = [
    { ...publish, qos: 0 },
    { ...publish, qos: 1, messageId: 3, retain: true, topic: `${own}/status/x` },
    { ...publish, qos: 2, messageId: 4 },
    {
      ...publish,
      qos: 1,
      messageId: 5,
      properties: {
        payloadFormatIndicator: true,
        messageExpiryInterval: 9,
        responseTopic: `${own}/status/y`,
        correlationData: Buffer.from('c'),
        userProperties: { a: ['b', 'c'] },
        contentType: 'text/plain',
      },
    },
    ...['puback', 'pubrec', 'pubrel', 'pubcomp'].map((cmd) => ({ cmd, messageId: 4 })),
    {
      cmd: 'subscribe',
      messageId: 5,
      subscriptions: [
        { topic: `${own}/#`, qos: 2, nl: false, rap: true, rh: 0 },
        { topic: `${own}/+/x`, qos: 1, nl: v5, rap: false, rh: v5 ? 1 : 0 },
      ],
      ...(v5 ? { properties: { subscriptionIdentifier: 200 } } : {}),
    },
    { cmd: 'unsubscribe', messageId: 6, unsubscriptions: [`${own}/#`, 'constructor'] },
    { cmd: 'pingreq' },
    { cmd: 'disconnect' },
  ];
  return all.map((packet) => generate(packet as Packet, { protocolVersion }));
}

function hello(protocolVersion: 4 | 5, clientId: string, clean: boolean): Buffer {
  return generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion,
    clientId,
    clean,
    keepalive: 10,
    username: 'probe-1',
    password: Buffer.from('key-probe-1'),
    will: { topic: `${own}/status/online`, payload: Buffer.from('off'), qos: 1, retain: true },
  } as Packet);
}

const telling = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x23, 0x2b, 0x24, 0x2f, 0xc0, 0xed, 0xf4, 0x26, 0x0b, 0x23];

/** One change that a packet's structure makes interesting. */
function mutate(packet: Buffer, random: Random): Buffer {
  const bytes = Buffer.from(packet);
  const at = random(bytes.length);
  switch (random(8)) {
    case 0:
      bytes[at] = telling[random(telling.length)] as number;
      return bytes;
    case 1:
      bytes[at] = (bytes[at] as number) ^ (1 << random(8));
      return bytes;
    case 2:
      bytes[0] = random(256);
      return bytes;
    case 3:
      bytes[Math.min(1, bytes.length - 1)] = random(256);
      return bytes;
    case 4:
      return bytes.subarray(0, at);
    case 5:
      // More bytes, with a length that admits to them.
      return relength(
        Buffer.concat([bytes.subarray(0, at), Buffer.from([random(256), random(256)]), bytes.subarray(at)]),
      );
    case 6:
      return relength(
        Buffer.concat([bytes.subarray(0, at), bytes.subarray(Math.min(bytes.length, at + 1 + random(4)))]),
      );
    default:
      return Buffer.concat([bytes, bytes.subarray(at)]);
  }
}

function relength(packet: Buffer): Buffer {
  if (packet.length < 2) return packet;
  let start = 1;
  while (start < Math.min(packet.length, 4) && (packet[start] as number) >= 0x80) start += 1;
  const body = packet.subarray(start + 1);
  const length = body.length < 128 ? [body.length] : [(body.length & 127) | 128, body.length >> 7];
  return Buffer.concat([packet.subarray(0, 1), Buffer.from(length), body]);
}

const corpora = { 4: corpus(4), 5: corpus(5) } as const;
const hellos = { 4: hello(4, 'probe-1', true), 5: hello(5, 'probe-1', true) } as const;

function someSession(version: 4 | 5, random: Random): Buffer[] {
  const packets = corpora[version];
  const session = Array.from({ length: 1 + random(4) }, () => packets[random(packets.length)] as Buffer);
  const at = random(session.length);
  let mutated = session[at] as Buffer;
  for (let times = 1 + random(3); times > 0 && mutated.length > 0; times -= 1)
    mutated = mutate(mutated, random);
  session[at] = mutated;
  return session;
}

/** Guard and parser without a socket; what passes the guard, the parser must take. */
function direct(random: Random): void {
  const version = random(2) === 0 ? 4 : 5;
  const guard = new PacketGuard(defaultLimits);
  const parse = parser();
  parse.on('error', (error) => {
    throw new Error('the parser refuses what the guard let pass', { cause: error });
  });
  const greeting = random(16) === 0 ? mutate(hellos[version], random) : hellos[version];
  for (const bytes of [greeting, ...someSession(version, random)]) {
    const cut = random(bytes.length + 1);
    for (const chunk of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
      const good = guard.push(chunk);
      if (good !== undefined && parse.parse(good) !== 0) throw new Error('the guard let half a packet pass');
    }
  }
}

async function overSocket(port: number, random: Random): Promise<void> {
  const version = random(2) === 0 ? 4 : 5;
  const greeting = hello(version, `probe-1-${random(sideBySide)}`, random(4) > 0);
  const socket = connect({ port, host: '127.0.0.1', noDelay: true });
  socket.on('error', () => {});
  socket.resume();
  const closed = once(socket, 'close');
  socket.write(random(16) === 0 ? mutate(greeting, random) : greeting);
  for (const bytes of someSession(version, random)) socket.write(bytes);
  // The session goes on: a good packet behind the bad one, then the end.
  socket.end(corpora[version][random(2)] as Buffer);
  const timer = setTimeout(() => socket.destroy(), 2000);
  await closed;
  clearTimeout(timer);
}

let uncaught = 0;
for (const event of ['uncaughtException', 'unhandledRejection'] as const) {
  process.on(event, (error: unknown) => {
    uncaught += 1;
    console.error(event, error);
  });
}

let received = 0;
const source = await MqttSource.open({
  root: 'iotflow',
  dataDirectory: '/nonexistent',
  listen: { host: '127.0.0.1', lanPlaintext: false, port: 0 },
  credentials: new TestCredentials(),
  sink: async () => {
    received += 1;
  },
  sessionLog: new MemorySessionLog(),
  clock: systemClock(),
  log: createLog('silent'),
});
const port = source.ports.mqtt ?? 0;
const witness = await Wire.tcp(port);
await witness.login('probe-2');

const random = randomFrom(seed);
const steps = 20;
const overSockets = Math.floor(inputs / socketShare);
let failures = 0;
let baseMib = 0;
let lastMib = 0;
const started = performance.now();
for (let step = 1; step <= steps; step += 1) {
  for (let index = 0; index < Math.floor((inputs - overSockets) / steps); index += 1) {
    try {
      direct(random);
    } catch (error) {
      failures += 1;
      console.error(error);
    }
    if (index % 2000 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  const sockets = Math.floor(overSockets / steps);
  // Each connection has a stream of its own, so that what it sends does not depend on who is quicker.
  let next = 0;
  const work = async () => {
    while (next < sockets) {
      next += 1;
      await overSocket(port, randomFrom(seed * 1_000_003 + step * sockets + next));
    }
  };
  await Promise.all(Array.from({ length: sideBySide }, work));
  witness.publish('iotflow/devices/probe-2/telemetry/x', '1', { qos: 1, messageId: step });
  await witness.next('puback');
  collectGarbage();
  const { rss, heapUsed } = process.memoryUsage();
  lastMib = heapUsed / 2 ** 20;
  if (step === 2) baseMib = lastMib;
  const seconds = ((performance.now() - started) / 1000).toFixed(0);
  console.log(
    `${step}/${steps} ${seconds} s heap ${lastMib.toFixed(1)} MiB, RSS ${(rss / 2 ** 20).toFixed(0)} MiB, ` +
      `${received} messages taken, offences ${JSON.stringify(source.stats().offences)}`,
  );
}
const { brokerErrors, pendingAcknowledgements } = source.stats();
witness.destroy();
await source.close();
const grownMib = lastMib - baseMib;
console.log(
  `seed ${seed}: ${inputs - overSockets} inputs through guard and parser, ${overSockets} over sockets; ` +
    `${failures} failures, ${uncaught} uncaught, ${brokerErrors} broker errors, ` +
    `${pendingAcknowledgements} acknowledgements pending, heap grew ${grownMib.toFixed(1)} MiB`,
);
const isGood = failures === 0 && uncaught === 0 && brokerErrors === 0 && grownMib < growthMaxMib;
process.exit(isGood ? 0 : 1);
