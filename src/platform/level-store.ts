// A Store on LevelDB. Promises: a write that resolved is on the disk, a value is returned as it was written or
// not at all (each carries its own CRC: LevelDB is silent about most damage), and opening succeeds whatever lies
// in the directory. LevelDB aborts the process over some damage in its tables, so they are checked before it reads them
// (table-watch.ts says how much of them, when). Does not promise to notice entries LevelDB lost whole; who must know
// numbers its entries.

import assert from 'node:assert/strict';
import {
  appendFile,
  copyFile,
  lstat,
  mkdir,
  mkdtemp,
  open,
  readdir,
  rename,
  rm,
  stat,
  statfs,
  symlink,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { crc32 } from 'node:zlib';
import { Level } from 'level';
import { makeDirectory } from './disk.ts';
import { diskTroubleOf, traceOf } from './disk-trouble.ts';
import { GatewayError } from './errors.ts';
import { copyReadable, disarm, isSequenceWild, setWildLogsAside } from './level-salvage.ts';
import type { Log } from './log.ts';
import type { Store, StoreRange, StoreWrite } from './store.ts';
import { TableWatch } from './table-watch.ts';

const defaults = {
  /** A larger directory is not copied before a repair: a card that fills up helps nobody. */
  damagedCopyBytesMax: 256 * 1024 * 1024,
  /** LevelDB needs about so much to open, whatever is to be read: it writes what was in its log into a table. */
  spareBytes: 8 * 1024 * 1024,
  /** Not while everything starts. */
  spareDelayMs: 10_000,
};

const spareRetryMs = 10 * 60 * 1000;
const spareChunkBytes = 256 * 1024;
/** A spare is only made while so many times its size is free. */
const roomForSpare = 8;
/** With less a repair could lose what it has no room to write. */
const repairBytes = 16 * 1024 * 1024;

const damagedCopiesMax = 2;
/** What a snapshot reads ahead. */
const snapshotReadBytes = 256 * 1024;
const damagedValuesBytesMax = 4 * 1024 * 1024;
const crcBytes = 4;

export interface LevelStoreOptions {
  readonly log: Log;
  /** Directories above this many bytes are repaired without keeping a copy. Default 256 MiB. */
  readonly damagedCopyBytesMax?: number;
  /** Bytes of tables looked at before the store opens: after a clean stop, and after another end. Default 64 and 256 MiB. */
  readonly checkedBytesMax?: { readonly clean: number; readonly unclean: number };
  /** How long after opening the others are looked at. Default 5 s. */
  readonly checkDelayMs?: number;
  /** Size of the file that gives way when the disk is too full to open the store. 0 for none. Default 8 MiB. */
  readonly spareBytes?: number;
  /** How long after opening it is made. Default 10 s. */
  readonly spareDelayMs?: number;
}

export interface LevelStoreStats {
  readonly writes: number;
  readonly writeErrors: number;
  /** Values taken out because their checksum was wrong. */
  readonly damagedValues: number;
  /** Handles replaced after an error. */
  readonly reopens: number;
  readonly repairs: number;
  /** How often not even a repair helped and the store started empty. */
  readonly startedEmpty: number;
  /** Blocks of tables whose checksum was wrong, or tables as a whole, that were left out by a repair. */
  readonly damagedTableBlocks: number;
  /** Bytes of tables whose checksums were looked at since the start, and what is left of the first round. */
  readonly checkedTableBytes: number;
  readonly uncheckedTableBytes: number;
  /** How often the process has ended without closing the store, one time after the other. */
  readonly uncleanEnds: number;
  /** How often the spare had to give way on a full disk. */
  readonly sparesUsed: number;
  /** Whether the last attempt to open or write failed. */
  readonly failed: boolean;
}

/** A stage's share of a LevelDB, and what it can do beyond a Store. */
export interface LevelRoom extends Store {
  /** All or nothing as `write`, but without waiting for the disk: after a power cut it may not have happened. */
  writeUnsynced(writes: readonly StoreWrite[]): Promise<void>;
  /** Deletes all keys from the first up to the second, without waiting for the disk; not at once. */
  clear(gte: string, lt: string): Promise<void>;
  /** Deletes without waiting for the disk: after a power cut the entries may be back. `note` is written with it. */
  forget(keys: readonly string[], note?: StoreWrite): Promise<void>;
  /** Gives back the disk that deleted entries between the two keys still occupy. */
  compact(gte: string, lt: string): Promise<void>;
}

/** A store as it was at one moment, its entries as they lie there: names of rooms and checksums included. */
export interface LevelSnapshot {
  /** Once. Throws GatewayError `STORE_FAILED` when the store was closed or replaced meanwhile. */
  entries(): AsyncIterable<readonly [key: string, sealed: Buffer]>;
  /** Gives back what it kept from being compacted. Idempotent. */
  close(): Promise<void>;
}

// What LevelDB in Node can do beyond what `level` declares for browsers as well.
interface Native {
  compactRange(start: string, end: string): Promise<void>;
}
const { repair } = Level as unknown as { repair(directory: string): Promise<void> };

type Database = Level<string, Buffer> & Native;
type Operation =
  | { readonly type: 'put'; readonly key: string; readonly value: Buffer }
  | { readonly type: 'del'; readonly key: string };

function seal(key: string, value: Buffer): Buffer {
  const sealed = Buffer.allocUnsafe(crcBytes + value.length);
  // The key is covered too: a good value under a wrong key is damage as well.
  sealed.writeUInt32LE(crc32(value, crc32(key)), 0);
  value.copy(sealed, crcBytes);
  return sealed;
}

function unseal(key: string, sealed: Buffer): Buffer | undefined {
  if (sealed.length < crcBytes) return undefined;
  const value = sealed.subarray(crcBytes);
  return sealed.readUInt32LE(0) === crc32(value, crc32(key)) ? value : undefined;
}

// A full or read-only disk is no damage: repairing, or starting empty, would destroy good data. Whatever else keeps
// LevelDB from reading its files is: their names and contents lead anywhere.
const environmentTexts =
  /No space|quota|Read-only|Permission denied|not permitted|Too many open files|Input\/output error|Cannot allocate|temporarily|File too large|EROFS|EACCES|EPERM|EMFILE|ENFILE|\bEIO\b|ENOMEM|ENOSPC|EDQUOT|system error -122/i;
const damageTexts = /LEVEL_CORRUPTION|LEVEL_IO_ERROR|Corruption|ENOENT|ENOTDIR|EEXIST|EISDIR|ELOOP/;

function isDamage(error: unknown): boolean {
  const text = traceOf(error);
  return damageTexts.test(text) && !environmentTexts.test(text);
}

function isFull(error: unknown): boolean {
  return diskTroubleOf(error) === 'full';
}

/** Unknown (some file systems do not say) counts as enough. */
async function freeBytes(directory: string): Promise<number> {
  try {
    const { bavail, bsize } = await statfs(directory);
    return bavail * bsize;
  } catch {
    return Number.POSITIVE_INFINITY;
  }
}

function isLocked(error: unknown): boolean {
  return /LEVEL_LOCKED/.test(traceOf(error));
}

async function directoryBytes(directory: string): Promise<number> {
  let bytes = 0;
  for (const name of await readdir(directory)) bytes += (await stat(join(directory, name))).size;
  return bytes;
}

export class LevelStore {
  readonly #directory: string;
  readonly #log: Log;
  readonly #damagedCopyBytesMax: number;
  #database: Database | undefined;
  /** Set while a handle is being made or replaced; everybody waits for the same one. */
  #opening: Promise<Database> | undefined;
  #closing: Promise<void> | undefined;
  #openedOnce = false;
  #writes = 0;
  #writeErrors = 0;
  #damagedValues = 0;
  #reopens = 0;
  #repairs = 0;
  #startedEmpty = 0;
  #sparesUsed = 0;
  #spareTimer: NodeJS.Timeout | undefined;
  #makingSpare: Promise<void> | undefined;
  #damagedTableBlocks = 0;
  readonly #tables: TableWatch;
  readonly #spareBytes: number;
  readonly #spareDelayMs: number;

  private constructor(directory: string, options: LevelStoreOptions) {
    this.#directory = directory;
    this.#log = options.log;
    this.#damagedCopyBytesMax = options.damagedCopyBytesMax ?? defaults.damagedCopyBytesMax;
    this.#spareBytes = options.spareBytes ?? defaults.spareBytes;
    this.#spareDelayMs = options.spareDelayMs ?? defaults.spareDelayMs;
    this.#tables = new TableWatch(directory, {
      log: options.log,
      checkedBytesMax: options.checkedBytesMax,
      checkDelayMs: options.checkDelayMs,
      onDamage: (text) => this.#mendNow(new Error(text)),
    });
  }

  /**
   * Succeeds whatever the directory holds: what cannot be opened is copied aside (`<directory>.damaged-<n>`, the
   * last two), repaired, and given up only if that fails too. On a full disk a file kept for this gives way. On a
   * broken disk, or a full one without that file, it succeeds as well; the operations then throw until it is back.
   * @throws GatewayError `STORE_LOCKED` when another process has it open.
   */
  static async open(directory: string, options: LevelStoreOptions): Promise<LevelStore> {
    const store = new LevelStore(directory, options);
    try {
      await store.#handle();
    } catch (error) {
      if (isLocked(error)) {
        throw new GatewayError('STORE_LOCKED', `${directory} is in use by another process`, { cause: error });
      }
      options.log.error({ event: 'store-open-failed', directory, error: traceOf(error) }, 'no store yet');
    }
    return store;
  }

  /** The share of one stage. Names are lower-case words. */
  room(name: string): LevelRoom {
    assert(/^[a-z][a-z0-9-]*$/.test(name), `BUG: '${name}' is no name for a room`);
    // Keys of a room lie between `name/` and `name0`: `0` follows `/` in ASCII.
    const prefix = `${name}/`;
    const end = `${name}0`;
    return {
      get: (key) => this.#get(prefix + key),
      write: (writes) => this.#write(prefix, writes, true),
      writeUnsynced: (writes) => this.#write(prefix, writes, false),
      clear: (gte, lt) => this.#clear(prefix + gte, prefix + lt),
      forget: (keys, note) => {
        const deletes = keys.map((key): StoreWrite => ({ key, value: undefined }));
        return this.#write(prefix, note === undefined ? deletes : [...deletes, note], false);
      },
      compact: (gte, lt) => this.#compact(prefix + gte, prefix + lt),
      entries: (range) => this.#entries(prefix, end, range ?? {}),
    };
  }

  /** Gives the disk back what deleted entries still occupy; deleting alone does not. */
  compact(): Promise<void> {
    return this.#compact('\x00', '\x7f');
  }

  async #compact(gte: string, lt: string): Promise<void> {
    try {
      await (await this.#handle()).compactRange(gte, lt);
    } catch (error) {
      throw this.#failure('compact', error);
    }
  }

  /**
   * Taken at once, so that it fits to what else is true at this moment.
   * @throws GatewayError `STORE_FAILED` when the store is not open just now.
   */
  snapshot(): LevelSnapshot {
    const database = this.#database;
    if (database === undefined) throw new GatewayError('STORE_FAILED', `${this.#directory} is not open`);
    // LevelDB keeps what the iterator sees from its creation on.
    const iterator = database.iterator({ fillCache: false, highWaterMarkBytes: snapshotReadBytes });
    const failure = (error: unknown) => this.#failure('read', error);
    return {
      async *entries() {
        for (;;) {
          const some = await iterator.nextv(1000).catch((error: unknown) => {
            throw failure(error);
          });
          if (some.length === 0) return;
          yield* some;
        }
      },
      close: () => iterator.close(),
    };
  }

  /** Writes entries of a snapshot as they are; synced only with `sync`. */
  async putSealed(
    entries: readonly (readonly [key: string, sealed: Buffer])[],
    options: { readonly sync: boolean },
  ): Promise<void> {
    try {
      const database = await this.#handle();
      await database.batch(
        entries.map(([key, value]) => ({ type: 'put', key, value })),
        options,
      );
    } catch (error) {
      throw this.#failure('write', error);
    }
  }

  stats(): LevelStoreStats {
    return {
      writes: this.#writes,
      writeErrors: this.#writeErrors,
      damagedValues: this.#damagedValues,
      reopens: this.#reopens,
      repairs: this.#repairs,
      startedEmpty: this.#startedEmpty,
      damagedTableBlocks: this.#damagedTableBlocks,
      checkedTableBytes: this.#tables.checkedBytes,
      uncheckedTableBytes: this.#tables.uncheckedBytes,
      uncleanEnds: this.#tables.uncleanEnds,
      sparesUsed: this.#sparesUsed,
      failed: this.#database === undefined,
    };
  }

  /** Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    clearTimeout(this.#spareTimer);
    await this.#opening?.catch(() => undefined);
    clearTimeout(this.#spareTimer);
    await this.#tables.settle();
    const database = this.#database;
    this.#database = undefined;
    await database?.close();
    if (database !== undefined) await this.#tables.endClean();
    await this.#makingSpare;
  }

  async #get(key: string): Promise<Buffer | undefined> {
    for (let attempt = 0; ; attempt += 1) {
      try {
        const sealed = await (await this.#handle()).get(key);
        if (sealed === undefined) return undefined;
        const value = unseal(key, sealed);
        if (value === undefined) await this.#setAside(key, sealed);
        return value;
      } catch (error) {
        if (attempt > 0 || !isDamage(error)) throw this.#failure('read', error);
        await this.#mendNow(error);
      }
    }
  }

  async *#entries(
    prefix: string,
    end: string,
    range: StoreRange,
  ): AsyncGenerator<readonly [string, Buffer], void, void> {
    let from = prefix + (range.gte ?? '');
    let to = range.lt === undefined ? end : prefix + range.lt;
    let isFromExclusive = false;
    let left = range.limit ?? Number.POSITIVE_INFINITY;
    const reverse = range.reverse ?? false;
    for (let attempt = 0; left > 0; attempt += 1) {
      try {
        const database = await this.#handle();
        const bound = isFromExclusive ? { gt: from } : { gte: from };
        for await (const [key, sealed] of database.iterator({ ...bound, lt: to, reverse })) {
          const value = unseal(key, sealed);
          if (reverse) to = key;
          else {
            from = key;
            isFromExclusive = true;
          }
          if (value === undefined) {
            await this.#setAside(key, sealed);
            continue;
          }
          yield [key.slice(prefix.length), value];
          left -= 1;
          if (left <= 0) return;
        }
        return;
      } catch (error) {
        // One damaged block would hide every entry behind it; a repair leaves only that block out.
        if (attempt > 0 || !isDamage(error)) throw this.#failure('read', error);
        await this.#mendNow(error);
      }
    }
  }

  async #write(prefix: string, writes: readonly StoreWrite[], sync: boolean): Promise<void> {
    if (writes.length === 0) return;
    const operations = writes.map((write): Operation => {
      const key = prefix + write.key;
      if (write.value === undefined) return { type: 'del', key };
      return { type: 'put', key, value: seal(key, write.value) };
    });
    let database: Database | undefined;
    try {
      database = await this.#handle();
      await database.batch(operations, { sync });
      this.#writes += 1;
    } catch (error) {
      this.#writeErrors += 1;
      // LevelDB refuses every write after a failed one, even once there is space again: only a new handle helps.
      if (database !== undefined) await this.#dropHandle(database);
      throw this.#failure('write', error);
    }
  }

  async #clear(gte: string, lt: string): Promise<void> {
    let database: Database | undefined;
    try {
      database = await this.#handle();
      await database.clear({ gte, lt });
    } catch (error) {
      this.#writeErrors += 1;
      if (database !== undefined) await this.#dropHandle(database);
      throw this.#failure('write', error);
    }
  }

  #failure(what: string, error: unknown): GatewayError {
    if (error instanceof GatewayError) return error;
    return new GatewayError('STORE_FAILED', `cannot ${what} ${this.#directory}: ${traceOf(error)}`, {
      cause: error,
    });
  }

  /** Keeps the bytes of a damaged value for people to look at, and takes it out: it is counted once. */
  async #setAside(key: string, sealed: Buffer): Promise<void> {
    this.#damagedValues += 1;
    const file = `${this.#directory}.damaged-values`;
    this.#log.warn({ event: 'store-value-damaged', directory: this.#directory, key, file }, 'set aside');
    try {
      const found = await stat(file).catch(() => undefined);
      const isRoom = (found?.size ?? 0) + sealed.length * 2 < damagedValuesBytesMax;
      if (isRoom) await appendFile(file, `${JSON.stringify({ key, base64: sealed.toString('base64') })}\n`);
      await (await this.#handle()).batch([{ type: 'del', key }], { sync: false });
    } catch (error) {
      this.#log.warn({ event: 'store-value-kept', key, error: traceOf(error) }, 'left where it is');
    }
  }

  async #dropHandle(database: Database): Promise<void> {
    if (this.#database !== database) return;
    this.#database = undefined;
    this.#log.warn({ event: 'store-handle-dropped', directory: this.#directory }, 'reopened at the next use');
    const closed = database.close().catch(() => undefined);
    this.#opening ??= closed.then(() => this.#openHandle());
    this.#opening.catch(() => undefined);
    await closed;
  }

  #handle(): Promise<Database> {
    if (this.#closing !== undefined) {
      return Promise.reject(new GatewayError('STORE_CLOSED', `${this.#directory} is closed`));
    }
    if (this.#database !== undefined) return Promise.resolve(this.#database);
    this.#opening ??= this.#openHandle();
    return this.#opening;
  }

  async #openHandle(): Promise<Database> {
    try {
      const database = await this.#openOrMend();
      this.#database = database;
      if (this.#openedOnce) this.#reopens += 1;
      else this.#tables.goOn();
      this.#openedOnce = true;
      this.#armSpare(this.#spareDelayMs);
      return database;
    } finally {
      this.#opening = undefined;
    }
  }

  async #attempt(): Promise<Database> {
    await makeDirectory(dirname(this.#directory));
    for (const name of await setWildLogsAside(this.#directory)) {
      this.#repairs += 1;
      this.#log.error({ event: 'store-log-damaged', directory: this.#directory, name }, 'log set aside');
    }
    const database = new Level<string, Buffer>(this.#directory, {
      keyEncoding: 'utf8',
      valueEncoding: 'buffer',
    }) as Database;
    await database.open();
    return database;
  }

  get #sparePath(): string {
    return `${this.#directory}.spare`;
  }

  #armSpare(delayMs: number): void {
    if (this.#spareBytes === 0 || this.#closing !== undefined) return;
    clearTimeout(this.#spareTimer);
    this.#spareTimer = setTimeout(() => {
      this.#makingSpare = this.#makeSpare().catch((error: unknown) => {
        this.#log.warn(
          { event: 'store-spare-failed', directory: this.#directory, error: traceOf(error) },
          'no spare',
        );
      });
    }, delayMs);
    this.#spareTimer.unref();
  }

  /** The room LevelDB needs to open must be there also when everybody else has filled the disk. */
  async #makeSpare(): Promise<void> {
    const path = this.#sparePath;
    const found = await stat(path).catch(() => undefined);
    if (found?.size === this.#spareBytes) return;
    this.#armSpare(spareRetryMs);
    if ((await freeBytes(dirname(path))) < this.#spareBytes * roomForSpare) return;
    const handle = await open(path, 'w');
    let isWhole = false;
    try {
      const zeros = Buffer.alloc(Math.min(spareChunkBytes, this.#spareBytes));
      let at = 0;
      while (at < this.#spareBytes && this.#closing === undefined) {
        at += (await handle.write(zeros, 0, Math.min(zeros.length, this.#spareBytes - at), at)).bytesWritten;
      }
      await handle.sync();
      isWhole = at === this.#spareBytes;
    } finally {
      await handle.close();
      if (!isWhole) await rm(path, { force: true });
    }
  }

  /** Answers whether there was one to give way. */
  async #useSpare(): Promise<boolean> {
    await this.#makingSpare;
    const found = await stat(this.#sparePath).catch(() => undefined);
    if (found === undefined) return false;
    await rm(this.#sparePath, { force: true });
    this.#sparesUsed += 1;
    this.#log.warn({ event: 'store-spare-used', directory: this.#directory }, 'the disk is full');
    return true;
  }

  async #attemptWithSpare(): Promise<Database> {
    try {
      return await this.#attempt();
    } catch (error) {
      if (!isFull(error) || !(await this.#useSpare())) throw error;
      return await this.#attempt();
    }
  }

  async #openOrMend(): Promise<Database> {
    let copy: string | undefined;
    if (!this.#openedOnce) {
      if (await isLockedByOther(this.#directory)) throw new Error('LEVEL_LOCKED');
      const damage = await this.#tables.begin();
      // Without room for a repair it is opened as it is: nothing is left that LevelDB must not read.
      if (damage !== undefined) copy = await this.#mend(new Error(damage)).catch(() => undefined);
    }
    try {
      return await this.#attemptWithSpare();
    } catch (error) {
      if (!isDamage(error)) throw error;
      copy = await this.#mend(error);
    }
    try {
      return await this.#attempt();
    } catch (error) {
      if (!isDamage(error)) throw error;
      this.#startedEmpty += 1;
      this.#log.error(
        { event: 'store-started-empty', directory: this.#directory, error: traceOf(error) },
        'could not be repaired',
      );
      // Too large or no space to copy: moving it costs nothing.
      if (copy === undefined) await rename(this.#directory, await this.#copyName());
      else await rm(this.#directory, { recursive: true, force: true });
      return await this.#attempt();
    }
  }

  /** Repairs a store whose damage only showed while reading. */
  async #mendNow(error: unknown): Promise<void> {
    const database = this.#database;
    if (database !== undefined) {
      this.#database = undefined;
      this.#opening ??= database
        .close()
        .catch(() => undefined)
        .then(() => this.#mend(error))
        // Not repaired for want of room: opened as it is, what can be read is read.
        .catch(() => undefined)
        .then(() => this.#openHandle());
    }
    await this.#opening?.catch(() => undefined);
  }

  /** @throws the error when there is no room to repair: it is tried again later. */
  async #mend(error: unknown): Promise<string | undefined> {
    const parent = dirname(this.#directory);
    if ((await freeBytes(parent)) < repairBytes) {
      await this.#useSpare();
      if ((await freeBytes(parent)) < repairBytes) {
        await this.#disarm();
        throw error;
      }
    }
    this.#repairs += 1;
    const copy = await this.#keepCopy();
    this.#log.error(
      { event: 'store-repair', directory: this.#directory, copy, error: traceOf(error) },
      'LevelDB refuses the store',
    );
    try {
      await this.#removeStrangers(copy);
      await this.#disarm();
      await repair(this.#directory);
      // Repair puts what it could not use here; it is in the copy as well.
      await rm(join(this.#directory, 'lost'), { recursive: true, force: true });
      if (await isSequenceWild(this.#directory)) await copyReadable(this.#directory);
    } catch (repairError) {
      this.#log.error(
        { event: 'store-repair-failed', directory: this.#directory, error: traceOf(repairError) },
        'not repaired',
      );
    }
    return copy;
  }

  async #disarm(): Promise<void> {
    for (const { name, damages } of await disarm(this.#directory)) {
      this.#damagedTableBlocks += damages.length;
      this.#log.error(
        { event: 'store-table-damaged', directory: this.#directory, name, damages: damages.slice(0, 20) },
        'left out',
      );
    }
  }

  /** Folders and links among LevelDB's files, which it neither reads nor gets out of its way. */
  async #removeStrangers(copy: string | undefined): Promise<void> {
    for (const name of await readdir(this.#directory)) {
      const path = join(this.#directory, name);
      if ((await lstat(path)).isFile()) continue;
      if (copy === undefined) await rm(path, { recursive: true, force: true });
      else await rename(path, join(copy, name));
    }
  }

  /** Where the next damaged directory goes; the last two are kept. */
  async #copyName(): Promise<string> {
    const name = (index: number) => `${this.#directory}.damaged-${index}`;
    let index = 1;
    while (index <= damagedCopiesMax && (await exists(name(index)))) index += 1;
    if (index <= damagedCopiesMax) return name(index);
    await rm(name(1), { recursive: true, force: true });
    for (let older = 2; older <= damagedCopiesMax; older += 1) await rename(name(older), name(older - 1));
    return name(damagedCopiesMax);
  }

  /** Keeps the damaged directory for people to look at. Best effort: the disk may be full. */
  async #keepCopy(): Promise<string | undefined> {
    let copy: string | undefined;
    try {
      const found = await stat(this.#directory);
      const bytes = found.isDirectory() ? await directoryBytes(this.#directory) : 0;
      if (bytes > this.#damagedCopyBytesMax) return undefined;
      if ((await freeBytes(dirname(this.#directory))) < bytes + repairBytes) return undefined;
      copy = await this.#copyName();
      if (!found.isDirectory()) {
        await rename(this.#directory, copy);
        return copy;
      }
      await mkdir(copy);
      for (const file of await readdir(this.#directory)) {
        if ((await stat(join(this.#directory, file))).isFile()) {
          await copyFile(join(this.#directory, file), join(copy, file));
        }
      }
      return copy;
    } catch (error) {
      this.#log.warn(
        { event: 'store-copy-failed', directory: this.#directory, error: traceOf(error) },
        'no copy',
      );
      // A part of it would only take the room the repair needs.
      if (copy !== undefined) await rm(copy, { recursive: true, force: true }).catch(() => undefined);
      return undefined;
    }
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}

/**
 * Whether another process has the store open. LevelDB gets its lock to see and nothing else, because there is no other
 * way to ask for such a lock, and what lies in the store may not have been looked at yet.
 */
async function isLockedByOther(directory: string): Promise<boolean> {
  const lock = join(directory, 'LOCK');
  if (!(await lstat(lock).catch(() => undefined))?.isFile()) return false;
  let probe: string | undefined;
  try {
    probe = await mkdtemp(join(tmpdir(), 'iotflow-lock-'));
    await symlink(resolve(lock), join(probe, 'LOCK'));
    const database = new Level(probe, { createIfMissing: false });
    // Never succeeds: there is no store in it.
    await database.open();
    await database.close();
  } catch (error) {
    return isLocked(error);
  } finally {
    if (probe !== undefined) await rm(probe, { recursive: true, force: true });
  }
  return false;
}

/**
 * Whether nobody has the store open. Opens it for a moment, and closes it: a LevelDB that stays open goes by the path of
 * its folder, whatever lies there by then. What it holds, if anything, does not matter; nothing is made.
 * @throws GatewayError `STORE_LOCKED` when another process has it open.
 */
export async function requireUnlocked(directory: string): Promise<void> {
  // LevelDB makes the folder for its lock even where it is to make nothing.
  if (!(await exists(directory))) return;
  const database = new Level(directory, { createIfMissing: false });
  try {
    await database.open();
  } catch (error) {
    if (!isLocked(error)) return;
    throw new GatewayError('STORE_LOCKED', `${directory} is in use by another process`, { cause: error });
  } finally {
    await database.close();
  }
}
