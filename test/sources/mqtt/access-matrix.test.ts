// Who may publish and read what, asked over every door: two devices, a service account, and those who may not even
// come in. Each row says who is let through; whatever is not said is refused.

import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { expect, test } from 'vitest';
import { createWebSocketStream, WebSocket } from 'ws';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { tempFolder } from '../../support/temp.ts';
import { until } from '../../support/until.ts';

const device = 'probe-1';
const other = 'probe-10';
const service = 'service-1';
const roles = [device, other, service] as const;

/** d: the device, o: the other device, s: the service account; `!`: the packet ends the connection. */
type Row = readonly [topic: string, allowed: string];

const own = `iotflow/devices/${device}`;
const neighbour = `iotflow/devices/${other}`;

/** Spellings of the device's id, and places around its tree, that are not the device's. */
const disguises = [
  'iotflow/devices/PROBE-1',
  'iotflow/devices/Probe-1',
  'iotflow/devices/probe-1 ',
  'iotflow/devices/ probe-1',
  'iotflow/devices/probe-1%2f',
  'iotflow/devices/%70robe-1',
  'iotflow/devices/probe-1\\',
  'iotflow/devices/./probe-1',
  'iotflow/devices/../devices/probe-1',
  'iotflow/devices/probe-1/../probe-1',
  'iotflow/devices//probe-1',
  'iotflow//devices/probe-1',
  '/iotflow/devices/probe-1',
  'Iotflow/devices/probe-1',
  'iotflow/Devices/probe-1',
  'iotflowx/devices/probe-1',
  'iotflow/devices/probe-1\u200b',
  'iotflow/devices/probe‐1',
  'iotflow/devices/__proto__',
  'iotflow/devices/constructor',
  'iotflow/devices/toString',
  'iotflow/devices/probe',
  'iotflow/devices/probe-100',
  'devices/probe-1',
];

const publishes: readonly Row[] = [
  ...[
    'telemetry/leak',
    'telemetry/a/b',
    'telemetry/__proto__',
    'telemetry/constructor',
    'telemetry/../x',
    'telemetry/%2f',
    'telemetry/x/',
  ].map((name): Row => [`${own}/${name}`, 'd']),
  ...['status/online', 'status/heartbeat', 'alarms/leak', 'commands/open/ack', 'commands/a/b/ack'].map(
    (name): Row => [`${own}/${name}`, 'd'],
  ),
  ...['telemetry/leak', 'status/online', 'alarms/leak', 'commands/open/ack'].map(
    (name): Row => [`${neighbour}/${name}`, 'o'],
  ),
  ...['commands/open', 'commands/config', 'commands/a/b'].flatMap((name): Row[] => [
    [`${own}/${name}`, 's'],
    [`${neighbour}/${name}`, 's'],
  ]),
  ...[
    '',
    '/',
    '/telemetry',
    '/telemetry/',
    '/status/',
    '/commands/',
    '/Telemetry/leak',
    '/telemetri/x',
    '/secrets/x',
    '/ack/x',
  ].map((rest): Row => [`${own}${rest}`, '']),
  ...disguises.map((prefix): Row => [`${prefix}/telemetry/leak`, '']),
  ...disguises.slice(0, 12).map((prefix): Row => [`${prefix}/status/online`, '']),
  [`iotflow/devices/${service}/status/online`, 's'],
  [`iotflow/devices/${service}/telemetry/x`, 's'],
  ['iotflow/gateway/commands/silence', 's'],
  ['iotflow/gateway/commands/a/b', 's'],
  ...[
    'iotflow/gateway',
    'iotflow/gateway/',
    'iotflow/gateway/alarms',
    'iotflow/gateway/status',
    'iotflow/gateway/commands',
    'iotflow/gateway/commands/',
    'iotflow/gateway/Commands/silence',
    'iotflow/gatewayx/commands/silence',
    'iotflow',
    'iotflow/',
    'iotflow/devices',
    'iotflow/devices/',
    '/',
    'x',
  ].map((topic): Row => [topic, '']),
  ['homeassistant/status', 's'],
  ['homeassistant/sensor/probe-1/moisture/config', 's'],
  ...[
    'homeassistant',
    'homeassistant/',
    'Homeassistant/status',
    'homeassistantx/status',
    '/homeassistant/status',
  ].map((topic): Row => [topic, '']),
  ...[
    '$SYS',
    '$SYS/broker/uptime',
    '$SYS/x',
    '$CONTROL/dynamic-security/v1',
    `$share/g/${own}/telemetry/x`,
    '$',
    '$session-present',
    '$queue/x',
  ].map((topic): Row => [topic, '']),
  ...[
    `${own}/telemetry/+`,
    `${own}/#`,
    '#',
    '+',
    'iotflow/devices/+/telemetry/x',
    `${own}/telemetry/a\u0000b`,
    `${own}/telemetry/\u0001`,
    '',
    'a/'.repeat(17),
    'x'.repeat(257),
  ].map((topic): Row => [topic, '!']),
];

const reads: readonly Row[] = [
  ...[
    '/#',
    '',
    '/+',
    '/+/+',
    '/+/#',
    '/commands/#',
    '/commands/+',
    '/commands/open',
    '/telemetry/leak',
    '/status/#',
    '/',
    '/__proto__/x',
    '/constructor',
  ].map((rest): Row => [`${own}${rest}`, 'ds']),
  ...['/#', '/commands/#', '/telemetry/leak', '', '/+'].map((rest): Row => [`${neighbour}${rest}`, 'os']),
  ...[
    '/#',
    '/+',
    '/+/#',
    '/+/telemetry/leak',
    '/+/+/+',
    '/probe-2/#',
    '/probe/#',
    '/__proto__/#',
    '/constructor/#',
    '/PROBE-1/#',
    '/probe-1%2f/#',
    '/../probe-1/#',
    '//probe-1/#',
    '',
  ].map((rest): Row => [`iotflow/devices${rest}`, 's']),
  ...['/#', '', '/alarms', '/+', '/commands/#'].map((rest): Row => [`iotflow/gateway${rest}`, 's']),
  ...['/#', '', '/status', '/+/probe-1/#'].map((rest): Row => [`homeassistant${rest}`, 's']),
  ...[
    '#',
    '+',
    '+/#',
    '+/+',
    '+/+/+/#',
    '/#',
    '/+',
    'iotflow/#',
    'iotflow/+',
    'iotflow/+/#',
    'iotflow/+/probe-1/#',
    '+/devices/probe-1/#',
    '+/+/probe-1/#',
    'iotflow',
    'iotflow/',
    '/iotflow/devices/probe-1/#',
    'iotflow//devices/probe-1/#',
    'Iotflow/devices/probe-1/#',
    'iotflow/Devices/probe-1/#',
    'iotflowx/#',
    'homeassistantx/#',
    '+/status',
    'devices/probe-1/#',
    '../#',
    'iotflow/../#',
  ].map((filter): Row => [filter, '']),
  ...[
    '$SYS/#',
    '$SYS/+',
    '$SYS/broker/#',
    '$SYS',
    '$CONTROL/#',
    '$session-present',
    '$/#',
    '$queue/#',
    '$share/g/#',
    '$share/g/+/devices/probe-1/#',
    '$share/g/iotflow/#',
    '$share/g/$SYS/#',
    '$share/g/homeassistantx/#',
  ].map((filter): Row => [filter, '']),
  ...[
    '',
    `${own}/#/x`,
    `${own}/a+`,
    `${own}/a#`,
    '__proto__',
    `${own}/a\u0000b`,
    `${own}/\u0001`,
    '$share/+/a',
    '$share//a',
    'a/'.repeat(17),
    'x'.repeat(257),
  ].map((filter): Row => [filter, '!']),
];

const letters: Readonly<Record<string, string>> = { [device]: 'd', [other]: 'o', [service]: 's' };
const doors = ['tcp', 'tls', 'ws'] as const;
type Door = (typeof doors)[number];

async function open(gateway: TestGateway, door: Door, folder: string): Promise<Wire> {
  if (door === 'tcp') return await Wire.tcp(gateway.port, 5);
  if (door === 'ws') {
    return new Wire(
      createWebSocketStream(new WebSocket(`ws://127.0.0.1:${gateway.wsPort}/mqtt`, ['mqtt'])),
      5,
    );
  }
  const ca = await readFile(join(folder, 'tls', 'ca.crt'));
  const socket = tlsConnect({
    port: gateway.source.ports.mqtts ?? 0,
    host: '127.0.0.1',
    ca,
    servername: 'localhost',
  });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  return new Wire(socket, 5);
}

function field(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
}

function packet(first: number, ...body: readonly Buffer[]): Buffer {
  const rest = Buffer.concat(body);
  const length = rest.length < 128 ? [rest.length] : [(rest.length & 127) | 128, rest.length >> 7];
  return Buffer.concat([Buffer.from([first, ...length]), rest]);
}

const id = Buffer.from([0, 9]);
const noProperties = Buffer.from([0]);

/** What the gateway said to it: `yes`, `no`, or `!` when it ended the connection. */
async function ask(wire: Wire, kind: 'publish' | 'read', topic: string): Promise<string> {
  const answers = kind === 'publish' ? 'puback' : 'suback';
  wire.raw(
    kind === 'publish'
      ? packet(0x32, field(topic), id, noProperties, Buffer.from('1'))
      : packet(0x82, id, noProperties, field(topic), Buffer.from([1])),
  );
  const answer = await wire.next(answers).catch(() => undefined);
  if (answer === undefined) return '!';
  const code = kind === 'publish' ? (answer.reasonCode ?? 0) : (answer.granted?.[0] ?? 0x80);
  if (code < 0x80 && kind === 'read') {
    wire.raw(packet(0xa2, id, noProperties, field(topic)));
    await wire.next('unsuback');
  }
  return code < 0x80 ? 'yes' : 'no';
}

test('the matrix has more than 200 cases, none of them twice', () => {
  for (const rows of [publishes, reads]) expect(new Set(rows.map(([topic]) => topic)).size).toBe(rows.length);
  expect(publishes.length + reads.length).toBeGreaterThan(200);
});

test.each(doors)(
  'each account publishes and reads what is its own, and nothing else, over %s',
  async (door) => {
    const folder = tempFolder();
    const listen = { host: '127.0.0.1', lanPlaintext: false, port: 0, tlsPort: 0, wsPort: 0 };
    const gateway = await startGateway({ dataDirectory: folder, listen });
    const wrong: string[] = [];
    for (const role of roles) {
      let wire = await open(gateway, door, folder);
      await wire.login(role);
      for (const [kind, rows] of [
        ['publish', publishes],
        ['read', reads],
      ] as const) {
        for (const [topic, allowed] of rows) {
          let expected = allowed.includes(letters[role] ?? '-') ? 'yes' : 'no';
          if (allowed === '!') expected = '!';
          const got = await ask(wire, kind, topic);
          if (got !== expected)
            wrong.push(`${role} ${kind} ${JSON.stringify(topic)}: ${got}, not ${expected}`);
          if (got !== '!') continue;
          await wire.ended();
          wire = await open(gateway, door, folder);
          await wire.login(role);
        }
      }
    }
    expect(wrong).toEqual([]);
    const owners = new Set(gateway.messages.map(({ deviceId }) => deviceId));
    expect([...owners].sort()).toEqual([...roles].sort());
  },
);

const strangers: readonly [who: string, login: object][] = [
  ['without credentials', { username: undefined, password: undefined }],
  ['with a wrong key', { password: Buffer.from('guess') }],
  ['with an empty key', { password: Buffer.alloc(0) }],
  ['with the key of another', { password: Buffer.from(`key-${other}`) }],
  ['revoked', {}],
  ['not approved yet', { username: 'pending-1', password: Buffer.from('key-pending-1') }],
  ['named __proto__', { username: '__proto__', password: Buffer.from('key') }],
];

test.each(doors.flatMap((door) => strangers.map(([who, login]) => ({ door, who, login }))))(
  'who is $who gets nothing in and nothing out over $door',
  async ({ door, login }) => {
    const folder = tempFolder();
    const listen = { host: '127.0.0.1', lanPlaintext: false, port: 0, tlsPort: 0, wsPort: 0 };
    const gateway = await startGateway({ dataDirectory: folder, listen });
    gateway.credentials.revoked.add(device).add('pending-1');
    const wire = await open(gateway, door, folder);
    const answer = wire.login(device, login);
    // On the heels of CONNECT, without waiting.
    wire.publish(`${own}/telemetry/leak`, '{"wet":true}', { qos: 1, messageId: 1 });
    wire.raw(packet(0x82, id, noProperties, field('#'), Buffer.from([1])));
    expect((await answer).reasonCode).toBe(0x86);
    await wire.ended();
    await until(() => gateway.source.stats().sockets === 0);
    expect(wire.packets).toEqual([]);
    expect(gateway.messages).toEqual([]);
  },
);

test.each(doors)(
  'a revoked account is cut off from what it subscribed to, and its will is not said, over %s',
  async (door) => {
    const folder = tempFolder();
    const listen = { host: '127.0.0.1', lanPlaintext: false, port: 0, tlsPort: 0, wsPort: 0 };
    const gateway = await startGateway({ dataDirectory: folder, listen });
    const wire = await open(gateway, door, folder);
    const will = {
      topic: `${own}/status/online`,
      payload: Buffer.from('gone'),
      qos: 1,
      retain: true,
    } as const;
    await wire.login(device, { will });
    await wire.subscribe(`${own}/commands/#`, 1);
    const commander = await open(gateway, door, folder);
    await commander.login(service);
    gateway.credentials.revoked.add(device);
    gateway.credentials.revoke(device);
    commander.publish(`${own}/commands/open`, 'secret', { qos: 1, messageId: 1 });
    await commander.next('puback');
    expect((await wire.next('disconnect')).reasonCode).toBe(0x98);
    await wire.ended();
    expect(wire.count('publish')).toBe(0);
    await commander.subscribe('iotflow/devices/#', 1);
    await commander.ping();
    expect(commander.count('publish')).toBe(0);
  },
);

test('a will is held to the topics its account may publish to', async () => {
  const gateway = await startGateway();
  const wrong: string[] = [];
  for (const role of roles) {
    for (const [topic, allowed] of publishes) {
      if (allowed === '!') continue;
      const wire = await Wire.tcp(gateway.port, 5);
      const connack = await wire.login(role, {
        will: { topic, payload: Buffer.from('x'), qos: 0, retain: true },
      });
      const expected = allowed.includes(letters[role] ?? '-') ? 0 : 0x87;
      if (connack.reasonCode !== expected) wrong.push(`${role} ${topic}: ${connack.reasonCode}`);
      wire.send({ cmd: 'disconnect' });
      await wire.ended();
    }
  }
  expect(wrong).toEqual([]);
});
