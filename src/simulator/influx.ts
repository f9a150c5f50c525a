// A strict InfluxDB on loopback, for the demo and for answers a real one gives rarely. Promises: parses every line,
// keeps the type of every field as the engine would, answers in the words of the version asked for, and can be
// scripted to fail in every way a network fails. Does not promise queries, retention or anything across a restart.

import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import { promisify } from 'node:util';
import { gunzip as gunzipCallback } from 'node:zlib';
import { takeApart } from '../model/line-parts.ts';
import {
  encodeSeries,
  LineProtocolError,
  type ParsedLine,
  parseLine,
  splitLines,
} from '../model/line-protocol.ts';
import type { FieldValue } from '../model/point.ts';
import { type ServerType, typeOfValue } from '../model/server-type.ts';

const gunzip = promisify(gunzipCallback);

/**
 * How refusals are told. `v1`: 400, good rows kept, unparsable lines quoted. `v2`: 422 for conflicts with good rows
 * kept, 400 for unparsable lines with nothing kept. `v3`: 400 with line numbers, good rows kept. `opaque`: 400,
 * nothing kept, no hint at all.
 */
export type FakeInfluxDialect = 'v1' | 'v2' | 'v3' | 'opaque';

export interface FakeInfluxOptions {
  /** 0 picks a free one. */
  readonly port?: number;
  /** Undefined: everybody may write. */
  readonly token?: string;
  readonly org?: string;
  readonly bucket?: string;
  readonly dialect?: FakeInfluxDialect;
  /** Larger bodies, unpacked, get 413. */
  readonly maxBodyBytes?: number;
  /** `counts` keeps no points, so memory stays flat however much is written. */
  readonly keep?: 'points' | 'counts';
  /** Fields that exist beforehand: `measurement field` → type. */
  readonly types?: Readonly<Record<string, ServerType>>;
  /** Refuses lines that are fine otherwise, with this reason. */
  readonly refuse?: (line: string) => string | undefined;
  /** Added to every answer, milliseconds. */
  readonly delayMs?: number;
  /** Answers what else is asked of it, by path. */
  readonly routes?: ReadonlyMap<
    string,
    (request: IncomingMessage, response: ServerResponse) => Promise<void>
  >;
}

/** What a write is answered with, instead of being taken. */
export type FakeAnswer =
  /** An answer as given; nothing is stored. */
  | {
      readonly status: number;
      readonly headers?: Readonly<Record<string, string>>;
      readonly body?: string;
    }
  /** The connection is reset before anything is stored. */
  | 'reset'
  /** Stored, then the connection breaks within the answer. */
  | 'half-answer'
  /** Stored, but no answer ever comes. */
  | 'hang'
  /** Like any other write. */
  | 'take';

export interface FakePoint {
  readonly series: string;
  readonly timeNs: bigint;
  readonly fields: Map<string, FieldValue>;
  /** How often it was written. */
  times: number;
}

export interface FakeWrite {
  readonly status: number;
  readonly lines: number;
  readonly bytes: number;
  readonly isGzip: boolean;
}

const defaults = {
  port: 0,
  org: 'home',
  bucket: 'water',
  dialect: 'v2' as FakeInfluxDialect,
  maxBodyBytes: 25_000_000,
  keep: 'points' as 'points' | 'counts',
  delayMs: 0,
};

// The log of requests keeps the newest; tests look at a few, the demo at none.
const writesMax = 10_000;
const precisionNs: Readonly<Record<string, bigint>> = {
  ns: 1n,
  us: 1_000n,
  ms: 1_000_000n,
  s: 1_000_000_000n,
};

interface Fault {
  readonly line: string;
  /** From 1. */
  readonly number: number;
  readonly reason: string;
  readonly kind: 'unparsable' | 'conflict';
}

export class FakeInflux {
  readonly #server: Server;
  readonly #options: FakeInfluxOptions & typeof defaults;
  readonly #sockets = new Set<Socket>();
  readonly #points = new Map<string, FakePoint>();
  readonly #types = new Map<string, string>();
  readonly #writes: FakeWrite[] = [];
  #script: FakeAnswer[] = [];
  #isOut = false;
  #requests = 0;
  #storedLines = 0;

  private constructor(server: Server, options: FakeInfluxOptions & typeof defaults) {
    this.#server = server;
    this.#options = options;
    for (const [name, type] of Object.entries(options.types ?? {})) this.setType(name, type);
  }

  /** The field exists, `measurement field`; undefined: as if it had never been written. */
  setType(name: string, type: ServerType | undefined): void {
    const key = name.replace(' ', '\0');
    if (type === undefined) this.#types.delete(key);
    else this.#types.set(key, type);
  }

  static async start(options: FakeInfluxOptions = {}): Promise<FakeInflux> {
    const server = createServer();
    const fake = new FakeInflux(server, { ...defaults, ...options });
    server.on('connection', (socket) => fake.#onConnection(socket));
    server.on('request', (request, response) => {
      fake.#answer(request, response).catch(() => request.socket.destroy());
    });
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(fake.#options.port, '127.0.0.1', resolve);
    });
    return fake;
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#cutAll();
    await closed;
  }

  get url(): string {
    const address = this.#server.address();
    const port = typeof address === 'object' && address !== null ? address.port : 0;
    return `http://127.0.0.1:${port}`;
  }

  /** The next writes are answered with these, in this order; afterwards as usual. */
  script(answers: readonly FakeAnswer[]): void {
    this.#script = [...answers];
  }

  /** While true every connection is reset: the internet is gone. */
  outage(isOut: boolean): void {
    this.#isOut = isOut;
    if (isOut) this.#cutAll();
  }

  /** Takes points out of what is stored; answers how many. */
  remove(isGone: (point: FakePoint) => boolean): number {
    const before = this.#points.size;
    for (const [key, point] of this.#points) if (isGone(point)) this.#points.delete(key);
    return before - this.#points.size;
  }

  /** Everything stored, by identity: series and timestamp. */
  points(): Iterable<FakePoint> {
    return this.#points.values();
  }

  /** Different points stored; 0 when only counting. */
  get count(): number {
    return this.#points.size;
  }

  /** Lines stored, repetitions included. */
  get storedLines(): number {
    return this.#storedLines;
  }

  /** The newest write requests, oldest first. */
  get writes(): readonly FakeWrite[] {
    return this.#writes;
  }

  /** All write requests that arrived, also those cut off. */
  get requests(): number {
    return this.#requests;
  }

  #onConnection(socket: Socket): void {
    if (this.#isOut) {
      socket.resetAndDestroy();
      return;
    }
    this.#sockets.add(socket);
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('error', () => socket.destroy());
  }

  #cutAll(): void {
    for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(request.url ?? '/', 'http://localhost');
    if (url.pathname === '/ping') return void response.writeHead(204).end();
    if (url.pathname === '/health') {
      const health = { name: 'influxdb', message: 'ready for queries and writes', status: 'pass' };
      return reply(response, 200, health);
    }
    const further = this.#options.routes?.get(url.pathname);
    if (further !== undefined) return await further(request, response);
    if (url.pathname !== '/api/v2/write' || request.method !== 'POST') {
      return reply(response, 404, { code: 'not found', message: 'path not found' });
    }
    this.#requests += 1;
    const sent = await readBody(request);
    if (this.#options.delayMs > 0) await new Promise((resolve) => setTimeout(resolve, this.#options.delayMs));
    const scripted = this.#script.shift();
    if (scripted === 'reset') return void request.socket.resetAndDestroy();
    if (typeof scripted === 'object') {
      this.#note(scripted.status, 0, sent.length, isGzip(request));
      response.writeHead(scripted.status, scripted.headers ?? {}).end(scripted.body ?? '');
      return;
    }
    const answer = await this.#take(request, url, sent);
    if (scripted === 'hang') return;
    if (scripted === 'half-answer') {
      request.socket.write(
        'HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{"me',
      );
      setTimeout(() => request.socket.resetAndDestroy(), 20);
      return;
    }
    if (answer.status === 204) return void response.writeHead(204).end();
    reply(response, answer.status, answer.body);
  }

  async #take(request: IncomingMessage, url: URL, sent: Buffer): Promise<{ status: number; body: unknown }> {
    const refusal = this.#checkRequest(request, url);
    const body = refusal === undefined ? await unpack(request, sent) : undefined;
    const answer = refusal ?? this.#takeBody(body, precisionNs[url.searchParams.get('precision') ?? 'ns']);
    this.#note(answer.status, answer.lines ?? 0, sent.length, isGzip(request));
    return answer;
  }

  #checkRequest(
    request: IncomingMessage,
    url: URL,
  ): { status: number; body: unknown; lines?: number } | undefined {
    const { token, org, bucket } = this.#options;
    if (token !== undefined && request.headers.authorization !== `Token ${token}`) {
      return { status: 401, body: { code: 'unauthorized', message: 'unauthorized access' } };
    }
    if (url.searchParams.get('org') !== org) {
      return { status: 404, body: { code: 'not found', message: 'organization name not found' } };
    }
    if (url.searchParams.get('bucket') !== bucket) {
      return { status: 404, body: { code: 'not found', message: 'bucket not found' } };
    }
    return undefined;
  }

  #takeBody(
    body: Buffer | undefined,
    unitNs: bigint | undefined,
  ): { status: number; body: unknown; lines?: number } {
    if (body === undefined)
      return { status: 400, body: { code: 'invalid', message: 'gzip: invalid header' } };
    if (unitNs === undefined) return { status: 400, body: { code: 'invalid', message: 'invalid precision' } };
    if (body.length > this.#options.maxBodyBytes) {
      return { status: 413, body: { code: 'request too large', message: 'points batch is too large' } };
    }
    const lines = splitLines(body.toString('utf8'));
    const good: [line: string, parsed: ParsedLine][] = [];
    const faults: Fault[] = [];
    // Types a batch brings along count within it, but stay only if its points are stored.
    const newTypes = new Map<string, string>();
    for (const [index, line] of lines.entries()) {
      // A comment.
      if (line.startsWith('#')) continue;
      const fault = this.#examine(line, index + 1, newTypes);
      if ('kind' in fault) faults.push(fault);
      else good.push([line, fault]);
    }
    const answer = refusalOf(faults, this.#options.dialect);
    if (!answer.keepsGood) return { ...answer, lines: lines.length };
    for (const [key, type] of newTypes) this.#types.set(key, type);
    for (const [, parsed] of good) this.#store(parsed, unitNs);
    return { ...answer, lines: lines.length };
  }

  #examine(line: string, number: number, newTypes: Map<string, string>): ParsedLine | Fault {
    const reason = this.#options.refuse?.(line);
    if (reason !== undefined) return { line, number, reason, kind: 'unparsable' };
    let parsed: ParsedLine;
    try {
      parsed = parseLine(line);
    } catch (error) {
      if (!(error instanceof LineProtocolError)) throw error;
      return { line, number, reason: error.message, kind: 'unparsable' };
    }
    const types: [key: string, type: string][] = [];
    // The engine tells integers from floats; our parser does not, so the line itself is asked.
    for (const { name: field, value } of takeApart(line)?.fields ?? []) {
      const key = `${parsed.measurement}\0${field}`;
      const type = typeOfValue(value) ?? 'float';
      const known = this.#types.get(key) ?? newTypes.get(key) ?? type;
      if (known !== type) {
        const words =
          this.#options.dialect === 'v3'
            ? `invalid column type for column '${field}', expected iox::column_type::field::${known}, got iox::column_type::field::${type}`
            : `input field "${field}" on measurement "${parsed.measurement}" is type ${type}, already exists as type ${known}`;
        return { line, number, reason: words, kind: 'conflict' };
      }
      types.push([key, type]);
    }
    for (const [key, type] of types) newTypes.set(key, type);
    return parsed;
  }

  #store(parsed: ParsedLine, unitNs: bigint): void {
    this.#storedLines += 1;
    if (this.#options.keep === 'counts') return;
    const series = encodeSeries(parsed.measurement, parsed.tags);
    const timeNs =
      (parsed.time ?? BigInt(Date.now()) * 1_000_000n) * (parsed.time === undefined ? 1n : unitNs);
    const key = `${series} ${timeNs}`;
    const known = this.#points.get(key);
    if (known === undefined) {
      this.#points.set(key, { series, timeNs, fields: parsed.fields, times: 1 });
      return;
    }
    known.times += 1;
    for (const [field, value] of parsed.fields) known.fields.set(field, value);
  }

  #note(status: number, lines: number, bytes: number, gzipped: boolean): void {
    this.#writes.push({ status, lines, bytes, isGzip: gzipped });
    if (this.#writes.length > writesMax) this.#writes.shift();
  }
}

/** The words and status of each version; 204 when there is no fault. */
function refusalOf(
  faults: readonly Fault[],
  dialect: FakeInfluxDialect,
): { status: number; body: unknown; keepsGood: boolean } {
  if (faults.length === 0) return { status: 204, body: undefined, keepsGood: true };
  if (dialect === 'opaque')
    return { status: 400, body: { code: 'invalid', message: 'write failed' }, keepsGood: false };
  if (dialect === 'v3') {
    const list = faults.map(({ line, number, reason }) => ({
      original_line: line.slice(0, 40),
      line_number: number,
      error_message: reason,
    }));
    return {
      status: 400,
      body: { error: 'partial write of line protocol occurred', data: list },
      keepsGood: true,
    };
  }
  const unparsable = faults.filter((fault) => fault.kind === 'unparsable');
  const conflict = faults.find((fault) => fault.kind === 'conflict');
  const parseWords = unparsable.map(({ line, reason }) => `unable to parse '${line}': ${reason}`).join('\n');
  const conflicts = faults.length - unparsable.length;
  const conflictWords = `partial write: field type conflict: ${conflict?.reason} dropped=${conflicts}`;
  if (dialect === 'v1') {
    const words = unparsable.length > 0 ? `partial write: ${parseWords} dropped=0` : conflictWords;
    return { status: 400, body: { error: words }, keepsGood: true };
  }
  if (unparsable.length > 0) {
    return { status: 400, body: { code: 'invalid', message: parseWords }, keepsGood: false };
  }
  const message = `failure writing points to database: ${conflictWords}`;
  return { status: 422, body: { code: 'unprocessable entity', message }, keepsGood: true };
}

function isGzip(request: IncomingMessage): boolean {
  return request.headers['content-encoding'] === 'gzip';
}

async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

async function unpack(request: IncomingMessage, sent: Buffer): Promise<Buffer | undefined> {
  if (!isGzip(request)) return sent;
  try {
    return await gunzip(sent);
  } catch {
    return undefined;
  }
}

function reply(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' }).end(JSON.stringify(body));
}
