// Puts one set of data into a directory in place of another, so that a power cut at any moment leaves the old one or
// the new one complete, or a step from one to the other that `settle` finishes at the next start. Nothing but renames
// below that one directory: it works on a mount point and needs no room. Everything lies in `<directory>/restore/`:
//
//   building      is being filled; thrown away if it is found later
//   proven-7      complete, to be put in place: what was there goes to before-7, entry by entry
//   moving-7      all of that has gone: the new entries are moved into place
//   before-7      what was there; the newest two are kept
//   lock/         a LevelDB for the sake of its lock, which ends with its process
//
// Each line is reached by the rename of a folder, synced, before the next step begins.

import { mkdir, readdir, rename, rm, rmdir } from 'node:fs/promises';
import { join } from 'node:path';
import { makeDirectory, syncDirectory } from './disk.ts';
import { errorCode, GatewayError } from './errors.ts';
import { LevelStore } from './level-store.ts';
import type { Log } from './log.ts';

const keptMax = 2;

export interface ExchangeOptions {
  readonly directory: string;
  /** Which entries go in any case; else those for which there is a new one. Others are left alone. */
  readonly isData: (name: string) => boolean;
  readonly log: Log;
}

async function namesIn(directory: string): Promise<string[]> {
  try {
    return await readdir(directory);
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return [];
    throw error;
  }
}

function numbered(names: readonly string[], stem: string): number[] {
  return names.flatMap((name) => {
    const number = new RegExp(`^${stem}-(\\d+)$`).exec(name)?.[1];
    return number === undefined ? [] : [Number(number)];
  });
}

export class Exchange {
  readonly #options: ExchangeOptions;
  readonly #folder: string;
  readonly #lock: LevelStore;

  private constructor(options: ExchangeOptions, lock: LevelStore) {
    this.#options = options;
    this.#folder = join(options.directory, 'restore');
    this.#lock = lock;
  }

  /**
   * Alone with the directory until `close`, and past what a power cut interrupted.
   * @throws GatewayError `RESTORE_BUSY` when another process is at it.
   */
  static async open(options: ExchangeOptions): Promise<Exchange> {
    const folder = join(options.directory, 'restore');
    await makeDirectory(folder);
    let lock: LevelStore;
    try {
      lock = await LevelStore.open(join(folder, 'lock'), { log: options.log, spareBytes: 0 });
    } catch (error) {
      if (errorCode(error) !== 'STORE_LOCKED') throw error;
      throw new GatewayError('RESTORE_BUSY', `${options.directory} is being restored just now`, {
        cause: error,
      });
    }
    const exchange = new Exchange(options, lock);
    try {
      await exchange.#settle();
    } catch (error) {
      await lock.close();
      throw error;
    }
    return exchange;
  }

  async close(): Promise<void> {
    await this.#lock.close();
  }

  /** An empty folder for the new set. */
  async build(): Promise<string> {
    const building = join(this.#folder, 'building');
    await rm(building, { recursive: true, force: true });
    await mkdir(building, { mode: 0o700 });
    return building;
  }

  /** Throws away what was built. */
  async discard(): Promise<void> {
    await rm(join(this.#folder, 'building'), { recursive: true, force: true });
  }

  /**
   * Puts what was built, and synced, in place. From its first rename on there is no way back but forward, also over
   * a power cut. Answers where the old set lies now, undefined when there was none.
   */
  async commit(): Promise<string | undefined> {
    return await this.#putInPlace('building');
  }

  /** Brings back the set that was there before the last exchange. Undefined when there is none. */
  async undo(): Promise<string | undefined> {
    const newest = Math.max(...numbered(await namesIn(this.#folder), 'before'), 0);
    if (newest === 0) return undefined;
    await this.#putInPlace(`before-${newest}`);
    return join(this.#folder, `before-${newest}`);
  }

  async #putInPlace(name: string): Promise<string | undefined> {
    const names = await namesIn(this.#folder);
    const number = Math.max(...numbered(names, 'before'), 0) + 1;
    await rename(join(this.#folder, name), join(this.#folder, `proven-${number}`));
    await syncDirectory(this.#folder);
    await this.#settle();
    const before = `before-${number}`;
    return (await namesIn(this.#folder)).includes(before) ? join(this.#folder, before) : undefined;
  }

  /** Ends what was begun. Every step may have been done before, and is then passed over. */
  async #settle(): Promise<void> {
    const { directory, isData, log } = this.#options;
    const names = await namesIn(this.#folder);
    if (names.includes('building')) await this.#tidy('building');
    for (const number of numbered(names, 'proven')) {
      const before = join(this.#folder, `before-${number}`);
      const proven = await namesIn(join(this.#folder, `proven-${number}`));
      const old = (await namesIn(directory)).filter((name) => isData(name) || proven.includes(name));
      if (old.length > 0) await makeDirectory(before);
      for (const name of old) await rename(join(directory, name), join(before, name));
      if (old.length > 0) await syncDirectory(before);
      await syncDirectory(directory);
      await rename(join(this.#folder, `proven-${number}`), join(this.#folder, `moving-${number}`));
      await syncDirectory(this.#folder);
      log.warn({ event: 'data-exchanged', before }, 'restored data are put in place');
    }
    for (const number of numbered(await namesIn(this.#folder), 'moving')) {
      const moving = join(this.#folder, `moving-${number}`);
      for (const name of await namesIn(moving)) await rename(join(moving, name), join(directory, name));
      await syncDirectory(directory);
      await rmdir(moving);
      await syncDirectory(this.#folder);
    }
    const kept = numbered(await namesIn(this.#folder), 'before').sort((a, b) => b - a);
    for (const number of kept.slice(keptMax)) await this.#tidy(`before-${number}`);
  }

  /** A disk that cannot be written must not keep the gateway from starting for the sake of this. */
  async #tidy(name: string): Promise<void> {
    await rm(join(this.#folder, name), { recursive: true, force: true }).catch((error: unknown) => {
      this.#options.log.warn({ event: 'exchange-not-tidied', name, code: errorCode(error) }, 'left there');
    });
  }
}

/**
 * Before the data in a directory are opened: finishes an exchange a power cut interrupted. The answer is to be called
 * once they are open: until then nobody else exchanges them.
 * @throws GatewayError `RESTORE_BUSY`
 */
export async function settleExchange(options: ExchangeOptions): Promise<() => Promise<void>> {
  const names = await namesIn(join(options.directory, 'restore'));
  // Nothing was ever restored here: the usual case costs one look.
  if (names.length === 0) return async () => undefined;
  const exchange = await Exchange.open(options);
  return () => exchange.close();
}
