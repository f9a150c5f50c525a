// How a device is shown to people and programs, over HTTP and on the command line: everything but its keys' hashes.

import { shownTime } from '../platform/shown-time.ts';
import type { Device } from './device.ts';
import type { DeviceConfig } from './device-configs.ts';
import type { Moment, Presence } from './presence.ts';

export interface ShownDevice {
  readonly id: number;
  readonly device_id: string;
  readonly name: string;
  readonly description: string;
  readonly device_type: string;
  readonly location: string;
  readonly status: string;
  readonly service: boolean;
  readonly firmware_version: string;
  readonly hardware_version: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  /** Null where the time was not known. */
  readonly created_at: string | null;
  readonly updated_at: string | null;
  /** Null when nothing ever came from it, or nobody knows when. */
  readonly last_seen: string | null;
  /** Something came from it, whenever that was. */
  readonly seen: boolean;
  readonly online: boolean;
  readonly online_since: string | null;
  readonly offline_since: string | null;
  readonly key_ids: readonly string[];
}

function shownMoment(moment: Moment | undefined): string | null {
  return shownTime(moment?.wallMs);
}

export function showDevice(device: Device, presence: Presence): ShownDevice {
  const { lastSeen, isOnline, since } = presence.of(device.deviceId);
  return {
    id: device.id,
    device_id: device.deviceId,
    name: device.name,
    description: device.description,
    device_type: device.type,
    location: device.location,
    status: device.status,
    service: device.service,
    firmware_version: device.firmwareVersion,
    hardware_version: device.hardwareVersion,
    metadata: device.metadata,
    created_at: shownTime(device.createdMs),
    updated_at: shownTime(device.updatedMs),
    last_seen: shownMoment(lastSeen),
    seen: lastSeen !== undefined,
    online: isOnline,
    online_since: isOnline ? shownMoment(since) : null,
    offline_since: isOnline ? null : shownMoment(since),
    key_ids: device.keys.map(({ keyId }) => keyId),
  };
}

interface ShownDocument {
  readonly version: number;
  readonly config: Readonly<Record<string, unknown>>;
  readonly updated_at: string | null;
}

export interface ShownConfig {
  readonly desired: ShownDocument;
  readonly reported: ShownDocument & { readonly desired_version: number };
}

export function showConfig({ desired, reported }: DeviceConfig): ShownConfig {
  return {
    desired: {
      version: desired.version,
      config: desired.document,
      updated_at: shownTime(desired.updatedMs),
    },
    reported: {
      version: reported.version,
      config: reported.document,
      desired_version: reported.desiredVersion,
      updated_at: shownTime(reported.updatedMs),
    },
  };
}
