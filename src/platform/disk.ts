// The seam to the file system for what the journal writes: durable writes and preallocated files.
// Promises: nothing here blocks the event loop, and a file `allocate` returned has every block on the disk.
// Errors are Node's own (`ENOSPC`, `EIO`); what they mean is for the caller to say.

import { constants } from 'node:fs';
import { type FileHandle, lstat, mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname } from 'node:path';
import { errorCode } from './errors.ts';

export interface DiskFile {
  readonly bytes: number;
  /**
   * Writes all of the buffer at the position; resolves when it is on the disk. One call to the kernel (O_DSYNC)
   * rather than a write and an fdatasync: the same bytes and flushes, but one wait for the thread pool and the event
   * loop instead of two, which under load is a third of a commit.
   */
  write(buffer: Uint8Array, position: number): Promise<void>;
  /** Fills the buffer from the position as far as the file goes; resolves to the bytes read. */
  read(buffer: Uint8Array, position: number): Promise<number>;
  close(): Promise<void>;
}

export interface Disk {
  /** Opens an existing file for reading and writing. */
  open(path: string): Promise<DiskFile>;
  /**
   * Makes a file of zeros that are really written and synced, in place of one that may be there: overwriting
   * it later commits no file-system journal, which is what wears a card out. All or nothing.
   */
  allocate(path: string, bytes: number): Promise<DiskFile>;
  /** Writes a whole small file. Not synced. */
  writeFile(path: string, content: Uint8Array): Promise<void>;
  /** Names in a directory, which is made if missing. */
  list(directory: string): Promise<string[]>;
  rename(from: string, to: string): Promise<void>;
  /** No error when there is none. */
  remove(path: string): Promise<void>;
}

const zerosBytes = 256 * 1024;

async function writeAll(handle: FileHandle, buffer: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < buffer.length) {
    const { bytesWritten } = await handle.write(buffer, done, buffer.length - done, position + done);
    done += bytesWritten;
  }
}

async function diskFile(path: string): Promise<DiskFile> {
  const handle = await open(path, constants.O_RDWR | constants.O_DSYNC);
  const bytes = (await handle.stat()).size;
  return {
    bytes,
    write: (buffer, position) => writeAll(handle, buffer, position),
    async read(buffer, position) {
      let done = 0;
      while (done < buffer.length) {
        const { bytesRead } = await handle.read(buffer, done, buffer.length - done, position + done);
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    },
    close: () => handle.close(),
  };
}

/** Makes durable which names a directory has. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** With the entries that lead to it: files synced below a folder that is lost are lost with it. */
export async function makeDirectory(directory: string, mode = 0o777): Promise<void> {
  const first = await mkdir(directory, { recursive: true, mode });
  if (first === undefined) return;
  for (let made = directory; made.length >= first.length; made = dirname(made)) {
    await syncDirectory(dirname(made));
  }
}

/**
 * Writes a small file in place of the one that is there: after a power cut there is the old one or the new one. A
 * folder of either name, which only damage can have left there, goes.
 */
export async function replaceFile(path: string, content: string | Uint8Array, mode: number): Promise<void> {
  const unfinished = `${path}.new`;
  await rm(unfinished, { recursive: true, force: true });
  const handle = await open(unfinished, 'w', mode);
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
  try {
    await rename(unfinished, path);
  } catch (error) {
    if (!['EISDIR', 'ENOTEMPTY', 'EEXIST'].includes(errorCode(error) ?? '')) throw error;
    await rm(path, { recursive: true, force: true });
    await rename(unfinished, path);
  }
  await syncDirectory(dirname(path));
}

/** Moves whatever lies where a folder belongs to `<path>.damaged`; answers whether there was something. */
export async function clearForDirectory(path: string): Promise<boolean> {
  // A link to a folder is as good as one.
  const isDirectory = await stat(path).then(
    (found) => found.isDirectory(),
    () => false,
  );
  const isThere = await lstat(path).then(
    () => true,
    () => false,
  );
  if (isDirectory || !isThere) return false;
  await moveAside(path);
  return true;
}

/** To `<path>.damaged`, in place of what was put there before. */
export async function moveAside(path: string): Promise<void> {
  await rm(`${path}.damaged`, { recursive: true, force: true });
  await rename(path, `${path}.damaged`);
}

/** The disk of the machine. */
export function systemDisk(): Disk {
  return {
    open: (path) => diskFile(path),
    async allocate(path, bytes) {
      // Under another name until it is whole: a power cut leaves no short segment behind.
      const unfinished = `${path}.new`;
      const handle = await open(unfinished, 'w+');
      try {
        const zeros = Buffer.alloc(Math.min(zerosBytes, bytes));
        for (let at = 0; at < bytes; at += zeros.length) {
          // In a loop of its own: a disk that is nearly full writes a part, and says so only the next time.
          await writeAll(handle, zeros.subarray(0, Math.min(zeros.length, bytes - at)), at);
        }
        await handle.sync();
        await handle.close();
        await rename(unfinished, path);
        await syncDirectory(dirname(path));
      } catch (error) {
        await handle.close().catch(() => undefined);
        await rm(unfinished, { force: true }).catch(() => undefined);
        throw error;
      }
      return await diskFile(path);
    },
    async writeFile(path, content) {
      await mkdir(dirname(path), { recursive: true });
      const handle = await open(path, 'w');
      try {
        await handle.writeFile(content);
      } finally {
        await handle.close();
      }
    },
    async list(directory) {
      await makeDirectory(directory);
      return readdir(directory);
    },
    rename: (from, to) => rename(from, to),
    async remove(path) {
      await rm(path, { recursive: true, force: true });
    },
  };
}
