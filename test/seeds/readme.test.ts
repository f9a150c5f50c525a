// The README's requests in its order, as somebody who follows it types them; then the routes of its tables.

import { expect, test } from 'vitest';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { adminOf, curl, send } from './asking.ts';
import { readme } from './documents.ts';

/** Of the README. It is nobody's here. */
const printedKey = 'rnby0SIR2kF8mN3Q7vX9L1cE6tA5Y4pB';

test('the README from registering a device to deleting it', async () => {
  const gateway = await openGateway(tempFolder());
  expect(await curl(gateway, readme.health)).toMatchObject({ status: 200 });

  await gateway.operations.get('devices.pair')?.({ for_ms: 300_000, devices_max: 1 });
  const registered = await curl(gateway, readme.register);
  expect(registered).toMatchObject({
    status: 201,
    body: {
      message: 'Device registered successfully',
      device: {
        id: 1,
        name: 'Smart Temperature Sensor 001',
        api_key: expect.stringMatching(/^gw_/),
        status: 'active',
        device_type: 'temperature_sensor',
        created_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      },
    },
  });
  const { api_key: key, device_id: deviceId } = registered.body.device as Record<string, string>;
  const withKey = { [printedKey]: key ?? '' };

  expect((await curl(gateway, readme.telemetry)).status).toBe(401);
  expect(await curl(gateway, readme.telemetry, withKey)).toMatchObject({
    status: 201,
    body: { device_id: deviceId, timestamp: '2025-07-02T14:30:00Z', dropped: ['metadata'] },
  });
  // Reading was open in the document.
  for (const line of [readme.latest, readme.range, readme.aggregated]) {
    expect((await curl(gateway, line)).status).toBe(401);
  }
  expect(await curl(gateway, readme.latest, {}, key)).toMatchObject({
    status: 200,
    body: {
      device_id: deviceId,
      device_name: 'Smart Temperature Sensor 001',
      latest_data: {
        timestamp: '2025-07-02T14:30:00Z',
        fields: {
          temperature: 23.5,
          humidity: 65.2,
          pressure: 1013.25,
          battery_level: 87,
          signal_strength: -52,
        },
      },
    },
  });
  // The document's reading is of 2025: now one of today.
  const today = { ...withKey, '2025-07-02T14:30:00Z': new Date().toISOString() };
  expect((await curl(gateway, readme.telemetry, today)).status).toBe(201);
  expect(await curl(gateway, readme.range, {}, key)).toMatchObject({
    body: { count: 1, data: [{ measurement: 'device_telemetry', fields: { temperature: 23.5 } }] },
  });
  const { body: aggregated } = await curl(gateway, readme.aggregated, {}, key);
  expect(aggregated).toMatchObject({ window: '1h', start_time: '-24h', aggregation: 'mean' });
  expect(aggregated.data).toContainEqual(
    expect.objectContaining({ field: 'humidity', aggregation: 'mean', value: 65.2 }),
  );
  expect(await curl(gateway, readme.heartbeat, withKey)).toMatchObject({
    status: 200,
    body: { status: 'online' },
  });

  const admin = await adminOf(gateway);
  expect((await curl(gateway, readme.status)).status).toBe(401);
  expect(await curl(gateway, readme.status, {}, admin)).toMatchObject({
    status: 200,
    body: { status: 'degraded' },
  });
  expect((await curl(gateway, readme.dashboard)).status).toBe(401);
  expect(await curl(gateway, readme.dashboard, {}, admin)).toMatchObject({
    status: 200,
    body: { status: 'success' },
  });

  // Its tables have more routes than its examples.
  const asDevice = (line: string, body = '') => send(gateway, `${line}\nX-API-Key: ${key}\n${body}`);
  const asAdmin = (line: string, body = '') => send(gateway, `${line}\nX-API-Key: ${admin}\n${body}`);
  const json = (value: unknown) => `Content-Type: application/json\n\n${JSON.stringify(value)}`;
  expect(await asDevice('GET /api/v1/devices/status')).toMatchObject({
    status: 200,
    body: { status: 'success', device: { id: 1, name: 'Smart Temperature Sensor 001', is_online: true } },
  });
  expect(await asDevice('PUT /api/v1/devices/config', json({ firmware_version: '1.2.4' }))).toMatchObject({
    status: 200,
    body: { device: { firmware_version: '1.2.4' } },
  });
  expect(await asAdmin('GET /api/v1/admin/devices')).toMatchObject({
    status: 200,
    body: { total_devices: 1 },
  });
  expect(await asAdmin('GET /api/v1/admin/devices/1')).toMatchObject({
    status: 200,
    body: { device: { firmware_version: '1.2.4', hardware_version: 'v2.1', location: 'Living Room' } },
  });
  expect(await asAdmin('PUT /api/v1/admin/devices/1', json({ location: 'Kitchen' }))).toMatchObject({
    status: 200,
    body: { device: { location: 'Kitchen' } },
  });
  expect((await asDevice('DELETE /api/v1/telemetry/1')).status).toBe(403);
  expect(await asAdmin('DELETE /api/v1/telemetry/1')).toMatchObject({
    status: 200,
    body: { device_id: deviceId, erasure: { local: 'done', remote: 'none' } },
  });
  expect((await curl(gateway, readme.latest, {}, key)).status).toBe(404);
  expect((await asAdmin('DELETE /api/v1/admin/devices/1')).status).toBe(200);
  expect((await curl(gateway, readme.heartbeat, withKey)).status).toBe(401);
  // What it measured can be deleted after the device.
  expect((await asAdmin(`DELETE /api/v1/telemetry/${deviceId}`)).status).toBe(200);
  expect((await asAdmin('DELETE /api/v1/telemetry/no%20device')).status).toBe(404);
});

test('registering as the README does it waits for an administrator when nothing else lets the device in', async () => {
  const gateway = await openGateway(tempFolder());
  const { status, body } = await curl(gateway, readme.register);
  expect({ status, ...body.device }).toMatchObject({ status: 'pending', id: 1 });
  expect((await curl(gateway, readme.heartbeat, { [printedKey]: body.device.api_key })).status).toBe(401);
  await gateway.operations.get('devices.approve')?.({ device_id: body.device.device_id });
  expect((await curl(gateway, readme.heartbeat, { [printedKey]: body.device.api_key })).status).toBe(200);
});
