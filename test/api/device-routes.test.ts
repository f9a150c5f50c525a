// The routes for devices, enrolment and administrators, over real sockets on a real registry. The body of the IoTFlow
// documents' curl line is byte for byte theirs.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import * as v from 'valibot';
import { describe, expect, onTestFinished, test } from 'vitest';
import { deviceKeys } from '../../src/api/access.ts';
import type { GatewayFigures } from '../../src/api/figures.ts';
import type { Caller } from '../../src/api/route.ts';
import { adminRoutes } from '../../src/api/routes/admin.ts';
import { dashboardRoutes } from '../../src/api/routes/dashboard.ts';
import { deviceRoutes } from '../../src/api/routes/devices.ts';
import { enrolmentRoutes } from '../../src/api/routes/enrolment.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { noticed, openRegistry } from '../../src/registry/open.ts';
import { ask, openApi } from '../support/api.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');
const json = { 'content-type': 'application/json' };
const admin = { ...json, 'x-api-key': 'admin' };
const viewer = { ...json, 'x-api-key': 'viewer' };

const users: Readonly<Record<string, Caller>> = {
  admin: { kind: 'user', name: 'anna', role: 'admin' },
  viewer: { kind: 'user', name: 'guest', role: 'viewer' },
};

const seedRegistration = `{
    "name": "Smart Temperature Sensor 001",
    "description": "Living room environmental sensor",
    "device_type": "temperature_sensor",
    "location": "Living Room",
    "firmware_version": "1.2.3",
    "hardware_version": "v2.1"
  }`;

async function house() {
  const level = await LevelStore.open(join(tempFolder(), 'state'), { log });
  onTestFinished(() => level.close());
  const now = { ms: 0 };
  const clock = {
    bootId: 'boot',
    wallMs: () => Date.UTC(2026, 0, 1) + now.ms,
    monotonicMs: () => now.ms,
  };
  const runningMs = () => now.ms;
  const devices = await openRegistry({ store: level.room('registry'), clock, randomBytes, runningMs, log });
  onTestFinished(() => devices.enrolment.close());
  const keys = deviceKeys(noticed(devices));
  const audited: unknown[] = [];
  const figures = () => {
    throw new Error('no figures here');
  };
  const routes = [
    ...enrolmentRoutes(devices, 'iotflow'),
    ...deviceRoutes(devices, clock),
    ...adminRoutes(devices),
    ...dashboardRoutes(devices, figures as () => GatewayFigures, () => 0),
  ];
  const api = await openApi({
    routes,
    authenticate: { key: (text) => users[text] ?? keys.key(text) },
    audit: { record: async (fact) => void audited.push(fact) },
  });
  const send = async (method: string, path: string, headers: Record<string, string>, body?: unknown) => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const reply = await ask(api, `/api/v1${path}`, method, headers, text ?? '');
    // biome-ignore lint/suspicious/noExplicitAny: what a client would see
    const answer = JSON.parse(reply.body) as any;
    const asked = routes.find((found) => {
      const pattern = found.path.replace('/api/v1', '').replaceAll(/\{\w+\}/g, '[^/?]+');
      return found.method === method && new RegExp(`^${pattern}(\\?.*)?$`).test(path);
    });
    const form = asked?.answers[reply.status];
    // Whatever is asked here has the form that the document says it has.
    if (typeof form === 'object' && form.schema !== undefined) {
      const { issues = [] } = v.safeParse(form.schema, answer);
      expect(issues.map((issue) => `${path} ${v.getDotPath(issue)}: ${issue.message}`)).toEqual([]);
    }
    return { status: reply.status, body: answer };
  };
  return { ...devices, now, send, audited };
}

describe('registering, as the IoTFlow documents show it,', () => {
  test('answers in their shape while a pairing window is open, and the key works at once', async () => {
    const { send, audited } = await house();
    expect(await send('POST', '/admin/enrolment/pairing', admin, { seconds: 60, devices_max: 1 })).toEqual({
      status: 200,
      body: { open: true, ends_in_seconds: 60, devices_left: 1 },
    });
    const { status, body } = await send('POST', '/devices/register', json, seedRegistration);
    expect(status).toBe(201);
    expect(body).toEqual({
      message: 'Device registered successfully',
      device: {
        id: 1,
        name: 'Smart Temperature Sensor 001',
        api_key: expect.stringMatching(/^gw_/),
        status: 'active',
        device_type: 'temperature_sensor',
        created_at: '2026-01-01T00:00:00.000Z',
        device_id: 'smart-temperature-sensor-001',
      },
      mqtt: {
        user_name: 'smart-temperature-sensor-001',
        topics: 'iotflow/devices/smart-temperature-sensor-001/#',
      },
    });
    const key = { 'x-api-key': body.device.api_key };
    // As in the documents: a heartbeat has no body.
    expect((await send('POST', '/devices/heartbeat', key)).body).toEqual({
      message: 'Heartbeat received',
      device_id: 'smart-temperature-sensor-001',
      id: 1,
      timestamp: '2026-01-01T00:00:00.000Z',
      status: 'online',
    });
    expect((await send('GET', '/devices/status', key)).body).toMatchObject({
      status: 'success',
      device: {
        firmware_version: '1.2.3',
        hardware_version: 'v2.1',
        location: 'Living Room',
        is_online: true,
      },
    });
    expect(await send('POST', '/devices/register', json, seedRegistration)).toMatchObject({
      status: 409,
      body: { error: { code: 'DEVICE_NAME_EXISTS' } },
    });
    expect(JSON.stringify(audited)).not.toContain(body.device.api_key);
    expect(audited).toMatchObject([
      { action: 'pairing.open' },
      { action: 'device.register', target: 'smart-temperature-sensor-001' },
    ]);
  });

  test('with no window open makes a device that waits until it is approved', async () => {
    const { send } = await house();
    const { status, body } = await send('POST', '/devices/register', json, seedRegistration);
    expect([status, body.device.status]).toEqual([201, 'pending']);
    const key = { 'x-api-key': body.device.api_key };
    expect((await send('GET', '/devices/status', key)).status).toBe(401);
    expect((await send('POST', '/admin/devices/1/approve', viewer)).status).toBe(403);
    expect((await send('POST', '/admin/devices/1/approve', json)).status).toBe(401);
    expect((await send('POST', '/admin/devices/1/approve', admin)).status).toBe(200);
    expect((await send('POST', '/admin/devices/1/approve', admin)).status).toBe(409);
    expect((await send('GET', '/devices/status', key)).status).toBe(200);
  });

  test('with a token works once, in the header or in the body', async () => {
    const { send } = await house();
    for (const place of ['header', 'body']) {
      const made = await send('POST', '/admin/enrolment/tokens', admin, { hours: 1, location: 'cellar' });
      expect(made.status).toBe(201);
      const token = made.body.enrolment_token as string;
      const listed = await send('GET', '/admin/enrolment/tokens', admin);
      expect(listed.body).toMatchObject({ count: 1 });
      expect(JSON.stringify(listed.body)).not.toContain(token);
      const register = (name: string) =>
        place === 'body'
          ? send('POST', '/devices/register', json, { name, enrolment_token: token })
          : send('POST', '/devices/register', { ...json, 'x-enrolment-token': token }, { name });
      expect((await register(`${place} 1`)).body.device.status).toBe('active');
      expect((await register(`${place} 2`)).body.error.code).toBe('ENROLMENT_TOKEN_INVALID');
    }
  });

  test.each([
    ['no name', {}, 'name'],
    ['a name of another type', { name: 7 }, 'name'],
    ['a name too long', { name: 'x'.repeat(129) }, 'name'],
    ['an id that is no topic level', { name: 'a', device_id: '../a' }, 'device_id'],
    ['a field nobody knows', { name: 'a', status: 'active' }, 'status'],
    ['a role it wants', { name: 'a', service: true }, 'service'],
    ['metadata that is a list', { name: 'a', metadata: [] }, 'metadata'],
  ])('is refused with the field that is wrong: %s', async (_what, body, field) => {
    const { send, registry } = await house();
    const refused = await send('POST', '/devices/register', json, body);
    expect([refused.status, refused.body.error.field]).toEqual([400, field]);
    expect(registry.list()).toEqual([]);
  });
});

describe('a device over HTTP', () => {
  async function withDevice() {
    const all = await house();
    const { apiKey } = await all.registry.add({ deviceId: 'probe', type: 'leak' });
    return { ...all, key: { ...json, 'x-api-key': apiKey } };
  }

  test('reads what it is to be set to and says what it is set to', async () => {
    const { send, key, registry } = await withDevice();
    expect((await send('PUT', '/admin/devices/probe/config', admin, { interval_s: 30 })).body).toMatchObject({
      desired: { version: 1, config: { interval_s: 30 } },
      reported: { version: 0, config: {} },
    });
    expect(
      (await send('PUT', '/admin/devices/1/config', admin, { interval_s: 30 })).body.desired.version,
    ).toBe(1);
    expect((await send('GET', '/devices/config', key)).body.desired).toMatchObject({ version: 1 });
    const report = { firmware_version: '2.0', config: { interval_s: 30 }, desired_version: 1 };
    expect((await send('PUT', '/devices/config', key, report)).body).toMatchObject({
      message: 'Device configuration updated successfully',
      device: { firmware_version: '2.0', status: 'active' },
      reported: { version: 1, desired_version: 1, config: { interval_s: 30 } },
    });
    const { revision } = registry.get('probe')!;
    await send('PUT', '/devices/config', key, report);
    expect(registry.get('probe')!.revision).toBe(revision);
    expect((await send('PUT', '/devices/config', key, { status: 'pending' })).body.error.field).toBe(
      'status',
    );
    const large = await send('PUT', '/admin/devices/probe/config', admin, { x: 'x'.repeat(20_000) });
    expect(large.body.error.code).toBe('DEVICE_CONFIG_INVALID');
  });

  test('takes a new key, the old one holding until the node has it', async () => {
    const { send, key, now } = await withDevice();
    const rotated = await send('POST', '/devices/rotate-key', key, { grace_seconds: 60 });
    const next = { 'x-api-key': rotated.body.api_key as string };
    const works = async () => [
      (await send('GET', '/devices/status', key)).status,
      (await send('GET', '/devices/status', next)).status,
    ];
    expect(await works()).toEqual([200, 200]);
    now.ms += 60_000;
    expect(await works()).toEqual([401, 200]);
  });

  test('may ask nothing of an administrator', async () => {
    const { send, key } = await withDevice();
    for (const [method, path] of [
      ['GET', '/admin/devices'],
      ['GET', '/admin/dashboard'],
      ['DELETE', '/admin/devices/probe'],
      ['POST', '/admin/enrolment/pairing'],
      ['POST', '/admin/devices/probe/rotate'],
    ] as const) {
      expect((await send(method, path, key)).status, path).toBe(403);
    }
  });
});

describe('an administrator', () => {
  test('lists devices by page, status and type', async () => {
    const { send, registry } = await house();
    for (const id of ['a', 'b', 'c'])
      await registry.add({ deviceId: id, type: id === 'c' ? 'meter' : 'leak' });
    await registry.revoke('b');
    const ids = async (query: string) => {
      const { body } = await send('GET', `/admin/devices${query}`, viewer);
      return [body.devices.map(({ device_id }: { device_id: string }) => device_id).join(), body.next];
    };
    expect(await ids('')).toEqual(['a,b,c', null]);
    expect(await ids('?limit=2')).toEqual(['a,b', 'b']);
    expect(await ids('?limit=2&after=b')).toEqual(['c', null]);
    expect(await ids('?status=inactive')).toEqual(['b', null]);
    expect(await ids('?type=meter')).toEqual(['c', null]);
    for (const query of ['?limit=0', '?limit=1001', '?status=x', '?sort=name']) {
      expect((await send('GET', `/admin/devices${query}`, viewer)).status, query).toBe(400);
    }
  });

  test('adds, changes, cuts off and removes a device, by id or number', async () => {
    const { send, audited } = await house();
    const added = await send('POST', '/admin/devices', admin, { device_id: 'probe', name: 'Probe' });
    const first = { 'x-api-key': added.body.device.api_key as string };
    expect((await send('PUT', '/admin/devices/1', admin, { location: 'attic' })).body.device).toMatchObject({
      name: 'Probe',
      location: 'attic',
    });
    expect((await send('PATCH', '/admin/devices/probe', admin, { status: 'inactive' })).status).toBe(200);
    expect((await send('GET', '/devices/status', first)).status).toBe(401);
    const rotated = await send('POST', '/admin/devices/1/rotate', admin);
    const second = { 'x-api-key': rotated.body.api_key as string };
    expect((await send('GET', '/devices/status', second)).status).toBe(200);
    const shown = await send('GET', '/admin/devices/1', viewer);
    expect(shown.body).toMatchObject({ device: { id: 1 }, keys: [{ expires_at: null }] });
    expect((await send('POST', '/admin/devices/probe/revoke', admin)).body.device.status).toBe('inactive');
    expect((await send('DELETE', '/admin/devices/1', admin)).body).toMatchObject({ device_id: 'probe' });
    for (const [method, path] of [
      ['GET', '/admin/devices/1'],
      ['DELETE', '/admin/devices/probe'],
      ['POST', '/admin/devices/__proto__/revoke'],
    ] as const) {
      expect((await send(method, path, admin)).status, path).toBe(404);
    }
    expect(audited.map((fact) => (fact as { action: string }).action)).toEqual([
      'device.add',
      'device.update',
      'device.update',
      'device.rotate',
      'device.revoke',
      'device.remove',
    ]);
  });

  test('removes a device with what it measured, and where that failed half way asks again', async () => {
    const { send, registry, eraseBy } = await house();
    await registry.add({ deviceId: 'probe' });
    const path = '/admin/devices/1?readings=delete';
    // Where nobody can delete them nothing is removed.
    expect(await send('DELETE', path, admin)).toMatchObject({
      status: 503,
      body: { error: { code: 'ERASURE_UNAVAILABLE' } },
    });
    expect(registry.get('probe')?.status).toBe('active');
    const erased: unknown[] = [];
    let remote = 'waiting';
    eraseBy(async (deviceId) => {
      erased.push([deviceId, registry.get(deviceId)?.status]);
      if (erased.length === 1) throw new GatewayError('JOURNAL_FULL', 'the disk is full');
      return { local: 'done', remote };
    });
    expect((await send('DELETE', path, admin)).status).toBe(503);
    expect(registry.get('probe')?.status).toBe('inactive');
    expect(await send('DELETE', path, admin)).toMatchObject({
      status: 202,
      body: { device_id: 'probe', erasure: { local: 'done', remote: 'waiting' } },
    });
    // It was cut off before its readings went.
    expect(erased).toEqual([
      ['probe', 'inactive'],
      ['probe', 'inactive'],
    ]);
    expect((await send('DELETE', path, admin)).status).toBe(404);
    remote = 'none';
    await registry.add({ deviceId: 'probe' });
    expect((await send('DELETE', '/admin/devices/probe?readings=delete', admin)).status).toBe(200);
    await registry.add({ deviceId: 'probe' });
    expect((await send('DELETE', '/admin/devices/probe?readings=all', admin)).body.error.field).toBe(
      'readings',
    );
    expect(await send('DELETE', '/admin/devices/probe?readings=keep', admin)).toMatchObject({
      status: 200,
      body: { note: 'Its readings stay' },
    });
    expect(erased).toHaveLength(3);
  });
});
