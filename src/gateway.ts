// The wiring, and nothing else:
//
//   sources ─▶ ingest ─▶ journal ─▶ forwarder ─▶ InfluxDB
//                 └─▶ rules ─▶ alarms ─▶ buzzer
//
// Starts sinks first and sources last, so that nothing arrives before there is a place for it; stops in reverse,
// with a deadline per stage. Deleting a feature is deleting its file and its lines here.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { mkdir, rm } from 'node:fs/promises';
import { uptime } from 'node:os';
import { dirname, join } from 'node:path';
import { AlarmBoard, type AlarmChange } from './alarms/board.ts';
import { buzzer } from './alarms/buzzer.ts';
import { operations as alarmOperations } from './alarms/operations.ts';
import { everyCaller, stillHolds } from './api/access.ts';
import { Api } from './api/api.ts';
import { ControlSocket } from './api/control-socket.ts';
import { Events } from './api/events.ts';
import { type GatewayFigures, healthOf, metricFamilies } from './api/figures.ts';
import type { Health } from './api/health.ts';
import { adminRoutes } from './api/routes/admin.ts';
import { alarmRoutes } from './api/routes/alarms.ts';
import { commandRoutes } from './api/routes/commands.ts';
import { dashboardRoutes } from './api/routes/dashboard.ts';
import { deviceRoutes } from './api/routes/devices.ts';
import { enrolmentRoutes } from './api/routes/enrolment.ts';
import { eventRoutes } from './api/routes/events.ts';
import { gatewayRoutes } from './api/routes/gateway.ts';
import { influxdbRoutes } from './api/routes/influxdb.ts';
import { peopleRoutes } from './api/routes/people.ts';
import { telemetryRoutes } from './api/routes/telemetry.ts';
import { telemetryStatusRoutes } from './api/routes/telemetry-status.ts';
import { Backups } from './backup/backups.ts';
import { Bridge } from './bridge/bridge.ts';
import { acknowledgementPayload } from './commands/acknowledgement.ts';
import { Commands } from './commands/commands.ts';
import { operations as commandOperations } from './commands/operations.ts';
import { dataPaths, isBackedUp } from './config/paths.ts';
import type { Config } from './config/schema.ts';
import {
  bridgeOptions,
  commandLimits,
  historyOptions,
  influxTarget,
  journalOptions,
  sessionOptions,
} from './config/stage-options.ts';
import { Forwarder, type ForwarderStats } from './forwarder/forwarder.ts';
import { RemoteClock } from './forwarder/remote-clock.ts';
import { LearntTypes } from './forwarder/server-types.ts';
import { History } from './history/history.ts';
import { operations as historyOperations } from './history/operations.ts';
import { wholeHistory } from './history/whole-history.ts';
import { Ingest } from './ingest/ingest.ts';
import { operations as fieldTypeOperations } from './ingest/operations.ts';
import type { SubmittedPoint } from './ingest/submission.ts';
import { syncBucketsMs } from './journal/committer.ts';
import type { StateWrite } from './journal/contract.ts';
import { Journal } from './journal/journal.ts';
import { letterOperations } from './journal/letter-operations.ts';
import { journalOperations } from './journal/operations.ts';
import type { RetentionReport } from './journal/retention.ts';
import { WearMeter } from './journal/wear.ts';
import { gatewayEventPoint } from './model/gateway-event.ts';
import { encodePoint } from './model/line-protocol.ts';
import type { Message, Sink } from './model/message.ts';
import type { FieldValue, Point, PointClass, PointTime } from './model/point.ts';
import { Button } from './platform/button.ts';
import { Certificates } from './platform/certificates.ts';
import { bootTime, type Clock } from './platform/clock.ts';
import { clockProbe } from './platform/clock-trust.ts';
import { clearForDirectory, type Disk, makeDirectory, replaceFile, systemDisk } from './platform/disk.ts';
import { type DiskTrouble, diskTroubleOf, isDiskTrouble, traceOf } from './platform/disk-trouble.ts';
import { GatewayError } from './platform/errors.ts';
import { settleExchange } from './platform/exchange.ts';
import { Led } from './platform/led.ts';
import { LevelStore } from './platform/level-store.ts';
import type { Log } from './platform/log.ts';
import type { Operation, Operations } from './platform/operations.ts';
import { snakeCased } from './platform/outside-names.ts';
import { copyToMemory, isWritable, readOnlyDisk } from './platform/stand-in.ts';
import type { Store } from './platform/store.ts';
import { type ClockStep, type ClockVerdict, TimeBase } from './platform/time-base.ts';
import { fileWitness } from './platform/witness.ts';
import { ConfigDelivery } from './registry/config-delivery.ts';
import type { Enrolment } from './registry/enrolment.ts';
import { noticed, openRegistry, tookReport } from './registry/open.ts';
import { operations as deviceOperations, pairingOperations } from './registry/operations.ts';
import { Erasures, shownErasure } from './remote/erasures.ts';
import { influxDeleter } from './remote/influx-delete.ts';
import { influxHealth } from './remote/influx-health.ts';
import { influxHistory } from './remote/influx-history.ts';
import { InfluxQuery } from './remote/influx-query.ts';
import { operations as erasureOperations } from './remote/operations.ts';
import { Rules } from './rules/engine.ts';
import { silenceRule } from './rules/silence.ts';
import { wetRule } from './rules/wet.ts';
import { HostHealth } from './sources/host/host-health.ts';
import type { MqttLimits } from './sources/mqtt/limits.ts';
import { MqttSource } from './sources/mqtt/mqtt-source.ts';
import { Audit } from './users/audit.ts';
import { auditOperations } from './users/audit-operations.ts';
import { auditedOperations } from './users/audited-operations.ts';
import { userOperations } from './users/operations.ts';
import { openPeople } from './users/people.ts';

/** The gateway's own points and messages carry this device id; the registry refuses it to others. */
const gatewayDeviceId = 'gateway';

const tickMs = 1000;

/** How long a long press of the button lets devices register. */
const pairingMs = 300_000;

/** How often a gateway without its disk looks for it, and how rarely when that was in vain. */
const diskRetryMs = 3_000;
const diskRetryMsMax = 60_000;

// Longer than a stalled card recovers, shorter than systemd's patience (90 s).
const stageDeadlineMs = 10_000;

export interface GatewayParts {
  readonly config: Config;
  readonly clock: Clock;
  /** Uniform in [0, 1), for jitter. */
  readonly random: () => number;
  readonly log: Log;
  readonly version: string;
  /** Nanoseconds since the machine was started, and whether its wall clock is right; the real ones unless a test says. */
  readonly bootNs?: () => bigint;
  readonly clockProbe?: () => Promise<ClockVerdict>;
  /** Where the journal writes; the real disk unless a test slows it down. */
  readonly disk?: Disk;
}

export interface GatewayPorts {
  readonly mqtt: number | undefined;
  readonly mqtts: number | undefined;
  readonly ws: number | undefined;
  readonly http: number | undefined;
  readonly https: number | undefined;
}

/** What is undone when the gateway stops, or when it cannot start; last in, first out. */
type Undo = { readonly stage: string; readonly close: () => Promise<void> };

/** What a gateway runs on whose disk cannot be written. */
interface StandIn {
  readonly folder: string;
  readonly trouble: DiskTrouble;
  /** What the alarms would have saved, for the start on the disk. */
  readonly alarms: Map<string, Buffer | undefined>;
}

export class Gateway {
  readonly #parts: GatewayParts;
  #begun: Begun;
  #retry: NodeJS.Timeout | undefined;
  #retryMs = diskRetryMs;
  #returning: Promise<void> | undefined;
  #closing: Promise<void> | undefined;

  private constructor(parts: GatewayParts, begun: Begun) {
    this.#parts = parts;
    this.#begun = begun;
    this.#awaitDisk();
  }

  /**
   * Resolves when every listener is open and `<data_dir>/run/ports.json` is written. On a disk that cannot be written
   * it starts without: alarms are heard, everything else is refused, and once the disk is back it starts anew on it.
   * @throws GatewayError `STORE_LOCKED` when another gateway runs with the same data, `DATA_UNWRITABLE` on such a disk
   * without data, and what else keeps a stage from starting; whatever had started is stopped again.
   */
  static async open(parts: GatewayParts): Promise<Gateway> {
    return new Gateway(parts, await begin(parts, new Map()));
  }

  get ports(): GatewayPorts {
    return this.#begun.started.ports;
  }

  /** What an operator may ask; the control socket answers the same. */
  get operations(): Operations {
    return this.#begun.started.operations;
  }

  health(): Health {
    return healthOf(this.figures());
  }

  figures(): GatewayFigures {
    return this.#begun.started.figures();
  }

  /** Stops in reverse order, each stage with a deadline. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#retry);
    await this.#returning?.catch(() => undefined);
    await unwind(this.#begun.undo, this.#parts.log);
  }

  #awaitDisk(): void {
    const { standIn } = this.#begun;
    if (standIn === undefined || this.#closing !== undefined) return;
    this.#retry = setTimeout(() => {
      this.#returning = this.#returnToDisk(standIn.alarms);
      this.#returning.catch((error: unknown) => {
        // Nothing runs any more: it must not vanish in a promise.
        setImmediate(() => {
          throw error;
        });
      });
    }, this.#retryMs);
  }

  async #returnToDisk(alarms: StandIn['alarms']): Promise<void> {
    const { config, log } = this.#parts;
    if (await isWritable(config.dataDir)) {
      log.info({ event: 'disk_back' }, 'The disk can be written again');
      await unwind(this.#begun.undo, log);
      this.#begun = await begin(this.#parts, alarms);
      // Good enough for a file, and not for the gateway: the buzzer must not come and go.
      this.#retryMs = Math.min(this.#retryMs * 2, diskRetryMsMax);
    }
    this.#awaitDisk();
  }
}

interface Begun {
  readonly started: Started;
  readonly undo: readonly Undo[];
  /** Undefined when it is on the disk. */
  readonly standIn: StandIn | undefined;
}

/** @param alarms What they could not save before; the disk has it first of all. */
async function begin(parts: GatewayParts, alarms: StandIn['alarms']): Promise<Begun> {
  const { config, log } = parts;
  const undo: Undo[] = [];
  let cause: unknown;
  try {
    return { started: await start(parts, undo, alarms), undo, standIn: undefined };
  } catch (error) {
    await unwind(undo.splice(0), log);
    if (!isDiskTrouble(error)) throw error;
    cause = error;
  }
  const message = `cannot use data_dir ${config.dataDir}: ${traceOf(cause)}`;
  const failure = new GatewayError('DATA_UNWRITABLE', message, { cause });
  try {
    const copy = await copyToMemory(dataPaths(config.dataDir).state);
    undo.push({ stage: 'stand-in', close: copy.remove });
    const standIn: StandIn = { folder: copy.folder, trouble: diskTroubleOf(cause), alarms };
    log.error({ event: 'disk_unwritable', reason: message }, 'Starts without the disk: readings are refused');
    return { started: await start(parts, undo, new Map(), standIn), undo, standIn };
  } catch (error) {
    await unwind(undo, log);
    log.debug({ event: 'stand_in_failed', err: error }, 'Cannot start without the disk either');
    throw failure;
  }
}

interface Started {
  readonly ports: GatewayPorts;
  readonly operations: Operations;
  readonly figures: () => GatewayFigures;
}

async function start(
  parts: GatewayParts,
  undo: Undo[],
  unsavedAlarms: ReadonlyMap<string, Buffer | undefined>,
  standIn?: StandIn,
): Promise<Started> {
  const { config, random, log } = parts;
  const stageLog = (stage: string) => log.child({ stage });
  const onClose = (stage: string, close: () => Promise<void>) => undo.push({ stage, close });
  let time: TimeBase | undefined;
  const clock: Clock = { ...parts.clock, wallMs: () => (time ?? parts.clock).wallMs() };
  const startedMs = clock.monotonicMs();
  const paths = dataPaths(config.dataDir);

  const exchanged = standIn ? undefined : await prepare(config.dataDir, log);
  const stateFolder = standIn ? join(standIn.folder, 'copy') : paths.state;
  const spare = standIn ? { spareBytes: 0 } : {};
  const state = await LevelStore.open(stateFolder, { log: stageLog('state'), ...spare }).finally(exchanged);
  onClose('state', () => state.close());
  const journal = await Journal.open({
    directory: join(config.dataDir, 'journal'),
    store: state.room('hot'),
    disk: standIn ? readOnlyDisk() : (parts.disk ?? systemDisk()),
    clock,
    log: stageLog('journal'),
    options: journalOptions(config),
    ...(standIn && { readOnly: { blocks: join(standIn.folder, 'blocks'), trouble: standIn.trouble } }),
  });
  onClose('journal', () => journal.close());
  const saveAlarms = (writes: readonly StateWrite[]): Promise<void> => {
    for (const { key, value } of writes) standIn?.alarms.set(key, value);
    // As alarms, so that it finds room when nothing else does any more.
    return journal.append({ class: 'alarm', lines: '', points: 0, state: writes });
  };
  if (unsavedAlarms.size > 0) await saveAlarms([...unsavedAlarms].map(([key, value]) => ({ key, value })));
  const { trust, synchronizedPath } = config.time;
  const bootNs = parts.bootNs ?? bootTime();
  const dates = await TimeBase.open({
    keeper: journal,
    clock: parts.clock,
    bootNs,
    trust,
    probe: parts.clockProbe ?? clockProbe({ synchronizedPath, ...parts.clock }),
    log: stageLog('time'),
  });
  onClose('time', () => dates.close());
  time = dates;
  dates.onKnown(() =>
    journal.date((boot, bootNs) => {
      const dated = dates.dateOf(boot, bootNs);
      assert(dated !== undefined, 'BUG: asked for a date nobody knows');
      return dated;
    }),
  );
  let onOwnPoint: ((point: Point) => void) | undefined;
  const recordPoint = async (pointClass: PointClass, point: Point): Promise<void> => {
    const append = { class: pointClass, lines: `${encodePoint(point)}\n`, points: 1 } as const;
    await journal.append(point.boot === undefined ? append : { ...append, undated: true });
    onOwnPoint?.(point);
  };
  // If even these find no room, the counters still say it.
  dates.onStep((step) => {
    recordPoint('event', stepPoint(step, config.gatewayId, dates.stamp())).catch(() => undefined);
  });
  journal.onRetention((report) => {
    recordPoint('event', retentionPoint(report, config.gatewayId, dates.stamp())).catch(() => undefined);
  });
  const wear = await WearMeter.start({
    journal,
    dataDirectory: config.dataDir,
    clock,
    uptimeMs: () => uptime() * 1000,
    log: stageLog('wear'),
    sampleIntervalMs: config.wear.sampleIntervalMs,
    cardEnduranceBytes: config.wear.cardEnduranceBytes,
    lifeYears: config.wear.lifeYears,
    budgetBytesPerDay: config.wear.budgetBytesPerDay,
    lingerMaxMs: config.journal.ackDelayMaxMs,
  });
  onClose('wear', () => wear.stop());
  const room = (name: string) => (standIn ? refusingWrites(state.room(name)) : state.room(name));
  const audit = await Audit.open({
    store: room('audit'),
    time: dates,
    wallMs: () => dates.wallMs(),
    log: stageLog('audit'),
  });
  onClose('audit', () => audit.close());
  const people = await openPeople({
    store: room('users'),
    time: dates,
    monotonicMs: () => clock.monotonicMs(),
    randomBytes,
    witness: fileWitness(paths.usersWitness),
    audit,
    ...sessionOptions(config),
  });
  onClose('people', () => people.sessions.close());
  const devices = await openRegistry({
    store: room('registry'),
    clock,
    randomBytes,
    witness: fileWitness(paths.registryWitness),
    devicesMax: config.registry.devicesMax,
    pendingMax: config.registry.pendingMax,
    isTimeKnown: () => dates.isKnown,
    runningMs: () => journal.runningMs,
    log: stageLog('registry'),
  });
  const { registry, presence, enrolment } = devices;
  presence.keep();
  onClose('presence', () => presence.close());
  onClose('enrolment', async () => enrolment.close());

  const led = openLed(config, stageLog('buzzer'));
  const board = await AlarmBoard.open({
    hotState: {
      entries: (prefix) => journal.entries(prefix),
      write: saveAlarms,
    },
    annunciators: led ? [buzzer(led)] : [],
    record: (change) => recordPoint('alarm', alarmPoint(change, config.gatewayId)),
    clock,
    time: dates,
    log: stageLog('alarms'),
  });
  onClose('alarms', () => board.close());
  const { device: buttonPath, longPressMs } = config.button;
  const button =
    buttonPath === undefined
      ? undefined
      : Button.start({
          path: buttonPath,
          longPressMs,
          clock,
          log: stageLog('button'),
          onShortPress: () => board.silence('button'),
          onLongPress: () => pairByButton(enrolment, audit),
        });
  onClose('button', async () => button?.close());
  const rules = new Rules().add(wetRule()).add(silenceRule({ deadlineMs: config.rules.silentAfterMs }));
  const now = () => ({
    monotonicMs: clock.monotonicMs(),
    wallMs: dates.isKnown ? dates.wallMs() : undefined,
  });
  const ticking = setInterval(() => {
    board.apply(rules.tick(now()));
    board.tick();
    registry.tick();
  }, tickMs);
  onClose('rules', async () => clearInterval(ticking));

  const target = influxTarget(config);
  const serverTypes = await LearntTypes.open(journal, target);
  const history = standIn ? null : await openHistory(parts, paths.history, stageLog('history'));
  if (history) {
    onClose('history', () => history.close());
    onOwnPoint = (point) => recordOwn(history, point);
    dates.onKnown(() => history.date((boot, bootNs) => dates.dateOf(boot, bootNs)?.timeNs));
  }

  const ingest = await Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    serverTypes,
    describe: (deviceId) => registry.get(deviceId),
    gatewayId: config.gatewayId,
    observe: (points, message) => board.apply(rules.observe(points, now()), message.receivedMonotonicMs),
    onDurable: history ? (points, deviceId) => history.record(points, deviceId) : undefined,
    time: dates,
    log: stageLog('ingest'),
  });
  const commands = await Commands.open({
    keeper: journal,
    time: { boot: dates.boot, bootNs, dateOf: (boot, ns) => dates.dateOf(boot, ns) },
    clock,
    random,
    randomBytes,
    device: (deviceId) => registry.get(deviceId),
    log: stageLog('commands'),
    limits: commandLimits(config),
  });
  onClose('commands', () => commands.close());
  const { configs } = devices;
  const configDelivery = await ConfigDelivery.start({
    registry,
    configs,
    outbox: commands,
    log: stageLog('config'),
  });
  const forgetDevice = ({
    deviceId,
    status,
  }: {
    readonly deviceId: string;
    readonly status: string;
  }): void => {
    ingest.forget(deviceId);
    if (status !== 'inactive') return;
    commands.withdraw(deviceId);
    rules.forget(deviceId);
    board.withdraw(deviceId);
  };
  registry.onChange(forgetDevice);
  registry.onRemoved(forgetDevice);
  registry.onRemoved(({ deviceId }) => commands.forget(deviceId));

  const { influx } = config;
  const toBroker = bridgeOptions(config);
  const bridge = toBroker && new Bridge(toBroker);
  const forwarder = Forwarder.start({
    spool: journal,
    target: bridge ?? target,
    types: serverTypes,
    clock,
    random,
    log: stageLog('forwarder'),
    options: {
      batchPoints: influx.batchPoints,
      flushIntervalMs: influx.flushIntervalMs,
      requestTimeoutMs: influx.timeoutMs,
      drainJitterMs: influx.drainJitterMs,
    },
  });
  onClose('forwarder', () => forwarder.close({ deadlineMs: stageDeadlineMs / 2 }));

  const remoteQuery =
    target &&
    InfluxQuery.open(target, {
      timeoutMs: influx.timeoutMs,
      monotonicMs: () => clock.monotonicMs(),
      // What a bridge cannot reach says nothing about InfluxDB.
      outage: () => (bridge ? undefined : outageOf(forwarder.stats())),
    });
  if (remoteQuery) onClose('remote-query', async () => remoteQuery.close());
  const wallMs = () => clock.wallMs();
  const answering = remoteQuery
    ? wholeHistory({
        local: history ?? undefined,
        remote: influxHistory({ query: remoteQuery, gatewayId: config.gatewayId, wallMs }),
        wallMs,
      })
    : (history ?? undefined);
  const erasures = await Erasures.open({
    journal,
    history: history ?? undefined,
    remote: target && influxDeleter(target, config.gatewayId),
    wallMs,
    random,
    log: stageLog('erasures'),
  });
  onClose('erasures', () => erasures.close());
  const historyTable = new Map([
    ...(answering ? historyOperations(answering, clock) : []),
    ...erasureOperations({ erasures, wallMs, isDateKnown: () => dates.isKnown }),
  ]);
  devices.eraseBy(async (device_id) => await historyTable.get('history.erase')?.({ device_id }));

  if (influx.url !== undefined && !dates.isKnown) {
    const { url } = influx;
    const remote = RemoteClock.start({ url, clock, observe: (answer) => dates.observeRemote(answer) });
    dates.onKnown(() => remote.stop());
    onClose('remote-clock', async () => remote.stop());
  }

  const sink: Sink = (message) => {
    presence.touch(message.deviceId);
    if (message.channel === 'status') presence.said(message.deviceId, message.name);
    if (message.channel === 'status' && message.name === 'config') {
      return tookReport(devices, message.deviceId, message.payload).then((isTaken) =>
        isTaken ? undefined : ingest.take(message),
      );
    }
    if (isAcknowledgement(message)) {
      return Promise.all([board.acknowledge(undefined, message.deviceId), ingest.take(message)]).then(
        () => undefined,
      );
    }
    if (message.channel === 'command-ack') {
      const payload = acknowledgementPayload(message.payload);
      return Promise.all([commands.acknowledge(message), ingest.take({ ...message, payload })]).then(
        () => undefined,
      );
    }
    return ingest.take(message);
  };

  const { certPath, keyPath } = config.tls;
  const certificates = await Certificates.open({
    folder: join(config.dataDir, 'tls'),
    own: certPath !== undefined && keyPath !== undefined ? { certPath, keyPath } : undefined,
    clock,
    isDateKnown: () => dates.isKnown,
    log: stageLog('tls'),
  });
  onClose('tls', () => certificates.close());
  dates.onKnown(() => void certificates.check());
  const mqtt = await MqttSource.open({
    root: config.topicRoot,
    certificates,
    listen: {
      host: config.mqtt.host,
      port: config.mqtt.port,
      tlsPort: config.mqtt.tls.port,
      wsPort: config.mqtt.ws.port,
      lanPlaintext: config.mqtt.lanPlaintext,
    },
    limits: mqttLimits(config),
    credentials: registry,
    sink,
    sessionLog: journal,
    isBehind: () => journal.pendingBytes > config.journal.pendingBytesMax / 4,
    onCommand: async (kind, payload, by) => {
      if (kind === 'acknowledge') await board.acknowledge(alarmIdIn(payload), by);
      if (kind === 'silence') board.silence(by);
    },
    onPresence: (deviceId, isConnected) => {
      if (!isConnected) return presence.disconnected(deviceId);
      presence.connected(deviceId);
      void configDelivery.reached(deviceId);
    },
    // As the broker's own: it counts the lifetime of messages by the machine's wall clock, right or wrong.
    clock: parts.clock,
    log: stageLog('mqtt'),
  });
  onClose('mqtt', () => mqtt.close());
  commands.attach(mqtt.downlink);
  registry.onRemoved(({ deviceId }) => mqtt.forget(deviceId));
  mqtt.forgetOthers((deviceId) => registry.isKnown(deviceId));
  board.onChange(() => {
    const { alarms: shown, count } = board.shown();
    const alarms = Buffer.from(JSON.stringify({ alarms: shown, count }));
    void mqtt
      .publish(`${config.topicRoot}/gateway/alarms`, alarms, { qos: 1, retain: true })
      .catch(() => undefined);
  });

  const host = config.hostHealth.enabled
    ? HostHealth.start({
        sink,
        gatewayDeviceId,
        dataDirectory: config.dataDir,
        card: () => wear.stats(),
        intervalMs: config.hostHealth.intervalMs,
        clock,
        log: stageLog('host'),
      })
    : undefined;
  if (host !== undefined) onClose('host', () => host.stop());

  const backups = new Backups({
    journal,
    state,
    header: () => ({
      createdAt: new Date(clock.wallMs()).toISOString(),
      gatewayId: config.gatewayId,
      version: parts.version,
      devices: registry.stats().devices,
    }),
  });
  onClose('backups', () => backups.close());

  let api: Api | undefined;
  const events = new Events({
    board,
    health: () => healthOf(figures()),
    stillHolds: stillHolds(registry, people),
    run: randomBytes(4).toString('hex'),
  });
  const figures = (): GatewayFigures => ({
    version: parts.version,
    gatewayId: config.gatewayId,
    uptimeMs: clock.monotonicMs() - startedMs,
    journal: journal.stats(),
    syncBoundsMs: syncBucketsMs,
    wear: wear.stats(),
    state: state.stats(),
    time: dates.stats(),
    ingest: ingest.stats(),
    forwarder: forwarder.stats(),
    bridge: bridge?.stats(),
    mqtt: mqtt.stats(),
    registry: registry.stats(),
    commands: commands.stats(),
    audit: audit.stats(),
    people: people.signIn.stats(),
    enrolment: enrolment.stats(),
    devicesOnline: presence.online,
    backups: backups.stats(),
    rules: rules.stats(),
    alarms: { ...board.stats(), list: board.list() },
    buzzer: led === undefined ? undefined : (led?.stats() ?? null),
    button: button?.stats(),
    tls: certificates.stats(),
    api: api?.stats(),
    events: events.stats(),
    host: host?.stats(),
    history: history === undefined ? undefined : (history?.stats() ?? null),
    remoteQuery: remoteQuery?.stats(),
    erasures: erasures.stats(),
  });
  const telemetry = {
    find: (text: string) => registry.find(text),
    history: historyTable,
    submit: (points: readonly SubmittedPoint[]) =>
      ingest.submit(points, { receivedMonotonicMs: clock.monotonicMs() }),
    touch: (deviceId: string) => presence.touch(deviceId),
  };
  if (config.http.enabled || config.https.enabled) {
    api = await Api.open({
      host: config.http.host,
      port: config.http.enabled ? config.http.port : undefined,
      https: config.https.enabled ? { port: config.https.port, certificates } : undefined,
      health: () => healthOf(figures()),
      metrics: () => metricFamilies(figures()),
      ca: () => certificates.ca,
      isHostName: (name) => certificates.isFor(name),
      routes: [
        ...alarmRoutes(board),
        ...commandRoutes({ commands, find: telemetry.find, sink, monotonicMs: () => clock.monotonicMs() }),
        ...eventRoutes(events),
        ...gatewayRoutes(figures),
        ...peopleRoutes(people, audit),
        ...telemetryRoutes(telemetry),
        ...influxdbRoutes(telemetry),
        ...telemetryStatusRoutes({
          figures,
          health: () => healthOf(figures()),
          influx: target && influxHealth(target, influx.timeoutMs),
          erasures: () => erasures.list().map(shownErasure),
        }),
        ...enrolmentRoutes(devices, config.topicRoot),
        ...deviceRoutes(devices, { wallMs: () => dates.wallMs() }),
        ...adminRoutes(devices),
        ...dashboardRoutes(devices, figures, () => now().wallMs),
      ],
      version: parts.version,
      authenticate: everyCaller(noticed(devices), people),
      audit,
      lanPlaintext: config.http.lanPlaintext,
      clock,
      log: stageLog('api'),
    });
    onClose('api', () => api?.close() ?? Promise.resolve());
  }
  const ports: GatewayPorts = { ...mqtt.ports, http: api?.port, https: api?.tlsPort };

  const status: Operation = async () => ({
    health: healthOf(figures()),
    ports,
    figures: snakeCased(figures()),
  });
  const plainOperations: Operations = new Map([
    ...deviceOperations(devices),
    ...pairingOperations(enrolment),
    ...alarmOperations(board),
    ...commandOperations(commands, (text) => registry.find(text)),
    ...letterOperations({ journal, replay: (letter) => ingest.replay(letter) }),
    ...fieldTypeOperations(ingest),
    ...journalOperations(journal),
    ...backups.operations,
    ...historyTable,
    ...userOperations(people.users, people),
    ...auditOperations(audit),
    ['gateway.status', status],
    ['tls.show', async () => ({ ...certificates.stats().shown, fault: certificates.stats().fault ?? null })],
  ]);
  const operations = auditedOperations(plainOperations, audit);
  // A disk that is full, or read-only, must not keep alarms from being heard: only commands go without.
  try {
    const control = await ControlSocket.open({
      path: paths.controlSocket,
      operations,
      log: stageLog('control'),
    });
    onClose('control', () => control.close());
  } catch (error) {
    log.error(
      { event: 'control_unavailable', err: error },
      'No control socket: commands cannot reach this gateway',
    );
  }
  try {
    await writePorts(paths.portsFile, ports);
    onClose('ports', () => rm(paths.portsFile, { force: true }));
  } catch (error) {
    log.error({ event: 'ports_unwritten', ports, err: error }, 'ports.json cannot be written');
  }
  return { ports, operations, figures };
}

/** Past what a power cut or damage left in the way. The answer is to be called once the stores are open. */
async function prepare(dataDir: string, log: Log): Promise<() => Promise<void>> {
  await makeDirectory(dataDir, 0o700).catch((error: unknown) => {
    // Node says ENOENT of a read-only disk.
    throw new GatewayError('DATA_UNWRITABLE', `cannot make data_dir ${dataDir}: ${String(error)}`, {
      cause: error,
    });
  });
  const exchanged = await settleExchange({ directory: dataDir, isData: isBackedUp, log });
  for (const folder of ['journal', 'run']) {
    if (!(await clearForDirectory(join(dataDir, folder)))) continue;
    log.error({ event: 'folder-damaged', folder }, 'There was something else in its place; it was set aside');
  }
  return exchanged;
}

/** Nobody is to be told of a change that would be gone with the memory it is in. */
function refusingWrites(store: Store): Store {
  const write = () => Promise.reject(new GatewayError('DATA_UNWRITABLE', 'the disk cannot be written'));
  return { get: (key) => store.get(key), entries: (range) => store.entries(range), write };
}

/** Whole or not at all: whoever waits for the file may read it the moment it is there. */
async function writePorts(file: string, ports: GatewayPorts): Promise<void> {
  await mkdir(dirname(file), { recursive: true, mode: 0o700 });
  await replaceFile(file, `${JSON.stringify(ports)}\n`, 0o600);
}

/** Undefined: none is configured. Null: it cannot be opened; the gateway goes on and /health says so. */
function openLed(config: Config, log: Log): Led | null | undefined {
  if (config.buzzer.led === undefined) return undefined;
  try {
    return Led.open({ directory: config.buzzer.led, log });
  } catch (error) {
    log.error({ event: 'buzzer_unavailable', err: error }, 'No buzzer: alarms are silent');
    return null;
  }
}

/** Why nothing reaches InfluxDB just now, as the forwarder knows. */
function outageOf({ state, reason }: ForwarderStats): string | undefined {
  return state === 'retrying' ? (reason ?? 'it cannot be reached') : undefined;
}

/** Whoever can press it is in the house. */
function pairByButton(enrolment: Enrolment, audit: Audit): void {
  enrolment.openPairing({ forMs: pairingMs });
  const pressed = { actor: 'button', action: 'pairing.open', target: 'gateway' };
  // On a disk that takes nothing no device can register either.
  audit.record(pressed).catch(() => undefined);
}

/** Undefined where it is switched off. Null when it cannot be opened: the gateway goes on without. */
async function openHistory(
  { config, clock }: GatewayParts,
  directory: string,
  log: Log,
): Promise<History | null | undefined> {
  if (!config.history.enabled) return undefined;
  try {
    return await History.open({ directory, clock, log, ...historyOptions(config) });
  } catch (error) {
    log.error({ event: 'history_unavailable', err: error }, 'No history: queries of recent readings fail');
    return null;
  }
}

/** History knows no tags: what tells alarms and events apart becomes fields there. */
function recordOwn(history: History, { tags, fields, ...rest }: Point): void {
  const { device_id = gatewayDeviceId, gateway: _gateway, ...further } = Object.fromEntries(tags);
  history.record(
    [{ ...rest, tags, fields: new Map<string, FieldValue>([...Object.entries(further), ...fields]) }],
    device_id,
  );
}

function mqttLimits({ mqtt }: Config): MqttLimits {
  return {
    connectTimeoutMs: mqtt.connectTimeoutMs,
    connectBytes: mqtt.connectBytesMax,
    packetBytes: mqtt.packetBytesMax,
    sockets: mqtt.connectionsMax,
    socketsPerAddress: mqtt.connectionsPerAddressMax,
    socketsPerLoopback: mqtt.connectionsLoopbackMax,
    unauthenticated: mqtt.unauthenticatedMax,
    unauthenticatedLoopback: mqtt.unauthenticatedLoopbackMax,
    clientIdBytes: mqtt.clientIdBytesMax,
    keepaliveS: mqtt.keepaliveMaxS,
    inflightInbound: mqtt.inflightInboundMax,
    subscriptionsPerClient: mqtt.subscriptionsPerClientMax,
    topicLevels: mqtt.topicLevelsMax,
    topicBytes: mqtt.topicBytesMax,
    clientQueueBytes: mqtt.clientQueueBytesMax,
    sessions: mqtt.sessionsMax,
    sessionExpiryS: mqtt.sessionExpiryMaxS,
    sessionQueueMessages: mqtt.sessionQueueMessagesMax,
    sessionQueueBytes: mqtt.sessionQueueBytesMax,
    queueBytes: mqtt.sessionQueuesBytesMax,
    retainedBytes: mqtt.retainedBytesMax,
    retained: mqtt.retainedMax,
    retainedPerDevice: mqtt.retainedPerDeviceMax,
    retainedHomeAssistant: mqtt.retainedHomeAssistantMax,
    ackTimeoutMs: mqtt.ackTimeoutMs,
  };
}

/** A step in an alarm's life as a point, so that dashboards show it. */
function alarmPoint(change: AlarmChange, gatewayId: string): Point {
  const { facts } = change;
  const fields = new Map<string, FieldValue>([
    ['alarm', facts.id],
    ['event', change.verb],
    ['from', change.from],
    ['to', change.to],
    ['active', facts.active],
    ['message', facts.message],
  ]);
  if (change.by !== undefined) fields.set('by', change.by);
  return {
    measurement: 'alarm',
    tags: new Map([
      ['device_id', facts.deviceId],
      ['rule', facts.rule],
      ['priority', facts.priority],
      ['gateway', gatewayId],
    ]),
    fields,
    ...change.at,
  };
}

/** What the journal's caps have cost. */
function retentionPoint(report: RetentionReport, gatewayId: string, time: PointTime): Point {
  const fields = new Map<string, FieldValue>([
    ['class', report.class],
    ['detail', report.detail],
    ['points', report.points],
    ['kept', report.kept],
    ['bytes', report.bytes],
  ]);
  for (const [name, ms] of [
    ['from', report.fromMs],
    ['to', report.toMs],
  ] as const) {
    if (ms !== undefined) fields.set(name, new Date(ms).toISOString());
  }
  return gatewayEventPoint({ gatewayId, kind: report.kind, fields, time });
}

/** A jump of the wall clock: why the times of points do. */
function stepPoint({ fromMs, toMs }: ClockStep, gatewayId: string, time: PointTime): Point {
  const fields = new Map([
    ['from_ms', fromMs],
    ['to_ms', toMs],
    ['step_ms', toMs - fromMs],
  ]);
  return gatewayEventPoint({ gatewayId, kind: 'clock_step', fields, time });
}

/** A button on a node: `{root}/devices/{id}/alarms/acknowledge`. */
function isAcknowledgement(message: Message): boolean {
  return message.channel === 'alarms' && message.name === 'acknowledge';
}

/** `{"id": "wet/kitchen"}` names one alarm; anything else means all of them: somebody wants quiet. */
function alarmIdIn(payload: Buffer): string | undefined {
  try {
    const value: unknown = JSON.parse(payload.toString());
    if (typeof value === 'object' && value !== null && 'id' in value && typeof value.id === 'string') {
      return value.id;
    }
  } catch {
    // Not JSON.
  }
  return undefined;
}

async function unwind(undo: readonly Undo[], log: Log): Promise<void> {
  for (const { stage, close } of [...undo].reverse()) {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(
        () => reject(new GatewayError('STOP_TIMEOUT', `${stage} did not stop in time`)),
        stageDeadlineMs,
      );
    });
    try {
      await Promise.race([close(), late]);
    } catch (error) {
      log.error({ event: 'stop_failed', stage, err: error }, 'A stage did not stop cleanly');
    } finally {
      clearTimeout(timer);
    }
  }
}
