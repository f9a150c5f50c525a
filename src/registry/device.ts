// A device's entry and its form on disk. A record that is damaged in any way reads as no record: access is
// denied, never granted by accident (mosquitto CVE-2018-12550 is what happens otherwise).

import { isDeviceId } from '../model/topic.ts';
import { GatewayError } from '../platform/errors.ts';
import { isJsonObject, type JsonObject } from './json-object.ts';

export type DeviceStatus = 'active' | 'inactive' | 'maintenance' | 'pending';

export const deviceStatuses = [
  'active',
  'inactive',
  'maintenance',
  'pending',
] as const satisfies readonly DeviceStatus[];

function isDeviceStatus(text: unknown): text is DeviceStatus {
  return deviceStatuses.some((status) => status === text);
}

export interface DeviceKey {
  /** Public: it is part of the key's text and tells keys apart in lists and logs. */
  readonly keyId: string;
  /** SHA-256 of the whole key text, in hexadecimal. */
  readonly sha256: string;
  readonly createdMs: number;
  /** Wall clock; undefined means it holds until it is rotated or revoked. */
  readonly expiresMs?: number;
}

/** What an administrator may write about a device. Empty text: nobody said. */
export interface DeviceFacts {
  readonly name: string;
  readonly type: string;
  readonly location: string;
  readonly description: string;
  readonly firmwareVersion: string;
  readonly hardwareVersion: string;
  /** For people and their programs. */
  readonly metadata: JsonObject;
}

export interface Device extends DeviceFacts {
  readonly deviceId: string;
  /** A whole number, given once, never to another device. */
  readonly id: number;
  readonly status: DeviceStatus;
  /** A local account (Home Assistant, tests) that may read every device's topics. */
  readonly service: boolean;
  /** 0 where the time was not known. */
  readonly createdMs: number;
  readonly updatedMs: number;
  readonly keys: readonly DeviceKey[];
  /** Higher with every change of any record. */
  readonly revision: number;
  /** Changes when the device is shut out: what its account left at the broker before is no longer its own. */
  readonly epoch: number;
}

/** Ids under which the gateway itself speaks. */
const reservedIds: ReadonlySet<string> = new Set(['gateway']);

/** @throws GatewayError `DEVICE_ID_INVALID` naming what was expected. */
export function checkDeviceId(deviceId: string): void {
  if (reservedIds.has(deviceId)) {
    throw new GatewayError(
      'DEVICE_ID_INVALID',
      `device id: ${deviceId} is the gateway's own, choose another`,
    );
  }
  if (isDeviceId(deviceId)) return;
  throw new GatewayError(
    'DEVICE_ID_INVALID',
    `device id: expected 1 to 64 characters of a-z, 0-9, - and _, the first a letter or digit, got ${JSON.stringify(deviceId.slice(0, 80))}`,
  );
}

const labelCharactersMax = 128;
const descriptionCharactersMax = 512;
const metadataBounds = { bytesMax: 4096, levelsMax: 5 };

/** Name, type and location become tags: short, and nothing that breaks a line.
 * @throws GatewayError `DEVICE_FIELD_INVALID` */
export function checkLabel(field: string, text: string): void {
  if (text.length <= labelCharactersMax && !/\p{Cc}/u.test(text)) return;
  throw new GatewayError(
    'DEVICE_FIELD_INVALID',
    `${field}: expected at most ${labelCharactersMax} characters without line breaks or control characters`,
  );
}

/** @throws GatewayError `DEVICE_FIELD_INVALID` naming the fact that will not do. */
export function checkFacts(facts: Partial<DeviceFacts>): void {
  const { name, type, location, description = '', firmwareVersion, hardwareVersion, metadata } = facts;
  const labels = {
    name,
    type,
    location,
    firmware_version: firmwareVersion,
    hardware_version: hardwareVersion,
  };
  for (const [field, label] of Object.entries(labels)) if (label !== undefined) checkLabel(field, label);
  if (name !== undefined && name.trim() === '') {
    throw new GatewayError('DEVICE_FIELD_INVALID', 'name: expected at least one character that can be seen');
  }
  if (description.length > descriptionCharactersMax || /[^\P{Cc}\n\t]/u.test(description)) {
    throw new GatewayError(
      'DEVICE_FIELD_INVALID',
      `description: expected at most ${descriptionCharactersMax} characters without control characters`,
    );
  }
  if (metadata === undefined || isJsonObject(metadata, metadataBounds)) return;
  const { bytesMax, levelsMax } = metadataBounds;
  throw new GatewayError(
    'DEVICE_FIELD_INVALID',
    `metadata: expected a JSON object of at most ${bytesMax} bytes and ${levelsMax} levels`,
  );
}

export function encodeDevice(device: Device): Buffer {
  return Buffer.from(JSON.stringify(device));
}

type Fields = Readonly<Record<string, unknown>>;

function isFields(value: unknown): value is Fields {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function decodeKey(value: unknown): DeviceKey | undefined {
  if (!isFields(value)) return undefined;
  const { keyId, sha256, createdMs, expiresMs } = value;
  if (typeof keyId !== 'string' || typeof createdMs !== 'number') return undefined;
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) return undefined;
  if (expiresMs === undefined) return { keyId, sha256, createdMs };
  return typeof expiresMs === 'number' ? { keyId, sha256, createdMs, expiresMs } : undefined;
}

/** The device stored under this id; undefined when the record is not exactly what `encodeDevice` writes, or wrote. */
export function decodeDevice(storedId: string, bytes: Buffer): Device | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isFields(value)) return undefined;
  const { deviceId, status, service, createdMs, updatedMs, keys, revision = 0, epoch = 0 } = value;
  // A record that moved to another key would let one device in as another.
  if (deviceId !== storedId || !isDeviceId(storedId) || !isDeviceStatus(status)) return undefined;
  // Not every version had these. 0: the registry gives it one.
  const { id = 0, description = '', firmwareVersion = '', hardwareVersion = '', metadata = {} } = value;
  const { name, type, location } = value;
  const texts = { name, type, location, description, firmwareVersion, hardwareVersion };
  const numbers = { id, createdMs, updatedMs, revision, epoch };
  if (!areAll(texts, 'string') || !areAll(numbers, 'number')) return undefined;
  if (typeof service !== 'boolean' || !isFields(metadata) || !Array.isArray(keys)) return undefined;
  const decoded = keys.map(decodeKey).filter((key) => key !== undefined);
  if (decoded.length !== keys.length) return undefined;
  return { deviceId: storedId, ...texts, ...numbers, status, service, metadata, keys: decoded };
}

interface TypeNames {
  string: string;
  number: number;
}

function areAll<Names extends string, Type extends keyof TypeNames>(
  values: Readonly<Record<Names, unknown>>,
  type: Type,
): values is Readonly<Record<Names, TypeNames[Type]>> {
  return Object.values(values).every((value) => typeof value === type);
}
