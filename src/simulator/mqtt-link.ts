// A node's MQTT side, as firmware does it: QoS 1, persistent session, a last will, commands taken and answered.
// Reconnects after waits that the caller picks, so that a fleet does not come back in the same instant. A client of
// the library serves one connection: what it had out when that ended is sent again by the next, from here.

import { connect, ErrorWithReasonCode, type IClientOptions, type MqttClient } from 'mqtt';
import type { CommandListener, Delivery, Link, LinkFigures, ReconnectWait } from './link.ts';
import type { Reading } from './readings.ts';

export interface MqttLinkOptions {
  /** `mqtt://`, `mqtts://` or `ws://` address of any broker. */
  readonly url: string;
  /** First level of the topics: `iotflow`. */
  readonly topicRoot: string;
  readonly deviceId: string;
  /** Undefined: the broker asks for none. */
  readonly login: { readonly username: string; readonly password: string } | undefined;
  /** PEM of the CA to trust, for `mqtts://`. */
  readonly ca?: Buffer;
  /** With 5, a refused message is told from an acknowledged one. Default 4 (3.1.1), which every broker speaks. */
  readonly protocolVersion?: 4 | 5;
  readonly reconnectWaitMs: ReconnectWait;
  readonly onCommand: CommandListener;
}

/** A session that nobody comes back to ends after this, seconds; MQTT 5 alone lets a node say so. */
const sessionExpiryS = 3600;
const firstErrorCode = 0x80;
/** Unacknowledged messages at once; fewer where the broker says so. */
const inFlightMax = 20;
const farewellMs = 1000;

interface Waiting {
  readonly topic: string;
  readonly payload: string;
  readonly settle: (delivery: Delivery) => void;
  /** Handed to this connection. */
  isOut: boolean;
}

export class MqttLink implements Link {
  readonly #options: MqttLinkOptions;
  readonly #prefix: string;
  /** In order; those that are out come first. */
  readonly #waiting = new Set<Waiting>();
  /** Of the connection that is, or is being made. */
  #client: MqttClient | undefined;
  #inFlight = 0;
  #inFlightMax = inFlightMax;
  #reconnectTimer: NodeJS.Timeout | undefined;
  #connections = 0;
  #failures = 0;
  #isReachable = true;
  #isClosing = false;
  #lastError: string | undefined;

  private constructor(options: MqttLinkOptions) {
    this.#options = options;
    this.#prefix = `${options.topicRoot}/devices/${options.deviceId}`;
  }

  /** Returns at once; it connects, and connects again, on its own. */
  static open(options: MqttLinkOptions): MqttLink {
    const link = new MqttLink(options);
    link.#connect();
    return link;
  }

  #connect(): void {
    const { url, deviceId, login, ca, protocolVersion = 4 } = this.#options;
    const settings: IClientOptions = {
      clientId: deviceId,
      clean: false,
      keepalive: 30,
      reconnectPeriod: 0,
      connectTimeout: 5000,
      protocolVersion,
      will: { topic: `${this.#prefix}/status/online`, payload: Buffer.from('offline'), qos: 1, retain: true },
      ...(login ?? {}),
      ...(ca === undefined ? {} : { ca }),
      ...(protocolVersion === 5 ? { properties: { sessionExpiryInterval: sessionExpiryS } } : {}),
    };
    const client = connect(url, settings);
    this.#client = client;
    client.on('connect', ({ properties }) => {
      this.#connections += 1;
      this.#failures = 0;
      this.#lastError = undefined;
      this.#inFlightMax = Math.min(inFlightMax, properties?.receiveMaximum ?? inFlightMax);
      client.publish(`${this.#prefix}/status/online`, 'online', { qos: 1, retain: true });
      client.subscribe(`${this.#prefix}/commands/+`, { qos: 1 });
      this.#send();
    });
    client.on('error', (error) => {
      this.#lastError = error.message;
      this.#drop(client);
    });
    client.on('close', () => this.#drop(client));
    client.on('message', (topic, payload) => this.#take(client, topic, payload));
  }

  /** That connection is over, without a goodbye. */
  #drop(client: MqttClient): void {
    if (client !== this.#client) return;
    this.#client = undefined;
    client.end(true);
    this.#inFlight = 0;
    for (const one of this.#waiting) one.isOut = false;
    if (!this.#isReachable || this.#isClosing) return;
    this.#failures += 1;
    const waitMs = this.#options.reconnectWaitMs(this.#failures);
    this.#reconnectTimer = setTimeout(() => this.#connect(), waitMs);
  }

  #take(client: MqttClient, topic: string, bytes: Buffer): void {
    const kind = topic.slice(topic.lastIndexOf('/') + 1);
    const payload = parseObject(bytes.toString());
    const answer = this.#options.onCommand({ kind, payload });
    const ack = { ...(payload.id === undefined ? {} : { id: payload.id }), ...answer };
    client.publish(`${topic}/ack`, JSON.stringify(ack), { qos: 1 });
  }

  sendReading({ measurement, fields }: Reading, extra: Readonly<Record<string, number>>): Promise<Delivery> {
    return this.#enqueue(`telemetry/${measurement}`, JSON.stringify({ ...fields, ...extra }));
  }

  sendHeartbeat(): Promise<Delivery> {
    return this.#enqueue('status/heartbeat', JSON.stringify({ timestamp: Date.now() }));
  }

  #enqueue(name: string, payload: string): Promise<Delivery> {
    return new Promise((settle) => {
      this.#waiting.add({ topic: `${this.#prefix}/${name}`, payload, settle, isOut: false });
      this.#send();
    });
  }

  /** What there is room for. */
  #send(): void {
    const client = this.#client;
    if (client?.connected !== true) return;
    for (const one of this.#waiting) {
      if (this.#inFlight >= this.#inFlightMax) return;
      if (one.isOut) continue;
      one.isOut = true;
      this.#inFlight += 1;
      client.publish(one.topic, one.payload, { qos: 1 }, (error) => this.#note(client, one, error));
    }
  }

  #note(client: MqttClient, one: Waiting, error: Error | undefined): void {
    // The client gives back what it held when its connection ended.
    if (client !== this.#client) return;
    const isRefused = error instanceof ErrorWithReasonCode && error.code >= firstErrorCode;
    if (error && !isRefused) return;
    this.#waiting.delete(one);
    this.#inFlight -= 1;
    one.settle(isRefused ? { kind: 'refused', reason: error.message } : { kind: 'acknowledged' });
    this.#send();
  }

  setReach(isReachable: boolean): void {
    if (isReachable === this.#isReachable) return;
    this.#isReachable = isReachable;
    clearTimeout(this.#reconnectTimer);
    if (isReachable) this.#connect();
    else if (this.#client !== undefined) this.#drop(this.#client);
  }

  figures(): LinkFigures {
    return {
      isConnected: this.#client?.connected === true,
      reconnects: Math.max(0, this.#connections - 1),
      lastError: this.#lastError,
    };
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    clearTimeout(this.#reconnectTimer);
    const client = this.#client;
    if (client === undefined) return;
    if (client.connected) {
      await Promise.race([
        client.publishAsync(`${this.#prefix}/status/online`, 'offline', { qos: 1, retain: true }),
        new Promise((resolve) => setTimeout(resolve, farewellMs)),
      ]).catch(() => undefined);
      // A goodbye: the last will is for those who could not say it.
      await Promise.race([client.endAsync(), new Promise((resolve) => setTimeout(resolve, farewellMs))]);
    }
    await client.endAsync(true);
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}
