// Logging: pino, one line of JSON per state change, nothing per point. Secrets never reach it.

import { type Logger, pino } from 'pino';

export type Log = Logger;

export type LogLevel = 'trace' | 'debug' | 'info' | 'warn' | 'error' | 'silent';

// Any key of these names, at the top or one level down, is censored whoever logs it.
const secretKeys = [
  'password',
  'token',
  'api_key',
  'apiKey',
  'secret',
  'client_secret',
  'clientSecret',
  'authorization',
  'refresh_token',
  'access_token',
];

/** The root log, to standard output; stages take `log.child({ stage })` and a stable `event` key per line. */
export function createLog(level: LogLevel): Log {
  return pino({
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    redact: { paths: secretKeys.flatMap((key) => [key, `*.${key}`]), censor: '[secret]' },
  });
}
