import { randomBytes } from 'node:crypto';
import * as v from 'valibot';
import { expect, onTestFinished, test } from 'vitest';
import type { Caller, Route } from '../../src/api/route.ts';
import { commandRoutes } from '../../src/api/routes/commands.ts';
import { Commands } from '../../src/commands/commands.ts';
import { createLog } from '../../src/platform/log.ts';
import { ask, openApi } from '../support/api.ts';
import { MemorySessionLog } from '../support/session-log.ts';

const callers: Readonly<Record<string, Caller>> = {
  valve: { kind: 'device', deviceId: 'valve' },
  siren: { kind: 'device', deviceId: 'siren' },
  viewer: { kind: 'user', name: 'guest', role: 'viewer' },
  admin: { kind: 'user', name: 'anna', role: 'admin' },
};
const path = '/api/v1/devices/valve/commands';
const own = '/api/v1/devices/commands';

async function open() {
  const commands = await Commands.open({
    keeper: new MemorySessionLog(),
    time: { boot: 1, bootNs: () => 0n, dateOf: () => ({ timeNs: 0n, isCertain: true }) },
    clock: { monotonicMs: () => 0 },
    random: () => 0.5,
    randomBytes,
    device: (deviceId) => (callers[deviceId]?.kind === 'device' ? { id: 1, status: 'active' } : undefined),
    log: createLog('silent'),
  });
  onTestFinished(() => commands.close());
  const routes = commandRoutes({
    commands,
    find: (deviceId) => (callers[deviceId]?.kind === 'device' ? { deviceId } : undefined),
    sink: (message) => commands.acknowledge(message),
    monotonicMs: () => 0,
  });
  const api = await openApi({ routes, authenticate: { key: (text) => callers[text] } });
  return async (who: string, method: string, at: string, body?: unknown) => {
    const headers = { 'x-api-key': who, ...(body !== undefined && { 'content-type': 'application/json' }) };
    const reply = await ask(api, at, method, headers, body === undefined ? undefined : JSON.stringify(body));
    const answer: unknown = JSON.parse(reply.body);
    expectDescribed(routes, { method, at, status: reply.status, answer });
    return { status: reply.status, body: JSON.parse(reply.body) };
  };
}

/** Every answer is as the OpenAPI document says, which is made of the same schemas. */
function expectDescribed(
  routes: readonly Route[],
  { method, at, status, answer }: { method: string; at: string; status: number; answer: unknown },
): void {
  const found = routes.find(
    (one) => one.method === method && new RegExp(`^${one.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(at),
  );
  const form = found?.answers[status];
  if (status < 400) expect(form).toMatchObject({ schema: expect.anything() });
  if (typeof form !== 'object' || form.schema === undefined) return;
  expect(v.safeParse(form.schema, answer).issues?.map((issue) => issue.message)).toBeUndefined();
}

test('an admin gives a command, the device collects it, answers, and everybody sees how it went', async () => {
  const http = await open();
  const given = await http('admin', 'POST', path, {
    kind: 'close',
    payload: { speed: 3 },
    expires_in_ms: 60_000,
  });
  expect(given).toMatchObject({ status: 202, body: { state: 'queued', kind: 'close', actor: 'user:anna' } });
  const one = `${path}/${given.body.command_id}`;
  expect((await http('viewer', 'GET', path)).body).toMatchObject({
    count: 1,
    commands: [{ state: 'queued' }],
  });
  expect((await http('valve', 'GET', path)).body).toMatchObject({
    count: 1,
    commands: [{ state: 'delivered' }],
  });
  expect((await http('valve', 'GET', own)).body).toMatchObject({ count: 1 });
  expect((await http('siren', 'POST', `${own}/${given.body.command_id}/ack`, { status: 'ok' })).status).toBe(
    404,
  );
  expect(
    (await http('valve', 'POST', `${own}/${given.body.command_id}/ack`, { status: 'ok' })).body,
  ).toMatchObject({
    state: 'acknowledged',
  });
  expect((await http('valve', 'GET', path)).body).toMatchObject({ count: 0 });
  expect((await http('viewer', 'GET', one)).body).toMatchObject({ state: 'acknowledged' });
  expect(await http('admin', 'DELETE', one)).toMatchObject({
    status: 409,
    body: { error: { code: 'COMMAND_CONFLICT' } },
  });
});

test('a device neither sees nor answers what is meant for another, nor gives commands; a viewer only looks', async () => {
  const http = await open();
  const { command_id: id } = (await http('admin', 'POST', path, { kind: 'close' })).body;
  for (const [who, method, at, body] of [
    ['siren', 'GET', path, undefined],
    ['siren', 'GET', `${path}/${id}`, undefined],
    ['siren', 'POST', `${path}/${id}/ack`, { status: 'ok' }],
    ['siren', 'GET', '/api/v1/devices/nobody/commands', undefined],
    ['valve', 'POST', path, { kind: 'open' }],
    ['valve', 'DELETE', `${path}/${id}`, undefined],
    ['viewer', 'POST', path, { kind: 'open' }],
    ['viewer', 'POST', `${path}/${id}/ack`, { status: 'ok' }],
  ] as const) {
    expect(await http(who, method, at, body)).toMatchObject({ status: 403 });
  }
  expect((await http('viewer', 'GET', `${path}/${id}`)).body).toMatchObject({ state: 'queued' });
  expect((await http('admin', 'DELETE', `${path}/${id}`)).body).toMatchObject({ state: 'cancelled' });
});

test('what is wrong with a command is said, with its code', async () => {
  const http = await open();
  const code = async (at: string, body: unknown) => {
    const reply = await http('admin', 'POST', at, body);
    return [reply.status, reply.body.error.code];
  };
  expect(await code('/api/v1/devices/nobody/commands', { kind: 'x' })).toEqual([404, 'DEVICE_UNKNOWN']);
  expect(await code(path, { kind: 'a/b' })).toEqual([400, 'COMMAND_INVALID']);
  expect((await code(path, { kind: 'x', payload: [] }))[0]).toBe(400);
  expect((await http('admin', 'POST', path, { kind: 'x', idempotency_key: 'k' })).status).toBe(202);
  expect(await code(path, { kind: 'y', idempotency_key: 'k' })).toEqual([409, 'COMMAND_CONFLICT']);
  expect(await http('admin', 'GET', `${path}/none`)).toMatchObject({ status: 404 });
});
