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

const nothing: DeviceConfig = {
  desired: { version: 0, document: {}, updatedMs: 0 },
  reported: { version: 0, document: {}, updatedMs: 0, desiredVersion: 0 },
};

function checkDocument(document: JsonObject): void {
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

  /** @throws GatewayError `DEVICE_CONFIG_INVALID`, `STORE_FAILED`. */
  setDesired(device: Device, document: JsonObject): Promise<DeviceConfig> {
    checkDocument(document);
    return this.#change(device, (config) => {
      const { desired } = config;
      if (desired.version > 0 && isSame(desired.document, document)) return config;
      return { ...config, desired: this.#next(desired, document) };
    });
  }

  /** @throws GatewayError `DEVICE_CONFIG_INVALID`, `STORE_FAILED`. */
  report(device: Device, document: JsonObject, desiredVersion?: number): Promise<DeviceConfig> {
    checkDocument(document);
    return this.#change(device, (config) => {
      const { reported } = config;
      const taken = desiredVersion ?? reported.desiredVersion;
      const isNews = reported.version === 0 || !isSame(reported.document, document);
      if (!isNews && taken === reported.desiredVersion) return config;
      return { ...config, reported: { ...this.#next(reported, document), desiredVersion: taken } };
    });
  }

  /** What is left is not its successor's even if this fails. */
  async forget(deviceId: string): Promise<void> {
    await this.#options.store
      .write([{ key: recordPrefix + deviceId, value: undefined }])
      .catch(() => undefined);
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
