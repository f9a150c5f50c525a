// What other brokers keep under the same fault: the same disk, the same publishers, the power cut right after the last
// PUBACK. `npm run test:powercut:peers [-- NAME]`; a table on stdout. What is not installed is skipped by name; aedes
// and its store come from npm into .tmp.

import { existsSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect, type MqttClient } from 'mqtt';
import { type Child, repositoryRoot, runCommand, startChild, waitForPort } from '../../bench/children.ts';
import { rabbitmqAccount, rabbitmqMissing, spawnRabbitmq } from '../../bench/peers/rabbitmq.ts';
import { stalledDiskMissing } from '../../bench/stalled-disk/stalled-disk.ts';
import { commandPath } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { gatewayReady, spawnGateway } from './gateway.ts';
import { buildPowerDisk, mountPowerDisk, powerCutFolder } from './power-disk.ts';

interface Running {
  readonly child: Child;
  readonly port: number;
  /** What it needs beside it. */
  readonly helper?: Child;
}

interface Login {
  readonly username: string;
  readonly password: string;
}

interface Peer {
  readonly name: string;
  /** The Debian package, when it is missing. */
  readonly missing: () => string | undefined;
  start(dataDir: string, scratch: string): Promise<Running>;
  /** An account; brokers that let anybody in have none. */
  enrol?(running: Running, dataDir: string, deviceId: string): Promise<Login>;
}

const cutsOfEach = 10;
const messages = 500;
const publishers = 5;
/** Each publisher waits so long between two messages: 200 a second in all. */
const pauseMs = 25;
const levelsOfEach = 10;
const quietMs = 1500;

function needs(command: string, debianPackage = command): () => string | undefined {
  return () => (commandPath(command) === undefined ? `Debian package ${debianPackage}` : undefined);
}

function mosquitto(what: string, ...settings: readonly string[]): Peer {
  return {
    name: `mosquitto, ${what}`,
    missing: needs('mosquitto'),
    async start(dataDir, scratch) {
      const port = await freePort();
      const config = join(scratch, `mosquitto-${port}.conf`);
      writeFileSync(
        config,
        [
          `listener ${port} 127.0.0.1`,
          'allow_anonymous true',
          'persistence true',
          `persistence_location ${dataDir}/`,
          ...settings,
          ...(process.getuid?.() === 0 ? ['user root'] : []),
        ].join('\n'),
      );
      const child = startChild('mosquitto', ['-c', config]);
      await waitForPort(port, child);
      return { port, child };
    },
  };
}

const nats: Peer = {
  name: 'nats-server, JetStream MQTT',
  missing: needs('nats-server'),
  async start(dataDir, scratch) {
    const port = await freePort();
    const config = join(scratch, `nats-${port}.conf`);
    writeFileSync(
      config,
      `server_name: powercut\nlisten: "127.0.0.1:${await freePort()}"\n` +
        `jetstream { store_dir: "${dataDir}" }\nmqtt { host: "127.0.0.1", port: ${port} }\n`,
    );
    const child = startChild('nats-server', ['-c', config]);
    await waitForPort(port, child);
    return { port, child };
  },
};

const iotflow: Peer = {
  name: 'IoTFlow Edge',
  missing: () => undefined,
  async start(dataDir) {
    const settings = { dataDir, influxUrl: `http://127.0.0.1:${await freePort()}` };
    const child = spawnGateway(join(repositoryRoot(), 'dist', 'main.js'), settings);
    return { child, port: (await gatewayReady(child, settings)).port };
  },
  async enrol({ child }, dataDir, deviceId) {
    const { operate } = await gatewayReady(child, { dataDir, influxUrl: '' });
    const answer = await operate('devices.add', { device_id: deviceId, service: deviceId === 'away' });
    return { username: deviceId, password: (answer as { api_key: string }).api_key };
  },
};

const rabbitmq: Peer = {
  name: 'RabbitMQ, MQTT plugin',
  missing: rabbitmqMissing,
  async start(dataDir, scratch) {
    // It remembers where its data lie, and is not to be moved.
    const place = join(scratch, 'rabbitmq');
    rmSync(place, { force: true });
    symlinkSync(dataDir, place);
    const { port, child, mapper } = await spawnRabbitmq(scratch, place);
    return { port, child, helper: mapper };
  },
  enrol: async () => rabbitmqAccount,
};

const aedesVersions = ['aedes@1.2.0', 'aedes-persistence-level@9.2.0', 'level@10.0.0'];
/** As its README has it, but for `open`: so it says why when it cannot. */
const aedesBroker = `
import { createServer } from 'node:net';
import { Aedes } from 'aedes';
import aedesPersistenceLevel from 'aedes-persistence-level';
import { Level } from 'level';
const [folder, port] = process.argv.slice(2);
const level = new Level(folder);
await level.open();
const persistence = aedesPersistenceLevel(level);
const broker = await Aedes.createBroker({ persistence });
createServer({ noDelay: true }, broker.handle).listen(Number(port), '127.0.0.1');
`;

const aedes: Peer = {
  name: 'aedes, aedes-persistence-level',
  missing: () => (commandPath('npm') === undefined ? 'npm' : undefined),
  async start(dataDir) {
    const folder = join(repositoryRoot(), '.tmp', 'peers', 'aedes');
    const program = join(folder, 'broker.mjs');
    if (!existsSync(join(folder, 'node_modules', 'aedes-persistence-level'))) {
      mkdirSync(folder, { recursive: true });
      writeFileSync(join(folder, 'package.json'), '{ "private": true }');
      const args = ['install', '--no-audit', '--no-fund', '--ignore-scripts', ...aedesVersions];
      await runCommand('npm', args, { cwd: folder, timeoutMs: 300_000 });
    }
    writeFileSync(program, aedesBroker);
    const port = await freePort();
    const child = startChild(process.execPath, [program, join(dataDir, 'db'), String(port)]);
    await waitForPort(port, child);
    return { port, child };
  },
};

const peers: readonly Peer[] = [
  iotflow,
  mosquitto('persistence true'),
  mosquitto('autosave_interval 1', 'autosave_interval 1'),
  mosquitto('autosave_on_changes', 'autosave_on_changes true', 'autosave_interval 1'),
  nats,
  rabbitmq,
  aedes,
];

function open(port: number, id: string, login: Login | undefined, clean: boolean): MqttClient {
  const client = connect(`mqtt://127.0.0.1:${port}`, {
    clientId: id,
    ...login,
    clean,
    reconnectPeriod: 0,
  });
  client.on('error', () => undefined);
  return client;
}

/** Resolves to whether the broker knew the session; rejects when it lets nobody in. */
function connected(client: MqttClient): Promise<boolean> {
  return new Promise((resolve, reject) => {
    client.once('connect', ({ sessionPresent }) => resolve(sessionPresent));
    client.once('close', () => reject(new Error('refused')));
  });
}

interface Outcome {
  readonly opened: boolean;
  readonly lost: number;
  readonly retainedLost: number;
  readonly hasSession: boolean;
}

async function reopen(
  peer: Peer,
  dataDir: string,
  scratch: string,
  login: Login | undefined,
  notes: number,
  topics: readonly string[],
): Promise<Outcome> {
  const levels = topics.length;
  const running = await peer.start(dataDir, scratch).catch((error: unknown) => {
    process.stderr.write(`${peer.name} does not open: ${String(error).slice(-1500)}\n`);
    return undefined;
  });
  if (running === undefined) return { opened: false, lost: notes, retainedLost: levels, hasSession: false };
  const found = new Set<string>();
  const kept = new Set<string>();
  let atMs = performance.now();
  const client = open(running.port, 'away', login, false);
  client.on('message', (topic, payload, packet) => {
    atMs = performance.now();
    if (topic.endsWith('/note')) found.add(payload.toString());
    else if (packet.retain) kept.add(topic);
  });
  try {
    const hasSession = await connected(client);
    // One by one: RabbitMQ gives no retained message to a wildcard.
    for (const topic of topics) await client.subscribeAsync(topic, { qos: 1 });
    while (performance.now() - atMs < quietMs && found.size + kept.size < notes + levels) await sleep(20);
    return { opened: true, lost: notes - found.size, retainedLost: levels - kept.size, hasSession };
  } catch {
    return { opened: true, lost: notes, retainedLost: levels, hasSession: false };
  } finally {
    await client.endAsync(true);
    await end(running);
  }
}

async function end({ child, helper }: Running): Promise<void> {
  child.process.kill('SIGKILL');
  await child.ended;
  await helper?.stop();
}

async function measure(peer: Peer, program: string, folder: string): Promise<string> {
  mkdirSync(folder);
  // Everything of a first start, of the accounts and of the subscription is on the disk: it was long ago.
  const ready = join(folder, 'ready');
  const readyData = join(ready, 'data');
  mkdirSync(readyData, { recursive: true });
  const first = await peer.start(readyData, folder);
  const logins = new Map<string, Login | undefined>();
  const ids = Array.from({ length: publishers }, (_, index) => `node-${index}`);
  for (const id of ['away', ...ids]) logins.set(id, await peer.enrol?.(first, readyData, id));
  const away = open(first.port, 'away', logins.get('away'), false);
  await connected(away);
  await away.subscribeAsync('iotflow/devices/+/status/note', { qos: 1 });
  await away.endAsync();
  await first.child.stop(30_000);
  await first.helper?.stop();
  rmSync(join(readyData, 'run'), { recursive: true, force: true });

  const disk = await mountPowerDisk({ program, folder: join(folder, 'd'), names: 'ordered', from: ready });
  const running = await peer.start(join(disk.folder, 'data'), folder);
  let acknowledged = 0;
  const levels: string[] = [];
  await Promise.all(
    ids.map(async (id, index) => {
      const client = open(running.port, id, logins.get(id), true);
      await connected(client);
      const topic = `iotflow/devices/${id}/status`;
      for (let n = 1; n <= levelsOfEach; n += 1) {
        await client.publishAsync(`${topic}/level-${n}`, `{"n":${n}}`, { qos: 1, retain: true });
        levels.push(`${topic}/level-${n}`);
      }
      for (let n = 1; n <= messages / publishers; n += 1) {
        await client.publishAsync(`${topic}/note`, `{"n":${n},"of":${index}}`, { qos: 1 });
        acknowledged += 1;
        await sleep(pauseMs);
      }
      // Not a goodbye: the power goes while they are there.
    }),
  );
  const images = Array.from({ length: cutsOfEach }, (_, index) => join(folder, `cut-${index}`));
  for (const [seed, to] of images.entries()) await disk.cut({ seed: seed + 1, sectors: 'ordered', to });
  await end(running);
  await disk.unmount();
  const outcomes: Outcome[] = [];
  for (const image of images) {
    const data = join(image, 'data');
    rmSync(join(data, 'run'), { recursive: true, force: true });
    mkdirSync(data, { recursive: true });
    outcomes.push(await reopen(peer, data, folder, logins.get('away'), acknowledged, levels));
    rmSync(image, { recursive: true, force: true });
  }
  const range = (pick: (outcome: Outcome) => number): string => {
    const values = outcomes.map(pick);
    const [least, most] = [Math.min(...values), Math.max(...values)];
    return least === most ? `${least}` : `${least}–${most}`;
  };
  const count = (is: (outcome: Outcome) => boolean) => `${outcomes.filter(is).length}/${outcomes.length}`;
  return (
    `| ${peer.name} | ${acknowledged} | ${range(({ lost }) => lost)} | ${range(({ retainedLost }) => retainedLost)}/${levels.length} ` +
    `| ${count(({ hasSession }) => hasSession)} | ${count(({ opened }) => opened)} |`
  );
}

const missing = stalledDiskMissing();
if (missing !== undefined) throw new Error(`This needs ${missing}.`);
const folder = powerCutFolder();
const program = await buildPowerDisk(folder);
process.stdout.write(
  '| broker | acknowledged | lost | retained lost | session kept | opens |\n| --- | --- | --- | --- | --- | --- |\n',
);
for (const [index, peer] of peers.entries()) {
  if (!peer.name.includes(process.argv[2] ?? '')) continue;
  const without = peer.missing();
  if (without !== undefined) {
    process.stdout.write(`| ${peer.name} | skipped: ${without} | | | | |\n`);
    continue;
  }
  try {
    process.stdout.write(`${await measure(peer, program, join(folder, `peer-${index}`))}\n`);
  } catch (error) {
    process.exitCode = 1;
    process.stdout.write(`| ${peer.name} | failed: ${String(error)} | | | | |\n`);
  }
}
process.exit();
