// A household on a disk that is about to fail: the built gateway with a meter that sends for ever, a leak probe, a
// buzzer and an InfluxDB, and the questions every such test asks of it.

import { connectAsync, type MqttClient } from 'mqtt';
import { expect, onTestFinished } from 'vitest';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { freePort } from './free-port.ts';
import { addDevice, type GatewayProcess, startGateway, writeConfig } from './gateway-process.ts';
import { isSounding, makeLed } from './led.ts';
import { startWitness, type Witness } from './publisher.ts';
import { tempFolder } from './temp.ts';

export interface HouseholdOptions {
  /** On the disk that fails; everything else is elsewhere. */
  readonly dataDir: string;
  /** Default: InfluxDB can be reached. */
  readonly isOffline?: boolean;
  readonly settings?: Record<string, unknown>;
  /** The meter sends as much as it can: the disk is to fill. */
  readonly isFlooding?: boolean;
}

const patient = { timeout: 80_000, interval: 100 };

export class Household {
  readonly influx: FakeInflux;
  readonly witness: Witness;
  gateway: GatewayProcess;
  readonly #configFile: string;
  readonly #led: string;
  readonly #port: number;
  readonly #httpPort: number;
  /** Of probes, by id. */
  readonly #keys = new Map<string, string>();
  readonly #startMs: number;

  private constructor(parts: {
    influx: FakeInflux;
    witness: Witness;
    gateway: GatewayProcess;
    configFile: string;
    led: string;
    port: number;
    httpPort: number;
    probeKey: string;
    startMs: number;
  }) {
    this.influx = parts.influx;
    this.witness = parts.witness;
    this.gateway = parts.gateway;
    this.#configFile = parts.configFile;
    this.#led = parts.led;
    this.#port = parts.port;
    this.#httpPort = parts.httpPort;
    this.#keys.set('probe', parts.probeKey);
    this.#startMs = parts.startMs;
  }

  /** Runs, with some hundred readings acknowledged. */
  static async start({ dataDir, isOffline = false, settings = {}, isFlooding = false }: HouseholdOptions) {
    const folder = tempFolder();
    const led = makeLed(folder);
    const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
    onTestFinished(() => influx.close());
    influx.outage(isOffline);
    const [port, httpPort] = [await freePort(), await freePort()];
    const configFile = writeConfig(folder, {
      data_dir: dataDir,
      mqtt: { port, ack_timeout_ms: 1000 },
      http: { port: httpPort },
      https: { enabled: false },
      influx: { url: influx.url, token: 't', flush_interval_ms: 50 },
      buzzer: { led },
      journal: { ring_segments: 4 },
      host_health: { enabled: false },
      ...settings,
    });
    const gateway = await startGateway(configFile);
    const [meterKey, probeKey] = await Promise.all([
      addDevice(configFile, 'meter'),
      addDevice(configFile, 'probe'),
    ]);
    const startMs = Date.now() - 3_600_000;
    const load = isFlooding ? { pads: 8 } : { pauseMs: 2 };
    const witness = startWitness({ port, deviceId: 'meter', apiKey: meterKey, window: 20, startMs, ...load });
    onTestFinished(() => witness.stop());
    await expect.poll(() => witness.acknowledged.size, patient).toBeGreaterThan(200);
    return new Household({
      ...{ influx, witness, gateway, configFile, led, port, httpPort, probeKey, startMs },
    });
  }

  async health(): Promise<{ status: string; reasons: { code: string; message: string }[] }> {
    const response = await fetch(`http://127.0.0.1:${this.#httpPort}/health`);
    return (await response.json()) as Awaited<ReturnType<Household['health']>>;
  }

  async #reasons(): Promise<string> {
    const { reasons } = await this.health().catch(() => ({ reasons: [{ code: 'NO_ANSWER' }] }));
    return reasons.map(({ code }) => code).join(' ');
  }

  /** Waits until the page says so. */
  async says(code: RegExp): Promise<void> {
    await expect.poll(() => this.#reasons(), patient).toMatch(code);
  }

  async saysNoMore(code: RegExp): Promise<void> {
    await expect.poll(() => this.#reasons(), patient).not.toMatch(code);
  }

  /** A figure of /metrics, all its samples added up. */
  async metric(name: string): Promise<number> {
    const text = await (await fetch(`http://127.0.0.1:${this.#httpPort}/metrics`)).text();
    const samples = text.split('\n').filter((line) => new RegExp(`^${name}[ {]`).test(line));
    expect(samples, name).not.toEqual([]);
    return samples.reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
  }

  get isSounding(): boolean {
    return isSounding(this.#led);
  }

  async #connect(deviceId: string, password: string): Promise<MqttClient> {
    const client = await connectAsync(`mqtt://127.0.0.1:${this.#port}`, {
      username: deviceId,
      password,
      reconnectPeriod: 0,
    });
    client.on('error', () => undefined);
    return client;
  }

  /** Further probes, by id. */
  async addProbes(ids: readonly string[]): Promise<void> {
    for (const id of ids) this.#keys.set(id, await addDevice(this.#configFile, id));
  }

  /** A leak is heard, whatever becomes of the message. */
  async leakIsHeard(probe = 'probe'): Promise<void> {
    const client = await this.#connect(probe, this.#keys.get(probe) ?? '');
    await client.publishAsync(`iotflow/devices/${probe}/telemetry/leak`, '{"wet": true}', { qos: 0 });
    await expect.poll(() => this.isSounding, patient).toBe(true);
    await client.endAsync(true);
  }

  /** Somebody presses the button: silent at once; resolves when the gateway says that it is durable. */
  async acknowledge(): Promise<void> {
    const client = await this.#connect('probe', this.#keys.get('probe') ?? '');
    await client.publishAsync('iotflow/devices/probe/alarms/acknowledge', '{"button": 1}', { qos: 1 });
    expect(this.isSounding).toBe(false);
    await client.endAsync(true);
  }

  /** kill -9, and a start on the disk as it is. */
  async crash(): Promise<void> {
    await this.gateway.kill();
    await this.restart();
  }

  /** @param outputFd Where its log goes. */
  async restart(outputFd?: number): Promise<void> {
    this.gateway = await startGateway(this.#configFile, {
      readyUrl: `http://127.0.0.1:${this.#httpPort}/health`,
      ...(outputFd !== undefined && { outputFd }),
    });
  }

  /** Waits until what the alarms are like is on the disk. */
  async saves(): Promise<void> {
    await expect.poll(() => this.metric('iotflow_alarm_unsaved'), patient).toBe(0);
  }

  /** Readings are acknowledged: many, not only what was under way. */
  async takesReadings(): Promise<void> {
    const before = this.witness.acknowledged.size;
    await expect.poll(() => this.witness.acknowledged.size, patient).toBeGreaterThan(before + 300);
  }

  /** The process that had the fault goes on without it: everything that was ever acknowledged arrives. */
  async nothingIsLost(): Promise<void> {
    this.influx.outage(false);
    await this.takesReadings();
    await this.witness.settled(80_000);
    await this.witness.stop();
    await expect.poll(() => this.#missing(), { ...patient, interval: 300 }).toBe(0);
    expect(this.gateway.child.exitCode ?? this.gateway.child.signalCode).toBeNull();
  }

  #missing(): number {
    const found = new Set<number>();
    for (const { series, timeNs } of this.influx.points()) {
      if (series.startsWith('load,')) found.add(Number(timeNs / 1_000_000n) - this.#startMs);
    }
    return [...this.witness.acknowledged].filter((n) => !found.has(n)).length;
  }
}
