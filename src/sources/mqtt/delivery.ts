// What goes out to one client as PUBLISH: one copy of each message, in order, no more unacknowledged ones than the
// client's Receive Maximum, no packet larger than its Maximum Packet Size, topics as aliases where it takes them.
//
// Promises: what does not fit the window waits, in the session's durable queue where there is a session and in
// memory, bounded, where there is none. A message that expires before it was sent is not sent, and one that is sent
// carries the lifetime that remains [MQTT-3.3.2-5, -6].

import type { BrokerPacket } from './broker-internals.ts';
import type { Connection } from './connection.ts';
import type { MqttLimits } from './limits.ts';
import { encodePublishHead } from './publish-codec.ts';
import type { QueuedMessage, Session, Sessions } from './sessions.ts';
import { sharedMessage } from './shared-subscriptions.ts';
import type { StoredMessage } from './stored-message.ts';
import { type Subscription, type Wanted, wantedBy } from './subscription.ts';

export interface DeliveryCounts {
  droppedQos0: number;
  slowReadersCut: number;
  droppedTooLarge: number;
  droppedWaiting: number;
  expiredMessages: number;
}

/** What the client said about itself in CONNECT. */
export interface Capacity {
  readonly receiveMaximum: number;
  readonly maximumPacketSize: number;
  readonly topicAliasMaximum: number;
}

export const unlimited: Capacity = {
  receiveMaximum: 0xffff,
  maximumPacketSize: Number.POSITIVE_INFINITY,
  topicAliasMaximum: 0,
};

/** Aliases towards a client that takes them: telemetry of few topics fits, a fleet's does not. */
const topicAliasesMax = 32;

export function capacityOf(properties: Record<string, unknown> | undefined): Capacity {
  const { receiveMaximum, maximumPacketSize, topicAliasMaximum } = properties ?? {};
  return {
    receiveMaximum: typeof receiveMaximum === 'number' ? receiveMaximum : unlimited.receiveMaximum,
    maximumPacketSize:
      typeof maximumPacketSize === 'number' ? maximumPacketSize : unlimited.maximumPacketSize,
    topicAliasMaximum:
      typeof topicAliasMaximum === 'number' ? Math.min(topicAliasMaximum, topicAliasesMax) : 0,
  };
}

export interface DeliveryOptions {
  readonly connection: Connection;
  readonly sessions: Sessions;
  readonly limits: MqttLimits;
  readonly counts: DeliveryCounts;
}

/** Bytes unsent on a socket at which the delivery of a backlog pauses. */
const paceBytes = 64 * 1024;
/** A larger payload is written by itself instead of being copied behind its head. */
const copiedBytesMax = 4096;
/** Remembered topics of one connection; a device's topics are few. */
const wantedMax = 256;

export class Delivery {
  readonly #options: DeliveryOptions;
  readonly #ready: QueuedMessage[] = [];
  /** By packet id; the message where another client may have to get it. */
  readonly #inFlight = new Map<number, StoredMessage | undefined>();
  readonly #held = new Map<QueuedMessage, () => void>();
  readonly #aliases = new Map<string, number>();
  readonly #wanted = new Map<string, Wanted | undefined>();
  #capacity = unlimited;
  #session: Session | undefined;
  #started = false;
  #waitingMessages = 0;
  #waitingBytes = 0;
  #latestCounter = 0;
  #nextId = 1;
  /** Set while something waits for the disk ahead of its PUBLISH: nothing overtakes it. */
  #tail: Promise<void> | undefined;

  constructor(options: DeliveryOptions) {
    this.#options = options;
  }

  /** After CONNACK: from here on the client gets messages, first those that waited for it. */
  start(session: Session | undefined, capacity: Capacity): void {
    this.#started = true;
    this.#session = session;
    this.#capacity = capacity;
    this.#options.connection.client.conn.on('drain', () => this.#pump());
    if (session === undefined) return;
    for (const queued of session.queue.values()) if (queued.linked) this.#ready.push(queued);
    session.onReady = this.#join;
    this.#pump();
  }

  /** The connection is over. */
  stop(): void {
    if (!this.#started) return;
    this.#started = false;
    if (this.#session?.onReady === this.#join) this.#session.onReady = undefined;
    for (const done of this.#held.values()) setImmediate(done);
    this.#held.clear();
    this.#handOn();
    this.#inFlight.clear();
    this.#ready.length = 0;
  }

  get isOpen(): boolean {
    const { connection } = this.#options;
    return this.#started && connection.account !== undefined && !connection.client.closed;
  }

  /** Whether what is offered now goes out at once. */
  get isReady(): boolean {
    return (
      this.isOpen && this.#ready.length === 0 && this.#hasWindow() && !this.#options.connection.outflow.isFull
    );
  }

  /** Its subscriptions changed. */
  forgetWanted(): void {
    this.#wanted.clear();
  }

  /** A message for one or more of the client's subscriptions, or (`brokerId` null) a retained one for a new one. */
  deliver(packet: BrokerPacket, done: () => void): void {
    const { connection } = this.#options;
    const isRetained = packet.brokerId === null;
    const counter = packet.brokerCounter ?? 0;
    // Every matching subscription gets it from the emitter, one right after the other.
    const isCopy = !isRetained && counter === this.#latestCounter;
    if (!isRetained) this.#latestCounter = counter;
    if (!this.#started || isCopy || connection.account === undefined || connection.client.closed) {
      setImmediate(done);
      return;
    }
    const wanted = this.#wantedFor(packet.topic, packet.clientId === connection.client.id && !isRetained);
    const session = isRetained || packet.qos === 0 ? undefined : this.#session;
    const isQueued = session !== undefined && this.#options.sessions.wasQueued(session, packet.payload);
    if (wanted === undefined || isQueued) {
      this.#relieved(done);
      return;
    }
    if (isRetained) {
      this.#deliverRetained(packet, wanted, done);
      return;
    }
    this.offer({
      topic: packet.topic,
      payload: packet.payload,
      qos: Math.min(packet.qos, wanted.qos) as BrokerPacket['qos'],
      retain: packet.retain && wanted.retainAsPublished,
      properties: packet.properties,
      messageExpiry: this.#options.sessions.expiryOf(packet),
      identifiers: wanted.identifiers,
    });
    this.#relieved(done);
  }

  /** A message that fell to this client of all that share the subscription. */
  deliverShared(packet: BrokerPacket, subscription: Subscription, done: () => void): void {
    const messageExpiry = this.#options.sessions.expiryOf(packet);
    this.offer(sharedMessage({ ...packet, messageExpiry }, subscription));
    this.#relieved(done);
  }

  /** Sends a message that is in no queue. */
  offer(message: StoredMessage): void {
    const { connection, counts } = this.#options;
    if (message.qos > 0) this.#join(unqueued(message));
    else if (connection.outflow.isFull) counts.droppedQos0 += 1;
    else this.#write(message, 0, 0, false);
  }

  /** What was shared and has no session to wait in goes to another member; QoS 2 that was sent does not. */
  #handOn(): void {
    const { sessions, connection } = this.#options;
    const unsent = this.#ready.filter(isShared).map(({ message }) => message);
    const left = [...this.#inFlight.values(), ...unsent].filter((message) => message !== undefined);
    if (left.length > 0) setImmediate(() => sessions.handOn(left, connection.client.id));
  }

  /** PUBACK or PUBCOMP came, or a PUBREC that refuses. */
  acknowledged(messageId: number): void {
    if (this.#inFlight.delete(messageId)) this.#pump();
  }

  /**
   * Sends a message that is in no queue, now or not at all. Answers its packet id, 0 with QoS 0; `busy`: the window or
   * the socket is full, or others go first.
   */
  sendNow(message: StoredMessage): number | 'busy' | 'too-large' {
    const { connection } = this.#options;
    const hasRoom = this.#ready.length === 0 && this.#hasWindow() && !connection.outflow.isFull;
    if (!this.#started || connection.client.closed || !hasRoom) return 'busy';
    const messageId = message.qos === 0 ? 0 : this.#freeId();
    if (!this.#write(message, message.qos, messageId, false)) return 'too-large';
    if (messageId !== 0) this.#inFlight.set(messageId, undefined);
    return messageId;
  }

  /** Waits for room before the next one is asked for: so many retained messages are bounded. */
  #deliverRetained(packet: BrokerPacket, { qos: granted }: Wanted, done: () => void): void {
    const { sessions } = this.#options;
    const { subscriptionIdentifier, ...properties } = packet.properties ?? {};
    const message: StoredMessage = {
      topic: packet.topic,
      payload: packet.payload,
      qos: Math.min(packet.qos, granted) as BrokerPacket['qos'],
      retain: true,
      properties: packet.properties === undefined ? undefined : properties,
      messageExpiry: sessions.expiryOf({ ...packet, properties }),
      // Of the SUBSCRIBE that asks for it, not of all that match.
      identifiers: typeof subscriptionIdentifier === 'number' ? [subscriptionIdentifier] : [],
    };
    if (message.qos === 0) {
      this.#write(message, 0, 0, false);
      this.#relieved(done);
      return;
    }
    const queued = this.#session && sessions.queueFor(this.#session, message);
    const entry = queued ?? unqueued(message);
    this.#held.set(entry, done);
    this.#ready.push(entry);
    if (entry.seq === 0) this.#countWaiting(entry, 1);
    this.#pump();
  }

  readonly #join = (queued: QueuedMessage): void => {
    const { connection, counts } = this.#options;
    const { outflow } = connection;
    if (!this.#started || connection.account === undefined || outflow.isOverflowing) return;
    if (outflow.isFull) {
      counts.slowReadersCut += 1;
      outflow.overflow();
      return;
    }
    if (this.#ready.length === 0 && this.#hasWindow()) {
      this.#send(queued);
      return;
    }
    this.#ready.push(queued.seq === 0 ? detached(queued) : queued);
    if (queued.seq === 0) {
      this.#countWaiting(queued, 1);
      this.#makeRoom();
    }
    this.#pump();
  };

  #hasWindow(): boolean {
    return this.#inFlight.size < this.#capacity.receiveMaximum;
  }

  /** A backlog goes out no faster than the socket takes it. */
  #pump(): void {
    const { conn, closed } = this.#options.connection.client;
    if (closed || !this.#started) return;
    while (this.#ready.length > 0 && this.#hasWindow() && conn.writableLength <= paceBytes) this.#sendNext();
  }

  #sendNext(): void {
    const entry = this.#ready.shift();
    if (entry === undefined) return;
    if (entry.seq === 0) this.#countWaiting(entry, -1);
    this.#send(entry);
    const held = this.#held.get(entry);
    if (held === undefined) return;
    this.#held.delete(entry);
    this.#relieved(held);
  }

  #send(entry: QueuedMessage): void {
    const { sessions, connection } = this.#options;
    const { client } = connection;
    const session = entry.seq === 0 ? undefined : this.#session;
    // Dropped at the queue's bound, or acknowledged, meanwhile.
    if (entry.seq !== 0 && session?.queue.has(entry.seq) !== true) return;
    const isAgain = entry.messageId !== 0;
    // [MQTT-4.3.3-7]: what was sent once is not subject to expiry any more.
    if (!isAgain && this.#remainingS(entry.message) === 0) {
      this.#options.counts.expiredMessages += 1;
      if (session !== undefined) sessions.drop(session, entry);
      return;
    }
    const messageId = isAgain ? entry.messageId : this.#freeId();
    this.#inFlight.set(messageId, isShared(entry) && entry.qos === 1 ? detached(entry).message : undefined);
    if (entry.released) {
      connection.write(Buffer.from([0x62, 2, messageId >> 8, messageId & 0xff]));
      return;
    }
    const durable = session === undefined ? undefined : sessions.sending(session, entry, messageId);
    if (session === undefined) entry.messageId = messageId;
    const write = () => {
      if (client.closed) return;
      if (!this.#write(entry.message, entry.qos, messageId, isAgain)) this.#giveUp(entry, messageId);
    };
    if (durable === undefined && this.#tail === undefined) {
      write();
      return;
    }
    const tail: Promise<void> = Promise.all([this.#tail, durable])
      .then(write, () => {
        client.conn.destroy();
      })
      .then(() => {
        if (this.#tail === tail) this.#tail = undefined;
      });
    this.#tail = tail;
  }

  /** [MQTT-3.1.2-25]: too large for the client, so it counts as sent and acknowledged. */
  #giveUp(entry: QueuedMessage, messageId: number): void {
    this.#inFlight.delete(messageId);
    if (entry.seq !== 0 && this.#session !== undefined) this.#options.sessions.drop(this.#session, entry);
    setImmediate(() => this.#pump());
  }

  /** False when the client does not take packets of this size. */
  #write(message: StoredMessage, qos: 0 | 1 | 2, messageId: number, dup: boolean): boolean {
    const { connection, counts } = this.#options;
    const { client } = connection;
    const { topic, payload, retain, properties, identifiers = [] } = message;
    const expiryS = this.#remainingS(message);
    const publish = { payload, qos, retain, dup, messageId, properties, identifiers, expiryS };
    const known = this.#aliases.get(topic);
    const isNew = known === undefined && this.#aliases.size < this.#capacity.topicAliasMaximum;
    const topicAlias = isNew ? this.#aliases.size + 1 : known;
    const head = encodePublishHead(
      { ...publish, topic: known === undefined ? topic : '', topicAlias },
      client.version ?? 4,
    );
    if (head.length + payload.length > this.#capacity.maximumPacketSize) {
      counts.droppedTooLarge += 1;
      return false;
    }
    if (isNew) this.#aliases.set(topic, this.#aliases.size + 1);
    if (payload.length <= copiedBytesMax) {
      connection.write(payload.length === 0 ? head : Buffer.concat([head, payload]));
      return true;
    }
    connection.write(head);
    connection.write(payload);
    return true;
  }

  #remainingS(message: StoredMessage): number | undefined {
    const remainingMs = this.#options.sessions.remainingMs(message);
    return remainingMs === undefined ? undefined : Math.max(0, Math.ceil(remainingMs / 1000));
  }

  #wantedFor(topic: string, isOwn: boolean): Wanted | undefined {
    const { subscriptions } = this.#options.connection;
    if (isOwn) return wantedBy(subscriptions.values(), topic, true);
    if (this.#wanted.has(topic)) return this.#wanted.get(topic);
    const wanted = wantedBy(subscriptions.values(), topic, false);
    if (this.#wanted.size >= wantedMax) this.#wanted.clear();
    this.#wanted.set(topic, wanted);
    return wanted;
  }

  /** Calls `done` when the socket has room again, or its reader counts as stuck. */
  #relieved(done: () => void): void {
    const { client, outflow } = this.#options.connection;
    if (client.conn.writableNeedDrain) outflow.waitForDrain(done);
    else setImmediate(done);
  }

  #freeId(): number {
    do {
      this.#nextId = (this.#nextId % 0xffff) + 1;
    } while (this.#inFlight.has(this.#nextId) || this.#session?.byMessageId.has(this.#nextId) === true);
    return this.#nextId;
  }

  #countWaiting({ bytes }: QueuedMessage, change: 1 | -1): void {
    this.#waitingMessages += change;
    this.#waitingBytes += change * bytes;
  }

  /** Without a session the oldest message that waits in memory makes room, as it does in a session's queue. */
  #makeRoom(): void {
    const { limits, counts } = this.#options;
    while (
      this.#waitingMessages > limits.sessionQueueMessages ||
      this.#waitingBytes > limits.sessionQueueBytes
    ) {
      const at = this.#ready.findIndex((entry) => entry.seq === 0 && !this.#held.has(entry));
      const [oldest] = at < 0 ? [] : this.#ready.splice(at, 1);
      if (oldest === undefined) return;
      this.#countWaiting(oldest, -1);
      counts.droppedWaiting += 1;
    }
  }
}

/** Shared, and in no session's queue. */
function isShared({ seq, message }: QueuedMessage): boolean {
  return seq === 0 && message.share !== undefined;
}

/** What waits does not hold on to the chunk its payload came with. */
function detached(entry: QueuedMessage): QueuedMessage {
  return { ...entry, message: { ...entry.message, payload: Buffer.from(entry.message.payload) } };
}

function unqueued(message: StoredMessage): QueuedMessage {
  return {
    seq: 0,
    message,
    qos: message.qos === 2 ? 2 : 1,
    bytes: message.topic.length + message.payload.length,
    linked: true,
    messageId: 0,
    released: false,
  };
}
