// What InfluxDB keeps fields as, learnt from its own refusals. Promises: believed is only what the server said in so
// many words about exactly that field; bounded, what was learnt longest ago goes first (and is learnt again); kept across restarts (what is lost in
// a power cut is learnt again); another server, organisation or bucket starts from nothing.

import { createHash } from 'node:crypto';
import type { HotState, StateWrite } from '../journal/contract.ts';
import {
  isServerType,
  type ServerFieldType,
  type ServerType,
  type ServerTypes,
} from '../model/server-type.ts';

const prefix = 'influx/type/';
const targetKey = 'influx/target';

const defaults = {
  // As many as ingest pins; each costs about 200 bytes of memory.
  typesMax: 10_000,
};

/** The part of a target that its types belong to. */
export interface TypesTarget {
  readonly url: string;
  readonly org: string;
  readonly bucket: string;
}

/** JSON, because names may hold any character. */
function nameOf(measurement: string, field: string): string {
  return JSON.stringify([measurement, field]);
}

function keyOf(name: string): string {
  return `${prefix}${createHash('sha256').update(name).digest('base64url')}`;
}

function digestOf({ url, org, bucket }: TypesTarget): Buffer {
  return createHash('sha256')
    .update(JSON.stringify([url, org, bucket]))
    .digest();
}

export class LearntTypes implements ServerTypes {
  readonly #hotState: HotState;
  readonly #typesMax: number;
  /** By name, learnt longest ago first. */
  readonly #entries = new Map<string, ServerFieldType>();
  /** The same by measurement and field: asked for with every line. */
  readonly #types = new Map<string, Map<string, ServerType>>();
  #learnt = 0;

  private constructor(hotState: HotState, typesMax: number) {
    this.#hotState = hotState;
    this.#typesMax = typesMax;
  }

  /**
   * @param target undefined: none is configured just now, which is no reason to forget
   * @throws what the hot state throws. Entries it cannot read are left out: they are learnt anew.
   */
  static async open(
    hotState: HotState,
    target: TypesTarget | undefined,
    typesMax: number = defaults.typesMax,
  ): Promise<LearntTypes> {
    const types = new LearntTypes(hotState, typesMax);
    for await (const [, value] of hotState.entries(prefix)) {
      const entry = parseEntry(value);
      if (entry !== undefined) types.#set(entry);
    }
    if (target !== undefined) types.#aimAt(target, await hotState.get(targetKey));
    return types;
  }

  get size(): number {
    return this.#entries.size;
  }

  /** How often something was learnt since the start. */
  get learnt(): number {
    return this.#learnt;
  }

  typeOf(measurement: string, field: string): ServerType | undefined {
    return this.#types.get(measurement)?.get(field);
  }

  list(): ServerFieldType[] {
    return [...this.#entries.values()];
  }

  /**
   * The server said so.
   * @param isOld about points of long ago: InfluxDB 1 and 2 keep a type for each week or so, and what holds for an
   * old one must not replace what is known of today's
   */
  learn(entry: ServerFieldType, isOld: boolean): void {
    const { measurement, field, type } = entry;
    const before = this.typeOf(measurement, field);
    if (before === type || (isOld && before !== undefined)) return;
    this.#remove(nameOf(measurement, field));
    this.#set(entry);
    this.#learnt += 1;
    const writes: StateWrite[] = [
      {
        key: keyOf(nameOf(measurement, field)),
        value: Buffer.from(JSON.stringify([measurement, field, type])),
      },
    ];
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size <= this.#typesMax) break;
      this.#remove(oldest);
      writes.push({ key: keyOf(oldest), value: undefined });
    }
    this.#hotState.writeLazily(writes);
  }

  async forget(measurement: string, field: string): Promise<boolean> {
    const name = nameOf(measurement, field);
    if (!this.#entries.has(name)) return false;
    await this.#hotState.write([{ key: keyOf(name), value: undefined }]);
    this.#remove(name);
    return true;
  }

  #set(entry: ServerFieldType): void {
    const { measurement, field, type } = entry;
    this.#entries.set(nameOf(measurement, field), entry);
    const fields = this.#types.get(measurement) ?? new Map<string, ServerType>();
    this.#types.set(measurement, fields.set(field, type));
  }

  #remove(name: string): void {
    const entry = this.#entries.get(name);
    if (entry === undefined) return;
    this.#entries.delete(name);
    const fields = this.#types.get(entry.measurement);
    fields?.delete(entry.field);
    if (fields?.size === 0) this.#types.delete(entry.measurement);
  }

  #aimAt(target: TypesTarget, before: Buffer | undefined): void {
    const digest = digestOf(target);
    if (before?.equals(digest)) return;
    const writes: StateWrite[] = [{ key: targetKey, value: digest }];
    for (const name of this.#entries.keys()) writes.push({ key: keyOf(name), value: undefined });
    this.#entries.clear();
    this.#types.clear();
    this.#hotState.writeLazily(writes);
  }
}

function parseEntry(value: Buffer): ServerFieldType | undefined {
  try {
    const entry: unknown = JSON.parse(value.toString());
    if (!Array.isArray(entry)) return undefined;
    const [measurement, field, type] = entry as unknown[];
    if (typeof measurement !== 'string' || typeof field !== 'string' || !isServerType(type)) return undefined;
    return { measurement, field, type };
  } catch {
    return undefined;
  }
}
