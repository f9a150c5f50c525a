// The services the gateway talks to. Leaves nothing behind there: InfluxDB is sent a write of a comment, which needs
// the right to write and stores no point; the bridge's brokers a connection; Flume a login; VoiceMonkey, where every
// call counts and may speak, nothing.

import { BridgeConnection, ConnectionRefused } from '../../bridge/connection.ts';
import type { Config } from '../../config/schema.ts';
import { bridgeOptions } from '../../config/stage-options.ts';
import { InfluxWriter } from '../../forwarder/influx-write.ts';
import { errorCode } from '../../platform/errors.ts';
import { type Check, type Finding, fail, networkTodo, ok, skipped, warn } from './check.ts';

const requestTimeoutMs = 4_000;

function below(base: string, path: string): string {
  return `${base.replace(/\/+$/, '')}/${path}`;
}

/** Why a request got no answer: fetch hides it in the cause. */
function failureOf(error: unknown): string {
  const cause = error instanceof Error && error.cause !== undefined ? error.cause : error;
  if (cause instanceof Error && (cause.name === 'TimeoutError' || cause.name === 'AbortError'))
    return 'no answer';
  return errorCode(cause) ?? (cause instanceof Error ? cause.message : String(cause));
}

async function get(url: string, signal: AbortSignal): Promise<Response> {
  const limit = AbortSignal.any([signal, AbortSignal.timeout(requestTimeoutMs)]);
  return await fetch(url, { signal: limit, redirect: 'manual' });
}

/** When the server's clock and ours were read at about the same time, ours minus the server's. */
export async function clockOffsetMs(
  influxUrl: string,
  wallMs: () => number,
  signal: AbortSignal,
): Promise<number | undefined> {
  try {
    const response = await get(below(influxUrl, 'ping'), signal);
    await response.body?.cancel();
    const date = Date.parse(response.headers.get('date') ?? '');
    // The header has whole seconds: half a second is the best guess.
    return Number.isNaN(date) ? undefined : wallMs() - (date + 500);
  } catch {
    return undefined;
  }
}

export function influxCheck({ influx }: Config, wallMs: () => number): Check {
  return {
    name: 'influxdb',
    run: async (signal) => {
      const { url, token, org, bucket } = influx;
      if (url === undefined)
        return [skipped('influx.url is not set: points stay in the local journal, or go over the bridge')];
      let version: string;
      try {
        version = await versionOf(url, signal);
      } catch (error) {
        const why = failureOf(error);
        return [fail(`${url} cannot be reached: ${why}`, networkTodo(why))];
      }
      return [
        ok(`${url} answers${version}`),
        await writeFinding({ url, token, org, bucket }, wallMs, signal),
      ];
    },
  };
}

/** 2.x and 1.8 say it at /health, all of 1.x in a header at /ping; others say nothing. */
async function versionOf(url: string, signal: AbortSignal): Promise<string> {
  const health = await get(below(url, 'health'), signal);
  const text = (await health.text()).slice(0, 10_000);
  const found = /"version"\s*:\s*"([\w.+-]{1,40})"/.exec(text)?.[1];
  if (found !== undefined) return `, version ${found}`;
  const ping = await get(below(url, 'ping'), signal);
  await ping.body?.cancel();
  const header = ping.headers.get('x-influxdb-version') ?? '';
  return /^[\w.+-]{1,40}$/.test(header) ? `, version ${header}` : '';
}

// What 2.x, 3 and 1.x say of a write without a point, once they have found token, bucket and rights to be good.
const saysEmpty = /writing requires points|write was empty|no (?:points|lines)/i;

interface Target {
  readonly url: string;
  readonly token: string | undefined;
  readonly org: string;
  readonly bucket: string;
}

async function writeFinding(target: Target, wallMs: () => number, signal: AbortSignal): Promise<Finding> {
  const { org, bucket } = target;
  const writer = InfluxWriter.open(target, {
    requestTimeoutMs,
    gzipMinBytes: Number.MAX_SAFE_INTEGER,
    wallMs,
  });
  const good = ok(`may write to bucket ${bucket} of ${org}`);
  try {
    const outcome = await writer.write(Buffer.from('# iotflow doctor\n'), 'identity', signal);
    switch (outcome.kind) {
      case 'accepted':
        return good;
      case 'rejected':
        if (saysEmpty.test(outcome.refusal.message)) return good;
        return warn(
          `answered a write of nothing with: ${outcome.refusal.message}`,
          'see the log of the server',
        );
      case 'unauthorised':
        return outcome.message.startsWith('403')
          ? fail(
              `the token may not write to bucket ${bucket}: ${outcome.message}`,
              'make a token with that right',
            )
          : fail(`the token is not taken: ${outcome.message}`, 'set influx.token to a token of this server');
      case 'not-found':
        return fail(
          `no bucket ${bucket} in ${org}: ${outcome.message}`,
          'make it, or set influx.org and influx.bucket',
        );
      case 'unexpected':
        return unexpected(outcome.message);
      case 'too-large':
      case 'retry': {
        const why = outcome.kind === 'retry' ? outcome.reason : outcome.message;
        return saysEmpty.test(why)
          ? good
          : fail(`does not take writes now: ${why}`, 'see the log of the server');
      }
    }
  } finally {
    writer.close();
  }
}

function unexpected(message: string): Finding {
  if (saysEmpty.test(message)) return ok('may write');
  return fail(
    `whoever answers is no InfluxDB: ${message}`,
    'look at influx.url; a login page of the network answers like this too',
  );
}

export function bridgeCheck(config: Config): Check {
  const options = bridgeOptions(config);
  return {
    name: 'bridge',
    run: async () => {
      if (options === undefined) return [skipped('bridge.url is not set')];
      // Under a name of its own: with the gateway's the broker would end the connection of the one that runs.
      const asked = { ...options, clientId: `${options.clientId}-doctor`, timeoutMs: requestTimeoutMs };
      return await Promise.all(
        options.urls.map(async (url) => {
          try {
            (await BridgeConnection.open(url, asked)).close();
            return ok(`${url} lets this account connect; whether it may publish shows with the first points`);
          } catch (error) {
            return brokerFinding(url, error);
          }
        }),
      );
    },
  };
}

function brokerFinding(url: string, error: unknown): Finding {
  const message = error instanceof Error ? error.message : String(error);
  if (error instanceof ConnectionRefused) {
    return fail(`${url} refuses the connection: ${message}`, 'look at bridge.username and bridge.password');
  }
  const code = errorCode(error) ?? message;
  const todo = /CERT|TLS|SSL|certificate/.test(code)
    ? "set bridge.ca_path to the CA of the broker; its certificate must name the broker's address"
    : networkTodo(code);
  return fail(`${url} cannot be reached: ${code}`, todo);
}

export function flumeCheck({ flume }: Config): Check {
  return {
    name: 'flume',
    run: async (signal) => {
      const { clientId, clientSecret, username, password } = flume;
      const given = { client_id: clientId, client_secret: clientSecret, username, password };
      const missing = Object.entries(given).flatMap(([key, value]) =>
        value === undefined ? [`flume.${key}`] : [],
      );
      if (missing.length === 4) return [skipped('not configured')];
      if (missing.length > 0)
        return [fail(`${missing.join(', ')} not set`, 'set all four; see the Flume portal')];
      const limit = AbortSignal.any([signal, AbortSignal.timeout(requestTimeoutMs)]);
      try {
        const response = await fetch(below(flume.baseUrl, 'oauth/token?envelope=true'), {
          method: 'POST',
          headers: { 'content-type': 'application/json', accept: 'application/json' },
          body: JSON.stringify({ grant_type: 'password', ...given }),
          signal: limit,
          redirect: 'manual',
        });
        return [loginFinding(response.status, (await response.text()).slice(0, 100_000))];
      } catch (error) {
        const why = failureOf(error);
        return [fail(`${flume.baseUrl} cannot be reached: ${why}`, networkTodo(why))];
      }
    },
  };
}

/** The answer may repeat what was sent: only words known to be harmless are told. */
function loginFinding(status: number, body: string): Finding {
  if (status === 200 && /"access_token"/.test(body)) return ok('the login works (one request of the hour)');
  if (status === 429)
    return warn('too many requests in this hour', 'try again in an hour; others may use it too');
  if (status >= 500) return warn(`Flume has trouble of its own (${status})`, 'try again later');
  if (/unverified_user/.test(body)) return fail('the account is not verified', 'finish the sign-up at Flume');
  if (/client credentials are invalid|invalid_client/i.test(body)) {
    return fail('client id or secret are wrong', 'copy both from the Flume portal, Settings, API Access');
  }
  if (/user credentials are invalid|invalid_grant/i.test(body)) {
    return fail('user name or password are wrong', 'set flume.username and flume.password as in the app');
  }
  if (status === 400 || status === 401 || status === 403) {
    return fail(`the login is refused (${status})`, 'look at the four settings of flume');
  }
  return fail(
    `whoever answers is not Flume (${status})`,
    'look at flume.base_url; a login page may be in between',
  );
}

export function voiceMonkeyCheck({ voicemonkey }: Config): Check {
  return {
    name: 'voicemonkey',
    run: async () => {
      const { token, device } = voicemonkey;
      if (token === undefined && device === undefined) return [skipped('not configured')];
      if (token === undefined)
        return [fail('voicemonkey.token is not set', 'copy it from the VoiceMonkey console')];
      if (device === undefined)
        return [fail('voicemonkey.device is not set', 'set it to the id of the device')];
      return [ok(`configured for ${device}; not called, because it would speak`)];
    },
  };
}
