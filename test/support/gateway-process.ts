// The built gateway as a process of its own, as systemd would start it: for kills, signals and real clients.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { onTestFinished } from 'vitest';

export const mainJs = join(import.meta.dirname, '..', '..', 'dist', 'main.js');

export interface GatewayPorts {
  readonly mqtt: number;
  readonly mqtts: number;
  readonly ws: number;
  readonly http: number;
  readonly https: number;
}

export interface GatewayProcess {
  readonly child: ChildProcess;
  readonly ports: GatewayPorts;
  readonly dataDir: string;
  /** Everything the process has written so far. */
  output(): string;
  /** SIGKILL: nothing gets a chance to say goodbye. */
  kill(): Promise<void>;
  /** SIGTERM; resolves with the exit code. */
  stop(): Promise<number | null>;
}

/** Writes the configuration file; the ports default to free ones. */
export function writeConfig(folder: string, settings: Record<string, unknown>): string {
  const path = join(folder, 'config.yaml');
  const { mqtt, http, ...rest } = settings as Record<string, Record<string, unknown>>;
  const config = {
    version: 1,
    data_dir: join(folder, 'data'),
    mqtt: { port: 0, tls: { port: 0 }, ws: { port: 0 }, ...mqtt },
    http: { port: 0, ...http },
    https: { port: 0 },
    ...rest,
  };
  // JSON is YAML.
  writeFileSync(path, JSON.stringify(config), { mode: 0o600 });
  return path;
}

export interface GatewayStart {
  readonly timeoutMs?: number;
  readonly env?: Record<string, string>;
  /** Answers when it is ready, for a disk on which `ports.json` cannot be written; its ports are not known then. */
  readonly readyUrl?: string;
  /** Where its standard output and error go; default: pipes that are read. */
  readonly outputFd?: number;
  /** A command that becomes the gateway, such as `unshare`. */
  readonly within?: readonly string[];
}

export async function startGateway(
  configFile: string,
  { timeoutMs = 20_000, env = {}, readyUrl, outputFd, within = [] }: GatewayStart = {},
): Promise<GatewayProcess> {
  if (!existsSync(mainJs)) throw new Error('dist/main.js is missing: npm run build first');
  const config = JSON.parse(readFileSync(configFile, 'utf8')) as { data_dir: string };
  const portsFile = join(config.data_dir, 'run', 'ports.json');
  if (readyUrl === undefined) rmSync(portsFile, { force: true });
  const isReady = async () =>
    readyUrl === undefined
      ? existsSync(portsFile)
      : await fetch(readyUrl).then(
          () => true,
          () => false,
        );
  const [command = '', ...args] = [...within, process.execPath, mainJs, 'run', '--config', configFile];
  const child = spawn(command, args, {
    env: { ...process.env, ...env },
    stdio: ['ignore', outputFd ?? 'pipe', outputFd ?? 'pipe'],
  });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-200_000);
  };
  child.stdout?.on('data', keep);
  child.stderr?.on('data', keep);
  const exited = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)));
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  const deadlineMs = performance.now() + timeoutMs;
  while (!(await isReady())) {
    if (child.exitCode !== null || performance.now() > deadlineMs) {
      child.kill('SIGKILL');
      throw new Error(`the gateway did not become ready:\n${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const ports = JSON.parse(readyUrl === undefined ? readFileSync(portsFile, 'utf8') : '{}') as GatewayPorts;
  return {
    child,
    ports,
    dataDir: config.data_dir,
    output: () => output,
    kill: async () => {
      child.kill('SIGKILL');
      await exited;
    },
    stop: async () => {
      child.kill('SIGTERM');
      return await exited;
    },
  };
}

const run = promisify(execFile);

/** Runs the command line as an operator would. */
export async function iotflow(...args: string[]): Promise<string> {
  const { stdout } = await run(process.execPath, [mainJs, ...args]);
  return stdout;
}

/** Makes a device (or a service account with `--service` among the flags); answers its API key. */
export async function addDevice(configFile: string, deviceId: string, ...flags: string[]): Promise<string> {
  const answer = await iotflow('devices', 'add', deviceId, ...flags, '--json', '--config', configFile);
  return (JSON.parse(answer) as { api_key: string }).api_key;
}
