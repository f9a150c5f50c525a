import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { hasCommand } from '../../support/debian.ts';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { tempFolder } from '../../support/temp.ts';
import { until } from '../../support/until.ts';

const mosquitto = hasCommand('mosquitto_pub') && hasCommand('mosquitto_sub');
const versions = ['mqttv311', 'mqttv5'] as const;

function login(account: string): string[] {
  return ['-u', account, '-P', `key-${account}`];
}

interface Running {
  readonly process: ChildProcess;
  output: string;
  readonly exit: Promise<number | null>;
}

function run(command: string, args: readonly string[]): Running {
  const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const running: Running = {
    process: child,
    output: '',
    exit: new Promise((resolve) => child.once('close', resolve)),
  };
  child.stdout?.on('data', (bytes) => {
    running.output += bytes;
  });
  child.stderr?.on('data', (bytes) => {
    running.output += bytes;
  });
  return running;
}

function publish(
  gateway: TestGateway,
  version: string,
  args: readonly string[],
  account = 'probe-1',
): Promise<number | null> {
  return run('mosquitto_pub', ['-p', `${gateway.port}`, '-V', version, ...login(account), ...args]).exit;
}

test.skipIf(!mosquitto).each(versions)(
  'mosquitto_pub and mosquitto_sub exchange QoS 0, 1 and 2, retained and wills over %s (needs Debian package mosquitto-clients)',
  async (version) => {
    const gateway = await startGateway();
    const own = 'iotflow/devices/probe-1';
    expect(
      await publish(gateway, version, ['-q', '1', '-r', '-t', `${own}/status/online`, '-m', 'online']),
    ).toBe(0);
    const reader = run('mosquitto_sub', [
      ...['-p', `${gateway.port}`, '-V', version, '-q', '2', '-v', '-t', 'iotflow/devices/#'],
      ...login('service-1'),
    ]);
    // A retained message is the first sign that the subscription is there.
    await until(() => reader.output.includes(`${own}/status/online online`));
    for (const qos of ['0', '1', '2']) {
      expect(await publish(gateway, version, ['-q', qos, '-t', `${own}/telemetry/x`, '-m', qos])).toBe(0);
    }
    const dying = run('mosquitto_sub', [
      ...['-p', `${gateway.port}`, '-V', version, '-t', `${own}/commands/#`, ...login('probe-1')],
      ...[
        '--will-topic',
        `${own}/status/online`,
        '--will-payload',
        'offline',
        '--will-qos',
        '1',
        '--will-retain',
      ],
    ]);
    await until(() => gateway.sessionLog.keys('mqtt/will/').length === 1);
    dying.process.kill('SIGKILL');
    await until(() => reader.output.includes(`${own}/status/online offline`));
    const topic = `${own}/telemetry/x`;
    for (const line of [`${topic} 0`, `${topic} 1`, `${topic} 2`, `${own}/status/online online`]) {
      expect(reader.output).toContain(`${line}\n`);
    }
    expect(gateway.messages.length).toBe(5);
    const late = run('mosquitto_sub', [
      ...['-p', `${gateway.port}`, '-V', version, '-C', '1', '-t', `${own}/status/#`, ...login('service-2')],
    ]);
    await late.exit;
    expect(late.output).toBe('offline\n');
  },
);

test.skipIf(!mosquitto).each(versions)(
  'mosquitto_sub gets what was queued while it was away over %s (needs Debian package mosquitto-clients)',
  async (version) => {
    const gateway = await startGateway();
    const commands = 'iotflow/devices/probe-1/commands';
    const session = [
      ...['-p', `${gateway.port}`, '-V', version, '-q', '1', '-i', 'node', '-c', '-t', `${commands}/#`],
      ...(version === 'mqttv5' ? ['-x', '60'] : []),
      ...login('probe-1'),
    ];
    const first = run('mosquitto_sub', session);
    await until(() => gateway.sessionLog.keys('mqtt/sub/').length === 1);
    first.process.kill('SIGKILL');
    await first.exit;
    for (const payload of ['open', 'close', 'open again']) {
      expect(
        await publish(gateway, version, ['-q', '1', '-t', `${commands}/valve`, '-m', payload], 'service-1'),
      ).toBe(0);
    }
    const second = run('mosquitto_sub', [...session, '-C', '3']);
    expect(await second.exit).toBe(0);
    expect(second.output).toBe('open\nclose\nopen again\n');
  },
);

test.skipIf(!mosquitto)(
  'mosquitto_pub trusts our CA over TLS, and nobody else does (needs Debian package mosquitto-clients)',
  async () => {
    const dataDirectory = tempFolder();
    const gateway = await startGateway({
      dataDirectory,
      listen: { host: '127.0.0.1', lanPlaintext: false, tlsPort: 0 },
    });
    const args = (host: string) => [
      ...['-h', host, '-p', `${gateway.source.ports.mqtts}`, ...login('probe-1')],
      ...['-q', '1', '-t', 'iotflow/devices/probe-1/telemetry/x', '-m', '1'],
    ];
    const ca = join(dataDirectory, 'tls', 'ca.crt');
    expect(await run('mosquitto_pub', [...args('localhost'), '--cafile', ca]).exit).toBe(0);
    expect(await run('mosquitto_pub', [...args('127.0.0.1'), '--cafile', ca]).exit).toBe(0);
    expect(await run('mosquitto_pub', [...args('localhost'), '--capath', '/etc/ssl/certs']).exit).not.toBe(0);
    expect(gateway.messages.length).toBe(2);
  },
);

test.skipIf(!mosquitto)(
  'mosquitto_pub without or with a wrong key is turned away (needs Debian package mosquitto-clients)',
  async () => {
    const gateway = await startGateway();
    const args = ['-p', `${gateway.port}`, '-t', 'iotflow/devices/probe-1/telemetry/x', '-m', '1', '-q', '1'];
    expect(await run('mosquitto_pub', args).exit).not.toBe(0);
    expect(await run('mosquitto_pub', [...args, '-u', 'probe-1', '-P', 'guess']).exit).not.toBe(0);
    expect(gateway.messages).toEqual([]);
  },
);

// Debian's package belongs to Debian's interpreter, which need not be the first one on the PATH.
const python = await firstOf(['/usr/bin/python3', 'python3'], ['-c', 'import paho.mqtt.client']);

/** The first of the commands that succeeds with the arguments. */
async function firstOf(commands: readonly string[], args: readonly string[]): Promise<string | undefined> {
  for (const command of commands) if (await run0(command, args)) return command;
  return undefined;
}

async function run0(command: string, args: readonly string[]): Promise<boolean> {
  const child = spawn(command, args, { stdio: 'ignore' });
  return await new Promise((resolve) => {
    child.once('error', () => resolve(false));
    child.once('close', (code) => resolve(code === 0));
  });
}

const pahoScript = `
import sys, paho.mqtt.client as paho
client = paho.Client(client_id='paho', clean_session=False, protocol=paho.MQTTv311)
client.username_pw_set('probe-1', 'key-probe-1')
client.connect('127.0.0.1', int(sys.argv[1]))
client.loop_start()
for qos in (0, 1, 2):
    info = client.publish('iotflow/devices/probe-1/telemetry/x', str(qos), qos=qos)
    info.wait_for_publish()
client.disconnect()
client.loop_stop()
`;

test.skipIf(python === undefined)(
  'paho publishes with every QoS (needs Debian package python3-paho-mqtt)',
  async () => {
    const gateway = await startGateway();
    expect(await run(python ?? '', ['-c', pahoScript, `${gateway.port}`]).exit).toBe(0);
    expect(gateway.messages.map((message) => message.payload.toString())).toEqual(['0', '1', '2']);
  },
);

test.each([
  ['mqtt', 4],
  ['mqtt', 5],
  ['ws', 4],
  ['ws', 5],
] as const)('MQTT.js works over %s with protocol level %i', async (protocol, protocolVersion) => {
  const gateway = await startGateway();
  const port = protocol === 'ws' ? gateway.wsPort : gateway.port;
  const open = (account: string) =>
    connectAsync(`${protocol}://127.0.0.1:${port}`, {
      protocolVersion,
      username: account,
      password: `key-${account}`,
      reconnectPeriod: 0,
    });
  const reader = await open('service-1');
  const device = await open('probe-1');
  onTestFinished(async () => {
    await Promise.all([reader.endAsync(true), device.endAsync(true)]);
  });
  const received: string[] = [];
  reader.on('message', (_topic, payload) => received.push(payload.toString()));
  await reader.subscribeAsync('iotflow/devices/+/telemetry/#', { qos: 2 });
  for (const qos of [0, 1, 2] as const) {
    await device.publishAsync('iotflow/devices/probe-1/telemetry/x', `${qos}`, { qos });
  }
  await Promise.all(
    Array.from({ length: 500 }, (_, index) =>
      device.publishAsync('iotflow/devices/probe-1/telemetry/burst', `b${index}`, { qos: 1 }),
    ),
  );
  await until(() => received.length === 503);
  expect(received.slice(0, 3).sort()).toEqual(['0', '1', '2']);
  expect(received.slice(3)).toEqual(Array.from({ length: 500 }, (_, index) => `b${index}`));
  expect(gateway.messages.length).toBe(503);
});

/** A service asks a device with a command; the device answers on the topic, and with the mark, it is given. */
test('MQTT.js asks and answers: the response topic and the correlation data come through', async () => {
  const gateway = await startGateway();
  const open = (account: string) =>
    connectAsync(`mqtt://127.0.0.1:${gateway.port}`, {
      protocolVersion: 5,
      username: account,
      password: `key-${account}`,
      reconnectPeriod: 0,
      properties: { requestResponseInformation: true },
    });
  const [device, service] = [await open('probe-1'), await open('service-1')];
  onTestFinished(async () => {
    await Promise.all([device.endAsync(true), service.endAsync(true)]);
  });
  await device.subscribeAsync('iotflow/devices/probe-1/commands/+', { qos: 1 });
  device.on('message', (_topic, payload, { properties }) => {
    const { responseTopic = '', correlationData } = properties ?? {};
    const mark = correlationData === undefined ? {} : { correlationData };
    device.publish(responseTopic, `${payload}!`, { qos: 1, properties: mark });
  });
  const responseTopic = 'iotflow/devices/probe-1/commands/echo/ack';
  await service.subscribeAsync(responseTopic, { qos: 1 });
  const answered = new Promise<string>((resolve) => {
    service.on('message', (topic, payload, { properties }) =>
      resolve(`${topic} ${payload} ${properties?.correlationData}`),
    );
  });
  await service.publishAsync('iotflow/devices/probe-1/commands/echo', 'hello', {
    qos: 1,
    properties: { responseTopic, correlationData: Buffer.from('mark-1') },
  });
  expect(await answered).toBe(`${responseTopic} hello! mark-1`);
});

test.skipIf(!hasCommand('mosquitto_rr'))(
  'mosquitto_rr gets its answer from a device on MQTT.js (needs Debian package mosquitto-clients)',
  async () => {
    const gateway = await startGateway();
    const device = await connectAsync(`mqtt://127.0.0.1:${gateway.port}`, {
      protocolVersion: 5,
      username: 'probe-1',
      password: 'key-probe-1',
      reconnectPeriod: 0,
    });
    onTestFinished(() => device.endAsync(true));
    await device.subscribeAsync('iotflow/devices/probe-1/commands/+', { qos: 1 });
    device.on('message', (_topic, payload, { properties }) => {
      device.publish(properties?.responseTopic ?? '', `${payload}!`, { qos: 1 });
    });
    const asking = run('mosquitto_rr', [
      ...['-p', `${gateway.port}`, '-V', 'mqttv5', '-q', '1', '-m', 'hello', ...login('service-1')],
      ...['-t', 'iotflow/devices/probe-1/commands/echo', '-e', 'iotflow/devices/probe-1/commands/echo/ack'],
    ]);
    expect(await asking.exit).toBe(0);
    expect(asking.output).toBe('hello!\n');
  },
);
