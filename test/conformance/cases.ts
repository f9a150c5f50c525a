// One list of raw packets and what must come of them, for both levels of the protocol. Rows whose packet must end the
// connection stand in `offences`; what takes a conversation is in scenarios.ts.

import assert from 'node:assert/strict';
import { type Bench, endOf } from './broker.ts';
import { scenarios } from './scenarios.ts';

export interface Case {
  readonly name: string;
  readonly level: 4 | 5;
  readonly clauses: readonly string[];
  run(bench: Bench): Promise<void>;
}

/** Length-prefixed text or bytes. */
function field(value: string | readonly number[]): number[] {
  const bytes = [...(typeof value === 'string' ? Buffer.from(value) : value)];
  return [bytes.length >> 8, bytes.length & 255, ...bytes];
}

function packet(first: number, ...body: number[]): number[] {
  return [first, body.length, ...body];
}

/** Which levels, which statements of each, what it is; the bytes are made for the level and the account. */
interface Offence {
  readonly name: string;
  readonly of4?: readonly string[];
  readonly of5?: readonly string[];
  /** Reason codes that name it in version 5. */
  readonly codes: readonly number[];
  readonly bytes: (level: 4 | 5, topic: number[], account: string) => number[];
  /** Sent instead of a CONNECT. */
  readonly first?: boolean;
}

const malformed = [0x81, 0x82];
const none = (level: 4 | 5): number[] => (level === 5 ? [0] : []);

const badText: [string, number[], string, string][] = [
  ['a surrogate', [0x61, 0xed, 0xa0, 0x80], '1.5.3-1', '1.5.4-1'],
  ['half a character', [0x61, 0xe2, 0x82], '1.5.3-1', '1.5.4-1'],
  ['an overlong slash', [0x61, 0xc0, 0xaf], '1.5.3-1', '1.5.4-1'],
  ['U+0000', [0x61, 0x00], '1.5.3-2', '1.5.4-2'],
];

const texts: Offence[] = badText.flatMap(([what, text, clause4, clause5]) => {
  const extra = what === 'U+0000' ? ['4.7.3-2'] : [];
  const codes = [...malformed, 0x90, 0x8f];
  return [
    {
      name: `${what} in the topic of PUBLISH`,
      of4: [clause4, '3.3.2-1', ...extra],
      of5: [clause5, '3.3.2-1', ...extra],
      codes,
      bytes: (level: 4 | 5) => packet(0x30, ...field(text), ...none(level)),
    },
    {
      name: `${what} in a filter of SUBSCRIBE`,
      of4: [clause4, '3.8.3-1', ...extra],
      of5: [clause5, '3.8.3-1', ...extra],
      codes,
      bytes: (level: 4 | 5) => packet(0x82, 0, 1, ...none(level), ...field(text), 0),
    },
    {
      name: `${what} in a filter of UNSUBSCRIBE`,
      of4: [clause4, '3.10.3-1', ...extra],
      of5: [clause5, '3.10.3-1', ...extra],
      codes,
      bytes: (level: 4 | 5) => packet(0xa2, 0, 1, ...none(level), ...field(text)),
    },
    {
      name: `${what} in the client id`,
      of4: [clause4, '3.1.3-4'],
      of5: [clause5, '3.1.3-4'],
      codes: [...malformed, 0x85],
      first: true,
      bytes: (level: 4 | 5, _topic: number[], account: string) => connect(level, account, { id: text }),
    },
    {
      name: `${what} in the user name`,
      of4: [clause4, '3.1.3-11'],
      of5: [clause5, '3.1.3-12'],
      codes: [...malformed, 0x86, 0x87],
      first: true,
      bytes: (level: 4 | 5, _topic: number[], account: string) => connect(level, account, { user: text }),
    },
    {
      name: `${what} in the will topic`,
      of4: [clause4, '3.1.3-10'],
      of5: [clause5, '3.1.3-11'],
      codes: [...malformed, 0x90],
      first: true,
      bytes: (level: 4 | 5, _topic: number[], account: string) =>
        connect(level, account, { flags: 0xc6, will: [...none(level), ...field(text), ...field('x')] }),
    },
    ...(what === 'half a character'
      ? []
      : [
          {
            name: `${what} in the name of a user property`,
            of5: [clause5, '1.5.7-1'],
            codes,
            bytes: (_level: 4 | 5, topic: number[]) => {
              const pair = [0x26, ...field(text), ...field('x')];
              return packet(0x30, ...topic, pair.length, ...pair);
            },
          },
          {
            name: `${what} in the content type`,
            of5: [clause5, '3.3.2-19'],
            codes,
            bytes: (_level: 4 | 5, topic: number[]) => {
              const type = [0x03, ...field(text)];
              return packet(0x30, ...topic, type.length, ...type);
            },
          },
          {
            name: `${what} in the response topic`,
            of5: [clause5, '3.3.2-13'],
            codes,
            bytes: (_level: 4 | 5, topic: number[]) => {
              const response = [0x08, ...field(text)];
              return packet(0x30, ...topic, response.length, ...response);
            },
          },
        ]),
  ];
});

interface ConnectParts {
  readonly id?: string | readonly number[];
  readonly user?: string | readonly number[];
  readonly flags?: number;
  readonly name?: string;
  readonly version?: number;
  readonly will?: readonly number[];
  readonly properties?: readonly number[];
  readonly tail?: readonly number[];
}

function connect(level: 4 | 5, account: string, parts: ConnectParts = {}): number[] {
  const { name = 'MQTT', version = level, flags = 0xc2, id = `${account}-x`, user = account } = parts;
  const { properties = [], will = [], tail = [...field(user), ...field(`key-${account}`)] } = parts;
  const head = [...field(name), version, flags, 0, 60];
  const own = level === 5 ? [properties.length, ...properties] : [];
  return packet(0x10, ...head, ...own, ...field(id), ...will, ...tail);
}

function connectOffence(
  name: string,
  of4: readonly string[],
  of5: readonly string[],
  parts: (level: 4 | 5, account: string) => ConnectParts,
  codes: readonly number[] = malformed,
): Offence {
  return {
    name,
    of4: [...of4, ...(of4.length > 0 ? ['3.1.4-1'] : [])],
    of5: [...of5, ...(of5.length > 0 ? ['3.1.4-1', '3.14.0-1'] : [])],
    codes,
    first: true,
    bytes: (level, _topic, account) => connect(level, account, parts(level, account)),
  };
}

const offences: Offence[] = [
  ...texts,
  connectOffence('the reserved flag of CONNECT', ['3.1.2-3', '2.2.2-1'], ['3.1.2-3', '2.1.3-1'], () => ({
    flags: 0xc3,
  })),
  connectOffence('will QoS without a will', ['3.1.2-13', '3.1.2-11'], ['3.1.2-11'], () => ({ flags: 0xca })),
  connectOffence('will retain without a will', ['3.1.2-15', '3.1.2-11'], ['3.1.2-13'], () => ({
    flags: 0xe2,
  })),
  connectOffence('will QoS 3', ['3.1.2-14'], ['3.1.2-12'], (level, account) => ({
    flags: 0xde,
    will: [...none(level), ...field(`iotflow/devices/${account}/status/x`), ...field('x')],
  })),
  connectOffence('a will flag without a will', ['3.1.2-9', '3.1.3-1'], ['3.1.2-9', '3.1.3-1'], (level) => ({
    flags: 0x06,
    will: level === 5 ? [0] : [],
    tail: [],
  })),
  connectOffence('a password flag without a user name', ['3.1.2-22'], [], (_level, account) => ({
    flags: 0x42,
    tail: field(`key-${account}`),
  })),
  connectOffence('a user name without its flag', ['3.1.2-18', '3.1.3-1'], ['3.1.2-16', '3.1.3-1'], () => ({
    flags: 0x02,
    tail: field('x'),
  })),
  connectOffence('a user name flag without a name', ['3.1.2-19'], ['3.1.2-17'], () => ({
    flags: 0x82,
    tail: [],
  })),
  connectOffence('a password without its flag', ['3.1.2-20'], ['3.1.2-18'], () => ({ flags: 0x82 })),
  connectOffence('a password flag without a password', ['3.1.2-21'], ['3.1.2-19'], (_level, account) => ({
    flags: 0xc2,
    tail: field(account),
  })),
  connectOffence('a CONNECT without a client id', ['3.1.3-3'], ['3.1.3-3'], () => ({
    id: '',
    flags: 2,
    tail: [0],
  })),
  connectOffence('bytes behind the end of CONNECT', ['3.1.3-1'], ['3.1.3-1'], (_level, account) => ({
    tail: [...field(account), ...field(`key-${account}`), 0],
  })),
  connectOffence('a receive maximum of 0', [], ['4.13.1-1'], () => ({ properties: [0x21, 0, 0] })),
  connectOffence('a maximum packet size of 0', [], ['4.13.1-1'], () => ({ properties: [0x27, 0, 0, 0, 0] })),
  connectOffence('a property of CONNECT twice', [], ['4.13.1-1'], () => ({
    properties: [0x21, 0, 9, 0x21, 0, 9],
  })),
  connectOffence('a property of PUBLISH in CONNECT', [], ['4.13.1-1'], () => ({ properties: [0x23, 0, 1] })),
  connectOffence('a request for problem information of 2', [], ['4.13.1-1'], () => ({
    properties: [0x17, 2],
  })),
  connectOffence(
    'an authentication method nobody knows',
    [],
    ['4.12.0-1', '3.2.2-7'],
    () => ({ properties: [0x15, ...field('SCRAM')] }),
    [0x8c, 0x87],
  ),
  connectOffence('authentication data without a method', [], ['4.13.1-1'], () => ({
    properties: [0x16, 0, 1, 7],
  })),
  connectOffence('another protocol name', ['3.1.2-1'], ['3.1.2-1'], () => ({ name: 'HTTP' }), [
    ...malformed,
    0x84,
  ]),
  ...[
    ['PUBLISH', [0x30, 5, 0, 1, 0x61, 0, 0]],
    ['PINGREQ', [0xc0, 0]],
    ['SUBSCRIBE', [0x82, 6, 0, 1, 0, 1, 0x61, 0]],
    ['CONNACK', [0x20, 2, 0, 0]],
    ['DISCONNECT', [0xe0, 0]],
    ['an HTTP request', [...Buffer.from('GET / HTTP/1.1\r\n\r\n')]],
  ].map(
    ([name, bytes]): Offence => ({
      name: `${name} first`,
      of4: ['3.1.0-1', '4.8.0-1', '3.2.0-1'],
      of5: ['3.1.0-1', '3.14.0-1'],
      codes: malformed,
      first: true,
      bytes: () => bytes as number[],
    }),
  ),
  {
    name: 'a second CONNECT',
    of4: ['3.1.0-2', '4.8.0-1'],
    of5: ['3.1.0-2', '3.2.0-2', '4.13.1-1', '3.14.2-1'],
    codes: [0x82],
    bytes: (level, _topic, account) => connect(level, account),
  },
  ...(['CONNACK', 'SUBACK', 'UNSUBACK', 'PINGRESP'] as const).map((name, index): Offence => {
    const bytes = [
      [0x20, 2, 0, 0],
      [0x90, 3, 0, 1, 0],
      [0xb0, 2, 0, 1],
      [0xd0, 0],
    ][index] as number[];
    return {
      name: `${name} sent to the server`,
      of4: ['4.8.0-1'],
      of5: ['4.13.1-1'],
      codes: malformed,
      bytes: () => bytes,
    };
  }),
  {
    name: 'packet type 0',
    of4: ['4.8.0-1'],
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: () => [0, 0],
  },
  { name: 'packet type 15', of4: ['4.8.0-1'], codes: malformed, bytes: () => [0xf0, 0] },
  { name: 'AUTH nobody asked for', of5: ['4.13.1-1', '4.12.0-6'], codes: malformed, bytes: () => [0xf0, 0] },
  { name: 'flags of AUTH', of5: ['3.15.1-1'], codes: malformed, bytes: () => [0xf1, 0] },
  {
    name: 'a remaining length of five bytes',
    of4: ['4.8.0-1'],
    of5: ['1.5.5-1', '4.13.1-1'],
    codes: [...malformed, 0x95],
    bytes: () => [0x30, 0xff, 0xff, 0xff, 0xff, 1],
  },
  {
    name: 'a property length longer than it needs',
    of5: ['1.5.5-1'],
    codes: malformed,
    bytes: (_level, topic) => packet(0x30, ...topic, 0x80, 0x00, 0x78),
  },
  {
    name: 'a PUBLISH with no room for its properties',
    of5: ['2.2.2-1', '4.13.1-1'],
    codes: malformed,
    bytes: (_level, topic) => packet(0x30, ...topic),
  },
  ...(
    [
      ['PUBREL', 0x60, [0, 1], ['3.6.1-1'], ['3.6.1-1']],
      ['SUBSCRIBE', 0x80, undefined, ['3.8.1-1'], ['3.8.1-1']],
      ['UNSUBSCRIBE', 0xa0, undefined, ['3.10.1-1'], ['3.10.1-1']],
      ['PINGREQ', 0xc1, [], [], []],
      ['DISCONNECT', 0xe1, [], ['3.14.1-1'], ['3.14.1-1']],
      ['PUBACK', 0x41, [0, 1], [], []],
      ['PUBREC', 0x51, [0, 1], [], []],
      ['PUBCOMP', 0x71, [0, 1], [], []],
    ] as const
  ).map(
    ([name, first, body, of4, of5]): Offence => ({
      name: `wrong flags of ${name}`,
      of4: ['2.2.2-1', '2.2.2-2', ...of4],
      of5: ['2.1.3-1', ...of5],
      codes: malformed,
      bytes: (level, topic) => {
        if (body !== undefined) return packet(first, ...body);
        return packet(first, 0, 1, ...none(level), ...topic, ...(name === 'SUBSCRIBE' ? [0] : []));
      },
    }),
  ),
  {
    name: 'QoS 3',
    of4: ['3.3.1-4'],
    of5: ['3.3.1-4'],
    codes: malformed,
    bytes: (level, topic) => packet(0x36, ...topic, 0, 1, ...none(level)),
  },
  {
    name: 'DUP on QoS 0',
    of4: ['3.3.1-2'],
    of5: ['3.3.1-2'],
    codes: malformed,
    bytes: (level, topic) => packet(0x38, ...topic, ...none(level)),
  },
  ...([0x32, 0x34] as const).map(
    (first): Offence => ({
      name: `packet id 0 with QoS ${(first >> 1) & 3}`,
      of4: ['2.3.1-1'],
      of5: ['2.2.1-3'],
      codes: malformed,
      bytes: (level, topic) => packet(first, ...topic, 0, 0, ...none(level)),
    }),
  ),
  {
    name: 'SUBSCRIBE with packet id 0',
    of4: ['2.3.1-1'],
    of5: ['2.2.1-3'],
    codes: malformed,
    bytes: (level, topic) => packet(0x82, 0, 0, ...none(level), ...topic, 0),
  },
  {
    name: 'UNSUBSCRIBE with packet id 0',
    of4: ['2.3.1-1'],
    of5: ['2.2.1-3'],
    codes: malformed,
    bytes: (level, topic) => packet(0xa2, 0, 0, ...none(level), ...topic),
  },
  {
    name: 'an empty topic',
    of4: ['4.7.3-1'],
    of5: ['4.7.3-1'],
    codes: [...malformed, 0x90, 0x94],
    bytes: (level) => packet(0x30, 0, 0, ...none(level), 0x78),
  },
  ...(['a/+', 'a/#', '+', '#'] as const).map(
    (topic): Offence => ({
      name: `the wildcard topic ${topic}`,
      of4: ['3.3.2-2', '4.7.1-1'],
      of5: ['3.3.2-2', '4.7.0-1'],
      codes: [...malformed, 0x90],
      bytes: (level) => packet(0x30, ...field(topic), ...none(level)),
    }),
  ),
  {
    name: 'a topic longer than its packet',
    of4: ['4.8.0-1'],
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: () => packet(0x30, 0, 9, 0x61),
  },
  {
    name: 'SUBSCRIBE without filters',
    of4: ['3.8.3-3'],
    of5: ['3.8.3-2'],
    codes: malformed,
    bytes: (level) => packet(0x82, 0, 1, ...none(level)),
  },
  {
    name: 'UNSUBSCRIBE without filters',
    of4: ['3.10.3-2'],
    of5: ['3.10.3-2'],
    codes: malformed,
    bytes: (level) => packet(0xa2, 0, 1, ...none(level)),
  },
  ...([3, 0x04, 0x40, 0x80, 0xc1] as const).map(
    (options): Offence => ({
      name: `SUBSCRIBE options 0x${options.toString(16)}`,
      of4: ['3.8.3-4'],
      ...(options === 0x04 ? {} : { of5: ['3.8.3-5'] }),
      codes: malformed,
      bytes: (level, topic) => packet(0x82, 0, 1, ...none(level), ...topic, options),
    }),
  ),
  {
    name: 'retain handling 3',
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: (_level, topic) => packet(0x82, 0, 1, 0, ...topic, 0x30),
  },
  {
    name: 'an empty filter',
    of4: ['4.7.3-1'],
    of5: ['4.7.3-1'],
    codes: [...malformed, 0x8f, 0x90],
    bytes: (level) => packet(0x82, 0, 1, ...none(level), 0, 0, 0),
  },
  ...(['a/#/b', 'a#', '#/a'] as const).map(
    (filter): Offence => ({
      name: `the filter ${filter}`,
      of4: ['4.7.1-2'],
      of5: ['4.7.1-1'],
      codes: [...malformed, 0x8f, 0x90],
      bytes: (level) => packet(0x82, 0, 1, ...none(level), ...field(filter), 0),
    }),
  ),
  ...(['a+', 'a/+b', '+a/b'] as const).map(
    (filter): Offence => ({
      name: `the filter ${filter}`,
      of4: ['4.7.1-3'],
      of5: ['4.7.1-2'],
      codes: [...malformed, 0x8f, 0x90],
      bytes: (level) => packet(0x82, 0, 1, ...none(level), ...field(filter), 0),
    }),
  ),
  ...(
    [
      [0x40, 'PUBACK'],
      [0x50, 'PUBREC'],
      [0x62, 'PUBREL'],
      [0x70, 'PUBCOMP'],
    ] as const
  ).flatMap(([first, name]): Offence[] => [
    {
      name: `${name} too short`,
      of4: ['4.8.0-1'],
      of5: ['4.13.1-1'],
      codes: malformed,
      bytes: () => packet(first, 0),
    },
    { name: `${name} too long`, of4: ['4.8.0-1'], codes: malformed, bytes: () => packet(first, 0, 1, 0) },
    {
      name: `${name} with packet id 0`,
      of4: ['4.8.0-1'],
      of5: ['4.13.1-1'],
      codes: malformed,
      bytes: () => packet(first, 0, 0),
    },
    {
      name: `${name} with an unknown reason code`,
      of5: ['4.13.1-1'],
      codes: malformed,
      bytes: () => packet(first, 0, 1, 0x11),
    },
  ]),
  {
    name: 'PINGREQ with a body',
    of4: ['4.8.0-1'],
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: () => [0xc0, 1, 0],
  },
  {
    name: 'DISCONNECT with an unknown reason code',
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: () => [0xe0, 1, 0x55],
  },
  {
    name: 'a session expiry on DISCONNECT after none on CONNECT',
    of5: ['4.13.1-1'],
    codes: [0x82],
    bytes: () => [0xe0, 7, 0, 5, 0x11, 0, 0, 0, 9],
  },
  ...(
    [
      ['an unknown property', [0x7f, 0], malformed],
      ['a property of CONNECT', [0x21, 0, 1], malformed],
      ['a property twice', [1, 0, 1, 0], malformed],
      ['a payload format of 2', [1, 2], malformed],
      ['a response topic without its length', [8], malformed],
      ['properties longer than the packet', [0x26, 0, 9, 0x61], malformed],
    ] as const
  ).map(
    ([name, properties, codes]): Offence => ({
      name: `PUBLISH with ${name}`,
      of5: ['4.13.1-1', '4.13.2-1'],
      codes,
      bytes: (_level, topic) => packet(0x30, ...topic, properties.length, ...properties),
    }),
  ),
  {
    name: 'a wildcard in the response topic',
    of5: ['3.3.2-14'],
    codes: [...malformed, 0x90],
    bytes: (_level, topic) => packet(0x30, ...topic, 6, 8, ...field('a/#')),
  },
  {
    name: 'a subscription identifier from a client',
    of5: ['3.3.4-6'],
    codes: malformed,
    bytes: (_level, topic) => packet(0x30, ...topic, 2, 0x0b, 1),
  },
  {
    name: 'a subscription identifier of 0',
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: (_level, topic) => packet(0x82, 0, 1, 2, 0x0b, 0, ...topic, 0),
  },
  {
    name: 'two subscription identifiers',
    of5: ['4.13.1-1'],
    codes: malformed,
    bytes: (_level, topic) => packet(0x82, 0, 1, 4, 0x0b, 1, 0x0b, 2, ...topic, 0),
  },
  {
    name: 'topic alias 0',
    of5: ['3.3.2-8'],
    codes: [0x94, ...malformed],
    bytes: (_level, topic) => packet(0x30, ...topic, 3, 0x23, 0, 0),
  },
  {
    name: 'a topic alias nobody set',
    of5: ['3.3.2-7', '4.13.1-1'],
    codes: [0x94, 0x82],
    bytes: () => packet(0x30, 0, 0, 3, 0x23, 0, 1),
  },
  {
    name: 'no local on a shared subscription',
    of5: ['3.8.3-4'],
    codes: [0x82],
    bytes: (_level, _topic, account) =>
      packet(0x82, 0, 1, 0, ...field(`$share/g/iotflow/devices/${account}/status/#`), 4),
  },
  ...(['$share/', '$share//a', '$share/g', '$share/g/', '$share/+/a', '$share/#/a'] as const).map(
    (filter): Offence => ({
      name: `the shared filter ${filter}`,
      of5: ['4.8.2-1', '4.8.2-2'],
      codes: [...malformed, 0x8f, 0x90],
      bytes: () => packet(0x82, 0, 1, 0, ...field(filter), 0),
    }),
  ),
];

async function runOffence(offence: Offence, bench: Bench): Promise<void> {
  const { level, account } = bench;
  const bytes = offence.bytes(level, field(bench.topic('x')), account);
  const wire = offence.first === true ? await bench.open() : await bench.client('x');
  wire.raw(bytes);
  const code = await endOf(wire);
  if (level === 4) {
    // 3.1.1 closes a malformed CONNECT without a word [MQTT-3.1.4-1]; it knows no other answer.
    if (offence.first !== true) assert.equal(code, undefined);
    else assert.notEqual(code, 0);
    return;
  }
  if (code !== undefined) assert.ok([...offence.codes, 0x80, 0x83].includes(code), `reason code ${code}`);
}

function offenceCases(): Case[] {
  return offences.flatMap((offence) =>
    ([4, 5] as const).flatMap((level): Case[] => {
      const clauses = level === 4 ? offence.of4 : offence.of5;
      if (clauses === undefined || clauses.length === 0) return [];
      const run = (bench: Bench) => runOffence(offence, bench);
      return [{ name: `${offence.name} ends the connection`, level, clauses: [...new Set(clauses)], run }];
    }),
  );
}

export const cases: readonly Case[] = [...offenceCases(), ...scenarios];
