// Hours of a household in which everything goes wrong, compressed: `npm run soak -- --minutes 30`. Nodes publish
// while the uplink flaps, throttles, hangs and lies, the process is killed, stopped and frozen, its clock is set
// hours and weeks off, and its card fills up. At the end the weather clears, and the ledger of everything that was
// acknowledged is compared with what lies in a real database. Ends with 1 when anything is missing or wrong.
//
// Not a power cut: that is `npm run test:powercut`. Without root there is no card to fill, without libfaketime no
// clock to set; the report says so.

import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { connect } from 'mqtt';
import { type Child, runCommand, startChild, temporaryFolder, waitFor } from '../../bench/children.ts';
import { loopCardMissing, mountLoopCard } from '../../bench/loop-card.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { commandPath } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { isSounding, makeLed } from '../support/led.ts';
import { fakeClockPath, SoakGateway } from './gateway.ts';
import { type ClockSetting, type Findings, reconcile } from './ledger.ts';
import { SoakNode } from './nodes.ts';
import { reportText } from './report.ts';
import { Uplink, type Weather, weathers } from './uplink.ts';

const { values: given } = parseArgs({
  options: { minutes: { type: 'string' }, seed: { type: 'string' }, report: { type: 'string' } },
});
const minutes = Number(given.minutes ?? 30);
const seed = Number(given.seed ?? Date.now() % 1_000_000);
const random = seededRandom(seed);

const hourS = 3600;
// VictoriaMetrics drops what lies more than two days ahead.
const clockOffsetsS = [0, hourS, -hourS, 36 * hourS, -20 * 24 * hourS, 5, -5];
const cardBytes = 512 * 1024 * 1024;
// Not how fast an alarm is (bench/alarm-latency.ts measures that) but whether it waited for a disk or an uplink.
const alarmPatienceMs = 5000;
const settlePatienceMs = 180_000;

function note(text: string): void {
  process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`);
}

function pick<T>(choices: readonly T[]): T {
  const chosen = choices[Math.floor(random() * choices.length)];
  if (chosen === undefined) throw new Error('nothing to pick from');
  return chosen;
}

function between(min: number, max: number): number {
  return min + random() * (max - min);
}

if (commandPath('victoria-metrics') === undefined) throw new Error('needs Debian package victoria-metrics');
const folder = temporaryFolder('soak');
const cardMissing = loopCardMissing();
const card = cardMissing === undefined ? (await mountLoopCard(folder, cardBytes)).mount : undefined;
const fakeClock = fakeClockPath();
const faults = new Map<string, number>();
const wrong: string[] = [];
const healthSeen = new Map<string, number>();
const clockSettings: ClockSetting[] = [{ fromMs: 0, offsetMs: 0 }];
/** Forced on the uplink while the card is full: only then does the ring run full too. */
let stuckWeather: Weather | undefined;
let memoryMaxMb = 0;
let lastDisturbedMs = 0;
let alarms = 0;
let judgedAlarms = 0;
let slowestAlarmMs = 0;

function happened(fault: string): void {
  faults.set(fault, (faults.get(fault) ?? 0) + 1);
}

/** From now on for a while nobody can expect an answer within two seconds. */
function disturb(): void {
  lastDisturbedMs = performance.now();
}

async function startDatabase(port: number): Promise<Child> {
  const child = startChild(commandPath('victoria-metrics') ?? '', [
    `-storageDataPath=${join(folder, 'database')}`,
    `-httpListenAddr=127.0.0.1:${port}`,
    '-retentionPeriod=100y',
    '-search.disableCache',
    '-search.latencyOffset=0s',
    '-memory.allowedPercent=10',
    '-loggerLevel=ERROR',
  ]);
  const probe = async (): Promise<true | undefined> => {
    const answer = await fetch(`http://127.0.0.1:${port}/health`).catch(() => undefined);
    return answer?.ok ? true : undefined;
  };
  await waitFor('the database', probe, { child });
  return child;
}

const databasePort = await freePort();
const databaseUrl = `http://127.0.0.1:${databasePort}`;
let database = await startDatabase(databasePort);
const uplink = await Uplink.start(databaseUrl);
const led = makeLed(folder);
const mqttPort = await freePort();
const gateway = new SoakGateway({
  folder,
  dataDir: join(card ?? folder, 'data'),
  mqttPort,
  httpPort: await freePort(),
  influxUrl: uplink.url,
  led,
  fakeClock,
});

async function addDevice(deviceId: string): Promise<string> {
  const { api_key } = (await gateway.operate('devices.add', { device_id: deviceId })) as { api_key: string };
  return api_key;
}

await gateway.start();
const beganMs = performance.now();
const startMs = Date.now() - 40 * 24 * hourS * 1000;
// A step of the clock begins another measurement: a database that keeps milliseconds would take the same
// millisecond lived twice for the same point.
let driftEpoch = 0;
const nodes: SoakNode[] = [];
for (let index = 0; index < 12; index += 1) {
  const hasClock = index < 8;
  const deviceId = `${hasClock ? 'meter' : 'bare'}-${index}`;
  nodes.push(
    SoakNode.start({
      port: mqttPort,
      deviceId,
      apiKey: await addDevice(deviceId),
      window: index % 4 === 0 ? 10 : 1,
      pauseMs: index % 4 === 0 ? 500 : 100,
      qos: index % 3 === 0 ? 2 : 1,
      measurement: () => (hasClock ? 'soak' : `drift${driftEpoch}`),
      payload: (n) =>
        JSON.stringify(hasClock ? { n, timestamp: startMs + n, boot: 1, seq: n } : { n, boot: 1, seq: n }),
    }),
  );
}
const poisoner = SoakNode.start({
  port: mqttPort,
  deviceId: 'poisoner',
  apiKey: await addDevice('poisoner'),
  window: 1,
  pauseMs: 700,
  qos: 1,
  measurement: (n) => (n % 3 === 0 ? 'poison' : 'soak'),
  payload: (n) => (n % 3 === 1 ? `{"n":${n}` : JSON.stringify(n % 3 === 2 ? { n: `text ${n}` } : { n })),
});
const probes: [deviceId: string, apiKey: string][] = [];
for (let index = 0; index < minutes * 6; index += 1) {
  probes.push([`leak-${index}`, await addDevice(`leak-${index}`)]);
}

const endMs = performance.now() + minutes * 60_000;
const isOver = (): boolean => performance.now() >= endMs;
async function pause(minMs: number, maxMs: number): Promise<void> {
  await sleep(Math.min(between(minMs, maxMs), Math.max(0, endMs - performance.now())));
}

async function weatherLoop(): Promise<void> {
  while (!isOver()) {
    const next: Weather = stuckWeather ?? (random() < 0.4 ? 'clear' : pick(weathers));
    await uplink.change(next);
    note(`uplink ${next}`);
    if (next !== 'clear') happened(`uplink ${next}`);
    // Now and then long enough that the ring overflows into blocks.
    await pause(2_000, random() < 0.15 ? 60_000 : 10_000);
  }
}

async function lifeLoop(): Promise<void> {
  while (!isOver()) {
    await pause(8_000, 30_000);
    if (isOver()) return;
    const way = random();
    disturb();
    if (way < 0.2) {
      happened('frozen for 3 s');
      gateway.freeze();
      await sleep(3000);
      gateway.thaw();
    } else {
      if (way < 0.8) {
        happened('kill -9');
        await gateway.kill();
      } else {
        happened('clean restart');
        const code = await gateway.stop();
        if (code !== 0) wrong.push(`a clean stop ended with ${code}`);
      }
      await sleep(between(0, 1500));
      await gateway.start();
    }
    disturb();
  }
}

async function clockLoop(): Promise<void> {
  if (fakeClock === undefined) return;
  while (!isOver()) {
    await pause(10_000, 40_000);
    if (isOver()) return;
    setClock(random() < 0.35 ? 0 : pick(clockOffsetsS));
  }
}

function setClock(offsetS: number): void {
  happened('clock set');
  note(`clock ${offsetS} s off`);
  driftEpoch += 1;
  clockSettings.push({ fromMs: Date.now(), offsetMs: offsetS * 1000 });
  gateway.setClock(offsetS);
}

async function cardLoop(): Promise<void> {
  if (card === undefined) return;
  while (!isOver()) {
    await pause(15_000, 60_000);
    if (isOver()) return;
    const isLong = random() < 0.5;
    happened(isLong ? 'card full and uplink down' : 'card full');
    disturb();
    if (isLong) {
      stuckWeather = 'unavailable';
      await uplink.change(stuckWeather);
    }
    await fillCard(card);
    disturb();
    await pause(isLong ? 40_000 : 3_000, isLong ? 80_000 : 25_000);
    emptyCard(card);
    stuckWeather = undefined;
  }
}

async function fillCard(mount: string): Promise<void> {
  const free = Number((await runCommand('df', ['--output=avail', '-B1', mount])).split('\n')[1]);
  await runCommand('fallocate', ['-l', String(Math.max(4096, free - 2 ** 20)), join(mount, 'ballast')]).catch(
    () => undefined,
  );
  try {
    for (let at = 0; at < 4096; at += 1) writeFileSync(join(mount, `ballast-${at}`), Buffer.alloc(4096, 1));
  } catch {
    // Full to the last block.
  }
}

function emptyCard(mount: string): void {
  for (const name of readdirSync(mount)) {
    if (name.startsWith('ballast')) rmSync(join(mount, name), { force: true });
  }
}

async function radioLoop(): Promise<void> {
  while (!isOver()) {
    await pause(500, 6_000);
    happened('connection of a node cut');
    pick(nodes).drop();
  }
}

async function databaseLoop(): Promise<void> {
  while (!isOver()) {
    await pause(60_000, 180_000);
    if (isOver()) return;
    // With time to save what it acknowledged: its own losses are not ours to judge.
    happened('database restarted');
    await database.stop(60_000);
    await pause(0, 4_000);
    database = await startDatabase(databasePort);
  }
}

async function alarmLoop(): Promise<void> {
  while (!isOver()) {
    await pause(7_000, 12_000);
    const probe = probes.pop();
    if (probe === undefined || isOver()) return;
    await soundAlarm(...probe);
  }
}

async function soundAlarm(deviceId: string, apiKey: string): Promise<void> {
  const client = connect(`mqtt://127.0.0.1:${mqttPort}`, {
    username: deviceId,
    password: apiKey,
    reconnectPeriod: 200,
    connectTimeout: 3000,
  });
  client.on('error', () => undefined);
  alarms += 1;
  const sentMs = performance.now();
  // QoS 1 comes again after a kill; on a full card its acknowledgement may wait, the sound may not.
  client.publish(`iotflow/devices/${deviceId}/telemetry/leak`, '{"wet": true}', { qos: 1 });
  await waitFor('the buzzer', () => (isSounding(led) ? true : undefined), { timeoutMs: 60_000, everyMs: 5 });
  const tookMs = performance.now() - sentMs;
  if (sentMs - lastDisturbedMs > 2_000 && lastDisturbedMs < sentMs) {
    judgedAlarms += 1;
    slowestAlarmMs = Math.max(slowestAlarmMs, tookMs);
    if (tookMs > alarmPatienceMs) wrong.push(`an alarm took ${Math.round(tookMs)} ms to sound`);
  }
  await waitFor('quiet after acknowledging', async () => {
    await gateway.operate('alarms.acknowledge', { by: 'soak' }).catch(() => undefined);
    await sleep(100);
    return isSounding(led) ? undefined : true;
  });
  client.end(true);
}

async function watchLoop(): Promise<void> {
  while (!isOver()) {
    memoryMaxMb = Math.max(memoryMaxMb, gateway.memoryMb() ?? 0);
    for (const reason of (await gateway.health()) ?? []) {
      healthSeen.set(reason, (healthSeen.get(reason) ?? 0) + 1);
    }
    await sleep(1000);
  }
}

async function progressLoop(): Promise<void> {
  while (!isOver()) {
    await pause(30_000, 30_000);
    const acknowledged = nodes.reduce((sum, node) => sum + node.acknowledged, 0);
    const left = Math.max(0, Math.round((endMs - performance.now()) / 1000));
    note(`${left} s left, ${acknowledged} acknowledged, ${memoryMaxMb.toFixed(0)} MB at most`);
  }
}

note(`seed ${seed}, ${minutes} min, card ${card ?? `none: ${cardMissing}`}, clock ${fakeClock ?? 'none'}`);
await Promise.all([
  weatherLoop(),
  lifeLoop(),
  clockLoop(),
  cardLoop(),
  radioLoop(),
  databaseLoop(),
  alarmLoop(),
  watchLoop(),
  progressLoop(),
]);

note('the weather clears');
await uplink.change('clear');
if (card !== undefined) emptyCard(card);
if (fakeClock !== undefined) setClock(0);
const everyone = [...nodes, poisoner];
for (const node of everyone) node.stop();
const settled = (): true | undefined => (everyone.every((node) => node.isSettled) ? true : undefined);
await waitFor('the last acknowledgements', settled, { timeoutMs: settlePatienceMs });
const calmMs = performance.now();
await waitFor(
  'an empty backlog',
  async () => {
    const waiting = await gateway.metric(/^iotflow_journal_backlog_points\{/).catch(() => Number.NaN);
    return waiting === 0 ? true : undefined;
  },
  { timeoutMs: settlePatienceMs, everyMs: 500 },
);
const drainedMs = performance.now() - calmMs;
const healthAtEnd = (await gateway.health()) ?? ['no answer'];
const letters = await gateway.metric(/^iotflow_dead_letters /);
const dropped = await gateway.metric(/^iotflow_journal_dropped_points_total\{/);
if (letters < poisoner.acknowledged) {
  wrong.push(`${poisoner.acknowledged} poisonous messages acknowledged, ${letters} dead letters`);
}
if (dropped > 0) wrong.push(`${dropped} points dropped`);
const findings: Findings = await reconcile(databaseUrl, nodes, startMs, clockSettings);
if (findings.missing.length > 0) {
  wrong.push(`${findings.missing.length} acknowledged and not in the database`);
}
if (findings.invented > 0) wrong.push(`${findings.invented} values in the database that nobody sent`);
if (findings.wrongTimes.length > 0) {
  wrong.push(
    `${findings.wrongTimes.length} with a wrong time: ${findings.wrongTimes.slice(0, 5).join('; ')}`,
  );
}
if ((await gateway.stop()) !== 0) wrong.push('the last stop was not clean');
for (const node of everyone) await node.close();
await uplink.close();

const text = reportText({
  minutes: (performance.now() - beganMs) / 60_000,
  seed,
  faults: [...faults].sort(([a], [b]) => (a < b ? -1 : 1)),
  starts: gateway.starts,
  slowestStartMs: gateway.slowestStartMs,
  memoryMaxMb,
  findings,
  poisonous: poisoner.acknowledged,
  letters,
  alarms,
  judgedAlarms,
  slowestAlarmMs,
  drainedMs,
  healthSeen: [...healthSeen.keys()].sort(),
  healthAtEnd,
  remarks: [
    ...(card === undefined ? [`no card was filled: needs ${cardMissing}`] : []),
    ...(fakeClock === undefined ? ['no clock was set: needs Debian package faketime'] : []),
  ],
  wrong,
});
process.stdout.write(text);
if (given.report !== undefined) writeFileSync(given.report, text);
process.exit(wrong.length === 0 ? 0 : 1);
