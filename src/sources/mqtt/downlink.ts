// Commands to one device, each handed to the connection that listens for it, and its PUBACK told back. Nothing is
// queued here: a device that does not listen is "offline", and the outbox waits until `onReachable` says otherwise. So
// a command that expired or was cancelled meanwhile is not found in some session's queue when the device wakes.

import type { Delivery, Downlink, OutgoingCommand } from '../../model/command.ts';
import type { Broker, BrokerClient } from './broker-internals.ts';
import type { Connection } from './connection.ts';
import { sharedBy, type Wanted, wantedBy } from './subscription.ts';

export interface MqttDownlinkOptions {
  /** First levels of every topic. */
  readonly root: string;
  /** All there are, the latest last. */
  readonly connections: () => Iterable<Connection>;
  /** How long a PUBACK may take. */
  readonly answerTimeoutMs?: number;
}

type Settle = (delivery: Delivery) => void;

const defaults = { answerTimeoutMs: 20_000 };
/** PUBACK reason codes from here on are refusals [MQTT5, 3.4.2.1]. */
const firstRefusal = 0x80;

export class MqttDownlink implements Downlink {
  readonly #options: MqttDownlinkOptions;
  readonly #listeners: ((deviceId: string) => void)[] = [];
  /** What waits for its PUBACK, by packet id. */
  readonly #waiting = new Map<BrokerClient, Map<number, Settle>>();

  constructor(options: MqttDownlinkOptions) {
    this.#options = options;
  }

  /** To be called before anyone can connect. */
  attach(broker: Broker): void {
    // After SUBACK; and after a session came back with its subscriptions.
    broker.on('subscribe', (_subscriptions, client) => this.#listens(client as BrokerClient));
    broker.on('clientReady', (client) => this.#listens(client as BrokerClient));
  }

  onReachable(listener: (deviceId: string) => void): void {
    this.#listeners.push(listener);
  }

  async deliver(deviceId: string, { kind, payload }: OutgoingCommand): Promise<Delivery> {
    const topic = `${this.#options.root}/devices/${deviceId}/commands/${kind}`;
    const listener = this.#listenerTo(deviceId, topic);
    if (listener === undefined) return { kind: 'offline', wasSent: false };
    const { connection, wanted } = listener;
    const { identifiers } = wanted;
    // QoS 2 would cost two more round trips and promise no more: ids do.
    const qos = wanted.qos === 0 ? 0 : 1;
    const message = { topic, payload, qos, retain: false, identifiers } as const;
    const sent = connection.delivery?.sendNow(message) ?? 'busy';
    if (sent === 'busy') return { kind: 'busy' };
    if (sent === 'too-large') return { kind: 'refused', reason: 'larger than it takes' };
    if (sent === 0) return { kind: 'sent' };
    return await new Promise((resolve) => this.#await(connection.client, sent, resolve));
  }

  /** A PUBACK came, or an MQTT 5 refusal. */
  acknowledged(client: BrokerClient, messageId: number, reasonCode: number): void {
    const settle = this.#waiting.get(client)?.get(messageId);
    if (settle === undefined) return;
    const code = `0x${reasonCode.toString(16)}`;
    settle(
      reasonCode < firstRefusal ? { kind: 'taken' } : { kind: 'refused', reason: `MQTT reason ${code}` },
    );
  }

  disconnected(client: BrokerClient): void {
    const waiting = [...(this.#waiting.get(client)?.values() ?? [])];
    for (const settle of waiting) settle({ kind: 'offline', wasSent: true });
  }

  #listens(client: BrokerClient): void {
    for (const { client: one, account, subscriptions } of this.#options.connections()) {
      if (one !== client || account === undefined || subscriptions.size === 0) continue;
      for (const listener of this.#listeners) listener(account.deviceId);
    }
  }

  /** Where a device has several connections, an older one may be half open: the latest that listens. */
  #listenerTo(deviceId: string, topic: string): { connection: Connection; wanted: Wanted } | undefined {
    let found: { connection: Connection; wanted: Wanted } | undefined;
    for (const connection of this.#options.connections()) {
      const { account, client, subscriptions } = connection;
      if (account?.deviceId !== deviceId || !client.connected || client.closed) continue;
      const wanted =
        wantedBy(subscriptions.values(), topic, false) ?? sharedBy(subscriptions.values(), topic);
      if (wanted !== undefined) found = { connection, wanted };
    }
    return found;
  }

  #await(client: BrokerClient, messageId: number, resolve: Settle): void {
    const { answerTimeoutMs = defaults.answerTimeoutMs } = this.#options;
    const waiting = this.#waiting.get(client) ?? new Map<number, Settle>();
    this.#waiting.set(client, waiting);
    const settle: Settle = (delivery) => {
      clearTimeout(timer);
      waiting.delete(messageId);
      if (waiting.size === 0) this.#waiting.delete(client);
      resolve(delivery);
    };
    const timer = setTimeout(() => settle({ kind: 'unanswered' }), answerTimeoutMs).unref();
    waiting.set(messageId, settle);
  }
}
