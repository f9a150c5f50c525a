// Sessions of MQTT, 3.1.1 and 5.0, in which one packet is not what it should be: structure-aware changes of valid
// packets, and telemetry of JSON that no node sends.

import { connect } from 'node:net';
import { generate, type Packet, parser } from 'mqtt-packet';
import { defaultLimits } from '../../src/sources/mqtt/limits.ts';
import { PacketGuard } from '../../src/sources/mqtt/packet-guard.ts';
import { type Dice, oddJson } from './odd-json.ts';

export interface Account {
  readonly deviceId: string;
  readonly apiKey: string;
}

type Version = 4 | 5;

function corpus(protocolVersion: Version, own: string): Buffer[] {
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

function hello(
  protocolVersion: Version,
  { deviceId, apiKey }: Account,
  clientId: string,
  clean: boolean,
): Buffer {
  return generate({
    cmd: 'connect',
    protocolId: 'MQTT',
    protocolVersion,
    clientId,
    clean,
    keepalive: 10,
    username: deviceId,
    password: Buffer.from(apiKey),
    will: {
      topic: `iotflow/devices/${deviceId}/status/online`,
      payload: Buffer.from('off'),
      qos: 1,
      retain: true,
    },
  } as Packet);
}

const telling = [0x00, 0x01, 0x7f, 0x80, 0xff, 0x23, 0x2b, 0x24, 0x2f, 0xc0, 0xed, 0xf4, 0x26, 0x0b] as const;

/** One change that a packet's structure makes interesting. */
function mutate(packet: Buffer, dice: Dice): Buffer {
  const bytes = Buffer.from(packet);
  const at = dice.below(bytes.length);
  switch (dice.below(8)) {
    case 0:
      bytes[at] = dice.of(telling);
      return bytes;
    case 1:
      bytes[at] = (bytes[at] as number) ^ (1 << dice.below(8));
      return bytes;
    case 2:
      bytes[0] = dice.below(256);
      return bytes;
    case 3:
      bytes[Math.min(1, bytes.length - 1)] = dice.below(256);
      return bytes;
    case 4:
      return bytes.subarray(0, at);
    case 5:
      // More bytes, with a length that admits to them.
      return relength(
        Buffer.concat([
          bytes.subarray(0, at),
          Buffer.from([dice.below(256), dice.below(256)]),
          bytes.subarray(at),
        ]),
      );
    case 6:
      return relength(
        Buffer.concat([
          bytes.subarray(0, at),
          bytes.subarray(Math.min(bytes.length, at + 1 + dice.below(4))),
        ]),
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

const corpora = new Map<string, Buffer[]>();

function packetsOf(version: Version, deviceId: string): Buffer[] {
  const key = `${version} ${deviceId}`;
  const found = corpora.get(key) ?? corpus(version, `iotflow/devices/${deviceId}`);
  corpora.set(key, found);
  return found;
}

function someSession(version: Version, deviceId: string, dice: Dice): Buffer[] {
  const packets = packetsOf(version, deviceId);
  const session = Array.from({ length: 1 + dice.below(4) }, () => dice.of(packets));
  const at = dice.below(session.length);
  if (dice.oneIn(4)) {
    const topic = `iotflow/devices/${deviceId}/${dice.of(['telemetry/odd', 'telemetry/leak', 'status/x'])}`;
    const payload = oddJson({ a: 1, wet: false, timestamp: 1_700_000_000_000, boot: 1, seq: 1 }, dice);
    const publish = { cmd: 'publish', topic, payload, qos: 1, messageId: 9, dup: false, retain: false };
    session[at] = generate(publish as Packet, { protocolVersion: version });
    return session;
  }
  let mutated = session[at] as Buffer;
  for (let times = 1 + dice.below(3); times > 0 && mutated.length > 0; times -= 1) {
    mutated = mutate(mutated, dice);
  }
  session[at] = mutated;
  return session;
}

const nobody: Account = { deviceId: 'probe-1', apiKey: 'key-probe-1' };

/** Guard and parser without a socket; what passes the guard, the parser must take. */
export function throughGuard(dice: Dice): void {
  const version = dice.oneIn(2) ? 4 : 5;
  const guard = new PacketGuard(defaultLimits);
  const parse = parser();
  parse.on('error', (error) => {
    throw new Error('the parser refuses what the guard let pass', { cause: error });
  });
  const good = hello(version, nobody, 'probe-1', true);
  for (const bytes of [
    dice.oneIn(16) ? mutate(good, dice) : good,
    ...someSession(version, nobody.deviceId, dice),
  ]) {
    const cut = dice.below(bytes.length + 1);
    for (const chunk of [bytes.subarray(0, cut), bytes.subarray(cut)]) {
      const passed = guard.push(chunk);
      if (passed !== undefined && parse.parse(passed) !== 0)
        throw new Error('the guard let half a packet pass');
    }
  }
}

/** A session with the gateway; answers once the connection has ended. */
export async function mqttSession(
  port: number,
  account: Account,
  address: string,
  dice: Dice,
): Promise<void> {
  const version = dice.oneIn(2) ? 4 : 5;
  const clientId = `${account.deviceId}-${dice.below(4)}`;
  const greeting = hello(version, account, clientId, !dice.oneIn(4));
  const socket = connect({ port, host: '127.0.0.1', localAddress: address, noDelay: true });
  socket.on('error', () => {});
  socket.resume();
  const closed = new Promise((resolve) => socket.once('close', resolve));
  socket.write(dice.oneIn(16) ? mutate(greeting, dice) : greeting);
  for (const bytes of someSession(version, account.deviceId, dice)) socket.write(bytes);
  // The session goes on: a good packet behind the bad one, then the end.
  socket.end(packetsOf(version, account.deviceId)[dice.below(2)] as Buffer);
  const timer = setTimeout(() => socket.destroy(), 2000);
  await closed;
  clearTimeout(timer);
}
