// From a node's wet report to the buzzer, measured from outside: from the moment the PUBLISH is written to a socket
// to the moment inotify tells of the LED's `brightness`. In three states of the gateway: at rest, while a backlog
// drains into VictoriaMetrics, and while it drains and every flush of the disk hangs for two seconds at a time.
// After each alarm the same watch is timed on a file the bench writes itself: that is what watching adds.

import { type FSWatcher, mkdirSync, mkdtempSync, readFileSync, rmSync, watch, writeFileSync } from 'node:fs';
import type { Socket } from 'node:net';
import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { freePort } from '../test/support/free-port.ts';
import { emptyBacklog, fieldsPerLine, fillBacklog } from './backlog.ts';
import { atExit, temporaryFolder, waitFor } from './children.ts';
import {
  type Goal,
  type Latencies,
  latenciesOf,
  milliseconds,
  progress,
  type Section,
  sectionText,
  thousands,
} from './figures.ts';
import { openConnection, publishPacket, startLoad } from './mqtt-load.ts';
import { type Gateway, gatewayMissing, startGateway } from './peers/iotflow.ts';
import { type Sink, startVictoriaMetrics, victoriaMetricsMissing } from './peers/victoria-metrics.ts';
import { mountStalledDisk, type StalledDisk, stalledDiskMissing } from './stalled-disk/stalled-disk.ts';

const alarmsPerState = Number(process.env.BENCH_ALARMS ?? 200);
const backlogPoints = Number(process.env.BENCH_ALARM_BACKLOG ?? 8_000_000);
const liveRate = 200;
const stallMs = 2_000;
const breathMs = 1_000;
/** The gateway takes two hundred connections from one address, and there is a load besides. */
const nodesConnected = 100;
/** The control socket takes sixteen connections. */
const confirmationsMax = 12;
/** An alarm not heard by then counts as this late, and is told. */
const lostMs = 10_000;

export interface Alarm {
  readonly latencyMs: number;
  readonly watchMs: number;
  readonly wasStalled: boolean;
  readonly wasDraining: boolean;
}

interface State {
  readonly name: string;
  readonly alarms: readonly Alarm[];
  readonly gatewaysOwn: string;
}

export async function measureAlarmLatency(): Promise<Section> {
  const missing = gatewayMissing();
  if (missing !== undefined) return report([], [`skipped: alarm latency (needs ${missing})`]);
  const states: State[] = [await atRest()];
  const remarks: string[] = [];
  const sinkMissing = victoriaMetricsMissing();
  if (sinkMissing !== undefined) {
    remarks.push(`skipped: while a backlog drains (needs ${sinkMissing})`);
    return report(states, remarks);
  }
  states.push(await whileDraining('a backlog drains', undefined));
  const diskMissing = stalledDiskMissing();
  if (diskMissing !== undefined) {
    remarks.push(`skipped: while the disk stalls (needs ${diskMissing})`);
    return report(states, remarks);
  }
  const disk = await mountStalledDisk();
  try {
    states.push(await whileDraining('a backlog drains, the disk stalls', disk));
  } finally {
    await disk.unmount();
  }
  return report(states, remarks);
}

async function atRest(): Promise<State> {
  const led = new WatchedLed();
  const gateway = await startGateway(temporaryFolder('alarm'), { buzzerLed: led.folder });
  try {
    const alarms = await soundAlarms(gateway, led, await enrolNodes(gateway), {
      isStalled: () => false,
      isDraining: async () => false,
    });
    return { name: 'at rest', alarms, gatewaysOwn: await ownHistogram(gateway) };
  } finally {
    led.close();
    await gateway.stop();
  }
}

async function whileDraining(name: string, disk: StalledDisk | undefined): Promise<State> {
  progress(`${name}: filling the backlog`);
  const led = new WatchedLed();
  const sinkFolder = temporaryFolder('sink');
  const sinkPort = await freePort();
  const gateway = await startGateway(temporaryFolder('alarm'), {
    buzzerLed: led.folder,
    influxUrl: `http://127.0.0.1:${sinkPort}`,
    ...(disk === undefined ? {} : { dataDir: join(disk.folder, 'data') }),
  });
  let sink: Sink | undefined;
  const stalls = disk === undefined ? undefined : new Stalls(disk);
  try {
    const publishers = await gateway.publishers(10);
    const nodes = await enrolNodes(gateway);
    await fillBacklog(gateway.port, publishers, emptyBacklog(), backlogPoints);
    const started = await startVictoriaMetrics(sinkFolder, sinkPort);
    sink = started;
    await waitFor('the drain', async () => ((await started.valuesInserted()) > 0 ? true : undefined), {
      timeoutMs: 180_000,
    });
    const live = startLoad({
      port: gateway.port,
      publishers,
      window: 1_000,
      messages: 10_000_000,
      rate: liveRate,
      firstTimestampMs: Date.now() - 3_600_000,
      timeoutMs: 1_800_000,
    });
    stalls?.begin();
    const alarms = await soundAlarms(gateway, led, nodes, {
      isStalled: () => stalls?.isStalled ?? false,
      isDraining: async () => (await started.valuesInserted()) < backlogPoints * fieldsPerLine,
    });
    await stalls?.end();
    live.stop();
    const { acknowledged, ackLatency } = await live.report;
    progress(
      `  live load: ${thousands(acknowledged)} acknowledged, p99 ${milliseconds(ackLatency.p99Ms)} ms`,
    );
    return { name, alarms, gatewaysOwn: await ownHistogram(gateway) };
  } finally {
    await stalls?.end();
    led.close();
    await gateway.stop();
    await sink?.stop();
  }
}

/** Two seconds of hanging flushes, one second of breath, over and over. */
class Stalls {
  readonly #disk: StalledDisk;
  #timer: NodeJS.Timeout | undefined;
  #isStalled = false;

  constructor(disk: StalledDisk) {
    this.#disk = disk;
  }

  get isStalled(): boolean {
    return this.#isStalled;
  }

  begin(): void {
    this.#disk.stall();
    this.#isStalled = true;
    this.#timer = setTimeout(() => {
      this.#release();
      this.#timer = setTimeout(() => this.begin(), breathMs);
    }, stallMs);
  }

  async end(): Promise<void> {
    clearTimeout(this.#timer);
    this.#release();
  }

  #release(): void {
    this.#disk.release();
    this.#isStalled = false;
  }
}

/** A directory like the kernel's LED class, in memory as sysfs is, with somebody looking at it. */
export class WatchedLed {
  readonly folder: string;
  readonly #watcher: FSWatcher;
  #waiting: { readonly file: string; readonly content: string; resolve(atMs: number): void } | undefined;

  constructor() {
    this.folder = mkdtempSync('/dev/shm/iotflow-bench-led-');
    atExit(() => rmSync(this.folder, { recursive: true, force: true }));
    mkdirSync(this.folder, { recursive: true });
    for (const [name, content] of [
      ['brightness', '0\n'],
      ['max_brightness', '1\n'],
      ['trigger', '[none] timer pattern\n'],
      ['pattern', '\n'],
      ['control', '0\n'],
    ] as const) {
      writeFileSync(join(this.folder, name), content);
    }
    this.#watcher = watch(this.folder, (_event, file) => {
      const nowMs = performance.now();
      const waiting = this.#waiting;
      if (waiting === undefined || file !== waiting.file) return;
      if (!readFileSync(join(this.folder, waiting.file), 'utf8').startsWith(waiting.content)) return;
      this.#waiting = undefined;
      waiting.resolve(nowMs);
    });
  }

  /** When the file was seen to begin with `content`; `lostMs` from now if it was not seen by then. */
  async seen(file: string, content: string): Promise<number> {
    const giveUp = new AbortController();
    const startedAt = performance.now();
    const seen = new Promise<number>((resolve) => {
      this.#waiting = { file, content, resolve };
    });
    const lost = sleep(lostMs, startedAt + lostMs, { signal: giveUp.signal }).catch(() => startedAt + lostMs);
    const atMs = await Promise.race([seen, lost]);
    giveUp.abort();
    this.#waiting = undefined;
    return atMs;
  }

  /** What the watch itself takes, just now. */
  async timeWatch(): Promise<number> {
    const seen = this.seen('control', '1');
    const path = join(this.folder, 'control');
    const wroteAt = performance.now();
    writeFileSync(path, '1\n', { flag: 'r+' });
    const took = (await seen) - wroteAt;
    writeFileSync(path, '0\n', { flag: 'r+' });
    return took;
  }

  close(): void {
    this.#watcher.close();
  }
}

export interface Surroundings {
  isStalled(): boolean;
  /** Whether part of the backlog has not reached the sink yet. */
  isDraining(): Promise<boolean>;
}

export interface Node {
  readonly deviceId: string;
  readonly password: string;
}

/** Every alarm comes from a node of its own, because a wet one that is acknowledged stays wet for the gateway. */
export async function enrolNodes(gateway: Gateway): Promise<Node[]> {
  const nodes: Node[] = [];
  for (let index = 0; index < alarmsPerState; index += 1) {
    const deviceId = `leak-${index}`;
    const answer = await gateway.operate('devices.add', { device_id: deviceId });
    nodes.push({ deviceId, password: (answer as { api_key: string }).api_key });
  }
  return nodes;
}

export async function soundAlarms(
  gateway: Gateway,
  led: WatchedLed,
  nodes: readonly Node[],
  around: Surroundings,
): Promise<Alarm[]> {
  const alarms: Alarm[] = [];
  for (let first = 0; first < nodes.length; first += nodesConnected) {
    const sockets = new Map<string, Socket>();
    for (const { deviceId, password } of nodes.slice(first, first + nodesConnected)) {
      const account = { clientId: deviceId, username: deviceId, password };
      const socket = await openConnection(gateway.port, account);
      socket.on('error', () => undefined).resume();
      sockets.set(deviceId, socket);
    }
    alarms.push(...(await soundConnected(gateway, led, sockets, around)));
    for (const socket of sockets.values()) socket.destroy();
  }
  return alarms;
}

async function soundConnected(
  gateway: Gateway,
  led: WatchedLed,
  sockets: ReadonlyMap<string, Socket>,
  around: Surroundings,
): Promise<Alarm[]> {
  const alarms: Alarm[] = [];
  const confirmations: Promise<unknown>[] = [];
  let index = 0;
  for (const [deviceId, socket] of sockets) {
    index += 1;
    // Spread over the stalls and the drain's batches, the same way in every run.
    await sleep((index * 37) % 60);

    const wasStalled = around.isStalled();
    const heard = led.seen('brightness', '1');
    const packet = publishPacket(`iotflow/devices/${deviceId}/telemetry/leak`, '{"wet":true}', 1);
    const publishedAt = performance.now();
    socket.write(packet);
    const latencyMs = (await heard) - publishedAt;

    const silent = led.seen('brightness', '0');
    // Silence comes at once, its confirmation only when durable: on a stalled disk that is later.
    confirmations.push(gateway.operate('alarms.acknowledge').catch((error: unknown) => error));
    await confirmations.at(-confirmationsMax);
    await silent;
    const watchMs = await led.timeWatch();
    alarms.push({ latencyMs, watchMs, wasStalled, wasDraining: await around.isDraining() });
  }
  const refused = (await Promise.all(confirmations)).filter((answer) => answer instanceof Error);
  if (refused.length > 0)
    throw new Error(`${refused.length} acknowledgements refused: ${String(refused[0])}`);
  return alarms;
}

/** The bucket the 99th percentile of the gateway's own measurement falls in, from /metrics. */
async function ownHistogram(gateway: Gateway): Promise<string> {
  const metrics = await gateway.metrics();
  const buckets = [...metrics.matchAll(/^\w*alarm_latency\w*_bucket\{.*le="([^"]+)".*\} (\d+)$/gm)].map(
    (match) => ({
      le: match[1] ?? '',
      count: Number(match[2]),
    }),
  );
  const total = buckets.at(-1)?.count ?? 0;
  const found = buckets.find(({ count }) => count >= total * 0.99);
  return total === 0 ? '–' : `p99 ≤ ${found?.le} s of ${total}`;
}

function report(states: readonly State[], remarks: readonly string[]): Section {
  const rows: string[][] = [];
  const goals: Goal[] = [];
  const watching = latenciesOf(
    Float64Array.from(states.flatMap(({ alarms }) => alarms.map(({ watchMs }) => watchMs))),
  );
  const add = (name: string, alarms: readonly Alarm[], own: string): Latencies => {
    const latencies = latenciesOf(Float64Array.from(alarms, ({ latencyMs }) => latencyMs));
    const draining = alarms.filter(({ wasDraining }) => wasDraining).length;
    rows.push([
      name,
      String(latencies.count),
      String(draining),
      milliseconds(latencies.p50Ms),
      milliseconds(latencies.p99Ms),
      milliseconds(latencies.maxMs),
      own,
    ]);
    return latencies;
  };
  for (const { name, alarms, gatewaysOwn } of states) {
    const latencies = add(name, alarms, gatewaysOwn);
    const stalled = alarms.filter(({ wasStalled }) => wasStalled);
    if (stalled.length > 0) add(`… of these, published while a flush hung`, stalled, '');
    goals.push({
      name: `wet → buzzer p99, ${name}`,
      measured: `${milliseconds(latencies.p99Ms)} ms`,
      wanted: '< 20 ms',
      met: latencies.p99Ms < 20,
    });
  }
  return {
    title: 'From a wet report to the buzzer',
    header: ['state', 'alarms', 'while draining', 'p50 ms', 'p99 ms', 'max ms', "the gateway's own figure"],
    rows,
    goals,
    remarks: [
      `of these, the watch itself: p50 ${milliseconds(watching.p50Ms)}, p99 ${milliseconds(watching.p99Ms)} ms ` +
        '(a file written by the bench, seen by the same watch, after each alarm)',
      `backlog of ${thousands(backlogPoints)} points, ${liveRate} msg/s of live telemetry beside it; the stalled ` +
        `disk hangs in every flush for ${stallMs} ms, with ${breathMs} ms between`,
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url))
  process.stdout.write(sectionText(await measureAlarmLatency()));
