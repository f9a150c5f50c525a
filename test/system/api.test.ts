// The HTTP API of a whole gateway: what a person or a program can do about an alarm.

import { setTimeout as sleep } from 'node:timers/promises';
import { Validator } from '@seriousme/openapi-schema-validator';
import * as v from 'valibot';
import { expect, test } from 'vitest';
import { adminRoutes } from '../../src/api/routes/admin.ts';
import { alarmRoutes } from '../../src/api/routes/alarms.ts';
import { dashboardRoutes } from '../../src/api/routes/dashboard.ts';
import { deviceRoutes } from '../../src/api/routes/devices.ts';
import { enrolmentRoutes } from '../../src/api/routes/enrolment.ts';
import { gatewayRoutes } from '../../src/api/routes/gateway.ts';
import { pageRoutes } from '../../src/api/routes/pages.ts';
import { ask, type Reply } from '../support/api.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { isSounding, makeLed } from '../support/led.ts';
import { tempFolder } from '../support/temp.ts';

test('an alarm is seen and silenced by anyone, and acknowledged with the key of its device or a service account', async () => {
  const folder = tempFolder();
  const led = makeLed(folder);
  const gateway = await openGateway(folder, { buzzer: { led } });
  const probes = [];
  for (const id of ['bath-probe', 'cellar-probe', 'kitchen-probe']) {
    const probe = await connectDevice(gateway, id);
    await probe.publishAsync(`iotflow/devices/${id}/telemetry/leak`, '{"wet": true}', { qos: 1 });
    probes.push(probe.apiKey);
  }
  const [bath = '', cellar = ''] = probes;
  const { apiKey: home } = await connectDevice(gateway, 'home', { service: true });
  const api = { port: gateway.ports.http };
  const parsed = ({ status, body }: Reply) => ({ status, ...(JSON.parse(body) as object) });
  const get = async (path: string, key = '') => parsed(await ask(api, path, 'GET', { 'x-api-key': key }));
  const post = async (path: string, key = '') => parsed(await ask(api, path, 'POST', { 'x-api-key': key }));

  expect(await get('/api/v1/alarms')).toMatchObject({ status: 200, count: 3, sound: 'critical' });
  expect(isSounding(led)).toBe(true);
  expect(await post('/api/v1/alarms/silence')).toMatchObject({ status: 200, for_ms: 600_000 });
  expect(isSounding(led)).toBe(false);
  expect(await get('/api/v1/alarms')).toMatchObject({ count: 3, sound: 'off', is_silenced: true });

  const bathAlarm = '/api/v1/alarms/wet%2Fbath-probe/acknowledge';
  expect(await post(bathAlarm)).toMatchObject({ status: 401 });
  expect(await post(bathAlarm, cellar)).toMatchObject({ status: 403, error: { code: 'FORBIDDEN' } });
  expect(await post(bathAlarm, bath)).toEqual({ status: 200, acknowledged: ['wet/bath-probe'], count: 1 });
  expect(await post('/api/v1/alarms/acknowledge', cellar)).toMatchObject({
    acknowledged: ['wet/cellar-probe'],
  });
  expect(await post('/api/v1/alarms/wet%2Fattic/acknowledge', home)).toMatchObject({
    status: 404,
    error: { code: 'ALARM_UNKNOWN' },
  });
  expect(await post('/api/v1/alarms/acknowledge', home)).toMatchObject({
    acknowledged: ['wet/kitchen-probe'],
  });
  expect(await get('/api/v1/gateway', home)).toMatchObject({
    status: 200,
    gateway_id: 'test',
    devices: { count: 4 },
    alarms: { count: 3, sound: 'off' },
  });
  const audit = JSON.stringify(await gateway.operations.get('audit.list')?.({}));
  expect(audit).toContain(
    '"actor":"device:bath-probe","action":"alarm.acknowledge","target":"wet/bath-probe"',
  );
  expect(audit).toContain('service:home');
  expect(audit).toContain('"actor":"anyone@127.0.0.1","action":"alarm.silence","target":"all"');

  await gateway.operations.get('devices.revoke')?.({ device_id: 'home' });
  expect(await get('/api/v1/gateway', home)).toMatchObject({ status: 401 });
});

test('an API token of a user is a key, until it is revoked', async () => {
  const gateway = await openGateway(tempFolder());
  const call = async (name: string, args: Record<string, unknown>) =>
    (await gateway.operations.get(name)?.(args)) as { id: string; token: string };
  await call('users.add', { name: 'anna', role: 'viewer', password: 'correct horse battery' });
  const { id, token } = await call('users.token_add', { name: 'anna', label: 'shell' });
  const statusOf = async (key: string) => {
    const { status } = await ask({ port: gateway.ports.http }, '/api/v1/gateway', 'GET', {
      authorization: `Bearer ${key}`,
    });
    return status;
  };
  expect([await statusOf(token), await statusOf(`${token}x`)]).toEqual([200, 401]);
  await call('users.token_revoke', { name: 'anna', id });
  expect(await statusOf(token)).toBe(401);
});

test('the OpenAPI document is valid, has every route, and the gateway answers as it says', async () => {
  const gateway = await openGateway(tempFolder());
  const probe = await connectDevice(gateway, 'kitchen-probe');
  await probe.publishAsync('iotflow/devices/kitchen-probe/telemetry/leak', '{"wet": true}', { qos: 1 });
  const { apiKey } = await connectDevice(gateway, 'home', { service: true });
  const api = { port: gateway.ports.http };
  const document = JSON.parse((await ask(api, '/api/v1/openapi.json')).body) as {
    paths: Record<string, Record<string, { responses: Record<string, unknown> }>>;
  };
  const { valid, errors } = await new Validator().validate(structuredClone(document));
  expect({ valid, errors }).toEqual({ valid: true, errors: undefined });

  const devices = {} as Parameters<typeof adminRoutes>[0];
  // The same schemas the document is made of.
  const schemas = new Map(
    [
      ...pageRoutes({ health: () => gateway.health(), metrics: () => [] }),
      ...alarmRoutes({} as Parameters<typeof alarmRoutes>[0]),
      ...gatewayRoutes(() => gateway.figures()),
      ...enrolmentRoutes(devices, 'iotflow'),
      ...deviceRoutes(devices, { wallMs: () => 0 }),
      ...adminRoutes(devices),
      ...dashboardRoutes(
        devices,
        () => gateway.figures(),
        () => 0,
      ),
    ].map(({ method, path, answers }) => [`${method} ${path}`, answers]),
  );
  const described = Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, { responses }]) => ({
      path,
      method: method.toUpperCase(),
      responses,
    })),
  );
  for (const { method, path, responses } of described) {
    for (const key of ['', apiKey]) {
      const asked = path.replace('{id}', 'wet%2Fkitchen-probe').replace(/\{\w+\}/, 'kitchen-probe');
      const answered = () => ask(api, asked, method, { 'x-api-key': key });
      let { status, body, headers } = await answered();
      // There are more routes than an address may ask at once without a key.
      while (status === 429) {
        await sleep(Number(headers['retry-after']) * 1000);
        ({ status, body, headers } = await answered());
      }
      expect(Object.keys(responses), `${method} ${path}`).toContain(String(status));
      const form = schemas.get(`${method} ${path}`)?.[status];
      if (typeof form !== 'object' || form.schema === undefined) continue;
      const answer: unknown = form.contentType === undefined ? JSON.parse(body) : body;
      const { issues = [] } = v.safeParse(form.schema, answer);
      expect(issues.map((issue) => `${path} ${v.getDotPath(issue)}: ${issue.message}`)).toEqual([]);
    }
  }
  const names = described.map(({ method, path }) => `${method} ${path}`);
  expect(names).toEqual(expect.arrayContaining([...schemas.keys()]));
});
