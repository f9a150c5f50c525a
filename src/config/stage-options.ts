// Options of stages as configured, for the gateway and for commands that open the same beside a stopped one: opened
// with others, a journal would drop what the gateway keeps.

import type { Config } from './schema.ts';

const dayMs = 86_400_000;

export function journalOptions(config: Config) {
  return {
    ringSegments: config.journal.ringSegments,
    maxBytes: config.journal.maxBytes,
    maxAgeMs: {
      alarm: config.journal.alarmMaxAgeDays * dayMs,
      event: config.journal.eventMaxAgeDays * dayMs,
      telemetry: config.journal.maxAgeDays * dayMs,
    },
    pendingBytesMax: config.journal.pendingBytesMax,
    ackDelayMaxMs: config.journal.ackDelayMaxMs,
    blockPoints: Math.min(config.influx.batchPoints, 5000),
    deadLettersMax: config.deadLetters.max,
    deadLetterBytesMax: config.deadLetters.maxBytes,
  };
}

/** Undefined where no InfluxDB is configured. */
export function influxTarget({ influx }: Config) {
  const { url, token, org, bucket } = influx;
  return url === undefined ? undefined : { url, token, org, bucket };
}

/** Undefined where no bridge is configured. */
export function bridgeOptions({ bridge, gatewayId }: Config) {
  const { url, clientId, ...options } = bridge;
  if (url === undefined) return undefined;
  const urls = url.split(',').map((part) => part.trim());
  return { ...options, urls, clientId: clientId ?? `iotflow-bridge-${gatewayId}` };
}

export function historyOptions({ history }: Config) {
  const { rawHours, maxAgeDays, maxBytes } = history;
  return { rawHours, maxAgeDays, maxBytes };
}

export function sessionOptions({ users }: Config) {
  return { idleMs: users.sessionIdleHours * 3_600_000, lifetimeMs: users.sessionMaxDays * dayMs };
}

export function commandLimits({ commands }: Config) {
  const { expiresInMs, pendingPerDeviceMax, pendingMax, finishedPerDeviceMax, finishedMax } = commands;
  const { bytesMax, attemptsMax, retryMs, retryMaxMs } = commands;
  return {
    expiresInMs,
    pendingPerDeviceMax,
    pendingMax,
    finishedPerDeviceMax,
    finishedMax,
    bytesMax,
    attemptsMax,
    retryMs,
    retryMsMax: retryMaxMs,
  };
}
