// A virtual node: a sensor, an MQTT client and the patience of real firmware. It numbers its readings, keeps
// those that were not acknowledged, and sends them again after a reconnect. Promises an exact count of what it
// made and what was acknowledged; does not promise to survive its own process.

import { connect, type MqttClient } from 'mqtt';
import type { Random } from './random.ts';
import { createSensor, type NodeKind } from './readings.ts';

export interface SimulatedNodeOptions {
  /** `mqtt://`, `mqtts://` or `ws://` address of any broker. */
  readonly url: string;
  /** First level of the topics: `iotflow`. */
  readonly topicRoot: string;
  readonly deviceId: string;
  readonly apiKey: string;
  readonly kind: NodeKind;
  readonly intervalMs: number;
  /** Share of readings that the node's radio loses before they are sent, 0 to 1. */
  readonly lossShare: number;
  readonly random: Random;
  /** PEM of the CA to trust, for `mqtts://`. */
  readonly ca?: Buffer;
  /** Readings kept while the broker is away; the oldest goes first. Default 10,000. */
  readonly readingsMax?: number;
}

export interface NodeFigures {
  /** Readings handed to the MQTT client. */
  readonly sent: number;
  readonly acknowledged: number;
  /** Lost on purpose, by `lossShare`. */
  readonly lost: number;
  /** Made while too many waited for the broker. */
  readonly overflowed: number;
  readonly connected: boolean;
  /** Why the broker last refused or dropped the connection. */
  readonly lastError: string | undefined;
}

export class SimulatedNode {
  readonly #options: SimulatedNodeOptions;
  readonly #client: MqttClient;
  /** Milliseconds from publish to PUBACK; the last 10,000. */
  readonly #ackMs: number[] = [];
  #timer: NodeJS.Timeout | undefined;
  #wet = false;
  #seq = 0;
  #sent = 0;
  #acknowledged = 0;
  #lost = 0;
  #overflowed = 0;
  #lastError: string | undefined;

  private constructor(options: SimulatedNodeOptions, client: MqttClient) {
    this.#options = options;
    this.#client = client;
  }

  /** Returns at once; the node connects, and connects again, on its own. */
  static start(options: SimulatedNodeOptions): SimulatedNode {
    const prefix = `${options.topicRoot}/devices/${options.deviceId}`;
    const client = connect(options.url, {
      clientId: options.deviceId,
      username: options.deviceId,
      password: options.apiKey,
      clean: false,
      keepalive: 30,
      reconnectPeriod: 1000,
      connectTimeout: 5000,
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      will: { topic: `${prefix}/status/online`, payload: Buffer.from('offline'), qos: 1, retain: true },
    });
    const node = new SimulatedNode(options, client);
    client.on('connect', () => {
      node.#lastError = undefined;
      client.publish(`${prefix}/status/online`, 'online', { qos: 1, retain: true });
    });
    client.on('error', (error) => {
      node.#lastError = error.message;
    });
    node.#run();
    return node;
  }

  #run(): void {
    const boot = Math.floor(this.#options.random() * 4_294_967_296);
    const sensor = createSensor(this.#options.kind, this.#options.random, () => this.#wet);
    const measure = () => {
      const reading = sensor(this.#options.intervalMs);
      this.#seq += 1;
      if (this.#options.random() < this.#options.lossShare) {
        this.#lost += 1;
        return;
      }
      const payload = { ...reading.fields, timestamp: Date.now(), boot, seq: this.#seq };
      this.#publish(reading.measurement, JSON.stringify(payload));
    };
    measure();
    this.#timer = setInterval(measure, this.#options.intervalMs);
  }

  #publish(measurement: string, payload: string): void {
    if (this.#sent - this.#acknowledged >= (this.#options.readingsMax ?? 10_000)) {
      this.#overflowed += 1;
      return;
    }
    const topic = `${this.#options.topicRoot}/devices/${this.#options.deviceId}/telemetry/${measurement}`;
    const sentMs = performance.now();
    this.#sent += 1;
    this.#client.publish(topic, payload, { qos: 1 }, (error) => {
      // The client itself sends again after a reconnect; an error here means it was told to end.
      if (error) return;
      this.#acknowledged += 1;
      this.#ackMs.push(performance.now() - sentMs);
      if (this.#ackMs.length > 10_000) this.#ackMs.shift();
    });
  }

  /** Puts the probe into water, or dries it. A change is sent at once, as firmware does. */
  setWet(wet: boolean): void {
    if (wet === this.#wet) return;
    this.#wet = wet;
    this.#publish('leak', JSON.stringify({ wet, timestamp: Date.now() }));
  }

  figures(): NodeFigures {
    return {
      sent: this.#sent,
      acknowledged: this.#acknowledged,
      lost: this.#lost,
      overflowed: this.#overflowed,
      connected: this.#client.connected,
      lastError: this.#lastError,
    };
  }

  /** Milliseconds from publish to PUBACK, unordered; the last 10,000. */
  ackLatenciesMs(): readonly number[] {
    return this.#ackMs;
  }

  /** Stops measuring, waits up to `drainMs` for the outstanding PUBACKs, disconnects. */
  async stop(drainMs: number): Promise<void> {
    clearInterval(this.#timer);
    const deadlineMs = performance.now() + drainMs;
    while (this.#acknowledged < this.#sent && performance.now() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await this.#client.endAsync(true);
  }
}
