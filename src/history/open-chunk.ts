// The chunk of one series and hour that still grows. `add` is on the way of every message: no allocation but the
// growth of the columns, no look-up while fields come in the order of the sample before. Rows once written never
// change, so a query may keep reading a view while more arrive.

import type { FieldValue } from '../model/point.ts';
import { type Column, mergeTables, type Table } from './table.ts';

const firstCapacity = 16;
/** Estimate for a column beside its values. */
const columnBytes = 200;
const textBytes = 40;

interface GrowingNumbers {
  readonly name: string;
  readonly kind: 'float' | 'boolean';
  values: Float64Array;
}

interface GrowingTexts {
  readonly name: string;
  readonly kind: 'string';
  readonly values: (string | undefined)[];
}

type GrowingColumn = GrowingNumbers | GrowingTexts;

function kindOf(value: FieldValue): GrowingColumn['kind'] {
  if (typeof value === 'number') return 'float';
  return typeof value === 'boolean' ? 'boolean' : 'string';
}

function grown(values: Float64Array, capacity: number): Float64Array {
  const larger = new Float64Array(capacity);
  larger.set(values);
  return larger.fill(Number.NaN, values.length);
}

export class OpenChunk {
  /** Hours since the epoch. */
  readonly hour: number;
  #rows = 0;
  #capacity = firstCapacity;
  #ms = new Float64Array(firstCapacity);
  #ns = new Uint32Array(firstCapacity);
  #isSorted = true;
  #bytes = 12 * firstCapacity;
  readonly #columns: GrowingColumn[] = [];

  constructor(hour: number) {
    this.hour = hour;
  }

  get rows(): number {
    return this.#rows;
  }

  /** Estimated memory. */
  get bytes(): number {
    return this.#bytes;
  }

  /** Answers by how many bytes the chunk grew. */
  add(ms: number, ns: number, fields: ReadonlyMap<string, FieldValue>): number {
    const before = this.#bytes;
    const row = this.#rows;
    if (row === this.#capacity) this.#grow();
    if (row > 0) {
      const lastMs = this.#ms[row - 1] ?? 0;
      if (ms < lastMs || (ms === lastMs && ns <= (this.#ns[row - 1] ?? 0))) this.#isSorted = false;
    }
    this.#ms[row] = ms;
    this.#ns[row] = ns;
    let position = 0;
    for (const [name, value] of fields) {
      let column = this.#columns[position];
      const kind = kindOf(value);
      if (column === undefined || column.name !== name || column.kind !== kind) {
        column = this.#columnOf(name, kind);
      }
      position += 1;
      if (column.kind === 'string') {
        column.values[row] = value as string;
        this.#bytes += textBytes + 2 * (value as string).length;
      } else column.values[row] = Number(value);
    }
    this.#rows = row + 1;
    return this.#bytes - before;
  }

  /** What is in it now, sorted. */
  table(): Table {
    const rows = this.#rows;
    const columns = this.#columns.map(
      (column): Column =>
        column.kind === 'string'
          ? { name: column.name, kind: 'string', stat: 'value', values: column.values }
          : { name: column.name, kind: column.kind, stat: 'value', values: column.values.subarray(0, rows) },
    );
    const table = { rows, ms: this.#ms.subarray(0, rows), ns: this.#ns.subarray(0, rows), columns };
    return this.#isSorted ? table : mergeTables([table]);
  }

  #grow(): void {
    const capacity = this.#capacity * 2;
    const ms = new Float64Array(capacity);
    ms.set(this.#ms);
    this.#ms = ms;
    const ns = new Uint32Array(capacity);
    ns.set(this.#ns);
    this.#ns = ns;
    this.#bytes += 12 * this.#capacity;
    for (const column of this.#columns) {
      if (column.kind === 'string') continue;
      column.values = grown(column.values, capacity);
      this.#bytes += 8 * this.#capacity;
    }
    this.#capacity = capacity;
  }

  #columnOf(name: string, kind: GrowingColumn['kind']): GrowingColumn {
    const found = this.#columns.find((column) => column.name === name && column.kind === kind);
    if (found !== undefined) return found;
    const column: GrowingColumn =
      kind === 'string'
        ? { name, kind, values: [] }
        : { name, kind, values: grown(new Float64Array(0), this.#capacity) };
    this.#columns.push(column);
    this.#bytes += columnBytes + 2 * name.length + (kind === 'string' ? 0 : 8 * this.#capacity);
    return column;
  }
}
