// What an operator may do with devices, by name: one implementation for the control socket of a running gateway
// and for the command line beside a stopped one. Arguments come from outside and are checked here.

import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { Device } from './device.ts';
import type { Registry } from './registry.ts';

type Args = Parameters<Operation>[0];

function invalid(message: string): GatewayError {
  return new GatewayError('ARGUMENT_INVALID', message);
}

function checkNames(args: Args, known: readonly string[]): void {
  const unknown = Object.keys(args).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  throw invalid(
    `unknown argument ${JSON.stringify(unknown.slice(0, 80))}; known are ${known.join(', ') || 'none'}`,
  );
}

function requiredText(args: Args, name: string): string {
  const value = args[name];
  if (typeof value !== 'string') throw invalid(`${name}: expected text`);
  return value;
}

function optionalText(args: Args, name: string): string | undefined {
  return args[name] === undefined ? undefined : requiredText(args, name);
}

function optionalFlag(args: Args, name: string): boolean {
  const value = args[name] ?? false;
  if (typeof value !== 'boolean') throw invalid(`${name}: expected true or false`);
  return value;
}

function optionalMs(args: Args, name: string, max: number): number {
  const value = args[name] ?? 0;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 0 || value > max) {
    throw invalid(`${name}: expected a whole number from 0 to ${max}`);
  }
  return value;
}

/** How a device is shown: everything but the hashes of its keys. */
export interface ShownDevice {
  readonly device_id: string;
  readonly name: string;
  readonly type: string;
  readonly location: string;
  readonly status: string;
  readonly service: boolean;
  readonly created_at: string;
  /** Null when nothing came from it since the gateway started, or no gateway runs. */
  readonly last_seen: string | null;
  readonly key_ids: readonly string[];
}

/** ISO 8601; a time no calendar knows (a damaged clock) is shown as the epoch rather than as an error. */
function isoTime(wallMs: number): string {
  const time = new Date(wallMs);
  return Number.isNaN(time.getTime()) ? new Date(0).toISOString() : time.toISOString();
}

function shown(registry: Registry, device: Device): ShownDevice {
  const seen = registry.lastSeen(device.deviceId);
  return {
    device_id: device.deviceId,
    name: device.name,
    type: device.type,
    location: device.location,
    status: device.status,
    service: device.service,
    created_at: isoTime(device.createdMs),
    last_seen: seen === undefined ? null : isoTime(seen.wallMs),
    key_ids: device.keys.map(({ keyId }) => keyId),
  };
}

const graceMsMax = 30 * 86_400_000;

/** `devices.add`, `devices.list`, `devices.rotate`, `devices.revoke`. */
export function operations(registry: Registry): Operations {
  const table: Readonly<Record<string, Operation>> = {
    'devices.add': async (args) => {
      checkNames(args, ['device_id', 'name', 'type', 'location', 'service']);
      const name = optionalText(args, 'name');
      const type = optionalText(args, 'type');
      const location = optionalText(args, 'location');
      const { device, apiKey } = await registry.add({
        deviceId: requiredText(args, 'device_id'),
        ...(name === undefined ? {} : { name }),
        ...(type === undefined ? {} : { type }),
        ...(location === undefined ? {} : { location }),
        service: optionalFlag(args, 'service'),
      });
      return { device_id: device.deviceId, api_key: apiKey };
    },
    'devices.list': async (args) => {
      checkNames(args, []);
      return { devices: registry.list().map((device) => shown(registry, device)) };
    },
    'devices.rotate': async (args) => {
      checkNames(args, ['device_id', 'grace_ms']);
      const graceMs = optionalMs(args, 'grace_ms', graceMsMax);
      const { device, apiKey } = await registry.rotate(requiredText(args, 'device_id'), { graceMs });
      return { device_id: device.deviceId, api_key: apiKey };
    },
    'devices.revoke': async (args) => {
      checkNames(args, ['device_id']);
      return shown(registry, await registry.revoke(requiredText(args, 'device_id')));
    },
  };
  return new Map(Object.entries(table));
}
