// Opens what a cut left and compares it with the ledger: in a gateway of this process, or in one of its own. As a
// program it is a worker of the suite that takes one folder after the other.

import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync, type MqttClient } from 'mqtt';
import { runCommand } from '../../bench/children.ts';
import { loadConfig } from '../../src/config/load.ts';
import { Gateway } from '../../src/gateway.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { awayId } from './clients.ts';
import {
  configText,
  type Figures,
  type GatewaySettings,
  gatewayReady,
  givenUp,
  spawnGateway,
} from './gateway.ts';
import { type Expectation, numbersOf, runsOf, type Verdict } from './ledger.ts';
import { type Reading, Uplink } from './uplink.ts';

/** What is asked of a gateway, however it runs. */
interface Opened {
  readonly port: number;
  figures(): Promise<Figures>;
  commands(deviceId: string): Promise<CommandList>;
  close(): Promise<void>;
}

interface CommandList {
  readonly commands: readonly { readonly payload: { readonly n: number }; readonly state: string }[];
}

const drainMs = 60_000;
/** For messages that must come; those that must not are not waited for. */
const messagesMs = 5_000;

async function openHere(settings: GatewaySettings): Promise<Opened> {
  const loaded = loadConfig({ text: configText(settings), env: {} });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  const gateway = await Gateway.open({
    config: loaded.config,
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    version: '0.0.0',
  });
  return {
    port: gateway.ports.mqtt ?? 0,
    figures: async () => gateway.figures(),
    commands: async (deviceId) =>
      (await gateway.operations.get('commands.list')?.({ device_id: deviceId })) as CommandList,
    close: () => gateway.close(),
  };
}

async function openProcess(mainJs: string, settings: GatewaySettings): Promise<Opened> {
  const child = spawnGateway(mainJs, settings);
  const { port, figures, operate } = await gatewayReady(child, settings);
  const commands = async (deviceId: string) =>
    (await operate('commands.list', { device_id: deviceId })) as CommandList;
  return { port, figures, commands, close: () => child.stop() };
}

function damageIn({ journal, state, registry }: Figures): string[] {
  const counts = {
    'quarantined regions': journal.quarantined.segments,
    'quarantined points': journal.quarantined.points,
    'lost blocks': journal.lostBlocks,
    'lost points of blocks': journal.lostBlockPoints,
    'damaged values in blocks': journal.blockStore.damagedValues,
    'repairs of blocks': journal.blockStore.repairs,
    'blocks started empty': journal.blockStore.startedEmpty,
    'damaged values in the state': state.damagedValues,
    'repairs of the state': state.repairs,
    'state started empty': state.startedEmpty,
    'damaged devices': registry.damagedRecords,
  };
  return Object.entries(counts).flatMap(([what, count]) => (count > 0 ? [`${count} ${what}`] : []));
}

function connect(port: number, deviceId: string, apiKey: string, clean = true): Promise<MqttClient> {
  return connectAsync(
    `mqtt://127.0.0.1:${port}`,
    {
      clientId: deviceId,
      username: deviceId,
      password: apiKey,
      clean,
      reconnectPeriod: 0,
      connectTimeout: 20_000,
    },
    false,
  );
}

async function within(ms: number, isDone: () => boolean | Promise<boolean>): Promise<boolean> {
  const untilMs = performance.now() + ms;
  while (!(await isDone())) {
    if (performance.now() > untilMs) return false;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  return true;
}

/** `folder` holds `image`, the disk as the cut left it, and `expect.json`. */
export async function checkCut(folder: string, mainJs: string | undefined): Promise<Verdict> {
  const expected = JSON.parse(readFileSync(join(folder, 'expect.json'), 'utf8')) as Expectation;
  const lost: string[] = [];
  const wrong: string[] = [];
  const readings: Reading[] = [];
  const uplink = await Uplink.start(
    (reading) => readings.push(reading),
    (line) => wrong.push(`the line ${line}`),
  );
  const damage: string[] = [];
  const startNs = performance.now();
  // On a copy: what the cut left stays as it is, to be looked at or lived on from.
  const copy = join(folder, 'opened');
  await runCommand('cp', ['-a', '--sparse=always', join(folder, 'image'), copy]);
  const dataDir = join(copy, 'data');
  const settings = { dataDir, influxUrl: uplink.url, ringSegments: expected.ringSegments };
  let opened: Opened;
  try {
    opened = mainJs === undefined ? await openHere(settings) : await openProcess(mainJs, settings);
  } catch (error) {
    await uplink.close();
    rmSync(copy, { recursive: true, force: true });
    const because = error instanceof Error ? `${error.message} ${String(error.cause ?? '')}` : String(error);
    return {
      lost: [`everything: the gateway does not open: ${because}`],
      wrong,
      damage,
      found: [],
      repairs: 0,
      owed: 0,
      openMs: 0,
      drainMs: 0,
    };
  }
  const openMs = performance.now() - startNs;
  const first = await opened.figures();
  // LevelDB does not sync its first manifest before it names it in CURRENT. Of a store nothing was ever written to
  // nothing can be lost, but it is repaired, and says so.
  damage.push(
    ...damageIn(first).filter((what) => expected.kind !== 'first start' || !what.includes('repairs of')),
  );

  await checkClients(opened, expected, first, lost, wrong);
  const { deviceId: valve } = expected.commands;
  if (expected.accounts.some(({ deviceId }) => deviceId === valve)) {
    const list = await opened.commands(valve).catch(() => ({ commands: [] }));
    checkCommands(list, expected, lost, wrong);
  }
  const isDrained = await within(drainMs, async () => {
    const { pending } = (await opened.figures()).journal;
    return pending.urgent + pending.fresh + pending.backlog === 0;
  });
  if (!isDrained) lost.push(`what is still not delivered after ${drainMs} ms`);
  const last = await opened.figures();
  const allDrainMs = performance.now() - startNs - openMs;
  for (const damaged of damageIn(last))
    if (!damageIn(first).includes(damaged)) damage.push(`${damaged}, while draining`);
  const dropped = expected.dropped + givenUp(last);
  await opened.close();
  await uplink.close();
  if (expected.authority !== undefined) {
    const authority = readFileSync(join(dataDir, 'tls', 'ca.crt'), 'utf8');
    if (authority !== expected.authority) lost.push('the authority devices were told to trust');
  }
  rmSync(copy, { recursive: true, force: true });
  const { found, owed } = checkTelemetry(readings, expected, dropped, lost, wrong);
  const repairs = last.journal.blockStore.repairs + last.state.repairs;
  return { lost, wrong, damage, found, repairs, owed, openMs, drainMs: allDrainMs };
}

async function checkClients(
  { port }: Opened,
  expected: Expectation,
  figures: Figures,
  lost: string[],
  wrong: string[],
): Promise<void> {
  const { letters } = figures.journal.deadLetters;
  if (letters < expected.letters.least) lost.push(`${expected.letters.least - letters} dead letters`);
  if (letters > expected.letters.most) wrong.push(`${letters} dead letters of ${expected.letters.most} sent`);
  for (const id of expected.wet) {
    if (!figures.alarms.list.some((alarm) => alarm.id === `wet/${id}`)) lost.push(`the alarm wet/${id}`);
  }
  for (const { deviceId, apiKey } of expected.accounts) {
    if (deviceId === awayId) continue;
    try {
      await (await connect(port, deviceId, apiKey)).endAsync(true);
    } catch (error) {
      lost.push(`the device ${deviceId}: ${error instanceof Error ? error.message : String(error)}`);
    }
  }
  const away = expected.accounts.find(({ deviceId }) => deviceId === awayId);
  if (away === undefined) return;
  // The session first: what is retained must not be taken for it.
  const levels = new Map<string, number>();
  const notes = new Set<number>();
  let hasSession = false;
  const subscriber = connectWithSession(port, away.apiKey, (topic, n) => {
    if (topic.endsWith('/note')) notes.add(n);
    else levels.set(topic, n);
  });
  const client = await subscriber.connected.catch((error: unknown) => {
    lost.push(`the login of the subscriber: ${String(error)}`);
    return undefined;
  });
  if (client === undefined) return;
  hasSession = subscriber.hasSession();
  if (expected.queue !== undefined) {
    if (!hasSession) lost.push('the session of the subscriber');
    const owed = [...numbersOf(expected.queue.owed)];
    await within(messagesMs, () => owed.every((n) => notes.has(n)));
    const missing = owed.filter((n) => !notes.has(n));
    if (missing.length > 0) lost.push(`${missing.length} queued messages (${rangesOf(missing)})`);
  }
  await client.subscribeAsync('iotflow/devices/+/status/level', { qos: 1 });
  await within(messagesMs, () =>
    expected.retained.every(({ topic, least }) => (levels.get(topic) ?? 0) >= least),
  );
  for (const { topic, least, most } of expected.retained) {
    const n = levels.get(topic) ?? 0;
    if (n < least) lost.push(`retained ${topic}: ${n} instead of ${least}`);
    if (n > most) wrong.push(`retained ${topic}: ${n}, but ${most} was the last one sent`);
  }
  await client.endAsync(true);
}

function checkCommands(
  { commands }: CommandList,
  { commands: { owed, done, sent } }: Expectation,
  lost: string[],
  wrong: string[],
): void {
  const states = new Map(commands.map(({ payload, state }) => [payload.n, state]));
  const gone = [...numbersOf(owed)].filter((n) => !states.has(n));
  if (gone.length > 0) lost.push(`${gone.length} commands (${rangesOf(gone)})`);
  const undone = [...numbersOf(done)].filter((n) => states.get(n) !== 'acknowledged');
  if (undone.length > 0) lost.push(`${undone.length} answers to commands (${rangesOf(undone)})`);
  const strange = commands.filter(({ payload }) => payload.n > sent).length;
  const copies = commands.length - states.size;
  if (strange + copies > 0) wrong.push(`${strange} commands that were never given, ${copies} twice`);
}

/** Messages of a session follow CONNACK at once: the listener is there before. */
function connectWithSession(
  port: number,
  apiKey: string,
  onMessage: (topic: string, n: number) => void,
): { readonly connected: Promise<MqttClient>; hasSession(): boolean } {
  let isPresent = false;
  const connected = import('mqtt').then(({ connect: open }) => {
    const client = open(`mqtt://127.0.0.1:${port}`, {
      clientId: awayId,
      username: awayId,
      password: apiKey,
      clean: false,
      reconnectPeriod: 0,
      connectTimeout: 20_000,
    });
    client.on('message', (topic, payload) =>
      onMessage(topic, Number(/"n":(\d+)/.exec(payload.toString())?.[1])),
    );
    return new Promise<MqttClient>((resolve, reject) => {
      client.once('error', reject);
      client.once('connect', ({ sessionPresent }) => {
        isPresent = sessionPresent;
        resolve(client);
      });
    });
  });
  return { connected, hasSession: () => isPresent };
}

function checkTelemetry(
  readings: readonly Reading[],
  expected: Expectation,
  dropped: number,
  lost: string[],
  wrong: string[],
): Pick<Verdict, 'found' | 'owed'> {
  const found = new Map<string, Set<number>>();
  for (const { deviceId } of expected.telemetry) found.set(deviceId, new Set());
  for (const { deviceId, n, value, timeNs, isThinned } of readings) {
    // Thinned at the cap: counted by the gateway, and no longer anybody's reading.
    if (isThinned) continue;
    const sent = expected.telemetry.find((stream) => stream.deviceId === deviceId)?.sent ?? 0;
    const isRight = n >= 1 && value === n / 7 && timeNs === BigInt(expected.startMs + n) * 1_000_000n;
    if (!isRight || n > sent) wrong.push(`${deviceId}/${n} at ${timeNs}, ${sent} were sent`);
    else found.get(deviceId)?.add(n);
  }
  let missing = 0;
  let owed = 0;
  const words: string[] = [];
  for (const { deviceId, owed: runs } of expected.telemetry) {
    const numbers = [...numbersOf(runs)];
    owed += numbers.length;
    const gone = numbers.filter((n) => !found.get(deviceId)?.has(n));
    missing += gone.length;
    if (gone.length > 0) words.push(`${deviceId} ${rangesOf(gone)}`);
  }
  if (missing > dropped)
    lost.push(`${missing} points (${dropped} were given up at the cap): ${words.join('; ')}`);
  return {
    owed,
    found: [...found].map(([deviceId, numbers]) => ({
      deviceId,
      numbers: runsOf([...numbers].sort((a, b) => a - b)),
    })),
  };
}

function rangesOf(numbers: readonly number[]): string {
  const runs = runsOf(numbers);
  const shown = runs.slice(0, 5).map(([from, to]) => (from === to ? `${from}` : `${from}-${to}`));
  return shown.join(', ') + (runs.length > 5 ? ` and ${runs.length - 5} more` : '');
}

interface Task {
  readonly folder: string;
  readonly mainJs?: string;
}

if (process.send !== undefined && process.argv[2] === '--worker') {
  process.on('message', (task: Task) => {
    checkCut(task.folder, task.mainJs).then(
      (verdict) => process.send?.({ verdict }),
      (error: unknown) => process.send?.({ error: error instanceof Error ? error.stack : String(error) }),
    );
  });
  process.on('disconnect', () => process.exit());
}
