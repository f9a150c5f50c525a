// How devices get in over HTTP: the registration the IoTFlow documents describe, without its hole, and what an
// administrator does to let them in. A key is told once.

import * as v from 'valibot';
import { shownTime } from '../../platform/shown-time.ts';
import type { EnrolmentToken } from '../../registry/enrolment.ts';
import type { RegistryParts } from '../../registry/operations.ts';
import { addedToken, pairingWindow, registered, tokenList } from '../device-answers.ts';
import { deviceIdText, deviceName, factEntries, factsOf } from '../device-input.ts';
import { type Answer, type Route, route } from '../route.ts';

const tokenText = v.pipe(v.string('an enrolment token'), v.maxLength(128, 'an enrolment token'));

function whole(min: number, max: number) {
  const expected = `a whole number from ${min} to ${max}`;
  return v.pipe(
    v.number(expected),
    v.integer(expected),
    v.minValue(min, expected),
    v.maxValue(max, expected),
  );
}

export function enrolmentRoutes({ registry, enrolment }: RegistryParts, root: string): Route[] {
  const showToken = (token: EnrolmentToken) => ({
    token_id: token.tokenId,
    name: token.name ?? null,
    device_type: token.type ?? null,
    location: token.location ?? null,
    created_at: shownTime(token.createdMs),
    ends_in_seconds: Math.ceil(enrolment.lifeLeftMs(token) / 1000),
  });
  const pairing = (): Answer => {
    const { isOpen, leftMs, leftDevices } = enrolment.pairing();
    const body = { open: isOpen, ends_in_seconds: Math.ceil(leftMs / 1000), devices_left: leftDevices };
    return { status: 200, body };
  };
  return [
    route({
      method: 'POST',
      path: '/api/v1/devices/register',
      tag: 'devices',
      summary: 'Register a device',
      description:
        'Active at once while a pairing window is open or with an enrolment token; else pending, and its key works when an administrator approves it.',
      access: 'anyone',
      audit: 'device.register',
      body: v.strictObject({
        name: deviceName,
        device_id: v.optional(deviceIdText),
        ...factEntries,
        enrolment_token: v.optional(tokenText),
      }),
      answers: {
        201: { description: 'The device and its key, told this once', schema: registered },
        403: 'No window is open, no token was given, and nobody may wait',
        409: 'The name or the device id is taken',
        507: 'There are as many devices, or as many that wait, as there may be',
      },
      handle: async ({ body, headers }) => {
        const { name, device_id, enrolment_token } = body;
        const inHeader = headers['x-enrolment-token'];
        const token = enrolment_token ?? (typeof inHeader === 'string' ? inHeader : undefined);
        const given = { ...factsOf(body), name, ...(device_id === undefined ? {} : { deviceId: device_id }) };
        const { device, apiKey } = await enrolment.register(given, token);
        const isPending = device.status === 'pending';
        return {
          status: 201,
          body: {
            message: isPending
              ? 'Device registered; its key works when an administrator approves it'
              : 'Device registered successfully',
            device: {
              id: device.id,
              name: device.name,
              api_key: apiKey,
              status: device.status,
              device_type: device.type,
              created_at: shownTime(device.createdMs),
              device_id: device.deviceId,
            },
            mqtt: { user_name: device.deviceId, topics: `${root}/devices/${device.deviceId}/#` },
          },
          audited: { target: device.deviceId, detail: { status: device.status } },
        };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/admin/devices/{id}/approve',
      tag: 'enrolment',
      summary: 'Let in a device that registered by itself',
      access: ['admin'],
      audit: 'device.approve',
      params: v.object({ id: v.string() }),
      answers: { 200: 'Its key works', 404: 'There is no such device', 409: 'It does not wait' },
      handle: async ({ params }) => {
        const { deviceId } = registry.find(params.id) ?? { deviceId: params.id };
        const { id, status } = await registry.approve(deviceId);
        return { status: 200, body: { status: 'success', device: { id, device_id: deviceId, status } } };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/admin/enrolment/pairing',
      tag: 'enrolment',
      summary: 'Whether a pairing window is open, and for how long',
      access: ['viewer'],
      answers: { 200: { description: 'The window', schema: pairingWindow } },
      handle: pairing,
    }),
    route({
      method: 'POST',
      path: '/api/v1/admin/enrolment/pairing',
      tag: 'enrolment',
      summary: 'Open a pairing window: devices that register are active at once',
      access: ['admin'],
      audit: 'pairing.open',
      body: v.optional(
        v.strictObject({ seconds: v.optional(whole(10, 3_600)), devices_max: v.optional(whole(1, 100)) }),
      ),
      answers: { 200: { description: 'The window', schema: pairingWindow } },
      handle: ({ body }) => {
        enrolment.openPairing({ forMs: (body?.seconds ?? 300) * 1000, devicesMax: body?.devices_max ?? 10 });
        return pairing();
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/v1/admin/enrolment/pairing',
      tag: 'enrolment',
      summary: 'Close the pairing window',
      access: ['admin'],
      audit: 'pairing.close',
      answers: { 200: { description: 'The window', schema: pairingWindow } },
      handle: () => {
        enrolment.closePairing();
        return pairing();
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/admin/enrolment/tokens',
      tag: 'enrolment',
      summary: 'The enrolment tokens that were not used',
      access: ['admin'],
      answers: { 200: { description: 'The tokens, without their texts', schema: tokenList } },
      handle: () => {
        const tokens = enrolment.tokens().map(showToken);
        return { status: 200, body: { tokens, count: tokens.length } };
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/admin/enrolment/tokens',
      tag: 'enrolment',
      summary: 'Make a token with which one device may register',
      access: ['admin'],
      audit: 'token.add',
      body: v.optional(
        v.strictObject({
          hours: v.optional(whole(1, 720)),
          name: v.optional(deviceName),
          device_type: factEntries.device_type,
          location: factEntries.location,
        }),
      ),
      answers: {
        201: { description: 'The token, told this once', schema: addedToken },
        507: 'There are as many as there may be',
      },
      handle: async ({ body = {} }) => {
        const { token, text } = await enrolment.addToken((body.hours ?? 24) * 3_600_000, factsOf(body));
        return {
          status: 201,
          body: { ...showToken(token), enrolment_token: text },
          audited: { target: token.tokenId },
        };
      },
    }),
    route({
      method: 'DELETE',
      path: '/api/v1/admin/enrolment/tokens/{token_id}',
      tag: 'enrolment',
      summary: 'End a token',
      access: ['admin'],
      audit: 'token.revoke',
      params: v.object({ token_id: v.string() }),
      answers: { 200: 'It lets nobody in any more', 404: 'There is no such token' },
      handle: async ({ params }) => {
        await enrolment.revokeToken(params.token_id);
        return { status: 200, body: { token_id: params.token_id, revoked: true } };
      },
    }),
  ];
}
