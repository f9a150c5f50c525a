// The way of a published message to durability. `accept` is aedes' `authorizePublish`: the one step aedes awaits
// ahead of PUBACK and PUBREC, so whatever an acknowledgement promises happens here and is done when `done` is called.
//
// Promises: QoS 1 and 2 are answered once, in order, after the sink, the queues of sessions and the retained message
// are durable (they go to the log in the same tick and share one fsync). A copy of a message in flight is neither
// stored nor answered. When the journal refuses, the acknowledgement is held and the message tried again until
// `ackTimeoutMs`; then the connection is closed, so that the publisher still has the message.

import type { Message, Sink } from '../../model/message.ts';
import type { Clock } from '../../platform/clock.ts';
import { errorCode } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { type Account, mayRetain, type PublishTarget, publishTarget } from './access.ts';
import { type Broker, type BrokerPacket, keepAwake } from './broker-internals.ts';
import {
  arrivingOf,
  type Connection,
  incomingOf,
  type Pending,
  rememberAcknowledged,
  wasAcknowledged,
} from './connection.ts';
import { dismiss, farewells } from './farewell.ts';
import type { MqttLimits } from './limits.ts';
import type { LogWrite, SessionLog } from './session-log.ts';
import type { Sessions } from './sessions.ts';

/** Carries out `{root}/gateway/commands/{kind}`; awaited before the acknowledgement. */
export type CommandHandler = (kind: string, payload: Buffer, accountId: string) => void | Promise<void>;

export interface IntakeOptions {
  readonly root: string;
  readonly sink: Sink;
  readonly log: Log;
  readonly clock: Clock;
  readonly limits: MqttLimits;
  readonly sessionLog: SessionLog;
  readonly sessions: Sessions;
  readonly onCommand: CommandHandler | undefined;
  readonly isBehind: (() => boolean) | undefined;
}

type Done = (error?: Error | null) => void;

const nobody: readonly (() => void)[] = [];
const firstRetryMs = 100;
const lastRetryMs = 2000;
/** Publishes of one connection that may wait for the disk before its reading pauses: several commits' worth. */
const waitingMax = 1024;
const waitingBytesMax = 256 * 1024;

export class Intake {
  readonly #options: IntakeOptions;
  readonly #firstCopies = new WeakSet<BrokerPacket>();
  #broker: Broker | undefined;
  #pending = 0;
  #pendingWills = 0;
  readonly counts = {
    messages: 0,
    gatewayCommands: 0,
    refusedPublishes: 0,
    duplicates: 0,
    refusedRetained: 0,
    heldAcknowledgements: 0,
    abandonedAcknowledgements: 0,
    lostQos0: 0,
    failedCommands: 0,
    lostWills: 0,
    inboundOverflows: 0,
  };

  constructor(options: IntakeOptions) {
    this.#options = options;
  }

  attach(broker: Broker): void {
    this.#broker = broker;
  }

  /** Publishes waiting for durability. */
  get pending(): number {
    return this.#pending;
  }

  get pendingWills(): number {
    return this.#pendingWills;
  }

  isFirstCopy(packet: BrokerPacket): boolean {
    return this.#firstCopies.delete(packet);
  }

  accept(connection: Connection, packet: BrokerPacket, done: Done): void {
    const { account } = connection;
    const target = account && publishTarget(this.#options.root, account, packet.topic);
    if (account === undefined || target === undefined) {
      this.counts.refusedPublishes += 1;
      done(new Error(`not authorized to publish to ${packet.topic}`));
      return;
    }
    if (packet.qos === 0) {
      this.#limitRetained(packet, target);
      this.#acceptUnacknowledged(connection, account, target, packet, done);
      return;
    }
    if (this.#isAnswered(connection, packet, done)) return;
    this.#limitRetained(packet, target);
    this.#acceptAcknowledged(connection, account, target, packet, done);
  }

  /** A last will that fires; there is no connection to hold, and nobody to send it again. */
  async acceptWill(account: Account, packet: BrokerPacket): Promise<void> {
    this.#pendingWills += 1;
    try {
      await this.#acceptWill(account, packet);
    } finally {
      this.#pendingWills -= 1;
    }
  }

  async #acceptWill(account: Account, packet: BrokerPacket): Promise<void> {
    const { root, clock, limits, sessions, sessionLog } = this.#options;
    const target = publishTarget(root, account, packet.topic);
    if (target === undefined) {
      this.counts.refusedPublishes += 1;
      throw new Error('not authorized');
    }
    this.#limitRetained(packet, target);
    if (packet.properties !== undefined) {
      // A property of the will, not of the message it becomes; aedes would forward it.
      const { willDelayInterval: _delay, ...properties } = packet.properties;
      packet.properties = properties;
    }
    const prepared = sessions.prepare(packet);
    const work = this.#delivery(account, target, packet, clock.monotonicMs());
    const attempt = retriable(work, sessionLog, prepared?.writes ?? []);
    const deadlineMs = clock.monotonicMs() + limits.ackTimeoutMs;
    for (let waitMs = firstRetryMs; ; waitMs = Math.min(waitMs * 2, lastRetryMs)) {
      try {
        await attempt();
        return;
      } catch (error) {
        if (clock.monotonicMs() + waitMs < deadlineMs) {
          await new Promise((resolve) => setTimeout(resolve, waitMs).unref());
          continue;
        }
        this.counts.lostWills += 1;
        if (prepared !== undefined) sessions.discard(prepared);
        throw error;
      }
    }
  }

  /** Ends connections whose oldest publish waits too long for a disk that neither takes nor refuses it. */
  sweep(connection: Connection): void {
    const oldest = connection.pending[0];
    if (oldest === undefined) return;
    keepAwake(connection.client);
    const { clock, limits } = this.#options;
    if (clock.monotonicMs() - oldest.sinceMs > limits.ackTimeoutMs) this.#abandon(connection, undefined);
  }

  #acceptUnacknowledged(
    connection: Connection,
    account: Account,
    target: PublishTarget,
    packet: BrokerPacket,
    done: Done,
  ): void {
    const stored = this.#delivery(account, target, packet, connection.readMs)?.();
    if (stored === undefined) {
      done();
      return;
    }
    const lost = () => {
      this.counts.lostQos0 += 1;
    };
    if (this.#options.isBehind?.() !== true) {
      stored.catch(lost);
      done();
      return;
    }
    // QoS 0 knows no acknowledgement to hold back; not reading on is what slows its publisher down.
    wait(connection, packet, 1);
    connection.slowed += 1;
    stored.catch(lost).finally(() => {
      wait(connection, packet, -1);
      connection.slowed -= 1;
      keepAwake(connection.client);
      done();
    });
  }

  #acceptAcknowledged(
    connection: Connection,
    account: Account,
    target: PublishTarget,
    packet: BrokerPacket,
    done: Done,
  ): void {
    const { sessions, sessionLog, clock } = this.#options;
    const messageId = packet.messageId ?? 0;
    // Its subscribers see it for the first time [MQTT-3.3.1-3].
    packet.dup = false;
    const prepared = sessions.prepare(packet, connection.client.id);
    let mark: LogWrite | undefined;
    if (packet.qos === 2) {
      arrivingOf(connection).set(messageId, []);
      this.#firstCopies.add(packet);
      if (connection.session !== undefined) {
        mark = sessions.incomingWrite(connection.session, messageId, true);
      }
    }
    const sinceMs = clock.monotonicMs();
    const pending: Pending = { packet, done, sinceMs, prepared, settled: false };
    connection.inFlight.add(messageId);
    connection.pending.push(pending);
    wait(connection, packet, 1);
    this.#pending += 1;
    const work = this.#delivery(account, target, packet, connection.readMs);
    const attempt = retriable(work, sessionLog, prepared?.writes ?? [], mark);
    this.#try(connection, pending, attempt, firstRetryMs);
  }

  #try(connection: Connection, pending: Pending, attempt: () => Promise<unknown>, waitMs: number): void {
    attempt().then(
      () => {
        pending.settled = true;
        this.#answer(connection);
      },
      (error: unknown) => this.#hold(connection, pending, attempt, waitMs, error),
    );
  }

  #hold(
    connection: Connection,
    pending: Pending,
    attempt: () => Promise<unknown>,
    waitMs: number,
    error: unknown,
  ): void {
    if (!connection.pending.includes(pending)) return;
    const { clock, limits } = this.#options;
    const waited = clock.monotonicMs() - pending.sinceMs;
    if (connection.client.closed || waited + waitMs > limits.ackTimeoutMs) {
      this.#abandon(connection, error);
      return;
    }
    if (waitMs === firstRetryMs) this.counts.heldAcknowledgements += 1;
    const nextMs = Math.min(waitMs * 2, lastRetryMs);
    setTimeout(() => this.#try(connection, pending, attempt, nextMs), waitMs).unref();
  }

  /** Calls back everything at the head that is durable: acknowledgements keep the order of their publishes. */
  #answer(connection: Connection): void {
    const { pending, client, inFlight } = connection;
    for (let head = pending[0]; head?.settled === true; head = pending[0]) {
      pending.shift();
      wait(connection, head.packet, -1);
      this.#pending -= 1;
      inFlight.delete(head.packet.messageId ?? 0);
      rememberAcknowledged(connection, head.packet);
      const followers = this.#arrived(connection, head.packet, true);
      if (client.closed) this.#publishOrphan(head.packet);
      else head.done();
      for (const follow of followers) follow();
    }
    readOn(connection);
  }

  /** A message's way to durability ended; answers what waited for that. */
  #arrived(connection: Connection, packet: BrokerPacket, isDurable: boolean): readonly (() => void)[] {
    if (packet.qos !== 2) return nobody;
    const messageId = packet.messageId ?? 0;
    const arriving = arrivingOf(connection);
    const followers = arriving.get(messageId) ?? nobody;
    arriving.delete(messageId);
    if (isDurable) incomingOf(connection).add(messageId);
    return followers;
  }

  /** Durable, but its publisher is gone: aedes would not go on. Subscribers get it all the same. */
  #publishOrphan(packet: BrokerPacket): void {
    this.#broker?.publish({ ...packet, messageId: undefined, dup: false }, null, () => {});
  }

  /** Gives up what the connection still waits for: unanswered, so that the publisher keeps it. */
  #abandon(connection: Connection, error: unknown): void {
    const { sessions, log } = this.#options;
    const { client, pending } = connection;
    const followers: (() => void)[] = [];
    for (const { packet, prepared, settled } of pending.splice(0)) {
      this.#pending -= 1;
      followers.push(...this.#arrived(connection, packet, settled));
      if (settled) {
        this.#publishOrphan(packet);
        continue;
      }
      this.counts.abandonedAcknowledgements += 1;
      if (prepared !== undefined) sessions.discard(prepared);
    }
    connection.inFlight.clear();
    for (const follow of followers) follow();
    if (client.closed) return;
    const code = errorCode(error) ?? 'JOURNAL_STALLED';
    log.warn({ event: 'mqtt-acknowledgements-abandoned', client: client.id, code });
    dismiss(
      connection,
      code === 'JOURNAL_FULL' ? farewells.quotaExceeded : farewells.implementationSpecificError,
    );
  }

  /** Whether the packet is a copy of one that was, or will be, answered on this connection. */
  #isAnswered(connection: Connection, packet: BrokerPacket, done: Done): boolean {
    const messageId = packet.messageId ?? 0;
    const { limits } = this.#options;
    const inFlight = connection.inFlight.has(messageId);
    const incoming = incomingOf(connection);
    const arriving = arrivingOf(connection);
    if (packet.qos === 2) {
      if (!inFlight && arriving.has(messageId)) {
        // Its first copy came on a connection that was taken over since: once that is durable, or given up, this
        // one is looked at again.
        this.counts.duplicates += 1;
        arriving.get(messageId)?.push(() => {
          if (!connection.client.closed) this.accept(connection, packet, done);
        });
        return true;
      }
      if (!inFlight && incoming.has(messageId)) {
        // Stored before [MQTT-4.3.3-2]: aedes finds it there and answers PUBREC again.
        this.counts.duplicates += 1;
        done();
        return true;
      }
      if (!inFlight && incoming.size + arriving.size >= limits.inflightInbound) {
        this.#overflow(connection);
        return true;
      }
      if (!inFlight) return false;
    } else if (packet.dup !== true || !(inFlight || wasAcknowledged(connection, packet))) {
      // Version 3.1.1 knows no such limit: there, reading pauses.
      const unanswered = connection.inFlight.size + incoming.size;
      if (connection.client.version !== 5 || unanswered < limits.inflightInbound) return false;
      this.#overflow(connection);
      return true;
    }
    // Sent again because our answer is slow (ESP-IDF does after 1 s). Answering a copy as well would acknowledge
    // whatever message its client has given the packet id to by then.
    this.counts.duplicates += 1;
    packet._notAuthorized = true;
    done();
    return true;
  }

  /** [MQTT 5, 3.3.4]: more than the Receive Maximum that CONNACK named. */
  #overflow(connection: Connection): void {
    this.counts.inboundOverflows += 1;
    dismiss(connection, farewells.receiveMaximumExceeded);
  }

  #limitRetained(packet: BrokerPacket, target: PublishTarget): void {
    if (!packet.retain) return;
    const fits = this.#options.sessions.retained.hasRoom(packet.topic, packet.payload.length);
    if (mayRetain(target) && fits) return;
    packet.retain = false;
    this.counts.refusedRetained += 1;
  }

  /** The work a publish asks of the gateway itself, to be started at once; undefined when it is for others only. */
  #delivery(
    account: Account,
    target: PublishTarget,
    packet: BrokerPacket,
    receivedMonotonicMs: number,
  ): (() => Promise<void>) | undefined {
    const { sink, onCommand, log } = this.#options;
    if (target.kind === 'message') {
      this.counts.messages += 1;
      const message: Message = {
        transport: 'mqtt',
        deviceId: account.deviceId,
        // `publishTarget` lets no other channel through.
        channel: target.topic.channel as Message['channel'],
        name: target.topic.name,
        payload: packet.payload,
        receivedMonotonicMs,
      };
      return () => sink(message);
    }
    if (target.kind !== 'gateway-command' || onCommand === undefined) return undefined;
    this.counts.gatewayCommands += 1;
    const { name } = target;
    return async () => {
      try {
        await onCommand(name, packet.payload, account.deviceId);
      } catch (error) {
        if (errorCode(error)?.startsWith('JOURNAL_') === true) throw error;
        // Trying again would not help: it is answered, or it would come back for ever.
        this.counts.failedCommands += 1;
        log.warn({ event: 'mqtt-command-failed', command: name, code: errorCode(error), err: error });
      }
    };
  }
}

/**
 * Whether nothing more is to be read from the connection for now. aedes alone would read one more chunk for each
 * that arrives while a single publish waits.
 */
export function isSated(connection: Connection): boolean {
  if (connection.slowed > 0) return true;
  return connection.waiting >= waitingMax || connection.waitingBytes >= waitingBytesMax;
}

/** Reads what was left in the socket while the connection was sated. */
export function readOn(connection: Connection): void {
  if (!connection.isHeldBack || connection.client.closed || isSated(connection)) return;
  connection.isHeldBack = false;
  connection.client._nextBatch();
}

export function wait(connection: Connection, packet: BrokerPacket, change: 1 | -1): void {
  connection.waiting += change;
  connection.waitingBytes += change * packet.payload.length;
}

/**
 * Runs both parts in the same tick; a repetition runs only what failed. The mark is written last: found after a power
 * cut, it says that the message is there.
 */
function retriable(
  work: (() => Promise<void>) | undefined,
  log: SessionLog,
  writes: readonly LogWrite[],
  mark?: LogWrite,
): () => Promise<unknown> {
  if (work !== undefined && writes.length === 0 && mark === undefined) return work;
  let worked = work === undefined;
  let written = writes.length === 0;
  return async () => {
    const first = worked ? undefined : work?.();
    const second = written ? undefined : log.write(writes);
    const results = await Promise.allSettled([first, second]);
    worked ||= results[0].status === 'fulfilled';
    written ||= results[1].status === 'fulfilled';
    for (const result of results) if (result.status === 'rejected') throw result.reason;
    if (mark !== undefined) await log.write([mark]);
  };
}
