// One request to InfluxDB beside writes and queries: through the official client's transport, on a connection of its
// own, whole within a time limit. Promises: resolves always; the token is in no text of the answer.

import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { HttpError, InfluxDB } from '@influxdata/influxdb-client';
import { errorCode } from '../platform/errors.ts';
import type { QueryTarget } from './influx-query.ts';

export interface InfluxRequest {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: unknown;
  readonly timeoutMs: number;
  readonly signal?: AbortSignal;
}

export interface InfluxReply {
  /** 0: no complete answer came. */
  readonly status: number;
  readonly text: string;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

const charactersMax = 64 * 1024;

export function requestInflux(target: QueryTarget, request: InfluxRequest): Promise<InfluxReply> {
  const { url, token } = target;
  const { method, path, body, timeoutMs, signal } = request;
  const agent = url.startsWith('https:') ? new HttpsAgent() : new HttpAgent();
  const shown = (text: string) =>
    token === undefined || token === '' ? text : text.replaceAll(token, '[secret]');
  return new Promise((resolve) => {
    let status = 0;
    let text = '';
    let headers: InfluxReply['headers'] = {};
    const end = (reply: InfluxReply) => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', onAbort);
      agent.destroy();
      resolve({ ...reply, text: shown(reply.text) });
    };
    const onAbort = () => end({ status: 0, text: 'stopped', headers: {} });
    const timer = setTimeout(() => {
      end({ status: 0, text: `no complete answer within ${timeoutMs} ms`, headers: {} });
    }, timeoutMs);
    signal?.addEventListener('abort', onAbort);
    if (signal?.aborted) return onAbort();
    const fail = (error: unknown) => {
      const message = error instanceof Error ? error.message : String(error);
      if (error instanceof HttpError) {
        end({ status: error.statusCode, text: error.body ?? message, headers: error.headers ?? {} });
        return;
      }
      const code = errorCode(error);
      end({ status: 0, text: code === undefined ? message : `${code}: ${message}`, headers: {} });
    };
    try {
      const { transport } = new InfluxDB({
        url,
        timeout: timeoutMs,
        transportOptions: { agent },
        ...(token === undefined ? {} : { token }),
      });
      const sent = { method, headers: { 'content-type': 'application/json' } };
      transport.send(path, body === undefined ? '' : JSON.stringify(body), sent, {
        responseStarted: (given, code) => {
          status = code ?? 0;
          headers = given;
        },
        next: (data: Uint8Array) => {
          if (text.length < charactersMax) text += Buffer.from(data).toString('utf8');
        },
        complete: () => end({ status, text, headers }),
        error: fail,
      });
    } catch (error) {
      fail(error);
    }
  });
}
