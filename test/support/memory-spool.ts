// The journal's contract (src/journal/contract.ts) in memory, strict about misuse: for tests of the forwarder.

import assert from 'node:assert/strict';
import type { Batch, DeadLetter, Lane, Spool } from '../../src/journal/contract.ts';

interface Entry {
  readonly points: number;
  readonly encoding: 'identity' | 'gzip';
  readonly body: Buffer;
}

interface Held {
  readonly entries: readonly Entry[];
  /** Released after the uplink returned, fresh points are backlog. */
  lane: Lane;
}

export class MemorySpool implements Spool {
  readonly buried: DeadLetter[] = [];
  /** How often `uplinkReturned` was called. */
  returns = 0;
  acceptedPoints = 0;
  /** Set to make the next end of a batch fail, as a full disk would. */
  failNextEnd: Error | undefined;
  readonly #waiting: Record<Lane, Entry[]> = { urgent: [], fresh: [], backlog: [] };
  readonly #held = new Map<Batch, Held>();
  readonly #points: Record<Lane, number> = { urgent: 0, fresh: 0, backlog: 0 };
  #listener: (() => void) | undefined;
  #isAnnounced = false;

  /** Every line without its line break, stored as one entry. */
  add(lane: Lane, lines: readonly string[]): void {
    this.#add(lane, {
      points: lines.length,
      encoding: 'identity',
      body: Buffer.from(`${lines.join('\n')}\n`),
    });
  }

  /** A stored block, as it lies on disk when offline. */
  addBlock(body: Buffer, points: number): void {
    this.#add('backlog', { points, encoding: 'gzip', body });
  }

  #add(lane: Lane, entry: Entry): void {
    this.#waiting[lane].push(entry);
    this.#points[lane] += entry.points;
    if (this.#isAnnounced) return;
    this.#isAnnounced = true;
    setImmediate(() => {
      this.#isAnnounced = false;
      this.#listener?.();
    });
  }

  async take(lane: Lane, pointsMax: number): Promise<Batch | undefined> {
    const waiting = this.#waiting[lane];
    const taken: Entry[] = [];
    let points = 0;
    for (;;) {
      const next = waiting[0];
      if (next === undefined) break;
      // Blocks are sent as they lie, never merged with lines.
      const isOfOneKind = taken[0] === undefined || taken[0].encoding === next.encoding;
      if (taken.length > 0 && (points + next.points > pointsMax || !isOfOneKind)) break;
      waiting.shift();
      taken.push(next);
      points += next.points;
    }
    const [first] = taken;
    if (first === undefined) return undefined;
    const batch: Batch = {
      lane,
      points,
      encoding: first.encoding,
      body: Buffer.concat(taken.map((entry) => entry.body)),
    };
    this.#held.set(batch, { entries: taken, lane });
    return batch;
  }

  async accept(batch: Batch): Promise<void> {
    this.#end(batch);
    this.acceptedPoints += batch.points;
  }

  async bury(batch: Batch, letters: readonly DeadLetter[]): Promise<void> {
    this.#end(batch);
    this.acceptedPoints += batch.points - letters.length;
    this.buried.push(...letters);
  }

  release(batch: Batch): void {
    const held = this.#held.get(batch);
    assert(held, 'BUG: a batch ends once');
    this.#held.delete(batch);
    this.#waiting[held.lane].unshift(...held.entries);
    this.#listener?.();
  }

  #end(batch: Batch): void {
    const failure = this.failNextEnd;
    this.failNextEnd = undefined;
    if (failure !== undefined) throw failure;
    const held = this.#held.get(batch);
    assert(held, 'BUG: a batch ends once');
    this.#held.delete(batch);
    this.#points[held.lane] -= batch.points;
  }

  uplinkReturned(): void {
    this.returns += 1;
    this.#waiting.backlog.push(...this.#waiting.fresh);
    this.#waiting.fresh = [];
    for (const held of this.#held.values()) if (held.lane === 'fresh') held.lane = 'backlog';
    this.#points.backlog += this.#points.fresh;
    this.#points.fresh = 0;
  }

  onAvailable(listener: () => void): void {
    assert(this.#listener === undefined, 'BUG: one listener');
    this.#listener = listener;
  }

  pending(): Readonly<Record<Lane, number>> {
    return { ...this.#points };
  }

  get total(): number {
    return this.#points.urgent + this.#points.fresh + this.#points.backlog;
  }
}
