// What becomes of chunks with age: samples are thinned to one row a minute, those are dropped; at the cap, or when
// the disk is nearly full, earlier. Promises: each step is one change of the store, so that a power cut between two
// leaves every minute there once; ages count on the store's own clock, never the wall's; works in slices.

import {
  type Bucket,
  type ChunkStore,
  hourMs,
  type Level,
  latestWrite,
  type NewChunk,
  type StoredChunk,
} from './chunk-store.ts';
import { decode, encode } from './codec.ts';
import { decodeLatest } from './latest.ts';
import type { Pacer } from './query.ts';
import { thin } from './summary.ts';
import { mergeTables, type Table } from './table.ts';

/** Chunks of one series thinned at once. */
const thinChunksMax = 64;
/** Samples this young are dropped rather than thinned to make room: they are being written. */
const youngMs = 2 * hourMs;
/** Samples may carry any time, and must not make a bucket for each. */
const bucketsMax = 5_000;
const latestIntervalMs = 6 * hourMs;

export interface RetentionOptions {
  readonly store: ChunkStore;
  readonly rawMs: number;
  readonly maxAgeMs: number;
  readonly maxBytes: number;
}

export class Retention {
  readonly #options: RetentionOptions;
  readonly #store: ChunkStore;
  #latestCheckedMs = 0;
  #thinnedRows = 0;
  #damagedChunks = 0;
  readonly dropped = { age: 0, capacity: 0, disk: 0 };

  constructor(options: RetentionOptions) {
    this.#options = options;
    this.#store = options.store;
  }

  get thinnedRows(): number {
    return this.#thinnedRows;
  }

  get damagedChunks(): number {
    return this.#damagedChunks;
  }

  /** @throws GatewayError `STORE_FAILED`: what is left is done the next time. */
  async tidy(pacer: Pacer): Promise<void> {
    const { runMs } = this.#store;
    const { rawMs, maxAgeMs, maxBytes } = this.#options;
    for (const bucket of this.#oldest('raw')) {
      if (runMs - bucket.bornMs < rawMs) break;
      await this.#thin(bucket, pacer);
    }
    for (const bucket of this.#oldest('thinned')) {
      if (runMs - bucket.changedMs < maxAgeMs) break;
      await this.#drop(bucket, 'age');
    }
    while (this.#store.bytes('raw') + this.#store.bytes('thinned') > maxBytes || this.#hasManyBuckets) {
      const [raw] = this.#oldest('raw');
      const bucket = this.#oldest('thinned')[0] ?? raw;
      if (bucket === undefined) break;
      if (raw !== undefined && runMs - raw.bornMs >= youngMs) await this.#thin(raw, pacer);
      else await this.#drop(bucket, 'capacity');
    }
    if (runMs - this.#latestCheckedMs < latestIntervalMs) return;
    this.#latestCheckedMs = runMs;
    await this.#dropLatest(runMs - maxAgeMs);
  }

  /** Gives the oldest bucket away: others need the disk more. */
  async giveWay(): Promise<void> {
    const oldest = this.#oldest('thinned')[0] ?? this.#oldest('raw')[0];
    if (oldest !== undefined) await this.#drop(oldest, 'disk');
  }

  get #hasManyBuckets(): boolean {
    return this.#store.buckets('raw').length + this.#store.buckets('thinned').length > bucketsMax;
  }

  #oldest(level: Level): Bucket[] {
    // Thinned days keep growing: their age is that of the last that came.
    const born = (bucket: Bucket) => (level === 'raw' ? bucket.bornMs : bucket.changedMs);
    return this.#store.buckets(level).sort((a, b) => born(a) - born(b) || a.number - b.number);
  }

  async #drop(bucket: Bucket, reason: 'age' | 'capacity' | 'disk'): Promise<void> {
    await this.#store.drop(bucket);
    this.dropped[reason] += 1;
  }

  /** Every series in a change of its own: cut short, the rest is thinned the next time. */
  async #thin({ number, bornMs }: Bucket, pacer: Pacer): Promise<void> {
    let waiting: StoredChunk[] = [];
    for await (const chunk of this.#store.chunks('raw', number)) {
      const [first] = waiting;
      const isSame = first?.deviceId === chunk.deviceId && first.measurement === chunk.measurement;
      if (first !== undefined && (!isSame || waiting.length >= thinChunksMax)) {
        await this.#thinChunks(first, waiting, bornMs, pacer);
        waiting = [];
      }
      waiting.push(chunk);
    }
    const [first] = waiting;
    if (first !== undefined) await this.#thinChunks(first, waiting, bornMs, pacer);
    // What could not be read is left: nobody ever will.
    const left = this.#store.buckets('raw').find((bucket) => bucket.number === number);
    if (left !== undefined) await this.#store.drop(left);
  }

  async #thinChunks(
    { deviceId, measurement, hour }: StoredChunk,
    chunks: readonly StoredChunk[],
    bornMs: number,
    pacer: Pacer,
  ): Promise<void> {
    const tables: Table[] = [];
    for (const { value } of chunks) {
      const table = decode(value);
      if (table === undefined) this.#damagedChunks += 1;
      else tables.push(table);
      await pacer.pause();
    }
    const table = mergeTables(tables);
    await pacer.pause();
    const added: NewChunk[] = [];
    if (table.rows > 0) {
      const thinned = thin(table);
      const value = encode(thinned);
      added.push({ level: 'thinned', deviceId, measurement, hour, value, rows: thinned.rows, bornMs });
    }
    await this.#store.change(added, chunks);
    this.#thinnedRows += table.rows;
    await pacer.pause();
  }

  /** Devices that have not been heard of for so long have no latest value either. */
  async #dropLatest(beforeMs: number): Promise<void> {
    for await (const { deviceId, measurement, value } of this.#store.latest()) {
      if (decodeLatest(value).runMs >= beforeMs) continue;
      await this.#store.change([], [], [latestWrite(deviceId, measurement, undefined)]);
    }
  }
}
