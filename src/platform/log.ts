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

/** What waits while standard output takes nothing; the newest lines beyond it are dropped. */
const waitingBytesMax = 256 * 1024;

/**
 * The root log, to standard output; stages take `log.child({ stage })` and a stable `event` key per line. A log that
 * cannot be written (its disk is full, its reader gone) stops nobody.
 */
export function createLog(level: LogLevel): Log {
  const output = pino.destination({ dest: 1, sync: true, maxLength: waitingBytesMax });
  output.on('error', () => undefined);
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: secretKeys.flatMap((key) => [key, `*.${key}`]), censor: '[secret]' },
    },
    output,
  );
}
