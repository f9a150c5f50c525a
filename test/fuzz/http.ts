// Connections of HTTP on which hardly a request is as it should be. First come requests that are framed well, several
// in one write, with bodies, headers, paths and parameters nobody expects: each must be answered. Often one follows
// that no parser can be at ease with. Which requests there are is asked of the gateway's own description of its routes.

import { connect } from 'node:net';
import { type Dice, oddJson } from './odd-json.ts';

export interface Target {
  readonly method: string;
  readonly path: string;
  readonly queries: readonly string[];
  readonly body: unknown;
}

interface Described {
  readonly type?: string;
  readonly examples?: readonly unknown[];
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Described>>;
  readonly items?: Described;
}

interface Operation {
  readonly parameters?: readonly { readonly name: string; readonly in: string }[];
  readonly requestBody?: { readonly content: Readonly<Record<string, { readonly schema: Described }>> };
}

/** What the schema gives as examples, or something of its form. */
function examplesOf({ type, examples, enum: choice, properties, items }: Described): readonly unknown[] {
  if (examples !== undefined) return examples;
  if (choice !== undefined) return choice;
  if (properties !== undefined) {
    const entries = Object.entries(properties).map(([name, form]) => [name, examplesOf(form)[0]]);
    return [Object.fromEntries(entries)];
  }
  if (items !== undefined) return [examplesOf(items)];
  if (type === 'string') return ['some text of length'];
  return [type === 'boolean' ? true : 1];
}

/** Left out: with its key ended whoever sends it would be a stranger from then on; and an answer that has no end. */
const leftOut = /\/(rotate-key|events)$/;

/** Every operation of an OpenAPI document, with an example of its body. */
export function targetsOf(document: unknown): Target[] {
  const { paths } = document as { paths: Readonly<Record<string, Readonly<Record<string, Operation>>>> };
  const kept = Object.entries(paths).filter(([path]) => !leftOut.test(path));
  return kept.flatMap(([path, operations]) =>
    Object.entries(operations).flatMap(([method, { parameters = [], requestBody }]) => {
      const queries = parameters.flatMap((parameter) => (parameter.in === 'query' ? [parameter.name] : []));
      const form = Object.values(requestBody?.content ?? {})[0]?.schema;
      const examples = form === undefined ? [{ a: 1 }] : examplesOf(form);
      return examples.map((body) => ({ method: method.toUpperCase(), path, queries, body }));
    }),
  );
}

const names = [
  'victim-1',
  '1',
  '0',
  '-1',
  '99999999999999999999',
  '..%2f..',
  '%00',
  '%zz',
  '%c0%af',
  '%ed%a0%80',
  '',
  '*',
  '__proto__',
  'constructor',
  'wet%2Fvictim-1',
  '%F0%9F%92%A7',
  'x'.repeat(300),
  ';a=b',
  'a%20b',
] as const;

const values = [
  ...names,
  '-1h',
  'now()',
  '1e400',
  '2024-02-30T00:00:00Z',
  'mean,mean,mean',
  'temperature',
  '366d',
  '1ns',
  'true',
  '10000000',
  '&&=',
] as const;

const headers = [
  'content-type: text/plain',
  'content-type: application/json; charset=utf-16',
  'content-type: multipart/form-data; boundary=x',
  'content-type:',
  'content-encoding: gzip',
  'content-encoding: br, identity',
  'cookie: session=; session=x; =; a',
  `cookie: iotflow_session=${'A'.repeat(43)}`,
  `cookie: __Host-iotflow_session=${'%00'.repeat(100)}`,
  'origin: null',
  'origin: http://evil.example',
  'origin: http://[::1',
  'sec-fetch-site: cross-site',
  'sec-fetch-site: same-origin',
  'x-forwarded-for: 127.0.0.1',
  'forwarded: for=127.0.0.1',
  'x-real-ip: 127.0.0.1',
  'x-http-method-override: DELETE',
  'authorization: Bearer',
  'authorization: Bearer gw_AAAAAAAA_BBBBBBBB',
  'authorization: Basic YWRtaW46YWRtaW4=',
  'x-api-key: gw_',
  `x-api-key: ${'k'.repeat(4_000)}`,
  'x-api-key: \xff\xfe',
  'range: bytes=0-18446744073709551615',
  'if-none-match: *',
  'accept: text/html',
  'accept-encoding: gzip;q=9999',
  'expect: 100-continue',
  'te: trailers',
  'idempotency-key: \x80',
  'last-event-id: -1',
  'constructor: x',
  '__proto__: x',
  `x-long: ${'v'.repeat(3_000)}`,
] as const;

const methods = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS', 'PROPFIND', 'M-SEARCH'] as const;

interface Parts {
  method: string;
  path: string;
  headers: string[];
  body: Buffer;
}

function render({ method, path, headers: lines, body }: Parts): Buffer {
  const head = [`${method} ${path} HTTP/1.1`, ...lines, '', ''].join('\r\n');
  return Buffer.concat([Buffer.from(head, 'latin1'), body]);
}

function somePath({ path, queries }: Target, deviceId: string, dice: Dice): string {
  const named = path.replaceAll(/\{[a-z_]+\}/g, () => (dice.oneIn(2) ? deviceId : dice.of(names)));
  if (dice.oneIn(3)) return named;
  const pairs = Array.from({ length: dice.below(5) }, () => {
    const name = queries.length === 0 || dice.oneIn(8) ? dice.of(names) : dice.of(queries);
    return `${name}=${dice.of(values)}`;
  });
  return pairs.length === 0 ? named : `${named}?${pairs.join('&')}`;
}

/** What a parser can frame without doubt. */
function someParts(targets: readonly Target[], deviceId: string, key: string, dice: Dice): Parts {
  const target = dice.of(targets);
  const isBodyless = target.method === 'GET' && !dice.oneIn(16);
  const body = isBodyless ? Buffer.alloc(0) : oddJson(target.body, dice);
  const lines = ['host: localhost'];
  if (!isBodyless) lines.push(`content-length: ${body.length}`);
  if (!isBodyless && !dice.oneIn(16)) lines.push('content-type: application/json');
  if (!dice.oneIn(4)) lines.push(`x-api-key: ${key}`);
  if (dice.oneIn(3)) lines.splice(dice.below(lines.length + 1), 0, dice.of(headers));
  const method = dice.oneIn(16) ? dice.of(methods) : target.method;
  return { method, path: somePath(target, deviceId, dice), headers: lines, body };
}

const chunkings = [
  'zz\r\nabc\r\n0\r\n\r\n',
  '-1\r\na\r\n0\r\n\r\n',
  'ffffffffffffffff\r\na',
  '7fffffff\r\na',
  '3\r\nabcdef\r\n0\r\n\r\n',
  '3;x="\r\n\r\n',
  `3;${'e'.repeat(20_000)}\r\nabc\r\n0\r\n\r\n`,
  '3\nabc\n0\n\n',
  '0x3\r\nabc\r\n0\r\n\r\n',
  '3\r\nabc\r\n0\r\nhost: evil\r\ncontent-length: 9\r\n\r\n',
  '0\r\n\r\nGET /health HTTP/1.1\r\nhost: localhost\r\n\r\n',
  '1\r\n{\r\n'.repeat(500),
] as const;

const lengths = ['-1', '+5', '0x5', '5, 5', '5 6', '', 'a', '18446744073709551616', '4294967297', '1e3'];

const greetings: readonly Buffer[] = [
  'GET /health\r\n\r\n',
  'GET /health HTTP/9.9\r\nhost: localhost\r\n\r\n',
  'GET /health HTTP/1.0\r\n\r\n',
  'GET  /health HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'GET\t/health\tHTTP/1.1\r\nhost: localhost\r\n\r\n',
  'GET /health HTTP/1.1\nhost: localhost\n\n',
  'GET http://evil.example/health HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'GET * HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n',
  'GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n',
  'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
  '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03',
  '\x10\x20\x00\x04MQTT\x04\x02\x00\x3c\r\n\r\n',
  '\r\n'.repeat(2_000),
  `GET /${'a'.repeat(20_000)} HTTP/1.1\r\nhost: localhost\r\n\r\n`,
  `GET /health HTTP/1.1\r\nhost: localhost\r\n${'a: b\r\n'.repeat(3_000)}\r\n`,
  `GET /health HTTP/1.1\r\nhost: localhost\r\n${'a'.repeat(9_000)}: b\r\n\r\n`,
  'GET /health HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n',
  'GET /health HTTP/1.1\r\nhost: localhost\r\n folded: x\r\n\r\n',
  'GET /health HTTP/1.1\r\nhost : localhost\r\n\r\n',
  'GET /health HTTP/1.1\r\nhost: local\x00host\r\n\r\n',
  'GET /hea\x00lth HTTP/1.1\r\nhost: localhost\r\n\r\n',
  'GET /health HTTP/1.1\r\n\r\n',
  'get /health http/1.1\r\nhost: localhost\r\n\r\n',
].map((text) => Buffer.from(text, 'latin1'));

/** What ends a connection, or leaves a parser in doubt where the next request begins. */
function breaker(parts: Parts, dice: Dice): Buffer {
  const isFramed = (line: string) => !line.startsWith('content-length');
  const unframed = parts.headers.filter(isFramed);
  switch (dice.below(8)) {
    case 0:
      return dice.of(greetings);
    case 1: {
      const body = Buffer.from(dice.of(chunkings), 'latin1');
      const both = dice.oneIn(4) ? [`content-length: ${dice.below(100)}`] : [];
      const coding = dice.of(['chunked', 'chunked', 'chunked', 'Chunked, chunked', 'gzip, chunked', 'x', '']);
      const lines = [...unframed, `transfer-encoding: ${coding}`, ...both];
      return render({ ...parts, method: 'POST', headers: lines, body });
    }
    case 2:
      return render({
        ...parts,
        method: 'POST',
        headers: [...unframed, `content-length: ${dice.of(lengths)}`],
      });
    case 3: {
      const length = Math.max(0, parts.body.length + dice.below(200) - 100);
      return render({ ...parts, method: 'POST', headers: [...unframed, `content-length: ${length}`] });
    }
    case 4: {
      const body = Buffer.alloc(300_000, dice.of(['x', '[', ' ', '"']));
      return render({
        ...parts,
        method: 'POST',
        headers: [...unframed, `content-length: ${body.length}`],
        body,
      });
    }
    case 5: {
      const name = Buffer.from(Array.from({ length: 1 + dice.below(6) }, () => dice.below(256))).toString(
        'latin1',
      );
      return render({ ...parts, headers: [...parts.headers, `${name}: x`, `x: ${name}`] });
    }
    default: {
      // Some bytes of the request are others.
      const bytes = render(parts);
      for (let times = 1 + dice.below(4); times > 0; times -= 1) {
        bytes[dice.below(Math.min(bytes.length, 300))] = dice.below(256);
      }
      return dice.oneIn(3) ? bytes.subarray(0, dice.below(bytes.length)) : bytes;
    }
  }
}

export interface HttpOutcome {
  /** Well-framed requests, and those the connection broke on. */
  readonly sent: number;
  /** What was answered, in order. */
  readonly statuses: readonly number[];
  /** What is not as it should be. */
  readonly faults: readonly string[];
}

function lastRequest(): Parts {
  const lines = ['host: localhost', 'connection: close'];
  return { method: 'GET', path: '/api/v1/alarms', headers: lines, body: Buffer.alloc(0) };
}

const wellFramedMax = 16;
const patienceMs = 60_000;

/** Statuses in the order they came, `100 Continue` left out; no body of an answer holds the like of a status line. */
function statusesIn(answers: string): number[] {
  const all = [...answers.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map(([, status]) => Number(status));
  return all.filter((status) => status !== 100);
}

/** One connection; answers once it has ended. */
export async function httpConnection(
  to: { readonly port: number; readonly address: string; readonly targets: readonly Target[] },
  { deviceId, apiKey }: { readonly deviceId: string; readonly apiKey: string },
  dice: Dice,
): Promise<HttpOutcome> {
  const some = () => someParts(to.targets, deviceId, apiKey, dice);
  const wellFramed = Array.from({ length: dice.below(wellFramedMax + 1) }, some);
  const isBroken = wellFramed.length === 0 || dice.oneIn(2);
  // What breaks a connection may cost the answers that are under way; so it often waits for them.
  const isPatient = isBroken && dice.oneIn(2);
  // Without a body: a server that ends the connection before it has read one makes the kernel throw away what the client
  // has not read yet (RFC 9112 §9.6).
  if (!isBroken) wellFramed.push(lastRequest());
  const good = Buffer.concat(wellFramed.map(render));
  const bad = isBroken ? breaker(some(), dice) : Buffer.alloc(0);

  const socket = connect({ port: to.port, host: '127.0.0.1', localAddress: to.address, noDelay: true });
  let answers = '';
  let wake = (): void => undefined;
  socket.setEncoding('latin1');
  socket.on('data', (text: string) => {
    answers += text;
    wake();
  });
  socket.on('error', () => {});
  const faults: string[] = [];
  const timer = setTimeout(() => {
    faults.push('was still open after a minute');
    socket.destroy();
  }, patienceMs);
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));

  const first = isPatient ? good : Buffer.concat([good, bad]);
  const cut = dice.below(first.length + 1);
  socket.write(first.subarray(0, cut));
  if (dice.oneIn(4)) await new Promise((resolve) => setTimeout(resolve, dice.below(10)));
  socket.write(first.subarray(cut));
  if (isPatient) {
    while (statusesIn(answers).length < wellFramed.length && !socket.destroyed) {
      await Promise.race([closed, new Promise<void>((resolve) => (wake = resolve))]);
    }
    socket.write(bad);
  }
  if (isBroken) socket.end();
  await closed;
  clearTimeout(timer);

  const statuses = statusesIn(answers);
  const failed = statuses.filter((status) => status === 500).length;
  if (failed > 0) faults.push(`${failed} answered with 500`);
  const mustAnswer = isBroken && !isPatient ? 0 : wellFramed.length;
  if (statuses.length < mustAnswer) faults.push(`${statuses.length} of ${mustAnswer} answered`);
  if (!isBroken && statuses.length > mustAnswer) {
    faults.push(`${statuses.length} answers to ${mustAnswer} requests`);
  }
  const sent = first.toString('latin1').slice(0, 4_000);
  return {
    sent: wellFramed.length + (isBroken ? 1 : 0),
    statuses,
    faults: faults.map((fault) => `${fault}: ${JSON.stringify(sent)}`),
  };
}
