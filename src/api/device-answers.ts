// What the routes about devices answer, as schemas: for the OpenAPI document, and held against the answers by a test.

import * as v from 'valibot';

export const count = v.pipe(v.number(), v.integer());
export const time = v.pipe(v.string(), v.isoTimestamp());
export const timeOrNull = v.pipe(
  v.nullable(time),
  v.description('null: there was none, or nobody knows when'),
);

const text = v.string();
const deviceId = v.pipe(v.string(), v.examples(['smart-temperature-sensor-001']));
const object = v.record(v.string(), v.unknown());
const status = v.picklist(['active', 'inactive', 'maintenance', 'pending']);
const apiKey = v.pipe(v.string(), v.description('Told this once'), v.examples(['gw_…']));

const deviceEntries = {
  id: v.pipe(count, v.description('Given once, and to no other device'), v.examples([1])),
  device_id: deviceId,
  name: text,
  description: text,
  device_type: text,
  location: text,
  status,
  service: v.boolean(),
  firmware_version: text,
  hardware_version: text,
  metadata: object,
  created_at: timeOrNull,
  updated_at: timeOrNull,
  last_seen: timeOrNull,
  seen: v.pipe(v.boolean(), v.description('Something came from it, whenever that was')),
  online: v.boolean(),
  online_since: timeOrNull,
  offline_since: timeOrNull,
  key_ids: v.array(text),
};

export const deviceSchema = v.strictObject(deviceEntries);

const success = v.literal('success');

export const oneDevice = v.strictObject({ status: success, device: deviceSchema });

export const ownStatus = v.strictObject({
  status: success,
  device: v.strictObject({ ...deviceEntries, is_online: v.boolean() }),
});

export const addedDevice = v.strictObject({
  status: success,
  device: v.strictObject({ ...deviceEntries, api_key: apiKey }),
});

export const changedDevice = v.strictObject({ status: success, message: text, device: deviceSchema });

export const removedDevice = v.strictObject({
  status: success,
  message: text,
  device_id: deviceId,
  note: v.optional(text),
  erasure: v.optional(
    v.looseObject({
      local: v.picklist(['waiting', 'done']),
      remote: v.picklist(['none', 'waiting', 'done', 'refused']),
    }),
  ),
});

export const devicePage = v.strictObject({
  status: success,
  total_devices: count,
  count,
  devices: v.array(deviceSchema),
  next: v.pipe(v.nullable(text), v.description('`after` of the next question')),
});

export const registered = v.strictObject({
  message: text,
  device: v.strictObject({
    id: count,
    name: text,
    api_key: apiKey,
    status,
    device_type: text,
    created_at: timeOrNull,
    device_id: deviceId,
  }),
  mqtt: v.strictObject({ user_name: deviceId, topics: text }),
});

export const newKey = v.strictObject({
  device_id: deviceId,
  api_key: apiKey,
  old_key_ends_in_seconds: v.number(),
});

export const heard = v.strictObject({
  message: text,
  device_id: deviceId,
  id: count,
  timestamp: timeOrNull,
  status: v.literal('online'),
});

const configEntries = {
  desired: v.strictObject({ version: count, config: object, updated_at: timeOrNull }),
  reported: v.strictObject({
    version: count,
    config: object,
    desired_version: count,
    updated_at: timeOrNull,
  }),
};

export const bothConfigs = v.strictObject({ device_id: deviceId, ...configEntries });

export const setConfig = v.strictObject({
  device_id: deviceId,
  ...configEntries,
  command: v.pipe(
    v.nullable(v.strictObject({ command_id: text, state: text })),
    v.description('null: the device has it already, or may not come in now'),
  ),
});

export const reportedConfig = v.strictObject({ message: text, device: deviceSchema, ...configEntries });

export const wholeDevice = v.strictObject({
  status: success,
  device: deviceSchema,
  keys: v.array(v.strictObject({ key_id: text, created_at: timeOrNull, expires_at: timeOrNull })),
  configurations: v.strictObject(configEntries),
});

export const pairingWindow = v.strictObject({
  open: v.boolean(),
  ends_in_seconds: count,
  devices_left: count,
});

const tokenEntries = {
  token_id: text,
  name: v.nullable(text),
  device_type: v.nullable(text),
  location: v.nullable(text),
  created_at: timeOrNull,
  ends_in_seconds: count,
};

export const tokenList = v.strictObject({ tokens: v.array(v.strictObject(tokenEntries)), count });

export const addedToken = v.strictObject({
  ...tokenEntries,
  enrolment_token: v.pipe(v.string(), v.description('Told this once'), v.examples(['ge_…'])),
});
