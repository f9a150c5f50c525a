// Recent history, answered from local data: latest, range and aggregate of a device, forwarded or not.
//
//   ingest ─ record ─▶ open chunks ─ flush ─▶ chunks of an hour ─ thin ─▶ one row a minute ─▶ dropped
//                      in memory     5 min    LevelDB, 48 h                30 days
//
// A convenience copy: delivery is the journal's promise, not this one's. Promises: `record` never waits, throws or
// fails; memory and disk are bounded; nothing is deleted because of the wall clock; a disk that is full or failing
// stops history and nothing else. Does not promise what was recorded since the last flush after a power cut.

import { statfs } from 'node:fs/promises';
import type { FieldValue, Point } from '../model/point.ts';
import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import { Histogram, type HistogramSnapshot } from '../platform/histogram.ts';
import { LevelStore, type LevelStoreStats } from '../platform/level-store.ts';
import type { Log } from '../platform/log.ts';
import type { StoreWrite } from '../platform/store.ts';
import { ChunkStore, hourMs, type Level, latestWrite, type StoredChunk } from './chunk-store.ts';
import { coveredFromMs } from './coverage.ts';
import { forgetRange, type TimeRange } from './forgetting.ts';
import { decodeLatest, encodeLatest, type LatestFields } from './latest.ts';
import {
  type AggregateAnswer,
  type AggregateQuery,
  aggregate,
  Pacer,
  type RangeAnswer,
  type RangeQuery,
  range,
  resumed,
} from './query.ts';
import { HistoryReader } from './reader.ts';
import { type ClosedChunk, newChunks, Recent, type Series } from './recent.ts';
import { Retention } from './retention.ts';
import { timeNsOf } from './table.ts';

const defaults = {
  rawHours: 48,
  maxAgeDays: 30,
  maxBytes: 512 * 1024 * 1024,
  flushIntervalMs: 5 * 60_000,
  tidyIntervalMs: 60_000,
  /** What comes beyond it is not recorded: ingest waits for nothing here. */
  memoryBytesMax: 32 * 1024 * 1024,
};

/** With less space on the disk history does not write: it is the journal's. */
const freeBytesMin = 128 * 1024 * 1024;
/** With less it gives away what it has. */
const freeBytesDire = 32 * 1024 * 1024;
const undatedMax = 20_000;

export interface HistoryOptions {
  /** Of its own LevelDB. */
  readonly directory: string;
  readonly clock: Clock;
  readonly log: Log;
  /** How long samples are kept as they came; default 48. */
  readonly rawHours?: number;
  /** How long one row a minute is kept; default 30. */
  readonly maxAgeDays?: number;
  /** Of all chunks on disk; default 512 MiB. */
  readonly maxBytes?: number;
  /** Default 32 MiB; flushed when a quarter of it is used. */
  readonly memoryBytesMax?: number;
  /** Default 5 min; 0: only when asked or when memory is short. */
  readonly flushIntervalMs?: number;
  /** Default 1 min; 0: only when asked. */
  readonly tidyIntervalMs?: number;
  /** Free space of the disk; default what the file system says. */
  readonly freeBytes?: () => Promise<number>;
}

export interface LatestAnswer {
  readonly measurement: string;
  readonly fields: ReadonlyMap<string, { readonly value: FieldValue; readonly timeNs: bigint }>;
  /** Local history knows nothing of it any more. */
  readonly isRemote?: true;
}

export interface HistoryStats {
  readonly points: number;
  /** Points not recorded, by reason. */
  readonly dropped: Readonly<Record<'memory' | 'series' | 'undated' | 'time', number>>;
  /** Hours of samples and days of thinned rows deleted, by reason. */
  readonly droppedBuckets: Readonly<Record<'age' | 'capacity' | 'disk', number>>;
  /** Samples that became rows of minutes. */
  readonly thinnedRows: number;
  readonly bytes: Readonly<Record<Level, number>>;
  readonly chunks: Readonly<Record<Level, number>>;
  readonly memoryBytes: number;
  readonly series: number;
  /** Points whose date is not known yet. */
  readonly undated: number;
  readonly damagedChunks: number;
  readonly flushes: number;
  readonly failures: number;
  /** Why nothing is written now. */
  readonly paused: 'disk-full' | 'disk-failing' | undefined;
  readonly queries: HistogramSnapshot;
  readonly store: LevelStoreStats;
}

/** When a moment of a boot was, in nanoseconds since the epoch. */
type DateOf = (boot: number, bootNs: bigint) => bigint | undefined;

interface Undated {
  readonly deviceId: string;
  readonly point: Point;
}

async function freeBytesOf(directory: string): Promise<number> {
  const { bavail, bsize } = await statfs(directory);
  return bavail * bsize;
}

export class History {
  readonly #options: HistoryOptions;
  readonly #log: Log;
  readonly #levelStore: LevelStore;
  readonly #store: ChunkStore;
  readonly #recent: Recent;
  readonly #retention: Retention;
  readonly #reader: HistoryReader;
  readonly #flushBytes: number;
  readonly #queries = new Histogram();
  readonly #timers: NodeJS.Timeout[] = [];
  #undated: Undated[] = [];
  #dateOf: DateOf | undefined;
  #undatedDropped = 0;
  /** Flushing, thinning and deleting: one at a time. */
  #work: Promise<void> = Promise.resolve();
  #closing: Promise<void> | undefined;
  #isFlushAsked = false;
  #flushes = 0;
  #failures = 0;
  #paused: HistoryStats['paused'];

  private constructor(options: HistoryOptions, levelStore: LevelStore, store: ChunkStore) {
    const { clock, log } = options;
    const memoryBytesMax = options.memoryBytesMax ?? defaults.memoryBytesMax;
    this.#options = options;
    this.#log = log;
    this.#levelStore = levelStore;
    this.#store = store;
    this.#flushBytes = memoryBytesMax / 4;
    this.#recent = new Recent({ memoryBytesMax, wallMs: () => clock.wallMs() });
    this.#retention = new Retention({
      store,
      rawMs: (options.rawHours ?? defaults.rawHours) * hourMs,
      maxAgeMs: (options.maxAgeDays ?? defaults.maxAgeDays) * 24 * hourMs,
      maxBytes: options.maxBytes ?? defaults.maxBytes,
    });
    this.#reader = new HistoryReader(store, this.#recent);
  }

  /**
   * Opens whatever the directory holds.
   * @throws GatewayError `STORE_LOCKED` when another process has it open, `STORE_FAILED` when the disk cannot be read.
   */
  static async open(options: HistoryOptions): Promise<History> {
    const { directory, clock, log } = options;
    const levelStore = await LevelStore.open(directory, { log, spareBytes: 0 });
    try {
      const store = await ChunkStore.open({
        room: levelStore.room('history'),
        monotonicMs: () => clock.monotonicMs(),
        wallMs: () => clock.wallMs(),
      });
      const history = new History(options, levelStore, store);
      history.#every(options.flushIntervalMs ?? defaults.flushIntervalMs, () => history.flush());
      history.#every(options.tidyIntervalMs ?? defaults.tidyIntervalMs, () => history.tidy());
      return history;
    } catch (error) {
      await levelStore.close();
      throw error;
    }
  }

  /** Takes durable points of one device. On the way of every message: synchronous, cheap, never throws. */
  record(points: readonly Point[], deviceId: string): void {
    if (this.#closing !== undefined) return;
    for (const point of points) {
      const { boot } = point;
      const timeNs = boot === undefined ? point.timeNs : this.#dateOf?.(boot, point.timeNs);
      if (timeNs !== undefined) this.#recent.add(deviceId, point.measurement, point.fields, timeNs);
      else if (this.#undated.length < undatedMax) this.#undated.push({ deviceId, point });
      else this.#undatedDropped += 1;
    }
    // While nothing can be written, only to keep the memory in bounds.
    const enough = this.#paused === undefined ? this.#flushBytes : 3 * this.#flushBytes;
    if (this.#recent.bytes <= enough || this.#isFlushAsked) return;
    this.#isFlushAsked = true;
    void this.flush();
  }

  /** From now on somebody knows when boots began: gives the points that wait theirs; undefined lets them wait on. */
  date(dateOf: DateOf): void {
    this.#dateOf = dateOf;
    const waiting = this.#undated;
    this.#undated = [];
    for (const { deviceId, point } of waiting) this.record([point], deviceId);
  }

  /** Everything that came since then is here. */
  get coveredFromNs(): bigint {
    const buckets = [...this.#store.buckets('raw'), ...this.#store.buckets('thinned')];
    const fromMs = coveredFromMs(buckets, this.#store.runMs, this.#options.clock.wallMs());
    return BigInt(Math.max(0, Math.ceil(fromMs))) * 1_000_000n;
  }

  /** The newest value of each field of a device, also of one that is silent or was before a restart. */
  latest(deviceId: string, measurement?: string): Promise<LatestAnswer[]> {
    return this.#timed(async () => {
      const found = new Map<string, LatestFields>();
      for await (const record of this.#store.latest(deviceId)) {
        found.set(record.measurement, decodeLatest(record.value).fields);
      }
      for (const series of this.#recent.of(deviceId)) {
        const fields: LatestFields = found.get(series.measurement) ?? new Map();
        found.set(series.measurement, fields);
        this.#recent.addLatest(fields, series);
      }
      return [...found]
        .filter(([name, fields]) => fields.size > 0 && (measurement === undefined || name === measurement))
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, fields]) => ({
          measurement: name,
          fields: new Map(
            [...fields].map(([field, { value, ms, ns }]) => [field, { value, timeNs: timeNsOf(ms, ns) }]),
          ),
        }));
    });
  }

  /** The samples of a device in the order of time. @throws GatewayError `STORE_FAILED` */
  range(asked: RangeQuery): Promise<RangeAnswer> {
    const query = resumed(asked);
    return this.#timed((pacer) =>
      range(this.#reader.hours(query, query.order === 'newest-first'), query, pacer),
    );
  }

  /** What windows of time come to. @throws GatewayError `STORE_FAILED` */
  aggregate(query: AggregateQuery): Promise<AggregateAnswer> {
    return this.#timed((pacer) => aggregate(this.#reader.hours(query, false), query, pacer));
  }

  /**
   * Deletes all there is of a device; resolves when the disk has it. What is recorded meanwhile may stay.
   * @throws GatewayError `STORE_FAILED`: some of it may be left.
   */
  forgetDevice(deviceId: string): Promise<void> {
    return this.#alone(async () => {
      this.#recent.forgetDevice(deviceId);
      this.#undated = this.#undated.filter((waiting) => waiting.deviceId !== deviceId);
      for (const level of ['raw', 'thinned'] as const) {
        for (const { number } of this.#store.buckets(level)) {
          const chunks: StoredChunk[] = [];
          for await (const chunk of this.#store.chunks(level, number, deviceId)) chunks.push(chunk);
          if (chunks.length > 0) await this.#store.change([], chunks);
        }
      }
      const writes: StoreWrite[] = [];
      for await (const { measurement } of this.#store.latest(deviceId)) {
        writes.push(latestWrite(deviceId, measurement, undefined));
      }
      await this.#store.change([], [], writes);
      await this.#store.sync();
    });
  }

  /**
   * Deletes what there is of a stretch of time; resolves when the disk has it. Of thinned history whole minutes go, by
   * their last sample.
   * @throws GatewayError `STORE_FAILED`, `HISTORY_UNAVAILABLE` while nothing can be written: some of it may be left.
   */
  async forgetRange(deviceId: string, range: TimeRange): Promise<void> {
    // All of it on the disk, where it can be rewritten.
    await this.flush();
    if (this.#paused !== undefined) {
      throw new GatewayError('HISTORY_UNAVAILABLE', `history is not written: ${this.#paused}`);
    }
    await this.#alone(async () => {
      await forgetRange(this.#store, deviceId, range, this.#options.clock.wallMs(), this.#pacer());
      this.#recent.forgetLatest(deviceId);
      await this.#store.sync();
    });
  }

  /** Writes what is in memory. Never rejects: what the disk fails is tried again with the next flush. */
  flush(): Promise<void> {
    return this.#alone(async () => {
      this.#isFlushAsked = false;
      const pacer = this.#pacer();
      const closed = await this.#recent.closeAll(pacer);
      await this.#attempt('flush', async () => {
        if ((await this.#freeBytes()) < freeBytesMin) {
          this.#pause('disk-full');
          return;
        }
        if (closed.length > 0) await this.#write(closed);
        this.#resume();
      });
      this.#recent.endIdle();
      await this.#recent.relieve(pacer);
    });
  }

  /** Thins and deletes what is old or too much. Never rejects. */
  tidy(): Promise<void> {
    return this.#alone(() =>
      this.#attempt('tidy', async () => {
        await this.#retention.tidy(this.#pacer());
        if ((await this.#freeBytes()) < freeBytesDire) await this.#retention.giveWay();
      }),
    );
  }

  stats(): HistoryStats {
    const store = this.#store;
    const { dropped } = this.#recent;
    return {
      points: this.#recent.points,
      dropped: { ...dropped, undated: this.#undatedDropped },
      droppedBuckets: { ...this.#retention.dropped },
      thinnedRows: this.#retention.thinnedRows + this.#recent.thinnedRows,
      bytes: { raw: store.bytes('raw'), thinned: store.bytes('thinned') },
      chunks: { raw: store.chunkCount('raw'), thinned: store.chunkCount('thinned') },
      memoryBytes: this.#recent.bytes,
      series: this.#recent.series,
      undated: this.#undated.length,
      damagedChunks: this.#retention.damagedChunks + this.#reader.damagedChunks,
      flushes: this.#flushes,
      failures: this.#failures,
      paused: this.#paused,
      queries: this.#queries.snapshot(),
      store: this.#levelStore.stats(),
    };
  }

  /** Writes what is in memory, if the disk lets it. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= (async () => {
      for (const timer of this.#timers) clearInterval(timer);
      await this.flush();
      await this.#alone(() => this.#attempt('close', () => this.#store.sync()));
      await this.#levelStore.close();
    })();
    return this.#closing;
  }

  async #write(closed: readonly ClosedChunk[]): Promise<void> {
    const touched = new Set<Series>(closed.map(({ series }) => series));
    const further: StoreWrite[] = [];
    for (const series of touched) {
      const { deviceId, measurement } = series;
      const { fields } = decodeLatest(await this.#store.latestOf(deviceId, measurement));
      this.#recent.addLatest(fields, series);
      further.push(latestWrite(deviceId, measurement, encodeLatest(fields, this.#store.runMs)));
    }
    await this.#store.change(newChunks(closed), [], further, () => this.#recent.forgetWritten(closed));
    this.#flushes += 1;
  }

  async #freeBytes(): Promise<number> {
    const { freeBytes, directory } = this.#options;
    return freeBytes === undefined ? await freeBytesOf(directory) : await freeBytes();
  }

  async #attempt(what: string, run: () => Promise<void>): Promise<void> {
    try {
      await run();
    } catch (error) {
      this.#failures += 1;
      this.#log.debug({ event: 'history_failed', what, err: error }, 'Tried again later');
      this.#pause('disk-failing');
    }
  }

  #pause(reason: 'disk-full' | 'disk-failing'): void {
    if (this.#paused === undefined) {
      this.#log.warn({ event: 'history_paused', reason }, 'History is not written for now');
    }
    this.#paused = reason;
  }

  #resume(): void {
    if (this.#paused === undefined) return;
    this.#paused = undefined;
    this.#log.info({ event: 'history_resumed' }, 'History is written again');
  }

  #every(intervalMs: number, run: () => Promise<void>): void {
    if (intervalMs > 0) this.#timers.push(setInterval(() => void run(), intervalMs).unref());
  }

  #alone(run: () => Promise<void>): Promise<void> {
    const done = this.#work.then(run);
    this.#work = done.catch(() => undefined);
    return done;
  }

  async #timed<Answer>(run: (pacer: Pacer) => Promise<Answer>): Promise<Answer> {
    const { clock } = this.#options;
    const startMs = clock.monotonicMs();
    try {
      return await run(this.#pacer());
    } finally {
      this.#queries.observe(clock.monotonicMs() - startMs);
    }
  }

  #pacer(): Pacer {
    return new Pacer(() => this.#options.clock.monotonicMs());
  }
}
