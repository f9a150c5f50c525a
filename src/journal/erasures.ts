// What of a device was deleted while it still waited here. Promises: a line that was in the journal when the deletion
// became durable is handed out no more, neither from the ring nor from a block nor after a power cut; what came later
// is not touched, whatever its time. A deletion is remembered by the newest frame there was, and forgotten once
// everything up to it is gone for good.

import type { Dating, HotState, StateWrite } from './contract.ts';
import { timeOfLine } from './dating.ts';

const prefix = 'journal/erased/';
const digits = 16;
/** Frames and blocks that are gone may be back after a power cut until something newer was synced. */
const restMs = 3_600_000;

/** Of one device: the points of a stretch of time, or all. */
export interface Selected {
  readonly deviceId: string;
  /** Nanoseconds since the epoch, inclusive and exclusive; undefined: whatever their time. */
  readonly range?: { readonly fromNs: bigint; readonly toNs: bigint };
}

export interface Erasure extends Selected {
  /** Of the newest frame it is about. */
  readonly sequence: number;
  /** On the journal's own clock. */
  readonly atMs: number;
}

function encode({ deviceId, range, sequence, atMs }: Erasure): Buffer {
  const times = range && { from: String(range.fromNs), to: String(range.toNs) };
  return Buffer.from(JSON.stringify({ deviceId, ...times, sequence, atMs }));
}

function decode(value: Buffer): Erasure {
  // Ours, and under a checksum.
  const { from, to, ...rest } = JSON.parse(value.toString()) as Erasure & { from?: string; to?: string };
  if (from === undefined || to === undefined) return rest;
  return { ...rest, range: { fromNs: BigInt(from), toNs: BigInt(to) } };
}

export class Erasures {
  readonly #byKey = new Map<string, Erasure>();
  /** Those that are being made durable. */
  readonly #begun = new Set<Erasure>();
  #lastNumber = 0;
  #newest = -1;
  #changes = 0;
  #erased = 0;

  static async open(state: Pick<HotState, 'entries'>): Promise<Erasures> {
    const erasures = new Erasures();
    for await (const [key, value] of state.entries(prefix)) erasures.#add(key, decode(value));
    return erasures;
  }

  get size(): number {
    return this.#byKey.size;
  }

  /** Another one after each `add`. */
  get changes(): number {
    return this.#changes;
  }

  /** Lines that were not handed out. */
  get erased(): number {
    return this.#erased;
  }

  /** To be made durable, then `ended`. No two have one key, also those that are written at the same time. */
  begin(erasure: Erasure): StateWrite {
    this.#begun.add(erasure);
    this.#lastNumber += 1;
    return { key: prefix + String(this.#lastNumber).padStart(digits, '0'), value: encode(erasure) };
  }

  ended(key: string, erasure: Erasure, isDurable: boolean): void {
    this.#begun.delete(erasure);
    if (!isDurable) return;
    this.#changes += 1;
    this.#add(key, erasure);
  }

  /**
   * Whether a deletion that has begun is about the one frame and not about the other: joined in one block nobody could
   * tell their lines apart, once it is durable.
   */
  isBetween(sequence: number, later: number): boolean {
    for (const begun of this.#begun) if (sequence <= begun.sequence && begun.sequence < later) return true;
    return false;
  }

  /** Whether lines up to this frame may have been deleted: cheap. */
  mayTouch(sequence: number): boolean {
    return sequence <= this.#newest;
  }

  /**
   * The lines without those that were deleted; the same buffer when there are none.
   * @param sequence the newest frame they are from
   */
  strip(lines: Buffer, sequence: number, dating: Dating | undefined): Buffer {
    if (!this.mayTouch(sequence)) return lines;
    const wanted = [...this.#byKey.values()].filter((erasure) => sequence <= erasure.sequence);
    if (!wanted.some(({ deviceId }) => lines.includes(tagOf(deviceId)))) return lines;
    const text = lines.toString();
    let kept = '';
    let erased = 0;
    for (let start = 0; start < text.length; ) {
      const found = text.indexOf('\n', start);
      const end = found === -1 ? text.length : found;
      const line = text.slice(start, end);
      if (wanted.some((erasure) => isSelected(line, erasure, dating))) erased += 1;
      else kept += `${line}\n`;
      start = end + 1;
    }
    this.#erased += erased;
    return erased === 0 ? lines : Buffer.from(kept);
  }

  /** Forgets what nothing is left of. @param oldest the oldest frame of which anything waits */
  settled(oldest: number, nowMs: number, isOpening: boolean): StateWrite[] {
    const writes: StateWrite[] = [];
    for (const [key, { sequence, atMs }] of this.#byKey) {
      if (oldest <= sequence || (!isOpening && nowMs - atMs < restMs)) continue;
      this.#byKey.delete(key);
      writes.push({ key, value: undefined });
    }
    this.#newest = Math.max(-1, ...[...this.#byKey.values()].map(({ sequence }) => sequence));
    return writes;
  }

  #add(key: string, erasure: Erasure): void {
    this.#byKey.set(key, erasure);
    this.#lastNumber = Math.max(this.#lastNumber, Number(key.slice(prefix.length)));
    this.#newest = Math.max(this.#newest, erasure.sequence);
  }
}

/** Of lines that were stripped: each ends in a line break. */
export function countLines(lines: Buffer): number {
  let count = 0;
  for (let at = lines.indexOf(10); at !== -1; at = lines.indexOf(10, at + 1)) count += 1;
  return count;
}

/** Ids of devices need no escapes. */
function tagOf(deviceId: string): string {
  return `,device_id=${deviceId}`;
}

function isSelected(line: string, { deviceId, range }: Erasure, dating: Dating | undefined): boolean {
  const tag = tagOf(deviceId);
  const at = line.indexOf(tag);
  // A tag, and not what a text of a field says.
  if (at === -1 || at + tag.length > seriesEnd(line)) return false;
  const behind = line[at + tag.length];
  if (behind !== ',' && behind !== ' ') return false;
  if (range === undefined) return true;
  const timeNs = timeOfLine(line, dating);
  return timeNs !== undefined && timeNs >= range.fromNs && timeNs < range.toNs;
}

function seriesEnd(line: string): number {
  let at = 0;
  while (at < line.length && line[at] !== ' ') at += line[at] === '\\' ? 2 : 1;
  return at;
}
