// What requests say about devices: the schemas that the routes for devices, enrolment and administrators share, and
// the way from their names to ours.

import * as v from 'valibot';
import { GatewayError } from '../platform/errors.ts';
import type { Device, DeviceFacts } from '../registry/device.ts';
import type { Registry } from '../registry/registry.ts';

const label = 'text of at most 128 characters';

function text(example: string, expected = label, max = 128) {
  return v.pipe(v.string(expected), v.maxLength(max, expected), v.examples([example]));
}

/** To valibot a list is a record too. */
export const jsonObject = v.pipe(
  v.unknown(),
  v.check((given) => !Array.isArray(given), 'a JSON object'),
  v.record(v.string(), v.unknown(), 'a JSON object'),
);

/** Facts that any body about a device may have. The registry looks closer. */
export const factEntries = {
  description: v.optional(text('Living room environmental sensor', 'text of at most 512 characters', 512)),
  device_type: v.optional(text('temperature_sensor')),
  location: v.optional(text('Living Room')),
  firmware_version: v.optional(text('1.2.3')),
  hardware_version: v.optional(text('v2.1')),
  metadata: v.optional(jsonObject),
};

export const deviceName = v.pipe(
  v.string('text of 1 to 128 characters'),
  v.minLength(1, 'text of 1 to 128 characters'),
  v.maxLength(128, 'text of 1 to 128 characters'),
  v.examples(['Smart Temperature Sensor 001']),
);

export const deviceIdText = v.pipe(
  v.string('a device id'),
  v.regex(
    /^[a-z0-9][a-z0-9_-]{0,63}$/,
    '1 to 64 characters of a-z, 0-9, - and _, the first a letter or digit',
  ),
  v.examples(['smart-temperature-sensor-001']),
);

/** A device id or the number of a device, in a path. */
export const deviceRef = v.object({
  id: v.pipe(v.string('a device id, or the number of a device'), v.examples(['1'])),
});

export const graceBody = v.optional(
  v.strictObject({
    grace_seconds: v.optional(
      v.pipe(
        v.number('a whole number from 0 to 2592000'),
        v.integer('a whole number from 0 to 2592000'),
        v.minValue(0, 'a whole number from 0 to 2592000'),
        v.maxValue(2_592_000, 'a whole number from 0 to 2592000'),
      ),
    ),
  }),
);

interface GivenFacts {
  readonly name?: string | undefined;
  readonly description?: string | undefined;
  readonly device_type?: string | undefined;
  readonly location?: string | undefined;
  readonly firmware_version?: string | undefined;
  readonly hardware_version?: string | undefined;
  readonly metadata?: DeviceFacts['metadata'] | undefined;
}

export function factsOf(given: GivenFacts): Partial<DeviceFacts> {
  const facts = {
    name: given.name,
    description: given.description,
    type: given.device_type,
    location: given.location,
    firmwareVersion: given.firmware_version,
    hardwareVersion: given.hardware_version,
    metadata: given.metadata,
  };
  return Object.fromEntries(Object.entries(facts).filter(([, value]) => value !== undefined));
}

/** @throws GatewayError `DEVICE_UNKNOWN`. */
export function deviceOf(registry: Pick<Registry, 'find'>, id: string): Device {
  const device = registry.find(id);
  if (device !== undefined) return device;
  throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(id.slice(0, 80))}`);
}
