// One query to InfluxDB becomes rows, or one coded error. Through the official client's query API. Promises: an answer
// has at most so many cells and characters, and comes in time or not at all; whoever asked may go, and the request
// goes with them; the token appears in no message. After a failure nothing is asked for a moment: a question that
// needs no remote answer waits for none.

import { Agent as HttpAgent } from 'node:http';
import { Agent as HttpsAgent } from 'node:https';
import { type FluxTableMetaData, HttpError, InfluxDB } from '@influxdata/influxdb-client';
import type { FieldValue } from '../model/point.ts';
import { parseTimestamp } from '../model/timestamp.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';

export interface QueryTarget {
  readonly url: string;
  readonly token?: string | undefined;
  readonly org: string;
  readonly bucket: string;
}

/** One value of one field. */
export interface Cell {
  /** Name of the yield; empty where there is but one. */
  readonly result: string;
  readonly measurement: string;
  readonly field: string;
  readonly timeNs: bigint;
  readonly value: FieldValue;
}

export interface InfluxQueryOptions {
  /** For the whole answer. */
  readonly timeoutMs: number;
  readonly monotonicMs: () => number;
  /** Why it is known to be out of reach; undefined when it may be asked. */
  readonly outage?: () => string | undefined;
  readonly cellsMax?: number;
  readonly charactersMax?: number;
  readonly inFlightMax?: number;
  readonly restMs?: number;
}

const defaults = {
  cellsMax: 200_000,
  charactersMax: 32 * 1024 * 1024,
  // Each may hold its whole answer in memory.
  inFlightMax: 4,
  restMs: 10_000,
};

export interface InfluxQueryStats {
  readonly queries: number;
  readonly cells: number;
  readonly failures: number;
  readonly cancelled: number;
  readonly inFlight: number;
  /** Why it is not asked just now. */
  readonly resting: string | undefined;
}

const messageCharsMax = 300;

export class InfluxQuery {
  readonly #target: QueryTarget;
  readonly #options: InfluxQueryOptions & typeof defaults;
  readonly #stop = new AbortController();
  #rest: { readonly untilMs: number; readonly error: GatewayError } | undefined;
  #inFlight = 0;
  #queries = 0;
  #cells = 0;
  #failures = 0;
  #cancelled = 0;

  private constructor(target: QueryTarget, options: InfluxQueryOptions) {
    this.#target = target;
    this.#options = { ...defaults, ...options };
  }

  static open(target: QueryTarget, options: InfluxQueryOptions): InfluxQuery {
    return new InfluxQuery(target, options);
  }

  get bucket(): string {
    return this.#target.bucket;
  }

  /** What is under way ends with `REMOTE_CANCELLED`. */
  close(): void {
    this.#stop.abort();
  }

  stats(): InfluxQueryStats {
    return {
      queries: this.#queries,
      cells: this.#cells,
      failures: this.#failures,
      cancelled: this.#cancelled,
      inFlight: this.#inFlight,
      resting: this.#isResting ? this.#rest?.error.message : undefined,
    };
  }

  /**
   * Takes every cell of the answer; where one series ends and the next begins does not show.
   * @throws GatewayError `REMOTE_UNREACHABLE`, `REMOTE_TIMEOUT`, `REMOTE_REFUSED` (the token may not read, there is no
   * such bucket, the server knows no Flux), `REMOTE_FAILED` (this question), `REMOTE_TOO_LARGE`, `REMOTE_BUSY`,
   * `REMOTE_CANCELLED`.
   */
  async ask(flux: string, take: (cell: Cell) => void, signal?: AbortSignal): Promise<void> {
    if (signal?.aborted || this.#stop.signal.aborted) throw cancelled();
    const outage = this.#options.outage?.();
    if (outage !== undefined) throw new GatewayError('REMOTE_UNREACHABLE', outage);
    if (this.#isResting && this.#rest !== undefined) throw this.#rest.error;
    if (this.#inFlight >= this.#options.inFlightMax) {
      throw new GatewayError('REMOTE_BUSY', `${this.#inFlight} questions to InfluxDB are under way`);
    }
    this.#inFlight += 1;
    this.#queries += 1;
    try {
      await this.#ask(flux, take, signal);
      this.#rest = undefined;
    } catch (error) {
      this.#noteFailure(error);
      throw error;
    } finally {
      this.#inFlight -= 1;
    }
  }

  get #isResting(): boolean {
    return this.#rest !== undefined && this.#options.monotonicMs() < this.#rest.untilMs;
  }

  #noteFailure(error: unknown): void {
    if (!(error instanceof GatewayError)) return;
    if (error.code === 'REMOTE_CANCELLED') {
      this.#cancelled += 1;
      return;
    }
    this.#failures += 1;
    // That one question was wrong or too large says nothing of the next.
    if (error.code === 'REMOTE_TOO_LARGE' || error.code === 'REMOTE_FAILED') return;
    this.#rest = { untilMs: this.#options.monotonicMs() + this.#options.restMs, error };
  }

  #ask(flux: string, take: (cell: Cell) => void, signal: AbortSignal | undefined): Promise<void> {
    const { cellsMax, charactersMax, timeoutMs } = this.#options;
    // The client's own ways to cancel leave the request running, or throw where nobody catches: a connection for each
    // question, and closing it ends it.
    const agent = this.#target.url.startsWith('https:') ? new HttpsAgent() : new HttpAgent();
    return new Promise((resolve, reject) => {
      let reason: GatewayError | undefined;
      const give = (error: GatewayError) => {
        reason ??= error;
        agent.destroy();
      };
      const onGone = () => give(cancelled());
      const timer = setTimeout(() => {
        give(new GatewayError('REMOTE_TIMEOUT', `no complete answer within ${timeoutMs} ms`));
      }, timeoutMs);
      for (const one of [signal, this.#stop.signal]) one?.addEventListener('abort', onGone);
      const end = (error?: GatewayError) => {
        clearTimeout(timer);
        agent.destroy();
        for (const one of [signal, this.#stop.signal]) one?.removeEventListener('abort', onGone);
        if (error === undefined) resolve();
        else reject(error);
      };
      let cells = 0;
      let characters = 0;
      try {
        this.#queryApi(agent).queryRows(flux, {
          next: (values: string[], meta: FluxTableMetaData) => {
            if (reason !== undefined) return;
            for (const value of values) characters += value.length;
            cells += 1;
            if (cells > cellsMax || characters > charactersMax) {
              give(new GatewayError('REMOTE_TOO_LARGE', `the answer has more than ${cellsMax} values`));
              return;
            }
            const found = this.#read(values, meta);
            if (found instanceof GatewayError) give(found);
            else if (found !== undefined) {
              this.#cells += 1;
              take(found);
            }
          },
          error: (error) => end(reason ?? this.#failure(error)),
          complete: () => end(reason),
        });
      } catch (error) {
        end(this.#failure(error));
      }
    });
  }

  #queryApi(agent: HttpAgent) {
    const { url, token, org } = this.#target;
    const client = new InfluxDB({
      url,
      timeout: this.#options.timeoutMs,
      transportOptions: { agent },
      ...(token === undefined ? {} : { token }),
    });
    return client.getQueryApi({ org, gzip: true });
  }

  /** A failure half-way comes as a table of its own. */
  #read(values: string[], meta: FluxTableMetaData): Cell | GatewayError | undefined {
    const text = (label: string): unknown => meta.get(values, label);
    const labels = new Set(meta.columns.map(({ label }) => label));
    if (labels.has('error') && !labels.has('_time')) {
      return new GatewayError('REMOTE_FAILED', this.#shown(String(text('error'))));
    }
    if (!labels.has('_time') || !labels.has('_value')) return undefined;
    const timeNs = parseTimestamp(text('_time'));
    const value = text('_value');
    const isNumber = typeof value === 'number' && Number.isFinite(value);
    if (timeNs === undefined) return undefined;
    if (!isNumber && typeof value !== 'boolean' && typeof value !== 'string') return undefined;
    return {
      result: String(text('result') ?? ''),
      measurement: String(text('_measurement') ?? ''),
      field: String(text('_field') ?? ''),
      timeNs,
      value,
    };
  }

  #failure(error: unknown): GatewayError {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof HttpError) {
      const { statusCode } = error;
      const words = this.#shown(`${statusCode}: ${message}`);
      if (statusCode >= 500 || statusCode === 429 || statusCode === 408) {
        return new GatewayError('REMOTE_UNREACHABLE', words);
      }
      return new GatewayError(statusCode === 400 ? 'REMOTE_FAILED' : 'REMOTE_REFUSED', words);
    }
    const code = errorCode(error);
    const words = this.#shown(code === undefined ? message : `${code}: ${message}`);
    return new GatewayError('REMOTE_UNREACHABLE', words);
  }

  #shown(text: string): string {
    const { token } = this.#target;
    const censored = token === undefined || token === '' ? text : text.replaceAll(token, '[secret]');
    return censored.replace(/\s+/g, ' ').trim().slice(0, messageCharsMax);
  }
}

function cancelled(): GatewayError {
  return new GatewayError('REMOTE_CANCELLED', 'whoever asked has gone');
}
