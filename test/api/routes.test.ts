import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { networkInterfaces } from 'node:os';
import * as v from 'valibot';
import { describe, expect, test } from 'vitest';
import type { Authenticate } from '../../src/api/access.ts';
import type { GatewayFigures } from '../../src/api/figures.ts';
import { openApiRoute } from '../../src/api/openapi.ts';
import { type Caller, type Route, route } from '../../src/api/route.ts';
import { adminRoutes } from '../../src/api/routes/admin.ts';
import { alarmRoutes } from '../../src/api/routes/alarms.ts';
import { commandRoutes } from '../../src/api/routes/commands.ts';
import { dashboardRoutes } from '../../src/api/routes/dashboard.ts';
import { deviceRoutes } from '../../src/api/routes/devices.ts';
import { enrolmentRoutes } from '../../src/api/routes/enrolment.ts';
import { gatewayRoutes } from '../../src/api/routes/gateway.ts';
import { pageRoutes } from '../../src/api/routes/pages.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import type { AuditFact } from '../../src/users/audit.ts';
import { ask, askRaw, openApi } from '../support/api.ts';

const callers: Readonly<Record<string, Caller>> = {
  device: { kind: 'device', deviceId: 'kitchen' },
  service: { kind: 'service', deviceId: 'home' },
  viewer: { kind: 'user', name: 'guest', role: 'viewer' },
  admin: { kind: 'user', name: 'anna', role: 'admin' },
};
const authenticate: Authenticate = { key: (text) => callers[text] };
const json = { 'content-type': 'application/json' };
const fromElsewhere = { 'x-forwarded-for': '192.168.1.9' };

/** Answers with what the handler was given. */
const echo: Route = route({
  method: 'POST',
  path: '/api/v1/echo/{id}',
  tag: 'test',
  summary: 'What came in',
  access: 'anyone',
  params: v.object({ id: v.string() }),
  query: v.strictObject({
    limit: v.optional(v.pipe(v.string(), v.regex(/^\d{1,4}$/, 'a whole number from 0 to 9999'))),
  }),
  body: v.strictObject({
    name: v.pipe(v.string('text'), v.maxLength(8, 'at most 8 characters')),
    fields: v.optional(v.record(v.string(), v.number('a number'))),
  }),
  audit: 'test.echo',
  answers: { 200: 'It' },
  handle: ({ params, query, body, caller }) => ({ status: 200, body: { params, query, body, caller } }),
});

async function told(reply: Promise<{ readonly status: number; readonly body: string }>) {
  const { status, body } = await reply;
  const { error } = JSON.parse(body) as { error?: Record<string, string> };
  return { status, ...error };
}

describe('what a client sends', () => {
  test('reaches the handler when it is as the route says, ids decoded once', async () => {
    const api = await openApi({ routes: [echo] });
    const reply = await ask(api, '/api/v1/echo/wet%2Fa%252Fb?limit=5', 'POST', json, '{"name":"é"}');
    expect(reply.status).toBe(200);
    expect(JSON.parse(reply.body)).toEqual({
      params: { id: 'wet/a%2Fb' },
      query: { limit: '5' },
      body: { name: 'é' },
      caller: { kind: 'anyone' },
    });
  });

  test.each<[string, string, Record<string, string>]>([
    ['a field that is missing', '{}', { field: 'name', expected: 'text' }],
    ['a field of another type', '{"name":1}', { field: 'name', expected: 'text' }],
    ['a field too long', '{"name":"123456789"}', { field: 'name', expected: 'at most 8 characters' }],
    ['a value inside', '{"name":"a","fields":{"t":"x"}}', { field: 'fields.t', expected: 'a number' }],
    [
      'an unknown field',
      '{"name":"a","nmae":1}',
      { field: 'nmae', expected: 'no other field than name, fields' },
    ],
    ['no object', '"name"', { expected: 'Object' }],
    ['no body', '', { expected: 'Object' }],
    ['no JSON', '{"name":', { message: 'the body is not JSON' }],
    ['two values', '{"name":"a"}{}', { message: 'the body is not JSON' }],
    ['a prototype', '{"name":"a","__proto__":{"isAdmin":true}}', { message: 'the body has a key __proto__' }],
    [
      'a hidden prototype',
      '{"name":"a","fields":{"\\u005f_proto__":{}}}',
      { message: 'the body has a key __proto__' },
    ],
    ['depth', `${'['.repeat(30_000)}`, { message: 'the body is nested deeper than 16 levels' }],
  ])('with %s is refused, naming what is wrong', async (_what, body, expected) => {
    const api = await openApi({ routes: [echo] });
    expect(await told(ask(api, '/api/v1/echo/a', 'POST', json, body))).toMatchObject({
      status: 400,
      code: 'BODY_INVALID',
      ...expected,
    });
    expect(api.stats().failed).toBe(0);
  });

  test('in brackets inside of texts is not taken for depth, and a quote in a text does not end it', async () => {
    const api = await openApi({ routes: [echo] });
    const body = JSON.stringify({ name: '\\"[{[{' });
    expect((await ask(api, '/api/v1/echo/a', 'POST', json, body)).status).toBe(200);
    const deep = JSON.stringify({ name: '\\', x: JSON.parse('['.repeat(20) + ']'.repeat(20)) });
    expect(await told(ask(api, '/api/v1/echo/a', 'POST', json, deep))).toMatchObject({
      message: 'the body is nested deeper than 16 levels',
    });
  });

  test('that is not UTF-8, not JSON by its header, compressed or too large is refused', async () => {
    const api = await openApi({ routes: [echo] });
    const post = (headers: Record<string, string>, body: string | Buffer) =>
      told(ask(api, '/api/v1/echo/a', 'POST', headers, body));
    const latin = Buffer.from('{"name":"\xe9"}', 'latin1');
    expect(await post(json, latin)).toMatchObject({ status: 400, message: 'the body is not UTF-8' });
    expect(await post({ 'content-type': 'text/plain' }, '{"name":"a"}')).toMatchObject({
      status: 415,
      code: 'CONTENT_TYPE_INVALID',
      expected: 'application/json',
    });
    expect(await post({}, '{"name":"a"}')).toMatchObject({ status: 415 });
    expect(await post({ ...json, 'content-encoding': 'gzip' }, 'x')).toMatchObject({ status: 415 });
    expect(await post(json, 'x'.repeat(70_000))).toMatchObject({ status: 413, code: 'BODY_TOO_LARGE' });
    expect(await post({ ...json, 'transfer-encoding': 'chunked' }, 'x'.repeat(70_000))).toMatchObject({
      status: 413,
      code: 'BODY_TOO_LARGE',
    });
    expect((await post({ 'content-type': 'Application/JSON; charset=utf-8' }, '{"name":"a"}')).status).toBe(
      200,
    );
  });

  test('in the query is checked like the body', async () => {
    const api = await openApi({ routes: [echo] });
    const query = (text: string) => told(ask(api, `/api/v1/echo/a?${text}`, 'POST', json, '{"name":"a"}'));
    expect(await query('limit=x')).toMatchObject({
      status: 400,
      code: 'QUERY_INVALID',
      field: 'limit',
      message: 'limit: expected a whole number from 0 to 9999',
    });
    expect(await query('limit=1&limit=2')).toMatchObject({ status: 400, field: 'limit' });
    expect(await query('limt=1')).toMatchObject({ field: 'limt', expected: 'no other field than limit' });
    expect(await query('__proto__=1')).toMatchObject({ status: 400, field: '__proto__' });
  });

  test('with a method the route does not have is answered with those it has', async () => {
    const api = await openApi({ routes: [echo, { ...echo, method: 'DELETE' }] });
    const reply = await ask(api, '/api/v1/echo/a');
    expect([reply.status, reply.headers.allow]).toEqual([405, 'POST, DELETE']);
    expect(await told(ask(api, '/api/v1/echo/a', 'PROPFIND'))).toMatchObject({
      status: 501,
      code: 'METHOD_UNSUPPORTED',
    });
    expect(await askRaw(api, 'FOO / HTTP/1.1\r\nhost: localhost\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect((await ask(api, '/api/v1/echo/', 'POST', json, '{"name":"a"}')).status).toBe(404);
    expect(await told(ask(api, `/api/v1/echo/${'a'.repeat(300)}`, 'POST'))).toMatchObject({
      status: 400,
      code: 'PATH_INVALID',
    });
  });
});

describe('a handler that throws', () => {
  test.each<[string, number, string | undefined]>([
    ['DEVICE_UNKNOWN', 404, undefined],
    ['DEVICE_EXISTS', 409, undefined],
    ['DEVICES_FULL', 507, undefined],
    ['JOURNAL_FULL', 503, '10'],
    ['STORE_FAILED', 503, '10'],
    ['RATE_LIMITED', 429, '1'],
  ])('%s is answered with %i', async (code, status, retryAfter) => {
    const handle = () => {
      throw new GatewayError(code, 'why');
    };
    const api = await openApi({ routes: [{ ...echo, handle }] });
    const reply = await ask(api, '/api/v1/echo/a', 'POST', json, '{"name":"a"}');
    expect([reply.status, JSON.parse(reply.body), reply.headers['retry-after']]).toEqual([
      status,
      { error: { code, message: 'why' } },
      retryAfter,
    ]);
  });

  test('what is none of the client’s business says nothing of it', async () => {
    const handle = () => {
      throw new GatewayError('ENOENT', 'geheim');
    };
    const api = await openApi({ routes: [{ ...echo, handle }] });
    const reply = await ask(api, '/api/v1/echo/a', 'POST', json, '{"name":"a"}');
    expect([reply.status, reply.body.includes('geheim')]).toEqual([500, false]);
  });
});

describe('who may ask', () => {
  const device: Route = { ...echo, access: ['device'] };

  test('is told by X-API-Key or Authorization: Bearer, before the body is read', async () => {
    const api = await openApi({ routes: [device], authenticate });
    const post = (headers: Record<string, string>, body = '{"name":"a"}') =>
      ask(api, '/api/v1/echo/a', 'POST', { ...json, ...headers }, body);
    for (const headers of [{ 'x-api-key': 'device' }, { authorization: 'Bearer device' }]) {
      const reply = await post(headers);
      expect(reply.status).toBe(200);
      expect(JSON.parse(reply.body)).toMatchObject({ caller: { kind: 'device', deviceId: 'kitchen' } });
    }
    for (const headers of [{}, { 'x-api-key': 'wrong' }, { authorization: 'Basic ZGV2aWNl' }]) {
      const reply = await post(headers, 'x'.repeat(70_000));
      expect([reply.status, reply.headers['www-authenticate']]).toEqual([401, 'Bearer']);
    }
    expect(await told(post({ 'x-api-key': 'viewer' }))).toMatchObject({ status: 403, code: 'FORBIDDEN' });
  });

  test('is asked again when the body is there: who was shut out while sending it slowly is refused', async () => {
    const keys = new Map(Object.entries(callers));
    const audited: AuditFact[] = [];
    const api = await openApi({
      routes: [device],
      authenticate: { key: (text) => keys.get(text) },
      audit: { record: async (fact) => void audited.push(fact) },
    });
    const headers = { ...json, 'x-api-key': 'device', 'content-length': '12', expect: '100-continue' };
    const sent = request({ port: api.port, path: '/api/v1/echo/a', method: 'POST', headers });
    sent.flushHeaders();
    await once(sent, 'continue');
    sent.write('{"name":');
    // The key held when the header came.
    await expect.poll(() => api.stats().requests).toBe(1);
    keys.delete('device');
    sent.end('"a"}');
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    response.resume();
    expect(response.statusCode).toBe(401);
    expect(audited).toEqual([]);
  });

  test('from another machine without TLS is nobody, unless the owner allows it', async () => {
    const closed = await openApi({ routes: [device], authenticate });
    const open = await openApi({ routes: [device], authenticate, lanPlaintext: true });
    const headers = { ...json, ...fromElsewhere, 'x-api-key': 'device' };
    const post = (api: typeof open) => told(ask(api, '/api/v1/echo/a', 'POST', headers, '{"name":"a"}'));
    expect(await post(closed)).toMatchObject({ status: 403, code: 'TLS_REQUIRED' });
    expect((await post(open)).status).toBe(200);
    expect((await ask(closed, '/health', 'GET', fromElsewhere)).status).toBe(200);
  });

  test.each(['via', 'forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip'])(
    'through a proxy on this machine is from another one: %s',
    async (name) => {
      const api = await openApi({ routes: [device], authenticate });
      const headers = { ...json, [name]: '1.1 proxy', 'x-api-key': 'device' };
      const reply = ask(api, '/api/v1/echo/a', 'POST', headers, '{"name":"a"}');
      expect(await told(reply)).toMatchObject({ status: 403, code: 'TLS_REQUIRED' });
    },
  );

  const own = Object.values(networkInterfaces())
    .flat()
    .find((found) => found?.family === 'IPv4' && !found.internal)?.address;
  test.skipIf(own === undefined)('by an address of the network is from another machine', async () => {
    const api = await openApi({ host: '0.0.0.0', routes: [device], authenticate });
    const reply = ask(api, '/api/v1/echo/a', 'POST', { 'x-api-key': 'device' }, '', own);
    expect(await told(reply)).toMatchObject({ status: 403, code: 'TLS_REQUIRED' });
    expect((await ask(api, '/health', 'GET', {}, '', own)).status).toBe(200);
  });

  test('is no page of another site in somebody’s browser', async () => {
    const api = await openApi({ routes: [echo] });
    const post = (headers: Record<string, string>) =>
      ask(api, '/api/v1/echo/a', 'POST', { ...json, ...headers }, '{"name":"a"}').then(
        ({ status }) => status,
      );
    const host = `127.0.0.1:${api.port}`;
    expect(await post({ 'sec-fetch-site': 'same-origin', origin: `http://${host}` })).toBe(200);
    expect(await post({ origin: `http://${host}` })).toBe(200);
    expect(await post({ 'sec-fetch-site': 'cross-site' })).toBe(403);
    expect(await post({ 'sec-fetch-site': 'same-site' })).toBe(403);
    expect(await post({ origin: 'https://evil.example' })).toBe(403);
    expect(await post({ origin: 'null' })).toBe(403);
  });

  test('is written down with what was changed, and what was refused is not', async () => {
    const audited: AuditFact[] = [];
    const api = await openApi({
      routes: [echo],
      authenticate,
      audit: { record: async (fact) => void audited.push(fact) },
    });
    const headers = { ...json, 'x-api-key': 'admin' };
    await ask(api, '/api/v1/echo/a', 'POST', headers, '{"name":"a"}');
    await ask(api, '/api/v1/echo/b', 'POST', headers, '{}');
    expect(audited).toEqual([{ actor: 'user:anna', action: 'test.echo', target: 'a', address: '127.0.0.1' }]);
  });
});

describe('every route the gateway has', () => {
  const board = {
    list: () => [],
    acknowledge: async () => [],
    silence: () => ({ forMs: 1, untilMs: undefined }),
    shown: () => ({ alarms: [], count: 0, sound: 'off', is_silenced: false }),
  } as unknown as Parameters<typeof alarmRoutes>[0];
  const figures = () => {
    throw new GatewayError('FIGURES_BUSY', 'none in this test');
  };
  // A device of which it is about; whoever is let in finds nothing.
  const outbox = { find: () => ({ deviceId: 'kitchen' }) } as unknown as Parameters<typeof commandRoutes>[0];
  // Whoever is let in finds nobody at home.
  const devices = {} as Parameters<typeof adminRoutes>[0];
  const routes = [
    ...alarmRoutes(board),
    ...commandRoutes(outbox),
    ...gatewayRoutes(figures as () => GatewayFigures),
    ...enrolmentRoutes(devices, 'iotflow'),
    ...deviceRoutes(devices, { wallMs: () => 0 }),
    ...adminRoutes(devices),
    ...dashboardRoutes(devices, figures as () => GatewayFigures, () => 0),
  ];

  // One column a caller: on this machine, and on another without TLS. `+` is let in.
  const columns = ['nobody', 'wrong', 'device', 'service', 'viewer', 'admin'];
  const table: Readonly<Record<string, readonly [here: string, elsewhere: string]>> = {
    'GET /health': ['+ + + + + +', '+ + + + + +'],
    'GET /metrics': ['+ + + + + +', 'T T T T T T'],
    'GET /ca.crt': ['+ + + + + +', '+ + + + + +'],
    'GET /api/v1/alarms': ['+ + + + + +', '+ + + + + +'],
    'POST /api/v1/alarms/{id}/acknowledge': ['401 401 + + + +', 'T T T T T T'],
    'POST /api/v1/alarms/acknowledge': ['401 401 + + + +', 'T T T T T T'],
    'POST /api/v1/alarms/silence': ['+ + + + + +', '+ + + + + +'],
    'GET /api/v1/openapi.json': ['+ + + + + +', '+ + + + + +'],
    'GET /api/v1/gateway': ['401 401 + + + +', 'T T T T T T'],
    'GET /api/v1/devices/commands': ['401 401 + 403 403 403', 'T T T T T T'],
    'POST /api/v1/devices/commands/{command_id}/ack': ['401 401 + 403 403 403', 'T T T T T T'],
    'POST /api/v1/devices/{device_id}/commands': ['401 401 403 403 403 +', 'T T T T T T'],
    'GET /api/v1/devices/{device_id}/commands': ['401 401 + + + +', 'T T T T T T'],
    'GET /api/v1/devices/{device_id}/commands/{command_id}': ['401 401 + + + +', 'T T T T T T'],
    'DELETE /api/v1/devices/{device_id}/commands/{command_id}': ['401 401 403 403 403 +', 'T T T T T T'],
    'POST /api/v1/devices/{device_id}/commands/{command_id}/ack': ['401 401 + 403 403 403', 'T T T T T T'],
    'POST /api/v1/devices/register': ['+ + + + + +', 'T T T T T T'],
    'GET /api/v1/devices/status': ['401 401 + + 403 403', 'T T T T T T'],
    'POST /api/v1/devices/heartbeat': ['401 401 + + 403 403', 'T T T T T T'],
    'GET /api/v1/devices/config': ['401 401 + + 403 403', 'T T T T T T'],
    'PUT /api/v1/devices/config': ['401 401 + + 403 403', 'T T T T T T'],
    'POST /api/v1/devices/rotate-key': ['401 401 + + 403 403', 'T T T T T T'],
    'GET /api/v1/admin/devices': ['401 401 403 + + +', 'T T T T T T'],
    'POST /api/v1/admin/devices': ['401 401 403 403 403 +', 'T T T T T T'],
    'GET /api/v1/admin/devices/{id}': ['401 401 403 + + +', 'T T T T T T'],
    'PUT /api/v1/admin/devices/{id}': ['401 401 403 403 403 +', 'T T T T T T'],
    'PATCH /api/v1/admin/devices/{id}': ['401 401 403 403 403 +', 'T T T T T T'],
    'DELETE /api/v1/admin/devices/{id}': ['401 401 403 403 403 +', 'T T T T T T'],
    'POST /api/v1/admin/devices/{id}/approve': ['401 401 403 403 403 +', 'T T T T T T'],
    'POST /api/v1/admin/devices/{id}/rotate': ['401 401 403 403 403 +', 'T T T T T T'],
    'POST /api/v1/admin/devices/{id}/revoke': ['401 401 403 403 403 +', 'T T T T T T'],
    'GET /api/v1/admin/devices/{id}/config': ['401 401 403 + + +', 'T T T T T T'],
    'PUT /api/v1/admin/devices/{id}/config': ['401 401 403 403 403 +', 'T T T T T T'],
    'GET /api/v1/admin/enrolment/pairing': ['401 401 403 403 + +', 'T T T T T T'],
    'POST /api/v1/admin/enrolment/pairing': ['401 401 403 403 403 +', 'T T T T T T'],
    'DELETE /api/v1/admin/enrolment/pairing': ['401 401 403 403 403 +', 'T T T T T T'],
    'GET /api/v1/admin/enrolment/tokens': ['401 401 403 403 403 +', 'T T T T T T'],
    'POST /api/v1/admin/enrolment/tokens': ['401 401 403 403 403 +', 'T T T T T T'],
    'DELETE /api/v1/admin/enrolment/tokens/{token_id}': ['401 401 403 403 403 +', 'T T T T T T'],
    'GET /api/v1/admin/dashboard': ['401 401 403 + + +', 'T T T T T T'],
  };
  const all = [...pageRoutes({ health: () => ({ ok: true, reasons: [] }), metrics: () => [] }), ...routes];
  all.push(openApiRoute(all, '1.0.0'));

  test('is in this table, and nothing else is', () => {
    expect(all.map(({ method, path }) => `${method} ${path}`).sort()).toEqual(Object.keys(table).sort());
  });

  test.each(all.map((found) => [`${found.method} ${found.path}`, found] as const))(
    '%s lets in whom it should',
    async (name, { method, path }) => {
      const api = await openApi({ routes, authenticate });
      const lettingIn = async (from: Record<string, string>) => {
        const seen: string[] = [];
        for (const caller of columns) {
          const headers = caller === 'nobody' ? from : { ...from, 'x-api-key': caller };
          const { status, code } = await ask(api, path.replaceAll(/\{\w+\}/g, 'a'), method, headers).then(
            ({ status: answered, body }) => ({ status: answered, code: /"code":"(\w+)"/.exec(body)?.[1] }),
          );
          const isRefused = status === 401 || status === 403;
          seen.push(code === 'TLS_REQUIRED' ? 'T' : isRefused ? String(status) : '+');
        }
        return seen.join(' ');
      };
      expect([await lettingIn({}), await lettingIn(fromElsewhere)]).toEqual(table[name]);
    },
  );

  test('/metrics over a proxy needs the key of a service account or a user', async () => {
    const api = await openApi({ routes, authenticate, lanPlaintext: true });
    const statuses = [];
    for (const key of columns) {
      const reply = await ask(api, '/metrics', 'GET', { ...fromElsewhere, 'x-api-key': key });
      statuses.push(reply.status);
    }
    expect(statuses).toEqual([401, 401, 403, 200, 200, 200]);
  });
});
