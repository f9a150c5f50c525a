// Who may ask what of a whole gateway, on every route its own OpenAPI document lists: a route that is added later is
// asked too, and has to be closed unless it is named here.

import { once } from 'node:events';
import { type IncomingMessage, request } from 'node:http';
import { networkInterfaces } from 'node:os';
import { expect, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { ask } from '../support/api.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

/** What is for everybody on this machine. */
const forAnyone = [
  'GET /health',
  'GET /metrics',
  'GET /ca.crt',
  'GET /api/v1/alarms',
  'GET /api/v1/events',
  'POST /api/v1/alarms/silence',
  'GET /api/v1/openapi.json',
  'GET /ca.crt',
  'POST /api/v1/auth/claim',
  'POST /api/v1/auth/login',
  'POST /api/v1/auth/logout',
  // Who asks to be let in waits for an administrator, a window or a token.
  'POST /api/v1/devices/register',
];

/** Without TLS, from another machine. */
const unencrypted = [
  'GET /health',
  'GET /ca.crt',
  'GET /api/v1/alarms',
  'GET /api/v1/events',
  'POST /api/v1/alarms/silence',
  'GET /api/v1/openapi.json',
  'GET /ca.crt',
];

/** Where a device is held against the path only once its body is understood. */
const bodies: Readonly<Record<string, object>> = {
  'POST /api/v1/devices/{device_id}/commands/{command_id}/ack': { status: 'ok' },
  'POST /api/v1/devices/commands/{command_id}/ack': { status: 'ok' },
};

/** What a device may ask: which alarms there are everybody may know, and these commands are its own. */
const nothing: Readonly<Record<string, Refusal>> = {
  'POST /api/v1/alarms/{id}/acknowledge': { status: 404, code: 'ALARM_UNKNOWN' },
  'POST /api/v1/devices/commands/{command_id}/ack': { status: 404, code: 'COMMAND_UNKNOWN' },
};

/** What a viewer may change: the own account, and the sound. */
const forViewers = [
  'POST /api/v1/auth/password',
  'POST /api/v1/auth/tokens',
  'DELETE /api/v1/auth/tokens/{id}',
  'POST /api/v1/alarms/acknowledge',
  'POST /api/v1/alarms/{id}/acknowledge',
];

const lan = Object.values(networkInterfaces())
  .flat()
  .find((found) => found?.family === 'IPv4' && !found.internal)?.address;

interface Refusal {
  readonly status: number;
  readonly code: string | undefined;
}

async function routesOf(gateway: Gateway): Promise<string[]> {
  const { body } = await ask({ port: gateway.ports.http }, '/api/v1/openapi.json');
  const { paths } = JSON.parse(body) as { paths: Record<string, Record<string, unknown>> };
  const methods = ['get', 'put', 'post', 'delete', 'patch'];
  return Object.entries(paths).flatMap(([path, item]) =>
    methods.filter((method) => method in item).map((method) => `${method.toUpperCase()} ${path}`),
  );
}

let asked = 0;

async function outcome(
  { ports }: Gateway,
  route: string,
  headers: Record<string, string>,
  host = '127.0.0.1',
): Promise<Refusal> {
  const [method = '', path = ''] = route.split(' ');
  const filled = path.replaceAll(/\{[^}]+\}/g, 'kitchen');
  const text = ['GET', 'DELETE'].includes(method) ? '' : JSON.stringify(bodies[route] ?? {});
  const type = text === '' ? {} : { 'content-type': 'application/json' };
  // Each from an address of its own on this machine: how often one may ask is another test's.
  asked += 1;
  const localAddress =
    host === '127.0.0.1' ? `127.0.${1 + Math.floor(asked / 200)}.${1 + (asked % 200)}` : host;
  const sent = request({
    host,
    port: ports.http,
    path: filled,
    method,
    headers: { ...type, ...headers },
    localAddress,
    agent: false,
  });
  sent.end(text);
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let body = '';
  for await (const chunk of response) {
    body += String(chunk);
    // They have no end.
    if (response.headers['content-type'] === 'text/event-stream') break;
  }
  let code: string | undefined;
  try {
    code = (JSON.parse(body) as { error?: { code?: string } }).error?.code;
  } catch {
    // A page, or nothing.
  }
  return { status: response.statusCode ?? 0, code };
}

async function operate(gateway: Gateway, name: string, args: Record<string, unknown>): Promise<unknown> {
  return await gateway.operations.get(name)?.(args);
}

test('whoever has no key changes nothing and reads nothing, on any route there is', async () => {
  const gateway = await openGateway(tempFolder());
  const { apiKey } = await connectDevice(gateway, 'gone');
  await operate(gateway, 'devices.revoke', { device_id: 'gone' });
  const routes = await routesOf(gateway);
  expect(routes.length).toBeGreaterThan(40);
  expect(routes).toEqual(expect.arrayContaining(forAnyone));
  const strangers: readonly Record<string, string>[] = [
    {},
    { 'x-api-key': apiKey },
    { authorization: `Bearer gu_000000000000_${'A'.repeat(43)}` },
    { cookie: `iotflow=${'A'.repeat(60)}` },
    { 'x-api-key': '' },
    { 'x-api-key': '__proto__' },
  ];
  for (const route of routes.filter((one) => !forAnyone.includes(one))) {
    for (const headers of strangers) {
      expect(await outcome(gateway, route, headers), `${route} ${JSON.stringify(headers)}`).toEqual({
        status: 401,
        code: 'UNAUTHENTICATED',
      });
    }
  }
});

test.skipIf(lan === undefined)(
  'from another machine without TLS not even a good key opens what is not for everybody (needs a network)',
  async () => {
    const gateway = await openGateway(tempFolder(), { http: { host: '0.0.0.0', port: 0 } });
    const { apiKey } = await connectDevice(gateway, 'home', { service: true });
    for (const route of await routesOf(gateway)) {
      const { status, code } = await outcome(gateway, route, { 'x-api-key': apiKey }, lan);
      if (unencrypted.includes(route)) expect(status, route).toBe(200);
      else expect({ status, code }, route).toEqual({ status: 403, code: 'TLS_REQUIRED' });
    }
  },
);

test('a device finds nothing of another one, and nothing that is for people', async () => {
  const gateway = await openGateway(tempFolder());
  await connectDevice(gateway, 'kitchen');
  const { apiKey } = await connectDevice(gateway, 'cellar');
  for (const route of await routesOf(gateway)) {
    const isForOthers = /\{(device_id|id|name)\}|\/(admin|users|auth)\//.test(`${route}/`);
    if (!isForOthers || forAnyone.includes(route)) continue;
    const refused = { status: 403, code: 'FORBIDDEN' };
    expect(await outcome(gateway, route, { 'x-api-key': apiKey }), route).toEqual(nothing[route] ?? refused);
  }
});

test('a viewer looks and changes nothing but the own account', async () => {
  const gateway = await openGateway(tempFolder());
  await operate(gateway, 'users.add', { name: 'anna', role: 'admin', password: 'three blind mice' });
  await operate(gateway, 'users.add', { name: 'ben', role: 'viewer', password: 'four calling birds' });
  const { token } = (await operate(gateway, 'users.token_add', { name: 'ben', label: 'test' })) as {
    token: string;
  };
  for (const route of await routesOf(gateway)) {
    if (route.startsWith('GET') || forAnyone.includes(route) || forViewers.includes(route)) continue;
    const refused = { status: 403, code: 'FORBIDDEN' };
    expect(await outcome(gateway, route, { 'x-api-key': token }), route).toEqual(refused);
  }
});
