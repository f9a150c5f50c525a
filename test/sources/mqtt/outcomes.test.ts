// What a user of mosquitto's command line and of paho sees of every outcome of a login, and of a wrong topic, at a whole
// gateway with accounts as an operator makes them.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, test } from 'vitest';
import type { Gateway } from '../../../src/gateway.ts';
import { ask } from '../../support/api.ts';
import { hasCommand } from '../../support/debian.ts';
import { openGateway } from '../../support/gateway.ts';
import { tempFolder } from '../../support/temp.ts';

const own = 'iotflow/devices/probe-1';
const python = await firstOf(['/usr/bin/python3', 'python3']);

interface Ran {
  readonly code: number | null;
  readonly output: string;
}

function run(command: string, args: readonly string[]): Promise<Ran> {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: 20_000 });
  let output = '';
  child.stdout.on('data', (bytes) => {
    output += bytes;
  });
  child.stderr.on('data', (bytes) => {
    output += bytes;
  });
  return new Promise((resolve) => {
    child.once('error', () => resolve({ code: null, output }));
    child.once('close', (code) => resolve({ code, output }));
  });
}

async function firstOf(commands: readonly string[]): Promise<string | undefined> {
  for (const command of commands) {
    if ((await run(command, ['-c', 'import paho.mqtt.client'])).code === 0) return command;
  }
  return undefined;
}

interface Account {
  readonly what: string;
  readonly user: string;
  readonly password: string;
  readonly ends: 'in' | 'bad' | 'forbidden';
}

interface House {
  readonly gateway: Gateway;
  readonly folder: string;
  readonly accounts: readonly Account[];
  readonly key: string;
  /** Messages taken since the accounts were made. */
  taken(): number;
}

async function start(): Promise<House> {
  const folder = tempFolder();
  const gateway = await openGateway(folder);
  const operate = async (name: string, args: Record<string, unknown>) => {
    const operation = gateway.operations.get(name);
    if (operation === undefined) throw new Error(`there is no operation ${name}`);
    return (await operation(args)) as { readonly api_key: string; readonly token: string };
  };
  const added = async (id: string, service = false) =>
    (await operate('devices.add', { device_id: id, service })).api_key;
  const key = await added('probe-1');
  const revoked = await added('revoked-1');
  await operate('devices.revoke', { device_id: 'revoked-1' });
  const before = await added('rotated-1');
  const after = (await operate('devices.rotate', { device_id: 'rotated-1' })).api_key;
  const early = await added('grace-1');
  await operate('devices.rotate', { device_id: 'grace-1', grace_ms: 3_600_000 });
  const serviced = await added('maintained-1');
  await operate('devices.update', { device_id: 'maintained-1', status: 'maintenance' });
  const removed = await added('removed-1');
  await operate('devices.remove', { device_id: 'removed-1' });
  const home = await added('home', true);
  await operate('users.add', { name: 'anna', role: 'admin', password: 'three blind mice' });
  const { token } = await operate('users.token_add', { name: 'anna', label: 'a' });
  const json = { 'content-type': 'application/json' };
  const wish = JSON.stringify({ name: 'pending-1', device_type: 'probe' });
  const asked = await ask({ port: gateway.ports.http }, '/api/v1/devices/register', 'POST', json, wish);
  const { device } = JSON.parse(asked.body) as { device: { device_id: string; api_key: string } };
  const took = gateway.figures().mqtt.messages;
  return {
    gateway,
    folder,
    key,
    taken: () => gateway.figures().mqtt.messages - took,
    accounts: [
      { what: 'the right key', user: 'probe-1', password: key, ends: 'in' },
      { what: 'a key in its grace', user: 'grace-1', password: early, ends: 'in' },
      { what: 'a device in maintenance', user: 'maintained-1', password: serviced, ends: 'in' },
      { what: 'a service account', user: 'home', password: home, ends: 'in' },
      { what: 'a key after the rotation', user: 'rotated-1', password: after, ends: 'in' },
      { what: 'a key before the rotation', user: 'rotated-1', password: before, ends: 'bad' },
      { what: 'a wrong key', user: 'probe-1', password: 'guess', ends: 'bad' },
      { what: 'the key of another', user: 'probe-1', password: home, ends: 'bad' },
      { what: 'no key', user: 'probe-1', password: '', ends: 'bad' },
      { what: 'an unknown user', user: 'probe-9', password: key, ends: 'bad' },
      { what: 'a device that was revoked', user: 'revoked-1', password: revoked, ends: 'bad' },
      { what: 'a device that was removed', user: 'removed-1', password: removed, ends: 'bad' },
      { what: 'one not approved yet', user: device.device_id, password: device.api_key, ends: 'forbidden' },
      { what: 'a person', user: 'anna', password: 'three blind mice', ends: 'bad' },
      { what: 'the API token of a person', user: 'anna', password: token, ends: 'bad' },
      { what: 'nobody', user: '', password: '', ends: 'bad' },
    ],
  };
}

const codes = { 4: { in: 0, bad: 4, forbidden: 5 }, 5: { in: 0, bad: 0x86, forbidden: 0x87 } } as const;

/** mosquitto_pub ends with the return code of 3.1.1, and with the reason code of 5.0. */
test.skipIf(!hasCommand('mosquitto_pub')).each([
  ['tcp', 'mqttv311'],
  ['tcp', 'mqttv5'],
  ['tls', 'mqttv311'],
  ['tls', 'mqttv5'],
] as const)(
  'mosquitto_pub says why it was refused, over %s with %s (needs Debian package mosquitto-clients)',
  async (door, version) => {
    const { gateway, folder, accounts, key, taken } = await start();
    const { mqtt, mqtts } = gateway.ports;
    const authority = ['--cafile', join(folder, 'data', 'tls', 'ca.crt')];
    const where = door === 'tcp' ? ['-p', `${mqtt}`] : ['-p', `${mqtts}`, ...authority];
    const publish = (user: string, password: string, topic: string, more: readonly string[] = where) =>
      run('mosquitto_pub', [
        ...['-h', 'localhost', ...more, '-V', version, '-q', '1', '-t', topic, '-m', '1'],
        ...(user === '' ? [] : ['-u', user]),
        ...(password === '' ? [] : ['-P', password]),
      ]);
    const outcomes = codes[version === 'mqttv5' ? 5 : 4];
    const tries = accounts.map(async ({ what, user, password, ends }) => {
      const { code, output } = await publish(user, password, `iotflow/devices/${user}/telemetry/x`);
      expect([what, code], output).toEqual([what, outcomes[ends]]);
    });
    await Promise.all(tries);
    const good = accounts.filter(({ ends }) => ends === 'in').length;
    expect(taken()).toBe(good);
    const foreign = await publish('probe-1', key, 'iotflow/devices/grace-1/telemetry/x');
    // Version 5 says so in PUBACK and goes on; 3.1.1 has no word for it and hangs up.
    if (version === 'mqttv5') expect(foreign.output).toMatch(/not authori[sz]ed/i);
    else expect(foreign.code).not.toBe(0);
    // The client id is that of another account, whose device is connected.
    const victim = await connectAsync(`mqtt://127.0.0.1:${mqtt}`, {
      username: 'probe-1',
      password: key,
      clientId: 'taken',
    });
    const theft = publish('home', accounts[3]?.password ?? '', own, [...where, '-i', 'taken']);
    expect((await theft).code).toBe(outcomes.forbidden);
    expect(victim.connected).toBe(true);
    await victim.endAsync();
    const foreignAuthority = ['--capath', '/etc/ssl/certs'];
    const wrong =
      door === 'tcp'
        ? [['-p', `${mqtt}`, ...authority]]
        : [
            ['-p', `${mqtts}`],
            ['-p', `${mqtts}`, ...foreignAuthority],
          ];
    for (const more of wrong) {
      expect((await publish('probe-1', key, `${own}/telemetry/x`, more)).code, more.join(' ')).not.toBe(0);
    }
    expect(taken()).toBe(good);
  },
);

const script = `
import json, sys, threading, time, paho.mqtt.client as paho
from paho.mqtt.properties import Properties
from paho.mqtt.packettypes import PacketTypes
o = json.loads(sys.argv[1])
v5 = o['version'] == 5
def code(rc): return rc.value if hasattr(rc, 'value') else int(rc)
def attempt(t):
    done = threading.Event()
    result = {}
    lasting = 'session' in t
    options = {} if v5 else {'clean_session': not lasting}
    client = paho.Client(client_id=t['session'] if lasting else 'paho', transport=o['transport'],
        protocol=paho.MQTTv5 if v5 else paho.MQTTv311, **options)
    if t['user']: client.username_pw_set(t['user'], t['password'] or None)
    if o['ca']: client.tls_set(ca_certs=o['ca'])
    def connected(c, u, flags, rc, properties=None):
        result['connack'] = code(rc)
        if lasting: result['present'] = flags['session present']
        if result['connack'] != 0 or lasting: done.set()
        else: c.subscribe(t['filter'], 1)
    def subscribed(c, u, mid, granted, properties=None):
        result['suback'] = [code(g) for g in granted]
        c.publish(t['topic'], '1', qos=1)
    def published(c, u, mid): result['puback'] = True; done.set()
    def disconnected(c, u, rc, properties=None): done.set()
    client.on_connect, client.on_subscribe, client.on_publish, client.on_disconnect = connected, subscribed, published, disconnected
    if v5:
        properties = Properties(PacketTypes.CONNECT)
        if lasting: properties.SessionExpiryInterval = 1
        client.connect('localhost', o['port'], clean_start=not lasting, properties=properties)
    else: client.connect('localhost', o['port'])
    client.loop_start()
    done.wait(10)
    client.disconnect()
    client.loop_stop()
    return result
results = []
for t in o['tries']:
    time.sleep(t.get('after', 0))
    results.append(attempt(t))
print(json.dumps(results))
`;

interface Try {
  readonly user: string;
  readonly password: string;
  readonly filter: string;
  readonly topic: string;
  /** The client id of a session that lasts, in MQTT 5 for a second. */
  readonly session?: string;
  /** Seconds before it. */
  readonly after?: number;
}

interface Outcome {
  readonly connack?: number;
  readonly suback?: readonly number[];
  readonly puback?: boolean;
  readonly present?: number;
}

const pahoCases = (['tcp', 'tls', 'websockets'] as const).flatMap((door) =>
  ([4, 5] as const).map((version) => ({ door, version })),
);

test.skipIf(python === undefined).each(pahoCases)(
  'paho is told the outcome over $door, MQTT level $version (needs Debian package python3-paho-mqtt)',
  async ({ door, version }) => {
    const { gateway, folder, accounts, key, taken } = await start();
    const { mqtt, mqtts, ws } = gateway.ports;
    const port = { tcp: mqtt, tls: mqtts, websockets: ws }[door];
    const transport = door === 'websockets' ? door : 'tcp';
    const ca = door === 'tls' ? join(folder, 'data', 'tls', 'ca.crt') : '';
    const ask = async (tries: readonly Try[]) => {
      const options = JSON.stringify({ version, transport, port, ca, tries });
      const { output } = await run(python ?? '', ['-W', 'ignore', '-c', script, options]);
      return JSON.parse(output) as Outcome[];
    };
    const tries = accounts.map(({ user, password }) => {
      const topic = `iotflow/devices/${user}/telemetry/x`;
      return { user, password, filter: `iotflow/devices/${user}/#`, topic };
    });
    const outcomes = await ask(tries);
    expect(outcomes.map(({ connack }, index) => [accounts[index]?.what, connack])).toEqual(
      accounts.map(({ what, ends }) => [what, codes[version][ends]]),
    );
    expect(outcomes[0]).toEqual({ connack: 0, suback: [1], puback: true });
    const before = taken();
    const probe = { user: 'probe-1', password: key };
    const other = 'iotflow/devices/grace-1';
    const session = { ...probe, filter: '', topic: '', session: 'lasting' };
    const [foreign, ...sessions] = await ask([
      { ...probe, filter: `${other}/#`, topic: `${other}/status/x` },
      session,
      session,
      ...(version === 5 ? [{ ...session, after: 2.5 }] : []),
    ]);
    expect(foreign?.suback).toEqual([version === 5 ? 0x87 : 0x80]);
    // A PUBACK with 0x87 still ends paho's publish; 3.1.1 is cut off without one.
    expect(foreign?.puback).toBe(version === 5 ? true : undefined);
    expect(sessions.map(({ present }) => present)).toEqual(version === 5 ? [0, 1, 0] : [0, 1]);
    expect(taken()).toBe(before);
  },
);
