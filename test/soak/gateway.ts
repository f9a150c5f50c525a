// The built gateway under a clock that can be set while it runs, on a card of its own that can be filled up.

import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { type Child, repositoryRoot, runCommand, startChild, waitFor } from '../../bench/children.ts';

const program = join(repositoryRoot(), 'dist', 'main.js');
const fakeClockLibrary = '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';

export interface SoakGatewayOptions {
  readonly folder: string;
  readonly dataDir: string;
  readonly mqttPort: number;
  readonly httpPort: number;
  readonly influxUrl: string;
  readonly led: string;
  /** Of libfaketime; undefined: the clock stays right. */
  readonly fakeClock: string | undefined;
}

/** Where Debian puts it, by machine. */
export function fakeClockPath(): string | undefined {
  const candidates = [fakeClockLibrary, fakeClockLibrary.replace('x86_64', 'aarch64')];
  return candidates.find((path) => existsSync(path));
}

export class SoakGateway {
  readonly #options: SoakGatewayOptions;
  readonly #configFile: string;
  readonly #clockFile: string;
  #child: Child | undefined;
  starts = 0;
  /** Longest from the start of the process until it was ready. */
  slowestStartMs = 0;

  constructor(options: SoakGatewayOptions) {
    this.#options = options;
    this.#configFile = join(options.folder, 'config.yaml');
    this.#clockFile = join(options.folder, 'clock');
    this.setClock(0);
    // JSON is YAML.
    const config = {
      version: 1,
      gateway_id: 'soak',
      data_dir: options.dataDir,
      log: { level: 'warn' },
      mqtt: {
        host: '127.0.0.1',
        port: options.mqttPort,
        tls: { port: 0 },
        ws: { port: 0 },
        ack_timeout_ms: 5000,
      },
      http: { port: options.httpPort },
      https: { enabled: false },
      influx: {
        url: options.influxUrl,
        token: 'soak-token-of-some-length',
        timeout_ms: 3000,
        flush_interval_ms: 500,
      },
      buzzer: { led: options.led },
      journal: { ring_segments: 4 },
      host_health: { interval_ms: 5000 },
    };
    writeFileSync(this.#configFile, JSON.stringify(config), { mode: 0o600 });
  }

  get isRunning(): boolean {
    return this.#child !== undefined;
  }

  /** @param offsetS of the gateway's wall clock from the real one, seconds */
  setClock(offsetS: number): void {
    writeFileSync(this.#clockFile, `${offsetS < 0 ? '' : '+'}${offsetS}\n`);
  }

  async start(): Promise<void> {
    const portsFile = join(this.#options.dataDir, 'run', 'ports.json');
    rmSync(portsFile, { force: true });
    const beganMs = performance.now();
    const clock = this.#options.fakeClock;
    const child = startChild(process.execPath, [program, 'run', '--config', this.#configFile], {
      env: {
        PATH: process.env.PATH,
        ...(clock !== undefined && {
          LD_PRELOAD: clock,
          FAKETIME_TIMESTAMP_FILE: this.#clockFile,
          FAKETIME_DONT_FAKE_MONOTONIC: '1',
          FAKETIME_CACHE_DURATION: '1',
          NO_FAKE_STAT: '1',
        }),
      },
    });
    this.#child = child;
    this.starts += 1;
    await waitFor('the gateway', () => (existsSync(portsFile) ? true : undefined), {
      timeoutMs: 60_000,
      everyMs: 20,
      child,
    });
    this.slowestStartMs = Math.max(this.slowestStartMs, performance.now() - beganMs);
  }

  async kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    child?.process.kill('SIGKILL');
    await child?.ended;
  }

  /** Answers the exit code of a clean stop. */
  async stop(): Promise<number | null> {
    const child = this.#child;
    this.#child = undefined;
    await child?.stop(60_000);
    return child?.process.exitCode ?? null;
  }

  freeze(): void {
    this.#child?.process.kill('SIGSTOP');
  }

  thaw(): void {
    this.#child?.process.kill('SIGCONT');
  }

  /** What it last printed. */
  lastOutput(): string {
    return this.#child?.lastOutput() ?? '';
  }

  /** Anonymous memory, MB; undefined while it does not run. */
  memoryMb(): number | undefined {
    try {
      const status = readFileSync(`/proc/${this.#child?.pid}/status`, 'utf8');
      return Number(/^RssAnon:\s+(\d+) kB/m.exec(status)?.[1]) / 1024;
    } catch {
      return undefined;
    }
  }

  /** Codes of the reasons it gives; undefined while it does not answer. */
  async health(): Promise<readonly string[] | undefined> {
    try {
      const response = await fetch(`http://127.0.0.1:${this.#options.httpPort}/health`, {
        signal: AbortSignal.timeout(2000),
      });
      const { reasons } = (await response.json()) as { reasons: readonly { code: string }[] };
      return reasons.map(({ code }) => code);
    } catch {
      return undefined;
    }
  }

  /** Value of a metric, labels as in the text; sums what matches. NaN when there is none. */
  async metric(pattern: RegExp): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.#options.httpPort}/metrics`)).text();
    let sum = Number.NaN;
    for (const line of text.split('\n')) {
      if (!pattern.test(line)) continue;
      const value = Number(line.slice(line.lastIndexOf(' ') + 1));
      sum = Number.isNaN(sum) ? value : sum + value;
    }
    return sum;
  }

  /** Through the control socket of the running gateway. */
  operate(operation: string, args: Readonly<Record<string, unknown>> = {}): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const socket = connect(join(this.#options.dataDir, 'run', 'control.sock'));
      let text = '';
      socket.on('connect', () => socket.write(`${JSON.stringify({ operation, args })}\n`));
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (text.endsWith('\n')) socket.destroy();
      });
      socket.on('error', reject);
      socket.on('close', () => {
        try {
          const answer = JSON.parse(text) as { ok: boolean; result?: unknown; error?: { message: string } };
          if (answer.ok) resolve(answer.result);
          else reject(new Error(`${operation}: ${answer.error?.message}`));
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  /** Beside a stopped gateway; answers the API key. */
  async addDevice(deviceId: string): Promise<string> {
    const args = [program, 'devices', 'add', deviceId, '--json', '--config', this.#configFile];
    const { api_key } = JSON.parse(await runCommand(process.execPath, args)) as { api_key: string };
    return api_key;
  }

  async command(...args: readonly string[]): Promise<string> {
    return await runCommand(process.execPath, [program, ...args, '--config', this.#configFile]);
  }
}
