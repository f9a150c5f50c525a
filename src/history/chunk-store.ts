// Where the chunks lie in LevelDB, and what is known of them without reading them. Keys begin with the time, so that
// writing goes to the end and deleting takes whole stretches: LevelDB then hardly copies anything again.
//
//   raw/{hour}/{device}/{measurement}/{order}               samples of one hour
//   thinned/{day}/{device}/{measurement}/{hour}/{order}     one row a minute
//   latest/{device}/{measurement}                           newest value of each field
//   index/raw/{hour}, index/thinned/{day}                   bytes and age of a bucket
//   clock                                                   how long history has been running, next order
//
// Ages count on history's own clock, which stands still while the gateway does not run: a wall clock that is wrong, or
// becomes right, ages nothing. Promises: readers can tell what belongs together (`settled`, `generation`).

import type { LevelRoom } from '../platform/level-store.ts';
import type { StoreWrite } from '../platform/store.ts';

export const hourMs = 3_600_000;
const hoursPerDay = 24;

export type Level = 'raw' | 'thinned';

/** All chunks of an hour (raw) or a day (thinned). Numbers count from the epoch. */
export interface Bucket {
  readonly level: Level;
  readonly number: number;
  bytes: number;
  chunks: number;
  rows: number;
  /** On history's own clock: when its first chunk came, and its last. */
  bornMs: number;
  changedMs: number;
}

export interface ChunkPlace {
  readonly level: Level;
  readonly deviceId: string;
  readonly measurement: string;
  readonly hour: number;
}

export interface NewChunk extends ChunkPlace {
  readonly value: Buffer;
  readonly rows: number;
  /** On history's own clock; default now. */
  readonly bornMs?: number;
}

export interface StoredChunk {
  readonly key: string;
  readonly deviceId: string;
  readonly measurement: string;
  readonly hour: number;
  readonly value: Buffer;
}

export function dayOf(hour: number): number {
  return Math.floor(hour / hoursPerDay);
}

const digits = { number: 7, order: 16 } as const;

function padded(value: number, length: number): string {
  return String(value).padStart(length, '0');
}

// Measurements are any text; a slash would end one early.
function escaped(measurement: string): string {
  return measurement.replace(/[%/]/g, (char) => (char === '%' ? '%25' : '%2F'));
}

function unescaped(part: string): string {
  return part.replace(/%(25|2F)/g, (_, code) => (code === '25' ? '%' : '/'));
}

function bucketPrefix(level: Level, number: number): string {
  return `${level}/${padded(number, digits.number)}/`;
}

/** `0` follows `/`: all keys that start with the prefix and its slash. */
function behind(prefix: string): string {
  return `${prefix.slice(0, -1)}0`;
}

function chunkOf(key: string, value: Buffer): StoredChunk | undefined {
  const [level, number = '', deviceId = '', measurement = '', ...rest] = key.split('/');
  const hour = Number(level === 'raw' ? number : rest[0]);
  if (!Number.isSafeInteger(hour) || rest.length !== (level === 'raw' ? 1 : 2)) return undefined;
  return { key, deviceId, measurement: unescaped(measurement), hour, value };
}

/** Undefined deletes it. */
export function latestWrite(deviceId: string, measurement: string, value: Buffer | undefined): StoreWrite {
  return { key: latestKey(deviceId, measurement), value };
}

function latestKey(deviceId: string, measurement: string): string {
  return `latest/${deviceId}/${escaped(measurement)}`;
}

interface ClockRecord {
  readonly runMs: number;
  readonly order: number;
}

function parseJson(value: Buffer | undefined): unknown {
  try {
    return value === undefined ? undefined : JSON.parse(value.toString());
  } catch {
    return undefined;
  }
}

function isCount(value: unknown): value is number {
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;
}

export interface ChunkStoreOptions {
  readonly room: LevelRoom;
  readonly monotonicMs: () => number;
  /** Where orders begin when the store has forgotten: above any there could be. */
  readonly wallMs: () => number;
}

export class ChunkStore {
  readonly #room: LevelRoom;
  readonly #monotonicMs: () => number;
  readonly #startedMs: number;
  readonly #runBeforeMs: number;
  readonly #buckets: Readonly<Record<Level, Map<number, Bucket>>> = { raw: new Map(), thinned: new Map() };
  #order: number;
  #generation = 0;
  #changing: Promise<void> | undefined;

  private constructor(options: ChunkStoreOptions, clock: ClockRecord) {
    this.#room = options.room;
    this.#monotonicMs = options.monotonicMs;
    this.#startedMs = options.monotonicMs();
    this.#runBeforeMs = clock.runMs;
    this.#order = clock.order;
  }

  static async open(options: ChunkStoreOptions): Promise<ChunkStore> {
    const { room } = options;
    const stored = parseJson(await room.get('clock')) as Partial<ClockRecord> | undefined;
    const store = new ChunkStore(options, {
      runMs: isCount(stored?.runMs) ? stored.runMs : 0,
      order: isCount(stored?.order) ? stored.order : Math.max(0, Math.floor(options.wallMs())),
    });
    for (const level of ['raw', 'thinned'] as const) {
      for await (const [key, value] of room.entries({ gte: `index/${level}/`, lt: `index/${level}0` })) {
        const number = Number(key.slice(`index/${level}/`.length));
        const record = parseJson(value) as Partial<Bucket> | undefined;
        if (!isCount(number) || record === undefined || record === null) continue;
        const { bytes, chunks, rows, bornMs, changedMs } = record;
        if (![bytes, chunks, rows, bornMs, changedMs].every(isCount)) continue;
        store.#buckets[level].set(number, { ...(record as Bucket), level, number });
      }
      await store.#findUnlisted(level);
    }
    return store;
  }

  /** How long history has been running, over all starts. */
  get runMs(): number {
    return this.#runBeforeMs + Math.max(0, Math.floor(this.#monotonicMs() - this.#startedMs));
  }

  /** Another one after every change: what was read under one number belongs together. */
  get generation(): number {
    return this.#generation;
  }

  /** Resolves, at once if it can, when no change is under way. */
  async settled(): Promise<void> {
    while (this.#changing !== undefined) await this.#changing;
  }

  buckets(level: Level): Bucket[] {
    return [...this.#buckets[level].values()];
  }

  bytes(level: Level): number {
    return this.buckets(level).reduce((sum, { bytes }) => sum + bytes, 0);
  }

  chunkCount(level: Level): number {
    return this.buckets(level).reduce((sum, { chunks }) => sum + chunks, 0);
  }

  hasBucket(level: Level, number: number): boolean {
    return this.#buckets[level].has(number);
  }

  /**
   * Adds and deletes chunks, all or nothing; after a power cut the last changes may not have happened. `done` runs
   * before any reader sees the new generation.
   * @throws GatewayError `STORE_FAILED`: nothing has changed.
   */
  async change(
    added: readonly NewChunk[],
    deleted: readonly StoredChunk[],
    further: readonly StoreWrite[] = [],
    done: () => void = () => undefined,
  ): Promise<void> {
    const touched = new Map<string, Bucket>();
    const bucketAt = (level: Level, hour: number, bornMs: number): Bucket => {
      const number = level === 'raw' ? hour : dayOf(hour);
      const id = `${level}/${padded(number, digits.number)}`;
      let bucket = touched.get(id);
      if (bucket === undefined) {
        const known = this.#buckets[level].get(number);
        bucket =
          known === undefined
            ? { level, number, bytes: 0, chunks: 0, rows: 0, bornMs, changedMs: bornMs }
            : { ...known };
        touched.set(id, bucket);
      }
      return bucket;
    };
    const writes: StoreWrite[] = [...further];
    const runMs = this.runMs;
    for (const chunk of added) {
      const { level, deviceId, measurement, hour, value, rows } = chunk;
      const order = padded(this.#order, digits.order);
      this.#order += 1;
      const series = `${deviceId}/${escaped(measurement)}`;
      const key =
        level === 'raw'
          ? `${bucketPrefix('raw', hour)}${series}/${order}`
          : `${bucketPrefix('thinned', dayOf(hour))}${series}/${padded(hour, digits.number)}/${order}`;
      writes.push({ key, value });
      const bucket = bucketAt(level, hour, chunk.bornMs ?? runMs);
      bucket.bytes += key.length + value.length;
      bucket.chunks += 1;
      bucket.rows += rows;
      bucket.changedMs = Math.max(bucket.changedMs, chunk.bornMs ?? runMs);
    }
    for (const { key, hour, value } of deleted) {
      writes.push({ key, value: undefined });
      const bucket = bucketAt(key.startsWith('raw/') ? 'raw' : 'thinned', hour, runMs);
      bucket.bytes = Math.max(0, bucket.bytes - key.length - value.length);
      bucket.chunks = Math.max(0, bucket.chunks - 1);
    }
    for (const [id, bucket] of touched) {
      const { bytes, chunks, rows, bornMs, changedMs } = bucket;
      const record = Buffer.from(JSON.stringify({ bytes, chunks, rows, bornMs, changedMs }));
      writes.push({ key: `index/${id}`, value: chunks === 0 ? undefined : record });
    }
    writes.push({ key: 'clock', value: Buffer.from(JSON.stringify({ runMs, order: this.#order })) });
    await this.#settle(async () => {
      await this.#room.writeUnsynced(writes);
      for (const bucket of touched.values()) {
        if (bucket.chunks === 0) this.#buckets[bucket.level].delete(bucket.number);
        else this.#buckets[bucket.level].set(bucket.number, bucket);
      }
      done();
    });
  }

  /** Deletes a bucket and gives its space back. Cut short, it is still there and can be dropped again. */
  async drop({ level, number }: Bucket): Promise<void> {
    const prefix = bucketPrefix(level, number);
    await this.#settle(async () => {
      await this.#room.clear(prefix, behind(prefix));
      await this.#room.writeUnsynced([
        { key: `index/${level}/${padded(number, digits.number)}`, value: undefined },
      ]);
      this.#buckets[level].delete(number);
    });
    await this.#room.compact(prefix, behind(prefix));
  }

  /** The chunks of a bucket in the order of device and measurement; of one device, or one measurement of it. */
  async *chunks(
    level: Level,
    number: number,
    deviceId?: string,
    measurement?: string,
  ): AsyncGenerator<StoredChunk, void, void> {
    let prefix = bucketPrefix(level, number);
    if (deviceId !== undefined) prefix += `${deviceId}/`;
    if (measurement !== undefined) prefix += `${escaped(measurement)}/`;
    for await (const [key, value] of this.#room.entries({ gte: prefix, lt: behind(prefix) })) {
      const chunk = chunkOf(key, value);
      if (chunk !== undefined) yield chunk;
    }
  }

  /** The latest records of a device, or of all. */
  async *latest(
    deviceId?: string,
  ): AsyncGenerator<{ deviceId: string; measurement: string; value: Buffer }, void, void> {
    const prefix = deviceId === undefined ? 'latest/' : `latest/${deviceId}/`;
    for await (const [key, value] of this.#room.entries({ gte: prefix, lt: behind(prefix) })) {
      const [, device = '', measurement = ''] = key.split('/');
      yield { deviceId: device, measurement: unescaped(measurement), value };
    }
  }

  latestOf(deviceId: string, measurement: string): Promise<Buffer | undefined> {
    return this.#room.get(latestKey(deviceId, measurement));
  }

  /** What was changed so far survives a power cut. */
  async sync(): Promise<void> {
    const clock = JSON.stringify({ runMs: this.runMs, order: this.#order });
    await this.#room.write([{ key: 'clock', value: Buffer.from(clock) }]);
  }

  async #settle(change: () => Promise<void>): Promise<void> {
    this.#generation += 1;
    const changing = change().finally(() => {
      this.#changing = undefined;
    });
    this.#changing = changing.catch(() => undefined);
    await changing;
  }

  /** Buckets whose index entry was lost would never be found, nor deleted. */
  async #findUnlisted(level: Level): Promise<void> {
    let from = `${level}/`;
    for (;;) {
      let found: string | undefined;
      for await (const [key] of this.#room.entries({ gte: from, lt: `${level}0`, limit: 1 })) found = key;
      if (found === undefined) return;
      const number = Number(found.split('/')[1]);
      if (!isCount(number)) return;
      if (!this.#buckets[level].has(number)) await this.#list(level, number);
      from = behind(bucketPrefix(level, number));
    }
  }

  async #list(level: Level, number: number): Promise<void> {
    const { runMs } = this;
    const bucket: Bucket = { level, number, bytes: 0, chunks: 0, rows: 0, bornMs: runMs, changedMs: runMs };
    for await (const { key, value } of this.chunks(level, number)) {
      bucket.bytes += key.length + value.length;
      bucket.chunks += 1;
    }
    this.#buckets[level].set(number, bucket);
  }
}
