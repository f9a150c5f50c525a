// The administrator's devices: list, look, change, cut off, remove, and the dashboard that sums the gateway up.

import * as v from 'valibot';
import { shownTime } from '../../platform/shown-time.ts';
import type { RegistryParts } from '../../registry/operations.ts';
import {
  addedDevice,
  bothConfigs,
  changedDevice,
  devicePage,
  newKey,
  oneDevice,
  removedDevice,
  setConfig,
  wholeDevice,
} from '../device-answers.ts';
import {
  deviceIdText,
  deviceName,
  deviceOf,
  deviceRef,
  factEntries,
  factsOf,
  graceBody,
  jsonObject,
} from '../device-input.ts';
import { type Answer, actorOf, type Method, type Route, type RouteRequest, route } from '../route.ts';

const limitDefault = 100;
const limitMax = 1_000;
const statuses = ['active', 'inactive', 'maintenance', 'pending'] as const;

const unknown = { 404: 'There is no such device' };

const listQuery = v.strictObject({
  limit: v.optional(
    v.pipe(v.string(), v.regex(/^([1-9]\d{0,2}|1000)$/, `a whole number from 1 to ${limitMax}`)),
  ),
  after: v.optional(
    v.pipe(v.string('"next" of the answer before'), v.maxLength(64, '"next" of the answer before')),
  ),
  status: v.optional(v.picklist(statuses, `one of ${statuses.join(', ')}`)),
  type: v.optional(v.string('a device type')),
});

const changesBody = v.strictObject({
  name: v.optional(deviceName),
  status: v.optional(v.picklist(['active', 'inactive', 'maintenance'], 'active, inactive or maintenance')),
  ...factEntries,
});

/** Whether nothing of the readings is left, here and in InfluxDB. */
function isErased(erasure: unknown): boolean {
  const { local, remote } = erasure as { readonly local?: unknown; readonly remote?: unknown };
  return local === 'done' && (remote === 'none' || remote === 'done');
}

export function adminRoutes({ registry, configs, remove, show, showConfig }: RegistryParts): Route[] {
  const update = async ({
    params,
    body: { status, ...facts },
  }: Pick<
    RouteRequest<v.InferOutput<typeof deviceRef>, unknown, v.InferOutput<typeof changesBody>>,
    'params' | 'body'
  >): Promise<Answer> => {
    const { deviceId } = deviceOf(registry, params.id);
    const changes = { ...factsOf(facts), ...(status === undefined ? {} : { status }) };
    const device = show(await registry.update(deviceId, changes));
    return {
      status: 200,
      body: { status: 'success', message: 'Device updated successfully', device },
      audited: { target: deviceId, detail: { changed: Object.keys(changes).join(', ') } },
    };
  };
  const updateRoute = (method: Method): Route =>
    route({
      method,
      path: '/api/v1/admin/devices/{id}',
      tag: 'admin',
      summary: 'Change what is known of a device, or its status; what is left out stays',
      access: ['admin'],
      audit: 'device.update',
      params: deviceRef,
      body: changesBody,
      answers: {
        200: { description: 'The device', schema: changedDevice },
        ...unknown,
        409: 'The name is taken, or the device waits for approval',
      },
      handle: update,
    });
  return [
    route({
      method: 'GET',
      path: '/api/v1/admin/devices',
      tag: 'admin',
      summary: 'The devices, in the order of their ids',
      access: ['service', 'viewer'],
      query: listQuery,
      answers: {
        200: { description: 'A page of them; `next` leads on, null at the end', schema: devicePage },
      },
      handle: ({ query: { limit, after = '', status, type } }) => {
        const all = registry.list();
        const found = all.filter(
          (device) =>
            (status === undefined || device.status === status) &&
            (type === undefined || device.type === type),
        );
        const rest = found.filter(({ deviceId }) => deviceId > after);
        const page = rest.slice(0, Number(limit ?? limitDefault));
        const next = page.length < rest.length ? (page.at(-1)?.deviceId ?? null) : null;
        const devices = page.map(show);
        const body = { status: 'success', total_devices: found.length, count: devices.length, devices, next };
        return { status: 200, body };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/admin/devices',
      tag: 'admin',
      summary: 'Add a device',
      access: ['admin'],
      audit: 'device.add',
      body: v.strictObject({
        device_id: deviceIdText,
        name: v.optional(deviceName),
        service: v.optional(v.boolean('true or false')),
        ...factEntries,
      }),
      answers: {
        201: { description: 'The device and its key, told this once', schema: addedDevice },
        409: 'The id or the name is taken',
      },
      handle: async ({ body: { device_id, service = false, ...facts } }) => {
        const { device, apiKey } = await registry.add({ deviceId: device_id, service, ...factsOf(facts) });
        return {
          status: 201,
          body: { status: 'success', device: { ...show(device), api_key: apiKey } },
          audited: { target: device_id, detail: { service } },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/admin/devices/{id}',
      tag: 'admin',
      summary: 'Everything known of a device',
      access: ['service', 'viewer'],
      params: deviceRef,
      answers: {
        200: {
          description: 'The device, its keys without their texts, its configurations',
          schema: wholeDevice,
        },
        ...unknown,
      },
      handle: async ({ params }) => {
        const device = deviceOf(registry, params.id);
        const keys = device.keys.map(({ keyId, createdMs, expiresMs }) => ({
          key_id: keyId,
          created_at: shownTime(createdMs),
          expires_at: shownTime(expiresMs),
        }));
        const configurations = showConfig(await configs.of(device));
        return { status: 200, body: { status: 'success', device: show(device), keys, configurations } };
      },
    }),
    updateRoute('PUT'),
    updateRoute('PATCH'),
    route({
      method: 'DELETE',
      path: '/api/v1/admin/devices/{id}',
      tag: 'admin',
      summary: 'Remove a device, its keys and its connections for good; its readings as well if that is said',
      access: ['admin'],
      audit: 'device.remove',
      params: deviceRef,
      query: v.strictObject({ readings: v.optional(v.picklist(['keep', 'delete'], 'keep or delete')) }),
      answers: {
        200: { description: 'It is gone', schema: removedDevice },
        202: {
          description: 'It is gone, its readings are going: `erasure` says how far',
          schema: removedDevice,
        },
        ...unknown,
      },
      handle: async ({ params, query }) => {
        const isWithReadings = query.readings === 'delete';
        const { deviceId, name, erasure } = await remove(params.id, isWithReadings);
        return {
          status: isWithReadings && !isErased(erasure) ? 202 : 200,
          body: {
            status: 'success',
            message: `Device ${name} deleted successfully`,
            device_id: deviceId,
            ...(isWithReadings ? { erasure } : { note: 'Its readings stay' }),
          },
          audited: { target: deviceId, detail: { readings: isWithReadings ? 'deleted' : 'kept' } },
        };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/admin/devices/{id}/rotate',
      tag: 'admin',
      summary: 'A new key for a device; the old ones end at once unless told otherwise',
      access: ['admin'],
      audit: 'device.rotate',
      params: deviceRef,
      body: graceBody,
      answers: { 200: { description: 'The new key, told this once', schema: newKey }, ...unknown },
      handle: async ({ params, body }) => {
        const graceMs = (body?.grace_seconds ?? 0) * 1000;
        const { device, apiKey } = await registry.rotate(deviceOf(registry, params.id).deviceId, { graceMs });
        return {
          status: 200,
          body: { device_id: device.deviceId, api_key: apiKey, old_key_ends_in_seconds: graceMs / 1000 },
          audited: { target: device.deviceId },
        };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/admin/devices/{id}/revoke',
      tag: 'admin',
      summary: 'End every key of a device and its connections',
      access: ['admin'],
      audit: 'device.revoke',
      params: deviceRef,
      answers: { 200: { description: 'The device, inactive', schema: oneDevice }, ...unknown },
      handle: async ({ params }) => {
        const device = await registry.revoke(deviceOf(registry, params.id).deviceId);
        const body = { status: 'success', device: show(device) };
        return { status: 200, body, audited: { target: device.deviceId } };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/admin/devices/{id}/config',
      tag: 'admin',
      summary: 'What a device is to be set to, and what it last said it is',
      access: ['service', 'viewer'],
      params: deviceRef,
      answers: { 200: { description: 'Both, with their versions', schema: bothConfigs }, ...unknown },
      handle: async ({ params }) => {
        const device = deviceOf(registry, params.id);
        return { status: 200, body: { device_id: device.deviceId, ...showConfig(await configs.of(device)) } };
      },
    }),
    route({
      method: 'PUT',
      path: '/api/v1/admin/devices/{id}/config',
      tag: 'admin',
      summary: 'Set what a device is to be set to: the body is the whole document',
      access: ['admin'],
      audit: 'device.configure',
      params: deviceRef,
      body: jsonObject,
      answers: {
        200: {
          description: 'Both, with their versions, and the command that takes it there',
          schema: setConfig,
        },
        ...unknown,
      },
      handle: async (request) => {
        const { params, body } = request;
        const device = deviceOf(registry, params.id);
        const { command, ...config } = await configs.setDesired(device, body, actorOf(request));
        const both = showConfig(config);
        const sent = command === undefined ? null : { command_id: command.id, state: command.state };
        return {
          status: 200,
          body: { device_id: device.deviceId, ...both, command: sent },
          audited: { target: device.deviceId, detail: { version: both.desired.version } },
        };
      },
    }),
  ];
}
