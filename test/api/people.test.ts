// Users over HTTP, asked of a whole gateway: every outcome of every way in.

import { describe, expect, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { ask } from '../support/api.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const goodPassword = 'three blind mice';
const otherPassword = 'see how they run';

type Json = Record<string, unknown>;

/** A browser or a script: keeps its cookie, or has a key. */
function visitor(gateway: Gateway, headers: Record<string, string> = {}) {
  let cookie = '';
  return {
    get cookie() {
      return cookie;
    },
    async ask(method: string, path: string, body?: unknown, further: Record<string, string> = {}) {
      const reply = await ask(
        { port: gateway.ports.http },
        `/api/v1${path}`,
        method,
        {
          ...headers,
          ...(cookie !== '' && { cookie }),
          ...(body !== undefined && { 'content-type': 'application/json' }),
          ...further,
        },
        body === undefined ? '' : JSON.stringify(body),
      );
      const set = reply.headers['set-cookie']?.[0];
      if (set !== undefined) cookie = String(set).split(';')[0] ?? '';
      if (set !== undefined && /Max-Age=0/.test(String(set))) cookie = '';
      const parsed = (reply.body === '' ? {} : JSON.parse(reply.body)) as Json;
      return { status: reply.status, headers: reply.headers, ...parsed } as Json & {
        status: number;
        headers: typeof reply.headers;
      };
    },
  };
}

async function operation(gateway: Gateway, name: string, args: Json = {}) {
  return (await gateway.operations.get(name)?.(args)) as Json;
}

/** A gateway with an administrator, anna, and a viewer, bert. */
async function home() {
  const gateway = await openGateway(tempFolder(), { time: { trust: 'always' } });
  await operation(gateway, 'users.add', { name: 'anna', role: 'admin', password: goodPassword });
  await operation(gateway, 'users.add', { name: 'bert', role: 'viewer', password: otherPassword });
  const anna = visitor(gateway);
  await anna.ask('POST', '/auth/login', { name: 'anna', password: goodPassword });
  const bert = visitor(gateway);
  await bert.ask('POST', '/auth/login', { name: 'bert', password: otherPassword });
  return { gateway, anna, bert };
}

describe('logging in over HTTP', () => {
  test('a new gateway is claimed with its code, once, and then needs name and password', async () => {
    const gateway = await openGateway(tempFolder());
    const anna = visitor(gateway);
    const claim = { code: '0000-0000-0000-0000', name: 'anna', password: goodPassword };
    expect(await anna.ask('GET', '/auth/session')).toMatchObject({ status: 401 });
    expect(await anna.ask('POST', '/auth/claim', claim)).toMatchObject({
      status: 401,
      error: { code: 'UNAUTHENTICATED' },
    });
    const { code } = await operation(gateway, 'users.claim_code');
    const weak = await anna.ask('POST', '/auth/claim', { ...claim, code, password: 'password123' });
    expect(weak).toMatchObject({ status: 400, error: { code: 'PASSWORD_INVALID' } });
    expect(await anna.ask('POST', '/auth/claim', { ...claim, code })).toMatchObject({
      status: 201,
      name: 'anna',
      role: 'admin',
    });
    expect(await anna.ask('GET', '/auth/session')).toMatchObject({
      status: 200,
      name: 'anna',
      role: 'admin',
    });
    expect(await visitor(gateway).ask('POST', '/auth/claim', { ...claim, code, name: 'eve' })).toMatchObject({
      status: 401,
    });
  });

  test('a wrong name and a wrong password get the same answer, and five of them a wait with Retry-After', async () => {
    const { gateway } = await home();
    const guesser = visitor(gateway);
    const guess = async (name: string) =>
      await guesser.ask('POST', '/auth/login', { name, password: 'wrong' });
    const answers = [];
    for (const name of ['anna', 'nobody', 'bert', '__proto__']) answers.push(await guess(name));
    // Together, for the first wait is of a second: whichever comes first is the fifth.
    const pair = await Promise.all([guess('anna'), guess('carl')]);
    const [fifth, waiting] = pair.sort((one, other) => one.status - other.status);
    const wrong = {
      status: 401,
      error: { code: 'UNAUTHENTICATED', message: 'name or password is wrong' },
    };
    for (const { headers: _headers, ...answer } of [...answers, fifth!]) expect(answer).toEqual(wrong);
    expect(waiting).toMatchObject({
      status: 429,
      headers: { 'retry-after': '1' },
      error: { code: 'RATE_LIMITED' },
    });
  });

  test('a cookie is out of reach for scripts and other sites, and taken from no other place', async () => {
    const { gateway, anna } = await home();
    const reply = await anna.ask('POST', '/auth/login', { name: 'anna', password: goodPassword });
    expect(reply.headers['set-cookie']).toEqual([
      expect.stringMatching(/^iotflow=[\w-]{43}; Path=\/; Max-Age=1209600; HttpOnly; SameSite=Strict$/),
    ]);
    const value = anna.cookie.slice('iotflow='.length);
    const stranger = visitor(gateway);
    const places: Record<string, string>[] = [
      { 'x-api-key': value },
      { authorization: `Bearer ${value}` },
      { cookie: `__Host-iotflow=${value}` },
      { cookie: `iotflow=${value}; iotflow=${value}` },
      { cookie: `xiotflow=${value}` },
    ];
    for (const headers of places) {
      expect(
        await stranger.ask('GET', '/auth/session', undefined, headers),
        JSON.stringify(headers),
      ).toMatchObject({ status: 401 });
    }
    expect(
      await stranger.ask('GET', '/auth/session', undefined, { cookie: `a=b; iotflow=${value}` }),
    ).toMatchObject({ status: 200 });
    // A key that does not hold is not made good by a cookie.
    expect(
      await anna.ask('GET', '/auth/session', undefined, { 'x-api-key': 'gu_0123456789_x' }),
    ).toMatchObject({ status: 401 });
  });

  test('a page of another site cannot log in, or change anything with a session', async () => {
    const { gateway, anna } = await home();
    const login = { name: 'anna', password: goodPassword };
    for (const headers of [{ 'sec-fetch-site': 'cross-site' }, { origin: 'https://evil.example' }]) {
      expect(await visitor(gateway).ask('POST', '/auth/login', login, headers)).toMatchObject({
        status: 403,
        error: { code: 'CROSS_SITE' },
      });
      expect(await anna.ask('DELETE', '/users/bert', undefined, headers)).toMatchObject({ status: 403 });
    }
    const text = await visitor(gateway).ask('POST', '/auth/login', login, { 'content-type': 'text/plain' });
    expect(text).toMatchObject({ status: 415 });
    expect(await anna.ask('GET', '/users')).toMatchObject({ status: 200, count: 2 });
  });

  test('logging out ends the session here, or everywhere', async () => {
    const { gateway, anna } = await home();
    const { cookie } = anna;
    expect(await anna.ask('POST', '/auth/logout')).toMatchObject({ status: 204 });
    expect(anna.cookie).toBe('');
    expect(await anna.ask('GET', '/auth/session', undefined, { cookie })).toMatchObject({ status: 401 });
    expect(await anna.ask('POST', '/auth/logout')).toMatchObject({ status: 204 });
    const login = { name: 'anna', password: goodPassword };
    const [here, there] = [visitor(gateway), visitor(gateway)];
    await here.ask('POST', '/auth/login', login);
    await there.ask('POST', '/auth/login', login);
    expect(await here.ask('POST', '/auth/logout', { everywhere: true })).toMatchObject({ status: 204 });
    expect(await there.ask('GET', '/auth/session')).toMatchObject({ status: 401 });
  });

  test('a session is there again after a restart of the gateway', async () => {
    const folder = tempFolder();
    const settings = { time: { trust: 'always' } };
    const before = await openGateway(folder, settings);
    await operation(before, 'users.add', { name: 'anna', role: 'admin', password: goodPassword });
    const anna = visitor(before);
    await anna.ask('POST', '/auth/login', { name: 'anna', password: goodPassword });
    const { cookie } = anna;
    await before.close();
    const after = visitor(await openGateway(folder, settings));
    expect(await after.ask('GET', '/auth/session', undefined, { cookie })).toMatchObject({
      status: 200,
      name: 'anna',
    });
  });
});

describe('the own account over HTTP', () => {
  test('changing the password needs the old one, ends the other sessions and keeps this one', async () => {
    const { gateway, bert } = await home();
    const elsewhere = visitor(gateway);
    await elsewhere.ask('POST', '/auth/login', { name: 'bert', password: otherPassword });
    const change = (current_password: string, new_password: string) =>
      bert.ask('POST', '/auth/password', { current_password, new_password });
    expect(await change('wrong', goodPassword)).toMatchObject({ status: 401 });
    expect(await change(otherPassword, 'bert bert bert')).toMatchObject({
      status: 400,
      error: { code: 'PASSWORD_INVALID' },
    });
    expect(await change(otherPassword, 'the farmer and his wife')).toMatchObject({
      status: 200,
      name: 'bert',
    });
    expect(await bert.ask('GET', '/auth/session')).toMatchObject({ status: 200 });
    expect(await elsewhere.ask('GET', '/auth/session')).toMatchObject({ status: 401 });
    expect(
      await elsewhere.ask('POST', '/auth/login', { name: 'bert', password: otherPassword }),
    ).toMatchObject({ status: 401 });
  });

  test('an API token has the rights of its user, is shown once, and ends when it is revoked', async () => {
    const { gateway, bert, anna } = await home();
    const wanted = { label: 'grafana', password: otherPassword, expires_in_days: 30 };
    expect(await bert.ask('POST', '/auth/tokens', { ...wanted, password: 'wrong' })).toMatchObject({
      status: 401,
    });
    expect(await bert.ask('POST', '/auth/tokens', { ...wanted, expires_in_days: 0 })).toMatchObject({
      status: 400,
      error: { field: 'expires_in_days' },
    });
    const made = await bert.ask('POST', '/auth/tokens', wanted);
    expect(made).toMatchObject({ status: 201, label: 'grafana', token: expect.stringMatching(/^gu_/) });
    const token = String(made.token);
    for (const headers of [{ 'x-api-key': token }, { authorization: `Bearer ${token}` }]) {
      const script = visitor(gateway, headers);
      expect(await script.ask('GET', '/auth/session')).toMatchObject({
        status: 200,
        name: 'bert',
        role: 'viewer',
      });
      expect(await script.ask('GET', '/gateway')).toMatchObject({ status: 200 });
      expect(await script.ask('GET', '/users')).toMatchObject({ status: 403 });
    }
    const listed = await bert.ask('GET', '/auth/tokens');
    expect(listed).toMatchObject({ count: 1, tokens: [{ id: made.id, label: 'grafana', expired: false }] });
    expect(JSON.stringify(listed)).not.toContain(token);
    // Not somebody else's.
    expect(await anna.ask('DELETE', `/auth/tokens/${made.id}`)).toMatchObject({ status: 404 });
    expect(await bert.ask('DELETE', `/auth/tokens/${made.id}`)).toMatchObject({ status: 204 });
    expect(await visitor(gateway, { 'x-api-key': token }).ask('GET', '/auth/session')).toMatchObject({
      status: 401,
    });
  });
});

describe('users over HTTP', () => {
  test('are for administrators alone', async () => {
    const { gateway, bert } = await home();
    const { api_key } = await operation(gateway, 'devices.add', { device_id: 'kitchen' });
    const requests = [
      ['GET', '/users'],
      ['POST', '/users', { name: 'eve', role: 'admin', password: goodPassword }],
      ['PATCH', '/users/bert', { role: 'admin' }],
      ['DELETE', '/users/anna'],
      ['GET', '/admin/audit'],
    ] as const;
    const callers = [
      [bert, 403],
      [visitor(gateway), 401],
      [visitor(gateway, { 'x-api-key': String(api_key) }), 403],
    ] as const;
    for (const [caller, status] of callers) {
      for (const [method, path, body] of requests) {
        expect(await caller.ask(method, path, body), `${method} ${path}`).toMatchObject({ status });
      }
    }
    expect(await operation(gateway, 'users.list')).toMatchObject({ count: 2 });
  });

  test('are added, changed and removed, what they were ends at once, and an administrator remains', async () => {
    const { gateway, anna, bert } = await home();
    const carl = { name: 'carl', role: 'viewer', password: 'the farmer and his wife' };
    expect(await anna.ask('POST', '/users', carl)).toMatchObject({ status: 201, name: 'carl', tokens: 0 });
    expect(await anna.ask('POST', '/users', carl)).toMatchObject({
      status: 409,
      error: { code: 'USER_EXISTS' },
    });
    expect(await anna.ask('POST', '/users', { ...carl, name: 'a b' })).toMatchObject({
      status: 400,
      error: { code: 'USER_NAME_INVALID' },
    });
    expect(await anna.ask('POST', '/users', { ...carl, admin: true })).toMatchObject({
      status: 400,
      error: { field: 'admin' },
    });
    expect(await anna.ask('PATCH', '/users/bert', {})).toMatchObject({ status: 400 });
    expect(await anna.ask('PATCH', '/users/bert', { role: 'admin', disabled: false })).toMatchObject({
      status: 400,
    });
    expect(await anna.ask('PATCH', '/users/bert', { role: 'admin' })).toMatchObject({
      status: 200,
      role: 'admin',
    });
    expect(await bert.ask('GET', '/auth/session')).toMatchObject({ status: 401 });
    expect(await anna.ask('PATCH', '/users/bert', { disabled: true })).toMatchObject({
      status: 200,
      disabled: true,
    });
    expect(await bert.ask('POST', '/auth/login', { name: 'bert', password: otherPassword })).toMatchObject({
      status: 401,
    });
    expect(await anna.ask('PATCH', '/users/carl', { password: goodPassword })).toMatchObject({ status: 200 });
    expect(await anna.ask('PATCH', '/users/anna', { password: otherPassword })).toMatchObject({
      status: 403,
    });
    for (const body of [{ role: 'viewer' }, { disabled: true }]) {
      expect(await anna.ask('PATCH', '/users/anna', body)).toMatchObject({
        status: 409,
        error: { code: 'LAST_ADMIN_CONFLICT' },
      });
    }
    expect(await anna.ask('DELETE', '/users/anna')).toMatchObject({ status: 409 });
    expect(await anna.ask('DELETE', '/users/carl')).toMatchObject({ status: 204 });
    expect(await anna.ask('DELETE', '/users/carl')).toMatchObject({
      status: 404,
      error: { code: 'USER_UNKNOWN' },
    });
    expect(await operation(gateway, 'users.list')).toMatchObject({ count: 2 });
  });

  test('and what they changed are in the audit log, with the address and without secrets', async () => {
    const { gateway, anna, bert } = await home();
    await anna.ask('POST', '/users', { name: 'carl', role: 'viewer', password: 'the farmer and his wife' });
    await anna.ask('PATCH', '/users/carl', { password: 'cut off their tails' });
    const token = await anna.ask('POST', '/auth/tokens', { label: 'script', password: goodPassword });
    await bert.ask('POST', '/auth/logout');
    const page = await anna.ask('GET', '/admin/audit?limit=4');
    const by = { actor: 'user:anna', address: '127.0.0.1', time_uncertain: false };
    expect(page).toMatchObject({
      status: 200,
      count: 4,
      dropped: 0,
      entries: [
        { actor: 'user:bert', action: 'user.logout', target: 'bert' },
        { ...by, action: 'user.token_add', target: 'anna', detail: { label: 'script' } },
        { ...by, action: 'user.change', target: 'carl', detail: { changed: 'the password' } },
        { ...by, action: 'user.add', target: 'carl', detail: { role: 'viewer' } },
      ],
    });
    const last = (page.entries as { id: number }[]).at(-1)?.id ?? 0;
    expect(await anna.ask('GET', `/admin/audit?before=${last}`)).toMatchObject({
      entries: [
        { actor: 'anyone@127.0.0.1', action: 'user.login', target: 'bert' },
        { actor: 'anyone@127.0.0.1', action: 'user.login', target: 'anna' },
        { actor: 'cli', action: 'users.add' },
        { actor: 'cli', action: 'users.add' },
      ],
    });
    for (const limit of ['0', '-1', '1.5', 'x', '1001']) {
      expect(await anna.ask('GET', `/admin/audit?limit=${limit}`), limit).toMatchObject({
        status: 400,
        error: { field: 'limit' },
      });
    }
    const everything = JSON.stringify(await operation(gateway, 'audit.list', { limit: 1000 }));
    for (const secret of ['mice', 'farmer', 'tails', String(token.token), anna.cookie]) {
      expect(everything).not.toContain(secret);
    }
  });
});
