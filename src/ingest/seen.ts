// De-duplication by device, boot and sequence number. Copies are looked for within one measurement, so a node may
// number all its readings in one sequence or each measurement in its own. Several boots are remembered, because a
// node may still send what it kept from before a restart.
// Promises: a message counts as seen only while its append is under way or durable; a copy that comes meanwhile
// waits for the same append. Does not promise to recognise a copy more than a window late: that one is stored.

import type { HotState, StateWrite } from '../journal/contract.ts';
import type { Sample } from './decode.ts';
import { SequenceWindow } from './sequence-window.ts';

const keyPrefix = 'ingest/seen/';

const defaults = {
  // The registry's own bound; each stream costs about 400 bytes.
  devicesMax: 10_000,
  // Measurements times boots; the longest unused goes first.
  streamsMax: 64,
} as const;

/** What tells a message from all others of its device. */
export interface Identity {
  /** Boot and measurement: within it numbers are counted. */
  readonly stream: string;
  readonly seq: number;
}

export function identityOf(sample: Sample | undefined): Identity | undefined {
  if (sample?.boot === undefined || sample.seq === undefined || sample.fault !== undefined) return undefined;
  return { stream: `${sample.boot}/${sample.measurement}`, seq: sample.seq };
}

interface StreamEntry {
  readonly window: SequenceWindow;
  readonly inFlight: Map<number, Promise<void>>;
}

export interface SeenOptions {
  readonly devicesMax?: number;
  readonly streamsMax?: number;
}

function keyOf(deviceId: string, stream: string): string {
  return `${keyPrefix}${deviceId}/${stream}`;
}

export class Seen {
  /** Both maps are kept in order of use, the longest unused first. */
  readonly #devices = new Map<string, Map<string, StreamEntry>>();
  readonly #devicesMax: number;
  readonly #streamsMax: number;
  #deletions: StateWrite[] = [];
  /** A device sends in runs: the stream used last is asked for again some four times a message. */
  #last: { readonly deviceId: string; readonly stream: string; readonly entry: StreamEntry } | undefined;

  private constructor(options: SeenOptions) {
    this.#devicesMax = options.devicesMax ?? defaults.devicesMax;
    this.#streamsMax = options.streamsMax ?? defaults.streamsMax;
  }

  /** @throws what the hot state throws. A window it cannot read starts empty. */
  static async open(hotState: HotState, options: SeenOptions = {}): Promise<Seen> {
    const seen = new Seen(options);
    for await (const [key, value] of hotState.entries(keyPrefix)) {
      const path = key.slice(keyPrefix.length);
      const deviceId = path.slice(0, path.indexOf('/'));
      const stream = path.slice(deviceId.length + 1);
      const window = SequenceWindow.decode(value);
      if (deviceId === '' || stream === '' || window === undefined) continue;
      seen.#insert(deviceId, stream, window);
    }
    return seen;
  }

  get size(): number {
    return this.#devices.size;
  }

  /** Undefined: new. Otherwise a copy, and the promise is the durability of the first one. */
  copyOf(deviceId: string, stream: string, seq: number): Promise<void> | undefined {
    const entry = this.#find(deviceId, stream);
    if (entry === undefined || !entry.window.has(seq)) return undefined;
    return entry.inFlight.get(seq) ?? Promise.resolve();
  }

  /** Marks it as seen. The writes belong into the append of the same message. */
  mark(deviceId: string, stream: string, seq: number): StateWrite[] {
    const entry = this.#use(deviceId, stream);
    entry.window.add(seq);
    const writes = this.#deletions;
    this.#deletions = [];
    writes.push({ key: keyOf(deviceId, stream), value: entry.window.encode() });
    return writes;
  }

  /** Copies that come from now on wait for this promise, until it is settled. */
  awaitWith(deviceId: string, stream: string, seq: number, durable: Promise<void>): void {
    this.#find(deviceId, stream)?.inFlight.set(seq, durable);
  }

  settled(deviceId: string, stream: string, seq: number): void {
    this.#find(deviceId, stream)?.inFlight.delete(seq);
  }

  /**
   * The append failed: the message is new again. The write corrects what later appends of the same device may
   * already have said about it; undefined when none is under way.
   */
  unmark(deviceId: string, stream: string, seq: number): StateWrite | undefined {
    const entry = this.#find(deviceId, stream);
    if (entry === undefined) return undefined;
    entry.inFlight.delete(seq);
    entry.window.remove(seq);
    return { key: keyOf(deviceId, stream), value: entry.window.encode() };
  }

  #find(deviceId: string, stream: string): StreamEntry | undefined {
    const last = this.#last;
    if (last !== undefined && last.stream === stream && last.deviceId === deviceId) return last.entry;
    return this.#devices.get(deviceId)?.get(stream);
  }

  #use(deviceId: string, stream: string): StreamEntry {
    const last = this.#last;
    if (last !== undefined && last.stream === stream && last.deviceId === deviceId) return last.entry;
    const streams = this.#devices.get(deviceId);
    let entry = streams?.get(stream);
    if (streams === undefined || entry === undefined) {
      entry = this.#insert(deviceId, stream, new SequenceWindow());
    } else if (streams.size > 1) {
      streams.delete(stream);
      streams.set(stream, entry);
    }
    this.#last = { deviceId, stream, entry };
    return entry;
  }

  #insert(deviceId: string, stream: string, window: SequenceWindow): StreamEntry {
    let streams = this.#devices.get(deviceId);
    if (streams === undefined) {
      streams = new Map();
      this.#devices.set(deviceId, streams);
      this.#evictDevice();
    }
    const entry: StreamEntry = { window, inFlight: new Map() };
    streams.set(stream, entry);
    if (streams.size > this.#streamsMax) {
      const [oldest] = streams.keys();
      if (oldest !== undefined) {
        streams.delete(oldest);
        this.#deletions.push({ key: keyOf(deviceId, oldest), value: undefined });
      }
    }
    return entry;
  }

  #evictDevice(): void {
    if (this.#devices.size <= this.#devicesMax) return;
    const [first] = this.#devices;
    if (first === undefined) return;
    const [deviceId, streams] = first;
    this.#devices.delete(deviceId);
    if (this.#last?.deviceId === deviceId) this.#last = undefined;
    for (const stream of streams.keys()) {
      this.#deletions.push({ key: keyOf(deviceId, stream), value: undefined });
    }
  }
}
