// The internet between the gateway and its database, in bad weather. Stands where InfluxDB's write API is expected
// and passes what it is sent on to a real database, unless the weather forbids. Promises: what it answered 204 to
// was taken by the database; in `half-answer` the database has it and the gateway cannot know. Refuses points of
// the measurement `poison` in InfluxDB's own words, because the database behind it refuses nothing.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';

export const weathers = [
  'clear',
  'slow',
  'refused',
  'reset',
  'hang',
  'half-answer',
  'throttled',
  'unavailable',
  'failing',
  'captive-portal',
] as const;

export type Weather = (typeof weathers)[number];

const slowMs = 700;

export class Uplink {
  readonly #target: string;
  readonly #server: Server;
  #port = 0;
  #weather: Weather = 'clear';
  /** Requests by the weather they met. */
  readonly requests = new Map<Weather, number>();
  poisonRefused = 0;

  private constructor(target: string) {
    this.#target = target;
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => response.destroy());
    });
    // What the gateway sends must not end with a time limit of ours.
    this.#server.requestTimeout = 0;
  }

  /** @param target of the database, `http://host:port` */
  static async start(target: string): Promise<Uplink> {
    const uplink = new Uplink(target);
    await uplink.#listen();
    return uplink;
  }

  get url(): string {
    return `http://127.0.0.1:${this.#port}`;
  }

  get weather(): Weather {
    return this.#weather;
  }

  async change(weather: Weather): Promise<void> {
    const before = this.#weather;
    this.#weather = weather;
    if (weather === 'refused' && before !== 'refused') {
      this.#server.closeAllConnections();
      await new Promise((resolve) => this.#server.close(resolve));
    }
    if (weather !== 'refused' && before === 'refused') await this.#listen();
    // Whoever hangs from the weather before finds out now.
    if (before === 'hang') this.#server.closeAllConnections();
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    if (this.#server.listening) await new Promise((resolve) => this.#server.close(resolve));
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#port, '127.0.0.1', () => {
        this.#port = (this.#server.address() as AddressInfo).port;
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const weather = this.#weather;
    this.requests.set(weather, (this.requests.get(weather) ?? 0) + 1);
    switch (weather) {
      case 'reset':
      case 'refused':
        request.socket.resetAndDestroy();
        return;
      case 'hang':
        return;
      case 'throttled':
        response.writeHead(429, { 'retry-after': '2', 'content-type': 'application/json' });
        response.end('{"code":"too many requests","message":"write limit reached"}');
        return;
      case 'unavailable':
        response.writeHead(503, { 'retry-after': '1' }).end();
        return;
      case 'failing':
        response.writeHead(500, { 'content-type': 'application/json' });
        response.end('{"code":"internal error","message":"engine: shard is closed"}');
        return;
      case 'captive-portal':
        response.writeHead(200, { 'content-type': 'text/html' }).end('<html>Please log in</html>');
        return;
      case 'slow':
        await sleep(slowMs);
        await this.#pass(request, response, false);
        return;
      case 'half-answer':
        await this.#pass(request, response, true);
        return;
      case 'clear':
        await this.#pass(request, response, false);
    }
  }

  async #pass(request: IncomingMessage, response: ServerResponse, isCutShort: boolean): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const sent = Buffer.concat(chunks);
    const isWrite = request.method === 'POST' && (request.url ?? '').startsWith('/api/v2/write');
    const isGzip = request.headers['content-encoding'] === 'gzip';
    const body = isWrite && isGzip ? gunzipSync(sent) : sent;
    const { kept, refused } = isWrite ? sieve(body) : { kept: body, refused: 0 };
    const answer = await fetch(`${this.#target}${request.url}`, {
      method: request.method ?? 'GET',
      ...(request.method === 'POST' ? { body: new Uint8Array(kept) } : {}),
    });
    const text = await answer.text();
    if (isCutShort) {
      request.socket.resetAndDestroy();
      return;
    }
    if (answer.status === 204 && refused > 0) {
      this.poisonRefused += refused;
      response.writeHead(422, { 'content-type': 'application/json' });
      response.end(
        JSON.stringify({
          code: 'unprocessable entity',
          message:
            'failure writing points to database: partial write: field type conflict: input field "n" on ' +
            `measurement "poison" is type float, already exists as type boolean dropped=${refused}`,
        }),
      );
      return;
    }
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'text/plain' });
    response.end(text);
  }
}

/** The lines without those that are poison. */
function sieve(body: Buffer): { kept: Buffer; refused: number } {
  if (!body.includes('poison,')) return { kept: body, refused: 0 };
  const lines = body.toString().split('\n');
  const good = lines.filter((line) => !line.startsWith('poison,'));
  return { kept: Buffer.from(good.join('\n')), refused: lines.length - good.length };
}
