// What could not be delivered and never will as it is: kept with its reason until somebody looks. A tenant of
// the hot state. Promises: bounded in number and bytes, the oldest go first, and each one that goes is counted; a
// letter that is replayed ends in the append that carries what it became; letters never take the room that is
// kept for alarms. In memory are ids and sizes, not the letters.

import { createHash } from 'node:crypto';
import { splitLines } from '../model/line-protocol.ts';
import type {
  Append,
  Appender,
  DeadLetter,
  DeadLetters,
  HotState,
  StateWrite,
  StoredLetter,
} from './contract.ts';

const prefix = 'dead/';
/** Lines that were replayed, by digest: should InfluxDB refuse one again, its letter says how often. */
const replayedPrefix = 'dead-replayed/';
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

export interface DeadLetterStats {
  readonly letters: number;
  readonly bytes: number;
  readonly added: number;
  /** Gone because of the bounds. */
  readonly dropped: number;
}

/** Which letters; what is absent does not matter. */
export interface LetterFilter {
  readonly stage?: string;
  readonly code?: string;
  readonly deviceId?: string;
  /** Ids are in the order of arrival: those behind `after`, up to and with `until`. */
  readonly after?: string;
  readonly until?: string;
}

type Head = Omit<StoredLetter, 'id' | 'bytes' | 'time'> & {
  readonly time?: { readonly timeNs: string; readonly boot?: number };
};

function encode(letter: DeadLetter, wallMs: number, bytesMax: number): Buffer {
  const { bytes, reason, origin, time, ...rest } = letter;
  const isCut = bytes.length > bytesMax;
  const head = Buffer.from(
    JSON.stringify({
      ...rest,
      reason: reason.slice(0, textMax),
      ...(origin !== undefined && { origin: origin.slice(0, textMax) }),
      ...(time !== undefined && { time: { ...time, timeNs: String(time.timeNs) } }),
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
  // Ours, and under a checksum: the shape is what `encode` wrote, here or in an earlier version.
  const { time, ...head } = JSON.parse(value.toString('utf8', wordBytes, end)) as Head;
  return {
    ...head,
    ...(time !== undefined && { time: { ...time, timeNs: BigInt(time.timeNs) } }),
    id,
    bytes: value.subarray(end),
  };
}

function digestOf(line: Buffer | string): string {
  return createHash('sha256').update(line).digest('base64url').slice(0, 16);
}

function matches(letter: StoredLetter, { stage, code, deviceId }: LetterFilter): boolean {
  return (
    (stage === undefined || letter.stage === stage) &&
    (code === undefined || letter.code === code) &&
    (deviceId === undefined || letter.deviceId === deviceId)
  );
}

export class DeadLetterBox implements DeadLetters {
  readonly #state: HotState & Appender;
  readonly #options: DeadLetterBoxOptions;
  /** Id to bytes, in order of id. */
  readonly #sizes = new Map<string, number>();
  /** Digest of a replayed line to how often, the oldest first; as many as letters at most. */
  readonly #replayed = new Map<string, number>();
  /** Letters that are being replaced. */
  readonly #busy = new Set<string>();
  #bytes = 0;
  #nextId = 1;
  #added = 0;
  #dropped = 0;

  private constructor(state: HotState & Appender, options: DeadLetterBoxOptions) {
    this.#state = state;
    this.#options = options;
  }

  static async open(state: HotState & Appender, options: DeadLetterBoxOptions): Promise<DeadLetterBox> {
    const box = new DeadLetterBox(state, options);
    for await (const [key, value] of state.entries(replayedPrefix)) {
      box.#replayed.set(key.slice(replayedPrefix.length), value[0] ?? 1);
    }
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
   * @param isUrgent whether alarms wait behind them: only then may they take of the room kept for those
   */
  async addAll(letters: readonly DeadLetter[], { isUrgent = false } = {}): Promise<void> {
    const append: Append = { class: isUrgent ? 'event' : 'telemetry', lines: '', points: 0 };
    let some: DeadLetter[] = [];
    let bytes = 0;
    for (const letter of letters) {
      const more = Math.min(letter.bytes.length, this.#options.letterBytesMax) + letterOverheadBytes;
      if (some.length > 0 && bytes + more > this.#options.commitBytesMax) {
        await this.#append(append, some, []);
        some = [];
        bytes = 0;
      }
      some.push(letter);
      bytes += more;
    }
    if (some.length > 0) await this.#append(append, some, []);
  }

  async replace(id: string, append: Append, letters: readonly DeadLetter[]): Promise<boolean> {
    if (!this.#sizes.has(id) || this.#busy.has(id)) return false;
    this.#busy.add(id);
    try {
      const attempts = ((await this.get(id))?.attempts ?? 0) + 1;
      // The oldest letters of all may have gone meanwhile, and this one with them.
      if (!this.#sizes.has(id)) return false;
      const marks = this.#marksOf(append.lines, attempts);
      await this.#append(
        { ...append, state: [...(append.state ?? []), { key: prefix + id, value: undefined }, ...marks] },
        letters.map((letter) => ({ ...letter, attempts })),
        [id],
      );
      return true;
    } finally {
      this.#busy.delete(id);
    }
  }

  /** Adds the letters in the append; what the bounds push out goes in it as well. */
  async #append(append: Append, letters: readonly DeadLetter[], replaced: readonly string[]): Promise<void> {
    const writes: StateWrite[] = [...(append.state ?? [])];
    const ids: string[] = [];
    for (const letter of letters) {
      const id = String(this.#nextId).padStart(idDigits, '0');
      this.#nextId += 1;
      const attempts = letter.attempts ?? this.#takeMark(letter.bytes, writes);
      const value = encode(
        attempts === undefined ? letter : { ...letter, attempts },
        this.#options.wallMs(),
        this.#options.letterBytesMax,
      );
      this.#remember(id, value.length);
      ids.push(id);
      writes.push({ key: prefix + id, value });
    }
    const gone: [id: string, bytes: number][] = [];
    const forget = (id: string, bytes: number): void => {
      this.#forget(id);
      gone.push([id, bytes]);
    };
    for (const id of replaced) forget(id, this.#sizes.get(id) ?? 0);
    for (const [id, bytes] of this.#sizes) {
      if (this.#sizes.size <= this.#options.lettersMax && this.#bytes <= this.#options.bytesMax) break;
      forget(id, bytes);
      writes.push({ key: prefix + id, value: undefined });
    }
    try {
      await this.#state.append({ ...append, state: writes });
    } catch (error) {
      for (const id of ids) this.#forget(id);
      this.#putBack(gone.filter(([id]) => !ids.includes(id)));
      throw error;
    }
    this.#added += letters.length;
    this.#dropped += gone.length - replaced.length;
  }

  /** Notes that these lines are on their way again; the oldest notes give way. */
  #marksOf(lines: string, attempts: number): StateWrite[] {
    const writes: StateWrite[] = [];
    for (const line of splitLines(lines)) {
      const digest = digestOf(line);
      this.#replayed.delete(digest);
      this.#replayed.set(digest, attempts);
      writes.push({ key: replayedPrefix + digest, value: Buffer.from([Math.min(attempts, 255)]) });
    }
    for (const digest of this.#replayed.keys()) {
      if (this.#replayed.size <= this.#options.lettersMax) break;
      this.#replayed.delete(digest);
      writes.push({ key: replayedPrefix + digest, value: undefined });
    }
    return writes;
  }

  /** How often the line was replayed before it was refused now. */
  #takeMark(line: Buffer, writes: StateWrite[]): number | undefined {
    if (this.#replayed.size === 0) return undefined;
    const digest = digestOf(line);
    const attempts = this.#replayed.get(digest);
    if (attempts === undefined) return undefined;
    this.#replayed.delete(digest);
    writes.push({ key: replayedPrefix + digest, value: undefined });
    return attempts;
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

  /** The id of the newest there ever was; undefined before the first. */
  get newest(): string | undefined {
    return this.#nextId === 1 ? undefined : String(this.#nextId - 1).padStart(idDigits, '0');
  }

  /** The oldest first. */
  async list(options: LetterFilter & { readonly limit: number }): Promise<StoredLetter[]> {
    const found: StoredLetter[] = [];
    for (const id of [...this.#sizes.keys()]) {
      if (found.length >= options.limit) break;
      if (options.after !== undefined && id <= options.after) continue;
      if (options.until !== undefined && id > options.until) break;
      const letter = await this.get(id);
      if (letter !== undefined && matches(letter, options)) found.push(letter);
    }
    return found;
  }

  async get(id: string): Promise<StoredLetter | undefined> {
    if (!this.#sizes.has(id)) return undefined;
    const value = await this.#state.get(prefix + id);
    return value === undefined ? undefined : decode(id, value);
  }

  /** Resolves when they are durably gone, to those that were there. As many as fit into one append. */
  async drop(ids: readonly string[]): Promise<string[]> {
    const known = ids.filter((id) => this.#sizes.has(id) && !this.#busy.has(id));
    if (known.length === 0) return [];
    await this.#state.write(known.map((id) => ({ key: prefix + id, value: undefined })));
    for (const id of known) this.#forget(id);
    return known;
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
