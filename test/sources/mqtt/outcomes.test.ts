// What a user of mosquitto's command line and of paho sees of every outcome of a login and of a wrong topic.

import { spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { hasCommand } from '../../support/debian.ts';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { tempFolder } from '../../support/temp.ts';

const everything = { host: '127.0.0.1', lanPlaintext: false, port: 0, tlsPort: 0, wsPort: 0 };
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

const accounts = [
  ['good', 'probe-1', 'key-probe-1', 0],
  ['wrong password', 'probe-1', 'guess', 4],
  ['unknown user', 'probe-9', 'key', 4],
  ['revoked', 'revoked-1', 'key-revoked-1', 4],
  ['not approved yet', 'pending-1', 'key-pending-1', 4],
  ['no credentials', '', '', 4],
] as const;

async function start(folder: string): Promise<TestGateway> {
  const gateway = await startGateway({ dataDirectory: folder, listen: everything });
  gateway.credentials.revoked.add('revoked-1').add('pending-1');
  return gateway;
}

/** mosquitto_pub ends with the return code of 3.1.1, and with the reason code of 5.0. */
test.skipIf(!hasCommand('mosquitto_pub')).each([
  ['tcp', 'mqttv311'],
  ['tcp', 'mqttv5'],
  ['tls', 'mqttv311'],
  ['tls', 'mqttv5'],
] as const)(
  'mosquitto_pub says why it was refused, over %s with %s (needs Debian package mosquitto-clients)',
  async (door, version) => {
    const folder = tempFolder();
    const gateway = await start(folder);
    const { mqtt, mqtts } = gateway.source.ports;
    const where =
      door === 'tcp' ? ['-p', `${mqtt}`] : ['-p', `${mqtts}`, '--cafile', join(folder, 'tls', 'ca.crt')];
    const publish = (user: string, password: string, topic: string) =>
      run('mosquitto_pub', [
        ...['-h', 'localhost', ...where, '-V', version, '-q', '1', '-t', topic, '-m', '1'],
        ...(user === '' ? [] : ['-u', user, '-P', password]),
      ]);
    const tries = accounts.map(async ([what, user, password, code]) => {
      const { code: exit, output } = await publish(user, password, `${own}/telemetry/x`);
      const expected = version === 'mqttv5' && code !== 0 ? 0x86 : code;
      expect([what, exit], output).toEqual([what, expected]);
    });
    await Promise.all(tries);
    expect(gateway.messages.length).toBe(1);
    const foreign = await publish('probe-1', 'key-probe-1', 'iotflow/devices/probe-2/telemetry/x');
    // Version 5 says so in PUBACK and goes on; 3.1.1 has no word for it and hangs up.
    if (version === 'mqttv5') expect(foreign.output).toMatch(/not authori[sz]ed/i);
    else expect(foreign.code).not.toBe(0);
    expect(gateway.messages.length).toBe(1);
  },
);

const script = `
import json, sys, threading, paho.mqtt.client as paho
o = json.loads(sys.argv[1])
done = threading.Event()
result = {}
v5 = o['version'] == 5
client = paho.Client(client_id='paho', protocol=paho.MQTTv5 if v5 else paho.MQTTv311, transport=o['transport'])
if o['user']: client.username_pw_set(o['user'], o['password'])
if o['ca']: client.tls_set(ca_certs=o['ca'])
def code(rc): return rc.value if hasattr(rc, 'value') else int(rc)
def connected(c, u, flags, rc, properties=None):
    result['connack'] = code(rc)
    if result['connack'] != 0: done.set(); return
    c.subscribe(o['filter'], 1)
def subscribed(c, u, mid, granted, properties=None):
    result['suback'] = [code(g) for g in granted]
    c.publish(o['topic'], '1', qos=1)
def published(c, u, mid): result['puback'] = True; done.set()
def disconnected(c, u, rc, properties=None): done.set()
client.on_connect, client.on_subscribe, client.on_publish, client.on_disconnect = connected, subscribed, published, disconnected
client.connect('localhost', o['port'])
client.loop_start()
done.wait(10)
client.loop_stop()
print(json.dumps(result))
`;

const pahoCases = (['tcp', 'tls', 'websockets'] as const).flatMap((door) =>
  ([4, 5] as const).map((version) => ({ door, version })),
);

test.skipIf(python === undefined).each(pahoCases)(
  'paho is told the outcome over $door, MQTT level $version (needs Debian package python3-paho-mqtt)',
  async ({ door, version }) => {
    const folder = tempFolder();
    const gateway = await start(folder);
    const { mqtt, mqtts, ws } = gateway.source.ports;
    const port = { tcp: mqtt, tls: mqtts, websockets: ws }[door];
    const ask = async (user: string, password: string, filter: string, topic: string) => {
      const transport = door === 'websockets' ? door : 'tcp';
      const ca = door === 'tls' ? join(folder, 'tls', 'ca.crt') : '';
      const options = { version, transport, port, ca, user, password, filter, topic };
      const { output } = await run(python ?? '', ['-W', 'ignore', '-c', script, JSON.stringify(options)]);
      return JSON.parse(output) as { connack?: number; suback?: number[]; puback?: boolean };
    };
    const tries = accounts.map(async ([what, user, password, code]) => {
      const { connack } = await ask(user, password, `${own}/#`, `${own}/telemetry/x`);
      expect([what, connack]).toEqual([what, version === 5 && code !== 0 ? 0x86 : code]);
    });
    await Promise.all(tries);
    expect(gateway.messages.length).toBe(1);
    const good = await ask('probe-1', 'key-probe-1', `${own}/#`, `${own}/status/x`);
    expect(good).toEqual({ connack: 0, suback: [1], puback: true });
    const foreign = await ask(
      'probe-1',
      'key-probe-1',
      'iotflow/devices/probe-2/#',
      'iotflow/devices/probe-2/status/x',
    );
    expect(foreign.suback).toEqual([version === 5 ? 0x87 : 0x80]);
    // A PUBACK with 0x87 still ends paho's publish; 3.1.1 is cut off without one.
    expect(foreign.puback).toBe(version === 5 ? true : undefined);
    expect(gateway.messages.length).toBe(2);
  },
);
