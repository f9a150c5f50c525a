// The administrator's dashboard: the devices and what the gateway did, in one answer. Counts are since the start of the
// gateway unless they say otherwise.

import * as v from 'valibot';
import { shownTime } from '../../platform/shown-time.ts';
import type { RegistryParts } from '../../registry/operations.ts';
import { count, time, timeOrNull } from '../device-answers.ts';
import { type GatewayFigures, healthOf } from '../figures.ts';
import { answerHealth } from '../health.ts';
import { type Route, route } from '../route.ts';
import { healthSchema } from './pages.ts';

const shownMax = 5;
/** Types and places are free text. */
const groupsMax = 20;

const groups = v.pipe(
  v.record(v.string(), count),
  v.description(`The ${groupsMax} with the most devices; "" where nobody said`),
);
const bytes = v.pipe(count, v.description('Bytes'));

const dashboardSchema = v.strictObject({
  status: v.literal('success'),
  timestamp: v.nullable(time),
  gateway_id: v.string(),
  version: v.string(),
  uptime_seconds: count,
  health: healthSchema,
  device_stats: v.strictObject({
    total: count,
    active: count,
    inactive: count,
    maintenance: count,
    pending: count,
    online: count,
    offline: count,
    by_type: groups,
    by_location: groups,
  }),
  recent_devices: v.pipe(
    v.array(
      v.strictObject({
        id: count,
        device_id: v.string(),
        name: v.string(),
        device_type: v.string(),
        status: v.string(),
        created_at: timeOrNull,
      }),
    ),
    v.description('The newest'),
  ),
  recently_seen: v.pipe(
    v.array(
      v.strictObject({ device_id: v.string(), name: v.string(), last_seen: timeOrNull, online: v.boolean() }),
    ),
    v.description('Those last heard of'),
  ),
  telemetry_stats: v.strictObject({
    messages_since_start: count,
    points_since_start: count,
    duplicates_since_start: count,
    dead_letters: count,
  }),
  alarm_stats: v.strictObject({ count, sound: v.string(), states: v.record(v.string(), count) }),
  command_stats: v.strictObject({
    pending: count,
    acknowledged: count,
    failed: count,
    expired: count,
    cancelled: count,
  }),
  user_stats: v.strictObject({ users: count, admins: count, sessions: count }),
  backlog: v.strictObject({
    points: count,
    state: v.string(),
    accepted_points: count,
    last_accepted_at: timeOrNull,
  }),
  storage: v.strictObject({
    ring_segments: count,
    ring_segments_used: count,
    dead_letters: count,
    history_bytes: v.nullable(bytes),
    written_bytes_per_day: v.pipe(
      v.nullable(v.number()),
      v.description('To the card; null in the first minutes'),
    ),
  }),
});

function sum(values: Readonly<Record<string, number>>): number {
  return Object.values(values).reduce((total, value) => total + value, 0);
}

function grouped(names: readonly string[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  const most = [...counts].sort((a, b) => b[1] - a[1] || a[0].localeCompare(b[0])).slice(0, groupsMax);
  return Object.fromEntries(most);
}

function deviceStats({ registry, presence, show }: RegistryParts) {
  const devices = registry.list();
  const withStatus = (wanted: string) => devices.filter(({ status }) => status === wanted).length;
  const { online } = presence;
  const newest = [...devices].sort((a, b) => b.id - a.id).slice(0, shownMax);
  const seen = devices
    .map(show)
    .filter(({ last_seen }) => last_seen !== null)
    .sort((a, b) => ((a.last_seen ?? '') < (b.last_seen ?? '') ? 1 : -1))
    .slice(0, shownMax);
  return {
    device_stats: {
      total: devices.length,
      active: withStatus('active'),
      inactive: withStatus('inactive'),
      maintenance: withStatus('maintenance'),
      pending: withStatus('pending'),
      online,
      offline: devices.length - online,
      by_type: grouped(devices.map(({ type }) => type)),
      by_location: grouped(devices.map(({ location }) => location)),
    },
    recent_devices: newest.map(({ id, deviceId, name, type, status, createdMs }) => ({
      id,
      device_id: deviceId,
      name,
      device_type: type,
      status,
      created_at: shownTime(createdMs),
    })),
    recently_seen: seen.map(({ device_id, name, last_seen, online: isThere }) => ({
      device_id,
      name,
      last_seen,
      online: isThere,
    })),
  };
}

export function dashboardRoutes(
  parts: RegistryParts,
  figures: () => GatewayFigures,
  /** Undefined while the date is not known. */
  nowMs: () => number | undefined,
): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/admin/dashboard',
      tag: 'admin',
      summary: 'The gateway in figures',
      access: ['service', 'viewer'],
      answers: {
        200: {
          description: 'Devices, readings, alarms, commands, users, what waits, what is stored',
          schema: dashboardSchema,
        },
      },
      handle: () => {
        const now = figures();
        const { journal, ingest, alarms, commands, people, forwarder, history, wear } = now;
        const deadLetters = journal.deadLetters.letters;
        return {
          status: 200,
          body: {
            status: 'success',
            timestamp: shownTime(nowMs()),
            gateway_id: now.gatewayId,
            version: now.version,
            uptime_seconds: Math.floor(now.uptimeMs / 1000),
            health: answerHealth(healthOf(now)).body,
            ...deviceStats(parts),
            telemetry_stats: {
              messages_since_start: ingest.messages,
              points_since_start: ingest.points,
              duplicates_since_start: ingest.duplicates,
              dead_letters: deadLetters,
            },
            alarm_stats: { count: alarms.list.length, sound: alarms.sound, states: alarms.states },
            command_stats: {
              pending: commands.pending,
              acknowledged: commands.acknowledged,
              failed: commands.failed,
              expired: commands.expired,
              cancelled: commands.cancelled,
            },
            user_stats: {
              users: people.users.users,
              admins: people.users.admins,
              sessions: people.sessions.sessions,
            },
            backlog: {
              points: sum(journal.pending),
              state: forwarder.state,
              accepted_points: forwarder.acceptedPoints,
              last_accepted_at: shownTime(forwarder.lastAcceptedAtMs),
            },
            storage: {
              ring_segments: journal.ring.segments,
              ring_segments_used: journal.ring.used,
              dead_letters: deadLetters,
              history_bytes: history ? sum(history.bytes) : null,
              written_bytes_per_day: wear.bytesPerDay ?? null,
            },
          },
        };
      },
    }),
  ];
}
