// Desired configurations on their way to devices: as commands of kind `config`, which the outbox keeps until a device
// has them. Promises: what was set and not taken over goes on its way after any power cut, and after the device was let
// in again; a newer version takes the place of an older one; a device that acknowledges has taken it over. A document
// too large for a command stays here: the device is told its version and asks for it over HTTP.

import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Device } from './device.ts';
import type { ConfigCarrier, ConfigDocument, DeviceConfigs } from './device-configs.ts';
import type { JsonObject } from './json-object.ts';
import type { Registry } from './registry.ts';

const kind = 'config';
const isWaiting: ReadonlySet<string> = new Set(['queued', 'delivered']);
/** What a command can carry, less the words around it. */
const documentBytesMax = 7_168;

export interface ConfigCommand {
  readonly id: string;
  readonly deviceId: string;
  readonly kind: string;
  readonly payload: JsonObject;
  readonly state: string;
}

/** The outbox, as far as it is needed here. */
export interface ConfigOutbox {
  submit(wanted: {
    readonly deviceId: string;
    readonly kind: string;
    readonly payload: JsonObject;
    readonly expiresInMs: null;
    readonly idempotencyKey?: string;
    readonly actor: string;
  }): Promise<ConfigCommand>;
  list(deviceId: string): readonly ConfigCommand[];
  cancel(deviceId: string, commandId: string, actor: string): Promise<unknown>;
  onChange(listener: (command: ConfigCommand) => void): void;
}

export interface ConfigDeliveryOptions {
  readonly registry: Pick<Registry, 'get'>;
  readonly configs: DeviceConfigs;
  readonly outbox: ConfigOutbox;
  readonly log: Log;
}

export class ConfigDelivery implements ConfigCarrier {
  readonly #options: ConfigDeliveryOptions;

  private constructor(options: ConfigDeliveryOptions) {
    this.#options = options;
  }

  /** From now on what is set is sent, and what was set before. */
  static async start(options: ConfigDeliveryOptions): Promise<ConfigDelivery> {
    const delivery = new ConfigDelivery(options);
    options.outbox.onChange((command) => void delivery.#answered(command));
    options.configs.carriedBy(delivery);
    for (const deviceId of await options.configs.deviceIds()) await delivery.reached(deviceId);
    return delivery;
  }

  /** The device is there: it gets what it has not taken over yet. */
  async reached(deviceId: string): Promise<void> {
    const { registry, configs, log } = this.#options;
    const device = registry.get(deviceId);
    if (device === undefined) return;
    try {
      const { desired, reported } = await configs.of(device);
      if (desired.version === reported.desiredVersion) return;
      const command = await this.#submit(device, desired, 'gateway', keyOf(device, desired));
      // It said so before, and a power cut came in between.
      if (command?.state === 'acknowledged') await this.#answered(command);
    } catch (error) {
      log.warn({ event: 'config-unsent', deviceId, err: error }, 'A configuration could not be sent');
    }
  }

  /** @throws as the outbox does. */
  async send(device: Device, desired: ConfigDocument, actor: string): Promise<ConfigCommand | undefined> {
    const command = await this.#submit(device, desired, actor, keyOf(device, desired));
    // Asked for once more, after the device could not or somebody did not want to.
    const isOver = command?.state === 'failed' || command?.state === 'cancelled';
    return isOver ? await this.#submit(device, desired, actor) : command;
  }

  /** It asked for it over HTTP, say: what still waits for it is over. */
  async settle({ deviceId }: Device, version: number): Promise<void> {
    const { outbox } = this.#options;
    const waiting = outbox
      .list(deviceId)
      .filter(
        ({ kind: itsKind, state, payload }) =>
          itsKind === kind && isWaiting.has(state) && payload.version === version,
      );
    // One that an answer was faster than is over as well.
    for (const { id } of waiting)
      await outbox.cancel(deviceId, id, 'the device, which has it').catch(() => undefined);
  }

  /** Undefined where the device may not come in; it gets it when it does. */
  async #submit(
    { deviceId }: Device,
    { version, document }: ConfigDocument,
    actor: string,
    idempotencyKey?: string,
  ): Promise<ConfigCommand | undefined> {
    const isSmall = Buffer.byteLength(JSON.stringify(document)) <= documentBytesMax;
    const payload = isSmall ? { version, config: document } : { version };
    const key = idempotencyKey === undefined ? {} : { idempotencyKey };
    try {
      return await this.#options.outbox.submit({ deviceId, kind, payload, expiresInMs: null, actor, ...key });
    } catch (error) {
      if (errorCode(error) === 'DEVICE_CONFLICT') return undefined;
      throw error;
    }
  }

  async #answered({ deviceId, kind: answeredKind, state, payload }: ConfigCommand): Promise<void> {
    const { registry, configs, log } = this.#options;
    const device = registry.get(deviceId);
    const { version } = payload;
    if (device === undefined || answeredKind !== kind || state !== 'acknowledged') return;
    if (typeof version !== 'number') return;
    await configs.takenOver(device, version).catch((error: unknown) => {
      log.warn(
        { event: 'config-unrecorded', deviceId, err: error },
        'That it was taken over is not on record',
      );
    });
  }
}

/** Another one once the device was shut out: what waited for it then was withdrawn. */
function keyOf({ id, epoch }: Device, { version }: ConfigDocument): string {
  return `config ${id}.${epoch}.${version}`;
}
