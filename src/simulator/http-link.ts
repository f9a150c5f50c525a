// A node's HTTP side, as firmware does it: one connection kept open, one request at a time, what waited meanwhile in
// one batch, commands asked for now and then. A busy gateway is asked again when its Retry-After says so, one that
// cannot be reached after waits that the caller picks. A reading sent twice is told by its boot and sequence number.

import { JsonClient, type JsonClientOptions, type Reply, refusalMessage } from './json-client.ts';
import type { CommandListener, Delivery, Link, LinkFigures, ReconnectWait } from './link.ts';
import type { Reading } from './readings.ts';

export interface HttpLinkOptions extends Pick<JsonClientOptions, 'url' | 'ca'> {
  readonly deviceId: string;
  readonly apiKey: string;
  /** Between two tries that the gateway set no time for. */
  readonly reconnectWaitMs: ReconnectWait;
  readonly onCommand: CommandListener;
  /** Between two looks for commands. Default 10 s. */
  readonly commandIntervalMs?: number;
}

interface Request {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  readonly body?: unknown;
}

type StampedReading = Reading & { readonly extra: Readonly<Record<string, number>> };

interface Waiting {
  /** A reading shares its request with others that wait. */
  readonly what: StampedReading | Request;
  readonly settle: (delivery: Delivery, reply: Reply) => void;
}

const batchPointsMax = 100;
const acknowledged: Delivery = { kind: 'acknowledged' };
const defaults = { commandIntervalMs: 10_000 };

export class HttpLink implements Link {
  readonly #options: HttpLinkOptions;
  readonly #client: JsonClient;
  readonly #queue: Waiting[] = [];
  readonly #commandTimer: NodeJS.Timeout;
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
    const { url, ca, apiKey, commandIntervalMs = defaults.commandIntervalMs } = options;
    this.#options = options;
    this.#client = new JsonClient({ url, headers: { 'x-api-key': apiKey }, ...(ca && { ca }) });
    this.#commandTimer = setInterval(() => this.#askForCommands(), commandIntervalMs);
  }

  static open(options: HttpLinkOptions): HttpLink {
    return new HttpLink(options);
  }

  sendReading(reading: Reading, extra: Readonly<Record<string, number>>): Promise<Delivery> {
    return new Promise((resolve) => this.#enqueue({ ...reading, extra }, resolve));
  }

  sendHeartbeat(): Promise<Delivery> {
    const request = { method: 'POST', path: '/api/v1/devices/heartbeat' } as const;
    return new Promise((resolve) => this.#enqueue(request, resolve));
  }

  #askForCommands(): void {
    // One look is enough, also after an hour without a network.
    if (this.#queue.some(({ what }) => 'method' in what && what.method === 'GET')) return;
    const path = `/api/v1/devices/${this.#options.deviceId}/commands`;
    this.#enqueue({ method: 'GET', path }, (_delivery, { body }) => {
      for (const given of Array.isArray(body.commands) ? body.commands : []) this.#carryOut(path, given);
    });
  }

  #carryOut(path: string, given: { command_id?: unknown; kind?: unknown; payload?: unknown }): void {
    const payload = { ...(given.payload as Readonly<Record<string, unknown>> | undefined) };
    const answer = this.#options.onCommand({ kind: String(given.kind), payload });
    const request = { method: 'POST', path: `${path}/${given.command_id}/ack`, body: answer } as const;
    this.#enqueue(request, () => undefined);
  }

  #enqueue(what: Waiting['what'], settle: Waiting['settle']): void {
    this.#queue.push({ what, settle });
    if (!this.#isWorking) void this.#work();
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

  /** A request alone, or readings up to the next one. */
  #next(): readonly Waiting[] {
    const requestAt = this.#queue.findIndex(({ what }) => 'method' in what);
    const readings = requestAt < 0 ? this.#queue.length : requestAt;
    return this.#queue.slice(0, Math.max(1, Math.min(batchPointsMax, readings)));
  }

  /** Settles them all, or answers how long to wait before they are sent again. */
  async #hand(taken: readonly Waiting[]): Promise<number | undefined> {
    const { method, path, body: sent } = requestOf(taken);
    let reply: Reply;
    try {
      reply = await this.#client.ask(method, path, sent);
    } catch (error) {
      return this.#failed(error instanceof Error ? error.message : String(error));
    }
    this.#hasAnswered = true;
    const { status, retryAfterMs, body } = reply;
    const reason = `${status} ${refusalMessage(body) ?? ''}`.trim();
    // A key that is not taken may be approved yet; everything else of this kind would be refused again.
    const isFinal = status < 500 && status !== 401 && status !== 408 && status !== 429;
    if (!isFinal) return this.#failed(reason, retryAfterMs);
    this.#failures = 0;
    this.#lastError = undefined;
    const refusals = refusalsOf(body);
    for (const [index, { settle }] of taken.entries()) {
      const refusal = refusals.get(index) ?? (status >= 400 ? reason : undefined);
      settle(refusal === undefined ? acknowledged : { kind: 'refused', reason: refusal }, reply);
    }
    return undefined;
  }

  #failed(reason: string, retryAfterMs?: number): number {
    this.#failures += 1;
    this.#lastError = reason;
    return retryAfterMs ?? this.#options.reconnectWaitMs(this.#failures);
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
    if (!isReachable) this.#client.cut();
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
    clearInterval(this.#commandTimer);
    this.#wake?.();
    this.#client.cut();
  }
}

function requestOf(taken: readonly Waiting[]): Request {
  const readings: StampedReading[] = [];
  for (const { what } of taken) {
    if ('method' in what) return what;
    readings.push(what);
  }
  const [only] = readings;
  if (only !== undefined && readings.length === 1) {
    const body = { type: only.measurement, data: only.fields, ...only.extra };
    return { method: 'POST', path: '/api/v1/devices/telemetry', body };
  }
  const points = readings.map(({ measurement, fields, extra }) => ({ measurement, fields, ...extra }));
  return { method: 'POST', path: '/api/v1/influxdb/telemetry/batch', body: { points } };
}

/** Of a batch: the reason by the place in it. */
function refusalsOf({ refused }: Reply['body']): ReadonlyMap<unknown, string> {
  if (!Array.isArray(refused)) return new Map();
  return new Map(
    refused.map((one: { readonly index?: unknown }) => [one.index, refusalMessage(one) ?? 'no reason given']),
  );
}
