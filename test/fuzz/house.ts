// A whole gateway as a process of its own, a database that is away half of the time, and the well-behaved: a node
// over MQTT, a node over HTTP, and a reader. Keeps what was acknowledged, and finds out what became of it.

import assert from 'node:assert/strict';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { connect as connectSocket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connectAsync, type MqttClient } from 'mqtt';
import {
  type Child,
  type Memory,
  memoryOf,
  repositoryRoot,
  startChild,
  temporaryFolder,
  waitFor,
} from '../../bench/children.ts';
import { FakeInflux } from '../../src/simulator/influx.ts';
import type { Account } from './mqtt.ts';

/** Well below what a device may ask for. */
const pauseMs = 250;
const answerMs = 30_000;
/** About what Node takes on a board with 512 MB; what leaks ends the process. */
const heapLimit = '--max-old-space-size=128';

/** The database is one that knows no deletion. */
const expectedError = '"event":"erasure-refused"';

interface Ports {
  readonly mqtt: number;
  readonly http: number;
}

type Witness = 'witness-mqtt' | 'witness-http';

export class House {
  readonly #folder = temporaryFolder('fuzz');
  readonly #influx: FakeInflux;
  readonly #arrived: Record<Witness, Set<number>>;
  readonly #acknowledged: Record<Witness, number[]> = { 'witness-mqtt': [], 'witness-http': [] };
  #child: Child | undefined;
  #ports: Ports = { mqtt: 0, http: 0 };
  #isWatching = true;
  #watches: Promise<void>[] = [];
  /** Told what goes wrong with the gateway or a witness. */
  readonly #note: (fault: string) => void;
  /** Longest a witness waited for an answer. */
  slowestMs = 0;
  /** Messages the reader got. */
  read = 0;

  private constructor(
    influx: FakeInflux,
    arrived: Record<Witness, Set<number>>,
    note: (fault: string) => void,
  ) {
    this.#note = note;
    this.#influx = influx;
    this.#arrived = arrived;
  }

  static async start(note: (fault: string) => void): Promise<House> {
    const arrived = { 'witness-mqtt': new Set<number>(), 'witness-http': new Set<number>() };
    const influx = await FakeInflux.start({
      org: 'iotflow',
      bucket: 'telemetry',
      token: 'fuzz-token-of-some-length',
      keep: 'counts',
      refuse: (line) => {
        const [, witness, value] = /[,]device_id=(witness-(?:mqtt|http))\b.* n=(\d+)/.exec(line) ?? [];
        if (witness !== undefined) arrived[witness as Witness].add(Number(value));
        return undefined;
      },
    });
    const house = new House(influx, arrived, note);
    await house.#startGateway();
    return house;
  }

  get ports(): Ports {
    return this.#ports;
  }

  get memory(): Memory {
    return memoryOf(this.#child?.pid ?? 0);
  }

  get acknowledged(): number {
    return Object.values(this.#acknowledged).reduce((sum, { length }) => sum + length, 0);
  }

  /** Lines the database could not read, or whose types it had otherwise: answers that were no 204. */
  get refusedWrites(): number {
    return this.#influx.writes.filter(({ status }) => status !== 204).length;
  }

  outage(isOut: boolean): void {
    this.#influx.outage(isOut);
  }

  async addDevices(count: number): Promise<Account[]> {
    const accounts: Account[] = [];
    for (let index = 1; index <= count; index += 1) accounts.push(await this.#add(`fuzz-${index}`));
    return accounts;
  }

  /** Administrators, by a token of theirs. What they ask about is a device for them to remove. */
  async addAdministrators(count: number): Promise<Account[]> {
    const accounts: Account[] = [];
    await this.#add('victim-1');
    for (let index = 1; index <= count; index += 1) {
      const name = `fuzz-admin-${index}`;
      await this.#operate('users.add', { name, role: 'admin', password: 'ten and more letters' });
      const { token } = await this.#operate('users.token_add', { name, label: 'fuzz' });
      accounts.push({ deviceId: 'victim-1', apiKey: token });
    }
    return accounts;
  }

  async openApi(): Promise<unknown> {
    const response = await fetch(`http://127.0.0.1:${this.#ports.http}/api/v1/openapi.json`);
    return await response.json();
  }

  /** Sum over the labels. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.#ports.http}/metrics`)).text();
    const lines = text.split('\n').filter((line) => line.startsWith(`iotflow_${name}`));
    assert(lines.length > 0, `BUG: there is no metric ${name}`);
    return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
  }

  /** The witnesses begin; `settle` ends them. */
  async watch(): Promise<void> {
    const [overMqtt, overHttp, reader] = await Promise.all([
      this.#add('witness-mqtt'),
      this.#add('witness-http'),
      this.#add('witness-home', true),
    ]);
    const home = await this.#connect(reader);
    home.on('message', () => {
      this.read += 1;
    });
    await home.subscribeAsync('iotflow/devices/witness-mqtt/#', { qos: 1 });
    const node = await this.#connect(overMqtt);
    this.#watches = [
      this.#repeat('witness-mqtt', async (n) => {
        const topic = 'iotflow/devices/witness-mqtt/telemetry/witness';
        await node.publishAsync(topic, JSON.stringify({ n }), { qos: 1 });
      }),
      this.#repeat('witness-http', async (n) => {
        const url = `http://127.0.0.1:${this.#ports.http}`;
        const response = await fetch(`${url}/api/v1/devices/telemetry`, {
          method: 'POST',
          headers: { 'content-type': 'application/json', 'x-api-key': overHttp.apiKey },
          body: JSON.stringify({ data: { n }, type: 'witness' }),
        });
        const text = await response.text();
        if (response.status !== 201) throw new Error(`${response.status} ${text}`);
        const health = await fetch(`${url}/health`);
        if (!(await health.text()).startsWith('{"status"')) throw new Error('no health');
      }),
    ];
  }

  /**
   * Ends the witnesses, kills the gateway, starts it again, and waits for the database to have everything.
   * Answers how many acknowledged points it does not have.
   */
  async settle(): Promise<number> {
    this.#isWatching = false;
    await Promise.all(this.#watches);
    const isAnswered = async () => (await this.metric('mqtt_pending_acknowledgements')) === 0;
    await waitFor('the last acknowledgements', async () => ((await isAnswered()) ? true : undefined));
    const child = this.#child;
    this.#child = undefined;
    child?.process.kill('SIGKILL');
    await child?.ended;
    await this.#startGateway();
    this.outage(false);
    const missing = () =>
      (['witness-mqtt', 'witness-http'] as const).flatMap((witness) =>
        this.#acknowledged[witness].filter((n) => !this.#arrived[witness].has(n)),
      ).length;
    const isDrained = async () => missing() === 0 || (await this.metric('journal_backlog_points')) === 0;
    await waitFor('the backlog', async () => ((await isDrained()) ? true : undefined), {
      timeoutMs: 600_000,
      everyMs: 500,
    });
    return missing();
  }

  async close(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    await child?.stop(60_000);
    if (child !== undefined && child.process.exitCode !== 0) {
      this.#note(`the gateway did not stop cleanly: ${child.process.exitCode}`);
    }
    await this.#influx.close();
  }

  async #startGateway(): Promise<void> {
    const dataDir = join(this.#folder, 'data');
    const configFile = join(this.#folder, 'config.yaml');
    // JSON is YAML.
    const config = {
      version: 1,
      gateway_id: 'fuzz',
      data_dir: dataDir,
      log: { level: 'warn' },
      mqtt: { port: 0, tls: { port: 0 }, ws: { port: 0 } },
      http: { port: 0 },
      https: { port: 0 },
      influx: { url: this.#influx.url, token: 'fuzz-token-of-some-length' },
      host_health: { enabled: false },
    };
    writeFileSync(configFile, JSON.stringify(config), { mode: 0o600 });
    const portsFile = join(dataDir, 'run', 'ports.json');
    rmSync(portsFile, { force: true });
    const program = join(repositoryRoot(), 'dist', 'main.js');
    const child = startChild(process.execPath, [heapLimit, program, 'run', '--config', configFile]);
    this.#child = child;
    // Node says there, and ends, when a rejection or an exception was not caught.
    for (const stream of [child.process.stdout, child.process.stderr]) {
      stream?.on('data', (bytes: Buffer) => {
        for (const line of bytes.toString().split('\n')) {
          if (line.includes(expectedError)) continue;
          if (/"level":(50|60|"error"|"fatal")/.test(line) || (line !== '' && !line.startsWith('{'))) {
            this.#note(`the gateway said: ${line.slice(0, 2_000)}`);
          }
        }
      });
    }
    void child.ended.then(() => {
      if (this.#child === child) this.#note(`the gateway ended: ${child.lastOutput()}`);
    });
    await waitFor('the gateway', () => (existsSync(portsFile) ? true : undefined), {
      timeoutMs: 60_000,
      everyMs: 20,
      child,
    });
    this.#ports = JSON.parse(readFileSync(portsFile, 'utf8')) as Ports;
  }

  async #connect({ deviceId, apiKey }: Account): Promise<MqttClient> {
    const client = await connectAsync(`mqtt://127.0.0.1:${this.#ports.mqtt}`, {
      username: deviceId,
      password: apiKey,
      reconnectPeriod: 0,
    });
    client.on('error', () => undefined);
    client.on('close', () => {
      if (this.#isWatching) this.#note(`${deviceId} was disconnected`);
    });
    return client;
  }

  async #repeat(witness: Witness, once: (n: number) => Promise<void>): Promise<void> {
    for (let n = 1; this.#isWatching; n += 1) {
      const beganMs = performance.now();
      try {
        const giveUp = sleep(answerMs, 'late', { ref: false });
        if ((await Promise.race([once(n), giveUp])) === 'late') throw new Error('no answer');
        this.#acknowledged[witness].push(n);
      } catch (error) {
        if (this.#child?.process.exitCode !== null) return;
        this.#note(`${witness}: ${String(error)}`);
      }
      this.slowestMs = Math.max(this.slowestMs, performance.now() - beganMs);
      await sleep(pauseMs);
    }
  }

  async #add(deviceId: string, service = false): Promise<Account> {
    const { api_key: apiKey } = await this.#operate('devices.add', { device_id: deviceId, service });
    return { deviceId, apiKey };
  }

  /** Through the control socket of the running gateway. */
  #operate(
    operation: string,
    args: Readonly<Record<string, unknown>>,
  ): Promise<{ readonly api_key: string; readonly token: string }> {
    return new Promise((resolve, reject) => {
      const socket = connectSocket(join(this.#folder, 'data', 'run', 'control.sock'));
      let text = '';
      socket.on('connect', () => socket.write(`${JSON.stringify({ operation, args })}\n`));
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        if (text.endsWith('\n')) socket.destroy();
      });
      socket.on('error', reject);
      socket.on('close', () => {
        const answer = JSON.parse(text) as { result?: { api_key: string; token: string } };
        if (answer.result === undefined) reject(new Error(text));
        else resolve(answer.result);
      });
    });
  }
}
