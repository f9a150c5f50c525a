// What could not be delivered and never will as it is: kept with its reason until somebody looks. A tenant of
// the hot state. Promises: bounded in number and bytes, the oldest go first, and each one that goes is counted.
// In memory are ids and sizes, not the letters.

import type { DeadLetter, DeadLetters, HotState, StateWrite } from './contract.ts';

const prefix = 'dead/';
const idDigits = 16;
const wordBytes = 4;
/** Texts are for people: beyond this they are cut. */
const textMax = 1000;
/** More than key, times and cut texts of most letters take. */
const letterOverheadBytes = 512;

export interface DeadLetterBoxOptions {
  readonly lettersMax: number;
  readonly bytesMax: number;
  /** Longer payloads are cut. */
  readonly letterBytesMax: number;
  /** Letters of one commit, unless it is a single one. */
  readonly commitBytesMax: number;
  readonly wallMs: () => number;
}

export interface StoredLetter extends DeadLetter {
  readonly id: string;
  /** When it was added, by the wall clock. */
  readonly wallMs: number;
  /** Whether `bytes` is only the beginning. */
  readonly isCut: boolean;
}

export interface DeadLetterStats {
  readonly letters: number;
  readonly bytes: number;
  readonly added: number;
  /** Gone because of the bounds. */
  readonly dropped: number;
}

type Head = Omit<StoredLetter, 'id' | 'bytes'>;

function encode(letter: DeadLetter, wallMs: number, bytesMax: number): Buffer {
  const { bytes, reason, origin, ...rest } = letter;
  const isCut = bytes.length > bytesMax;
  const head = Buffer.from(
    JSON.stringify({
      ...rest,
      reason: reason.slice(0, textMax),
      ...(origin !== undefined && { origin: origin.slice(0, textMax) }),
      wallMs,
      isCut,
    } satisfies Head),
  );
  const length = Buffer.alloc(wordBytes);
  length.writeUInt32LE(head.length);
  return Buffer.concat([length, head, isCut ? bytes.subarray(0, bytesMax) : bytes]);
}

function decode(id: string, value: Buffer): StoredLetter {
  const end = wordBytes + value.readUInt32LE(0);
  // Ours, and under a checksum: the shape is what `encode` wrote.
  const head = JSON.parse(value.toString('utf8', wordBytes, end)) as Head;
  return { ...head, id, bytes: value.subarray(end) };
}

export class DeadLetterBox implements DeadLetters {
  readonly #state: HotState;
  readonly #options: DeadLetterBoxOptions;
  /** Id to bytes, in order of id. */
  readonly #sizes = new Map<string, number>();
  #bytes = 0;
  #nextId = 1;
  #added = 0;
  #dropped = 0;

  private constructor(state: HotState, options: DeadLetterBoxOptions) {
    this.#state = state;
    this.#options = options;
  }

  static async open(state: HotState, options: DeadLetterBoxOptions): Promise<DeadLetterBox> {
    const box = new DeadLetterBox(state, options);
    for await (const [key, value] of state.entries(prefix)) {
      const id = key.slice(prefix.length);
      box.#remember(id, value.length);
      box.#nextId = Math.max(box.#nextId, Number(id) + 1);
    }
    return box;
  }

  add(letter: DeadLetter): Promise<void> {
    return this.addAll([letter]);
  }

  /**
   * In commits of bounded size: a batch of thousands of refused lines is more than one append may carry. When it
   * rejects, the letters of the commits before are there.
   */
  async addAll(letters: readonly DeadLetter[]): Promise<void> {
    let some: DeadLetter[] = [];
    let bytes = 0;
    for (const letter of letters) {
      const more = Math.min(letter.bytes.length, this.#options.letterBytesMax) + letterOverheadBytes;
      if (some.length > 0 && bytes + more > this.#options.commitBytesMax) {
        await this.#addSome(some);
        some = [];
        bytes = 0;
      }
      some.push(letter);
      bytes += more;
    }
    if (some.length > 0) await this.#addSome(some);
  }

  async #addSome(letters: readonly DeadLetter[]): Promise<void> {
    const writes: StateWrite[] = [];
    const ids: string[] = [];
    for (const letter of letters) {
      const id = String(this.#nextId).padStart(idDigits, '0');
      this.#nextId += 1;
      const value = encode(letter, this.#options.wallMs(), this.#options.letterBytesMax);
      this.#remember(id, value.length);
      ids.push(id);
      writes.push({ key: prefix + id, value });
    }
    const dropped: [id: string, bytes: number][] = [];
    for (const [id, bytes] of this.#sizes) {
      if (this.#sizes.size <= this.#options.lettersMax && this.#bytes <= this.#options.bytesMax) break;
      this.#forget(id);
      dropped.push([id, bytes]);
      writes.push({ key: prefix + id, value: undefined });
    }
    try {
      await this.#state.write(writes);
    } catch (error) {
      for (const id of ids) this.#forget(id);
      this.#putBack(dropped.filter(([id]) => !ids.includes(id)));
      throw error;
    }
    this.#added += letters.length;
    this.#dropped += dropped.length;
  }

  /** Those that were to go and are still stored, in their old places. */
  #putBack(letters: readonly (readonly [id: string, bytes: number])[]): void {
    const newer = [...this.#sizes];
    this.#sizes.clear();
    for (const [id, bytes] of [...letters, ...newer].sort(([a], [b]) => (a < b ? -1 : 1))) {
      this.#sizes.set(id, bytes);
    }
    for (const [, bytes] of letters) this.#bytes += bytes;
  }

  /** The oldest first, those behind the id `after`. */
  async list(options: { readonly limit: number; readonly after?: string }): Promise<StoredLetter[]> {
    const found: StoredLetter[] = [];
    for (const id of [...this.#sizes.keys()]) {
      if (found.length >= options.limit) break;
      if (options.after !== undefined && id <= options.after) continue;
      const letter = await this.get(id);
      if (letter !== undefined) found.push(letter);
    }
    return found;
  }

  async get(id: string): Promise<StoredLetter | undefined> {
    if (!this.#sizes.has(id)) return undefined;
    const value = await this.#state.get(prefix + id);
    return value === undefined ? undefined : decode(id, value);
  }

  /** Resolves when it is durably gone, to whether there was one. */
  async drop(id: string): Promise<boolean> {
    if (!this.#sizes.has(id)) return false;
    await this.#state.write([{ key: prefix + id, value: undefined }]);
    this.#forget(id);
    return true;
  }

  stats(): DeadLetterStats {
    return { letters: this.#sizes.size, bytes: this.#bytes, added: this.#added, dropped: this.#dropped };
  }

  #remember(id: string, bytes: number): void {
    this.#sizes.set(id, bytes);
    this.#bytes += bytes;
  }

  #forget(id: string): void {
    this.#bytes -= this.#sizes.get(id) ?? 0;
    this.#sizes.delete(id);
  }
}
