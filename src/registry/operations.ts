// What an operator may do with devices, by name: one implementation for the control socket of a running gateway
// and for the command line beside a stopped one. Arguments come from outside and are checked here.

import {
  type Arguments,
  checkNames,
  invalidArgument,
  optionalFlag,
  optionalText,
  optionalWhole,
  requiredText,
} from '../platform/arguments.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import { shownTime } from '../platform/shown-time.ts';
import type { ChangeBudget } from './change-budget.ts';
import type { Device, DeviceFacts } from './device.ts';
import type { DeviceConfig, DeviceConfigs } from './device-configs.ts';
import type { Enrolment, EnrolmentToken, Pairing } from './enrolment.ts';
import type { JsonObject } from './json-object.ts';
import type { Presence } from './presence.ts';
import type { DeviceChanges, Registry } from './registry.ts';
import type { DeviceReport, TakenReport } from './report.ts';
import type { ShownConfig, ShownDevice } from './shown.ts';

const limits = {
  graceMs: { min: 0, max: 30 * 86_400_000, fallback: 0 },
  pairingMs: { min: 10_000, max: 3_600_000, fallback: 300_000 },
  pairingDevices: { min: 1, max: 100, fallback: 10 },
  tokenLifeMs: { min: 60_000, max: 30 * 86_400_000, fallback: 86_400_000 },
};

const statuses = ['active', 'inactive', 'maintenance'] as const;

/** Names of facts as they are said outside. */
const factNames = {
  name: 'name',
  type: 'type',
  location: 'location',
  description: 'description',
  firmware_version: 'firmwareVersion',
  hardware_version: 'hardwareVersion',
} as const satisfies Record<string, keyof DeviceFacts>;

const factArguments = [...Object.keys(factNames), 'metadata'];

function factsIn(args: Arguments): Partial<DeviceFacts> {
  const facts: Record<string, unknown> = {};
  for (const [argument, fact] of Object.entries(factNames)) {
    const value = optionalText(args, argument, { min: 0, max: 1024 });
    if (value !== undefined) facts[fact] = value;
  }
  return args.metadata === undefined ? facts : { ...facts, metadata: objectIn(args, 'metadata') };
}

function objectIn(args: Arguments, name: string): JsonObject {
  const value = args[name];
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw invalidArgument(`${name}: expected a JSON object`);
}

function statusIn(args: Arguments): Pick<DeviceChanges, 'status'> {
  const given = optionalText(args, 'status');
  if (given === undefined) return {};
  const status = statuses.find((known) => known === given);
  if (status !== undefined) return { status };
  throw invalidArgument(`status: expected ${statuses.join(', ')}`);
}

export interface ShownToken {
  readonly token_id: string;
  readonly name: string | null;
  readonly type: string | null;
  readonly location: string | null;
  readonly created_at: string | null;
  /** Of running time. */
  readonly ends_in_seconds: number;
}

export interface ShownPairing {
  readonly open: boolean;
  readonly ends_in_seconds: number;
  readonly devices_left: number;
}

function showPairing({ isOpen, leftMs, leftDevices }: Pairing): ShownPairing {
  return { open: isOpen, ends_in_seconds: Math.ceil(leftMs / 1000), devices_left: leftDevices };
}

/** Deletes what a device has measured, wherever it is, and says how far that got. */
export type EraseReadings = (deviceId: string) => Promise<unknown>;

export interface Removed {
  readonly deviceId: string;
  readonly name: string;
  /** What became of its readings; undefined where they stay. */
  readonly erasure: unknown;
}

export interface RegistryParts {
  readonly registry: Registry;
  readonly presence: Presence;
  readonly enrolment: Enrolment;
  readonly configs: DeviceConfigs;
  /** Of changes that devices bring about. */
  readonly budget: ChangeBudget;
  readonly report: (device: Device, report: DeviceReport) => Promise<TakenReport>;
  /**
   * Ends a device, by id or number. With its readings it is cut off before they go, so that none come after them, and
   * its entry goes last: asked again after a power cut, it does the rest.
   * @throws GatewayError `DEVICE_UNKNOWN`, `STORE_FAILED`, `ERASURE_UNAVAILABLE` where no gateway runs.
   */
  readonly remove: (ref: string, isWithReadings: boolean) => Promise<Removed>;
  readonly eraseBy: (erase: EraseReadings) => void;
  /** As it is shown outside. */
  readonly show: (device: Device) => ShownDevice;
  readonly showConfig: (config: DeviceConfig) => ShownConfig;
}

function deviceOperations({
  registry,
  configs,
  remove,
  show,
  showConfig,
}: RegistryParts): Readonly<Record<string, Operation>> {
  /** By device id or number. */
  const deviceOf = (args: Arguments): Device => {
    const text = requiredText(args, 'device_id');
    const device = registry.find(text);
    if (device !== undefined) return device;
    throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(text.slice(0, 80))}`);
  };
  return {
    'devices.add': async (args) => {
      checkNames(args, ['device_id', 'service', ...factArguments]);
      const { device, apiKey } = await registry.add({
        deviceId: requiredText(args, 'device_id', { min: 0 }),
        ...factsIn(args),
        service: optionalFlag(args, 'service'),
      });
      return { device_id: device.deviceId, api_key: apiKey };
    },
    'devices.list': async (args) => {
      checkNames(args, []);
      const devices = registry.list().map(show);
      return { devices, count: devices.length };
    },
    'devices.show': async (args) => {
      checkNames(args, ['device_id']);
      return show(deviceOf(args));
    },
    'devices.update': async (args) => {
      checkNames(args, ['device_id', 'status', ...factArguments]);
      const changes = { ...factsIn(args), ...statusIn(args) };
      return show(await registry.update(deviceOf(args).deviceId, changes));
    },
    'devices.rotate': async (args) => {
      checkNames(args, ['device_id', 'grace_ms']);
      const graceMs = optionalWhole(args, 'grace_ms', limits.graceMs);
      const { device, apiKey } = await registry.rotate(deviceOf(args).deviceId, { graceMs });
      return { device_id: device.deviceId, api_key: apiKey };
    },
    'devices.revoke': async (args) => {
      checkNames(args, ['device_id']);
      return show(await registry.revoke(deviceOf(args).deviceId));
    },
    'devices.approve': async (args) => {
      checkNames(args, ['device_id']);
      return show(await registry.approve(deviceOf(args).deviceId));
    },
    'devices.config': async (args) => {
      checkNames(args, ['device_id']);
      const device = deviceOf(args);
      return { device_id: device.deviceId, ...showConfig(await configs.of(device)) };
    },
    'devices.configure': async (args) => {
      checkNames(args, ['device_id', 'config']);
      const device = deviceOf(args);
      const { command, ...both } = await configs.setDesired(device, objectIn(args, 'config'), 'cli');
      const sent = command === undefined ? null : { command_id: command.id, state: command.state };
      return { device_id: device.deviceId, ...showConfig(both), command: sent };
    },
    'devices.remove': async (args) => {
      checkNames(args, ['device_id', 'readings']);
      const removed = await remove(requiredText(args, 'device_id'), optionalFlag(args, 'readings'));
      const { deviceId, erasure } = removed;
      return { device_id: deviceId, removed: true, ...(erasure === undefined ? {} : { erasure }) };
    },
  };
}

function tokenOperations(enrolment: Enrolment): Readonly<Record<string, Operation>> {
  const shown = (token: EnrolmentToken): ShownToken => ({
    token_id: token.tokenId,
    name: token.name ?? null,
    type: token.type ?? null,
    location: token.location ?? null,
    created_at: shownTime(token.createdMs),
    ends_in_seconds: Math.ceil(enrolment.lifeLeftMs(token) / 1000),
  });
  return {
    'devices.tokens.add': async (args) => {
      checkNames(args, ['life_ms', 'name', 'type', 'location']);
      const lifeMs = optionalWhole(args, 'life_ms', limits.tokenLifeMs);
      const { token, text } = await enrolment.addToken(lifeMs, factsIn(args));
      return { ...shown(token), enrolment_token: text };
    },
    'devices.tokens.list': async (args) => {
      checkNames(args, []);
      const tokens = enrolment.tokens().map(shown);
      return { tokens, count: tokens.length };
    },
    'devices.tokens.revoke': async (args) => {
      checkNames(args, ['token_id']);
      const tokenId = requiredText(args, 'token_id');
      await enrolment.revokeToken(tokenId);
      return { token_id: tokenId, revoked: true };
    },
  };
}

/** What works beside a stopped gateway too: `devices.…`, `devices.tokens.…`. */
export function operations(parts: RegistryParts): Operations {
  return new Map(Object.entries({ ...deviceOperations(parts), ...tokenOperations(parts.enrolment) }));
}

/** What only a running gateway can do: `devices.pair {for_ms?, devices_max?, close?}`. */
export function pairingOperations(enrolment: Enrolment): Operations {
  const pair: Operation = async (args) => {
    checkNames(args, ['for_ms', 'devices_max', 'close']);
    const forMs = optionalWhole(args, 'for_ms', limits.pairingMs);
    const devicesMax = optionalWhole(args, 'devices_max', limits.pairingDevices);
    if (!optionalFlag(args, 'close')) return showPairing(enrolment.openPairing({ forMs, devicesMax }));
    enrolment.closePairing();
    return showPairing(enrolment.pairing());
  };
  return new Map([['devices.pair', pair]]);
}
