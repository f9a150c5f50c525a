// What is still in memory: the open chunks of every series, and closed ones until they are on disk. Promises: `add`
// is cheap and its memory bounded; what cannot be written is thinned, then given up, the oldest first and counted.

import type { FieldValue } from '../model/point.ts';
import { hourMs, type Level, type NewChunk } from './chunk-store.ts';
import { decode, encode } from './codec.ts';
import { addLatest, addLatestOf, type LatestFields } from './latest.ts';
import { OpenChunk } from './open-chunk.ts';
import type { Pacer } from './query.ts';
import { thin } from './summary.ts';
import { splitTime, type Table } from './table.ts';

const seriesMax = 20_000;
const chunkRowsMax = 4_096;
const chunkBytesMax = 512 * 1024;
/** Estimate for a chunk beside its columns. */
const chunkOverheadBytes = 500;
/** A series that was silent for so many flushes is forgotten here. */
const idleFlushesMax = 12;

/** One device and measurement. */
export interface Series {
  readonly deviceId: string;
  readonly measurement: string;
  /** The one the last sample went into. */
  current: OpenChunk | undefined;
  readonly open: Map<number, OpenChunk>;
  /** Not yet on disk, in the order they were closed. */
  closed: ClosedChunk[];
  /** Newest values of the chunks that were closed here. */
  readonly latest: LatestFields;
  idleFlushes: number;
}

export interface ClosedChunk {
  readonly series: Series;
  readonly hour: number;
  level: Level;
  /** Until it is encoded. */
  table: Table | undefined;
  value: Buffer | undefined;
  rows: number;
  bytes: number;
}

export interface RecentOptions {
  readonly memoryBytesMax: number;
  readonly wallMs: () => number;
}

export class Recent {
  readonly #options: RecentOptions;
  readonly #series = new Map<string, Map<string, Series>>();
  readonly #time = { ms: 0, ns: 0 };
  #closed: ClosedChunk[] = [];
  #seriesCount = 0;
  #bytes = 0;
  #points = 0;
  #thinnedRows = 0;
  readonly dropped = { memory: 0, series: 0, time: 0 };

  constructor(options: RecentOptions) {
    this.#options = options;
  }

  get bytes(): number {
    return this.#bytes;
  }

  get points(): number {
    return this.#points;
  }

  get series(): number {
    return this.#seriesCount;
  }

  /** Rows of samples that became rows of minutes for want of memory. */
  get thinnedRows(): number {
    return this.#thinnedRows;
  }

  add(deviceId: string, measurement: string, fields: ReadonlyMap<string, FieldValue>, timeNs: bigint): void {
    if (timeNs < 0n) {
      this.dropped.time += 1;
      return;
    }
    const series =
      this.#bytes > this.#options.memoryBytesMax ? undefined : this.#seriesOf(deviceId, measurement);
    if (series === undefined) {
      this.dropped[this.#bytes > this.#options.memoryBytesMax ? 'memory' : 'series'] += 1;
      return;
    }
    const time = this.#time;
    splitTime(timeNs, time);
    const hour = Math.floor(time.ms / hourMs);
    let chunk = series.current;
    if (chunk === undefined || chunk.hour !== hour) chunk = this.#chunkOf(series, hour);
    this.#bytes += chunk.add(time.ms, time.ns, fields);
    this.#points += 1;
    if (chunk.rows >= chunkRowsMax || chunk.bytes >= chunkBytesMax) this.#close(series, chunk);
  }

  /** The series of one device. */
  *of(deviceId: string): Iterable<Series> {
    yield* this.#series.get(deviceId)?.values() ?? [];
  }

  /** Closes every chunk and encodes it; answers all that wait for the disk. */
  async closeAll(pacer: Pacer): Promise<readonly ClosedChunk[]> {
    for (const ofDevice of [...this.#series.values()]) {
      for (const series of [...ofDevice.values()]) {
        for (const chunk of [...series.open.values()]) this.#close(series, chunk);
        await pacer.pause();
      }
    }
    const closed = [...this.#closed];
    for (const chunk of closed) {
      this.#encode(chunk);
      await pacer.pause();
    }
    return closed;
  }

  /** They are on disk now. */
  forgetWritten(chunks: readonly ClosedChunk[]): void {
    this.#remove(new Set(chunks));
    for (const { series } of chunks) series.idleFlushes = 0;
  }

  /** Forgets series that have been silent for long. Call it once a flush. */
  endIdle(): void {
    for (const ofDevice of [...this.#series.values()]) {
      for (const series of [...ofDevice.values()]) {
        if (series.open.size > 0 || series.closed.length > 0) continue;
        series.idleFlushes += 1;
        if (series.idleFlushes > idleFlushesMax) this.#removeSeries(series);
      }
    }
  }

  forgetDevice(deviceId: string): void {
    for (const series of [...this.of(deviceId)]) {
      for (const chunk of series.open.values()) this.#bytes -= chunk.bytes + chunkOverheadBytes;
      this.#remove(new Set(series.closed));
      this.#removeSeries(series);
    }
  }

  /** What was written is asked of the disk. */
  forgetLatest(deviceId: string): void {
    for (const series of this.of(deviceId)) series.latest.clear();
  }

  /** Brings what waits for the disk below half of the memory there is. */
  async relieve(pacer: Pacer): Promise<void> {
    const enough = this.#options.memoryBytesMax / 2;
    for (const chunk of [...this.#closed]) {
      if (this.#bytes <= enough) return;
      const table = chunk.level === 'raw' && chunk.value !== undefined ? decode(chunk.value) : undefined;
      if (table === undefined) continue;
      this.#thinnedRows += table.rows;
      const thinned = thin(table);
      chunk.level = 'thinned';
      this.#setValue(chunk, encode(thinned), thinned.rows);
      await pacer.pause();
    }
    const gone = new Set<ClosedChunk>();
    let left = this.#bytes;
    for (const oldest of this.#closed) {
      if (left <= enough) break;
      left -= oldest.bytes;
      this.dropped.memory += oldest.rows;
      gone.add(oldest);
    }
    this.#remove(gone);
  }

  /** The newest values of a series, of all that is or was here. */
  addLatest(into: LatestFields, series: Series): void {
    const wallMs = this.#options.wallMs();
    for (const [name, value] of series.latest) addLatest(into, name, value, wallMs);
    for (const chunk of series.open.values()) addLatestOf(into, chunk.table(), wallMs);
  }

  #seriesOf(deviceId: string, measurement: string): Series | undefined {
    let ofDevice = this.#series.get(deviceId);
    const known = ofDevice?.get(measurement);
    if (known !== undefined) return known;
    if (this.#seriesCount >= seriesMax) return undefined;
    if (ofDevice === undefined) {
      ofDevice = new Map();
      this.#series.set(deviceId, ofDevice);
    }
    const series: Series = {
      deviceId,
      measurement,
      current: undefined,
      open: new Map(),
      closed: [],
      latest: new Map(),
      idleFlushes: 0,
    };
    ofDevice.set(measurement, series);
    this.#seriesCount += 1;
    return series;
  }

  #chunkOf(series: Series, hour: number): OpenChunk {
    let chunk = series.open.get(hour);
    if (chunk === undefined) {
      chunk = new OpenChunk(hour);
      series.open.set(hour, chunk);
      this.#bytes += chunk.bytes + chunkOverheadBytes;
    }
    series.current = chunk;
    return chunk;
  }

  #close(series: Series, chunk: OpenChunk): void {
    series.open.delete(chunk.hour);
    if (series.current === chunk) series.current = undefined;
    const table = chunk.table();
    const closed: ClosedChunk = {
      series,
      hour: chunk.hour,
      level: 'raw',
      table,
      value: undefined,
      rows: table.rows,
      bytes: chunk.bytes + chunkOverheadBytes,
    };
    addLatestOf(series.latest, table, this.#options.wallMs());
    series.closed.push(closed);
    this.#closed.push(closed);
  }

  #encode(chunk: ClosedChunk): void {
    if (chunk.table !== undefined) this.#setValue(chunk, encode(chunk.table), chunk.rows);
    chunk.table = undefined;
  }

  #setValue(chunk: ClosedChunk, value: Buffer, rows: number): void {
    const bytes = value.length + chunkOverheadBytes;
    this.#bytes += bytes - chunk.bytes;
    chunk.value = value;
    chunk.rows = rows;
    chunk.bytes = bytes;
  }

  #remove(gone: ReadonlySet<ClosedChunk>): void {
    this.#closed = this.#closed.filter((chunk) => !gone.has(chunk));
    const touched = new Set<Series>();
    for (const { series, bytes } of gone) {
      this.#bytes -= bytes;
      touched.add(series);
    }
    for (const series of touched) series.closed = series.closed.filter((chunk) => !gone.has(chunk));
  }

  #removeSeries(series: Series): void {
    const ofDevice = this.#series.get(series.deviceId);
    if (ofDevice?.delete(series.measurement)) this.#seriesCount -= 1;
    if (ofDevice?.size === 0) this.#series.delete(series.deviceId);
  }
}

/** What the store is given for chunks that are encoded. */
export function newChunks(closed: readonly ClosedChunk[]): NewChunk[] {
  return closed.flatMap(({ series: { deviceId, measurement }, hour, level, value, rows }) =>
    value === undefined ? [] : [{ level, deviceId, measurement, hour, value, rows }],
  );
}
