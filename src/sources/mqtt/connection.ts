// What we know of one MQTT connection. Plain data; the stages of the source share it.

import type { Duplex } from 'node:stream';
import type { Account } from './access.ts';
import { Acknowledgements } from './acknowledgements.ts';
import type { BrokerClient, BrokerPacket } from './broker-internals.ts';
import { type Capacity, type Delivery, unlimited } from './delivery.ts';
import type { Refused } from './farewell.ts';
import type { Outflow } from './outflow.ts';
import type { PacketGuard } from './packet-guard.ts';
import type { Prepared, Session } from './sessions.ts';
import type { Subscription } from './subscription.ts';
import type { Will } from './wills.ts';

/** A publish that waits for durability. Acknowledged in the order of arrival [MQTT-4.6.0-2, -3]. */
export interface Pending {
  readonly packet: BrokerPacket;
  readonly done: (error?: Error | null) => void;
  readonly sinceMs: number;
  readonly prepared: Prepared | undefined;
  settled: boolean;
}

/** Recently acknowledged packets, to know a copy again that was sent before our acknowledgement arrived. */
interface AcknowledgedRing {
  readonly ids: Uint16Array;
  readonly prints: Uint32Array;
  next: number;
}

export interface Connection {
  readonly client: BrokerClient;
  readonly guard: PacketGuard;
  readonly outflow: Outflow;
  readonly acknowledgements: Acknowledgements;
  readonly ticket: string;
  /** Undefined before the login and after a revocation. */
  account: Account | undefined;
  session: Session | undefined;
  /** Why it was not let in. */
  refused: Refused | undefined;
  will: Will | undefined;
  /** Monotonic milliseconds when the latest chunk was read. */
  readMs: number;
  /** What it was granted, by filter. */
  readonly subscriptions: Map<string, Subscription>;
  delivery: Delivery | undefined;
  capacity: Capacity;
  /** A whole packet, or a part right ahead of the rest. */
  write(bytes: Buffer): void;
  readonly inFlight: Set<number>;
  /** QoS 2 packet ids of a connection without a session. */
  readonly incoming: Set<number>;
  readonly arriving: Map<number, (() => void)[]>;
  readonly pending: Pending[];
  /** Payload bytes of publishes that wait, QoS 0 included. */
  waitingBytes: number;
  waiting: number;
  /** QoS 0 publishes held to the sink's pace. */
  slowed: number;
  /** aedes was told that there is nothing to read, and there may be. */
  isHeldBack: boolean;
  readonly acknowledged: AcknowledgedRing;
}

const ringSize = 64;

export function newConnection(
  client: BrokerClient,
  guard: PacketGuard,
  outflow: Outflow,
  ticket: string,
): Connection {
  return {
    client,
    guard,
    outflow,
    acknowledgements: new Acknowledgements(client.conn),
    ticket,
    account: undefined,
    session: undefined,
    refused: undefined,
    will: undefined,
    readMs: 0,
    subscriptions: new Map(),
    delivery: undefined,
    capacity: unlimited,
    write: (bytes) => writeCorked(client.conn, bytes),
    inFlight: new Set(),
    incoming: new Set(),
    arriving: new Map(),
    pending: [],
    waitingBytes: 0,
    waiting: 0,
    slowed: 0,
    isHeldBack: false,
    acknowledged: { ids: new Uint16Array(ringSize), prints: new Uint32Array(ringSize), next: 0 },
  };
}

/** What is written in one turn costs the socket one call. */
function writeCorked(stream: Duplex, bytes: Buffer): void {
  if (!stream.writable) return;
  if (stream.writableCorked === 0) {
    stream.cork();
    setImmediate(() => stream.uncork());
  }
  stream.write(bytes);
}

export function incomingOf(connection: Connection): Set<number> {
  return connection.session?.incoming ?? connection.incoming;
}

export function arrivingOf(connection: Connection): Map<number, (() => void)[]> {
  return connection.session?.arriving ?? connection.arriving;
}

export function rememberAcknowledged(connection: Connection, packet: BrokerPacket): void {
  const ring = connection.acknowledged;
  ring.ids[ring.next] = packet.messageId ?? 0;
  ring.prints[ring.next] = printOf(packet.payload);
  ring.next = (ring.next + 1) % ringSize;
}

export function wasAcknowledged(connection: Connection, packet: BrokerPacket): boolean {
  const { ids, prints } = connection.acknowledged;
  const at = ids.lastIndexOf(packet.messageId ?? 0);
  return at >= 0 && prints[at] === printOf(packet.payload);
}

const printedBytes = 64;

/** Tells two messages of one packet id apart: FNV-1a over bytes from all over the payload. */
function printOf(payload: Buffer): number {
  const step = Math.ceil(payload.length / printedBytes);
  let print = 0x811c9dc5 ^ payload.length;
  for (let at = 0; at < payload.length; at += step) print = Math.imul(print ^ (payload[at] ?? 0), 0x01000193);
  return print >>> 0;
}
