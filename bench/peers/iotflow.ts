// This gateway, run as a user runs it: the built program, a config file, devices made with its own command.

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { freePort } from '../../test/support/free-port.ts';
import { type Child, repositoryRoot, runCommand, startChild, temporaryFolder, waitFor } from '../children.ts';
import type { Publisher } from '../mqtt-load.ts';
import { type Peer, type RunningPeer, telemetryTopic } from './peer.ts';
import { startVictoriaMetrics, victoriaMetricsMissing } from './victoria-metrics.ts';

const program = join(repositoryRoot(), 'dist', 'main.js');

export interface GatewaySettings {
  /** Default: `data` below the folder. */
  readonly dataDir?: string;
  /** Where it forwards to; nowhere when absent. */
  readonly influxUrl?: string;
  /** A fake or real directory of the kernel's LED class. */
  readonly buzzerLed?: string;
  /** Further lines of its configuration. */
  readonly further?: readonly string[];
}

export interface Gateway extends RunningPeer {
  readonly dataDir: string;
  readonly httpPort: number;
  /** Prometheus text. */
  metrics(): Promise<string>;
  /** Asks the control socket; throws what it answers as an error. */
  operate(operation: string, args?: Readonly<Record<string, unknown>>): Promise<unknown>;
  kill(): Promise<void>;
}

export function gatewayMissing(): string | undefined {
  return existsSync(program) ? undefined : 'dist/main.js (npm run build)';
}

/** Writes the config file and answers its path. Limits that guard against a single bad client are out of the way. */
export function configure(folder: string, settings: GatewaySettings = {}): string {
  const dataDir = settings.dataDir ?? join(folder, 'data');
  mkdirSync(dataDir, { recursive: true });
  const lines = ['version: 1', `data_dir: ${dataDir}`, 'log:', '  level: warn', 'mqtt:', '  port: 0'];
  // Hundreds of nodes on one address are a bench, not an attack.
  lines.push('  connections_max: 2000', '  connections_per_address_max: 2000', '  unauthenticated_max: 2000');
  lines.push('  tls:', '    port: 0', '  ws:', '    port: 0', 'http:', '  port: 0', 'https:', '  port: 0');
  if (settings.influxUrl !== undefined) {
    lines.push(
      'influx:',
      `  url: ${settings.influxUrl}`,
      '  token: bench',
      '  org: bench',
      '  bucket: bench',
    );
  }
  if (settings.buzzerLed !== undefined) lines.push('buzzer:', `  led: ${settings.buzzerLed}`);
  lines.push(...(settings.further ?? []));
  const path = join(folder, 'config.yaml');
  writeFileSync(path, `${lines.join('\n')}\n`);
  return path;
}

/** Starts the process and returns at once; `ready` follows it to the end of its start. */
export function spawnGateway(configPath: string): Child {
  // Only what the config says, whatever the user's shell has set.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^(IOTFLOW|INFLUXDB|FLUME|VOICE_MONKEY)_/.test(key)),
  );
  return startChild(process.execPath, [program, 'run', '--config', configPath], { env });
}

export function portsPath(dataDir: string): string {
  return join(dataDir, 'run', 'ports.json');
}

export async function startGateway(folder: string, settings: GatewaySettings = {}): Promise<Gateway> {
  const dataDir = settings.dataDir ?? join(folder, 'data');
  const configPath = configure(folder, settings);
  const child = spawnGateway(configPath);
  const ports = await waitFor('the gateway', () => readPorts(dataDir), {
    child,
    everyMs: 20,
    timeoutMs: 120_000,
  });
  return {
    port: ports.mqtt,
    pid: child.pid,
    dataDir,
    httpPort: ports.http,
    publishers: (count) => enrol(configPath, count),
    metrics: async () => (await fetch(`http://127.0.0.1:${ports.http}/metrics`)).text(),
    operate: (operation, args = {}) => operate(dataDir, operation, args),
    stop: () => child.stop(60_000),
    kill: async () => {
      child.process.kill('SIGKILL');
      await child.ended;
    },
  };
}

function readPorts(dataDir: string): { mqtt: number; http: number } | undefined {
  try {
    return JSON.parse(readFileSync(portsPath(dataDir), 'utf8')) as { mqtt: number; http: number };
  } catch {
    return undefined;
  }
}

/** Works beside a running gateway and without one. */
export async function enrol(configPath: string, count: number): Promise<Publisher[]> {
  const publishers: Publisher[] = [];
  for (let index = 0; index < count; index += 1) {
    const deviceId = `bench-${index}`;
    const answer = await runCommand(process.execPath, [
      program,
      'devices',
      'add',
      deviceId,
      '--json',
      '--config',
      configPath,
    ]);
    const account = JSON.parse(answer) as { device_id: string; api_key: string };
    publishers.push({
      clientId: account.device_id,
      username: account.device_id,
      password: account.api_key,
      topic: telemetryTopic(account.device_id),
    });
  }
  return publishers;
}

function operate(
  dataDir: string,
  operation: string,
  args: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const socket = connect(join(dataDir, 'run', 'control.sock'));
    let answer = '';
    socket.setTimeout(30_000, () => socket.destroy(new Error(`${operation}: no answer within 30 s`)));
    socket.on('error', reject);
    socket.on('close', () => reject(new Error(`${operation}: closed without an answer`)));
    socket.on('data', (chunk: Buffer) => {
      answer += chunk.toString();
      const end = answer.indexOf('\n');
      if (end < 0) return;
      socket.destroy();
      const parsed = JSON.parse(answer.slice(0, end)) as { result?: unknown; error?: unknown };
      if (parsed.error === undefined) resolve(parsed.result);
      else reject(new Error(`${operation}: ${JSON.stringify(parsed.error)}`));
    });
    socket.write(`${JSON.stringify({ operation, args })}\n`);
  });
}

export const iotflowPeer: Peer = {
  name: 'IoTFlow Edge (no uplink)',
  ackMeans: 'fsynced, through the whole ingest path',
  missing: gatewayMissing,
  start: (folder) => startGateway(folder),
};

export const iotflowForwardingPeer: Peer = {
  name: 'IoTFlow Edge (forwarding to VictoriaMetrics)',
  ackMeans: 'fsynced, through the whole ingest path; forwarded meanwhile',
  missing: () => gatewayMissing() ?? victoriaMetricsMissing(),
  start: async (folder) => {
    const sink = await startVictoriaMetrics(temporaryFolder('sink'));
    const gateway = await startGateway(folder, { influxUrl: sink.url });
    return {
      ...gateway,
      stop: async () => {
        await gateway.stop();
        await sink.stop();
      },
    };
  },
};

/** An uplink that is configured and down: nobody listens there. */
export async function deadUplink(): Promise<string> {
  return `http://127.0.0.1:${await freePort()}`;
}
