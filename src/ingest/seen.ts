// De-duplication by device, boot and sequence number. One sequence per boot of a device, over all its
// measurements; a few boots are remembered, because a node may still send what it kept from before a restart.
// Promises: a message counts as seen only while its append is under way or durable; a copy that comes meanwhile
// waits for the same append. Does not promise to recognise a copy more than a window late: that one is stored.

import type { HotState, StateWrite } from '../journal/contract.ts';
import { SequenceWindow } from './sequence-window.ts';

const keyPrefix = 'ingest/seen/';

const defaults = {
  // The registry's own bound; each costs about 400 bytes.
  devicesMax: 10_000,
  bootsMax: 4,
} as const;

interface BootEntry {
  readonly window: SequenceWindow;
  readonly inFlight: Map<number, Promise<void>>;
}

export interface SeenOptions {
  readonly devicesMax?: number;
  readonly bootsMax?: number;
}

function keyOf(deviceId: string, boot: string): string {
  return `${keyPrefix}${deviceId}/${boot}`;
}

export class Seen {
  /** Both maps are kept in order of use, the longest unused first. */
  readonly #devices = new Map<string, Map<string, BootEntry>>();
  readonly #devicesMax: number;
  readonly #bootsMax: number;
  #deletions: StateWrite[] = [];

  private constructor(options: SeenOptions) {
    this.#devicesMax = options.devicesMax ?? defaults.devicesMax;
    this.#bootsMax = options.bootsMax ?? defaults.bootsMax;
  }

  /** @throws what the hot state throws. A window it cannot read starts empty. */
  static async open(hotState: HotState, options: SeenOptions = {}): Promise<Seen> {
    const seen = new Seen(options);
    for await (const [key, value] of hotState.entries(keyPrefix)) {
      const [deviceId, boot] = key.slice(keyPrefix.length).split('/');
      const window = SequenceWindow.decode(value);
      if (deviceId === undefined || boot === undefined || window === undefined) continue;
      seen.#insert(deviceId, boot, window);
    }
    return seen;
  }

  get size(): number {
    return this.#devices.size;
  }

  /** Undefined: new. Otherwise a copy, and the promise is the durability of the first one. */
  copyOf(deviceId: string, boot: string, seq: number): Promise<void> | undefined {
    const entry = this.#devices.get(deviceId)?.get(boot);
    if (entry === undefined || !entry.window.has(seq)) return undefined;
    return entry.inFlight.get(seq) ?? Promise.resolve();
  }

  /** Marks it as seen. The writes belong into the append of the same message. */
  mark(deviceId: string, boot: string, seq: number): StateWrite[] {
    const entry = this.#use(deviceId, boot);
    entry.window.add(seq);
    const writes = this.#deletions;
    this.#deletions = [];
    writes.push({ key: keyOf(deviceId, boot), value: entry.window.encode() });
    return writes;
  }

  /** Copies that come from now on wait for this promise, until it is settled. */
  awaitWith(deviceId: string, boot: string, seq: number, durable: Promise<void>): void {
    this.#devices.get(deviceId)?.get(boot)?.inFlight.set(seq, durable);
  }

  settled(deviceId: string, boot: string, seq: number): void {
    this.#devices.get(deviceId)?.get(boot)?.inFlight.delete(seq);
  }

  /**
   * The append failed: the message is new again. The write corrects what later appends of the same device may
   * already have said about it; undefined when none is under way.
   */
  unmark(deviceId: string, boot: string, seq: number): StateWrite | undefined {
    const entry = this.#devices.get(deviceId)?.get(boot);
    if (entry === undefined) return undefined;
    entry.inFlight.delete(seq);
    entry.window.remove(seq);
    return { key: keyOf(deviceId, boot), value: entry.window.encode() };
  }

  #use(deviceId: string, boot: string): BootEntry {
    const boots = this.#devices.get(deviceId);
    const entry = boots?.get(boot);
    if (boots === undefined || entry === undefined) {
      return this.#insert(deviceId, boot, new SequenceWindow());
    }
    if (boots.size > 1) {
      boots.delete(boot);
      boots.set(boot, entry);
    }
    return entry;
  }

  #insert(deviceId: string, boot: string, window: SequenceWindow): BootEntry {
    let boots = this.#devices.get(deviceId);
    if (boots === undefined) {
      boots = new Map();
      this.#devices.set(deviceId, boots);
      this.#evictDevice();
    }
    const entry: BootEntry = { window, inFlight: new Map() };
    boots.set(boot, entry);
    if (boots.size > this.#bootsMax) {
      const [oldest] = boots.keys();
      if (oldest !== undefined) {
        boots.delete(oldest);
        this.#deletions.push({ key: keyOf(deviceId, oldest), value: undefined });
      }
    }
    return entry;
  }

  #evictDevice(): void {
    if (this.#devices.size <= this.#devicesMax) return;
    const [first] = this.#devices;
    if (first === undefined) return;
    const [deviceId, boots] = first;
    this.#devices.delete(deviceId);
    for (const boot of boots.keys()) {
      this.#deletions.push({ key: keyOf(deviceId, boot), value: undefined });
    }
  }
}
