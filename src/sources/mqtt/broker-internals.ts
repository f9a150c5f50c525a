// Everything this source relies on in aedes 2.0.0-beta.1 beyond its documented interface, in one place. The version
// is pinned in package.json; each use has a test, so that an update which breaks one is seen.
//
//  1. Hooks: `authorizePublish` is the only awaited step ahead of PUBACK and PUBREC; `_notAuthorized` set on the
//     packet makes aedes neither acknowledge nor publish it (lib/handlers/publish.js, enqueuePublish).
//  2. `broker.clients` and `client.subscriptions` are plain objects: an id or a filter named `__proto__` or
//     `constructor` finds a function there and throws out of the parser. Ours have no prototype.
//  3. `client.waitForDrain` makes the emitter, and so every publisher, wait for one slow socket: up to a minute in
//     aedes, a moment in ours (see outflow.ts).
//  4. `client.deliver0` and `deliverQoS` are captured by every subscription: ours are the client's `Delivery`.
//  5. aedes reads with `conn.read(null)`: that is where the packet guard stands.
//  6. The keep-alive timer is refreshed by packets only: while we hold a client's packets we refresh it.
//  7. `_parser` emits `packet`; its one listener handles it. `_parseProperties` and `_parseStringPair` are called as its
//     methods. `outgoingStream` is asked for right after CONNACK.
//  8. `_nextBatch` reads on: aedes itself does so only for packets that went through its parser.
//  9. `_serverKeepAlive`, set before `preConnect` is answered, is told to MQTT 5 clients.
// 10. Of CONNACK to an MQTT 5 client it cannot be asked to leave "no shared subscriptions" out: it writes the packet
//     in pieces to `conn.write`, where we put them together and replace it.
// 11. A SUBSCRIBE may name a filter that aedes refuses (`$share/`) or answers once although it came twice: such a one
//     goes by another name, which no topic can have; `client.subscriptions[name].func` is its listener.
// 12. `scheduleWill` and `clearDelayedWill` are methods of the broker, found at every call: ours keep the delay.

import assert from 'node:assert/strict';
import type { EventEmitter } from 'node:events';
import type { Duplex } from 'node:stream';
import { Aedes, type AedesOptions } from 'aedes';
import { generate, parser as mqttParser } from 'mqtt-packet';
import { type Subscription, sharedFilter } from './subscription.ts';

export interface BrokerPacket {
  /** Absent on wills. */
  cmd?: string;
  topic: string;
  payload: Buffer;
  qos: 0 | 1 | 2;
  retain: boolean;
  dup?: boolean;
  messageId?: number | undefined;
  /** Null on a retained message for a new subscription. */
  brokerId?: string | null;
  brokerCounter?: number;
  clientId?: string;
  properties?: Record<string, unknown>;
  messageExpiry?: number;
  reasonCode?: number;
  /** See 1. */
  _notAuthorized?: boolean;
}

export interface BrokerSubscription {
  topic: string;
  qos: number;
  rh?: number;
  rap?: boolean;
  nl?: boolean;
  subscriptionIdentifier?: number;
  /** Ours: what the client asked for, where aedes was told something else. */
  asked?: Subscription;
}

type Deliver = (packet: BrokerPacket, done: () => void) => void;
type Answer<T = unknown> = (error: Error | null | undefined, value?: T) => void;

interface Parser extends EventEmitter {
  parse(bytes: Buffer): void;
  _parseProperties(): Record<string, unknown> | false;
  _parseStringPair(): { readonly name: string; readonly value: string };
}

export interface BrokerClient {
  readonly id: string;
  readonly version: number | null;
  readonly clean: boolean;
  readonly connected: boolean;
  readonly connecting: boolean;
  /** CONNACK is out; packets that came before it are still to be handled until `connected`. */
  readonly connackSent: boolean;
  readonly closed: boolean;
  readonly conn: Duplex;
  readonly sessionExpiryInterval: number;
  readonly _cleanStart?: boolean;
  /** A DISCONNECT came: no will. */
  readonly _disconnected: boolean;
  readonly _keepaliveInterval: number;
  readonly _keepaliveTimer: NodeJS.Timeout | null;
  _serverKeepAlive?: number;
  will: BrokerPacket | null;
  _will: BrokerPacket | null;
  subscriptions: Record<string, { readonly qos: number; readonly func: Deliver } | undefined>;
  deliver0: Deliver;
  deliverQoS: Deliver;
  readonly _parser: Parser;
  waitForDrain(done: (error: Error | null, client: BrokerClient) => void): void;
  disconnect(
    options: { reasonCode?: number; properties?: { reasonString: string } },
    done?: () => void,
  ): void;
  close(done?: () => void): void;
  emit(event: 'error', error: Error): void;
  _nextBatch(): void;
}

/** Whatever fields its kind of packet has. */
export interface IncomingPacket {
  readonly cmd: string;
  readonly messageId?: number;
  readonly reasonCode?: number;
  readonly subscriptions?: BrokerSubscription[];
  readonly unsubscriptions?: string[];
  readonly properties?: Record<string, unknown>;
}

export interface ConnackPacket {
  readonly reasonCode: number;
  readonly properties?: Readonly<Record<string, unknown>>;
}

export interface ConnectPacket {
  properties?: Record<string, unknown>;
  clientId: string;
  keepalive: number;
  clean: boolean;
  protocolVersion: number;
  will?: BrokerPacket;
}

export interface Broker {
  readonly id: string;
  readonly closed: boolean;
  clients: Record<string, BrokerClient | undefined>;
  handle(connection: Duplex): BrokerClient;
  publish(packet: object, client: BrokerClient | null, done: (error?: Error | null) => void): void;
  subscribe(filter: string, listener: Deliver, done: () => void): void;
  unsubscribe(filter: string, listener: Deliver, done: () => void): void;
  close(done: () => void): void;
  scheduleWill(client: BrokerClient, will: BrokerPacket, delayS: number): void;
  clearDelayedWill(clientId: string): void;
  on(event: string, listener: (...args: unknown[]) => void): unknown;
}

export interface BrokerHooks {
  preConnect(client: BrokerClient, packet: ConnectPacket, answer: Answer<boolean>): void;
  authenticate(
    client: BrokerClient,
    userName: string | undefined,
    password: Buffer | undefined,
    answer: Answer<boolean | null>,
  ): void;
  authorizePublish(client: BrokerClient | null, packet: BrokerPacket, done: Answer): void;
  authorizeSubscribe(
    client: BrokerClient,
    subscription: BrokerSubscription,
    answer: Answer<BrokerSubscription | null>,
  ): void;
}

export interface BrokerSettings {
  readonly persistence: object;
  readonly hooks: BrokerHooks;
  readonly connectTimeoutMs: number;
  readonly packetBytes: number;
  readonly inflightInbound: number;
  readonly sessionExpiryS: number;
  readonly sessions: number;
  /** What a client that asks for Response Information is told. */
  readonly responseInformation: (client: BrokerClient) => string | undefined;
}

/** Names of at most `topicBytes` that one connection may have us remember. */
const topicAliasesMax = 32;

export async function openBroker(settings: BrokerSettings): Promise<Broker> {
  const options = {
    persistence: settings.persistence,
    ...settings.hooks,
    // No limit inside the emitter: publishers wait for their own messages, which bounds it.
    concurrency: 0,
    connectTimeout: settings.connectTimeoutMs,
    // Packets a client sends on the heels of CONNECT wait here; the guard bounds their bytes.
    queueLimit: 256,
    maximumPacketSize: settings.packetBytes,
    receiveMaximum: settings.inflightInbound,
    topicAliasMaximum: topicAliasesMax,
    sessionExpiryIntervalLimit: settings.sessionExpiryS,
    pendingSessionsLimit: settings.sessions,
    maxTopicLevels: 100,
    responseInformation: settings.responseInformation,
  };
  const broker = (await Aedes.createBroker(options as unknown as AedesOptions)) as unknown as Broker;
  broker.clients = Object.create(null) as Broker['clients'];
  return broker;
}

/** Prepares a client that aedes just made; nothing was read from it yet. */
export function adoptClient(
  client: BrokerClient,
  outflow: {
    deliver: Deliver;
    waitForDrain(done: () => void): void;
  },
): void {
  client.subscriptions = Object.create(null) as BrokerClient['subscriptions'];
  client.waitForDrain = (done) => outflow.waitForDrain(() => done(null, client));
  client.deliver0 = outflow.deliver;
  client.deliverQoS = outflow.deliver;
  keepUserProperties(client._parser);
}

/** The parser makes an object of them, which forgets the order of different names [MQTT-3.3.2-18]. */
function keepUserProperties(parser: Parser): void {
  const { _parseProperties: parseProperties, _parseStringPair: parsePair } = parser;
  let pairs: [name: string, value: string][] | undefined;
  parser._parseStringPair = () => {
    const pair = parsePair.call(parser);
    pairs ??= [];
    pairs.push([pair.name, pair.value]);
    return pair;
  };
  parser._parseProperties = () => {
    pairs = undefined;
    const properties = parseProperties.call(parser);
    if (properties !== false && pairs !== undefined) properties.userProperties = pairs;
    return properties;
  };
}

/**
 * Gives filters of a SUBSCRIBE or UNSUBSCRIBE names under which aedes takes them, and tells `hooks.authorizeSubscribe`
 * what the client asked for.
 */
export function renameFilters({
  subscriptions = [],
  unsubscriptions = [],
  properties,
}: IncomingPacket): void {
  const { subscriptionIdentifier } = properties ?? {};
  const later = new Set<string>();
  for (const [at, subscription] of [...subscriptions.entries()].reverse()) {
    const asked = { ...subscription };
    if (typeof subscriptionIdentifier === 'number') Object.assign(asked, { subscriptionIdentifier });
    Object.assign(subscription, forBroker(asked), { asked });
    // The last of them counts [MQTT-3.8.4-3], each has its answer [MQTT-3.8.4-5].
    if (later.has(asked.topic)) subscription.topic = `${superseded}${at}`;
    later.add(asked.topic);
  }
  const gone = new Set<string>();
  for (const [at, filter] of unsubscriptions.entries()) {
    unsubscriptions[at] = gone.has(filter) ? `${superseded}${at}` : brokerName(filter);
    gone.add(filter);
  }
}

const superseded = '\0superseded/';

/** Takes away what was subscribed to for the sake of its answer alone. */
export function dropSuperseded(broker: Broker, client: BrokerClient): void {
  for (const [name, subscription] of Object.entries(client.subscriptions)) {
    if (subscription === undefined || !name.startsWith(superseded)) continue;
    delete client.subscriptions[name];
    broker.unsubscribe(name, subscription.func, () => {});
  }
}

/** Shared subscriptions are served by us (shared-subscriptions.ts); aedes holds a filter that no topic matches. */
function brokerName(filter: string): string {
  return sharedFilter(filter) === undefined ? filter : `\0${filter}`;
}

/** The client's filter behind a name that aedes has. */
export function filterOf(name: string): string {
  return name.startsWith('\0$') ? name.slice(1) : name;
}

/**
 * What aedes is to do with a subscription: hand on every message as it was published. The client's own wishes are
 * seen to where the messages of all its subscriptions meet.
 */
export function forBroker({ topic, qos, rh }: Subscription): BrokerSubscription {
  return { topic: brokerName(topic), qos, rap: true, nl: false, ...(rh === undefined ? {} : { rh }) };
}

/** Lets `edit` replace the CONNACK that aedes writes to an MQTT 5 client; nothing else is written ahead of it. */
export function editConnack(stream: Duplex, edit: (packet: ConnackPacket) => object): void {
  const write = stream.write;
  const parser = mqttParser({ protocolVersion: 5 });
  parser.on('packet', (packet) => {
    stream.write = write;
    const properties = edit(packet as unknown as ConnackPacket);
    stream.write(generate({ ...packet, properties } as typeof packet, { protocolVersion: 5 }));
  });
  stream.write = ((piece: Buffer | string) => {
    parser.parse(Buffer.from(piece as string));
    return true;
  }) as typeof stream.write;
}

/** Shows every packet to `inspect` before aedes handles it; one that is not to be handled is kept from it. */
export function inspectPackets(client: BrokerClient, inspect: (packet: IncomingPacket) => boolean): void {
  const parser = client._parser;
  const [handle] = parser.listeners('packet');
  assert(handle !== undefined, 'BUG: aedes listens to its parser');
  parser.removeAllListeners('packet');
  parser.on('packet', (packet: IncomingPacket) => {
    if (inspect(packet)) handle.call(parser, packet);
  });
}

/**
 * Puts `inspect` between the socket and aedes' parser; what it returns is what the parser sees. While `isSated`,
 * nothing is taken from the socket, whose sender is then held by TCP.
 */
export function inspectReads(
  connection: Duplex,
  isSated: () => boolean,
  inspect: (chunk: Buffer) => Buffer | null,
): void {
  const read = connection.read.bind(connection);
  connection.read = (size?: number | null) => {
    if (size === null && isSated()) return null;
    const chunk: unknown = read(size ?? undefined);
    return Buffer.isBuffer(chunk) ? inspect(chunk) : chunk;
  };
}

export function keepAwake(client: BrokerClient): void {
  if (client._keepaliveInterval > 0) client._keepaliveTimer?.refresh();
}
