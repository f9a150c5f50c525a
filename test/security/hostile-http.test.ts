// What somebody without a password tries over HTTP, against a whole gateway: pages that make a browser ask, cookies
// planted beforehand, requests hidden in others. Guessing is in test/users, floods in test/api and test/fuzz.

import { connect } from 'node:net';
import { expect, test } from 'vitest';
import { RateLimits } from '../../src/api/rate-limits.ts';
import type { Gateway } from '../../src/gateway.ts';
import { Lockout } from '../../src/users/lockout.ts';
import { ask } from '../support/api.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const password = 'three blind mice';

async function gatewayWithAnna(): Promise<Gateway> {
  const gateway = await openGateway(tempFolder());
  await gateway.operations.get('users.add')?.({ name: 'anna', role: 'admin', password });
  return gateway;
}

async function login({ ports }: Gateway, headers: Record<string, string> = {}) {
  const json = { 'content-type': 'application/json', ...headers };
  const body = JSON.stringify({ name: 'anna', password });
  const reply = await ask({ port: ports.http }, '/api/v1/auth/login', 'POST', json, body);
  return { status: reply.status, cookie: String(reply.headers['set-cookie']).split(';')[0] ?? '' };
}

async function whoIs({ ports }: Gateway, cookie: string): Promise<number> {
  return (await ask({ port: ports.http }, '/api/v1/auth/session', 'GET', { cookie })).status;
}

test('a page of another site changes nothing with somebody’s session, on any route there is', async () => {
  const gateway = await gatewayWithAnna();
  const { cookie } = await login(gateway);
  const port = gateway.ports.http ?? 0;
  const { body } = await ask({ port }, '/api/v1/openapi.json');
  const { paths } = JSON.parse(body) as { paths: Record<string, Record<string, unknown>> };
  const routes = Object.entries(paths).flatMap(([path, item]) =>
    ['post', 'put', 'patch', 'delete'].filter((method) => method in item).map((method) => ({ method, path })),
  );
  expect(routes.length).toBeGreaterThan(20);
  const pages: readonly Record<string, string>[] = [
    { origin: 'http://evil.example' },
    { origin: 'null' },
    { origin: '' },
    { origin: `http://127.0.0.1:${port}.evil.example` },
    { origin: `http://evil.example@127.0.0.1:${port + 1}` },
    { origin: `http://127.0.0.1:${port + 1}` },
    { origin: `http://localhost:${port}` },
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { 'sec-fetch-site': 'same-origin, cross-site' },
    { 'sec-fetch-site': 'cross-site', origin: `http://127.0.0.1:${port}` },
    { 'sec-fetch-site': 'SAME-ORIGIN' },
  ];
  for (const { method, path } of routes) {
    const url = path.replaceAll(/\{[^}]+\}/g, 'anna');
    for (const headers of pages) {
      const sent = { cookie, 'content-type': 'application/json', 'content-length': '2', ...headers };
      const reply = await ask({ port }, url, method.toUpperCase(), sent, '{}');
      const asked = `${method} ${path} ${JSON.stringify(headers)}`;
      expect([reply.status, JSON.parse(reply.body)], asked).toMatchObject([
        403,
        { error: { code: 'CROSS_SITE' } },
      ]);
    }
  }
  expect(await whoIs(gateway, cookie)).toBe(200);
}, 60_000);

test('a cookie planted beforehand is nobody’s session afterwards, and two of them are none', async () => {
  const gateway = await gatewayWithAnna();
  const planted = `iotflow=${'A'.repeat(43)}`;
  const first = await login(gateway, { cookie: planted });
  expect(first).toMatchObject({ status: 200 });
  expect(first.cookie).not.toBe(planted);
  expect(await whoIs(gateway, planted)).toBe(401);
  // The attacker's own, planted: the victim's login does not go into it.
  const second = await login(gateway, { cookie: first.cookie });
  expect(second.cookie).not.toBe(first.cookie);
  expect(await whoIs(gateway, second.cookie)).toBe(200);
  expect(await whoIs(gateway, `${first.cookie}; ${second.cookie}`)).toBe(401);
});

const hidden = 'GET /api/v1/auth/session HTTP/1.1\r\nhost: localhost\r\n\r\n';
const start = 'POST /api/v1/alarms/silence HTTP/1.1\r\nhost: localhost\r\n';

const smuggled: readonly (readonly [what: string, bytes: string])[] = [
  ['length and chunks', `${start}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`],
  ['chunks and length', `${start}transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n${hidden}`],
  ['two lengths', `${start}content-length: 0\r\ncontent-length: ${hidden.length}\r\n\r\n${hidden}`],
  ['a list of lengths', `${start}content-length: 0, 0\r\n\r\n${hidden}`],
  ['a signed length', `${start}content-length: +0\r\n\r\n${hidden}`],
  ['a length with a space before its colon', `${start}content-length : 0\r\n\r\n${hidden}`],
  ['chunks by another name', `${start}transfer-encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`],
  ['chunks that are not last', `${start}transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n${hidden}`],
  ['chunks twice', `${start}transfer-encoding: chunked\r\ntransfer-encoding: x\r\n\r\n0\r\n\r\n${hidden}`],
  ['chunks behind a folded line', `${start}x: y\r\n transfer-encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`],
  ['a chunk longer than it says', `${start}transfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n${hidden}`],
  ['a chunk of endless length', `${start}transfer-encoding: chunked\r\n\r\n${'f'.repeat(20)}\r\n${hidden}`],
  ['lines that end with LF alone', `${start.replaceAll('\r', '')}content-length: 0\n\n${hidden}`],
  ['a NUL in a header', `${start}x: a\0b\r\n\r\n${hidden}`],
];

test('no request hides in another one', async () => {
  const gateway = await openGateway(tempFolder());
  for (const [what, bytes] of smuggled) {
    const answers = await new Promise<string>((resolve) => {
      let text = '';
      const socket = connect(gateway.ports.http ?? 0, '127.0.0.1', () => socket.write(bytes));
      socket.setEncoding('latin1');
      socket.on('data', (chunk: string) => {
        text += chunk;
      });
      socket.on('error', () => undefined);
      socket.on('close', () => resolve(text));
    });
    // The connection ends, and nothing was answered to what was hidden: the session of nobody is 401.
    expect(answers, what).toMatch(/^HTTP\/1\.1 400 /);
    expect(answers, what).not.toMatch(/ 401 /);
  }
});

test('what is said about the way a request took makes nobody local, nor another', async () => {
  const gateway = await openGateway(tempFolder());
  await connectDevice(gateway, 'probe');
  const port = gateway.ports.http;
  const claims: readonly Record<string, string>[] = [
    { 'x-forwarded-for': '127.0.0.1' },
    { forwarded: 'for=127.0.0.1' },
    { 'x-forwarded-for': '' },
    { 'x-real-ip': '127.0.0.1' },
    { via: '1.1 127.0.0.1' },
    { 'x-forwarded-host': 'localhost' },
  ];
  for (const headers of claims) expect((await ask({ port }, '/metrics', 'GET', headers)).status).toBe(403);
  for (const name of ['x-original-url', 'x-http-method-override']) {
    const headers = { [name]: '/api/v1/auth/session' };
    expect((await ask({ port }, '/api/v1/gateway', 'GET', headers)).status, name).toBe(401);
  }
});

test('a hundred thousand addresses fill neither the table of rates nor that of wrong passwords', () => {
  const monotonicMs = () => 1_000;
  const rates = new RateLimits({ clock: { monotonicMs } });
  const lockout = new Lockout({ monotonicMs });
  for (let index = 0; index < 100_000; index += 1) {
    const address = `10.${index >> 16}.${(index >> 8) & 255}.${index & 255}`;
    rates.take({ kind: 'anyone' }, address);
    lockout.begin(address, `name-${index}`);
    lockout.welcome(address, `name-${index}`);
  }
  expect(rates.buckets).toBeLessThanOrEqual(4_096);
  expect(lockout.stats().entries).toBeLessThanOrEqual(1_000);
});
