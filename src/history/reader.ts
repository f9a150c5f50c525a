// The chunks of a device hour by hour, on disk and in memory. Promises: each hour is seen as it was at one moment,
// although chunks move from memory to disk and are thinned meanwhile: what was read during a change is read again.

import { type ChunkStore, dayOf, hourMs, type StoredChunk } from './chunk-store.ts';
import { decode, headOf } from './codec.ts';
import type { HourOfPieces, Piece, Selection } from './query.ts';
import type { Recent } from './recent.ts';
import { momentOf, type Table } from './table.ts';

const hoursPerDay = 24;
/** Changes are minutes apart; under a flood of them an hour read in two halves is better than no answer. */
const triesMax = 5;

export class HistoryReader {
  readonly #store: ChunkStore;
  readonly #recent: Recent;
  #damagedChunks = 0;

  constructor(store: ChunkStore, recent: Recent) {
    this.#store = store;
    this.#recent = recent;
  }

  /** The same chunk counts at every read. */
  get damagedChunks(): number {
    return this.#damagedChunks;
  }

  async *hours(query: Selection, isNewestFirst: boolean): AsyncGenerator<HourOfPieces, void, void> {
    const firstHour = Math.floor(momentOf(query.fromNs).ms / hourMs);
    const lastHour = Math.floor(momentOf(query.toNs - 1n).ms / hourMs);
    const direction = isNewestFirst ? -1 : 1;
    const days = [...this.#daysOf(query.deviceId)]
      .filter((day) => day >= dayOf(firstHour) && day <= dayOf(lastHour))
      .sort((a, b) => (a - b) * direction);
    for (const day of days) {
      const thinned = new ThinnedDay(this.#store, day, query);
      for (let index = 0; index < hoursPerDay; index += 1) {
        const hour = day * hoursPerDay + (isNewestFirst ? hoursPerDay - 1 - index : index);
        if (hour < firstHour || hour > lastHour) continue;
        const pieces = await this.#pieces(thinned, query, hour);
        if (pieces.length > 0) yield { hour, pieces };
      }
    }
  }

  #daysOf(deviceId: string): Set<number> {
    const days = new Set<number>();
    for (const { number } of this.#store.buckets('raw')) days.add(dayOf(number));
    for (const { number } of this.#store.buckets('thinned')) days.add(number);
    for (const series of this.#recent.of(deviceId)) {
      for (const hour of series.open.keys()) days.add(dayOf(hour));
      for (const { hour } of series.closed) days.add(dayOf(hour));
    }
    return days;
  }

  async #pieces(thinned: ThinnedDay, query: Selection, hour: number): Promise<Piece[]> {
    const { deviceId, measurement } = query;
    let pieces: Piece[] = [];
    for (let tries = 0; tries < triesMax; tries += 1) {
      await this.#store.settled();
      const { generation } = this.#store;
      pieces = (await thinned.chunks(hour)).flatMap((chunk) => this.#stored(chunk));
      if (this.#store.hasBucket('raw', hour)) {
        for await (const chunk of this.#store.chunks('raw', hour, deviceId, measurement)) {
          pieces.push(...this.#stored(chunk));
        }
      }
      if (generation === this.#store.generation) break;
    }
    for (const series of this.#recent.of(deviceId)) {
      if (measurement !== undefined && series.measurement !== measurement) continue;
      for (const chunk of series.closed) {
        if (chunk.hour !== hour) continue;
        const { table, value } = chunk;
        if (table !== undefined) pieces.push(pieceOf(series.measurement, table));
        else if (value !== undefined)
          pieces.push(...this.#stored({ measurement: series.measurement, value }));
      }
      const open = series.open.get(hour);
      if (open !== undefined) pieces.push(pieceOf(series.measurement, open.table()));
    }
    return pieces;
  }

  #stored({ measurement, value }: Pick<StoredChunk, 'measurement' | 'value'>): Piece[] {
    const head = headOf(value);
    if (head === undefined) {
      this.#damagedChunks += 1;
      return [];
    }
    const table = (isWanted: (field: string) => boolean) => {
      const read = decode(value, isWanted);
      if (read === undefined) this.#damagedChunks += 1;
      return read;
    };
    return [{ measurement, firstMs: head.firstMs, lastMs: head.lastMs, table }];
  }
}

function pieceOf(measurement: string, table: Table): Piece {
  return {
    measurement,
    firstMs: table.ms[0] ?? 0,
    lastMs: table.ms[table.rows - 1] ?? 0,
    table: (isWanted) => ({ ...table, columns: table.columns.filter(({ name }) => isWanted(name)) }),
  };
}

/** The thinned chunks of one day and device, read once for all of its hours, again when something has changed. */
class ThinnedDay {
  readonly #store: ChunkStore;
  readonly #day: number;
  readonly #query: Selection;
  #byHour = new Map<number, StoredChunk[]>();
  #generation: number | undefined;

  constructor(store: ChunkStore, day: number, query: Selection) {
    this.#store = store;
    this.#day = day;
    this.#query = query;
  }

  async chunks(hour: number): Promise<readonly StoredChunk[]> {
    if (this.#generation !== this.#store.generation) {
      this.#generation = this.#store.generation;
      this.#byHour = new Map();
      if (this.#store.hasBucket('thinned', this.#day)) await this.#read();
    }
    return this.#byHour.get(hour) ?? [];
  }

  async #read(): Promise<void> {
    const { deviceId, measurement } = this.#query;
    for await (const chunk of this.#store.chunks('thinned', this.#day, deviceId, measurement)) {
      const list = this.#byHour.get(chunk.hour);
      if (list === undefined) this.#byHour.set(chunk.hour, [chunk]);
      else list.push(chunk);
    }
  }
}
