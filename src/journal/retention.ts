// The caps over what waits in blocks, by bytes and by age. Promises: the least valuable goes first and the oldest of
// it, what is being sent never, and whatever goes is counted. Age is that of the journal's own running clock.

import type { Block, Blocks } from './blocks.ts';
import { type ByClass, byClass, type ClassIndex, classIndexes } from './class-index.ts';

export type DropReason = 'capacity' | 'age' | 'damage';
export type Drops = ByClass<Readonly<Record<DropReason, number>>>;

export interface RetentionOptions {
  readonly blocks: Blocks;
  readonly maxBytes: number;
  readonly maxAgeMs: number;
  readonly journalMs: () => number;
}

function noDrops(): Record<DropReason, number> {
  return { capacity: 0, age: 0, damage: 0 };
}

export class Retention {
  readonly #options: RetentionOptions;
  readonly #dropped = [noDrops(), noDrops(), noDrops()] as const;

  constructor(options: RetentionOptions) {
    this.#options = options;
  }

  /** Points given up. */
  drops(): Drops {
    return byClass((index) => ({ ...this.#dropped[index] }));
  }

  count(index: ClassIndex, reason: DropReason, points: number): void {
    this.#dropped[index][reason] += points;
  }

  /** Makes room, if the blocks have grown beyond a cap. */
  async enforce(): Promise<void> {
    const { blocks } = this.#options;
    for (const index of [2, 1, 0] as const) {
      while (blocks.bytes > this.#options.maxBytes) {
        if (await this.#dropOldest(index, 'capacity', () => true)) continue;
        // What is being sent is not dropped, and nothing more valuable in its place.
        if (blocks.stats(index).blocks > 0) return;
        break;
      }
    }
    // By the journal's own clock, which counts running time alone: a wall clock that was set wrong, or right
    // after years, must not delete anything.
    const limitMs = this.#options.journalMs() - this.#options.maxAgeMs;
    for (const index of classIndexes) {
      while ((blocks.oldestMs(index) ?? Number.POSITIVE_INFINITY) < limitMs) {
        if (!(await this.#dropOldest(index, 'age', (block) => block.newestMs < limitMs))) break;
      }
    }
  }

  async #dropOldest(
    index: ClassIndex,
    reason: DropReason,
    isDue: (block: Block) => boolean,
  ): Promise<boolean> {
    const block = await this.#options.blocks.take(index);
    if (block === undefined) return false;
    if (!isDue(block)) {
      this.#options.blocks.release(block);
      return false;
    }
    this.count(index, reason, block.points);
    await this.#options.blocks.finish(block);
    return true;
  }
}
