// A keyed map that survives: every write rides in a frame of the ring, and before the ring forgets a frame its
// writes are in the store. Promises: reads see a write at once, a restart sees all that was committed. Keeps in
// memory only what is not yet in the store, and the names of the keys that are.
//
// Why replaying old frames over a newer checkpoint is right: every write is a whole put or delete of one key,
// and the frames still in the ring are an unbroken run up to the newest. Replayed in order, the last write of
// each key wins; keys without a write in the run have theirs in the checkpoint. So it does not matter how much
// of a checkpoint was done, nor how often it is done.

import type { Store, StoreWrite } from '../platform/store.ts';
import type { StateWrite } from './contract.ts';

const batchWritesMax = 500;
const batchBytesMax = 256 * 1024;
/** Beyond so many keys their names are not kept; deletes then always reach the store. */
const knownKeysMax = 200_000;

function compareKeys(a: string, b: string): number {
  if (a === b) return 0;
  // UTF-16 order is byte order except around surrogates.
  if (/[\ud800-\uffff]/.test(a) || /[\ud800-\uffff]/.test(b)) {
    return Buffer.compare(Buffer.from(a), Buffer.from(b));
  }
  return a < b ? -1 : 1;
}

function sizeOf(write: StateWrite): number {
  return write.key.length + (write.value?.length ?? 0);
}

/** The first key behind all that start with the prefix; undefined when there is none. */
function endOf(prefix: string): string | undefined {
  const last = prefix.length - 1;
  if (last < 0) return undefined;
  return prefix.slice(0, last) + String.fromCharCode(prefix.charCodeAt(last) + 1);
}

interface Dirty {
  readonly write: StateWrite;
  /** Life of the segment with its newest frame. */
  readonly segment: number;
}

export class StateMap {
  readonly #store: Store;
  /** Committed, not yet in the store. */
  readonly #dirty = new Map<string, Dirty>();
  /** Visible, not yet committed. */
  readonly #staged = new Map<string, StateWrite>();
  /** Keys in the store; undefined when they are too many. */
  #stored: Set<string> | undefined = new Set();
  #dirtyBytes = 0;
  #checkpointing: Promise<void> | undefined;

  private constructor(store: Store) {
    this.#store = store;
  }

  /** Reads the names of the keys in the store; frames are replayed with `commit` afterwards. */
  static async open(store: Store): Promise<StateMap> {
    const map = new StateMap(store);
    for await (const [key] of store.entries()) {
      map.#stored?.add(key);
      if ((map.#stored?.size ?? 0) > knownKeysMax) map.#stored = undefined;
      if (map.#stored === undefined) break;
    }
    return map;
  }

  get dirtyEntries(): number {
    return this.#dirty.size;
  }

  get dirtyBytes(): number {
    return this.#dirtyBytes;
  }

  /** Undefined when they are too many to count. */
  get storedEntries(): number | undefined {
    return this.#stored?.size;
  }

  stage(write: StateWrite): void {
    this.#staged.set(write.key, write);
  }

  /** The write is durable in a frame of the segment. */
  commit(write: StateWrite, segment: number): void {
    if (this.#staged.get(write.key) === write) this.#staged.delete(write.key);
    const before = this.#dirty.get(write.key);
    if (before !== undefined) {
      this.#dirty.delete(write.key);
      this.#dirtyBytes -= sizeOf(before.write);
    }
    // What came and went between two checkpoints leaves nothing behind.
    if (write.value === undefined && this.#stored !== undefined && !this.#stored.has(write.key)) return;
    this.#dirty.set(write.key, { write, segment });
    this.#dirtyBytes += sizeOf(write);
  }

  /** What is neither in the store nor in a newer frame than those of the segment: lost if it were used again now. */
  *onlyIn(segment: number): Iterable<StateWrite> {
    for (const dirty of this.#dirty.values()) if (dirty.segment <= segment) yield dirty.write;
  }

  /** A write that is still to be committed, and was hidden by a newer one that never will. */
  restage(write: StateWrite): void {
    if (!this.#staged.has(write.key)) this.#staged.set(write.key, write);
  }

  /** Whether there is, or may be, something durable under the key. */
  mayHave(key: string): boolean {
    return this.#stored === undefined || this.#stored.has(key) || this.#dirty.has(key);
  }

  /** The write could not be committed. */
  unstage(write: StateWrite): void {
    if (this.#staged.get(write.key) === write) this.#staged.delete(write.key);
  }

  async get(key: string): Promise<Buffer | undefined> {
    const write = this.#staged.get(key) ?? this.#dirty.get(key)?.write;
    if (write !== undefined) return write.value;
    if (this.#stored?.has(key) === false) return undefined;
    return await this.#store.get(key);
  }

  async *entries(prefix: string): AsyncGenerator<readonly [key: string, value: Buffer], void, void> {
    const newer = new Map<string, Buffer | undefined>();
    for (const [key, { write }] of this.#dirty) if (key.startsWith(prefix)) newer.set(key, write.value);
    for (const [key, write] of this.#staged) if (key.startsWith(prefix)) newer.set(key, write.value);
    const keys = [...newer.keys()].sort(compareKeys);
    const end = endOf(prefix);
    const range = end === undefined ? {} : { gte: prefix, lt: end };
    let at = 0;
    for await (const [key, value] of this.#store.entries(range)) {
      for (let next = keys[at]; next !== undefined && compareKeys(next, key) < 0; next = keys[at]) {
        at += 1;
        const found = newer.get(next);
        if (found !== undefined) yield [next, found];
      }
      if (!newer.has(key)) yield [key, value];
    }
    for (; at < keys.length; at += 1) {
      const next = keys[at] ?? '';
      const found = newer.get(next);
      if (found !== undefined) yield [next, found];
    }
  }

  /**
   * Writes everything committed before the call to the store, in synced batches.
   * @throws GatewayError `STORE_FAILED`; what was not written stays and is written next time.
   */
  async checkpoint(): Promise<void> {
    while (this.#checkpointing !== undefined) await this.#checkpointing.catch(() => undefined);
    this.#checkpointing = this.#checkpoint().finally(() => {
      this.#checkpointing = undefined;
    });
    await this.#checkpointing;
  }

  async #checkpoint(): Promise<void> {
    let batch: StateWrite[] = [];
    let bytes = 0;
    for (const { write } of [...this.#dirty.values()]) {
      batch.push(write);
      bytes += sizeOf(write);
      if (batch.length < batchWritesMax && bytes < batchBytesMax) continue;
      await this.#writeBatch(batch);
      batch = [];
      bytes = 0;
    }
    await this.#writeBatch(batch);
  }

  async #writeBatch(batch: readonly StateWrite[]): Promise<void> {
    if (batch.length === 0) return;
    // Known before they are written: a delete committed meanwhile must not take them for never stored.
    for (const write of batch) if (write.value !== undefined) this.#stored?.add(write.key);
    await this.#store.write(batch satisfies readonly StoreWrite[]);
    for (const write of batch) {
      const now = this.#dirty.get(write.key)?.write;
      if (now === write) {
        this.#dirty.delete(write.key);
        this.#dirtyBytes -= sizeOf(write);
      }
      if (write.value === undefined && (now === write || now === undefined)) this.#stored?.delete(write.key);
    }
    if ((this.#stored?.size ?? 0) > knownKeysMax) this.#stored = undefined;
  }
}
