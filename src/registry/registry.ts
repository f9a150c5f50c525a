// Who may speak to the gateway. Promises: a change is on the disk before it resolves and before anybody hears of
// it; keys are stored as hashes alone; a record that is damaged lets nobody in. All entries are in memory, so
// reads are plain and cheap; `devicesMax` bounds them.

import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Store } from '../platform/store.ts';
import type { Witness } from '../platform/witness.ts';
import { createApiKey, keyIdOf, matchesKey, type RandomBytes } from './api-key.ts';
import { checkDeviceId, checkLabel, type Device, decodeDevice, encodeDevice } from './device.ts';

const defaults = { devicesMax: 1_000 };

/** Rotating with a grace again and again would add up. */
const keysMax = 4;

const recordPrefix = 'device/';
// `0` follows `/`.
const recordsEnd = 'device0';

export interface RegistryOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  /** Says whether a record is the newest one; without, the store is believed. */
  readonly witness?: Witness;
  /** Default 1000. */
  readonly devicesMax?: number;
}

export interface NewDevice {
  readonly deviceId: string;
  /** Default: the device id. */
  readonly name?: string;
  readonly type?: string;
  readonly location?: string;
  readonly service?: boolean;
}

/** The only time the text of a key is seen. */
export interface IssuedKey {
  readonly device: Device;
  readonly apiKey: string;
}

export interface LastSeen {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

export interface RegistryStats {
  readonly devices: number;
  readonly devicesMax: number;
  /** Records that were damaged, missing or outdated at the start: these devices cannot connect. */
  readonly damagedRecords: number;
  readonly verified: number;
  readonly refused: number;
}

type DeviceListener = (device: Device) => void;

export class Registry {
  readonly #store: Store;
  readonly #clock: Clock;
  readonly #randomBytes: RandomBytes;
  readonly #devicesMax: number;
  readonly #witness: Witness | undefined;
  /** The newest of each device, also of those whose record is damaged or gone. */
  readonly #revisions = new Map<string, number>();
  readonly #devices = new Map<string, Device>();
  readonly #lastSeen = new Map<string, { wallMs: number; monotonicMs: number }>();
  readonly #changeListeners: DeviceListener[] = [];
  readonly #revokedListeners: DeviceListener[] = [];
  /** Changes happen one after another: what the next one checks is what this one leaves. */
  #changing: Promise<unknown> = Promise.resolve();
  #damagedRecords = 0;
  #verified = 0;
  #refused = 0;

  private constructor(options: RegistryOptions) {
    this.#store = options.store;
    this.#clock = options.clock;
    this.#randomBytes = options.randomBytes;
    this.#witness = options.witness;
    this.#devicesMax = options.devicesMax ?? defaults.devicesMax;
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(options: RegistryOptions): Promise<Registry> {
    const registry = new Registry(options);
    const newest = (await options.witness?.read()) ?? new Map<string, number>();
    for await (const [key, bytes] of options.store.entries({ gte: recordPrefix, lt: recordsEnd })) {
      const deviceId = key.slice(recordPrefix.length);
      const device = decodeDevice(deviceId, bytes);
      if (device === undefined) {
        registry.#damagedRecords += 1;
        continue;
      }
      const revision = newest.get(deviceId) ?? 0;
      registry.#revisions.set(deviceId, device.revision);
      if (device.revision >= revision) registry.#devices.set(deviceId, device);
      else {
        // What came after is lost, perhaps the end of these keys. Rotating lets the device in again.
        registry.#damagedRecords += 1;
        registry.#devices.set(deviceId, { ...device, status: 'inactive', keys: [] });
      }
    }
    for (const [deviceId, revision] of newest) {
      if (!registry.#devices.has(deviceId)) registry.#damagedRecords += 1;
      registry.#revisions.set(deviceId, Math.max(revision, registry.#revisions.get(deviceId) ?? 0));
    }
    return registry;
  }

  get(deviceId: string): Device | undefined {
    return this.#devices.get(deviceId);
  }

  /** All devices, in the order of their ids. */
  list(): Device[] {
    return [...this.#devices.values()].sort((a, b) => (a.deviceId < b.deviceId ? -1 : 1));
  }

  /**
   * Adds a device and issues its first key.
   * @throws GatewayError `DEVICE_ID_INVALID`, `DEVICE_FIELD_INVALID`, `DEVICE_EXISTS`, `DEVICES_FULL`,
   * `STORE_FAILED`.
   */
  add(wanted: NewDevice): Promise<IssuedKey> {
    return this.#change(async () => {
      const { deviceId, name = deviceId, type = '', location = '', service = false } = wanted;
      checkDeviceId(deviceId);
      checkLabel('name', name);
      checkLabel('type', type);
      checkLabel('location', location);
      if (this.#devices.has(deviceId)) {
        throw new GatewayError(
          'DEVICE_EXISTS',
          `there is a device ${deviceId} already; rotate gives it a new key`,
        );
      }
      if (this.#devices.size >= this.#devicesMax) {
        throw new GatewayError(
          'DEVICES_FULL',
          `there are ${this.#devicesMax} devices already, as many as registry.devices_max allows`,
        );
      }
      const nowMs = this.#clock.wallMs();
      const { apiKey, key } = createApiKey(this.#randomBytes, nowMs);
      const device: Device = {
        deviceId,
        name,
        type,
        location,
        status: 'active',
        service,
        createdMs: nowMs,
        updatedMs: nowMs,
        keys: [key],
        revision: 0,
      };
      await this.#put(device);
      return { device, apiKey };
    });
  }

  /**
   * Issues a new key. The old ones end at once, or hold for `graceMs` more where a node can only be given its new
   * key over the air. A revoked device may come in again with the new key.
   * @throws GatewayError `DEVICE_UNKNOWN`, `STORE_FAILED`.
   */
  rotate(deviceId: string, { graceMs = 0 }: { readonly graceMs?: number } = {}): Promise<IssuedKey> {
    return this.#change(async () => {
      const before = this.#known(deviceId);
      const nowMs = this.#clock.wallMs();
      const { apiKey, key } = createApiKey(this.#randomBytes, nowMs);
      const endMs = nowMs + graceMs;
      const kept = before.keys
        .filter(() => graceMs > 0)
        .map((old) => ({ ...old, expiresMs: Math.min(old.expiresMs ?? endMs, endMs) }))
        .filter((old) => old.expiresMs > nowMs)
        .slice(0, keysMax - 1);
      const device: Device = {
        ...before,
        status: before.status === 'inactive' ? 'active' : before.status,
        updatedMs: nowMs,
        keys: [key, ...kept],
      };
      await this.#put(device);
      if (kept.length < before.keys.length) this.#tell(this.#revokedListeners, device);
      return { device, apiKey };
    });
  }

  /**
   * Ends every key of the device and its connections. Its entry stays, inactive, so that its history keeps a name.
   * @throws GatewayError `DEVICE_UNKNOWN`, `STORE_FAILED`.
   */
  revoke(deviceId: string): Promise<Device> {
    return this.#change(async () => {
      const device: Device = {
        ...this.#known(deviceId),
        status: 'inactive',
        updatedMs: this.#clock.wallMs(),
        keys: [],
      };
      await this.#put(device);
      this.#tell(this.#revokedListeners, device);
      return device;
    });
  }

  /** The device whose key this is; undefined for anything else. Says nothing about why. */
  verify(deviceId: string, secret: string): Device | undefined {
    return this.#verify(this.#devices.get(deviceId), secret);
  }

  /** The same by the key alone, whose text holds the id of the key. */
  verifyKey(secret: string): Device | undefined {
    const wanted = keyIdOf(secret);
    return this.#verify(
      [...this.#devices.values()].find(({ keys }) => keys.some(({ keyId }) => keyId === wanted)),
      secret,
    );
  }

  /** Notes that something came from the device. In memory alone; called for every message. */
  touch(deviceId: string, wallMs: number, monotonicMs: number): void {
    const seen = this.#lastSeen.get(deviceId);
    if (seen !== undefined) {
      seen.wallMs = wallMs;
      seen.monotonicMs = monotonicMs;
      return;
    }
    if (this.#devices.has(deviceId)) this.#lastSeen.set(deviceId, { wallMs, monotonicMs });
  }

  /** Since this start of the gateway; undefined before the device's first message. */
  lastSeen(deviceId: string): LastSeen | undefined {
    return this.#lastSeen.get(deviceId);
  }

  /** Told after a device was added or changed in any way, with its new entry. Listeners must not throw. */
  onChange(listener: DeviceListener): void {
    this.#changeListeners.push(listener);
  }

  /** Told after keys of a device ended: whoever is connected with one must go. Listeners must not throw. */
  onRevoked(listener: DeviceListener): void {
    this.#revokedListeners.push(listener);
  }

  stats(): RegistryStats {
    return {
      devices: this.#devices.size,
      devicesMax: this.#devicesMax,
      damagedRecords: this.#damagedRecords,
      verified: this.#verified,
      refused: this.#refused,
    };
  }

  #verify(device: Device | undefined, secret: string): Device | undefined {
    // Hashed for unknown devices too: the time an answer takes does not tell which ids exist.
    const matches = matchesKey(secret, device?.keys ?? [], this.#clock.wallMs());
    if (device === undefined || !matches || (device.status !== 'active' && device.status !== 'maintenance')) {
      this.#refused += 1;
      return undefined;
    }
    this.#verified += 1;
    return device;
  }

  #known(deviceId: string): Device {
    const device = this.#devices.get(deviceId);
    if (device !== undefined) return device;
    throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(deviceId.slice(0, 80))}`);
  }

  #change<Result>(step: () => Promise<Result>): Promise<Result> {
    const changed = this.#changing.then(step);
    this.#changing = changed.catch(() => undefined);
    return changed;
  }

  async #put(changed: Device): Promise<void> {
    const { deviceId } = changed;
    const device: Device = { ...changed, revision: (this.#revisions.get(deviceId) ?? 0) + 1 };
    await this.#store.write([{ key: recordPrefix + device.deviceId, value: encodeDevice(device) }]);
    this.#revisions.set(deviceId, device.revision);
    this.#devices.set(deviceId, device);
    // After the record: a power cut in between leaves a record newer than its witness, which is as good.
    await this.#witness?.write(this.#revisions).catch((error: unknown) => {
      throw new GatewayError('STORE_FAILED', `cannot write down the change of ${deviceId}`, { cause: error });
    });
    this.#tell(this.#changeListeners, device);
  }

  #tell(listeners: readonly DeviceListener[], device: Device): void {
    for (const listener of listeners) listener(device);
  }
}
