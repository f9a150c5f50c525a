// The type of every field of every measurement, pinned at its first value: InfluxDB rejects a point whose field
// changes type, and would do so days later, after an outage. Promises that a type once durable outlives a
// restart. Bounded: beyond the limit new fields are refused, known ones go on.

import { createHash } from 'node:crypto';
import type { HotState, StateWrite } from '../journal/contract.ts';
import type { FieldType } from '../model/point.ts';

const keyPrefix = 'ingest/type/';

const defaults = {
  // InfluxDB's own advice ends far below; each costs about 150 bytes of memory.
  fieldsMax: 10_000,
} as const;

const nothing: readonly StateWrite[] = [];

export type Pinning = 'taken' | 'conflict' | 'limit';

/** Readable where the names allow it; the value repeats them, so the key is never parsed. */
function keyOf(measurement: string, field: string): string {
  const isPlain = !measurement.includes('/') && !field.includes('/');
  if (isPlain) return `${keyPrefix}${measurement}/${field}`;
  const digest = createHash('sha256')
    .update(JSON.stringify([measurement, field]))
    .digest('hex');
  return `${keyPrefix}#/${digest}`;
}

function isFieldType(value: unknown): value is FieldType {
  return value === 'float' || value === 'boolean' || value === 'string';
}

export class FieldTypes {
  readonly #types = new Map<string, Map<string, FieldType>>();
  readonly #fieldsMax: number;
  #size = 0;
  /** Pinned here and not yet handed to the journal, or handed over in vain. */
  #unsaved: StateWrite[] = [];

  private constructor(fieldsMax: number) {
    this.#fieldsMax = fieldsMax;
  }

  /** @throws what the hot state throws. Entries it cannot read are left out: they are pinned anew. */
  static async open(hotState: HotState, fieldsMax: number = defaults.fieldsMax): Promise<FieldTypes> {
    const types = new FieldTypes(fieldsMax);
    for await (const [, value] of hotState.entries(keyPrefix)) {
      const entry = parseEntry(value);
      if (entry !== undefined) types.#set(entry[0], entry[1], entry[2]);
    }
    return types;
  }

  get size(): number {
    return this.#size;
  }

  typeOf(measurement: string, field: string): FieldType | undefined {
    return this.#types.get(measurement)?.get(field);
  }

  /** Pins the type if the field is new. */
  pin(measurement: string, field: string, type: FieldType): Pinning {
    const pinned = this.#types.get(measurement)?.get(field);
    if (pinned === type) return 'taken';
    if (pinned !== undefined) return 'conflict';
    if (this.#size >= this.#fieldsMax) return 'limit';
    this.#set(measurement, field, type);
    const value = Buffer.from(JSON.stringify([measurement, field, type]));
    this.#unsaved.push({ key: keyOf(measurement, field), value });
    return 'taken';
  }

  /** What the next append must write along; give it back with `restore` when that append fails. */
  takeUnsaved(): readonly StateWrite[] {
    // Not the list itself: whoever took it while it was empty would give back what others put there.
    if (this.#unsaved.length === 0) return nothing;
    const writes = this.#unsaved;
    this.#unsaved = [];
    return writes;
  }

  restore(writes: readonly StateWrite[]): void {
    for (const write of writes) this.#unsaved.push(write);
  }

  list(): { measurement: string; field: string; type: FieldType }[] {
    return [...this.#types].flatMap(([measurement, fields]) =>
      [...fields].map(([field, type]) => ({ measurement, field, type })),
    );
  }

  /** The next value of the field pins it anew. Undefined when it is not pinned, else what makes it durable. */
  forget(measurement: string, field: string): StateWrite | undefined {
    const fields = this.#types.get(measurement);
    if (!fields?.delete(field)) return undefined;
    if (fields.size === 0) this.#types.delete(measurement);
    this.#size -= 1;
    const key = keyOf(measurement, field);
    this.#unsaved = this.#unsaved.filter((write) => write.key !== key);
    return { key, value: undefined };
  }

  #set(measurement: string, field: string, type: FieldType): void {
    let fields = this.#types.get(measurement);
    if (fields === undefined) {
      fields = new Map();
      this.#types.set(measurement, fields);
    }
    if (!fields.has(field)) this.#size += 1;
    fields.set(field, type);
  }
}

function parseEntry(value: Buffer): readonly [string, string, FieldType] | undefined {
  try {
    const entry: unknown = JSON.parse(value.toString());
    if (!Array.isArray(entry)) return undefined;
    const [measurement, field, type] = entry as unknown[];
    if (typeof measurement !== 'string' || typeof field !== 'string' || !isFieldType(type)) return undefined;
    return [measurement, field, type];
  } catch {
    return undefined;
  }
}
