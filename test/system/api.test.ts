// The HTTP API of a whole gateway: what a person or a program can do about an alarm.

import { expect, test } from 'vitest';
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

  await gateway.operations.get('devices.revoke')?.({ device_id: 'home' });
  expect(await get('/api/v1/gateway', home)).toMatchObject({ status: 401 });
});
