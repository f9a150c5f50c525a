// The MQTT broker as a source of messages: listeners → admission → packet guard → aedes → intake → sink.
//
// Promises: what a client was acknowledged is durable (telemetry, queued and retained messages, sessions and
// subscriptions); nobody speaks without credentials, and nobody beyond its own topics; a client that is hostile,
// stuck or gone costs the others nothing, and every refusal is counted. It does not look into payloads.
// MQTT 3.1.1 whole; 5.0 as far as the broker library goes (docs/decisions/0002).

import assert from 'node:assert/strict';
import type { Duplex } from 'node:stream';
import type { Sink } from '../../model/message.ts';
import { matchesFilter } from '../../model/topic.ts';
import type { Certificates } from '../../platform/certificates.ts';
import type { Clock } from '../../platform/clock.ts';
import { GatewayError } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { type Account, type Credentials, mayRead, publishTarget } from './access.ts';
import { Admission } from './admission.ts';
import {
  adoptClient,
  type Broker,
  type BrokerClient,
  type BrokerHooks,
  type BrokerPacket,
  type ConnectPacket,
  dropSuperseded,
  editConnack,
  filterOf,
  type IncomingPacket,
  inspectPackets,
  inspectReads,
  openBroker,
  renameFilters,
} from './broker-internals.ts';
import { type Connection, incomingOf, newConnection } from './connection.ts';
import { capacityOf, Delivery } from './delivery.ts';
import { takePublishes } from './direct-publish.ts';
import { MqttDownlink } from './downlink.ts';
import {
  disconnectBytes,
  dismiss,
  explain,
  farewells,
  farewellTo,
  mayExplain,
  type Refused,
  refusal,
} from './farewell.ts';
import { type CommandHandler, Intake, isSated } from './intake.ts';
import { defaultLimits, type MqttLimits } from './limits.ts';
import { type Listeners, openListeners, type Ports } from './listeners.ts';
import { Outflow } from './outflow.ts';
import { type Offence, PacketGuard } from './packet-guard.ts';
import { brokerPersistence, placeholderFilter } from './persistence.ts';
import type { SessionLog } from './session-log.ts';
import { Sessions } from './sessions.ts';
import type { Connected } from './shared-subscriptions.ts';
import { sharedFilter } from './subscription.ts';
import { type Will, Wills } from './wills.ts';

export interface MqttListen {
  /** Address of the plain ports; without `lanPlaintext` they listen on the loopback alone. */
  readonly host: string;
  readonly lanPlaintext: boolean;
  /** 0 picks a free port; undefined leaves the listener out. */
  readonly port?: number | undefined;
  readonly tlsPort?: number | undefined;
  readonly wsPort?: number | undefined;
}

export interface MqttSourceOptions {
  /** First levels of every topic. */
  readonly root: string;
  /** Needed only with `listen.tlsPort`. */
  readonly certificates?: Certificates;
  readonly listen: MqttListen;
  readonly limits?: Partial<MqttLimits>;
  readonly credentials: Credentials;
  readonly sink: Sink;
  readonly sessionLog: SessionLog;
  /** While true, QoS 0 publishers are slowed down to the sink's pace. */
  readonly isBehind?: () => boolean;
  readonly onCommand?: CommandHandler;
  /** Told of every connection of an account, when it has logged in and when it is gone. */
  readonly onPresence?: (deviceId: string, isConnected: boolean) => void;
  readonly clock: Clock;
  readonly log: Log;
}

export interface PublishOptions {
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
}

/** CONNACK return codes of 3.1.1; aedes translates them for MQTT 5. */
const serverUnavailable = 3;
const badUserNameOrPassword = 4;
const notAuthorized = 5;
/** A success, of a kind [MQTT 5, 3.4.2.1]. */
const noMatchingSubscribers = 0x10;
/** From here on a reason code means failure. */
const failed = 0x80;

const wantedMax = 4096;
const sweepMs = 1000;
const drainMs = 2000;
/** How long a client may take to read why it is refused. */
const lingerMs = 1000;

interface Stages {
  readonly sessions: Sessions;
  readonly intake: Intake;
  readonly wills: Wills;
}

export class MqttSource {
  /** Commands to devices that listen for them. */
  readonly downlink: MqttDownlink;
  readonly #options: MqttSourceOptions;
  readonly #limits: MqttLimits;
  readonly #sessions: Sessions;
  readonly #admission: Admission;
  readonly #intake: Intake;
  readonly #connections = new Map<BrokerClient, Connection>();
  readonly #owners = new Map<string, { deviceId: string; connections: number }>();
  readonly #wills: Wills;
  /** By topic; forgotten whenever a filter is granted. What is wanted by mistake is delivered to nobody. */
  readonly #wanted = new Map<string, boolean>();
  readonly #offences = new Map<Offence, number>();
  readonly #counts = {
    connections: 0,
    refusedLogins: 0,
    refusedTakeovers: 0,
    refusedSubscriptions: 0,
    revokedConnections: 0,
    droppedQos0: 0,
    slowReadersCut: 0,
    droppedTooLarge: 0,
    droppedWaiting: 0,
    expiredMessages: 0,
    brokerErrors: 0,
  };
  #broker: Broker | undefined;
  #isSharing = false;
  #listeners: Listeners | undefined;
  #sweeper: NodeJS.Timeout | undefined;
  #closing: Promise<void> | undefined;

  private constructor(options: MqttSourceOptions, limits: MqttLimits, { sessions, intake, wills }: Stages) {
    this.#options = options;
    this.#limits = limits;
    this.#sessions = sessions;
    this.#intake = intake;
    this.#wills = wills;
    this.#admission = new Admission(limits, options.clock);
    this.downlink = new MqttDownlink({ root: options.root, connections: () => this.#connections.values() });
  }

  /**
   * Restores sessions, publishes the wills that are due of clients that were connected when the gateway died, then
   * listens.
   * @throws GatewayError `MQTT_LISTEN_FAILED`.
   */
  static async open(options: MqttSourceOptions): Promise<MqttSource> {
    const limits = { ...defaultLimits, ...options.limits };
    const { sessionLog, clock, log, root, sink } = options;
    const sessions = await Sessions.open({ log: sessionLog, clock, limits });
    const { onCommand, isBehind } = options;
    const intake = new Intake({ root, sink, log, clock, limits, sessionLog, sessions, onCommand, isBehind });
    const publish = (will: Will): Promise<void> => source.#publishWill(will);
    const wills = await Wills.open({ log: sessionLog, sessions, publish });
    const source = new MqttSource(options, limits, { sessions, intake, wills });
    await source.#start();
    return source;
  }

  /** The ports in use; undefined for a listener that was left out. */
  get ports(): Ports {
    return this.#listeners?.ports ?? { mqtt: undefined, mqtts: undefined, ws: undefined };
  }

  /**
   * Publishes a message of the gateway's own. With QoS 1 or 2 it resolves when the message is durable for the
   * sessions that subscribe to it and, if retained, for those to come.
   */
  async publish(topic: string, payload: Buffer, { qos, retain }: PublishOptions): Promise<void> {
    const broker = this.#broker;
    if (broker === undefined || broker.closed)
      throw new GatewayError('MQTT_CLOSED', 'the MQTT broker is closed');
    // A buffer of its own: by it, the broker's copy of the packet is known again.
    const own = Buffer.from(payload);
    if (qos > 0) {
      const prepared = this.#sessions.prepare({ topic, payload: own, qos, retain });
      if (prepared !== undefined && prepared.writes.length > 0) {
        await this.#options.sessionLog.write(prepared.writes);
      }
    }
    await publishTo(broker, { cmd: 'publish', topic, payload: own, qos, retain });
  }

  /** The device is gone for good: so is what it left to be kept. Its sessions end with its credentials. */
  forget(deviceId: string): void {
    this.#sessions.retained.forgetOf(deviceId);
  }

  /** The same for devices that were removed while nothing ran here. */
  forgetOthers(isKnown: (deviceId: string) => boolean): void {
    this.#sessions.retained.forgetOthers(isKnown);
  }

  stats() {
    let heldBytes = 0;
    let unsentBytes = 0;
    for (const { guard, client } of this.#connections.values()) {
      heldBytes += guard.heldBytes;
      unsentBytes += client.conn.writableLength;
    }
    const [sessions, wills] = [this.#sessions.stats(), this.#wills.stats()];
    return {
      ...this.#counts,
      ...this.#intake.counts,
      ...sessions,
      ...wills,
      damagedRecords: sessions.damagedRecords + wills.damagedRecords,
      offences: Object.fromEntries(this.#offences) as Partial<Record<Offence, number>>,
      sockets: this.#admission.sockets,
      unauthenticatedSockets: this.#admission.unauthenticated,
      refusedSockets: this.#admission.refusedSockets,
      pendingAcknowledgements: this.#intake.pending,
      heldBytes,
      unsentBytes,
    };
  }

  /**
   * Takes no more, lets what was received become durable, tells MQTT 5 clients, ends the connections. Their wills are
   * published [MQTT-3.1.2-8]: from here on nobody can say that these devices are there.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearInterval(this.#sweeper);
    this.#listeners?.stop();
    await this.#drained(() => this.#intake.pending === 0);
    const broker = this.#broker;
    if (broker !== undefined) await new Promise<void>((resolve) => broker.close(resolve));
    // One that is not durable by then stays in the log and is published at the next start.
    await this.#drained(() => this.#intake.pendingWills === 0);
    await this.#listeners?.close();
  }

  async #drained(isDone: () => boolean): Promise<void> {
    const deadlineMs = this.#options.clock.monotonicMs() + drainMs;
    while (!isDone() && this.#options.clock.monotonicMs() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }

  async #start(): Promise<void> {
    const { listen, certificates, log, credentials } = this.#options;
    const persistence = brokerPersistence(this.#sessions, {
      granted: (client, filter) => this.#connections.get(client)?.subscriptions.get(filter),
      ready: (client) => {
        const { delivery, session, capacity } = this.#connection(client);
        delivery?.start(session, capacity);
        this.#sessions.shared.changed();
      },
      putWill: (client, will) => this.#keepWill(client, will),
      incoming: (client) => incomingOf(this.#connection(client)),
      isFirstCopy: (packet) => this.#intake.isFirstCopy(packet),
      isOverflowing: (client) => this.#connections.get(client)?.outflow.isOverflowing === true,
    });
    const broker = await openBroker({
      ...this.#limits,
      persistence,
      hooks: this.#hooks(),
      responseInformation: (client) => this.#responseInformation(client),
    });
    this.#broker = broker;
    this.#intake.attach(broker);
    this.downlink.attach(broker);
    this.#sessions.shared.connected = () => this.#connectedClients();
    broker.on('error', (error) => {
      this.#counts.brokerErrors += 1;
      log.error({ event: 'mqtt-broker-error', err: error });
    });
    broker.scheduleWill = (_client, will, delayS) => this.#wills.delay(will, delayS);
    broker.clearDelayedWill = (clientId) => this.#wills.resumed(clientId);
    broker.on('keepaliveTimeout', (client) => {
      const { version, connected, conn } = client as BrokerClient;
      if (version !== 5 || !connected) return;
      // aedes destroys the connection right after this.
      const connection = this.#connection(client as BrokerClient);
      conn.write(disconnectBytes(farewells.keepAliveTimeout, connection));
    });
    broker.on('subscribe', (_subscriptions, client) => dropSuperseded(broker, client as BrokerClient));
    broker.on('unsubscribe', (filters, client) => {
      const connection = this.#connections.get(client as BrokerClient);
      for (const filter of filters as string[]) connection?.subscriptions.delete(filterOf(filter));
      connection?.delivery?.forgetWanted();
      this.#sessions.shared.changed();
    });
    credentials.onRevoked(({ deviceId, status }) => {
      this.#revoke(deviceId);
      // With another key the device comes back for its session; revoked for good it must not even be collected for.
      if (status === 'inactive') this.#sessions.endOf(deviceId);
    });
    this.#endStrangers();
    try {
      // Before anyone can connect: a will that comes after its device's "online" would tell an untruth.
      await this.#wills.resume();
      assert(listen.tlsPort === undefined || certificates, 'BUG: TLS without certificates');
      const tls =
        certificates && listen.tlsPort !== undefined ? { port: listen.tlsPort, certificates } : undefined;
      const { host, lanPlaintext, port, wsPort } = listen;
      this.#listeners = await openListeners(
        { host, lanPlaintext, port, wsPort, tls },
        {
          limits: this.#limits,
          admission: this.#admission,
          connected: (connection, ticket) => this.#connected(connection, ticket),
        },
      );
    } catch (error) {
      await new Promise<void>((resolve) => broker.close(resolve));
      throw error;
    }
    this.#sweeper = setInterval(() => this.#sweep(), sweepMs).unref();
  }

  #hooks(): BrokerHooks {
    return {
      preConnect: (client, packet, answer) => this.#preConnect(client, packet, answer),
      authenticate: (client, userName, password, answer) => {
        this.#authenticate(client, userName, password).then(
          (refused) => this.#answer(client, refused, answer),
          () => this.#answer(client, refusal(serverUnavailable, 'session cannot be stored'), answer),
        );
      },
      authorizePublish: (client, packet, done) => this.#authorizePublish(client, packet, done),
      authorizeSubscribe: (client, subscription, answer) => {
        const { asked = subscription } = subscription;
        const { topic } = asked;
        const connection = this.#connections.get(client);
        // Counted here, not by aedes' list: all filters of a SUBSCRIBE are asked for before the first one is listed.
        const fits =
          connection !== undefined &&
          (connection.subscriptions.has(topic) ||
            connection.subscriptions.size < this.#limits.subscriptionsPerClient);
        if (fits && this.#mayRead(connection.account, sharedFilter(topic) ?? topic)) {
          connection.subscriptions.set(topic, asked);
          connection.delivery?.forgetWanted();
          this.#sessions.shared.changed();
          this.#wanted.clear();
          if (sharedFilter(topic) !== undefined) this.#listenForShared();
          answer(null, subscription);
          return;
        }
        if (topic !== placeholderFilter) this.#counts.refusedSubscriptions += 1;
        answer(null, null);
      },
    };
  }

  #connected(stream: Duplex, ticket: string): void {
    const broker = this.#broker;
    if (broker === undefined || broker.closed || this.#closing !== undefined) {
      stream.destroy();
      return;
    }
    const guard = new PacketGuard(this.#limits);
    const outflow = new Outflow(stream, this.#limits.clientQueueBytes);
    outflow.watch();
    const client = broker.handle(stream);
    const connection = newConnection(client, guard, outflow, ticket);
    const { counts, ...shared } = { counts: this.#counts, sessions: this.#sessions, limits: this.#limits };
    const delivery = new Delivery({ connection, counts, ...shared });
    connection.delivery = delivery;
    this.#connections.set(client, connection);
    this.#counts.connections += 1;
    stream.once('close', () => this.#disconnected(connection));
    adoptClient(client, {
      deliver: (packet, done) => delivery.deliver(packet, done),
      waitForDrain: (done) => outflow.waitForDrain(done),
    });
    inspectPackets(client, (packet) => this.#inspect(connection, packet));
    const direct = { intake: this.#intake, broker, isWanted: (topic: string) => this.#isWanted(topic) };
    inspectReads(
      stream,
      () => {
        connection.isHeldBack = isSated(connection);
        return connection.isHeldBack;
      },
      (chunk) => {
        if (outflow.isOverrun && !outflow.isOverflowing) {
          this.#counts.slowReadersCut += 1;
          outflow.overflow();
        }
        if (outflow.isOverflowing) return null;
        connection.readMs = this.#options.clock.monotonicMs();
        const refused = guard.offence !== undefined;
        const good = guard.push(chunk);
        if (guard.offence !== undefined && !refused) this.#refuse(connection, guard.offence);
        if (good === undefined) return null;
        const taken = takePublishes(connection, good, direct);
        if (taken === 0) return good;
        return taken === good.length ? null : good.subarray(taken);
      },
    );
  }

  #disconnected(connection: Connection): void {
    const { client, session } = connection;
    this.#connections.delete(client);
    connection.delivery?.stop();
    this.downlink.disconnected(client);
    this.#sessions.shared.changed();
    if (session !== undefined) {
      // A DISCONNECT may have changed it [MQTT 5, 3.14.2.2.2].
      if (client.version === 5) this.#sessions.setExpiry(session, client.sessionExpiryInterval);
      this.#sessions.leave(session);
    }
    if (client._disconnected && connection.will !== undefined) this.#wills.forget(connection.will);
    this.#disown(connection);
  }

  #disown(connection: Connection): void {
    const owner = this.#owners.get(connection.client.id);
    if (connection.account === undefined || owner === undefined) return;
    this.#options.onPresence?.(connection.account.deviceId, false);
    connection.account = undefined;
    owner.connections -= 1;
    if (owner.connections === 0) this.#owners.delete(connection.client.id);
  }

  /** Says why, where the protocol has words for it, and hangs up. A will is sent: nobody said goodbye. */
  #refuse(connection: Connection, offence: Offence): void {
    this.#offences.set(offence, (this.#offences.get(offence) ?? 0) + 1);
    const { conn } = connection.client;
    const farewell = farewellTo(connection, offence);
    // Not within aedes' read: good packets ahead of the offence are still being handled.
    setImmediate(() => {
      conn.end(farewell, () => conn.destroy());
      setTimeout(() => conn.destroy(), lingerMs).unref();
    });
  }

  #preConnect(
    client: BrokerClient,
    packet: ConnectPacket,
    answer: (error: Error | null, value: boolean) => void,
  ): void {
    const { keepaliveS } = this.#limits;
    if (packet.keepalive === 0 || packet.keepalive > keepaliveS) {
      // 3.1.1 has no way to say so, but lets a server end what is inactive [MQTT-3.1.2-24].
      packet.keepalive = keepaliveS;
      client._serverKeepAlive = keepaliveS;
    }
    const connection = this.#connection(client);
    connection.capacity = capacityOf(packet.properties);
    if (packet.protocolVersion === 5) {
      editConnack(client.conn, (connack) => {
        const { sharedSubscriptionAvailable: _, ...properties } = explain(connack, connection) ?? {};
        return properties;
      });
    }
    answer(null, true);
  }

  /** Undefined when the client may come in; its session, if it wants one, is durable then. */
  async #authenticate(
    client: BrokerClient,
    userName: string | undefined,
    password: Buffer | undefined,
  ): Promise<Refused | undefined> {
    const connection = this.#connection(client);
    const account = this.#verify(userName, password);
    if (account === undefined) {
      this.#counts.refusedLogins += 1;
      if (this.#isBarred(userName, password)) {
        return refusal(notAuthorized, 'this device waits for approval or is inactive');
      }
      return refusal(badUserNameOrPassword, 'bad user name or password');
    }
    const owner = this.#owners.get(client.id)?.deviceId ?? this.#sessions.find(client.id)?.account;
    if (owner !== undefined && owner !== account.deviceId) {
      this.#counts.refusedTakeovers += 1;
      return refusal(notAuthorized, 'client id belongs to another account');
    }
    const will = client._will;
    if (
      will !== null &&
      will !== undefined &&
      publishTarget(this.#options.root, account, will.topic) === undefined
    ) {
      this.#intake.counts.refusedPublishes += 1;
      return refusal(notAuthorized, 'not authorized to leave this will');
    }
    // Claimed before anything is awaited: another account must not slip in meanwhile.
    connection.account = account;
    const claim = this.#owners.get(client.id);
    if (claim === undefined) this.#owners.set(client.id, { deviceId: account.deviceId, connections: 1 });
    else claim.connections += 1;
    this.#admission.authenticated(connection.ticket);
    this.#options.onPresence?.(account.deviceId, true);
    return await this.#openSession(connection);
  }

  #answer(
    client: BrokerClient,
    refused: Refused | undefined,
    answer: (error: Error | null, value: boolean) => void,
  ): void {
    const connection = this.#connections.get(client);
    if (connection !== undefined) connection.refused = refused;
    answer(refused ?? null, refused === undefined);
  }

  #verify(userName: string | undefined, password: Buffer | undefined): Account | undefined {
    if (userName === undefined || password === undefined) return undefined;
    try {
      return this.#options.credentials.verify(userName, password.toString());
    } catch (error) {
      // A registry that cannot tell denies.
      this.#options.log.error({ event: 'mqtt-verify-failed', err: error });
      return undefined;
    }
  }

  #isBarred(userName: string | undefined, password: Buffer | undefined): boolean {
    const { credentials, log } = this.#options;
    if (userName === undefined || password === undefined) return false;
    try {
      return credentials.isBarred?.(userName, password.toString()) === true;
    } catch (error) {
      log.error({ event: 'mqtt-verify-failed', err: error });
      return false;
    }
  }

  /** Accounts may have been shut out, or removed, while nothing ran here that could be told. */
  #endStrangers(): void {
    const { credentials } = this.#options;
    const { account: accountOf } = credentials;
    if (accountOf === undefined) return;
    const accounts = (deviceId: string) => accountOf.call(credentials, deviceId);
    this.#sessions.endStrangers(accounts);
    this.#wills.endStrangers(accounts);
  }

  async #openSession(connection: Connection): Promise<Refused | undefined> {
    const { client, account } = connection;
    assert(account !== undefined, 'BUG: a session needs an account');
    const existing = this.#sessions.find(client.id);
    const cleanStart = client._cleanStart === true;
    if (client.clean && (cleanStart || existing === undefined)) {
      if (existing !== undefined) await this.#sessions.end(existing);
      return undefined;
    }
    const expiryS = client.sessionExpiryInterval;
    const session = await this.#sessions.begin(client.id, account, expiryS, cleanStart);
    if (session === undefined) return refusal(serverUnavailable, 'no room for another session');
    if (client.conn.destroyed) {
      this.#sessions.leave(session);
      return undefined;
    }
    connection.session = session;
    return undefined;
  }

  #authorizePublish(
    client: BrokerClient | null,
    packet: BrokerPacket,
    done: (error?: Error | null) => void,
  ): void {
    const will = this.#wills.of(packet);
    if (will !== undefined) {
      this.#intake
        .acceptWill(will.account, packet)
        .finally(() => this.#wills.forget(will))
        .then(() => done(), done);
      return;
    }
    const connection = client === null ? undefined : this.#connections.get(client);
    if (connection === undefined) {
      done(new Error('not authorized'));
      return;
    }
    this.#intake.accept(connection, packet, (error) => {
      connection.acknowledgements.flush();
      // aedes tells MQTT 5 clients the message.
      if (error && !mayExplain(connection, error.message)) error.message = '';
      if (!error && this.#isForNobody(connection, packet)) {
        const { messageId = 0 } = packet;
        connection.write(Buffer.from([0x40, 3, messageId >> 8, messageId & 0xff, noMatchingSubscribers]));
        packet._notAuthorized = true;
      }
      done(error);
    });
  }

  /** Whether neither the gateway nor anybody else takes the message, and its publisher can be told so. */
  #isForNobody({ client, account }: Connection, packet: BrokerPacket): boolean {
    if (client.version !== 5 || packet.qos !== 1 || packet.retain || packet._notAuthorized === true)
      return false;
    // What a device publishes is for the gateway.
    if (account?.service !== true || this.#isWanted(packet.topic)) return false;
    const kind = publishTarget(this.#options.root, account, packet.topic)?.kind;
    return kind === 'device-command' || kind === 'home-assistant';
  }

  /** Subscribers that are connected, and sessions whose client is away. Remembered: devices publish to few topics. */
  #isWanted(topic: string): boolean {
    const known = this.#wanted.get(topic);
    if (known !== undefined) return known;
    const isWanted =
      this.#sessions.subscribers(topic).length > 0 ||
      this.#sessions.shared.matching(topic).length > 0 ||
      this.#isSubscribed(topic);
    if (this.#wanted.size >= wantedMax) this.#wanted.clear();
    this.#wanted.set(topic, isWanted);
    return isWanted;
  }

  *#connectedClients(): Generator<Connected> {
    for (const { client, session, delivery, subscriptions } of this.#connections.values())
      yield { clientId: client.id, session, delivery, subscriptions };
  }

  /** To all messages: which ones are shared changes with every subscription. Not before somebody shares one. */
  #listenForShared(): void {
    if (this.#isSharing) return;
    this.#isSharing = true;
    this.#broker?.subscribe(
      '#',
      (packet, done) => this.#deliverShared(packet, done),
      () => {},
    );
  }

  #deliverShared(packet: BrokerPacket, done: () => void): void {
    if (packet.topic.startsWith('$')) {
      done();
      return;
    }
    const shares = packet.qos === 0 ? [] : this.#sessions.sharesOf(packet.payload);
    this.#sessions.shared.deliver(packet, shares, done);
  }

  #isSubscribed(topic: string): boolean {
    for (const { subscriptions } of this.#connections.values()) {
      for (const filter of subscriptions.keys()) if (matchesFilter(filter, topic)) return true;
    }
    return false;
  }

  #keepWill(client: BrokerClient, packet: BrokerPacket): void {
    const connection = this.#connections.get(client);
    const { account, session } = connection ?? {};
    if (connection === undefined || account === undefined) return;
    connection.will = this.#wills.keep(packet, { clientId: client.id, account, session });
  }

  /** A will that waited for its delay, or for the gateway to start. */
  async #publishWill({ account, packet }: Will): Promise<void> {
    try {
      await this.#intake.acceptWill(account, packet);
    } catch (error) {
      this.#options.log.warn({ event: 'mqtt-will-lost', account: account.deviceId, err: error });
    }
    if (this.#broker !== undefined) await publishTo(this.#broker, packet).catch(() => undefined);
  }

  /** Begins the topics on which the client can be answered; devices are, by services, where their commands come. */
  #responseInformation(client: BrokerClient): string | undefined {
    const { account } = this.#connection(client);
    if (account === undefined) return undefined;
    const devices = `${this.#options.root}/devices/`;
    return account.service ? devices : `${devices}${account.deviceId}/commands/`;
  }

  #mayRead(account: Account | undefined, filter: string): boolean {
    return account !== undefined && mayRead(this.#options.root, account, filter);
  }

  /** Looks at a packet before aedes handles it. */
  #inspect(
    { client, delivery }: Connection,
    { cmd, messageId = 0, reasonCode = 0, ...packet }: IncomingPacket,
  ): boolean {
    if (cmd === 'subscribe' || cmd === 'unsubscribe') {
      renameFilters({ cmd, ...packet });
      return true;
    }
    const isOver = cmd === 'puback' || cmd === 'pubcomp' || (cmd === 'pubrec' && reasonCode >= failed);
    if (isOver) delivery?.acknowledged(messageId);
    if (cmd === 'puback') this.downlink.acknowledged(client, messageId, reasonCode);
    return true;
  }

  #revoke(deviceId: string): void {
    this.#wills.endOf(deviceId);
    for (const connection of this.#connections.values()) {
      if (connection.account?.deviceId !== deviceId) continue;
      const { client } = connection;
      this.#counts.revokedConnections += 1;
      // What it left to be said in its name is not said.
      client.will = null;
      if (connection.will !== undefined) this.#wills.forget(connection.will);
      this.#disown(connection);
      dismiss(connection, farewells.administrativeAction);
      setTimeout(() => client.conn.destroy(), lingerMs).unref();
    }
  }

  #sweep(): void {
    for (const connection of this.#connections.values()) this.#intake.sweep(connection);
    this.#sessions.expire();
    this.#wills.sweep();
  }

  #connection(client: BrokerClient): Connection {
    const connection = this.#connections.get(client);
    assert(connection !== undefined, 'BUG: aedes speaks of a client it was not given');
    return connection;
  }
}

function publishTo(broker: Broker, packet: object): Promise<void> {
  return new Promise((resolve, reject) => {
    broker.publish(packet, null, (error) => {
      if (error) reject(error);
      else resolve();
    });
  });
}
