// What a device is to be set to and what it says it is set to: one desired and one reported document for each, with a
// version that counts up. Promises: durable when it resolves; a document that says nothing new costs no write; what
// belonged to a removed device is not its successor's. It does not look into the documents.

import { GatewayError } from '../platform/errors.ts';
import type { Store } from '../platform/store.ts';
import type { Device } from './device.ts';
import { isJsonObject, type JsonObject } from './json-object.ts';

const recordPrefix = 'config/';
const documentBounds = { bytesMax: 16_384, levelsMax: 10 };

export interface ConfigDocument {
  /** One more with every change; 0 before the first. */
  readonly version: number;
  readonly document: JsonObject;
  /** 0 where the time was not known, or there is none yet. */
  readonly updatedMs: number;
}

export interface ReportedConfig extends ConfigDocument {
  /** The desired version it had taken over, as the device says; 0 when it did not. */
  readonly desiredVersion: number;
}

export interface DeviceConfig {
  readonly desired: ConfigDocument;
  readonly reported: ReportedConfig;
}

/** On its way to the device. */
export interface SentConfig {
  readonly id: string;
  readonly state: string;
}

export interface SetConfig extends DeviceConfig {
  /** Undefined where nobody takes it there, the device may not come in, or it has it already. */
  readonly command: SentConfig | undefined;
}

/** Takes desired configurations to their devices. */
export interface ConfigCarrier {
  send(device: Device, desired: ConfigDocument, actor: string): Promise<SentConfig | undefined>;
  /** The device has it, from wherever. Must not reject. */
  settle(device: Device, version: number): Promise<void>;
}

/** Called before a write that a device brings about; may throw. */
type Spend = () => void;

const nothing: DeviceConfig = {
  desired: { version: 0, document: {}, updatedMs: 0 },
  reported: { version: 0, document: {}, updatedMs: 0, desiredVersion: 0 },
};

/** @throws GatewayError `DEVICE_CONFIG_INVALID`. */
export function checkDocument(document: JsonObject): void {
  if (isJsonObject(document, documentBounds)) return;
  const { bytesMax, levelsMax } = documentBounds;
  throw new GatewayError(
    'DEVICE_CONFIG_INVALID',
    `config: expected a JSON object of at most ${bytesMax} bytes and ${levelsMax} levels`,
  );
}

export interface DeviceConfigsOptions {
  readonly store: Store;
  /** 0 where the time is not known. */
  readonly nowMs: () => number;
}

export class DeviceConfigs {
  readonly #options: DeviceConfigsOptions;
  #changing: Promise<unknown> = Promise.resolve();
  #carrier: ConfigCarrier | undefined;

  constructor(options: DeviceConfigsOptions) {
    this.#options = options;
  }

  async of({ deviceId, id }: Pick<Device, 'deviceId' | 'id'>): Promise<DeviceConfig> {
    const bytes = await this.#options.store.get(recordPrefix + deviceId);
    if (bytes === undefined) return nothing;
    try {
      const { id: owner, config } = JSON.parse(bytes.toString()) as { id: number; config: DeviceConfig };
      return owner === id ? { ...nothing, ...config } : nothing;
    } catch {
      return nothing;
    }
  }

  /** Devices that have a record, the removed ones among them whose record could not be. */
  async deviceIds(): Promise<string[]> {
    const found: string[] = [];
    // `0` follows `/`.
    for await (const [key] of this.#options.store.entries({ gte: recordPrefix, lt: 'config0' })) {
      found.push(key.slice(recordPrefix.length));
    }
    return found;
  }

  /** What is set is taken there from now on. */
  carriedBy(carrier: ConfigCarrier): void {
    this.#carrier = carrier;
  }

  /**
   * The document is durable when it resolves, and on its way. Where that failed alone, the same again is enough.
   * @throws GatewayError `DEVICE_CONFIG_INVALID`, `STORE_FAILED`, and as the outbox does.
   */
  async setDesired(device: Device, document: JsonObject, actor: string): Promise<SetConfig> {
    checkDocument(document);
    const config = await this.#change(device, (before) => {
      const { desired } = before;
      if (desired.version > 0 && isSame(desired.document, document)) return before;
      return { ...before, desired: this.#next(desired, document) };
    });
    const { desired, reported } = config;
    const isTaken = desired.version === reported.desiredVersion;
    const command = isTaken ? undefined : await this.#carrier?.send(device, desired, actor);
    return { ...config, command };
  }

  /** The device says so itself. Versions that are not the desired one are of no interest any more. */
  async takenOver(device: Device, version: number, spend?: Spend): Promise<DeviceConfig> {
    const config = await this.#change(device, (before) => {
      const { desired, reported } = before;
      if (version !== desired.version || version === reported.desiredVersion) return before;
      spend?.();
      return { ...before, reported: { ...reported, desiredVersion: version } };
    });
    return await this.#settled(device, config);
  }

  /** @throws GatewayError `DEVICE_CONFIG_INVALID`, `STORE_FAILED`, and what `spend` throws. */
  async report(
    device: Device,
    document: JsonObject,
    desiredVersion?: number,
    spend?: Spend,
  ): Promise<DeviceConfig> {
    checkDocument(document);
    const config = await this.#change(device, (before) => {
      const { reported } = before;
      const taken = desiredVersion ?? reported.desiredVersion;
      const isNews = reported.version === 0 || !isSame(reported.document, document);
      if (!isNews && taken === reported.desiredVersion) return before;
      spend?.();
      return { ...before, reported: { ...this.#next(reported, document), desiredVersion: taken } };
    });
    return await this.#settled(device, config);
  }

  /** What is left is not its successor's even if this fails. */
  async forget(deviceId: string): Promise<void> {
    await this.#options.store
      .write([{ key: recordPrefix + deviceId, value: undefined }])
      .catch(() => undefined);
  }

  async #settled(device: Device, config: DeviceConfig): Promise<DeviceConfig> {
    const { desired, reported } = config;
    if (desired.version === reported.desiredVersion) await this.#carrier?.settle(device, desired.version);
    return config;
  }

  #next({ version }: ConfigDocument, document: JsonObject): ConfigDocument {
    return { version: version + 1, document, updatedMs: this.#options.nowMs() };
  }

  #change(device: Device, step: (config: DeviceConfig) => DeviceConfig): Promise<DeviceConfig> {
    const changed = this.#changing.then(async () => {
      const before = await this.of(device);
      const config = step(before);
      if (config === before) return config;
      const value = Buffer.from(JSON.stringify({ id: device.id, config }));
      await this.#options.store.write([{ key: recordPrefix + device.deviceId, value }]);
      return config;
    });
    this.#changing = changed.catch(() => undefined);
    return changed;
  }
}

function isSame(a: JsonObject, b: JsonObject): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}
