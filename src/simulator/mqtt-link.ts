// A node's MQTT side, as firmware does it: QoS 1, persistent session, a last will, commands taken and answered.
// Reconnects after waits that the caller picks, so that a fleet does not come back in the same instant.

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
const givenBackPauseMs = 200;

export class MqttLink implements Link {
  readonly #options: MqttLinkOptions;
  readonly #client: MqttClient;
  readonly #prefix: string;
  #connections = 0;
  #failures = 0;
  #isReachable = true;
  #isClosing = false;
  #lastError: string | undefined;

  private constructor(options: MqttLinkOptions, prefix: string, client: MqttClient) {
    this.#options = options;
    this.#prefix = prefix;
    this.#client = client;
  }

  /** Returns at once; it connects, and connects again, on its own. */
  static open(options: MqttLinkOptions): MqttLink {
    const prefix = `${options.topicRoot}/devices/${options.deviceId}`;
    const settings: IClientOptions = {
      clientId: options.deviceId,
      clean: false,
      keepalive: 30,
      reconnectPeriod: options.reconnectWaitMs(1),
      connectTimeout: 5000,
      protocolVersion: options.protocolVersion ?? 4,
      will: { topic: `${prefix}/status/online`, payload: Buffer.from('offline'), qos: 1, retain: true },
      ...(options.login ?? {}),
      ...(options.ca === undefined ? {} : { ca: options.ca }),
      ...(options.protocolVersion === 5 ? { properties: { sessionExpiryInterval: sessionExpiryS } } : {}),
    };
    const link = new MqttLink(options, prefix, connect(options.url, settings));
    link.#listen();
    return link;
  }

  #listen(): void {
    const client = this.#client;
    client.on('connect', () => {
      this.#connections += 1;
      this.#failures = 0;
      this.#lastError = undefined;
      client.publish(`${this.#prefix}/status/online`, 'online', { qos: 1, retain: true });
      client.subscribe(`${this.#prefix}/commands/+`, { qos: 1 });
    });
    client.on('error', (error) => {
      this.#lastError = error.message;
    });
    // Both come before the client sets its timer by the period.
    const pickWait = (): void => {
      this.#failures += 1;
      if (this.#isReachable) client.options.reconnectPeriod = this.#options.reconnectWaitMs(this.#failures);
    };
    client.on('offline', pickWait);
    client.on('reconnect', pickWait);
    client.on('message', (topic, payload) => this.#take(topic, payload));
  }

  #take(topic: string, bytes: Buffer): void {
    const kind = topic.slice(topic.lastIndexOf('/') + 1);
    const payload = parseObject(bytes.toString());
    const answer = this.#options.onCommand({ kind, payload });
    const ack = { ...(payload.id === undefined ? {} : { id: payload.id }), ...answer };
    this.#client.publish(`${topic}/ack`, JSON.stringify(ack), { qos: 1 });
  }

  sendReading({ measurement, fields }: Reading, extra: Readonly<Record<string, number>>): Promise<Delivery> {
    return this.#publish(`telemetry/${measurement}`, JSON.stringify({ ...fields, ...extra }));
  }

  sendHeartbeat(): Promise<Delivery> {
    return this.#publish('status/heartbeat', JSON.stringify({ timestamp: Date.now() }));
  }

  #publish(name: string, payload: string): Promise<Delivery> {
    return new Promise((resolve) => {
      const send = (): void => {
        this.#client.publish(`${this.#prefix}/${name}`, payload, { qos: 1 }, (error) => {
          if (!error) return resolve({ kind: 'acknowledged' });
          if (error instanceof ErrorWithReasonCode && error.code >= firstErrorCode) {
            return resolve({ kind: 'refused', reason: error.message });
          }
          // The client sends again by itself, but gives back what it held when a connection ended during that.
          if (!this.#isClosing) setTimeout(send, givenBackPauseMs);
        });
      };
      send();
    });
  }

  setReach(isReachable: boolean): void {
    if (isReachable === this.#isReachable) return;
    this.#isReachable = isReachable;
    if (isReachable) {
      this.#client.options.reconnectPeriod = this.#options.reconnectWaitMs(1);
      this.#client.reconnect();
      return;
    }
    // Zero: it does not come back by itself.
    this.#client.options.reconnectPeriod = 0;
    this.#client.stream.destroy();
  }

  figures(): LinkFigures {
    return {
      isConnected: this.#client.connected,
      reconnects: Math.max(0, this.#connections - 1),
      lastError: this.#lastError,
    };
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    if (this.#client.connected) {
      await Promise.race([
        this.#client.publishAsync(`${this.#prefix}/status/online`, 'offline', { qos: 1, retain: true }),
        new Promise((resolve) => setTimeout(resolve, 1000)),
      ]).catch(() => undefined);
      // A goodbye: the last will is for those who could not say it.
      await Promise.race([this.#client.endAsync(), new Promise((resolve) => setTimeout(resolve, 1000))]);
    }
    await this.#client.endAsync(true);
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
