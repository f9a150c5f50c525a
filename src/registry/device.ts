// A device's entry and its form on disk. A record that is damaged in any way reads as no record: access is
// denied, never granted by accident (mosquitto CVE-2018-12550 is what happens otherwise).

import { isDeviceId } from '../model/topic.ts';
import { GatewayError } from '../platform/errors.ts';

export type DeviceStatus = 'active' | 'inactive' | 'maintenance' | 'pending';

const deviceStatuses: ReadonlySet<string> = new Set<DeviceStatus>([
  'active',
  'inactive',
  'maintenance',
  'pending',
]);

export interface DeviceKey {
  /** Public: it is part of the key's text and tells keys apart in lists and logs. */
  readonly keyId: string;
  /** SHA-256 of the whole key text, in hexadecimal. */
  readonly sha256: string;
  readonly createdMs: number;
  /** Wall clock; undefined means it holds until it is rotated or revoked. */
  readonly expiresMs?: number;
}

export interface Device {
  readonly deviceId: string;
  readonly name: string;
  readonly type: string;
  readonly location: string;
  readonly status: DeviceStatus;
  /** A local account (Home Assistant, tests) that may read every device's topics. */
  readonly service: boolean;
  readonly createdMs: number;
  readonly updatedMs: number;
  readonly keys: readonly DeviceKey[];
  /** One more with every change. */
  readonly revision: number;
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

/** Name, type and location become tags: short, and nothing that breaks a line.
 * @throws GatewayError `DEVICE_FIELD_INVALID` */
export function checkLabel(field: string, text: string): void {
  if (text.length <= labelCharactersMax && !/\p{Cc}/u.test(text)) return;
  throw new GatewayError(
    'DEVICE_FIELD_INVALID',
    `${field}: expected at most ${labelCharactersMax} characters without line breaks or control characters`,
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

/** The device stored under this id; undefined when the record is not exactly what `encodeDevice` writes. */
export function decodeDevice(storedId: string, bytes: Buffer): Device | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isFields(value)) return undefined;
  const { deviceId, name, type, location, status, service, createdMs, updatedMs, keys } = value;
  const { revision = 0 } = value;
  // A record that moved to another key would let one device in as another.
  if (deviceId !== storedId || !isDeviceId(storedId)) return undefined;
  if (typeof name !== 'string' || typeof type !== 'string' || typeof location !== 'string') return undefined;
  if (typeof status !== 'string' || !deviceStatuses.has(status)) return undefined;
  if (typeof service !== 'boolean' || typeof createdMs !== 'number' || typeof updatedMs !== 'number') {
    return undefined;
  }
  if (!Array.isArray(keys) || typeof revision !== 'number') return undefined;
  const decoded = keys.map(decodeKey).filter((key) => key !== undefined);
  if (decoded.length !== keys.length) return undefined;
  return {
    deviceId: storedId,
    name,
    type,
    location,
    status: status as DeviceStatus,
    service,
    createdMs,
    updatedMs,
    keys: decoded,
    revision,
  };
}
