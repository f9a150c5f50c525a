// The forwarder with the bridge as its uplink, against real brokers, and against one that refuses on demand.

import { writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { generate, type Packet, parser } from 'mqtt-packet';
import { expect, onTestFinished, test } from 'vitest';
import { Bridge, type BridgeOptions } from '../../src/bridge/bridge.ts';
import { messageOf } from '../../src/bridge/message.ts';
import { Forwarder, type ForwarderOptions } from '../../src/forwarder/forwarder.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalCa } from '../../src/platform/local-ca.ts';
import { createLog } from '../../src/platform/log.ts';
import { Daemon } from '../support/daemon.ts';
import { commandPath, hasCommand } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { MemorySpool } from '../support/memory-spool.ts';
import { tempFolder } from '../support/temp.ts';

const patient = { timeout: 60_000, interval: 100 };

function startForwarder(
  spool: MemorySpool,
  bridge: Partial<BridgeOptions> & Pick<BridgeOptions, 'urls'>,
  options: Partial<ForwarderOptions> = {},
): { readonly forwarder: Forwarder; readonly bridge: Bridge } {
  const target = new Bridge({
    topic: 'iotflow/points',
    format: 'line_protocol',
    clientId: 'iotflow-bridge-test',
    inFlightMax: 100,
    timeoutMs: 5000,
    ...bridge,
  });
  const forwarder = Forwarder.start({
    spool,
    target,
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    options: { flushIntervalMs: 20, retryMinMs: 50, retryMaxMs: 500, pausedRetryMs: 200, ...options },
  });
  onTestFinished(() => forwarder.close({ deadlineMs: 500 }));
  return { forwarder, bridge: target };
}

function lines(from: number, count: number): string[] {
  return Array.from(
    { length: count },
    (_, index) =>
      `water,device_id=meter,gateway=pi flow=${from + index} ${1_700_000_000_000_000_000n + BigInt(from + index)}`,
  );
}

/** A subscriber that stays: what arrived, each payload once. */
async function consume(url: string): Promise<Set<string>> {
  const arrived = new Set<string>();
  const client = await connectAsync(url, { clientId: 'consumer', clean: false, reconnectPeriod: 500 });
  client.on('error', () => undefined);
  onTestFinished(() => void client.end(true));
  client.on('message', (_topic, payload) => arrived.add(payload.toString()));
  await client.subscribeAsync('iotflow/points/#', { qos: 1 });
  return arrived;
}

async function answers(port: number): Promise<boolean> {
  const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0, connectTimeout: 3000 });
  await client.endAsync();
  return true;
}

async function startMosquitto(further = ''): Promise<string> {
  const folder = await tempFolder();
  const port = await freePort();
  const file = join(folder, 'mosquitto.conf');
  writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\n${further}`);
  const broker = await Daemon.start(commandPath('mosquitto') ?? '', ['-c', file], () => answers(port));
  onTestFinished(() => broker.stop());
  return `mqtt://127.0.0.1:${port}`;
}

/** MQTT 5; answers each PUBLISH with the reason code that `judge` gives. */
async function startJudge(
  judge: (topic: string, payload: string) => number,
  properties: Record<string, number> = {},
): Promise<{ readonly url: string; readonly mostInFlight: () => number }> {
  let most = 0;
  const server = createServer((socket) => {
    const parse = parser({ protocolVersion: 5 });
    let inFlight = 0;
    const send = (packet: object) => {
      if (socket.writable) socket.write(generate(packet as Packet, { protocolVersion: 5 }));
    };
    socket.on('error', () => undefined);
    parse.on('packet', (packet) => {
      if (packet.cmd === 'connect')
        send({ cmd: 'connack', reasonCode: 0, sessionPresent: false, properties });
      if (packet.cmd !== 'publish') return;
      inFlight += 1;
      most = Math.max(most, inFlight);
      const reasonCode = judge(packet.topic, packet.payload.toString());
      setTimeout(() => {
        inFlight -= 1;
        send({ cmd: 'puback', messageId: packet.messageId, reasonCode });
      }, 2);
    });
    socket.on('data', (bytes) => parse.parse(bytes));
    onTestFinished(() => void socket.destroy());
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  return { url: `mqtt://127.0.0.1:${address.port}`, mostInFlight: () => most };
}

test('a message the broker refuses is a dead letter with its reason, the others arrive', async () => {
  const taken = new Set<string>();
  const { url } = await startJudge((_topic, payload) => {
    if (payload.includes('flow=7 ')) return 0x99;
    taken.add(payload);
    return 0;
  });
  const spool = new MemorySpool();
  const { forwarder } = startForwarder(spool, { urls: [url] });
  spool.add('fresh', lines(0, 20));
  await expect.poll(() => spool.total, patient).toBe(0);
  expect(taken.size).toBe(19);
  expect(spool.buried).toMatchObject([{ stage: 'bridge', code: 'BRIDGE_REJECTED', deviceId: 'meter' }]);
  expect(spool.buried[0]?.reason).toMatch(/payload format invalid/i);
  expect(forwarder.stats()).toMatchObject({ acceptedPoints: 19, buriedPoints: 1, remote: 'The MQTT broker' });
});

test('a broker without room is asked again, and no point is given up for it', async () => {
  let isFull = true;
  const { url } = await startJudge(() => (isFull ? 0x97 : 0));
  const spool = new MemorySpool();
  const { forwarder } = startForwarder(spool, { urls: [url] });
  spool.add('fresh', lines(0, 5));
  await expect.poll(() => forwarder.stats().state, patient).toBe('retrying');
  expect(forwarder.stats().reason).toMatch(/quota/i);
  isFull = false;
  await expect.poll(() => spool.total, patient).toBe(0);
  expect(spool.buried).toEqual([]);
});

test('a broker that lets this account publish nothing pauses the bridge and buries nothing', async () => {
  const { url } = await startJudge(() => 0x87);
  const spool = new MemorySpool();
  const { forwarder } = startForwarder(spool, { urls: [url] });
  spool.add('fresh', lines(0, 5));
  await expect.poll(() => forwarder.stats().state, patient).toBe('paused');
  expect(forwarder.stats().reason).toMatch(/not authorized/i);
  expect(spool.total).toBe(5);
  expect(spool.buried).toEqual([]);
});

test('no more messages are out than the broker takes at once', async () => {
  const judge = await startJudge(() => 0, { receiveMaximum: 3 });
  const spool = new MemorySpool();
  startForwarder(spool, { urls: [judge.url] });
  spool.add('fresh', lines(0, 60));
  await expect.poll(() => spool.total, patient).toBe(0);
  expect(judge.mostInFlight()).toBe(3);
});

test('a line becomes a topic no name can leave, and JSON where that is wanted', () => {
  const line =
    'a/b\\ #+,device_id=meter,gateway=pi,location=Küche\\,\\ oben flow=1.5,on=true,n=3i,text="a\\"b" 17';
  expect(messageOf(line, 'iotflow/points', 'line_protocol')).toEqual({
    topic: 'iotflow/points/pi/meter/a%2fb%20%23%2b',
    payload: line,
  });
  const { payload = '' } = messageOf(line, 'iotflow/points', 'json') ?? {};
  expect(JSON.parse(payload)).toEqual({
    measurement: 'a/b #+',
    tags: { device_id: 'meter', gateway: 'pi', location: 'Küche, oben' },
    fields: { flow: 1.5, on: true, n: 3, text: 'a"b' },
    timestamp_ns: '17',
  });
});

test.skipIf(!hasCommand('mosquitto'))('points of every lane reach mosquitto (needs mosquitto)', async () => {
  const url = await startMosquitto();
  const arrived = await consume(url);
  const spool = new MemorySpool();
  const { forwarder } = startForwarder(spool, { urls: [url] });
  spool.add('fresh', lines(0, 500));
  spool.add('urgent', lines(1000, 1));
  spool.add('backlog', lines(2000, 500));
  await expect.poll(() => spool.total, patient).toBe(0);
  await expect.poll(() => arrived.size, patient).toBe(1001);
  expect(forwarder.stats()).toMatchObject({ acceptedPoints: 1001, failures: 0 });
});

test.skipIf(!hasCommand('mosquitto'))(
  'a wrong password pauses the bridge and says so (needs mosquitto)',
  async () => {
    const folder = await tempFolder();
    writeFileSync(join(folder, 'passwords'), '');
    const url = await startMosquitto();
    const port = await freePort();
    const file = join(folder, 'mosquitto.conf');
    writeFileSync(file, `listener ${port} 127.0.0.1\nallow_anonymous false\nuser root\n`);
    const broker = await Daemon.start(commandPath('mosquitto') ?? '', ['-c', file], async () => {
      const outcome = await answers(port).catch((error: Error) => error.message);
      return /authorized/i.test(String(outcome));
    });
    onTestFinished(() => broker.stop());
    const spool = new MemorySpool();
    const { forwarder } = startForwarder(spool, { urls: [`mqtt://127.0.0.1:${port}`, url] });
    spool.add('fresh', lines(0, 5));
    await expect.poll(() => forwarder.stats().lastError?.message, patient).toMatch(/authorized/i);
    // The next of the brokers takes them.
    await expect.poll(() => spool.total, patient).toBe(0);
  },
);

test.skipIf(!hasCommand('mosquitto'))(
  'a whole gateway with a bridge delivers what it acknowledged and leaves nothing in its journal (needs mosquitto)',
  async () => {
    const url = await startMosquitto();
    const arrived = await consume(url);
    const gateway = await openGateway(await tempFolder(), { bridge: { url } });
    const device = await connectDevice(gateway, 'meter');
    for (let flow = 0; flow < 50; flow += 1) {
      const reading = JSON.stringify({ flow, timestamp: 1_700_000_000_000 + flow });
      await device.publishAsync('iotflow/devices/meter/telemetry/water', reading, { qos: 1 });
    }
    await expect
      .poll(() => [...arrived].filter((line) => line.startsWith('water,')).length, patient)
      .toBe(50);
    await expect.poll(() => gateway.figures().forwarder.pending.fresh, patient).toBe(0);
    expect(gateway.figures().bridge).toMatchObject({ url, connections: 1 });
    expect(gateway.health().ok).toBe(true);
  },
);

test.skipIf(!hasCommand('mosquitto'))(
  'over TLS points go to a broker whose certificate is vouched for, and to no other (needs mosquitto)',
  async () => {
    const folder = await tempFolder();
    const [vouched, stranger] = await Promise.all(
      ['vouched', 'stranger'].map((name) =>
        openLocalCa({
          folder: join(folder, name),
          names: ['127.0.0.1'],
          clock: systemClock(),
          log: createLog('silent'),
        }),
      ),
    );
    if (vouched === undefined || stranger === undefined) throw new Error('no certificates');
    const port = await freePort();
    writeFileSync(join(folder, 'cert.pem'), vouched.certificates);
    writeFileSync(join(folder, 'key.pem'), vouched.key);
    const url = await startMosquitto(
      `user root\nlistener ${port} 127.0.0.1\nallow_anonymous true\n` +
        `certfile ${join(folder, 'cert.pem')}\nkeyfile ${join(folder, 'key.pem')}\n`,
    );
    const arrived = await consume(url);
    const secure = { urls: [`mqtts://127.0.0.1:${port}`] };

    const waiting = new MemorySpool();
    const doubtful = startForwarder(waiting, { ...secure, caPath: stranger.caPath });
    waiting.add('fresh', lines(0, 5));
    await expect.poll(() => doubtful.forwarder.stats().failures, patient).toBeGreaterThan(1);
    expect(doubtful.forwarder.stats().reason).toMatch(/certificate/);
    expect([arrived.size, waiting.total]).toEqual([0, 5]);

    const spool = new MemorySpool();
    startForwarder(spool, { ...secure, caPath: vouched.caPath, clientId: 'iotflow-bridge-tls' });
    spool.add('fresh', lines(100, 5));
    await expect.poll(() => spool.total, patient).toBe(0);
    await expect.poll(() => arrived.size, patient).toBe(5);
  },
);

test.skipIf(!hasCommand('nats-server'))(
  'of three NATS servers the one we are connected to is killed, and nothing acknowledged is missing (needs nats-server)',
  { timeout: 120_000 },
  async () => {
    const folder = await tempFolder();
    const nodes = await Promise.all(
      [0, 1, 2].map(async (index) => ({
        index,
        client: await freePort(),
        mqtt: await freePort(),
        route: await freePort(),
      })),
    );
    const routes = nodes.map(({ route }) => `nats://127.0.0.1:${route}`).join(', ');
    const daemons = await Promise.all(
      nodes.map(({ index, client, mqtt, route }) => {
        const file = join(folder, `nats-${index}.conf`);
        writeFileSync(
          file,
          `server_name: n${index}\nlisten: 127.0.0.1:${client}\n` +
            `jetstream { store_dir: "${join(folder, `store-${index}`)}" }\n` +
            `mqtt { listen: "127.0.0.1:${mqtt}" }\n` +
            `cluster { name: test, listen: "127.0.0.1:${route}", routes: [${routes}] }\n`,
        );
        return Daemon.start(commandPath('nats-server') ?? '', ['-c', file], () => answers(mqtt));
      }),
    );
    onTestFinished(async () => {
      for (const daemon of daemons) await daemon.stop('SIGKILL');
    });
    const urls = nodes.map(({ mqtt }) => `mqtt://127.0.0.1:${mqtt}`);
    const arrived = await consume(urls[2] ?? '');

    const spool = new MemorySpool();
    const { forwarder, bridge } = startForwarder(spool, { urls }, { batchPoints: 100 });
    let made = 0;
    const add = (count: number): void => {
      spool.add('fresh', lines(made, count));
      made += count;
    };
    add(100);
    await expect.poll(() => spool.acceptedPoints, patient).toBe(100);
    expect(bridge.stats().url).toBe(urls[0]);

    const feeding = setInterval(() => add(10), 50);
    await expect.poll(() => spool.acceptedPoints, patient).toBeGreaterThan(300);
    await daemons[0]?.stop('SIGKILL');
    await expect.poll(() => bridge.stats().url, patient).toMatch(new RegExp(`${urls[1]}|${urls[2]}`));
    await expect.poll(() => forwarder.stats().state, patient).not.toBe('retrying');
    clearInterval(feeding);
    await expect.poll(() => spool.total, patient).toBe(0);
    expect(spool.acceptedPoints).toBe(made);
    expect(spool.buried).toEqual([]);
    await expect.poll(() => arrived.size, patient).toBe(made);
  },
);
