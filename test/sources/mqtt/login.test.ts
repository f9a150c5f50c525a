import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect as tlsConnect } from 'node:tls';
import { expect, test } from 'vitest';
import { createWebSocketStream, WebSocket } from 'ws';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { tempFolder } from '../../support/temp.ts';
import { until } from '../../support/until.ts';

const everything = { host: '127.0.0.1', lanPlaintext: false, port: 0, tlsPort: 0, wsPort: 0 };

async function webSocket(gateway: TestGateway, version: 4 | 5): Promise<Wire> {
  const socket = new WebSocket(`ws://127.0.0.1:${gateway.wsPort}/mqtt`, ['mqtt']);
  return new Wire(createWebSocketStream(socket), version);
}

async function tls(gateway: TestGateway, version: 4 | 5, folder: string): Promise<Wire> {
  const ca = await readFile(join(folder, 'tls', 'ca.crt'));
  const socket = tlsConnect({
    port: gateway.source.ports.mqtts ?? 0,
    host: '127.0.0.1',
    ca,
    servername: 'localhost',
  });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  return new Wire(socket, version);
}

const doors = ['tcp', 'tls', 'ws'] as const;
const cases = doors.flatMap((door) => ([4, 5] as const).map((version) => ({ door, version })));

test.each(cases)(
  'login, ACL, wills and takeover on $door, MQTT level $version',
  async ({ door, version }) => {
    const folder = tempFolder();
    const gateway = await startGateway({ dataDirectory: folder, listen: everything });
    async function open(): Promise<Wire> {
      if (door === 'tcp') return await Wire.tcp(gateway.port, version);
      return door === 'ws' ? await webSocket(gateway, version) : await tls(gateway, version, folder);
    }
    const codeName = version === 5 ? 'reasonCode' : 'returnCode';
    const wrongSecret = version === 5 ? 0x86 : 4;
    const forbidden = version === 5 ? 0x87 : 5;

    const anonymous = await open();
    expect((await anonymous.login('probe-1', { username: undefined!, password: undefined! }))[codeName]).toBe(
      wrongSecret,
    );
    await anonymous.ended();
    const guesser = await open();
    expect((await guesser.login('probe-1', { password: Buffer.from('guess') }))[codeName]).toBe(wrongSecret);
    await guesser.ended();
    const foreignWill = await open();
    const will = {
      topic: 'iotflow/devices/probe-2/status/offline',
      payload: Buffer.from('x'),
      qos: 0,
      retain: false,
    } as const;
    expect((await foreignWill.login('probe-1', { will }))[codeName]).toBe(forbidden);
    await foreignWill.ended();

    const device = await open();
    expect((await device.login('probe-1'))[codeName]).toBe(0);
    const thief = await open();
    expect((await thief.login('probe-2', { clientId: 'probe-1' }))[codeName]).toBe(forbidden);
    await thief.ended();
    expect((await device.subscribe('iotflow/devices/probe-1/commands/#', 1)).granted).toEqual([1]);
    expect((await device.subscribe('iotflow/devices/+/commands/#', 1)).granted).toEqual([
      version === 5 ? 0x87 : 0x80,
    ]);
    expect((await device.subscribe('$SYS/#', 1)).granted).toEqual([version === 5 ? 0x87 : 0x80]);

    device.publish('iotflow/devices/probe-2/telemetry/leak', '1', { qos: 1, messageId: 9 });
    if (version === 5) {
      expect(await device.next('puback')).toMatchObject({ messageId: 9, reasonCode: 0x87 });
    } else {
      // [MQTT-3.3.5-2]
      await device.ended();
    }
    const again = await open();
    expect((await again.login('probe-1'))[codeName]).toBe(0);
    // The same account may take its own client id over.
    await device.ended();
    gateway.credentials.revoke('probe-1');
    await again.ended();
    expect((await (await open()).login('probe-1'))[codeName]).toBe(wrongSecret);
    expect(gateway.messages).toEqual([]);
    expect(gateway.source.stats()).toMatchObject({ refusedTakeovers: 1, revokedConnections: 1 });
  },
);

test('a registry that fails denies', async () => {
  const gateway = await startGateway({
    credentials: {
      verify: () => {
        throw new Error('registry damaged');
      },
      onRevoked: () => {},
    },
  });
  const wire = await Wire.tcp(gateway.port);
  expect((await wire.login('probe-1')).returnCode).toBe(4);
  await wire.ended();
});

test('two accounts that race for a new client id do not both get it', async () => {
  let release = () => {};
  const gateway = await startGateway();
  const held = new Promise<void>((resolve) => {
    release = resolve;
  });
  gateway.sessionLog.beforeWrite = () => held;
  const first = await Wire.tcp(gateway.port);
  const answer = first.login('probe-1', { clientId: 'shared', clean: false });
  await until(() => gateway.sessionLog.writes === 1);
  const second = await Wire.tcp(gateway.port);
  expect((await second.login('probe-2', { clientId: 'shared' })).returnCode).toBe(5);
  release();
  expect((await answer).returnCode).toBe(0);
});

test('a session without a connection still belongs to its account', async () => {
  const gateway = await startGateway();
  const first = await Wire.tcp(gateway.port);
  await first.login('probe-1', { clientId: 'mine', clean: false });
  first.send({ cmd: 'disconnect' });
  await first.ended();
  const other = await Wire.tcp(gateway.port);
  expect((await other.login('probe-2', { clientId: 'mine', clean: true })).returnCode).toBe(5);
});

test.each(['__proto__', 'constructor', 'hasOwnProperty', 'toString'])(
  'a client may call itself %s',
  async (clientId) => {
    const gateway = await startGateway();
    for (const clean of [true, false]) {
      const wire = await Wire.tcp(gateway.port);
      expect((await wire.login('probe-1', { clientId, clean })).returnCode).toBe(0);
      await wire.subscribe('iotflow/devices/probe-1/commands/#', 1);
      wire.send({ cmd: 'unsubscribe', messageId: 3, unsubscriptions: ['constructor', 'toString'] });
      await wire.next('unsuback');
      wire.publish('iotflow/devices/probe-1/telemetry/__proto__', '{"__proto__":1}', {
        qos: 1,
        messageId: 4,
      });
      await wire.next('puback');
    }
    expect(gateway.messages.map((message) => message.name)).toEqual(['__proto__', '__proto__']);
  },
);

test('a device with a keep-alive of an hour is held to ours, and MQTT 5 is told', async () => {
  const gateway = await startGateway({ limits: { keepaliveS: 1 } });
  const modern = await Wire.tcp(gateway.port, 5);
  const connack = await modern.login('probe-1', { keepalive: 3600 });
  expect(connack.properties?.serverKeepAlive).toBe(1);
  const silent = await Wire.tcp(gateway.port);
  await silent.login('probe-2', { keepalive: 0 });
  await Promise.all([modern.ended(), silent.ended()]);
});

test('many small round trips do not wait for delayed acknowledgements', async () => {
  const gateway = await startGateway();
  const reader = await Wire.tcp(gateway.port);
  await reader.login('service-1');
  await reader.subscribe('iotflow/devices/#', 1);
  const device = await Wire.tcp(gateway.port);
  await device.login('probe-1');
  for (let messageId = 1; messageId <= 20; messageId += 1) {
    device.publish('iotflow/devices/probe-1/telemetry/x', '1', { qos: 1, messageId });
    expect((await device.next('puback')).messageId).toBe(messageId);
    const got = await reader.next('publish');
    reader.send({ cmd: 'puback', messageId: got.messageId });
  }
});
