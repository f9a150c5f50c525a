// The nodes of the soak, and its ledger: what each of them was told is stored. Real MQTT clients with durable
// sessions that send again what was not acknowledged, as nodes do.

import { connect, type MqttClient } from 'mqtt';

export interface NodeOptions {
  readonly port: number;
  readonly deviceId: string;
  readonly apiKey: string;
  /** Messages sent and not yet acknowledged, at most. */
  readonly window: number;
  readonly pauseMs: number;
  readonly qos: 1 | 2;
  /** The measurement of the n-th message at this moment, and its payload, which carries n. */
  readonly measurement: (n: number) => string;
  readonly payload: (n: number) => string;
}

export interface Told {
  readonly measurement: string;
  readonly sentMs: number;
  /** By the real clock; undefined until the acknowledgement came. */
  ackedMs: number | undefined;
}

/** Publishes until stopped, through everything. */
export class SoakNode {
  readonly deviceId: string;
  /** Message n is entry n - 1. */
  readonly ledger: Told[] = [];
  readonly #options: NodeOptions;
  readonly #client: MqttClient;
  #acknowledged = 0;
  #isStopped = false;

  private constructor(options: NodeOptions) {
    this.deviceId = options.deviceId;
    this.#options = options;
    this.#client = connect(`mqtt://127.0.0.1:${options.port}`, {
      clientId: options.deviceId,
      username: options.deviceId,
      password: options.apiKey,
      clean: false,
      reconnectPeriod: 200,
      connectTimeout: 3000,
      keepalive: 10,
    });
    this.#client.on('error', () => undefined);
  }

  static start(options: NodeOptions): SoakNode {
    const node = new SoakNode(options);
    for (let index = 0; index < options.window; index += 1) node.#next();
    return node;
  }

  get acknowledged(): number {
    return this.#acknowledged;
  }

  get isSettled(): boolean {
    return this.#acknowledged === this.ledger.length;
  }

  /** As when somebody walks between the node and the access point. */
  drop(): void {
    this.#client.stream.destroy();
  }

  /** Nothing new; what is under way goes on. */
  stop(): void {
    this.#isStopped = true;
  }

  async close(): Promise<void> {
    this.stop();
    await this.#client.endAsync(true);
  }

  #next(): void {
    if (this.#isStopped) return;
    const { qos, pauseMs } = this.#options;
    const n = this.ledger.length + 1;
    const told: Told = { measurement: this.#options.measurement(n), sentMs: Date.now(), ackedMs: undefined };
    this.ledger.push(told);
    const topic = `iotflow/devices/${this.deviceId}/telemetry/${told.measurement}`;
    const payload = this.#options.payload(n);
    const publish = (): void => {
      this.#client.publish(topic, payload, { qos }, (error) => {
        if (error) {
          // What is given to MQTT.js while it sends the past again, and the connection ends just then, it gives back
          // unsent and forgets.
          if (!this.#client.disconnecting) setImmediate(publish);
          return;
        }
        told.ackedMs = Date.now();
        this.#acknowledged += 1;
        setTimeout(() => this.#next(), pauseMs);
      });
    };
    publish();
  }
}
