// A node's HTTP side, as firmware does it: one connection kept open, one request at a time, what waited meanwhile in
// one batch. A busy gateway is asked again when its Retry-After says so, one that cannot be reached after waits that
// the caller picks. A reading sent twice is told by its boot and sequence number.

import { type ClientRequest, request as httpRequest, Agent as PlainAgent } from 'node:http';
import { request as httpsRequest, Agent as TlsAgent } from 'node:https';
import type { Delivery, Link, LinkFigures, ReconnectWait } from './link.ts';
import type { Reading } from './readings.ts';

export interface HttpLinkOptions {
  /** `http://` or `https://` address of a gateway. */
  readonly url: string;
  readonly apiKey: string;
  /** PEM of the CA to trust, for `https://`. */
  readonly ca?: Buffer;
  /** Between two tries that the gateway set no time for. */
  readonly reconnectWaitMs: ReconnectWait;
}

interface Waiting {
  /** Undefined: a heartbeat. */
  readonly reading?: Reading & { readonly extra: Readonly<Record<string, number>> };
  readonly settle: (delivery: Delivery) => void;
}

interface Reply {
  readonly status: number;
  readonly retryAfterMs: number | undefined;
  readonly body: Readonly<Record<string, unknown>>;
}

const requestTimeoutMs = 10_000;
const batchPointsMax = 100;
const acknowledged: Delivery = { kind: 'acknowledged' };

export class HttpLink implements Link {
  readonly #options: HttpLinkOptions;
  readonly #agent: PlainAgent;
  readonly #queue: Waiting[] = [];
  /** Cuts a wait short. */
  #wake: (() => void) | undefined;
  #isWorking = false;
  #isReachable = true;
  #isClosing = false;
  #hasAnswered = false;
  #failures = 0;
  #repeated = 0;
  #lastError: string | undefined;

  private constructor(options: HttpLinkOptions) {
    this.#options = options;
    const settings = { keepAlive: true, maxSockets: 1 };
    this.#agent = isSecure(options.url)
      ? new TlsAgent({ ...settings, ...(options.ca === undefined ? {} : { ca: options.ca }) })
      : new PlainAgent(settings);
  }

  static open(options: HttpLinkOptions): HttpLink {
    return new HttpLink(options);
  }

  sendReading(reading: Reading, extra: Readonly<Record<string, number>>): Promise<Delivery> {
    return this.#enqueue({ reading: { ...reading, extra } });
  }

  sendHeartbeat(): Promise<Delivery> {
    return this.#enqueue({});
  }

  #enqueue(what: Omit<Waiting, 'settle'>): Promise<Delivery> {
    return new Promise((settle) => {
      this.#queue.push({ ...what, settle });
      if (!this.#isWorking) void this.#work();
    });
  }

  async #work(): Promise<void> {
    this.#isWorking = true;
    while (this.#queue.length > 0 && !this.#isClosing) {
      if (!this.#isReachable) {
        await this.#pause();
        continue;
      }
      const taken = this.#next();
      const waitMs = await this.#hand(taken);
      if (waitMs === undefined) this.#queue.splice(0, taken.length);
      else if (!this.#isClosing) {
        this.#repeated += 1;
        await this.#pause(waitMs);
      }
    }
    this.#isWorking = false;
  }

  /** A heartbeat alone, or readings up to the next one. */
  #next(): readonly Waiting[] {
    const heartbeatAt = this.#queue.findIndex(({ reading }) => reading === undefined);
    const readings = heartbeatAt < 0 ? this.#queue.length : heartbeatAt;
    return this.#queue.slice(0, Math.max(1, Math.min(batchPointsMax, readings)));
  }

  /** Settles them all, or answers how long to wait before they are sent again. */
  async #hand(taken: readonly Waiting[]): Promise<number | undefined> {
    let reply: Reply;
    try {
      reply = await this.#post(...requestOf(taken));
    } catch (error) {
      return this.#failed(error instanceof Error ? error.message : String(error));
    }
    this.#hasAnswered = true;
    const { status, retryAfterMs, body } = reply;
    // A key that is not taken may be approved yet; everything else of this kind would be refused again.
    const isFinal = status < 500 && status !== 401 && status !== 408 && status !== 429;
    if (!isFinal) return this.#failed(reasonOf(status, body), retryAfterMs);
    this.#failures = 0;
    this.#lastError = undefined;
    const refusals = refusalsOf(body);
    const reason = reasonOf(status, body);
    for (const [index, { settle }] of taken.entries()) {
      const refusal = refusals.get(index) ?? (status >= 400 ? reason : undefined);
      settle(refusal === undefined ? acknowledged : { kind: 'refused', reason: refusal });
    }
    return undefined;
  }

  #failed(reason: string, retryAfterMs?: number): number {
    this.#failures += 1;
    this.#lastError = reason;
    return retryAfterMs ?? this.#options.reconnectWaitMs(this.#failures);
  }

  #post(path: string, body: unknown): Promise<Reply> {
    const { url, apiKey } = this.#options;
    const bytes = Buffer.from(JSON.stringify(body));
    const headers = {
      'content-type': 'application/json',
      'content-length': bytes.length,
      'x-api-key': apiKey,
    };
    const settings = { method: 'POST', agent: this.#agent, headers, timeout: requestTimeoutMs };
    const send = isSecure(url) ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const request: ClientRequest = send(new URL(path, url), settings, (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.on('error', reject);
        response.on('end', () => {
          const afterS = Number(response.headers['retry-after']);
          resolve({
            status: response.statusCode ?? 0,
            retryAfterMs: afterS > 0 ? afterS * 1000 : undefined,
            body: parseObject(Buffer.concat(chunks).toString()),
          });
        });
      });
      request.on('timeout', () => request.destroy(new Error('no answer in time')));
      request.on('error', reject);
      request.end(bytes);
    });
  }

  /** Without a time: until it is in reach again, or closes. */
  async #pause(ms?: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (ms !== undefined) timer = setTimeout(resolve, ms);
    });
    clearTimeout(timer);
    this.#wake = undefined;
  }

  setReach(isReachable: boolean): void {
    if (isReachable === this.#isReachable) return;
    this.#isReachable = isReachable;
    // A request under way ends with an error and is made again.
    if (!isReachable) this.#agent.destroy();
    else this.#wake?.();
  }

  figures(): LinkFigures {
    return {
      isConnected: this.#isReachable && this.#hasAnswered && this.#failures === 0,
      reconnects: this.#repeated,
      lastError: this.#lastError,
    };
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    this.#wake?.();
    this.#agent.destroy();
  }
}

function isSecure(url: string): boolean {
  return url.startsWith('https:');
}

function requestOf(taken: readonly Waiting[]): [path: string, body: unknown] {
  const readings = taken.flatMap(({ reading }) => (reading === undefined ? [] : [reading]));
  const [only] = readings;
  if (only === undefined) return ['/api/v1/devices/heartbeat', {}];
  if (readings.length === 1) {
    return ['/api/v1/devices/telemetry', { type: only.measurement, data: only.fields, ...only.extra }];
  }
  const points = readings.map(({ measurement, fields, extra }) => ({ measurement, fields, ...extra }));
  return ['/api/v1/influxdb/telemetry/batch', { points }];
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

function messageIn(holder: unknown): string | undefined {
  const { error } = (holder ?? {}) as { error?: { message?: unknown } };
  return typeof error?.message === 'string' ? error.message : undefined;
}

function reasonOf(status: number, body: Reply['body']): string {
  return `${status} ${messageIn(body) ?? ''}`.trim();
}

/** Of a batch: the reason by the place in it. */
function refusalsOf({ refused }: Reply['body']): ReadonlyMap<unknown, string> {
  if (!Array.isArray(refused)) return new Map();
  return new Map(
    refused.map((one: { readonly index?: unknown }) => [one.index, messageIn(one) ?? 'no reason given']),
  );
}
