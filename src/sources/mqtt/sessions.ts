// Sessions, subscriptions and queued messages: the broker's memory, kept in the log so that it survives a power cut.
// Memory holds everything (it is bounded); the log is read once, at open.
//
// Promises: what an acknowledgement depends on is in the writes that `prepare`, `begin` and `subscribe` hand out or
// await; what may be repeated after a cut is written lazily. A damaged record is dropped and counted.
// It does not decide who may do what, and it does not deliver.
//
// mqtt/session/{n}  mqtt/sub/{n}/{filter}  mqtt/queue/{n}/{seq}  mqtt/out/{n}/{seq}  mqtt/incoming/{n}/{packet id}
// n and seq in base 36; `out` is the QoS 2 state of a queued message. retained-messages.ts and wills.ts have the rest.

import { matchesFilter } from '../../model/topic.ts';
import type { Clock } from '../../platform/clock.ts';
import { type Account, isSameAccount } from './access.ts';
import type { MqttLimits } from './limits.ts';
import { RetainedMessages } from './retained-messages.ts';
import type { LogWrite, SessionLog } from './session-log.ts';
import { type Share, SharedSubscriptions, sharedMessage } from './shared-subscriptions.ts';
import {
  decodeStoredMessage,
  encodeStoredMessage,
  parseRecord,
  type StoredMessage,
} from './stored-message.ts';
import { type Subscription, type Wanted, wantedBy } from './subscription.ts';

export interface QueuedMessage {
  readonly seq: number;
  readonly message: StoredMessage;
  readonly qos: 1 | 2;
  readonly bytes: number;
  /** Given to the broker for delivery; until then it belongs to a publish that is not durable yet. */
  linked: boolean;
  /** 0 until it was sent. */
  messageId: number;
  /** QoS 2: PUBREC came, only PUBREL is left. */
  released: boolean;
}

export interface Session {
  readonly number: number;
  readonly clientId: string;
  readonly account: string;
  readonly epoch: number;
  expiryS: number;
  /** Connections now using it: 0 or 1, 2 for a moment during a takeover. */
  live: number;
  idleSinceMs: number;
  /** The connection now being made found it here. */
  resumed: boolean;
  readonly subscriptions: Map<string, Subscription>;
  subscriptionsWritten: Promise<void>;
  readonly queue: Map<number, QueuedMessage>;
  queueBytes: number;
  readonly byMessageId: Map<number, QueuedMessage>;
  /** Set by the connection that now delivers the queue; told of what joins it. */
  onReady: ((queued: QueuedMessage) => void) | undefined;
  /** Packet ids of QoS 2 messages received, durable, and not yet released by the client. */
  readonly incoming: Set<number>;
  /** Those on their way to durability, with what is to be done then. */
  readonly arriving: Map<number, (() => void)[]>;
}

/** A publish on its way to durability. */
export interface Prepared {
  readonly writes: LogWrite[];
  readonly queued: (readonly [Session, QueuedMessage])[];
  readonly shares: Share[];
  retained: boolean;
}

export interface Publish {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: number;
  readonly retain: boolean;
  readonly clientId?: string | undefined;
  readonly properties?: Record<string, unknown> | undefined;
  readonly messageExpiry?: number | undefined;
}

interface Match {
  readonly session: Session;
  /** As published by somebody else, and by the client itself. */
  readonly wanted: Wanted | undefined;
  readonly wantedOfOwn: Wanted | undefined;
}

export interface SessionsOptions {
  readonly log: SessionLog;
  readonly clock: Clock;
  readonly limits: MqttLimits;
}

/** Topics whose subscribers are remembered; devices publish to few. */
const matchCacheMax = 4096;
const marker = Buffer.from([1]);

export class Sessions {
  readonly #log: SessionLog;
  readonly #clock: Clock;
  readonly #limits: MqttLimits;
  readonly #sessions = new Map<string, Session>();
  readonly #prepared = new WeakMap<Buffer, Prepared>();
  readonly #matches = new Map<string, readonly Match[]>();
  readonly retained: RetainedMessages;
  readonly shared = new SharedSubscriptions(() => this.#sessions.values());
  #nextNumber = 1;
  #nextSeq = 1;
  #queueBytes = 0;
  #queueMessages = 0;
  readonly counts = {
    damagedRecords: 0,
    droppedQueued: 0,
    evictedSessions: 0,
    expiredSessions: 0,
  };

  private constructor(options: SessionsOptions) {
    this.#log = options.log;
    this.#clock = options.clock;
    this.#limits = options.limits;
    this.retained = new RetainedMessages(options);
  }

  static async open(options: SessionsOptions): Promise<Sessions> {
    const sessions = new Sessions(options);
    await sessions.#restore();
    return sessions;
  }

  get size(): number {
    return this.#sessions.size;
  }

  stats() {
    return {
      ...this.counts,
      sessions: this.#sessions.size,
      queuedMessages: this.#queueMessages,
      queuedBytes: this.#queueBytes,
      ...this.retained.stats(),
    };
  }

  find(clientId: string): Session | undefined {
    return this.#sessions.get(clientId);
  }

  /**
   * Opens the session of a connection that is being made; resolves when that is durable.
   * Undefined when there is no room: every session of the limit is in use.
   */
  async begin(
    clientId: string,
    account: Pick<Account, 'deviceId' | 'epoch'>,
    expiryS: number,
    fresh: boolean,
  ): Promise<Session | undefined> {
    const existing = this.#sessions.get(clientId);
    const writes: LogWrite[] = [];
    let session = existing;
    if (existing !== undefined && fresh) {
      writes.push(...this.#forget(existing));
      session = undefined;
    }
    if (session === undefined) {
      if (this.#sessions.size >= this.#limits.sessions && !this.#evict()) return undefined;
      session = this.#create(this.#nextNumber++, clientId, account, expiryS);
      session.resumed = false;
      writes.push(sessionWrite(session));
    } else {
      session.resumed = true;
      if (session.expiryS !== expiryS) {
        session.expiryS = expiryS;
        writes.push(sessionWrite(session));
      }
    }
    session.live += 1;
    if (writes.length === 0) return session;
    try {
      await this.#log.write(writes);
    } catch (error) {
      session.live -= 1;
      if (!session.resumed) this.#forget(session);
      throw error;
    }
    return session;
  }

  /** Lazily: nobody is told. */
  setExpiry(session: Session, expiryS: number): void {
    if (session.expiryS === expiryS || this.#sessions.get(session.clientId) !== session) return;
    session.expiryS = expiryS;
    this.#log.writeLazily([sessionWrite(session)]);
  }

  leave(session: Session): void {
    session.live -= 1;
    session.idleSinceMs = this.#clock.monotonicMs();
  }

  /** Ends a session for good; resolves when its end is durable. */
  async end(session: Session): Promise<void> {
    if (this.#sessions.get(session.clientId) !== session) return;
    await this.#log.write(this.#forget(session));
  }

  /** Ends what the account left behind: it may not come back for it. */
  endOf(account: string): void {
    for (const session of this.#sessions.values()) {
      if (session.account === account) this.#log.writeLazily(this.#forget(session));
    }
  }

  /** Ends what accounts left behind that were shut out, or are gone, since: nobody told this broker while it was off. */
  endStrangers(accountOf: (deviceId: string) => Account | undefined): void {
    for (const session of this.#sessions.values()) {
      if (!isSameAccount(session, accountOf(session.account))) this.#log.writeLazily(this.#forget(session));
    }
  }

  /** Drops sessions nobody came back to in time. */
  expire(): void {
    const now = this.#clock.monotonicMs();
    for (const session of this.#sessions.values()) {
      if (session.live > 0) continue;
      const expiryS = Math.min(session.expiryS, this.#limits.sessionExpiryS);
      if (now - session.idleSinceMs < expiryS * 1000) continue;
      this.counts.expiredSessions += 1;
      this.#log.writeLazily(this.#forget(session));
    }
  }

  /** Resolves when the subscriptions are durable. */
  async subscribe(session: Session, subscriptions: readonly Subscription[]): Promise<void> {
    const writes: LogWrite[] = [];
    const before = new Map<string, Subscription | undefined>();
    for (const subscription of subscriptions) {
      const { topic, qos, rh, rap, nl, subscriptionIdentifier } = subscription;
      const value = Buffer.from(JSON.stringify({ v: 1, qos, rh, rap, nl, si: subscriptionIdentifier }));
      const known = session.subscriptions.get(topic);
      if (known !== undefined && sameSubscription(known, subscription)) continue;
      before.set(topic, known);
      session.subscriptions.set(topic, { topic, qos, rh, rap, nl, subscriptionIdentifier });
      writes.push({ key: `mqtt/sub/${session.number.toString(36)}/${topic}`, value });
    }
    if (writes.length === 0) {
      await session.subscriptionsWritten;
      return;
    }
    this.#subscriptionsChanged();
    const written = this.#log.write(writes);
    session.subscriptionsWritten = written;
    try {
      await written;
    } catch (error) {
      // Asked for again it must be written again.
      for (const [topic, known] of before) {
        if (known === undefined) session.subscriptions.delete(topic);
        else session.subscriptions.set(topic, known);
      }
      this.#subscriptionsChanged();
      if (session.subscriptionsWritten === written) session.subscriptionsWritten = Promise.resolve();
      throw error;
    }
  }

  async unsubscribe(session: Session, topics: readonly string[]): Promise<void> {
    const gone = topics.filter((topic) => session.subscriptions.has(topic));
    if (gone.length === 0) return;
    const number = session.number.toString(36);
    await this.#log.write(gone.map((topic) => ({ key: `mqtt/sub/${number}/${topic}`, value: undefined })));
    for (const topic of gone) session.subscriptions.delete(topic);
    this.#subscriptionsChanged();
  }

  #subscriptionsChanged(): void {
    this.#matches.clear();
    this.shared.changed();
  }

  /** Clients with a session that subscribed to the topic with QoS 1 or 2. */
  subscribers(topic: string): readonly Match[] {
    const cached = this.#matches.get(topic);
    if (cached !== undefined) return cached;
    const matches: Match[] = [];
    for (const session of this.#sessions.values()) {
      const subscriptions = session.subscriptions;
      const wanted = queueable(wantedBy(subscriptions.values(), topic, false));
      const wantedOfOwn = queueable(wantedBy(subscriptions.values(), topic, true));
      if (wanted !== undefined) matches.push({ session, wanted, wantedOfOwn });
    }
    if (this.#matches.size >= matchCacheMax) this.#matches.clear();
    this.#matches.set(topic, matches);
    return matches;
  }

  /**
   * Puts a publish into the queues and among the retained, and returns what must be durable before its publisher
   * hears of it; undefined when nothing is. The broker copies the packet on its way but keeps the payload's buffer:
   * by that, `link` and `retain` know it again.
   */
  prepare(publish: Publish, clientId?: string): Prepared | undefined {
    const isQueueable = publish.qos > 0 && !publish.topic.startsWith('$');
    const matches = isQueueable ? this.subscribers(publish.topic) : [];
    const groups = isQueueable ? this.shared.matching(publish.topic) : [];
    if (matches.length === 0 && groups.length === 0 && !publish.retain) return undefined;
    const prepared: Prepared = { writes: [], queued: [], shares: [], retained: false };
    const messageExpiry = this.expiryOf(publish);
    for (const match of matches) {
      const { session } = match;
      const wanted = session.clientId === clientId ? match.wantedOfOwn : match.wanted;
      if (wanted === undefined) continue;
      const qos = Math.min(wanted.qos, publish.qos);
      const { identifiers } = wanted;
      const retain = publish.retain && wanted.retainAsPublished;
      const stored = { ...storedMessage({ ...publish, qos, messageExpiry }, retain), identifiers };
      const entry = this.#queue(session, stored);
      if (entry === undefined) continue;
      prepared.queued.push([session, entry.queued]);
      prepared.writes.push(entry.write);
    }
    for (const group of groups) {
      const member = this.shared.choose(group, publish.qos);
      if (member === undefined) continue;
      const { session, subscription } = member;
      const message = sharedMessage({ ...publish, messageExpiry }, subscription);
      const entry = session === undefined || message.qos === 0 ? undefined : this.#queue(session, message);
      prepared.shares.push({ topic: group.topic, member, queued: entry?.queued });
      if (entry !== undefined) prepared.writes.push(entry.write);
    }
    if (publish.retain) {
      const message = storedMessage({ ...publish, messageExpiry }, true);
      prepared.retained = this.retained.keep(message);
      if (prepared.retained) prepared.writes.push(this.retained.writeOf(message));
    }
    this.#prepared.set(publish.payload, prepared);
    return prepared;
  }

  /** Queues one message for one session, without waiting for the disk; undefined when there is no room. */
  queueFor(session: Session, message: StoredMessage): QueuedMessage | undefined {
    const entry = this.#queue(session, message);
    if (entry === undefined) return undefined;
    entry.queued.linked = true;
    this.#log.writeLazily([entry.write]);
    return entry.queued;
  }

  #queue(session: Session, message: StoredMessage): { queued: QueuedMessage; write: LogWrite } | undefined {
    const value = encodeStoredMessage(message);
    const own = decodeStoredMessage(value);
    if (own === undefined) return undefined;
    const queued = this.#enqueue(session, this.#nextSeq++, own, message.qos, value.length);
    return queued && { queued, write: { key: queueKey(session, queued), value } };
  }

  /** The publish failed for good: nobody was promised anything. */
  discard(prepared: Prepared): void {
    for (const [session, queued] of queuedOf(prepared)) this.drop(session, queued);
  }

  /** The broker is about to deliver the publish. */
  link(publish: Publish): void {
    let prepared = this.#prepared.get(publish.payload);
    if (prepared === undefined) {
      prepared = this.prepare({ ...publish, retain: false }, publish.clientId);
      if (prepared === undefined) return;
      this.#log.writeLazily(prepared.writes);
    }
    for (const [session, queued] of queuedOf(prepared)) {
      if (!session.queue.has(queued.seq)) continue;
      queued.linked = true;
      session.onReady?.(queued);
    }
  }

  /** Whether the session's queue took the publish, which it is then delivered from. */
  wasQueued(session: Session, payload: Buffer): boolean {
    return this.#prepared.get(payload)?.queued.some(([owner]) => owner === session) === true;
  }

  /** Who was chosen for a publish among those who share it. */
  sharesOf(payload: Buffer): readonly Share[] {
    return this.#prepared.get(payload)?.shares ?? [];
  }

  /** Gives what a member of a shared subscription left unacknowledged to another one. */
  handOn(messages: readonly StoredMessage[], predecessor: string): void {
    for (const message of messages) {
      const member = this.shared.successor(message, predecessor);
      if (member === undefined) continue;
      const { session, subscription, delivery } = member;
      const own = sharedMessage(message, subscription);
      const queued = session === undefined || own.qos === 0 ? undefined : this.queueFor(session, own);
      if (queued !== undefined) session?.onReady?.(queued);
      else delivery?.offer(own);
    }
  }

  /** Retains a publish that the broker is delivering; most were prepared. */
  retain(publish: Publish): void {
    if (this.#prepared.get(publish.payload)?.retained === true) return;
    const message = storedMessage({ ...publish, messageExpiry: this.expiryOf(publish) }, true);
    if (!this.retained.keep(message)) return;
    this.#log.writeLazily([this.retained.writeOf(message)]);
  }

  /** Gives a message its packet id; what is returned must be durable before it is sent with it. */
  sending(session: Session, queued: QueuedMessage, messageId: number): Promise<void> | undefined {
    if (queued.messageId === messageId) return undefined;
    queued.messageId = messageId;
    session.byMessageId.set(messageId, queued);
    return queued.qos === 2 ? this.#log.write([outWrite(session, queued)]) : undefined;
  }

  /** PUBREC came: from now on only PUBREL is sent. Durable before that, or the receiver would see it twice. */
  async release(session: Session, messageId: number): Promise<void> {
    const queued = session.byMessageId.get(messageId);
    if (queued === undefined || queued.released) return;
    queued.released = true;
    await this.#log.write([outWrite(session, queued)]);
  }

  /** PUBACK or PUBCOMP came. */
  acknowledged(session: Session, messageId: number): QueuedMessage | undefined {
    const queued = session.byMessageId.get(messageId);
    if (queued !== undefined) this.drop(session, queued);
    return queued;
  }

  incomingWrite(session: Session, messageId: number, present: boolean): LogWrite {
    const key = `mqtt/incoming/${session.number.toString(36)}/${messageId.toString(36)}`;
    return { key, value: present ? marker : undefined };
  }

  /** Resolves when that is durable: after PUBCOMP the id may name another message, which must not pass for a copy. */
  async forgetIncoming(session: Session, messageId: number): Promise<void> {
    if (!session.incoming.has(messageId)) return;
    await this.#log.write([this.incomingWrite(session, messageId, false)]);
    session.incoming.delete(messageId);
  }

  #create(
    number: number,
    clientId: string,
    { deviceId, epoch = 0 }: Pick<Account, 'deviceId' | 'epoch'>,
    expiryS: number,
  ): Session {
    const session: Session = {
      number,
      clientId,
      account: deviceId,
      epoch,
      expiryS,
      live: 0,
      idleSinceMs: this.#clock.monotonicMs(),
      resumed: true,
      subscriptions: new Map(),
      subscriptionsWritten: Promise.resolve(),
      queue: new Map(),
      queueBytes: 0,
      byMessageId: new Map(),
      onReady: undefined,
      incoming: new Set(),
      arriving: new Map(),
    };
    this.#sessions.set(clientId, session);
    return session;
  }

  #forget(session: Session): LogWrite[] {
    const number = session.number.toString(36);
    const keys = [`mqtt/session/${number}`];
    for (const topic of session.subscriptions.keys()) keys.push(`mqtt/sub/${number}/${topic}`);
    for (const queued of session.queue.values()) {
      keys.push(queueKey(session, queued));
      if (queued.qos === 2) keys.push(outKey(session, queued));
    }
    for (const id of session.incoming) keys.push(`mqtt/incoming/${number}/${id.toString(36)}`);
    // [MQTT-4.8.2-5]: QoS 2 that was sent is for nobody else.
    const shared = [...session.queue.values()].filter(
      ({ message, qos, messageId }) => message.share !== undefined && (qos === 1 || messageId === 0),
    );
    if (shared.length > 0)
      setImmediate(() =>
        this.handOn(
          shared.map(({ message }) => message),
          session.clientId,
        ),
      );
    this.#queueBytes -= session.queueBytes;
    this.#queueMessages -= session.queue.size;
    session.queue.clear();
    session.queueBytes = 0;
    session.byMessageId.clear();
    session.incoming.clear();
    session.subscriptions.clear();
    this.#sessions.delete(session.clientId);
    this.#subscriptionsChanged();
    return keys.map((key) => ({ key, value: undefined }));
  }

  #evict(): boolean {
    let oldest: Session | undefined;
    for (const session of this.#sessions.values()) {
      if (session.live === 0 && (oldest === undefined || session.idleSinceMs < oldest.idleSinceMs))
        oldest = session;
    }
    if (oldest === undefined) return false;
    this.counts.evictedSessions += 1;
    this.#log.writeLazily(this.#forget(oldest));
    return true;
  }

  #enqueue(
    session: Session,
    seq: number,
    message: StoredMessage,
    qos: number,
    bytes: number,
  ): QueuedMessage | undefined {
    if (!this.#makeRoom(session, bytes)) {
      this.counts.droppedQueued += 1;
      return undefined;
    }
    const queued: QueuedMessage = {
      seq,
      message,
      qos: qos === 2 ? 2 : 1,
      bytes,
      linked: false,
      messageId: 0,
      released: false,
    };
    session.queue.set(seq, queued);
    session.queueBytes += bytes;
    this.#queueBytes += bytes;
    this.#queueMessages += 1;
    return queued;
  }

  /** At a bound the session's oldest message that was not sent yet makes room: the newest matters most. */
  #makeRoom(session: Session, bytes: number): boolean {
    const limits = this.#limits;
    while (
      session.queue.size >= limits.sessionQueueMessages ||
      session.queueBytes + bytes > limits.sessionQueueBytes ||
      this.#queueBytes + bytes > limits.queueBytes
    ) {
      let victim: QueuedMessage | undefined;
      for (const queued of session.queue.values()) {
        if (queued.messageId !== 0 || !queued.linked) continue;
        victim = queued;
        break;
      }
      if (victim === undefined) return false;
      this.counts.droppedQueued += 1;
      this.drop(session, victim);
    }
    return true;
  }

  /** It is over with: acknowledged, expired or too large. */
  drop(session: Session, queued: QueuedMessage): void {
    if (!session.queue.delete(queued.seq)) return;
    session.queueBytes -= queued.bytes;
    this.#queueBytes -= queued.bytes;
    this.#queueMessages -= 1;
    if (queued.messageId !== 0) session.byMessageId.delete(queued.messageId);
    const writes: LogWrite[] = [{ key: queueKey(session, queued), value: undefined }];
    if (queued.qos === 2) writes.push({ key: outKey(session, queued), value: undefined });
    this.#log.writeLazily(writes);
  }

  /**
   * [MQTT 5, 3.3.2.3.3]: the lifetime goes on while the message waits. Kept on the log's running time; the broker counts
   * it by the wall clock, for one step at a time: a clock that jumps must not make a message expire.
   */
  expiryOf(publish: Pick<Publish, 'properties' | 'messageExpiry'>): number | undefined {
    const seconds = publish.properties?.messageExpiryInterval;
    if (publish.messageExpiry !== undefined) {
      return this.#log.runningMs + publish.messageExpiry - this.#clock.wallMs();
    }
    return typeof seconds === 'number' ? this.#log.runningMs + seconds * 1000 : undefined;
  }

  /** On the wall clock, as the broker wants it, right now. */
  brokerExpiry({ messageExpiry }: StoredMessage): number | undefined {
    if (messageExpiry === undefined) return undefined;
    return this.#clock.wallMs() + messageExpiry - this.#log.runningMs;
  }

  /** Undefined for a message that does not expire. */
  remainingMs({ messageExpiry }: StoredMessage): number | undefined {
    return messageExpiry === undefined ? undefined : messageExpiry - this.#log.runningMs;
  }

  async #restore(): Promise<void> {
    const byNumber = new Map<string, Session>();
    const rest: (readonly [string[], Buffer])[] = [];
    for await (const [key, value] of this.#log.entries('mqtt/')) {
      const parts = key.split('/');
      if (parts[1] !== 'session') {
        rest.push([parts, value]);
        continue;
      }
      const session = this.#restoreSession(parts[2] ?? '', value);
      if (session === undefined) this.#damaged(key);
      else byNumber.set(parts[2] ?? '', session);
    }
    // Subscriptions first: they tell a message's QoS. Then messages in the order they were queued, then their state.
    rest.sort(([a], [b]) => restoreRank(a) - restoreRank(b) || (a[1] === 'queue' ? seqOf(a) - seqOf(b) : 0));
    for (const [parts, value] of rest) {
      if (!this.#restoreEntry(parts, value, byNumber.get(parts[2] ?? ''))) this.#damaged(parts.join('/'));
    }
  }

  #damaged(key: string): void {
    this.counts.damagedRecords += 1;
    this.#log.writeLazily([{ key, value: undefined }]);
  }

  #restoreSession(number: string, value: Buffer): Session | undefined {
    const record = parseRecord(value.toString());
    if (record === undefined || record.v !== 1) return undefined;
    const { id, account, expiry, epoch = 0 } = record;
    if (typeof id !== 'string' || typeof account !== 'string' || typeof expiry !== 'number') return undefined;
    if (typeof epoch !== 'number') return undefined;
    if (this.#sessions.has(id)) return undefined;
    const parsed = this.#restoredNumber(number);
    return parsed === undefined ? undefined : this.#create(parsed, id, { deviceId: account, epoch }, expiry);
  }

  #restoredNumber(text: string): number | undefined {
    const number = Number.parseInt(text, 36);
    if (!Number.isSafeInteger(number) || number.toString(36) !== text) return undefined;
    this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    return number;
  }

  #restoreEntry(parts: readonly string[], value: Buffer, session: Session | undefined): boolean {
    switch (parts[1]) {
      case 'retained':
        return this.retained.restore(parts.slice(2).join('/'), value);
      case 'will':
        // wills.ts reads it.
        return true;
      case 'sub':
        return session !== undefined && restoreSubscription(session, parts.slice(3).join('/'), value);
      case 'queue':
        return session !== undefined && this.#restoreQueued(session, seqOf(parts), value);
      case 'out':
        return session !== undefined && restoreOut(session, seqOf(parts), value);
      case 'incoming': {
        const id = seqOf(parts);
        if (session === undefined || !(id > 0 && id <= 0xffff)) return false;
        session.incoming.add(id);
        return true;
      }
      default:
        return false;
    }
  }

  #restoreQueued(session: Session, seq: number, value: Buffer): boolean {
    const message = decodeStoredMessage(value);
    if (message === undefined || message.qos === 0 || !Number.isSafeInteger(seq)) return false;
    let qos = 0;
    for (const subscription of session.subscriptions.values()) {
      if (matchesFilter(subscription.topic, message.topic)) qos = Math.max(qos, subscription.qos);
    }
    if (message.share !== undefined) qos = message.qos;
    const queued = this.#enqueue(session, seq, message, Math.min(message.qos, qos || 1), value.length);
    if (queued === undefined) return false;
    queued.linked = true;
    this.#nextSeq = Math.max(this.#nextSeq, seq + 1);
    return true;
  }
}

function sessionWrite(session: Session): LogWrite {
  const { clientId: id, account, expiryS: expiry, epoch } = session;
  const record = { v: 1, id, account, expiry, epoch };
  return { key: `mqtt/session/${session.number.toString(36)}`, value: Buffer.from(JSON.stringify(record)) };
}

function queueKey(session: Session, queued: QueuedMessage): string {
  return `mqtt/queue/${session.number.toString(36)}/${queued.seq.toString(36)}`;
}

function outKey(session: Session, queued: QueuedMessage): string {
  return `mqtt/out/${session.number.toString(36)}/${queued.seq.toString(36)}`;
}

function outWrite(session: Session, queued: QueuedMessage): LogWrite {
  const value = Buffer.from([1, queued.released ? 1 : 0, queued.messageId >> 8, queued.messageId & 0xff]);
  return { key: outKey(session, queued), value };
}

/** QoS 0 is not queued. */
function queueable(wanted: Wanted | undefined): Wanted | undefined {
  return wanted === undefined || wanted.qos === 0 ? undefined : wanted;
}

function storedMessage(publish: Publish, retain: boolean): StoredMessage {
  const qos = publish.qos === 2 ? 2 : 1;
  return {
    topic: publish.topic,
    payload: publish.payload,
    qos: publish.qos === 0 ? 0 : qos,
    retain,
    properties: publish.properties,
    messageExpiry: publish.messageExpiry,
  };
}

function queuedOf({ queued, shares }: Prepared): (readonly [Session, QueuedMessage])[] {
  const shared = shares.flatMap(({ member, queued: own }) =>
    member.session === undefined || own === undefined ? [] : [[member.session, own] as const],
  );
  return shared.length === 0 ? queued : [...queued, ...shared];
}

function sameSubscription(a: Subscription, b: Subscription): boolean {
  return (
    a.qos === b.qos &&
    a.rh === b.rh &&
    a.rap === b.rap &&
    a.nl === b.nl &&
    a.subscriptionIdentifier === b.subscriptionIdentifier
  );
}

function restoreRank(parts: readonly string[]): number {
  if (parts[1] === 'queue') return 1;
  return parts[1] === 'out' ? 2 : 0;
}

function seqOf(parts: readonly string[]): number {
  return Number.parseInt(parts[3] ?? '', 36);
}

function restoreSubscription(session: Session, topic: string, value: Buffer): boolean {
  const record = parseRecord(value.toString());
  if (record === undefined || record.v !== 1 || topic === '') return false;
  const { qos, rh, rap, nl, si } = record;
  if (qos !== 0 && qos !== 1 && qos !== 2) return false;
  session.subscriptions.set(topic, {
    topic,
    qos,
    rh: typeof rh === 'number' ? rh : undefined,
    rap: typeof rap === 'boolean' ? rap : undefined,
    nl: typeof nl === 'boolean' ? nl : undefined,
    subscriptionIdentifier: typeof si === 'number' ? si : undefined,
  });
  return true;
}

function restoreOut(session: Session, seq: number, value: Buffer): boolean {
  const queued = session.queue.get(seq);
  if (queued === undefined || value.length !== 4 || value[0] !== 1) return false;
  const messageId = value.readUInt16BE(2);
  if (messageId === 0) return false;
  queued.messageId = messageId;
  queued.released = value[1] === 1;
  session.byMessageId.set(messageId, queued);
  return true;
}
