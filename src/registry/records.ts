// The registry's records on disk, and which of them to believe. Promises: a change is durable before it resolves, all of
// its records or none; changes happen one after another; a record that came back because LevelDB lost its last writes is
// told from the newest one, also when the newest word on it was that it is gone. It does not look into records, whose
// writers put the revision they are given into them.

import type { Store, StoreWrite } from '../platform/store.ts';
import type { Witness } from '../platform/witness.ts';

/** What was given out so far; neither number is given again. */
interface Marks {
  readonly revision: number;
  readonly id: number;
}

/** `removed`: what is found is from before it was removed, or used up. */
type Verdict = 'newest' | 'outdated' | 'removed';

export interface RecordChange {
  readonly key: string;
  /** Undefined removes it. */
  readonly value: Buffer | undefined;
}

const marksKey = 'marks';

/** Among the names in the witness, where earlier versions had none of them; no device id begins like this. */
const revisionMark = '#revision';
const idMark = '#id';
const devicePrefix = 'device/';

/** Devices go by their ids alone, as they did before there were other records. */
function nameOf(key: string): string {
  return key.startsWith(devicePrefix) ? key.slice(devicePrefix.length) : key;
}

function decodeMarks(bytes: Buffer | undefined): Marks {
  try {
    const { revision, id } = JSON.parse(bytes?.toString() ?? '') as Record<string, unknown>;
    if (Number.isSafeInteger(revision) && Number.isSafeInteger(id)) return { revision, id } as Marks;
  } catch {
    // Damaged, or from before there were marks.
  }
  return { revision: 0, id: 0 };
}

export class Records {
  readonly #store: Store;
  readonly #witness: Witness | undefined;
  /** The newest of each, also of those that are damaged or missing. */
  readonly #revisions: Map<string, number>;
  /** What the witness had seen when it was last written. */
  readonly #witnessed: Marks;
  /** What the store had when it was opened. */
  readonly #stored: Marks;
  #revision: number;
  #id: number;
  #unwitnessed = 0;
  /** What the next change checks is what this one leaves. */
  #changing: Promise<unknown> = Promise.resolve();

  private constructor(
    store: Store,
    witness: Witness | undefined,
    stored: Marks,
    testimony: ReadonlyMap<string, number> = new Map(),
  ) {
    this.#store = store;
    this.#witness = witness;
    this.#stored = stored;
    this.#witnessed = { revision: testimony.get(revisionMark) ?? 0, id: testimony.get(idMark) ?? 0 };
    this.#revisions = new Map(testimony);
    this.#revisions.delete(revisionMark);
    this.#revisions.delete(idMark);
    this.#revision = Math.max(stored.revision, this.#witnessed.revision, ...this.#revisions.values());
    this.#id = Math.max(stored.id, this.#witnessed.id);
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(store: Store, witness: Witness | undefined): Promise<Records> {
    const stored = decodeMarks(await store.get(marksKey));
    return new Records(store, witness, stored, await witness?.read());
  }

  /** A witness of an earlier version, or none, cannot tell that something was removed. */
  get #isWitnessed(): boolean {
    return this.#witnessed.revision > 0;
  }

  /** Changes the witness could not be told of; the next one tells it of them all. */
  get unwitnessed(): number {
    return this.#unwitnessed;
  }

  /** The revision of the change that is being made. */
  get nextRevision(): number {
    return this.#revision + 1;
  }

  /** Never the same twice, whatever becomes of the one who gets it. */
  takeId(): number {
    this.#id += 1;
    return this.#id;
  }

  /** Whether a record of this key is known of, even if it cannot be read. */
  has(key: string): boolean {
    return this.#revisions.has(nameOf(key));
  }

  /** As they lie there; `prefix` ends with a slash. */
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]> {
    // `0` follows `/`.
    return this.#store.entries({ gte: prefix, lt: `${prefix.slice(0, -1)}0` });
  }

  /** To be asked once for every record that was found, before the first change. */
  judge(key: string, revision: number, id = 0): Verdict {
    const name = nameOf(key);
    const newest = this.#revisions.get(name);
    this.#id = Math.max(this.#id, id);
    this.#revision = Math.max(this.#revision, revision);
    if (newest === undefined) {
      // Written before the witness' last word, which does not know it: it was removed since.
      if (this.#isWitnessed && revision <= this.#witnessed.revision) return 'removed';
      this.#revisions.set(name, revision);
      return 'newest';
    }
    if (revision < newest) return 'outdated';
    this.#revisions.set(name, revision);
    return 'newest';
  }

  /** Names of a kind that should be among the found ones and are not. Forgets those rightly gone. */
  missing(found: ReadonlySet<string>, isOfKind: (name: string) => boolean): string[] {
    const missing = [...this.#revisions.keys()].filter((name) => isOfKind(name) && !found.has(name));
    // The store has seen changes the witness has not: power was cut between the two.
    if (this.#stored.revision <= this.#witnessed.revision) return missing;
    for (const name of missing) this.#revisions.delete(name);
    return [];
  }

  change<Result>(step: () => Promise<Result>): Promise<Result> {
    const changed = this.#changing.then(step);
    this.#changing = changed.catch(() => undefined);
    return changed;
  }

  /**
   * All or nothing; only within `change`. `applied` is called as soon as it is durable.
   * @throws GatewayError `STORE_FAILED`.
   */
  async write(changes: readonly RecordChange[], applied: () => void): Promise<void> {
    const revision = this.nextRevision;
    const marks: StoreWrite = {
      key: marksKey,
      value: Buffer.from(JSON.stringify({ revision, id: this.#id })),
    };
    await this.#store.write([...changes, marks]);
    this.#revision = revision;
    for (const { key, value } of changes) {
      if (value === undefined) this.#revisions.delete(nameOf(key));
      else this.#revisions.set(nameOf(key), revision);
    }
    applied();
    // After the store: a power cut in between leaves records newer than their witness, which is as good. So does a
    // disk that takes the one and not the other; whoever asked must hear of the change, of a new key above all.
    const testimony = new Map([...this.#revisions, [revisionMark, revision], [idMark, this.#id]]);
    this.#unwitnessed = await (this.#witness?.write(testimony) ?? Promise.resolve()).then(
      () => 0,
      () => this.#unwitnessed + 1,
    );
  }
}
