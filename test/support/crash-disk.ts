// A disk in memory that keeps apart what a process reads (the page cache) and what a power cut leaves. A write
// lies in the cache until a sync; a cut leaves any of its 512-byte sectors, in any combination. A sync that
// fails leaves sectors that can be read and are never written, as Linux does.

import { basename, dirname, join } from 'node:path';
import type { Disk, DiskFile } from '../../src/platform/disk.ts';
import type { Random } from '../../src/simulator/random.ts';

const sectorBytes = 512;

interface Content {
  readonly cache: Buffer;
  readonly durable: Buffer;
  /** Numbers of sectors written since the last sync. */
  readonly unsynced: Set<number>;
}

function copySector(content: Content, sector: number, to: Buffer): void {
  const at = sector * sectorBytes;
  content.cache.copy(to, at, at, Math.min(at + sectorBytes, content.cache.length));
}

/** Chooses among unsynced sectors: none, all, a part in order, or any. */
function survivors(sectors: readonly number[], random: Random): number[] {
  const way = random();
  if (way < 0.15) return [];
  if (way < 0.3) return [...sectors];
  if (way < 0.6) {
    // Runs, as cards write: whole frames of a commit can be there and others missing.
    const from = Math.floor(random() * sectors.length);
    const to = Math.floor(random() * (sectors.length + 1));
    return from <= to ? sectors.slice(from, to) : [...sectors.slice(0, to), ...sectors.slice(from)];
  }
  const share = random();
  return sectors.filter(() => random() < share);
}

export interface CrashDiskOptions {
  readonly random: Random;
  /** The disk says it has synced and has not: a journal above it must be found to lose. */
  readonly isLying?: boolean;
}

export class CrashDisk implements Disk {
  /** How likely a write or a sync fails. */
  failureShare = 0;
  /** How likely a sync takes a while. */
  slowShare = 0;
  failures = 0;
  /** Called at every operation, before it has any effect and in the midst of it: places to cut. */
  onMoment: () => void = () => undefined;
  readonly #files = new Map<string, Content>();
  readonly #options: CrashDiskOptions;

  constructor(options: CrashDiskOptions) {
    this.#options = options;
  }

  /** The disk a power cut at this moment may leave. */
  afterPowerCut(random: Random): CrashDisk {
    const left = new CrashDisk({ ...this.#options, random });
    for (const [path, content] of this.#files) {
      const durable = Buffer.from(content.durable);
      const sectors = [...content.unsynced].sort((a, b) => a - b);
      for (const sector of survivors(sectors, random)) copySector(content, sector, durable);
      left.#files.set(path, { cache: Buffer.from(durable), durable, unsynced: new Set() });
    }
    return left;
  }

  /** The same disk for the next process when only the process ended: what was not synced can still be read. */
  afterKill(random: Random): CrashDisk {
    const left = new CrashDisk({ ...this.#options, random });
    for (const [path, { cache, durable, unsynced }] of this.#files) {
      const copy = { cache: Buffer.from(cache), durable: Buffer.from(durable), unsynced: new Set(unsynced) };
      left.#files.set(path, copy);
    }
    return left;
  }

  #fails(share = this.failureShare): boolean {
    const fails = this.#options.random() < share;
    if (fails) this.failures += 1;
    return fails;
  }

  #file(content: Content): DiskFile {
    const { random } = this.#options;
    /** The second half of a write: of its sectors alone, as O_DSYNC does. */
    const sync = async (sectors: readonly number[]) => {
      const fails = this.#fails();
      if (random() < this.slowShare) await pause(random() * 4);
      else await turn();
      this.onMoment();
      if (this.#options.isLying) return;
      for (const sector of fails ? survivors(sectors, random) : sectors) {
        copySector(content, sector, content.durable);
      }
      // Also after a failure: the kernel takes the pages for clean then, and never writes them.
      for (const sector of sectors) content.unsynced.delete(sector);
      if (fails) throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
      this.onMoment();
    };
    // After its process was killed nothing reaches the disk any more: a new CrashDisk has copies.
    return {
      bytes: content.cache.length,
      write: async (buffer, position) => {
        this.onMoment();
        const fails = this.#fails();
        const length = fails ? Math.floor(random() * buffer.length) : buffer.length;
        Buffer.from(buffer.buffer, buffer.byteOffset, length).copy(content.cache, position);
        const first = Math.floor(position / sectorBytes);
        const end = Math.ceil((position + length) / sectorBytes);
        for (let sector = first; sector < end; sector += 1) content.unsynced.add(sector);
        this.onMoment();
        await turn();
        this.onMoment();
        if (fails) throw Object.assign(new Error('EIO: injected'), { code: 'EIO' });
        await sync(Array.from({ length: end - first }, (_, index) => first + index));
      },
      read: async (buffer, position) => {
        await turn();
        return content.cache.copy(buffer, 0, position);
      },
      close: async () => undefined,
    };
  }

  async open(path: string): Promise<DiskFile> {
    const content = this.#files.get(nameOf(path));
    if (content === undefined) throw Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' });
    return this.#file(content);
  }

  async allocate(path: string, bytes: number): Promise<DiskFile> {
    this.onMoment();
    await turn();
    const content = { cache: Buffer.alloc(bytes), durable: Buffer.alloc(bytes), unsynced: new Set<number>() };
    this.#files.set(nameOf(path), content);
    this.onMoment();
    return this.#file(content);
  }

  async writeFile(path: string, bytes: Uint8Array): Promise<void> {
    this.#files.set(nameOf(path), {
      cache: Buffer.from(bytes),
      durable: Buffer.from(bytes),
      unsynced: new Set(),
    });
  }

  async list(directory: string): Promise<string[]> {
    const names = [...this.#files.keys()];
    return names.filter((name) => dirname(name) === basename(directory)).map((name) => basename(name));
  }

  async rename(from: string, to: string): Promise<void> {
    const content = this.#files.get(nameOf(from));
    if (content === undefined) throw Object.assign(new Error(`ENOENT: ${from}`), { code: 'ENOENT' });
    this.#files.delete(nameOf(from));
    this.#files.set(nameOf(to), content);
  }

  async remove(path: string): Promise<void> {
    this.#files.delete(nameOf(path));
  }
}

/** Disks are opened again in other folders: a file is known by the folder right above it. */
function nameOf(path: string): string {
  return join(basename(dirname(path)), basename(path));
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
