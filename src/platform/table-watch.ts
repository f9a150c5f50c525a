// How much of a LevelDB's tables is looked at, and when. Promises: before LevelDB opens a store, its newest tables are
// checked (after a clean stop fewer than after another end), the rest soon after it, a little at a time; and no damage
// can end the process more than twice, because when it has ended twice without a clean stop and before the round was
// complete, all tables are checked before LevelDB sees one. A file in the store's directory tells: there from the
// opening to the clean stop. Does not watch for damage behind LevelDB's back while the store is open.

import { open, readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeDirectory } from './disk.ts';
import { listTables, type TableFile } from './level-salvage.ts';
import { checkTable } from './level-tables.ts';
import type { Log } from './log.ts';

const mebibyte = 1024 * 1024;
const defaults = {
  /** A start must be quick, and after a clean stop there is no reason to expect anything. */
  clean: 64 * mebibyte,
  /** Some seconds on a slow card. */
  unclean: 256 * mebibyte,
  /** Not while everything starts. */
  delayMs: 5000,
};
/** Between two tables of 2 MiB: the card and the event loop are for others. */
const pauseMs = 50;
const markName = 'OPEN-SINCE';

export interface TableWatchOptions {
  readonly log: Log;
  readonly checkedBytesMax: { readonly clean: number; readonly unclean: number } | undefined;
  readonly checkDelayMs: number | undefined;
  /** Damage found while the store is open; called once, when the round ends by that. */
  readonly onDamage: (text: string) => Promise<void>;
}

export class TableWatch {
  readonly #directory: string;
  readonly #options: TableWatchOptions;
  #left: TableFile[] = [];
  #uncleanEnds = 0;
  #checkedBytes = 0;
  readonly #stopped = new AbortController();
  #round: Promise<void> | undefined;

  constructor(directory: string, options: TableWatchOptions) {
    this.#directory = directory;
    this.#options = options;
  }

  get checkedBytes(): number {
    return this.#checkedBytes;
  }

  get uncheckedBytes(): number {
    return this.#left.reduce((sum, { bytes }) => sum + (bytes ?? 0), 0);
  }

  get uncleanEnds(): number {
    return this.#uncleanEnds;
  }

  /** Before LevelDB opens the store: answers what is wrong with the first damaged table. */
  async begin(): Promise<string | undefined> {
    const mark = await readFile(join(this.#directory, markName), 'utf8').catch(() => undefined);
    if (mark !== undefined) this.#uncleanEnds = (Number.parseInt(mark, 10) || 0) + 1;
    await this.#mark(this.#uncleanEnds);
    this.#left = await listTables(this.#directory);
    const most = this.#bytesMax();
    while (this.#checkedBytes < most) {
      const table = this.#left.shift();
      if (table === undefined) break;
      const damage = await this.#check(table);
      if (damage === undefined) continue;
      // The repair looks at all of them.
      this.#left = [];
      return damage;
    }
    return undefined;
  }

  /** LevelDB has opened it: the rest. */
  goOn(): void {
    this.#round = this.#goOn().catch((error: unknown) => {
      this.#options.log.warn({ event: 'store-check-failed', error: String(error) }, 'tables not checked');
    });
  }

  /** Stops looking. */
  async settle(): Promise<void> {
    this.#stopped.abort();
    await this.#round;
  }

  /** After LevelDB closed it. */
  async endClean(): Promise<void> {
    await rm(join(this.#directory, markName), { force: true }).catch(() => undefined);
  }

  #bytesMax(): number {
    const { clean, unclean } = this.#options.checkedBytesMax ?? defaults;
    if (this.#uncleanEnds === 0) return clean;
    return this.#uncleanEnds === 1 ? unclean : Number.POSITIVE_INFINITY;
  }

  async #goOn(): Promise<void> {
    const { signal } = this.#stopped;
    let delayMs = this.#left.length === 0 ? 0 : (this.#options.checkDelayMs ?? defaults.delayMs);
    for (let table = this.#left[0]; table !== undefined; table = this.#left[0]) {
      await sleep(delayMs, undefined, { signal, ref: false }).catch(() => undefined);
      if (signal.aborted) return;
      delayMs = pauseMs;
      // Compacted away meanwhile, there is nothing to read.
      const damage = await this.#check(table);
      this.#left.shift();
      if (damage === undefined) continue;
      this.#left = [];
      // Not waited for: it closes the store, and that waits for this.
      void this.#options.onDamage(damage);
    }
    if (this.#uncleanEnds > 0) await this.#mark(0);
  }

  async #check({ name, bytes }: TableFile): Promise<string | undefined> {
    const report = await checkTable(join(this.#directory, name), bytes);
    if (report === undefined) return undefined;
    this.#checkedBytes += report.bytes;
    const [first] = report.damages;
    if (first === undefined) return undefined;
    return `Corruption: ${name}: ${first.part} at ${first.position}, ${report.damages.length} in all`;
  }

  /** Best effort: a disk that takes nothing must not keep the store from being read. */
  async #mark(uncleanEnds: number): Promise<void> {
    try {
      await makeDirectory(this.#directory);
      const file = await open(join(this.#directory, markName), 'w');
      try {
        await file.writeFile(`${uncleanEnds} unclean ends before this one\n`);
        await file.sync();
      } finally {
        await file.close();
      }
    } catch {
      // Counted too low, more may be read before a later opening than would be now.
    }
  }
}
