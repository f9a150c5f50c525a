// What a device says of itself, over HTTP or in `status/config`: the versions it runs, where it is, what it is set to.
// Promises: what is no news costs no write, so that a node may say it as often as it likes.

import type { ChangeBudget } from './change-budget.ts';
import { checkFacts, type Device } from './device.ts';
import { checkDocument, type DeviceConfig, type DeviceConfigs } from './device-configs.ts';
import type { JsonObject } from './json-object.ts';
import type { DeviceChanges, Registry } from './registry.ts';

export interface DeviceReport {
  readonly facts: DeviceChanges;
  /** Undefined: it says nothing of it. */
  readonly config: JsonObject | undefined;
  /** The desired version it took over. */
  readonly desiredVersion: number | undefined;
}

export interface TakenReport {
  readonly device: Device;
  readonly config: DeviceConfig;
  /** Whether the registry's entry changed. */
  readonly isNews: boolean;
}

export interface ReportParts {
  readonly registry: Registry;
  readonly configs: DeviceConfigs;
  readonly budget: ChangeBudget;
}

/** @throws GatewayError `FORBIDDEN`, `DEVICE_FIELD_INVALID`, `DEVICE_CONFIG_INVALID`, `RATE_LIMITED`, `STORE_FAILED`. */
export async function takeReport(
  { registry, configs, budget }: ReportParts,
  before: Device,
  { facts, config, desiredVersion }: DeviceReport,
): Promise<TakenReport> {
  // All of it, or none.
  checkFacts(facts);
  if (config !== undefined) checkDocument(config);
  const spend = () => budget.spend(before.deviceId);
  const isNews = Object.entries(facts).some(([name, value]) => before[name as keyof Device] !== value);
  if (isNews) spend();
  const device = isNews ? await registry.update(before.deviceId, facts, before) : before;
  if (config !== undefined) {
    return { device, isNews, config: await configs.report(device, config, desiredVersion, spend) };
  }
  if (desiredVersion === undefined) return { device, isNews, config: await configs.of(device) };
  return { device, isNews, config: await configs.takenOver(device, desiredVersion, spend) };
}

const names: ReadonlySet<string> = new Set([
  'config',
  'desired_version',
  'firmware_version',
  'hardware_version',
]);

/** Undefined for anything but a JSON object of the four, each of its type. */
export function readReport(payload: Buffer): DeviceReport | undefined {
  let value: unknown;
  try {
    value = JSON.parse(payload.toString());
  } catch {
    return undefined;
  }
  if (!isObject(value) || !Object.keys(value).every((name) => names.has(name))) return undefined;
  const { config, desired_version: desiredVersion, firmware_version, hardware_version } = value;
  if (config !== undefined && !isObject(config)) return undefined;
  if (desiredVersion !== undefined && !isVersion(desiredVersion)) return undefined;
  const facts: Record<string, string> = {};
  for (const [name, text] of [
    ['firmwareVersion', firmware_version],
    ['hardwareVersion', hardware_version],
  ] as const) {
    if (text === undefined) continue;
    if (typeof text !== 'string') return undefined;
    facts[name] = text;
  }
  return { facts, config, desiredVersion };
}

function isObject(value: unknown): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isVersion(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}
