import fc from 'fast-check';
import { generate, type Packet, parser } from 'mqtt-packet';
import { expect, test } from 'vitest';
import { defaultLimits } from '../../../src/sources/mqtt/limits.ts';
import { type Offence, PacketGuard } from '../../../src/sources/mqtt/packet-guard.ts';

const connect4 = generate({
  cmd: 'connect',
  protocolId: 'MQTT',
  protocolVersion: 4,
  clientId: 'probe',
  clean: true,
  keepalive: 60,
  username: 'probe',
  password: Buffer.from('key'),
});
const connect5 = generate({
  cmd: 'connect',
  protocolId: 'MQTT',
  protocolVersion: 5,
  clientId: 'probe',
  clean: true,
  keepalive: 60,
});

function guardAfterConnect(version: 4 | 5): PacketGuard {
  const guard = new PacketGuard(defaultLimits);
  guard.push(version === 4 ? connect4 : connect5);
  return guard;
}

/** Length-prefixed text or bytes. */
function field(value: string | number[]): number[] {
  const bytes = [...Buffer.from(value as string)];
  return [bytes.length >> 8, bytes.length & 255, ...bytes];
}

function packet(first: number, ...body: number[]): number[] {
  return [first, body.length, ...body];
}

function connect(flags: number, payload: number[], level = 4, name = 'MQTT'): number[] {
  return packet(0x10, ...field(name), level, flags, 0, 60, ...payload);
}

/** A PUBLISH with that many empty user properties. */
function userProperties(count: number): number[] {
  const pairs = Array.from({ length: count }, () => [0x26, 0, 0, 0, 0]).flat();
  const body = [...field('a'), 0x80 | (pairs.length & 0x7f), pairs.length >> 7, ...pairs];
  return [0x30, 0x80 | (body.length & 0x7f), body.length >> 7, ...body];
}

const topic = field('a/b');
const offences: [string, 4 | 5, number[], Offence][] = [
  ['a second CONNECT', 4, [...connect4], 'protocol-error'],
  ['a CONNACK sent to the broker', 4, [0x20, 2, 0, 0], 'protocol-error'],
  ['a SUBACK sent to the broker', 4, [0x90, 3, 0, 1, 0], 'protocol-error'],
  ['a PINGRESP sent to the broker', 4, [0xd0, 0], 'protocol-error'],
  ['packet type 0', 4, [0x00, 0], 'protocol-error'],
  ['AUTH nobody asked for', 5, [0xf0, 0], 'protocol-error'],
  ['a remaining length of five bytes', 4, [0x30, 0xff, 0xff, 0xff, 0xff, 1], 'malformed'],
  ['256 MB announced', 4, [0x30, 0xff, 0xff, 0xff, 0x7f], 'packet-too-large'],
  ['reserved flags of SUBSCRIBE', 4, packet(0x80, 0, 1, ...topic, 0), 'malformed'],
  ['reserved flags of PINGREQ', 4, [0xc1, 0], 'malformed'],
  ['PINGREQ with a body', 4, [0xc0, 1, 0], 'malformed'],
  ['DISCONNECT with a body in 3.1.1', 4, [0xe0, 1, 0], 'malformed'],
  ['QoS 3', 4, packet(0x36, ...topic, 0, 1), 'malformed'],
  ['DUP on QoS 0', 4, packet(0x38, ...topic), 'malformed'],
  ['packet id 0', 4, packet(0x32, ...topic, 0, 0), 'malformed'],
  ['no room for a packet id', 4, packet(0x32, ...topic, 0), 'malformed'],
  ['an empty topic', 4, packet(0x30, 0, 0), 'malformed'],
  ['a topic longer than its packet', 4, packet(0x30, 0, 9, 97), 'malformed'],
  ['a wildcard in a topic', 4, packet(0x30, ...field('a/+')), 'topic-invalid'],
  ['17 topic levels', 4, packet(0x30, ...field('/'.repeat(16))), 'topic-invalid'],
  ['U+0000 in a topic', 4, packet(0x30, ...field('a\u0000')), 'malformed'],
  ['U+0001 in a topic', 4, packet(0x30, ...field('a\u0001')), 'malformed'],
  ['U+007F in a topic', 4, packet(0x30, ...field('a\u007f')), 'malformed'],
  ['U+009F in a topic', 4, packet(0x30, ...field('a\u009f')), 'malformed'],
  ['U+FFFF in a topic', 4, packet(0x30, ...field('a\uffff')), 'malformed'],
  ['a surrogate in a topic', 4, packet(0x30, ...field([0xed, 0xa0, 0x80])), 'malformed'],
  ['an overlong slash in a topic', 4, packet(0x30, ...field([0xc0, 0xaf])), 'malformed'],
  ['half a character in a topic', 4, packet(0x30, ...field([0x61, 0xe2, 0x82])), 'malformed'],
  ['beyond U+10FFFF in a topic', 4, packet(0x30, ...field([0xf4, 0x90, 0x80, 0x80])), 'malformed'],
  ['an empty SUBSCRIBE', 4, packet(0x82, 0, 1), 'protocol-error'],
  ['an empty UNSUBSCRIBE', 4, packet(0xa2, 0, 1), 'protocol-error'],
  ['SUBSCRIBE with packet id 0', 4, packet(0x82, 0, 0, ...topic, 0), 'malformed'],
  ['SUBSCRIBE with QoS 3', 4, packet(0x82, 0, 1, ...topic, 3), 'malformed'],
  ['SUBSCRIBE with reserved options', 4, packet(0x82, 0, 1, ...topic, 4), 'malformed'],
  ['SUBSCRIBE without options', 4, packet(0x82, 0, 1, ...topic), 'malformed'],
  ['a filter a#', 4, packet(0x82, 0, 1, ...field('a#'), 0), 'topic-invalid'],
  ['a filter that is a prototype', 4, packet(0x82, 0, 1, ...field('__proto__'), 0), 'topic-invalid'],
  ['U+0000 in a filter', 4, packet(0x82, 0, 1, ...field('a\u0000'), 0), 'malformed'],
  ['U+0000 in UNSUBSCRIBE', 4, packet(0xa2, 0, 1, ...field('a\u0000')), 'malformed'],
  ['PUBACK too short', 4, packet(0x40, 0), 'malformed'],
  ['PUBACK too long', 4, packet(0x40, 0, 1, 0), 'malformed'],
  ['PUBREL with id 0', 4, packet(0x62, 0, 0), 'malformed'],
  ['PUBCOMP too long', 4, packet(0x70, 0, 1, 0), 'malformed'],
  ['PUBREC with an unknown reason', 5, packet(0x50, 0, 1, 0x11), 'protocol-error'],
  ['a PUBLISH whose response topic is missing', 5, packet(0x30, ...topic, 1, 8), 'malformed'],
  ['a PUBLISH whose properties outgrow it', 5, packet(0x30, ...topic, 9, 1), 'malformed'],
  ['an unknown property', 5, packet(0x30, ...topic, 2, 0x7f, 0), 'malformed'],
  ['a property of another packet', 5, packet(0x30, ...topic, 3, 0x21, 0, 1), 'protocol-error'],
  ['a property twice', 5, packet(0x30, ...topic, 4, 1, 0, 1, 0), 'protocol-error'],
  ['a subscription identifier from a client', 5, packet(0x30, ...topic, 2, 0x0b, 1), 'protocol-error'],
  ['a subscription identifier of 0', 5, packet(0x82, 0, 1, 2, 0x0b, 0, ...topic, 0), 'protocol-error'],
  ['retain handling 3', 5, packet(0x82, 0, 1, 0, ...topic, 0x30), 'protocol-error'],
  ['a topic alias of 0', 5, packet(0x30, ...topic, 3, 0x23, 0, 0), 'protocol-error'],
  ['a wildcard in the response topic', 5, packet(0x30, ...topic, 4, 8, 0, 1, 0x23), 'protocol-error'],
  ['33 user properties', 5, userProperties(33), 'protocol-error'],
];

test.each(offences)('refuses %s (MQTT level %i)', (_what, version, bytes, offence) => {
  const guard = guardAfterConnect(version);
  expect(guard.push(Buffer.from(bytes))).toBeUndefined();
  expect(guard.offence).toBe(offence);
});

test.each(offences)('refuses %s (MQTT level %i) byte by byte', (_what, version, bytes, offence) => {
  const guard = guardAfterConnect(version);
  for (const byte of bytes) guard.push(Buffer.from([byte]));
  expect(guard.offence).toBe(offence);
});

const id = field('probe');
const connectOffences: [string, number[], Offence][] = [
  ['anything but CONNECT first', [0xc0, 0], 'protocol-error'],
  ['a CONNECT of 5 KB', [0x10, 0x88, 0x27], 'packet-too-large'],
  ['another protocol name', connect(2, id, 4, 'HTTP'), 'malformed'],
  ['protocol level 6', connect(2, id, 6), 'protocol-version'],
  ['protocol level 0', connect(2, id, 0), 'protocol-version'],
  ['bridge mode', connect(2, id, 0x84), 'protocol-version'],
  ['the reserved flag', connect(3, id), 'malformed'],
  ['will QoS without a will', connect(2 | 8, id), 'malformed'],
  ['will retain without a will', connect(2 | 32, id), 'malformed'],
  ['will QoS 3', connect(2 | 4 | 24, [...id, ...topic, ...field('x')]), 'malformed'],
  ['a password without a user name', connect(2 | 64, [...id, ...field('x')]), 'malformed'],
  ['a user name that is missing', connect(2 | 128, id), 'malformed'],
  ['bytes after the end', connect(2, [...id, 0]), 'malformed'],
  ['U+0000 in the client id', connect(2, field('a\u0000')), 'malformed'],
  ['a surrogate in the client id', connect(2, field([0xed, 0xa0, 0x80])), 'malformed'],
  ['U+0001 in the user name', connect(2 | 128, [...id, ...field('\u0001')]), 'malformed'],
  ['U+FFFF in the will topic', connect(2 | 4, [...id, ...field('\uffff'), ...field('x')]), 'malformed'],
  ['a wildcard in the will topic', connect(2 | 4, [...id, ...field('#'), ...field('x')]), 'topic-invalid'],
  ['an empty will topic', connect(2 | 4, [...id, 0, 0, ...field('x')]), 'malformed'],
  [
    'a client id of 129 bytes',
    [0x10, 0x8d, 0x01, ...connect(2, field('x'.repeat(129))).slice(2)],
    'client-id',
  ],
  ['a receive maximum of 0', connect(2, [3, 0x21, 0, 0, ...id], 5), 'protocol-error'],
];

test.each(connectOffences)('refuses %s', (_what, bytes, offence) => {
  const guard = new PacketGuard(defaultLimits);
  expect(guard.push(Buffer.from(bytes))).toBeUndefined();
  expect(guard.offence).toBe(offence);
});

test('good packets ahead of an offence still pass', () => {
  const guard = guardAfterConnect(4);
  const good = Buffer.from(packet(0x30, ...topic, 1, 2, 3));
  expect(guard.push(Buffer.concat([good, Buffer.from([0x36, 0])]))).toEqual(good);
  expect(guard.offence).toBe('malformed');
});

test('nothing passes after DISCONNECT', () => {
  const guard = guardAfterConnect(5);
  expect(guard.push(Buffer.from([0xe0, 0, 0x30, 0]))).toEqual(Buffer.from([0xe0, 0]));
  expect(guard.push(Buffer.from([0xc0, 0]))).toBeUndefined();
  expect(guard.offence).toBeUndefined();
});

test('an announced packet costs what arrived of it, not what was announced', () => {
  const guard = guardAfterConnect(4);
  guard.push(Buffer.from([0x30, 0xf0, 0xff, 0x03, 0]));
  expect(guard.heldBytes).toBe(5);
});

const word = fc.stringMatching(/^[a-zäö漢]{0,8}$/);
const name = fc.array(word, { minLength: 1, maxLength: 4 }).map((levels) => `t${levels.join('/')}`);
const packetId = fc.integer({ min: 1, max: 65_535 });
const goodPacket: fc.Arbitrary<Packet> = fc.oneof(
  fc
    .record({
      topic: name,
      payload: fc.uint8Array({ maxLength: 400 }),
      qos: fc.constantFrom(0, 1, 2),
      messageId: packetId,
    })
    .map(
      (fields) =>
        ({
          cmd: 'publish',
          ...fields,
          payload: Buffer.from(fields.payload),
          dup: false,
          retain: false,
        }) as Packet,
    ),
  fc.record({ messageId: packetId, topic: name, qos: fc.constantFrom(0, 1, 2) }).map(
    ({ messageId, topic, qos }) =>
      ({
        cmd: 'subscribe',
        messageId,
        subscriptions: [{ topic, qos, nl: false, rap: true, rh: 1 }],
      }) as Packet,
  ),
  fc
    .record({ messageId: packetId, topic: name })
    .map(({ messageId, topic }) => ({ cmd: 'unsubscribe', messageId, unsubscriptions: [topic] }) as Packet),
  packetId.map((messageId) => ({ cmd: 'puback', messageId }) as Packet),
  packetId.map((messageId) => ({ cmd: 'pubrel', messageId }) as Packet),
  fc.constant({ cmd: 'pingreq' } as Packet),
);

test('every well-formed stream passes unchanged however it is cut into chunks', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(4 as const, 5 as const),
      fc.array(goodPacket, { minLength: 1, maxLength: 12 }),
      fc.array(fc.integer({ min: 1, max: 300 }), { minLength: 1, maxLength: 30 }),
      (protocolVersion, packets, cuts) => {
        const stream = Buffer.concat(packets.map((each) => generate(each, { protocolVersion })));
        const guard = guardAfterConnect(protocolVersion);
        const passed: Buffer[] = [];
        for (let at = 0, cut = 0; at < stream.length; cut += 1) {
          const end = Math.min(stream.length, at + (cuts[cut % cuts.length] ?? 1));
          const good = guard.push(stream.subarray(at, end));
          if (good !== undefined) passed.push(good);
          at = end;
        }
        expect(guard.offence).toBeUndefined();
        expect(Buffer.concat(passed).equals(stream)).toBe(true);
      },
    ),
    { numRuns: 300 },
  );
});

/** Inputs of the mutation test; a million in the long form (`IOTFLOW_FUZZ_RUNS=1000000`). */
const fuzzRuns = Number(process.env.IOTFLOW_FUZZ_RUNS ?? 20_000);

test(`whatever passes after mutation, the parser takes without an error and hands on whole`, {
  timeout: 600_000,
}, () => {
  const seeds = fc.sample(goodPacket, { numRuns: 200, seed: 42 });
  let state = 0x2545f491;
  function random(below: number): number {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  }
  const encoded = ([4, 5] as const).map((protocolVersion) => [
    ...seeds.map((each) => generate(each, { protocolVersion })),
    ...offences.map(([, , bytes]) => Buffer.from(bytes)),
    protocolVersion === 4 ? connect4 : connect5,
  ]);
  const heapBefore = process.memoryUsage().heapUsed;
  let passedInputs = 0;
  for (let run = 0; run < fuzzRuns; run += 1) {
    const version = run % 2 === 0 ? 4 : 5;
    const corpus = encoded[run % 2]!;
    const bytes = Buffer.concat([corpus[random(corpus.length)]!, corpus[random(corpus.length)]!]);
    for (let flips = random(6); flips > 0; flips -= 1) bytes[random(bytes.length)] = random(256);
    const input = random(4) === 0 ? bytes.subarray(0, random(bytes.length)) : bytes;
    const strangers = random(8) === 0;
    const guard = strangers ? new PacketGuard(defaultLimits) : guardAfterConnect(version);
    const cut = random(input.length + 1);
    const passed = [guard.push(input.subarray(0, cut)), guard.push(input.subarray(cut))];
    expect(guard.heldBytes).toBeLessThanOrEqual(input.length);
    const parse = parser();
    parse.parse(strangers ? Buffer.alloc(0) : version === 4 ? connect4 : connect5);
    parse.on('error', (error) => {
      throw new Error(`run ${run}: ${input.toString('hex')}`, { cause: error });
    });
    parse.on('packet', (got) => {
      passedInputs += 1;
      if (got.cmd !== 'publish') return;
      expect(typeof got.topic).toBe('string');
      expect(['string', 'undefined']).toContain(typeof got.properties?.responseTopic);
    });
    for (const good of passed) if (good !== undefined) expect(parse.parse(good)).toBe(0);
  }
  expect(passedInputs).toBeGreaterThan(fuzzRuns / 20);
  expect(process.memoryUsage().heapUsed - heapBefore).toBeLessThan(200 * 1024 * 1024);
});
