// Opens what the registry consists of, alike for a running gateway and for the commands beside a stopped one.

import type { Clock } from '../platform/clock.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Store } from '../platform/store.ts';
import type { Witness } from '../platform/witness.ts';
import type { RandomBytes } from './api-key.ts';
import { ChangeBudget } from './change-budget.ts';
import type { Device } from './device.ts';
import { DeviceConfigs } from './device-configs.ts';
import { Enrolment } from './enrolment.ts';
import type { EraseReadings, RegistryParts, Removed } from './operations.ts';
import { Presence } from './presence.ts';
import { Registry } from './registry.ts';
import { type DeviceReport, readReport, takeReport } from './report.ts';
import { showConfig, showDevice } from './shown.ts';

export interface RegistryRoomOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  readonly witness?: Witness;
  readonly devicesMax?: number;
  readonly pendingMax?: number;
  readonly isTimeKnown?: () => boolean;
  /** Of the gateway, over all its starts; none beside a stopped one. */
  readonly runningMs?: () => number;
  readonly log: Log;
}

/** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
export async function openRegistry(options: RegistryRoomOptions): Promise<RegistryParts> {
  const registry = await Registry.open(options);
  const presence = await Presence.open({
    ...options,
    isKnown: (deviceId) => registry.get(deviceId) !== undefined,
  });
  const { store, clock, isTimeKnown } = options;
  const nowMs = (): number => ((isTimeKnown?.() ?? true) ? clock.wallMs() : 0);
  const configs = new DeviceConfigs({ store, nowMs });
  registry.onRemoved(({ deviceId }) => {
    presence.forget(deviceId);
    void configs.forget(deviceId);
  });
  const budget = new ChangeBudget(clock);
  registry.onRemoved(({ deviceId }) => budget.forget(deviceId));
  const enrolment = await Enrolment.open({ ...options, registry });
  const show = (device: Device) => showDevice(device, presence);
  const report = (device: Device, said: DeviceReport) =>
    takeReport({ registry, configs, budget }, device, said);
  let eraseReadings: EraseReadings | undefined;
  const remove = async (ref: string, isWithReadings: boolean) => {
    if (!isWithReadings) return await removeDevice(registry, ref);
    if (eraseReadings !== undefined) return await removeDevice(registry, ref, eraseReadings);
    throw new GatewayError('ERASURE_UNAVAILABLE', 'readings can be deleted while the gateway runs');
  };
  const eraseBy = (erase: EraseReadings) => {
    eraseReadings = erase;
  };
  return { registry, presence, enrolment, configs, budget, report, remove, eraseBy, show, showConfig };
}

async function removeDevice(
  registry: Registry,
  ref: string,
  eraseReadings?: EraseReadings,
): Promise<Removed> {
  // A damaged record is found by its id alone.
  const { deviceId, name, status } = registry.find(ref) ?? { deviceId: ref, name: ref, status: undefined };
  if (eraseReadings === undefined) {
    await registry.remove(deviceId);
    return { deviceId, name, erasure: undefined };
  }
  if (!registry.isKnown(deviceId)) {
    throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(ref.slice(0, 80))}`);
  }
  if (status === 'active' || status === 'maintenance')
    await registry.update(deviceId, { status: 'inactive' });
  const erasure = await eraseReadings(deviceId);
  await registry.remove(deviceId);
  return { deviceId, name, erasure };
}

/** The keys of devices, whose use counts as a sign of life. */
export function noticed({ registry, presence }: RegistryParts): Pick<Registry, 'verifyKey'> {
  return {
    verifyKey: (secret) => {
      const device = registry.verifyKey(secret);
      if (device !== undefined) presence.touch(device.deviceId);
      return device;
    },
  };
}

/**
 * What a device published to `status/config`. False when it is no report, or one that cannot be taken.
 * @throws GatewayError `STORE_FAILED`.
 */
export async function tookReport(
  { registry, report }: RegistryParts,
  deviceId: string,
  payload: Buffer,
): Promise<boolean> {
  const device = registry.get(deviceId);
  const said = readReport(payload);
  if (device === undefined || said === undefined) return false;
  try {
    await report(device, said);
    return true;
  } catch (error) {
    const code = errorCode(error);
    if (code?.endsWith('_INVALID') || code === 'FORBIDDEN' || code === 'RATE_LIMITED') return false;
    throw error;
  }
}
