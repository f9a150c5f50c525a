// A hundred devices, half of them over HTTP and half over MQTT, as `iotflow simulate fleet` plays them: how long a
// write takes until it is durable, how long registering and reading take meanwhile, and that nothing is refused, lost
// or sent twice. The documents of IoTFlow give averages of their own machine; here p50 and p99 stand beside them, and
// beside a bare HTTP server under the same load, which shows what of it is the client's and Node's.

import { writeFileSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { Agent, createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type FleetDevice, fleetDevices, numbered } from '../src/simulator/presets.ts';
import { memoryOf, repositoryRoot, startChild, temporaryFolder, waitFor } from './children.ts';
import {
  type Latencies,
  latenciesOf,
  milliseconds,
  progress,
  ratio,
  type Section,
  sectionText,
} from './figures.ts';
import { type Gateway, gatewayMissing, startGateway } from './peers/iotflow.ts';
import { startVictoriaMetrics, victoriaMetricsMissing } from './peers/victoria-metrics.ts';

const deviceCount = 100;
const seconds = Number(process.env.BENCH_FLEET_SECONDS ?? 120);
/** In ms, as the documents of IoTFlow give them: averages. */
const documented = { register: 40, telemetry: 70, retrieval: 50 };
const wantedFactor = 5;
/** Requests a second in the documents. */
const documentedRate = 100;
const readsPerSecond = 10;
const flushesPerSecond = 10;

type Ms = Pick<Latencies, 'count' | 'p50Ms' | 'p99Ms'>;

interface Summary {
  readonly sent: number;
  readonly acknowledged: number;
  readonly refused: number;
  readonly unacknowledged: number;
  readonly overflowed: number;
  readonly reconnects: number;
  readonly by_transport: Readonly<
    Partial<
      Record<
        'mqtt' | 'http',
        { readonly acknowledged: number; readonly p50_ms: number; readonly p99_ms: number }
      >
    >
  >;
}

interface Reply {
  readonly status: number;
  readonly ms: number;
  readonly retryAfterS: number;
  readonly text: string;
}

/** One connection, as a client that comes back has it. */
class Client {
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  readonly #port: number;
  readonly #key: string | undefined;

  constructor(port: number, key?: string) {
    this.#port = port;
    this.#key = key;
  }

  ask(method: string, path: string, body?: unknown): Promise<Reply> {
    const bytes = body === undefined ? '' : JSON.stringify(body);
    const headers = {
      ...(this.#key === undefined ? {} : { 'x-api-key': this.#key }),
      ...(body === undefined ? {} : { 'content-type': 'application/json' }),
    };
    const at = performance.now();
    return new Promise((resolve, reject) => {
      const sent = request(
        { host: '127.0.0.1', port: this.#port, method, path, agent: this.#agent, headers },
        (response) => {
          let text = '';
          response.on('data', (chunk: Buffer) => {
            text += chunk.toString();
          });
          response.on('error', reject);
          response.on('end', () => {
            const retryAfterS = Number(response.headers['retry-after'] ?? 0);
            resolve({ status: response.statusCode ?? 0, ms: performance.now() - at, retryAfterS, text });
          });
        },
      );
      sent.on('error', reject);
      sent.end(bytes);
    });
  }

  close(): void {
    this.#agent.destroy();
  }
}

function msOf(samples: readonly number[]): Ms {
  return latenciesOf(Float64Array.from(samples));
}

/** As the documents show it, with a pairing window open; one after the other, as often as one address may ask. */
async function register(gateway: Gateway, devices: readonly FleetDevice[]) {
  await gateway.operate('devices.pair', { for_ms: 600_000, devices_max: devices.length });
  const client = new Client(gateway.httpPort);
  const keys: Record<string, string> = {};
  const samples: number[] = [];
  for (const { deviceId, name, type, location } of devices) {
    for (;;) {
      const body = { device_id: deviceId, name, device_type: type, location };
      const { status, ms, text, retryAfterS } = await client.ask('POST', '/api/v1/devices/register', body);
      if (status === 429) {
        await sleep(retryAfterS * 1000);
        continue;
      }
      const { device } = JSON.parse(text) as { device?: { api_key: string; status: string } };
      if (status !== 201 || device?.status !== 'active') throw new Error(`register: ${status} ${text}`);
      keys[deviceId] = device.api_key;
      samples.push(ms);
      break;
    }
  }
  client.close();
  return { keys, ms: msOf(samples) };
}

/** Asks for history, the latest values and windows in turn, until it is told to stop. */
function read(gateway: Gateway, key: string, devices: readonly FleetDevice[]) {
  const samples: number[] = [];
  let errors = 0;
  let isStopped = false;
  const ended = (async () => {
    const client = new Client(gateway.httpPort, key);
    const endings = ['?start_time=-1h&limit=100', '/latest', '/aggregated?start_time=-1h&window=1m'];
    for (let turn = 0; !isStopped; turn += 1) {
      const device = devices[turn % devices.length]?.deviceId ?? '';
      const path = `/api/v1/telemetry/${device}${endings[turn % endings.length]}`;
      const { status, ms } = await client.ask('GET', path).catch(() => ({ status: 0, ms: 0 }));
      if (status === 200) samples.push(ms);
      // At the beginning nothing is known of a device yet.
      else if (status !== 404) errors += 1;
      await sleep(1000 / readsPerSecond);
    }
    client.close();
  })();
  return async (): Promise<Ms & { readonly errors: number }> => {
    isStopped = true;
    await ended;
    return { ...msOf(samples), errors };
  };
}

/** What the disk itself takes meanwhile: 4 KiB over what is there already, as the journal's ring does it, and a flush. */
async function flush(folder: string) {
  const file = await open(join(folder, 'flushes'), 'w');
  const block = Buffer.alloc(4096, 1);
  await file.write(block, 0, block.length, 0);
  await file.sync();
  const samples: number[] = [];
  let isStopped = false;
  const ended = (async () => {
    while (!isStopped) {
      const at = performance.now();
      await file.write(block, 0, block.length, 0);
      await file.datasync();
      samples.push(performance.now() - at);
      await sleep(1000 / flushesPerSecond);
    }
    await file.close();
  })();
  return async (): Promise<Ms> => {
    isStopped = true;
    await ended;
    return msOf(samples);
  };
}

interface Play {
  readonly transport: 'mixed' | 'http';
  readonly intervalMs: number;
  readonly mqttPort: number;
  readonly httpPort: number;
  readonly keysFile: string;
  readonly forSeconds: number;
}

/** The fleet is a process of its own, and the program that users have. */
async function play(load: Play): Promise<Summary> {
  const { transport, intervalMs, mqttPort, httpPort, keysFile, forSeconds } = load;
  progress(`${deviceCount} devices, ${transport}, every ${intervalMs} ms, for ${forSeconds} s`);
  const args = [
    ...['simulate', 'fleet', '--preset', 'home,office,factory', '--devices', String(deviceCount), '--json'],
    ...['--transport', transport, '--interval', String(intervalMs), '--duration', String(forSeconds)],
    ...['--url', `mqtt://127.0.0.1:${mqttPort}`, '--http-url', `http://127.0.0.1:${httpPort}`],
    ...['--keys', keysFile],
  ];
  const child = startChild(process.execPath, [join(repositoryRoot(), 'dist', 'main.js'), ...args]);
  let text = '';
  child.process.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  await child.ended;
  if (text === '') throw new Error(`the fleet ended without a summary: ${child.lastOutput()}`);
  return JSON.parse(text) as Summary;
}

function faultsOf(summary: Summary): number {
  const { refused, unacknowledged, overflowed, reconnects } = summary;
  return refused + unacknowledged + overflowed + reconnects;
}

/** Answers 201 and does nothing else. */
async function bareServer(): Promise<void> {
  const server = createServer((incoming, response) => {
    incoming.resume();
    incoming.on('end', () => response.writeHead(201, { 'content-type': 'application/json' }).end('{}'));
  });
  server.listen(0, '127.0.0.1', () => {
    process.stdout.write(`${(server.address() as AddressInfo).port}\n`);
  });
}

async function playBare(keysFile: string, forSeconds: number): Promise<Summary> {
  const child = startChild(process.execPath, [fileURLToPath(import.meta.url), '--bare']);
  let text = '';
  child.process.stdout?.on('data', (chunk: Buffer) => {
    text += chunk.toString();
  });
  const httpPort = await waitFor('the bare server', () => (text.includes('\n') ? Number(text) : undefined), {
    child,
  });
  // Two hundred milliseconds: as many requests a second as half the fleet makes at a hundred.
  const load = { transport: 'http', intervalMs: 200, mqttPort: 1, httpPort, keysFile, forSeconds } as const;
  const summary = await play(load);
  await child.stop();
  return summary;
}

export async function measureFleet(): Promise<Section> {
  const title = `${deviceCount} devices over HTTP and MQTT, ${seconds} s each`;
  const header = ['load', 'msg/s', 'way', 'answered', 'p50 ms', 'p99 ms', 'errors', 'gateway MB'];
  const missing = gatewayMissing();
  if (missing !== undefined)
    return { title, header, rows: [], goals: [], remarks: [`skipped: needs ${missing}`] };
  const sinkMissing = victoriaMetricsMissing();
  const sink = sinkMissing === undefined ? await startVictoriaMetrics(temporaryFolder('sink')) : undefined;
  const folder = temporaryFolder('fleet');
  const gateway = await startGateway(folder, {
    ...(sink === undefined ? {} : { influxUrl: sink.url }),
    // What others write to this disk counts as wear, too, and would make commits linger: another bench's subject.
    further: ['journal:', '  ack_delay_max_ms: 0'],
  });
  const rows: string[][] = [];
  const devices = numbered(
    ['home', 'office', 'factory'].flatMap((name) => fleetDevices(name as 'home')),
    deviceCount,
  );

  const registered = await register(gateway, devices);
  const keysFile = join(folder, 'keys.json');
  writeFileSync(keysFile, JSON.stringify(registered.keys), { mode: 0o600 });
  const shown = ({ count, p50Ms, p99Ms }: Ms) => [String(count), milliseconds(p50Ms), milliseconds(p99Ms)];
  rows.push(['registering', '–', 'HTTP register', ...shown(registered.ms), '0', '']);
  const reader = (await gateway.operate('devices.add', { device_id: 'reader', service: true })) as {
    api_key: string;
  };
  const place = { mqttPort: gateway.port, httpPort: gateway.httpPort, keysFile };

  const measured = async (what: string, load: Pick<Play, 'transport' | 'intervalMs' | 'forSeconds'>) => {
    const stopReading = read(gateway, reader.api_key, devices);
    const stopFlushing = await flush(folder);
    const summary = await play({ ...place, ...load });
    const reads = await stopReading();
    const flushes = await stopFlushing();
    const rate = (summary.acknowledged / load.forSeconds).toFixed(0);
    const memory = memoryOf(gateway.pid).anonymousMb.toFixed(0);
    for (const way of ['http', 'mqtt'] as const) {
      const one = summary.by_transport[way];
      if (one === undefined) continue;
      const ms = { count: one.acknowledged, p50Ms: one.p50_ms, p99Ms: one.p99_ms };
      rows.push([what, rate, `${way.toUpperCase()} write`, ...shown(ms), String(faultsOf(summary)), memory]);
    }
    rows.push([what, rate, 'HTTP read', ...shown(reads), String(reads.errors), memory]);
    rows.push([what, '', 'a flush of 4 KiB', ...shown(flushes), '', '']);
    return { summary, reads, flushes };
  };
  const calm = await measured('10 msg/s in all', {
    transport: 'mixed',
    intervalMs: 10_000,
    forSeconds: seconds,
  });
  const busy = await measured('10 msg/s each', { transport: 'mixed', intervalMs: 100, forSeconds: seconds });
  const httpOnly = await measured('HTTP alone', {
    transport: 'http',
    intervalMs: 100,
    forSeconds: seconds / 4,
  });
  const bare = await playBare(keysFile, seconds / 4);
  const bareHttp = bare.by_transport.http;
  const bareMs = {
    count: bareHttp?.acknowledged ?? 0,
    p50Ms: bareHttp?.p50_ms ?? 0,
    p99Ms: bareHttp?.p99_ms ?? 0,
  };
  rows.push(['a bare server', '500', 'HTTP, nothing kept', ...shown(bareMs), String(faultsOf(bare)), '']);
  const metrics = await gateway.metrics();
  const limited = /^iotflow_http_rate_limited_total (\d+)$/m.exec(metrics)?.[1] ?? '?';
  await gateway.stop();
  await sink?.stop();

  const writes = (summary: Summary) => ({
    p50Ms: summary.by_transport.http?.p50_ms ?? Number.NaN,
    p99Ms: summary.by_transport.http?.p99_ms ?? Number.NaN,
  });
  const busyWrites = writes(busy.summary);
  const goal = (name: string, { p50Ms, p99Ms }: Omit<Ms, 'count'>, documentedMs: number) => ({
    name: `${name}, p99 against the average of ~${documentedMs} ms in the documents`,
    measured:
      `${milliseconds(p99Ms)} ms, ${ratio(documentedMs / p99Ms)} × better ` +
      `(p50 ${milliseconds(p50Ms)} ms, ${ratio(documentedMs / p50Ms)} ×)`,
    wanted: `≥ ${wantedFactor} × better`,
    met: documentedMs / p99Ms >= wantedFactor,
  });
  const faults = [calm, busy, httpOnly].reduce(
    (sum, { summary, reads }) => sum + faultsOf(summary) + reads.errors,
    0,
  );
  const httpRate = (httpOnly.summary.by_transport.http?.acknowledged ?? 0) / (seconds / 4);
  return {
    title,
    header,
    rows,
    goals: [
      {
        name: 'refused, unacknowledged, dropped or connected again, over all loads',
        measured: String(faults),
        wanted: '0',
        met: faults === 0,
      },
      goal('a durable write over HTTP at 10 msg/s in all', writes(calm.summary), documented.telemetry),
      goal('a durable write over HTTP at 10 msg/s each', busyWrites, documented.telemetry),
      goal('registering', registered.ms, documented.register),
      goal('reading, at 10 msg/s each', busy.reads, documented.retrieval),
      {
        name: `durable writes a second over HTTP, against ${documentedRate}+ requests a second in the documents`,
        measured: httpRate.toFixed(0),
        wanted: `≥ ${documentedRate * wantedFactor}`,
        met: httpRate >= documentedRate * wantedFactor * 0.99,
      },
    ],
    remarks: [
      `default limits of the API: no request of the fleet was answered 429 (${limited} while registering from one address)`,
      `p99 of a durable HTTP write at 10 msg/s each / p99 of a flush meanwhile: ${ratio(busyWrites.p99Ms / busy.flushes.p99Ms)}`,
      `p50 of a durable HTTP write at 10 msg/s each / p50 of the bare server: ${ratio(busyWrites.p50Ms / bareMs.p50Ms)}`,
      'journal.ack_delay_max_ms: 0; with the default a worn card makes a write wait up to 250 ms more',
      sinkMissing === undefined
        ? 'the gateway forwards to VictoriaMetrics meanwhile'
        : `no uplink (needs ${sinkMissing})`,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) {
  if (argv[2] === '--bare') await bareServer();
  else process.stdout.write(sectionText(await measureFleet()));
}
