// Whether readings come in, are kept and get on: of the whole way, and of InfluxDB alone.

import type { InfluxHealth } from '../../remote/influx-health.ts';
import type { GatewayFigures } from '../figures.ts';
import type { Health } from '../health.ts';
import { readers } from '../recent-queries.ts';
import { type Route, route } from '../route.ts';
import { influxdbHealth, telemetryStatus } from '../telemetry-answers.ts';

export interface TelemetryStatusParts {
  readonly figures: () => GatewayFigures;
  readonly health: () => Health;
  /** Undefined where no InfluxDB is configured. */
  readonly influx: (() => Promise<InfluxHealth>) | undefined;
  /** Deletions, the newest first. */
  readonly erasures: () => readonly unknown[];
}

function time(ms: number | undefined): string | null {
  return ms === undefined ? null : new Date(ms).toISOString();
}

function wordFor({ ok, reasons }: Health): 'healthy' | 'degraded' | 'unhealthy' {
  if (!ok) return 'unhealthy';
  return reasons.length > 0 ? 'degraded' : 'healthy';
}

export function telemetryStatusRoutes({ figures, health, influx, erasures }: TelemetryStatusParts): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/telemetry/status',
      tag: 'telemetry',
      summary: 'Whether readings are taken, kept and sent on.',
      access: readers,
      answers: {
        200: { description: 'What waits, what was sent, what is deleted.', schema: telemetryStatus },
      },
      handle: ({ caller }) => {
        const { forwarder, journal, history, ingest } = figures();
        const { state, reason, pending, lastAcceptedAtMs, acceptedPoints } = forwarder;
        return {
          status: 200,
          body: {
            status: wordFor(health()),
            influxdb: {
              configured: influx !== undefined,
              connected: state === 'idle' || state === 'sending',
              state,
              ...(reason !== undefined && { reason }),
              last_written: time(lastAcceptedAtMs),
              points_written: acceptedPoints,
            },
            journal: {
              points_waiting: pending.urgent + pending.fresh + pending.backlog,
              is_taking: !journal.isRefusing,
              dead_letters: journal.deadLetters.letters,
            },
            history:
              history === undefined || history === null
                ? null
                : { points: history.points, bytes: history.bytes.raw + history.bytes.thinned },
            ingest: { messages: ingest.messages, points: ingest.points },
            // Whose data is deleted is nobody's business but the household's.
            ...(caller.kind === 'user' && { erasures: erasures() }),
          },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/influxdb/health',
      tag: 'influxdb',
      summary: 'Whether InfluxDB answers.',
      access: readers,
      answers: {
        200: { description: 'It does.', schema: influxdbHealth },
        503: {
          description: 'It does not, or none is configured. Readings wait in the journal.',
          schema: influxdbHealth,
        },
      },
      handle: async () => {
        const told: InfluxHealth = (await influx?.()) ?? {
          status: 'fail',
          message: 'no InfluxDB is configured: readings wait in the journal',
        };
        const connected = told.status === 'pass';
        return { status: connected ? 200 : 503, body: { influxdb: told, connected } };
      },
    }),
  ];
}
