// One write request to InfluxDB becomes one outcome. The official client serves as the transport alone (its write
// buffer lives in memory and drops; ours is the journal). Promises: resolves always, never throws; the token
// appears in no outcome. Does not promise anything about a request cut off half-way: it may have been stored, and
// sending it again is harmless.

import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { promisify } from 'node:util';
import { constants, gzip as gzipCallback } from 'node:zlib';
import { HttpError, InfluxDB, RequestTimedOutError, type Transport } from '@influxdata/influxdb-client';
import { errorCode } from '../platform/errors.ts';
import { readAnswer, type WriteOutcome } from './answer.ts';
import type { Uplink } from './uplink.ts';

const gzip = promisify(gzipCallback);

/** Where points go. */
export interface InfluxTarget {
  /** `http://` or `https://`, with a path where a proxy needs one. */
  readonly url: string;
  /** Absent for servers without authentication. */
  readonly token?: string | undefined;
  readonly org: string;
  readonly bucket: string;
}

export interface InfluxWriterOptions {
  /** Silence on the connection longer than this ends a request; a slow link that still moves does not. */
  readonly requestTimeoutMs: number;
  /** Bodies of line protocol from this size on are compressed first. */
  readonly gzipMinBytes: number;
  /** The wall clock, for a `Retry-After` that is a date. */
  readonly wallMs: () => number;
}

// An answer that drips one byte at a time is never silent: four times the silence allowed ends that too.
const deadlineFactor = 4;

export class InfluxWriter implements Uplink {
  readonly name = 'InfluxDB';
  readonly stage = 'influx';
  readonly #transport: Transport;
  readonly #agent: HttpAgent;
  readonly #target: InfluxTarget;
  readonly #options: InfluxWriterOptions;
  readonly #path: string;
  #sentBytes = 0;

  private constructor(
    target: InfluxTarget,
    options: InfluxWriterOptions,
    agent: HttpAgent,
    transport: Transport,
  ) {
    this.#target = target;
    this.#options = options;
    this.#agent = agent;
    this.#transport = transport;
    const query = new URLSearchParams({ org: target.org, bucket: target.bucket, precision: 'ns' });
    this.#path = `/api/v2/write?${query}`;
  }

  /** @throws TypeError for a URL that is none, or neither http nor https */
  static open(target: InfluxTarget, options: InfluxWriterOptions): InfluxWriter {
    const isTls = new URL(target.url).protocol === 'https:';
    const agent = isTls ? new HttpsAgent({ keepAlive: true }) : new HttpAgent({ keepAlive: true });
    const { transport } = new InfluxDB({
      url: target.url,
      timeout: options.requestTimeoutMs,
      transportOptions: { agent },
      ...(target.token === undefined ? {} : { token: target.token }),
    });
    return new InfluxWriter(target, options, agent, transport);
  }

  /** Closes all connections; a request under way is tried once more, on a new one. */
  close(): void {
    this.#agent.destroy();
  }

  /** Bodies as sent, repetitions included; headers are not counted. */
  get sentBytes(): number {
    return this.#sentBytes;
  }

  /** @param signal cuts the request off; the outcome is then `retry` */
  async write(body: Buffer, encoding: 'identity' | 'gzip', signal: AbortSignal): Promise<WriteOutcome> {
    if (encoding === 'gzip') return this.#send(body, true, signal);
    if (body.length < this.#options.gzipMinBytes) return this.#send(body, false, signal);
    // Level 1 halves the time of the default for a fifth more bytes; off the event loop, in zlib's thread.
    return this.#send(await gzip(body, { level: constants.Z_BEST_SPEED }), true, signal);
  }

  async #send(body: Buffer, isGzip: boolean, signal: AbortSignal): Promise<WriteOutcome> {
    const first = await this.#attempt(body, isGzip, signal);
    if (first.outcome !== undefined) return first.outcome;
    // A kept connection that the server closed just now looks like a reset: that alone is no lost uplink.
    const second = await this.#attempt(body, isGzip, signal);
    return second.outcome ?? { kind: 'retry', reason: second.reset };
  }

  #attempt(
    body: Buffer,
    isGzip: boolean,
    signal: AbortSignal,
  ): Promise<{ outcome: WriteOutcome } | { outcome: undefined; reset: string }> {
    return new Promise((resolve) => {
      const cut = new AbortController();
      const onAbort = (): void => cut.abort();
      signal.addEventListener('abort', onAbort);
      const deadline = setTimeout(onAbort, this.#options.requestTimeoutMs * deadlineFactor);
      const end = (result: { outcome: WriteOutcome } | { outcome: undefined; reset: string }): void => {
        clearTimeout(deadline);
        signal.removeEventListener('abort', onAbort);
        resolve(result);
      };
      if (signal.aborted) return end({ outcome: { kind: 'retry', reason: 'stopped' } });
      let status = 0;
      this.#sentBytes += body.length;
      try {
        this.#transport.send(
          this.#path,
          // Typed as text, but handed to Buffer.from(body): bytes pass through unchanged.
          body as unknown as string,
          {
            method: 'POST',
            headers: {
              'content-type': 'text/plain; charset=utf-8',
              ...(isGzip ? { 'content-encoding': 'gzip' } : {}),
            },
            signal: cut.signal,
          },
          {
            responseStarted: (_headers, code) => {
              status = code ?? 0;
            },
            complete: () => end({ outcome: this.#readEnd(status) }),
            error: (error) => {
              if (error instanceof HttpError) {
                end({ outcome: this.#readError(error) });
                return;
              }
              // The client reports a timeout but leaves the connection open.
              cut.abort();
              const code = errorCode(error);
              if ((code === 'ECONNRESET' || code === 'EPIPE') && !signal.aborted) {
                end({ outcome: undefined, reset: this.#censor(error.message) });
                return;
              }
              end({ outcome: this.#readFailure(error, signal.aborted) });
            },
          },
        );
      } catch (error) {
        // A token or URL that cannot be put into a request.
        const message = error instanceof Error ? error.message : 'request refused';
        end({ outcome: { kind: 'unexpected', message: this.#censor(message) } });
      }
    });
  }

  /** Answers below 300. Only 204 is a promise; a captive portal says 200 to everything. */
  #readEnd(status: number): WriteOutcome {
    if (status === 204) return { kind: 'accepted' };
    return { kind: 'unexpected', message: `${status}: not an answer of InfluxDB` };
  }

  #readError(error: HttpError): WriteOutcome {
    const header = (name: string): string | undefined => {
      const value = error.headers?.[name];
      return typeof value === 'string' ? value : undefined;
    };
    const retryAfter = header('retry-after');
    const influxError = header('x-influxdb-error');
    const sentMs = Date.parse(header('date') ?? '');
    return readAnswer(
      {
        status: error.statusCode,
        contentType: error.contentType ?? '',
        body: this.#censor(error.body ?? ''),
        ...(retryAfter === undefined ? {} : { retryAfter }),
        ...(influxError === undefined ? {} : { influxError: this.#censor(influxError) }),
      },
      // A date means the server's own clock; ours may be weeks wrong.
      Number.isFinite(sentMs) ? sentMs : this.#options.wallMs(),
    );
  }

  #readFailure(error: Error, isStopped: boolean): WriteOutcome {
    if (isStopped) return { kind: 'retry', reason: 'stopped' };
    if (error instanceof RequestTimedOutError || error.name === 'AbortError') {
      // Aborted is also what half an answer looks like; smaller requests are the right medicine for both.
      return { kind: 'retry', reason: 'no complete answer in time', isTimeout: true };
    }
    const code = errorCode(error);
    // Certificates do not mend themselves, but clocks do: a Pi without a clock of its own boots in the past.
    return {
      kind: 'retry',
      reason: this.#censor(code === undefined ? error.message : `${code}: ${error.message}`),
    };
  }

  #censor(text: string): string {
    const { token } = this.#target;
    if (token === undefined || token === '') return text;
    return text.replaceAll(token, '[secret]');
  }
}
