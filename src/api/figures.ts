// What the gateway says about itself: every stage's figures, named for Prometheus, and judged for /health. Pure.
// The list of metrics is this file. Labels are bounded: classes, lanes, codes of this house, never ids.

import type { AlarmBoardStats, AlarmView } from '../alarms/board.ts';
import type { BackupsStats } from '../backup/backups.ts';
import type { BridgeStats } from '../bridge/bridge.ts';
import type { Commands } from '../commands/commands.ts';
import type { ForwarderStats } from '../forwarder/forwarder.ts';
import type { HistoryStats } from '../history/history.ts';
import type { IngestStats } from '../ingest/ingest.ts';
import type { JournalStats } from '../journal/journal.ts';
import type { RetentionReport } from '../journal/retention.ts';
import type { WearStats } from '../journal/wear.ts';
import type { ButtonStats } from '../platform/button.ts';
import type { CertificatesStats } from '../platform/certificates.ts';
import type { DiskTrouble } from '../platform/disk-trouble.ts';
import type { HistogramSnapshot } from '../platform/histogram.ts';
import type { LedStats } from '../platform/led.ts';
import type { LevelStoreStats } from '../platform/level-store.ts';
import type { TimeStats } from '../platform/time-base.ts';
import type { EnrolmentStats } from '../registry/enrolment.ts';
import type { RegistryStats } from '../registry/registry.ts';
import type { ErasuresStats } from '../remote/erasures.ts';
import type { InfluxQueryStats } from '../remote/influx-query.ts';
import type { RulesStats } from '../rules/engine.ts';
import type { HostHealthStats } from '../sources/host/host-health.ts';
import type { MqttSource } from '../sources/mqtt/mqtt-source.ts';
import type { AuditStats } from '../users/audit.ts';
import type { SignInStats } from '../users/sign-in.ts';
import type { ApiStats } from './api.ts';
import type { EventsStats } from './events.ts';
import type { Health, HealthReason } from './health.ts';
import type { Labels, MetricFamily, Sample } from './metrics.ts';

export interface GatewayFigures {
  readonly version: string;
  readonly gatewayId: string;
  readonly uptimeMs: number;
  readonly journal: JournalStats;
  /** Upper bounds of `journal.syncCounts`. */
  readonly syncBoundsMs: readonly number[];
  readonly wear: WearStats;
  readonly state: LevelStoreStats;
  readonly time: TimeStats;
  readonly ingest: IngestStats;
  readonly forwarder: ForwarderStats;
  /** Undefined where points go to InfluxDB. */
  readonly bridge: BridgeStats | undefined;
  readonly mqtt: ReturnType<MqttSource['stats']>;
  readonly registry: RegistryStats;
  readonly commands: ReturnType<Commands['stats']>;
  readonly audit: AuditStats;
  readonly people: SignInStats;
  readonly enrolment: EnrolmentStats;
  readonly devicesOnline: number;
  readonly backups: BackupsStats;
  readonly rules: RulesStats;
  readonly alarms: AlarmBoardStats & { readonly list: readonly AlarmView[] };
  /** Undefined where no buzzer is configured; null where it is and could not be opened. */
  readonly buzzer: LedStats | null | undefined;
  /** Undefined where none is configured. */
  readonly button: ButtonStats | undefined;
  readonly tls: CertificatesStats;
  /** Undefined where HTTP and HTTPS are switched off, and until it is open. */
  readonly api: ApiStats | undefined;
  readonly events: EventsStats;
  /** Undefined where host health is switched off. */
  readonly host: HostHealthStats | undefined;
  /** Undefined where history is switched off; null where it could not be opened. */
  readonly history: HistoryStats | null | undefined;
  /** Undefined where no InfluxDB is configured. */
  readonly remoteQuery: InfluxQueryStats | undefined;
  readonly erasures: ErasuresStats;
}

type Simple = 'counter' | 'gauge';

function family(type: Simple, name: string, help: string, samples: readonly Sample[]): MetricFamily {
  return { type, name: `iotflow_${name}`, help, samples };
}

function counter(name: string, help: string, value: number): MetricFamily {
  return family('counter', name, help, [{ value }]);
}

function gauge(name: string, help: string, value: number): MetricFamily {
  return family('gauge', name, help, [{ value }]);
}

/** One sample for each entry of a record; undefined values are left out. */
function each(
  label: string,
  record: Readonly<Record<string, number | undefined>>,
  labels: Labels = {},
): Sample[] {
  return Object.entries(record).flatMap(([key, value]) =>
    value === undefined ? [] : [{ labels: { ...labels, [label]: key }, value }],
  );
}

function histogram(name: string, help: string, snapshot: HistogramSnapshot): MetricFamily {
  const { boundsMs, counts, sumMs } = snapshot;
  return {
    type: 'histogram',
    name: `iotflow_${name}`,
    help,
    samples: [{ bounds: boundsMs.map((ms) => ms / 1000), counts, sum: sumMs / 1000 }],
  };
}

function journalFamilies(figures: GatewayFigures): MetricFamily[] {
  const { journal, syncBoundsMs, state, history } = figures;
  const { ring, blocks, dropped, quarantined, retention } = journal;
  const oldest = Object.entries(journal.oldestAgeMs);
  return [
    counter('journal_appended_points_total', 'Points made durable.', journal.points),
    counter('journal_appended_bytes_total', 'Bytes of line protocol made durable.', journal.linesBytes),
    counter('journal_commits_total', 'Group commits: one write, flushed to the disk.', journal.commits),
    counter(
      'journal_written_bytes_total',
      'Bytes written to the ring, with headers and padding.',
      journal.writtenBytes,
    ),
    counter('journal_failed_commits_total', 'Commits the disk failed.', journal.failedCommits),
    family('counter', 'journal_refused_appends_total', 'Appends refused, so not acknowledged.', [
      { labels: { reason: 'full' }, value: journal.refusedFull },
      { labels: { reason: 'stalled' }, value: journal.refusedStalled },
      { labels: { reason: 'failed' }, value: journal.refusedFailed },
    ]),
    family(
      'gauge',
      'journal_disk_trouble',
      '1 for what keeps the journal from writing.',
      (['full', 'read-only', 'failing'] as const).map((kind) => ({
        labels: { kind },
        value: journal.trouble === kind ? 1 : 0,
      })),
    ),
    gauge('journal_refusing', '1 while readings are refused.', journal.isRefusing ? 1 : 0),
    {
      type: 'histogram',
      name: 'iotflow_journal_sync_seconds',
      help: 'How long the write of a commit took, flush included.',
      samples: [
        {
          bounds: syncBoundsMs.map((ms) => ms / 1000),
          counts: journal.syncCounts,
          sum: journal.syncSumMs / 1000,
        },
      ],
    },
    gauge('journal_pending_bytes', 'Bytes accepted and not yet durable.', journal.pendingBytes),
    family('gauge', 'journal_ring_segments', 'Segments of the write-ahead ring.', [
      { labels: { state: 'used' }, value: ring.used },
      { labels: { state: 'free' }, value: ring.free },
      { labels: { state: 'missing' }, value: ring.missing },
    ]),
    family(
      'gauge',
      'journal_backlog_points',
      'Points waiting for the uplink, by lane.',
      each('lane', journal.pending),
    ),
    family(
      'gauge',
      'journal_backlog_oldest_age_seconds',
      'How long the oldest waiting point has been waiting.',
      oldest.flatMap(([name, ageMs]) =>
        ageMs === undefined ? [] : [{ labels: { class: name }, value: ageMs / 1000 }],
      ),
    ),
    family(
      'gauge',
      'journal_blocks_bytes',
      'Bytes of LevelDB blocks.',
      Object.entries(blocks).map(([name, { bytes }]) => ({ labels: { class: name }, value: bytes })),
    ),
    counter(
      'journal_spilled_points_total',
      'Points moved from the ring to LevelDB blocks.',
      journal.spilledPoints,
    ),
    counter('journal_accepted_points_total', 'Points the uplink took.', journal.acceptedPoints),
    family(
      'counter',
      'journal_dropped_points_total',
      'Points given up, by class and reason.',
      Object.entries(dropped).flatMap(([name, reasons]) => each('reason', reasons, { class: name })),
    ),
    family(
      'counter',
      'journal_thinned_points_total',
      'Points that were thinned, by window.',
      each('window', { '1m': retention.thinned['1m'].points, '1h': retention.thinned['1h'].points }),
    ),
    family(
      'counter',
      'journal_thinned_kept_points_total',
      'Points they became.',
      each('window', { '1m': retention.thinned['1m'].kept, '1h': retention.thinned['1h'].kept }),
    ),
    family(
      'counter',
      'journal_thinned_saved_bytes_total',
      'Bytes of blocks saved by thinning.',
      each('window', { '1m': retention.thinned['1m'].bytes, '1h': retention.thinned['1h'].bytes }),
    ),
    counter('journal_quarantined_points_total', 'Points in damaged regions.', quarantined.points),
    counter('journal_quarantined_bytes_total', 'Bytes of damaged regions.', quarantined.bytes),
    counter('journal_torn_tails_total', 'Unfinished commits cut at start.', quarantined.tornTails),
    counter('journal_lost_block_points_total', 'Points in blocks LevelDB lost.', journal.lostBlockPoints),
    gauge('journal_hot_state_dirty_bytes', 'Hot state not yet checkpointed.', journal.hotState.dirtyBytes),
    gauge('dead_letters', 'Dead letters kept.', journal.deadLetters.letters),
    gauge('dead_letters_bytes', 'Bytes of dead letters kept.', journal.deadLetters.bytes),
    counter(
      'dead_letters_dropped_total',
      'Dead letters that fell to their cap.',
      journal.deadLetters.dropped,
    ),
    ...perStore(figures, [
      ['damaged_values', 'Values left out because their checksum was wrong.', (one) => one.damagedValues],
      [
        'damaged_table_blocks',
        'Blocks of LevelDB tables that were damaged.',
        (one) => one.damagedTableBlocks,
      ],
      ['repairs', 'Repairs of LevelDB.', (one) => one.repairs],
      ['started_empty', 'Times a store could not be repaired.', (one) => one.startedEmpty],
    ]),
    family('gauge', 'store_unclean_ends', 'Ends without a clean stop, in a row.', [
      { labels: { store: 'state' }, value: state.uncleanEnds },
      { labels: { store: 'blocks' }, value: journal.blockStore.uncleanEnds },
    ]),
    family('counter', 'store_write_errors_total', 'Writes LevelDB failed.', [
      { labels: { store: 'state' }, value: state.writeErrors },
      { labels: { store: 'blocks' }, value: journal.blockStore.writeErrors },
      { labels: { store: 'history' }, value: history?.store.writeErrors ?? 0 },
    ]),
  ];
}

interface NamedStore {
  readonly store: string;
  readonly stats: LevelStoreStats;
}

function storesOf({ state, journal, history }: GatewayFigures): NamedStore[] {
  const stores = [
    { store: 'state', stats: state },
    { store: 'blocks', stats: journal.blockStore },
  ];
  return history ? [...stores, { store: 'history', stats: history.store }] : stores;
}

type OfStore = readonly [name: string, help: string, value: (stats: LevelStoreStats) => number];

function perStore(figures: GatewayFigures, counts: readonly OfStore[]): MetricFamily[] {
  return counts.map(([name, help, value]) =>
    family(
      'counter',
      `store_${name}_total`,
      help,
      storesOf(figures).map(({ store, stats }) => ({ labels: { store }, value: value(stats) })),
    ),
  );
}

const storeContents: Readonly<Record<string, string>> = {
  state: 'devices, alarms and sessions (data_dir/state)',
  blocks: 'the backlog (data_dir/journal/blocks)',
  history: 'recent readings for queries (data_dir/history)',
};

/** Since the start of this process: a restart finds the stores whole and says nothing any more. */
function storeReasons(figures: GatewayFigures): HealthReason[] {
  return storesOf(figures).flatMap(({ store, stats }) => {
    const { repairs, startedEmpty, damagedValues } = stats;
    if (repairs + startedEmpty + damagedValues === 0) return [];
    const rest =
      startedEmpty > 0 ? 'could not be repaired and began empty' : 'was mended without what was damaged';
    return [
      {
        code: 'STORE_DAMAGED',
        message:
          `The store of ${storeContents[store]} was damaged and ${rest}; a copy lies beside it ` +
          '(.damaged-1, .damaged-values). Check the card; this goes away with the next start.',
      },
    ];
  });
}

/** A gauge that is not there while its value is not known. */
function known(name: string, help: string, value: number | undefined): MetricFamily[] {
  return value === undefined ? [] : [gauge(name, help, value)];
}

function wearFamilies({ wear, journal }: GatewayFigures): MetricFamily[] {
  const device = wear.device ?? 'unknown';
  return [
    family(
      'counter',
      'wear_device_written_bytes_total',
      'Bytes written to the block device under data_dir since this process started, whoever wrote them.',
      [{ labels: { device }, value: wear.deviceWrittenBytes }],
    ),
    counter('wear_own_written_bytes_total', 'Bytes this process wrote to any device.', wear.ownWrittenBytes),
    ...known('wear_bytes_per_day', 'Bytes written to the device in the last day.', wear.bytesPerDay),
    ...known(
      'wear_last_hour_bytes_per_day',
      'Bytes written to the device in a day, if all were like the last hour.',
      wear.bytesPerDayLastHour,
    ),
    ...known('wear_own_bytes_per_point', 'Bytes this process wrote for each point.', wear.ownBytesPerPoint),
    ...known('wear_card_life_years', 'How long the card lasts at the rate of the last day.', wear.lifeYears),
    ...known('wear_card_life_used_ratio', 'The part of its life the card says is used.', wear.lifeUsed),
    gauge('wear_card_endurance_bytes', 'Bytes the card is taken to bear in its life.', wear.enduranceBytes),
    gauge('wear_budget_bytes_per_day', 'Beyond it commits linger.', wear.budgetBytesPerDay),
    gauge('wear_linger_seconds', 'How long a commit waits for more to go with it.', wear.lingerMs / 1000),
    histogram(
      'journal_ack_delay_seconds',
      'Of each commit the append that waited longest, from its call to the disk.',
      journal.ackDelay,
    ),
  ];
}

function timeFamilies({ time, journal }: GatewayFigures): MetricFamily[] {
  return [
    gauge('clock_known', '1 when the date is known.', time.isKnown ? 1 : 0),
    counter('clock_steps_total', 'Steps of the wall clock while it was trusted.', time.steps),
    family(
      'gauge',
      'journal_undated_points',
      'Points that wait for the date to be known.',
      each('class', journal.undated),
    ),
  ];
}

function ingestFamilies({ ingest, rules }: GatewayFigures): MetricFamily[] {
  return [
    counter('ingest_messages_total', 'Messages from every source.', ingest.messages),
    counter('ingest_points_total', 'Points made of them.', ingest.points),
    counter('ingest_duplicates_total', 'Messages recognised as sent again.', ingest.duplicates),
    family(
      'counter',
      'ingest_dead_letters_total',
      'Messages or fields set aside.',
      each('code', ingest.deadLetters),
    ),
    family(
      'counter',
      'ingest_points_refused_total',
      'Points refused to a client that was told so.',
      each('code', ingest.refused),
    ),
    counter(
      'ingest_times_replaced_total',
      'Implausible timestamps replaced by the time of arrival.',
      ingest.timesReplaced,
    ),
    counter('ingest_refused_total', 'Messages not taken for now.', ingest.refusedForNow),
    gauge('ingest_field_types', 'Fields whose type is pinned.', ingest.fieldTypes),
    gauge('ingest_in_flight', 'Messages waiting for durability.', ingest.inFlight),
    counter('rules_points_total', 'Points the rules looked at.', rules.points),
    counter('rules_conditions_total', 'Conditions raised or cleared.', rules.conditions),
  ];
}

const uplinkStates = ['disabled', 'idle', 'sending', 'retrying', 'paused'] as const;

function bridgeFamilies({ bridge }: GatewayFigures): MetricFamily[] {
  if (bridge === undefined) return [];
  return [
    gauge('bridge_connected', '1 while connected to a broker.', bridge.url === undefined ? 0 : 1),
    gauge('bridge_in_flight', 'Messages the broker has not acknowledged yet.', bridge.inFlight),
    counter('bridge_connections_total', 'Connections to brokers.', bridge.connections),
  ];
}

function forwarderFamilies({ forwarder }: GatewayFigures): MetricFamily[] {
  return [
    family(
      'gauge',
      'uplink_state',
      '1 for the state the uplink is in.',
      uplinkStates.map((state) => ({ labels: { state }, value: forwarder.state === state ? 1 : 0 })),
    ),
    counter(
      'uplink_accepted_points_total',
      'Points InfluxDB (or the broker) took.',
      forwarder.acceptedPoints,
    ),
    counter('uplink_buried_points_total', 'Points InfluxDB (or the broker) refused.', forwarder.buriedPoints),
    counter('uplink_requests_total', 'Write requests.', forwarder.requests),
    counter(
      'uplink_isolation_requests_total',
      'Requests that only served to find refused points.',
      forwarder.isolationRequests,
    ),
    counter(
      'uplink_converted_points_total',
      'Points written in the type InfluxDB keeps their field as.',
      forwarder.convertedPoints,
    ),
    gauge('uplink_server_types', 'Fields whose type InfluxDB told.', forwarder.serverTypes),
    counter('uplink_failures_total', 'Requests that failed and are tried again.', forwarder.failures),
    counter('uplink_sent_bytes_total', 'Bytes of request bodies.', forwarder.sentBytes),
    gauge(
      'uplink_fresh_lag_seconds',
      'How long the oldest fresh point has been waiting.',
      forwarder.freshLagMs / 1000,
    ),
  ];
}

function mqttFamilies({ mqtt }: GatewayFigures): MetricFamily[] {
  return [
    counter('mqtt_connections_total', 'Connections accepted.', mqtt.connections),
    gauge('mqtt_sockets', 'Open sockets.', mqtt.sockets),
    gauge(
      'mqtt_unauthenticated_sockets',
      'Open sockets that have not logged in.',
      mqtt.unauthenticatedSockets,
    ),
    family('counter', 'mqtt_refused_total', 'What the broker refused, by kind.', [
      { labels: { kind: 'socket' }, value: mqtt.refusedSockets },
      { labels: { kind: 'login' }, value: mqtt.refusedLogins },
      { labels: { kind: 'takeover' }, value: mqtt.refusedTakeovers },
      { labels: { kind: 'subscription' }, value: mqtt.refusedSubscriptions },
      { labels: { kind: 'publish' }, value: mqtt.refusedPublishes },
      { labels: { kind: 'retained' }, value: mqtt.refusedRetained },
      ...each('kind', mqtt.offences),
    ]),
    counter('mqtt_messages_total', 'Messages handed to ingest.', mqtt.messages),
    counter('mqtt_duplicates_total', 'Copies that came while the first was being stored.', mqtt.duplicates),
    counter(
      'mqtt_held_acknowledgements_total',
      'Acknowledgements that had to wait for the journal.',
      mqtt.heldAcknowledgements,
    ),
    counter(
      'mqtt_abandoned_acknowledgements_total',
      'Connections closed because the journal took too long.',
      mqtt.abandonedAcknowledgements,
    ),
    counter('mqtt_dropped_qos0_total', 'QoS 0 messages a slow subscriber missed.', mqtt.droppedQos0),
    counter(
      'mqtt_dropped_waiting_total',
      'Messages a subscriber without a session missed because it acknowledged too slowly.',
      mqtt.droppedWaiting,
    ),
    counter(
      'mqtt_dropped_too_large_total',
      'Messages not sent because they exceed what their subscriber takes.',
      mqtt.droppedTooLarge,
    ),
    counter('mqtt_expired_total', 'Messages that expired before they could be sent.', mqtt.expiredMessages),
    counter('mqtt_lost_qos0_total', 'QoS 0 messages that could not be stored.', mqtt.lostQos0),
    counter(
      'mqtt_slow_readers_cut_total',
      'Subscribers disconnected because they did not read.',
      mqtt.slowReadersCut,
    ),
    counter('mqtt_revoked_connections_total', 'Connections ended by a revoked key.', mqtt.revokedConnections),
    gauge('mqtt_sessions', 'Persistent sessions.', mqtt.sessions),
    gauge('mqtt_queued_messages', 'Messages queued for sessions.', mqtt.queuedMessages),
    gauge('mqtt_queued_bytes', 'Bytes queued for sessions.', mqtt.queuedBytes),
    gauge('mqtt_delayed_wills', 'Last wills that wait for their delay.', mqtt.delayedWills),
    gauge('mqtt_retained', 'Retained messages.', mqtt.retained),
    gauge('mqtt_pending_acknowledgements', 'Publishes waiting for durability.', mqtt.pendingAcknowledgements),
  ];
}

function alarmFamilies({ alarms, buzzer, button }: GatewayFigures): MetricFamily[] {
  return [
    family('gauge', 'alarms', 'Alarms that are not normal, by state.', each('state', alarms.states)),
    counter('alarms_raised_total', 'Alarms raised.', alarms.raised),
    gauge('alarm_sounding', '1 while an alarm is to be heard.', alarms.sound === 'off' ? 0 : 1),
    gauge(
      'alarm_buzzer_healthy',
      '1 when a buzzer is there and its last write worked.',
      buzzer?.healthy ? 1 : 0,
    ),
    histogram(
      'alarm_latency_seconds',
      'From the last byte of a message to the buzzer being on.',
      alarms.latency,
    ),
    gauge('alarm_unsaved', 'Alarm facts not yet durable.', alarms.unsaved),
    gauge('button_there', '1 when a button is configured and there.', button?.isThere ? 1 : 0),
    family(
      'counter',
      'button_presses_total',
      'Presses of the button.',
      each('length', { short: button?.shortPresses ?? 0, long: button?.longPresses ?? 0 }),
    ),
  ];
}

function tlsFamilies({ tls }: GatewayFigures): MetricFamily[] {
  return [
    gauge('tls_certificate_end_seconds', 'When the certificate ends, Unix time.', tls.endsMs / 1000),
    counter('tls_certificate_renewals_total', 'Certificates exchanged since the start.', tls.renewals),
    gauge(
      'tls_own_certificate_fault',
      '1 while the own certificate is not used.',
      tls.fault === undefined ? 0 : 1,
    ),
  ];
}

function apiFamilies({ api, events }: GatewayFigures): MetricFamily[] {
  if (!api) return [];
  return [
    counter('http_requests_total', 'Requests, answered in any way.', api.requests),
    counter('http_refused_total', 'Answered with 4xx, or no HTTP at all.', api.refused),
    counter('http_rate_limited_total', 'Answered with 429.', api.limited),
    counter('http_failed_total', 'Answered with 500.', api.failed),
    gauge('http_rate_buckets', 'Callers and addresses whose rate is kept.', api.buckets),
    gauge('http_connections', 'Open connections.', api.connections),
    counter('http_displaced_connections_total', 'Closed for want of room.', api.displacedConnections),
    counter('http_failed_handshakes_total', 'TLS that did not come about.', api.failedHandshakes),
    gauge('http_event_listeners', 'Who hears events.', events.listeners),
    counter('http_events_total', 'Changes told to who listened.', events.sent),
    counter('http_event_listeners_refused_total', 'Not let in for want of room.', events.refused),
    counter('http_event_listeners_cut_total', 'Did not read what they were sent.', events.cut),
  ];
}

function commandFamilies({ commands }: GatewayFigures): MetricFamily[] {
  const { acknowledged, failed, expired, cancelled } = commands;
  return [
    counter('commands_total', 'Commands accepted.', commands.submitted),
    family(
      'counter',
      'commands_finished_total',
      'Commands that came to an end, by which.',
      each('state', { acknowledged, failed, expired, cancelled }),
    ),
    counter('commands_attempts_total', 'Times a command was given to a device.', commands.attempts),
    counter('commands_refused_full_total', 'Commands refused because too many wait.', commands.refusedFull),
    family('counter', 'commands_strange_acknowledgements_total', 'Answers of devices that changed nothing.', [
      { labels: { kind: 'late' }, value: commands.lateAcknowledgements },
      { labels: { kind: 'unmatched' }, value: commands.unmatchedAcknowledgements },
      { labels: { kind: 'unreadable' }, value: commands.unreadableAcknowledgements },
    ]),
    counter(
      'commands_repeated_total',
      'Commands asked for again with the same key.',
      commands.repeatedSubmits,
    ),
    counter('commands_damaged_records_total', 'Commands left out at start.', commands.damagedRecords),
    gauge('commands_pending', 'Commands that wait for their device or its answer.', commands.pending),
    gauge('commands_pending_max', 'As many may wait.', commands.pendingMax),
    gauge(
      'commands_held',
      'Commands held back until the date is known: they may have expired while the power was off.',
      commands.held,
    ),
    ...known(
      'commands_oldest_seconds',
      'Age of the oldest command that waits.',
      commands.oldestMs === undefined ? undefined : commands.oldestMs / 1000,
    ),
    gauge('commands_remembered', 'Finished commands that are remembered.', commands.remembered),
    gauge('commands_bytes', 'Payloads of commands.', commands.bytes),
  ];
}

/** Fields of `host_health` as gauges of the same name; flags become 0 and 1. */
function hostFamilies({ host }: GatewayFigures): MetricFamily[] {
  return Object.entries(host?.gauges ?? {}).map(([name, value]) =>
    gauge(`host_${name.toLowerCase()}`, `Field ${name} of measurement host_health.`, Number(value)),
  );
}

function backupFamilies({ backups }: GatewayFigures): MetricFamily[] {
  return [
    gauge('backup_open', '1 while a backup is being read.', backups.open),
    family(
      'counter',
      'backups_total',
      'Backups read from this gateway since it started, by how they ended.',
      [
        { labels: { end: 'finished' }, value: backups.finished },
        { labels: { end: 'abandoned' }, value: backups.abandoned },
      ],
    ),
    gauge('backup_held_bytes', 'Memory that keeps ring segments for a backup.', backups.heldBytes),
  ];
}

function historyFamilies({ history }: GatewayFigures): MetricFamily[] {
  if (!history) return [];
  return [
    counter('history_points_total', 'Points recorded for queries.', history.points),
    family(
      'counter',
      'history_dropped_points_total',
      'Points not recorded for queries.',
      each('reason', history.dropped),
    ),
    family(
      'counter',
      'history_dropped_buckets_total',
      'Hours of readings and days of thinned rows deleted.',
      each('reason', history.droppedBuckets),
    ),
    counter('history_thinned_rows_total', 'Readings that became rows of minutes.', history.thinnedRows),
    family('gauge', 'history_bytes', 'Bytes of chunks on disk.', each('level', history.bytes)),
    family('gauge', 'history_chunks', 'Chunks on disk.', each('level', history.chunks)),
    gauge('history_memory_bytes', 'Bytes not yet on disk.', history.memoryBytes),
    gauge('history_series', 'Devices × measurements in memory.', history.series),
    gauge('history_undated_points', 'Points whose date is not known yet.', history.undated),
    counter('history_damaged_chunks_total', 'Chunks left out, at every read.', history.damagedChunks),
    counter('history_flushes_total', 'Writes of what was in memory.', history.flushes),
    counter('history_failures_total', 'Writes the disk failed.', history.failures),
    histogram('history_query_seconds', 'How long a query took.', history.queries),
  ];
}

function erasureFamilies({ erasures, journal }: GatewayFigures): MetricFamily[] {
  const { waiting, refused, done } = erasures;
  return [
    gauge('erasures_waiting', 'Deletions that are not done everywhere yet.', waiting),
    gauge('erasures_refused', 'Deletions InfluxDB refused.', refused),
    counter('erasures_done_total', 'Deletions carried out, or refused for good.', done),
    counter('erased_points_total', 'Points that waited and are not sent any more.', journal.erasures.points),
  ];
}

function remoteFamilies({ remoteQuery }: GatewayFigures): MetricFamily[] {
  if (remoteQuery === undefined) return [];
  const { queries, cells, failures, cancelled, inFlight } = remoteQuery;
  return [
    counter('remote_queries_total', 'Questions to InfluxDB.', queries),
    counter('remote_query_values_total', 'Values in its answers.', cells),
    counter('remote_query_failures_total', 'Questions it did not answer, or not in time.', failures),
    counter('remote_queries_cancelled_total', 'Questions whose client had gone.', cancelled),
    gauge('remote_queries_in_flight', 'Questions under way.', inFlight),
  ];
}

function peopleFamilies({ audit, people }: GatewayFigures): MetricFamily[] {
  const { users, sessions, lockout, passwords } = people;
  return [
    gauge('users', 'Users, disabled ones too.', users.users),
    gauge('users_admins', 'Administrators who may log in.', users.admins),
    gauge('user_tokens', 'API tokens of users.', users.tokens),
    counter('users_damaged_records_total', 'Users left out at start.', users.damagedRecords),
    gauge('sessions', 'Logins on record.', sessions.sessions),
    counter('sessions_begun_total', 'Logins.', sessions.begun),
    counter('sessions_expired_total', 'Logins that ended by themselves.', sessions.expired),
    counter('sessions_evicted_total', 'Logins that gave way to newer ones.', sessions.evicted),
    counter('login_failures_total', 'Wrong passwords and claim codes.', lockout.failures),
    counter('login_refused_total', 'Logins not looked at for the wrong ones before them.', lockout.refused),
    gauge('login_lockout_entries', 'Addresses and accounts with wrong passwords.', lockout.entries),
    counter('password_hashes_total', 'Passwords hashed.', passwords.hashes),
    counter('password_turned_away_total', 'Logins turned away while too many waited.', passwords.turnedAway),
    gauge('password_waiting', 'Logins that wait for a processor.', passwords.waiting),
    gauge('audit_entries', 'Changes in the audit log.', audit.entries),
    gauge('audit_bytes', 'What the audit log occupies.', audit.bytes),
    counter('audit_dropped_total', 'Entries gone for being the oldest of too many.', audit.dropped),
    counter('audit_damaged_total', 'Entries damaged or missing, found at start.', audit.damaged),
    counter('audit_skipped_total', 'Changes of programs left out of the audit log: too many.', audit.skipped),
    counter('audit_failures_total', 'Changes that could not be recorded.', audit.failed),
  ];
}

export function metricFamilies(figures: GatewayFigures): MetricFamily[] {
  const { version, gatewayId, uptimeMs, registry, enrolment, devicesOnline } = figures;
  return [
    family('gauge', 'build_info', 'Always 1; the labels say what runs.', [
      { labels: { version, gateway: gatewayId }, value: 1 },
    ]),
    gauge('uptime_seconds', 'Since this process started.', uptimeMs / 1000),
    gauge('devices', 'Devices in the registry.', registry.devices),
    gauge('devices_online', 'Devices that are connected, or said that they are there.', devicesOnline),
    gauge('devices_pending', 'Devices that wait for approval.', registry.pending),
    gauge('pairing_open', 'Whether devices may enrol without a token.', enrolment.isPairing ? 1 : 0),
    gauge('enrolment_tokens', 'Enrolment tokens.', enrolment.tokens),
    family('counter', 'enrolments_total', 'Devices that registered by themselves, by what came of it.', [
      { labels: { outcome: 'active' }, value: enrolment.enrolled },
      { labels: { outcome: 'pending' }, value: enrolment.asked },
      { labels: { outcome: 'refused' }, value: enrolment.refused },
      { labels: { outcome: 'expired' }, value: enrolment.expired },
    ]),
    gauge(
      'devices_unwitnessed_changes',
      'Changes of the registry since its revisions could last be written to their file.',
      registry.unwitnessedChanges,
    ),
    counter('devices_damaged_records_total', 'Registry records left out at start.', registry.damagedRecords),
    ...journalFamilies(figures),
    ...wearFamilies(figures),
    ...timeFamilies(figures),
    ...ingestFamilies(figures),
    ...forwarderFamilies(figures),
    ...bridgeFamilies(figures),
    ...mqttFamilies(figures),
    ...alarmFamilies(figures),
    ...tlsFamilies(figures),
    ...apiFamilies(figures),
    ...commandFamilies(figures),
    ...hostFamilies(figures),
    ...backupFamilies(figures),
    ...historyFamilies(figures),
    ...remoteFamilies(figures),
    ...erasureFamilies(figures),
    ...peopleFamilies(figures),
  ];
}

function minutes(ms: number): string {
  const count = Math.floor(ms / 60_000);
  return count === 1 ? 'a minute' : `${count} minutes`;
}

/** Less and a person should buy a better card, or send less. */
const cardYearsMin = 2;
/** Before that the figure is of the first start, which lays out the ring. */
const wearMeasuredMsMin = 6 * 3_600_000;

const troubleWords = {
  full: {
    code: 'JOURNAL_FULL',
    words: 'There is no room left on disk (space, inodes or quota)',
    advice: 'Make room; it goes on by itself.',
  },
  'read-only': {
    code: 'DISK_READ_ONLY',
    words: 'The disk can only be read',
    advice: 'See dmesg: most often the card is worn out and must be replaced.',
  },
  failing: {
    code: 'DISK_FAILING',
    words: 'The disk fails what is written to it',
    advice: 'See dmesg and iotflow doctor.',
  },
} as const satisfies Record<DiskTrouble, object>;

/** Waiting bytes that tell of a disk which has stopped answering. */
const stalledBytes = 1024 * 1024;

/**
 * Failing: readings are refused, or an alarm could not be heard. Anything else that a person should know is a
 * reason of a gateway that is fine.
 */
export function healthOf(figures: GatewayFigures): Health {
  const { journal, wear, forwarder, alarms, buzzer, button, registry, time, history, people, erasures } =
    figures;
  const failing: HealthReason[] = [];
  const worth: HealthReason[] = [];
  if (journal.isRefusing && journal.trouble !== undefined) {
    const { code, words, advice } = troubleWords[journal.trouble];
    failing.push({ code, message: `${words}: readings are refused, alarms are still heard. ${advice}` });
  } else if (journal.trouble !== undefined || journal.isStateCarried) {
    const { words, advice } = troubleWords[journal.trouble ?? 'full'];
    worth.push({ code: 'DISK_FAILING', message: `${words}; readings are still taken. ${advice}` });
  }
  if (journal.pendingBytes > stalledBytes) {
    failing.push({
      code: 'JOURNAL_STALLED',
      message: 'The disk does not answer; acknowledgements wait. See iotflow doctor.',
    });
  }
  if (buzzer === null || buzzer?.healthy === false) {
    failing.push({
      code: 'BUZZER_UNAVAILABLE',
      message: 'The buzzer cannot be reached: alarms are silent. See buzzer.led and iotflow doctor.',
    });
  }
  if (buzzer === undefined) {
    worth.push({ code: 'BUZZER_NOT_CONFIGURED', message: 'No buzzer is configured (buzzer.led).' });
  }
  if (button?.isThere === false) {
    worth.push({
      code: 'BUTTON_UNAVAILABLE',
      message: 'The button cannot be read: see button.device; the gateway needs the group input.',
    });
  }
  if (alarms.sound !== 'off')
    worth.push({ code: 'ALARM', message: 'An alarm is sounding: iotflow alarms list.' });
  if (forwarder.state === 'retrying') {
    worth.push({
      code: 'UPLINK_DOWN',
      message: `${forwarder.remote} cannot be reached: ${forwarder.reason ?? 'no answer'}. Nothing is lost, points wait.`,
    });
  }
  if (forwarder.state === 'paused') {
    worth.push({
      code: 'UPLINK_PAUSED',
      message: `${forwarder.remote} refuses to write: ${forwarder.reason ?? 'unknown reason'}. Nothing is lost, points wait.`,
    });
  }
  if (time.unknownMs !== undefined) {
    const { alarm, event, telemetry } = journal.undated;
    worth.push({
      code: 'CLOCK_UNKNOWN',
      message:
        `The date has not been known for ${minutes(time.unknownMs)}: ${alarm + event + telemetry} points wait for it. ` +
        'Give this machine a time server (NTP), or see time.trust.',
    });
  }
  const { quarantined, deadLetters } = journal;
  if (quarantined.segments > 0 || journal.lostBlockPoints > 0) {
    worth.push({
      code: 'DATA_DAMAGED',
      message: `Damaged data was found and set aside: ${quarantined.points + journal.lostBlockPoints} points. If it happens again, replace the card.`,
    });
  }
  worth.push(...storeReasons(figures));
  if (registry.damagedRecords > 0) {
    worth.push({
      code: 'REGISTRY_DAMAGED',
      message:
        'Some devices could not be read and cannot connect: see iotflow devices list, add those that are missing.',
    });
  }
  if (people.users.damagedRecords > 0) {
    worth.push({
      code: 'USERS_DAMAGED',
      message: 'Some users could not be read and cannot log in: see iotflow users list, add those missing.',
    });
  }
  if (deadLetters.letters > 0) {
    worth.push({
      code: 'DEAD_LETTERS',
      message: `Readings that could not be used: ${deadLetters.letters}. See iotflow dead-letters list.`,
    });
  }
  if (history === null || history?.paused !== undefined) {
    const why = history?.paused === 'disk-full' ? 'the disk is nearly full' : 'the disk fails it';
    worth.push({ code: 'HISTORY_PAUSED', message: `Recent readings are not kept for queries: ${why}.` });
  }
  if (erasures.blocked !== undefined) {
    worth.push({
      code: 'ERASURE_BLOCKED',
      message: `Deleted readings are still in InfluxDB, which does not delete them: ${erasures.blocked}`,
    });
  }
  if (wear.measuredMs >= wearMeasuredMsMin && (wear.lifeYears ?? Infinity) < cardYearsMin) {
    worth.push({
      code: 'CARD_WEARS_OUT',
      message: `At the present rate the card lasts ${wear.lifeYears?.toFixed(1)} years.`,
    });
  }
  if (deadLetters.dropped > 0) {
    worth.push({
      code: 'DEAD_LETTERS_DROPPED',
      message: `The dead letters are at their cap: ${deadLetters.dropped} of the oldest are gone for good.`,
    });
  }
  worth.push(...retentionReasons(journal), ...tlsReasons(figures));
  return failing.length > 0 ? { ok: false, reasons: [...failing, ...worth] } : { ok: true, reasons: worth };
}

/** Its own are renewed with 30 days left, as most are: with fewer than this it did not work. */
const certificateMsMin = 14 * 86_400_000;

function tlsReasons({ tls }: GatewayFigures): HealthReason[] {
  const reasons: HealthReason[] = [];
  if (tls.fault !== undefined) {
    const message = `Your own certificate is not used: ${tls.fault}.`;
    reasons.push({ code: 'TLS_CERTIFICATE_REFUSED', message });
  }
  if (tls.leftMs !== undefined && tls.leftMs < certificateMsMin) {
    const end = new Date(tls.endsMs).toISOString().slice(0, 10);
    const message = `The TLS certificate ends on ${end}; clients refuse it then. See iotflow tls.`;
    reasons.push({ code: 'TLS_CERTIFICATE_ENDS', message });
  }
  return reasons;
}

/** As long as thinned points wait, and since the start whatever was dropped. */
function retentionReasons({ blocks, dropped, retention }: GatewayFigures['journal']): HealthReason[] {
  const reasons: HealthReason[] = [];
  const { lastThinned, lastDropped } = retention;
  const waiting = blocks['telemetry-1m'].points + blocks['telemetry-1h'].points;
  if (waiting > 0) {
    const last =
      lastThinned === undefined
        ? ''
        : ` Last: ${lastThinned.points} readings${spanText(lastThinned)} to one each ${windowText(lastThinned)}.`;
    reasons.push({
      code: 'POINTS_THINNED',
      message: `The journal is near its cap: the oldest readings are thinned, ${waiting} such points wait.${last}`,
    });
  }
  const points = Object.values(dropped).reduce((sum, { capacity, age }) => sum + capacity + age, 0);
  if (points > 0 && lastDropped !== undefined) {
    const why = lastDropped.detail === 'age' ? 'too old' : 'the journal is at its cap';
    reasons.push({
      code: 'POINTS_DROPPED',
      message: `${points} points were dropped since the start. Last: ${lastDropped.points} of class ${lastDropped.class}${spanText(lastDropped)}, ${why}.`,
    });
  }
  return reasons;
}

function windowText({ detail }: RetentionReport): string {
  return detail === '1h' ? 'hour' : 'minute';
}

function spanText({ fromMs, toMs }: RetentionReport): string {
  if (fromMs === undefined || toMs === undefined) return '';
  const text = (ms: number) => `${new Date(ms).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
  return ` from ${text(fromMs)} to ${text(toMs)}`;
}
