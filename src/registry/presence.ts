// When something last came from each device, by any transport, and whether it is there. Promises: survives restarts,
// at the price of one small write in ten minutes at most; a power cut costs what was seen since the last one. What was
// seen while the time was not known gets its date when it is. A device that was there when the gateway died counts as
// gone: nobody can say otherwise.

import type { Clock } from '../platform/clock.ts';
import type { Store } from '../platform/store.ts';

const recordKey = 'presence';
const saveIntervalMs = 600_000;
/** A device without a connection that said it is there is believed for so long after it last said anything. */
const onlineMs = 300_000;

export interface PresenceOptions {
  readonly store: Store;
  readonly clock: Clock;
  /** Whether the wall clock is believed; without, it is. */
  readonly isTimeKnown?: () => boolean;
  readonly isKnown: (deviceId: string) => boolean;
}

/** A moment; undefined milliseconds: it was, and nobody knows when. */
export interface Moment {
  readonly wallMs: number | undefined;
}

export interface Sight {
  readonly lastSeen: Moment | undefined;
  readonly isOnline: boolean;
  /** Undefined before it was first heard of. */
  readonly since: Moment | undefined;
}

/** On the monotonic clock of this process, or a date from an earlier one; 0 for an unknown date. */
type Instant = { readonly monotonicMs: number } | { readonly wallMs: number };

interface Entry {
  seen: Instant | undefined;
  isOnline: boolean;
  since: Instant | undefined;
  /** Its MQTT connections. */
  connections: number;
}

const unseen: Sight = { lastSeen: undefined, isOnline: false, since: undefined };

export class Presence {
  readonly #options: PresenceOptions;
  readonly #entries = new Map<string, Entry>();
  #isChanged = false;
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: PresenceOptions) {
    this.#options = options;
  }

  /** Reads what was kept. @throws GatewayError `STORE_FAILED`. */
  static async open(options: PresenceOptions): Promise<Presence> {
    const presence = new Presence(options);
    presence.#restore(await options.store.get(recordKey));
    return presence;
  }

  /** Keeps it from now on, for a gateway that runs. */
  keep(): void {
    this.#timer = setInterval(() => void this.save(), saveIntervalMs).unref();
  }

  /** Something came from the device. Cheap: called for every message. */
  touch(deviceId: string): void {
    const entry = this.#entry(deviceId);
    if (entry === undefined) return;
    entry.seen = { monotonicMs: this.#options.clock.monotonicMs() };
    this.#isChanged = true;
  }

  connected(deviceId: string): void {
    this.touch(deviceId);
    const entry = this.#entry(deviceId);
    if (entry === undefined) return;
    entry.connections += 1;
    this.#turn(entry, true);
  }

  disconnected(deviceId: string): void {
    const entry = this.#entries.get(deviceId);
    if (entry === undefined || entry.connections === 0) return;
    entry.connections -= 1;
    if (entry.connections === 0) this.#turn(entry, false);
  }

  /** What the device says of itself, or left to be said: `status/{kind}`. A device that is connected is there. */
  said(deviceId: string, kind: string): void {
    const entry = this.#entry(deviceId);
    if (entry === undefined) return;
    if (kind === 'online' || kind === 'heartbeat') this.#turn(entry, true);
    if (kind === 'offline' && entry.connections === 0) this.#turn(entry, false);
  }

  forget(deviceId: string): void {
    this.#isChanged = this.#entries.delete(deviceId) || this.#isChanged;
  }

  of(deviceId: string): Sight {
    const entry = this.#entries.get(deviceId);
    if (entry === undefined) return unseen;
    return {
      lastSeen: this.#moment(entry.seen),
      isOnline: this.#isThere(entry),
      since: this.#moment(this.#isThere(entry) === entry.isOnline ? entry.since : entry.seen),
    };
  }

  get online(): number {
    let online = 0;
    for (const entry of this.#entries.values()) if (this.#isThere(entry)) online += 1;
    return online;
  }

  /** A disk that refuses it is asked again later. */
  async save(): Promise<void> {
    if (!this.#isChanged) return;
    this.#isChanged = false;
    const kept = [...this.#entries]
      .filter(([deviceId]) => this.#options.isKnown(deviceId))
      .map(([deviceId, { seen, since }]) => [deviceId, this.#dateOf(seen), this.#dateOf(since)]);
    try {
      await this.#options.store.write([{ key: recordKey, value: Buffer.from(JSON.stringify(kept)) }]);
    } catch {
      this.#isChanged = true;
    }
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.save();
  }

  #restore(bytes: Buffer | undefined): void {
    let kept: unknown;
    try {
      kept = JSON.parse(bytes?.toString() ?? '[]');
    } catch {
      return;
    }
    if (!Array.isArray(kept)) return;
    for (const item of kept) {
      if (!Array.isArray(item)) continue;
      const [deviceId, seenMs, sinceMs] = item as unknown[];
      if (typeof deviceId !== 'string' || !this.#options.isKnown(deviceId)) continue;
      const instant = (wallMs: unknown) => (typeof wallMs === 'number' ? { wallMs } : undefined);
      this.#entries.set(deviceId, {
        seen: instant(seenMs),
        since: instant(sinceMs),
        isOnline: false,
        connections: 0,
      });
    }
  }

  #entry(deviceId: string): Entry | undefined {
    const known = this.#entries.get(deviceId);
    if (known !== undefined) return known;
    if (!this.#options.isKnown(deviceId)) return undefined;
    const entry: Entry = { seen: undefined, isOnline: false, since: undefined, connections: 0 };
    this.#entries.set(deviceId, entry);
    return entry;
  }

  #isThere({ isOnline, connections, seen }: Entry): boolean {
    if (!isOnline || connections > 0) return isOnline;
    const nowMs = this.#options.clock.monotonicMs();
    return seen !== undefined && 'monotonicMs' in seen && nowMs - seen.monotonicMs < onlineMs;
  }

  #turn(entry: Entry, isOnline: boolean): void {
    if (entry.isOnline === isOnline) return;
    entry.isOnline = isOnline;
    entry.since = { monotonicMs: this.#options.clock.monotonicMs() };
    this.#isChanged = true;
  }

  #moment(instant: Instant | undefined): Moment | undefined {
    const wallMs = this.#dateOf(instant);
    if (wallMs === undefined) return undefined;
    return { wallMs: wallMs === 0 ? undefined : wallMs };
  }

  /** 0 while nobody knows; undefined when there was nothing. */
  #dateOf(instant: Instant | undefined): number | undefined {
    if (instant === undefined || 'wallMs' in instant) return instant?.wallMs;
    const { clock, isTimeKnown } = this.#options;
    if (isTimeKnown !== undefined && !isTimeKnown()) return 0;
    return Math.round(clock.wallMs() - (clock.monotonicMs() - instant.monotonicMs));
  }
}
