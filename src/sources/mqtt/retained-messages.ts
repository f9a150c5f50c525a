// The last retained message of each topic, in memory and in the log.
//
// Promises: so many, so large, and no more below one device's topics than the limits say; what a device left goes with
// the device. `keep` changes memory; what must be durable with it is in `writeOf`, and the caller writes it.
//
// mqtt/retained/{topic}

import { matchesFilter } from '../../model/topic.ts';
import { homeAssistantPrefix } from './access.ts';
import type { MqttLimits } from './limits.ts';
import type { LogWrite, SessionLog } from './session-log.ts';
import { decodeStoredMessage, encodeStoredMessage, type StoredMessage } from './stored-message.ts';

export interface RetainedMessagesOptions {
  readonly log: SessionLog;
  readonly limits: MqttLimits;
}

export class RetainedMessages {
  readonly #log: SessionLog;
  readonly #limits: MqttLimits;
  readonly #messages = new Map<string, StoredMessage>();
  readonly #byOwner = new Map<string, number>();
  #unkept = 0;

  constructor({ log, limits }: RetainedMessagesOptions) {
    this.#log = log;
    this.#limits = limits;
  }

  stats() {
    return { retained: this.#messages.size, unkeptRetained: this.#unkept };
  }

  /** False when that changes nothing. An empty payload removes what there is [MQTT-3.3.1-6]. */
  keep(message: StoredMessage): boolean {
    const { topic, payload } = message;
    const owner = ownerOf(topic);
    const isKnown = this.#messages.has(topic);
    if (payload.length === 0) {
      if (!this.#messages.delete(topic)) return false;
      this.#count(owner, -1);
      return true;
    }
    if (!isKnown && this.#messages.size >= this.#limits.retained) {
      this.#unkept += 1;
      return false;
    }
    this.#messages.set(topic, { ...message, retain: true, payload: Buffer.from(payload) });
    if (!isKnown) this.#count(owner, 1);
    return true;
  }

  writeOf(message: StoredMessage): LogWrite {
    const key = keyOf(message.topic);
    if (message.payload.length === 0) return { key, value: undefined };
    return { key, value: encodeStoredMessage({ ...message, retain: true }) };
  }

  /** Whether a message of this size may be kept for the owner of its topic. */
  hasRoom(topic: string, bytes: number): boolean {
    const limits = this.#limits;
    if (bytes === 0 || this.#messages.has(topic)) return bytes <= limits.retainedBytes;
    if (bytes > limits.retainedBytes || this.#messages.size >= limits.retained) return false;
    const owner = ownerOf(topic);
    if (owner === undefined) return true;
    const most = owner === homeAssistantPrefix ? limits.retainedHomeAssistant : limits.retainedPerDevice;
    return (this.#byOwner.get(owner) ?? 0) < most;
  }

  *matching(filters: readonly string[]): Generator<StoredMessage> {
    for (const filter of filters) {
      if (!filter.includes('+') && !filter.includes('#')) {
        const message = this.#messages.get(filter);
        if (message !== undefined) yield message;
        continue;
      }
      for (const message of this.#messages.values()) {
        if (matchesFilter(filter, message.topic)) yield message;
      }
    }
  }

  /** Forgets what a device left to be kept below its own topics. */
  forgetOf(deviceId: string): void {
    for (const topic of this.#messages.keys()) {
      if (ownerOf(topic) !== deviceId) continue;
      this.#messages.delete(topic);
      this.#count(deviceId, -1);
      this.#log.writeLazily([{ key: keyOf(topic), value: undefined }]);
    }
  }

  /** The same for all devices that are not known any more. */
  forgetOthers(isKnown: (deviceId: string) => boolean): void {
    for (const owner of [...this.#byOwner.keys()]) {
      if (owner !== homeAssistantPrefix && !isKnown(owner)) this.forgetOf(owner);
    }
  }

  /** From the log; false for a damaged record. */
  restore(topic: string, value: Buffer): boolean {
    const message = decodeStoredMessage(value);
    if (message === undefined || message.topic !== topic) return false;
    this.#messages.set(topic, message);
    this.#count(ownerOf(topic), 1);
    return true;
  }

  #count(owner: string | undefined, change: number): void {
    if (owner === undefined) return;
    const count = (this.#byOwner.get(owner) ?? 0) + change;
    if (count > 0) this.#byOwner.set(owner, count);
    else this.#byOwner.delete(owner);
  }
}

function keyOf(topic: string): string {
  return `mqtt/retained/${topic}`;
}

/** `{root}/devices/{id}/…` → id. Home Assistant's topics count as one, under a name that no device can have. */
function ownerOf(topic: string): string | undefined {
  if (topic.startsWith(homeAssistantPrefix)) return homeAssistantPrefix;
  return /(?:^|\/)devices\/([^/]+)\//.exec(topic)?.[1];
}
