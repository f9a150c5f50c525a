// One HTTP connection kept open, JSON both ways: a node's, or a fleet's that registers. Whatever the status, there is
// an answer; no answer in time is an error.

import { request as httpRequest, Agent as PlainAgent } from 'node:http';
import { request as httpsRequest, Agent as TlsAgent } from 'node:https';

export interface JsonClientOptions {
  /** `http://` or `https://` address. */
  readonly url: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** PEM of the CA to trust, for `https://`. */
  readonly ca?: Buffer;
}

export interface Reply {
  readonly status: number;
  /** Of the header Retry-After. */
  readonly retryAfterMs: number | undefined;
  /** Empty for what is no JSON object. */
  readonly body: Readonly<Record<string, unknown>>;
}

const timeoutMs = 10_000;

export class JsonClient {
  readonly #options: JsonClientOptions;
  readonly #agent: PlainAgent;

  constructor(options: JsonClientOptions) {
    this.#options = options;
    const settings = { keepAlive: true, maxSockets: 1 };
    this.#agent = this.#isSecure
      ? new TlsAgent({ ...settings, ...(options.ca === undefined ? {} : { ca: options.ca }) })
      : new PlainAgent(settings);
  }

  get #isSecure(): boolean {
    return this.#options.url.startsWith('https:');
  }

  /** @throws Error when there is no answer */
  ask(method: 'GET' | 'POST', path: string, body?: unknown): Promise<Reply> {
    const bytes = body === undefined ? undefined : Buffer.from(JSON.stringify(body));
    const headers = {
      ...this.#options.headers,
      ...(bytes && { 'content-type': 'application/json', 'content-length': bytes.length }),
    };
    const send = this.#isSecure ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const settings = { method, agent: this.#agent, headers, timeout: timeoutMs };
      const request = send(new URL(path, this.#options.url), settings, (response) => {
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

  /** A request under way ends with an error; the next one connects again. */
  cut(): void {
    this.#agent.destroy();
  }
}

function parseObject(text: string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? { ...value } : {};
  } catch {
    return {};
  }
}

/** What the gateway says of a refusal; also of one in a list of them. */
export function refusalMessage(holder: unknown): string | undefined {
  const { error } = (holder ?? {}) as { error?: { message?: unknown } };
  return typeof error?.message === 'string' ? error.message : undefined;
}
