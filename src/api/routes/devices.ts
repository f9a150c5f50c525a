// What a device asks about itself: its state, its heartbeat, its configuration, a new key. A request that carries its
// key is a sign of life already.

import assert from 'node:assert/strict';
import * as v from 'valibot';
import { shownTime } from '../../platform/shown-time.ts';
import type { Device } from '../../registry/device.ts';
import type { RegistryParts } from '../../registry/operations.ts';
import { bothConfigs, heard, newKey, ownStatus, reportedConfig } from '../device-answers.ts';
import { factEntries, factsOf, graceBody, jsonObject } from '../device-input.ts';
import { type Caller, type Route, route } from '../route.ts';

/** A node has to be told its new key, and to save it, before the old one ends. */
const graceSeconds = 3_600;

export function deviceRoutes(
  { registry, presence, configs, budget, report, show, showConfig }: RegistryParts,
  time: { readonly wallMs: () => number },
): Route[] {
  const callerDevice = (caller: Caller): Device => {
    assert(
      caller.kind === 'device' || caller.kind === 'service',
      'BUG: a route of devices let somebody else in',
    );
    const device = registry.get(caller.deviceId);
    assert(device !== undefined, 'BUG: the key of no device was taken');
    return device;
  };
  return [
    route({
      method: 'GET',
      path: '/api/v1/devices/status',
      tag: 'devices',
      summary: 'What the gateway knows of the device that asks',
      access: ['device', 'service'],
      answers: { 200: { description: 'The device', schema: ownStatus } },
      handle: ({ caller }) => {
        const device = show(callerDevice(caller));
        return { status: 200, body: { status: 'success', device: { ...device, is_online: device.online } } };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/devices/heartbeat',
      tag: 'devices',
      summary: 'Say that the device is there',
      access: ['device', 'service'],
      answers: { 200: { description: 'It was heard', schema: heard } },
      handle: ({ caller }) => {
        const { deviceId, id } = callerDevice(caller);
        presence.said(deviceId, 'heartbeat');
        return {
          status: 200,
          body: {
            message: 'Heartbeat received',
            device_id: deviceId,
            id,
            timestamp: shownTime(time.wallMs()),
            status: 'online',
          },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/devices/config',
      tag: 'devices',
      summary: 'What the device is to be set to, and what it last said it is',
      access: ['device', 'service'],
      answers: { 200: { description: 'Both, with their versions', schema: bothConfigs } },
      handle: async ({ caller }) => {
        const device = callerDevice(caller);
        return { status: 200, body: { device_id: device.deviceId, ...showConfig(await configs.of(device)) } };
      },
    }),
    route({
      method: 'PUT',
      path: '/api/v1/devices/config',
      tag: 'devices',
      summary: 'Say what the device is set to, and which versions it runs',
      access: ['device', 'service'],
      audit: 'device.report',
      body: v.strictObject({
        status: v.optional(v.picklist(['active', 'maintenance'], 'active or maintenance')),
        location: factEntries.location,
        firmware_version: factEntries.firmware_version,
        hardware_version: factEntries.hardware_version,
        config: v.optional(jsonObject),
        desired_version: v.optional(
          v.pipe(
            v.number('the version of the desired configuration it took over'),
            v.integer('the version of the desired configuration it took over'),
            v.minValue(0, 'the version of the desired configuration it took over'),
          ),
        ),
      }),
      answers: { 200: { description: 'The device and both configurations', schema: reportedConfig } },
      handle: async ({ caller, body }) => {
        const { status, config, desired_version: desiredVersion } = body;
        const facts = { ...factsOf(body), ...(status === undefined ? {} : { status }) };
        const taken = await report(callerDevice(caller), { facts, config, desiredVersion });
        const { device, isNews } = taken;
        const message = 'Device configuration updated successfully';
        const answer = { message, device: show(device), ...showConfig(taken.config) };
        // Without news, again and again, it would push out what else is in the audit log.
        return { status: 200, body: answer, audited: isNews ? { target: device.deviceId } : 'nothing' };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/devices/rotate-key',
      tag: 'devices',
      summary:
        'A new key for the device that asks; the old one holds an hour longer unless it says otherwise',
      access: ['device', 'service'],
      audit: 'device.rotate',
      body: graceBody,
      answers: { 200: { description: 'The new key, told this once', schema: newKey } },
      handle: async ({ caller, body }) => {
        const graceMs = (body?.grace_seconds ?? graceSeconds) * 1000;
        const asking = callerDevice(caller);
        budget.spend(asking.deviceId);
        const { device, apiKey } = await registry.rotate(asking.deviceId, { graceMs, asking });
        return {
          status: 200,
          body: { device_id: device.deviceId, api_key: apiKey, old_key_ends_in_seconds: graceMs / 1000 },
          audited: { target: device.deviceId },
        };
      },
    }),
  ];
}
