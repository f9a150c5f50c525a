// The built gateway as a process, and its settings: a small ring and a low cap, so that a few seconds of load
// turn the ring, spill, compact and drop. The same settings open what a cut left.

import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import { type Child, runCommand, startChild, waitFor } from '../../bench/children.ts';
import { camelCased } from '../../src/platform/outside-names.ts';

export interface GatewaySettings {
  readonly dataDir: string;
  readonly influxUrl: string;
  /** 4, the least there can be, unless a ring grows. */
  readonly ringSegments?: number;
}

/** The text of a configuration file; JSON is YAML. */
export function configText({ dataDir, influxUrl, ringSegments = 4 }: GatewaySettings): string {
  return JSON.stringify({
    version: 1,
    gateway_id: 'powercut',
    data_dir: dataDir,
    log: { level: 'warn' },
    mqtt: { port: 0, tls: { port: 0 }, ws: { port: 0 } },
    http: { enabled: false },
    https: { enabled: false },
    influx: { url: influxUrl, org: 'home', bucket: 'water', token: 't', flush_interval_ms: 50 },
    journal: { ring_segments: ringSegments, max_bytes: 8 * 2 ** 20 },
    host_health: { enabled: false },
    // All of a life are to be found, and waiting for an answer each tenth.
    commands: { pending_per_device_max: 10_000, pending_max: 10_000, finished_per_device_max: 10_000 },
  });
}

/** The figures this suite looks at. */
export interface Figures {
  readonly journal: {
    readonly pending: Readonly<Record<'urgent' | 'fresh' | 'backlog', number>>;
    readonly dropped: Readonly<Record<string, Readonly<Record<string, number>>>>;
    readonly retention: { readonly thinned: Readonly<Record<string, { readonly points: number }>> };
    readonly quarantined: Readonly<Record<'segments' | 'bytes' | 'points', number>>;
    readonly lostBlocks: number;
    readonly lostBlockPoints: number;
    readonly blockStore: StoreFigures;
    readonly deadLetters: { readonly letters: number };
  };
  readonly state: StoreFigures;
  readonly registry: { readonly damagedRecords: number };
  readonly alarms: { readonly list: readonly { readonly id: string }[] };
}

/** Points given up at the cap: dropped, or thinned to fewer. */
export function givenUp({ journal }: Figures): number {
  const drops = Object.values(journal.dropped).map(({ capacity = 0, age = 0 }) => capacity + age);
  const thinned = Object.values(journal.retention.thinned).map(({ points }) => points);
  return [...drops, ...thinned].reduce((sum, points) => sum + points, 0);
}

interface StoreFigures {
  readonly damagedValues: number;
  readonly repairs: number;
  readonly startedEmpty: number;
}

export interface GatewayProcess {
  readonly port: number;
  readonly child: Child;
  figures(): Promise<Figures>;
  operate(operation: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
}

export function spawnGateway(mainJs: string, settings: GatewaySettings): Child {
  // What a file of a former life says would be taken for this one's.
  rmSync(join(settings.dataDir, 'run', 'ports.json'), { force: true });
  return startChild(process.execPath, [mainJs, 'run', '--config', writeConfig(settings)], { env: ownEnv() });
}

/** Runs a command of the program beside a gateway, or in place of one, to its end. */
export async function runTool(
  mainJs: string,
  settings: GatewaySettings,
  ...args: readonly string[]
): Promise<void> {
  const all = [mainJs, ...args, '--config', writeConfig(settings)];
  await runCommand(process.execPath, all, { env: ownEnv() });
}

function writeConfig(settings: GatewaySettings): string {
  const config = `${dirname(settings.dataDir)}.${Math.random().toString(36).slice(2)}.yaml`;
  mkdirSync(dirname(config), { recursive: true });
  writeFileSync(config, configText(settings));
  return config;
}

/** Only what the config says, whatever the user's shell has set. */
function ownEnv(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^(IOTFLOW|INFLUXDB|FLUME|VOICE_MONKEY)_/.test(key)),
  );
}

export async function gatewayReady(child: Child, { dataDir }: GatewaySettings): Promise<GatewayProcess> {
  const port = await waitFor('the gateway', () => readPort(dataDir), {
    child,
    everyMs: 10,
    timeoutMs: 60_000,
  });
  const operate = (operation: string, args: Readonly<Record<string, unknown>> = {}) =>
    ask(join(dataDir, 'run', 'control.sock'), operation, args);
  return {
    port,
    child,
    operate,
    figures: async () => (camelCased(await operate('gateway.status')) as { figures: Figures }).figures,
  };
}

function readPort(dataDir: string): number | undefined {
  try {
    return (JSON.parse(readFileSync(join(dataDir, 'run', 'ports.json'), 'utf8')) as { mqtt: number }).mqtt;
  } catch {
    return undefined;
  }
}

function ask(path: string, operation: string, args: Readonly<Record<string, unknown>>): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(path);
    let text = '';
    socket.setTimeout(60_000, () => socket.destroy(new Error(`${operation}: no answer`)));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${operation}: closed without an answer`)));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString();
      if (!text.endsWith('\n')) return;
      socket.destroy();
      const answer = JSON.parse(text) as { ok: boolean; result?: unknown; error?: unknown };
      if (answer.ok) resolve(answer.result);
      else reject(new Error(`${operation}: ${JSON.stringify(answer.error)}`));
    });
    socket.write(`${JSON.stringify({ operation, args })}\n`);
  });
}
