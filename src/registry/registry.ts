// Who may speak to the gateway. Promises: a change is on the disk before it resolves and before anybody hears of
// it; keys are stored as hashes alone; a record that is damaged lets nobody in, and one that was removed does not come
// back. All entries are in memory, so reads are plain and cheap; `devicesMax` bounds them.

import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Store } from '../platform/store.ts';
import type { Witness } from '../platform/witness.ts';
import { createApiKey, keyIdOf, matchesKey, type RandomBytes } from './api-key.ts';
import {
  checkDeviceId,
  checkFacts,
  type Device,
  type DeviceFacts,
  decodeDevice,
  encodeDevice,
} from './device.ts';
import { type RecordChange, Records } from './records.ts';

const defaults = { devicesMax: 1_000 };

/** Rotating with a grace again and again would add up. */
const keysMax = 4;

const recordPrefix = 'device/';

export interface RegistryOptions {
  readonly store: Store;
  readonly clock: Clock;
  readonly randomBytes: RandomBytes;
  /** Says whether a record is the newest one; without, the store is believed. */
  readonly witness?: Witness;
  /** Default 1000. */
  readonly devicesMax?: number;
  /** Whether the wall clock is believed; without, it is. Devices made while it is not have no date. */
  readonly isTimeKnown?: () => boolean;
}

export interface NewDevice extends Partial<DeviceFacts> {
  readonly deviceId: string;
  readonly service?: boolean;
  /** Default active. */
  readonly status?: 'active' | 'pending';
}

export interface DeviceChanges extends Partial<DeviceFacts> {
  readonly status?: 'active' | 'inactive' | 'maintenance';
}

/** Records that change with a device, in one write, and what is to be done once they have. */
export interface AlsoChanged {
  readonly changes: readonly RecordChange[];
  readonly applied?: () => void;
}

const alone: AlsoChanged = { changes: [] };

/** The only time the text of a key is seen. */
export interface IssuedKey {
  readonly device: Device;
  readonly apiKey: string;
}

export interface RegistryStats {
  readonly devices: number;
  readonly devicesMax: number;
  /** They wait for an administrator. */
  readonly pending: number;
  /** Records that were damaged, missing or outdated at the start: these devices cannot connect. */
  readonly damagedRecords: number;
  /** Changes since the file that tells old records from new ones could last be written. */
  readonly unwitnessedChanges: number;
  readonly verified: number;
  readonly refused: number;
}

type DeviceListener = (device: Device) => void;

/** Names that people would take for the same. */
function sameName(a: string, b: string): boolean {
  return a === b || a.trim().toLowerCase() === b.trim().toLowerCase();
}

function mayConnect({ status }: Device): boolean {
  return status === 'active' || status === 'maintenance';
}

/** What a device asks for itself takes its turn, and may be overtaken by its end: it must not undo it. */
function checkStillIn(now: Device, asking: Device | undefined): void {
  if (asking === undefined || (now.epoch === asking.epoch && mayConnect(now))) return;
  throw new GatewayError('FORBIDDEN', `${now.deviceId} was shut out`);
}

export class Registry {
  /** For what else is kept beside the devices, and changes with them. */
  readonly records: Records;
  readonly #clock: Clock;
  readonly #randomBytes: RandomBytes;
  readonly #devicesMax: number;
  readonly #isTimeKnown: () => boolean;
  readonly #devices = new Map<string, Device>();
  readonly #byId = new Map<number, string>();
  readonly #byKeyId = new Map<string, string>();
  /** Keys that hold for a while yet: id of the key → when it ends, on the wall clock. */
  readonly #expiries = new Map<string, number>();
  readonly #changeListeners: DeviceListener[] = [];
  readonly #revokedListeners: DeviceListener[] = [];
  readonly #removedListeners: DeviceListener[] = [];
  #damagedRecords = 0;
  #verified = 0;
  #refused = 0;

  private constructor(options: RegistryOptions, records: Records) {
    this.records = records;
    this.#clock = options.clock;
    this.#randomBytes = options.randomBytes;
    this.#devicesMax = options.devicesMax ?? defaults.devicesMax;
    this.#isTimeKnown = options.isTimeKnown ?? (() => true);
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(options: RegistryOptions): Promise<Registry> {
    const registry = new Registry(options, await Records.open(options.store, options.witness));
    await registry.#restore();
    await registry.#numberAll();
    return registry;
  }

  get(deviceId: string): Device | undefined {
    return this.#devices.get(deviceId);
  }

  /** Also of a device whose record cannot be read. */
  isKnown(deviceId: string): boolean {
    return this.#devices.has(deviceId) || this.records.has(recordPrefix + deviceId);
  }

  /** By device id or, where no device has that, by number. */
  find(text: string): Device | undefined {
    const device = this.#devices.get(text);
    if (device !== undefined || !/^[1-9]\d{0,14}$/.test(text)) return device;
    return this.#devices.get(this.#byId.get(Number(text)) ?? '');
  }

  /** The device, as long as it may connect at all. */
  account(deviceId: string): Device | undefined {
    const device = this.#devices.get(deviceId);
    return device !== undefined && mayConnect(device) && device.keys.length > 0 ? device : undefined;
  }

  /** All devices, in the order of their ids. */
  list(): Device[] {
    return [...this.#devices.values()].sort((a, b) => (a.deviceId < b.deviceId ? -1 : 1));
  }

  /**
   * Adds a device and issues its first key.
   * @param also What else holds only if this does; called when nothing is left to object to.
   * @throws GatewayError `DEVICE_ID_INVALID`, `DEVICE_FIELD_INVALID`, `DEVICE_EXISTS`, `DEVICE_NAME_EXISTS`,
   * `DEVICES_FULL`, `STORE_FAILED`, and what `also` throws.
   */
  add(wanted: NewDevice, also: () => AlsoChanged = () => alone): Promise<IssuedKey> {
    return this.records.change(async () => {
      const {
        deviceId,
        name = deviceId,
        type = '',
        location = '',
        service = false,
        status = 'active',
      } = wanted;
      const { description = '', firmwareVersion = '', hardwareVersion = '', metadata = {} } = wanted;
      const facts = { name, type, location, description, firmwareVersion, hardwareVersion, metadata };
      checkDeviceId(deviceId);
      checkFacts(facts);
      if (this.#devices.has(deviceId)) {
        throw new GatewayError(
          'DEVICE_EXISTS',
          `there is a device ${deviceId} already; rotate gives it a new key`,
        );
      }
      this.#checkName(deviceId, name);
      if (this.#devices.size >= this.#devicesMax) {
        throw new GatewayError(
          'DEVICES_FULL',
          `there are ${this.#devicesMax} devices already, as many as registry.devices_max allows`,
        );
      }
      const others = also();
      const nowMs = this.#nowMs();
      const { apiKey, key } = createApiKey(this.#randomBytes, nowMs);
      const id = this.records.takeId();
      const epoch = this.records.nextRevision;
      const times = { createdMs: nowMs, updatedMs: nowMs };
      const device = await this.#put(
        { deviceId, id, ...facts, status, service, ...times, keys: [key], epoch },
        others,
      );
      return { device, apiKey };
    });
  }

  /**
   * Changes what is known of a device. Made inactive it is cut off and keeps its keys for when it is active again.
   * @param asking The device itself, as it was let in, where it is that which asks: `FORBIDDEN` if it was shut out since.
   * @throws GatewayError `DEVICE_UNKNOWN`, `DEVICE_FIELD_INVALID`, `DEVICE_NAME_EXISTS`, `DEVICE_STATUS_CONFLICT`,
   * `STORE_FAILED`.
   */
  update(deviceId: string, changes: DeviceChanges, asking?: Device): Promise<Device> {
    return this.records.change(async () => {
      const before = this.#known(deviceId);
      checkStillIn(before, asking);
      checkFacts(changes);
      if (changes.name !== undefined && changes.name !== before.name) this.#checkName(deviceId, changes.name);
      if (before.status === 'pending' && changes.status !== undefined) {
        throw new GatewayError(
          'DEVICE_STATUS_CONFLICT',
          `${deviceId} waits for approval; approve or remove it`,
        );
      }
      const given = Object.entries(changes).filter(([, value]) => value !== undefined);
      const changed: Device = { ...before, ...Object.fromEntries(given), updatedMs: this.#nowMs() };
      const isCutOff = mayConnect(before) && !mayConnect(changed);
      const device = await this.#put(isCutOff ? { ...changed, epoch: this.records.nextRevision } : changed);
      if (isCutOff) this.#tell(this.#revokedListeners, device);
      return device;
    });
  }

  /**
   * Lets a device in that registered by itself: from now on its key works.
   * @throws GatewayError `DEVICE_UNKNOWN`, `DEVICE_STATUS_CONFLICT`, `STORE_FAILED`.
   */
  approve(deviceId: string): Promise<Device> {
    return this.records.change(async () => {
      const before = this.#known(deviceId);
      if (before.status !== 'pending') {
        throw new GatewayError(
          'DEVICE_STATUS_CONFLICT',
          `${deviceId} is ${before.status}; nothing to approve`,
        );
      }
      return await this.#put({ ...before, status: 'active', updatedMs: this.#nowMs() });
    });
  }

  /**
   * Issues a new key. The old ones end at once, or hold for `graceMs` more where a node can only be given its new
   * key over the air. A revoked device may come in again with the new key.
   * @param options `asking` as in `update`.
   * @throws GatewayError `DEVICE_UNKNOWN`, `STORE_FAILED`.
   */
  rotate(
    deviceId: string,
    { graceMs = 0, asking }: { readonly graceMs?: number; readonly asking?: Device } = {},
  ): Promise<IssuedKey> {
    return this.records.change(async () => {
      const before = this.#known(deviceId);
      checkStillIn(before, asking);
      const nowMs = this.#clock.wallMs();
      const { apiKey, key } = createApiKey(this.#randomBytes, this.#nowMs());
      const endMs = nowMs + graceMs;
      const kept = before.keys
        .filter(() => graceMs > 0)
        .map((old) => ({ ...old, expiresMs: Math.min(old.expiresMs ?? endMs, endMs) }))
        .filter((old) => old.expiresMs > nowMs)
        .slice(0, keysMax - 1);
      const status = before.status === 'inactive' ? 'active' : before.status;
      const device = await this.#put({ ...before, status, updatedMs: this.#nowMs(), keys: [key, ...kept] });
      if (kept.length < before.keys.length) this.#tell(this.#revokedListeners, device);
      return { device, apiKey };
    });
  }

  /**
   * Ends every key of the device and its connections. Its entry stays, inactive, so that its history keeps a name.
   * @throws GatewayError `DEVICE_UNKNOWN`, `STORE_FAILED`.
   */
  revoke(deviceId: string): Promise<Device> {
    return this.records.change(async () => {
      const before = this.#known(deviceId);
      const epoch = this.records.nextRevision;
      const ended = { status: 'inactive', updatedMs: this.#nowMs(), keys: [], epoch } as const;
      const device = await this.#put({ ...before, ...ended });
      this.#tell(this.#revokedListeners, device);
      return device;
    });
  }

  /**
   * Ends the device: its entry, its keys, its connections. Its number is given to no other. Also clears away a record
   * that is damaged.
   * @throws GatewayError `DEVICE_UNKNOWN`, `STORE_FAILED`.
   */
  remove(deviceId: string): Promise<Device | undefined> {
    return this.records.change(async () => {
      const key = recordPrefix + deviceId;
      const before = this.records.has(key) ? this.#devices.get(deviceId) : this.#known(deviceId);
      await this.records.write([{ key, value: undefined }], () => {
        if (before === undefined) {
          this.#damagedRecords -= 1;
          return;
        }
        this.#devices.delete(deviceId);
        this.#index(before, undefined);
        const removed: Device = { ...before, status: 'inactive', keys: [] };
        this.#tell(this.#revokedListeners, removed);
        this.#tell(this.#removedListeners, removed);
      });
      return before;
    });
  }

  /** The device whose key this is; undefined for anything else. Says nothing about why. */
  verify(deviceId: string, secret: string): Device | undefined {
    return this.#verify(this.#devices.get(deviceId), secret);
  }

  /** The same by the key alone, whose text holds the id of the key. */
  verifyKey(secret: string): Device | undefined {
    return this.#verify(this.#devices.get(this.#byKeyId.get(keyIdOf(secret) ?? '') ?? ''), secret);
  }

  /** The key is right, and the device may not come in: it waits for approval, or is inactive. */
  isBarred(deviceId: string, secret: string): boolean {
    const device = this.#devices.get(deviceId);
    return (
      device !== undefined && !mayConnect(device) && matchesKey(secret, device.keys, this.#clock.wallMs())
    );
  }

  /** To be called every second or so: whoever is connected with a key whose time is over must go. */
  tick(): void {
    const nowMs = this.#clock.wallMs();
    for (const [keyId, expiresMs] of this.#expiries) {
      if (nowMs < expiresMs) continue;
      this.#expiries.delete(keyId);
      const device = this.#devices.get(this.#byKeyId.get(keyId) ?? '');
      if (device !== undefined) this.#tell(this.#revokedListeners, device);
    }
  }

  /** Told after a device was added or changed in any way, with its new entry. Listeners must not throw. */
  onChange(listener: DeviceListener): void {
    this.#changeListeners.push(listener);
  }

  /** Told after keys of a device ended: whoever is connected with one must go. Listeners must not throw. */
  onRevoked(listener: DeviceListener): void {
    this.#revokedListeners.push(listener);
  }

  /** Told after a device was removed, with its last entry, after the listeners for revoked ones. */
  onRemoved(listener: DeviceListener): void {
    this.#removedListeners.push(listener);
  }

  stats(): RegistryStats {
    let pending = 0;
    for (const { status } of this.#devices.values()) if (status === 'pending') pending += 1;
    return {
      devices: this.#devices.size,
      devicesMax: this.#devicesMax,
      pending,
      damagedRecords: this.#damagedRecords,
      unwitnessedChanges: this.records.unwitnessed,
      verified: this.#verified,
      refused: this.#refused,
    };
  }

  async #restore(): Promise<void> {
    const found = new Set<string>();
    for await (const [key, bytes] of this.records.entries(recordPrefix)) {
      const deviceId = key.slice(recordPrefix.length);
      const device = decodeDevice(deviceId, bytes);
      if (device === undefined) {
        this.#damagedRecords += 1;
        found.add(deviceId);
        continue;
      }
      const verdict = this.records.judge(key, device.revision, device.id);
      if (verdict === 'removed') continue;
      found.add(deviceId);
      if (verdict === 'newest') this.#keep(device);
      else {
        // What came after is lost, perhaps the end of these keys. Rotating lets the device in again.
        this.#damagedRecords += 1;
        this.#keep({ ...device, status: 'inactive', keys: [] });
      }
    }
    // The names of other records have a slash.
    const isDevice = (name: string): boolean => !name.includes('/');
    this.#damagedRecords += this.records.missing(found, isDevice).length;
  }

  /** Devices of earlier versions have no number yet. */
  async #numberAll(): Promise<void> {
    const unnumbered = this.list()
      .filter(({ id }) => id === 0)
      .sort((a, b) => a.createdMs - b.createdMs);
    if (unnumbered.length === 0) return;
    const numbered = unnumbered.map((device) => ({ ...device, id: this.records.takeId() }));
    for (const device of numbered) this.#keep(device);
    // On a disk that refuses it, the next start gives the same numbers: the order is always this one.
    await this.records
      .change(async () => {
        const revision = this.records.nextRevision;
        const changes = numbered.map((device) => ({
          key: recordPrefix + device.deviceId,
          value: encodeDevice({ ...device, revision }),
        }));
        await this.records.write(changes, () => {
          for (const device of numbered) this.#keep({ ...device, revision });
        });
      })
      .catch(() => undefined);
  }

  #nowMs(): number {
    return this.#isTimeKnown() ? this.#clock.wallMs() : 0;
  }

  #verify(device: Device | undefined, secret: string): Device | undefined {
    // Hashed for unknown devices too: the time an answer takes does not tell which ids exist.
    const matches = matchesKey(secret, device?.keys ?? [], this.#clock.wallMs());
    if (device === undefined || !matches || !mayConnect(device)) {
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

  /** Names that were the same before this was asked for stay; they are in the history of both. */
  #checkName(deviceId: string, name: string): void {
    for (const other of this.#devices.values()) {
      if (other.deviceId === deviceId || !sameName(other.name, name)) continue;
      // Not which: strangers may ask to be let in.
      throw new GatewayError('DEVICE_NAME_EXISTS', 'name: another device has this name already');
    }
  }

  async #put(changed: Omit<Device, 'revision'>, others: AlsoChanged = alone): Promise<Device> {
    const device: Device = { ...changed, revision: this.records.nextRevision };
    const change = { key: recordPrefix + device.deviceId, value: encodeDevice(device) };
    await this.records.write([change, ...others.changes], () => {
      this.#keep(device);
      others.applied?.();
    });
    this.#tell(this.#changeListeners, device);
    return device;
  }

  #keep(device: Device): void {
    const before = this.#devices.get(device.deviceId);
    this.#devices.set(device.deviceId, device);
    this.#index(before, device);
  }

  #index(before: Device | undefined, after: Device | undefined): void {
    if (before !== undefined) this.#byId.delete(before.id);
    for (const { keyId } of before?.keys ?? []) {
      this.#byKeyId.delete(keyId);
      this.#expiries.delete(keyId);
    }
    if (after === undefined) return;
    this.#byId.set(after.id, after.deviceId);
    for (const { keyId, expiresMs } of after.keys) {
      this.#byKeyId.set(keyId, after.deviceId);
      if (expiresMs !== undefined && expiresMs > this.#clock.wallMs()) this.#expiries.set(keyId, expiresMs);
    }
  }

  #tell(listeners: readonly DeviceListener[], device: Device): void {
    for (const listener of listeners) listener(device);
  }
}
