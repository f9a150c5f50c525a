// `iotflow demo`: the main job, end to end, on this machine alone: a gateway, three virtual nodes and a stand-in
// for InfluxDB on 127.0.0.1, with data of their own that is gone afterwards. The uplink is unplugged and restored,
// a probe gets wet, the alarm waits to be acknowledged. At the end the books must balance.

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { loadConfig } from '../config/load.ts';
import type { Config } from '../config/schema.ts';
import { Gateway } from '../gateway.ts';
import { systemClock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import { createLog } from '../platform/log.ts';
import { FakeInflux } from '../simulator/influx.ts';
import { MqttLink } from '../simulator/mqtt-link.ts';
import { SimulatedNode, type SimulatedNodeOptions } from '../simulator/node.ts';
import { seededRandom } from '../simulator/random.ts';
import type { NodeKind } from '../simulator/readings.ts';
import type { Call, Command } from './command.ts';
import { createDemoView, type DemoFigures, type DemoView } from './demo-view.ts';
import { reconnectWait } from './simulation.ts';

const story = {
  cutMs: 10_000,
  restoreMs: 25_000,
  wetMs: 35_000,
  /** Somebody watching may be quicker. */
  acknowledgeMs: 50_000,
  dryMs: 55_000,
  summaryMs: 65_000,
} as const;

const drawMs = 250;
const nodeIntervalMs = 200;
const drainMs = 10_000;

const nodes = [
  { deviceId: 'main-meter', name: 'Main meter', kind: 'meter', location: 'Basement' },
  { deviceId: 'hall-climate', name: 'Hall', kind: 'climate', location: 'Hall' },
  { deviceId: 'kitchen-probe', name: 'Kitchen probe', kind: 'leak-probe', location: 'Kitchen' },
] as const satisfies readonly { deviceId: string; name: string; kind: NodeKind; location: string }[];

/** A folder that looks like the kernel's LED class, where the demo's buzzer is. */
function makeLed(folder: string): string {
  const directory = join(folder, 'leds', 'demo-buzzer');
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'max_brightness'), '1\n');
  writeFileSync(join(directory, 'brightness'), '0\n');
  writeFileSync(join(directory, 'trigger'), '[none] timer pattern\n');
  writeFileSync(join(directory, 'pattern'), '');
  return directory;
}

function demoConfig(folder: string, influxUrl: string): Config {
  const text = JSON.stringify({
    version: 1,
    gateway_id: 'demo',
    data_dir: join(folder, 'data'),
    log: { level: 'silent' },
    mqtt: { host: '127.0.0.1', port: 0, tls: { port: 0 }, ws: { port: 0 } },
    http: { host: '127.0.0.1', port: 0 },
    https: { port: 0 },
    influx: { url: influxUrl, token: 'demo', flush_interval_ms: 500 },
    buzzer: { led: makeLed(folder) },
    host_health: { interval_ms: 10_000 },
  });
  const loaded = loadConfig({ text, env: {} });
  if ('faults' in loaded)
    throw new GatewayError('CONFIG_INVALID', loaded.faults.map(({ message }) => message).join());
  return loaded.config;
}

async function addDevice(gateway: Gateway, node: (typeof nodes)[number]): Promise<string> {
  const add = gateway.operations.get('devices.add');
  const { deviceId, name, kind, location } = node;
  const added = (await add?.({ device_id: deviceId, name, type: kind, location })) as { api_key: string };
  return added.api_key;
}

class Demo {
  readonly #gateway: Gateway;
  readonly #influx: FakeInflux;
  readonly #view: DemoView;
  readonly #startMs = performance.now();
  readonly #nodes: SimulatedNode[] = [];
  #isUplinkUp = true;
  #wasSounding = false;
  #isWet = false;

  constructor(gateway: Gateway, influx: FakeInflux, view: DemoView) {
    this.#gateway = gateway;
    this.#influx = influx;
    this.#view = view;
  }

  get elapsedMs(): number {
    return performance.now() - this.#startMs;
  }

  async addNodes(): Promise<void> {
    for (const [index, node] of nodes.entries()) {
      this.#nodes.push(
        SimulatedNode.start({
          kind: node.kind,
          intervalMs: nodeIntervalMs,
          lossShare: 0,
          random: seededRandom(index + 1),
          openLink: await this.#linkOf(node),
        }),
      );
    }
    this.tell(`${nodes.length} nodes connect over MQTT; each reading is on disk before its PUBACK`);
  }

  async #linkOf(node: (typeof nodes)[number]): Promise<SimulatedNodeOptions['openLink']> {
    const password = await addDevice(this.#gateway, node);
    return (onCommand) =>
      MqttLink.open({
        url: `mqtt://127.0.0.1:${this.#gateway.ports.mqtt}`,
        topicRoot: 'iotflow',
        deviceId: node.deviceId,
        login: { username: node.deviceId, password },
        reconnectWaitMs: reconnectWait(Math.random),
        onCommand,
      });
  }

  tell(text: string): void {
    this.#view.tell(this.elapsedMs, text);
  }

  setUplink(isUp: boolean): void {
    if (isUp === this.#isUplinkUp) return;
    this.#isUplinkUp = isUp;
    this.#influx.outage(!isUp);
    this.tell(
      isUp
        ? 'uplink restored: the backlog drains, fresh readings beside it'
        : 'uplink unplugged: readings are still acknowledged, and wait on disk',
    );
  }

  toggleUplink(): void {
    this.setUplink(!this.#isUplinkUp);
  }

  setWet(isWet: boolean): void {
    if (isWet === this.#isWet) return;
    this.#isWet = isWet;
    this.#nodes.at(-1)?.setWet(isWet);
    this.tell(isWet ? 'water at the kitchen probe' : 'the kitchen probe is dry again');
  }

  toggleWet(): void {
    this.setWet(!this.#isWet);
  }

  async acknowledge(by: string): Promise<void> {
    const sounding = this.figures().isSounding;
    await this.#gateway.operations.get('alarms.acknowledge')?.({ by });
    if (sounding) this.tell(`alarm acknowledged by ${by}: silent`);
  }

  figures(): DemoFigures {
    const { alarms, forwarder } = this.#gateway.figures();
    const list = this.#nodes.map((node) => node.figures());
    return {
      elapsedMs: this.elapsedMs,
      addresses: [
        `http://127.0.0.1:${this.#gateway.ports.http}/health`,
        `mqtt://127.0.0.1:${this.#gateway.ports.mqtt}`,
      ],
      nodes: nodes.map(({ deviceId }, index) => ({
        deviceId,
        connected: list[index]?.connected ?? false,
        acknowledged: list[index]?.acknowledged ?? 0,
      })),
      sent: list.reduce((sum, node) => sum + node.sent, 0),
      acknowledged: list.reduce((sum, node) => sum + node.acknowledged, 0),
      waiting: forwarder.pending.urgent + forwarder.pending.fresh + forwarder.pending.backlog,
      delivered: this.delivered(),
      uplinkIsUp: this.#isUplinkUp,
      alarms: alarms.list,
      isSounding: alarms.sound !== 'off',
      alarmLatencyMs: alarms.latency.count > 0 ? alarms.latency.maxMs : undefined,
    };
  }

  /** Readings of the nodes that InfluxDB has; the gateway's own points are not counted. */
  delivered(): number {
    let count = 0;
    for (const { series } of this.#influx.points()) if (/^(water|climate|leak),/.test(series)) count += 1;
    return count;
  }

  draw(): void {
    const figures = this.figures();
    if (figures.isSounding) this.#view.ring();
    if (figures.isSounding && !this.#wasSounding) {
      this.tell(`ALARM: the buzzer is on, ${figures.alarmLatencyMs?.toFixed(1)} ms after the message`);
    }
    this.#wasSounding = figures.isSounding;
    this.#view.draw(figures);
  }

  /** Stops the nodes and waits until everything acknowledged has arrived. Answers what is missing. */
  async balance(): Promise<{ acknowledged: number; delivered: number }> {
    this.setUplink(true);
    await Promise.all(this.#nodes.map((node) => node.stop(drainMs)));
    const acknowledged = this.figures().acknowledged;
    const deadlineMs = performance.now() + drainMs;
    while (this.delivered() < acknowledged && performance.now() < deadlineMs) await sleep(50);
    return { acknowledged, delivered: this.delivered() };
  }
}

/** Keys, where there is a terminal to read them from. Answers what undoes it. */
function listenToKeys(demo: Demo, interrupt: () => void): () => void {
  const { stdin } = process;
  if (!stdin.isTTY) return () => undefined;
  const onKey = (bytes: Buffer) => {
    const key = bytes.toString();
    if (key === '\u0003' || key === 'q') interrupt();
    if (key === ' ') void demo.acknowledge('you');
    if (key === 'u') demo.toggleUplink();
    if (key === 'w') demo.toggleWet();
  };
  stdin.setRawMode(true);
  stdin.resume();
  stdin.on('data', onKey);
  return () => {
    stdin.off('data', onKey);
    stdin.setRawMode(false);
    stdin.pause();
  };
}

async function tellStory(demo: Demo, durationMs: number, interrupted: AbortSignal): Promise<void> {
  const events: readonly (readonly [number, () => void | Promise<void>])[] = [
    [story.cutMs, () => demo.setUplink(false)],
    [story.restoreMs, () => demo.setUplink(true)],
    [story.wetMs, () => demo.setWet(true)],
    [story.acknowledgeMs, () => demo.acknowledge('the demo')],
    [story.dryMs, () => demo.setWet(false)],
    [story.summaryMs, () => demo.tell('that was the story; it goes on until Ctrl-C')],
  ];
  let next = 0;
  while (!interrupted.aborted && demo.elapsedMs < durationMs) {
    for (let event = events[next]; event !== undefined && demo.elapsedMs >= event[0]; event = events[next]) {
      next += 1;
      await event[1]();
    }
    demo.draw();
    await sleep(drawMs, undefined, { signal: interrupted }).catch(() => undefined);
  }
}

async function run(call: Call, version: string): Promise<number> {
  const durationText = call.text('duration');
  const durationMs = durationText === undefined ? Number.POSITIVE_INFINITY : Number(durationText) * 1000;
  if (!(durationMs > 0)) {
    throw new GatewayError('ARGUMENT_INVALID', `--duration: expected seconds, got "${durationText}"`);
  }
  const folder = mkdtempSync(join(tmpdir(), 'iotflow-demo-'));
  const interrupted = new AbortController();
  const interrupt = () => interrupted.abort();
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  const influx = await FakeInflux.start({ token: 'demo', org: 'iotflow', bucket: 'telemetry' });
  const config = demoConfig(folder, influx.url);
  const log = createLog(config.log.level);
  const gateway = await Gateway.open({ config, clock: systemClock(), random: Math.random, log, version });
  const view = createDemoView({
    write: (text) => void call.stdout.write(text),
    isTerminal: process.stdout.isTTY === true,
    columns: process.stdout.columns ?? 100,
  });
  const demo = new Demo(gateway, influx, view);
  let stopKeys = () => {};
  try {
    demo.tell(
      `gateway ready: http://127.0.0.1:${gateway.ports.http}/health and /metrics, mqtt://127.0.0.1:${gateway.ports.mqtt}`,
    );
    stopKeys = listenToKeys(demo, interrupt);
    await demo.addNodes();
    await tellStory(demo, durationMs, interrupted.signal);
    demo.tell('ending: the nodes stop, the last readings are delivered');
    const { acknowledged, delivered } = await demo.balance();
    demo.draw();
    view.close();
    const lost = Math.max(0, acknowledged - delivered);
    call.stdout.write(`acknowledged ${acknowledged}, in InfluxDB ${delivered}, lost ${lost}\n`);
    return lost === 0 ? 0 : 1;
  } finally {
    stopKeys();
    await gateway.close();
    await influx.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

/** The demo, for the version of package.json. */
export function demoCommand(version: string): Command {
  return {
    name: 'demo',
    summary: 'See the main job on this machine: an outage, a leak, nothing lost',
    options: {
      duration: { type: 'string', value: 'SECONDS', help: 'End by itself; default until Ctrl-C' },
    },
    run: (call) => run(call, version),
  };
}
