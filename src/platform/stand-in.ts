// What the gateway starts with when its disk cannot be written: a copy of its small files in memory, and a disk that
// can only be read. Promises: nothing on the disk is changed. Does not promise to keep anything: whoever uses it must
// refuse what has to be kept.

import { createHash } from 'node:crypto';
import { copyFile, mkdir, mkdtemp, open, readdir, rm, stat, statfs } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Disk } from './disk.ts';
import { errorCode, GatewayError } from './errors.ts';

/** Memory is what a small computer has least of. */
const copyBytesMax = 64 * 1024 * 1024;
/** What LevelDB needs to open, with some to spare. */
const freeBytesMin = 16 * 1024 * 1024;
const freeInodesMin = 64;

/** A new folder in memory, in place of the one a start before this one may have left when it was killed. */
async function makeFolder(directory: string): Promise<string> {
  const name = `iotflow-stand-in-${createHash('sha256').update(directory).digest('hex').slice(0, 16)}`;
  const folder = join('/dev/shm', name);
  try {
    await rm(folder, { recursive: true, force: true });
    // Fails where somebody else has one of this name.
    await mkdir(folder, { mode: 0o700 });
    return folder;
  } catch {
    return await mkdtemp(join(tmpdir(), `${name}-`));
  }
}

/**
 * Copies what can be read of a folder (not of folders in it) into a new one in memory, and answers that.
 * @throws GatewayError `DATA_UNWRITABLE` when there is nothing to copy, or too much.
 */
export async function copyToMemory(directory: string): Promise<{ folder: string; remove(): Promise<void> }> {
  const names = await readdir(directory).catch((): string[] => []);
  let bytes = 0;
  for (const name of names) bytes += (await stat(join(directory, name)).catch(() => undefined))?.size ?? 0;
  // Without CURRENT there is no LevelDB: nobody is known here yet.
  if (!names.includes('CURRENT') || bytes > copyBytesMax) {
    throw new GatewayError('DATA_UNWRITABLE', `${directory} holds nothing to start with`);
  }
  const folder = await makeFolder(directory);
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    const copy = join(folder, 'copy');
    await mkdir(copy);
    for (const name of names) {
      // What cannot be read is missing in the copy, and the store makes the best of it.
      await copyFile(join(directory, name), join(copy, name)).catch((error: unknown) => {
        if (errorCode(error) === 'ENOSPC') throw error;
      });
    }
    return { folder, remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

/** A disk that refuses every write. */
export function readOnlyDisk(): Disk {
  const refuse = () => Promise.reject(new GatewayError('DATA_UNWRITABLE', 'the disk cannot be written'));
  return {
    async open(path) {
      const { size } = await stat(path);
      return {
        bytes: size,
        write: refuse,
        async read(buffer, position) {
          const handle = await open(path, 'r');
          try {
            return (await handle.read(buffer, 0, buffer.length, position)).bytesRead;
          } finally {
            await handle.close();
          }
        },
        close: async () => undefined,
      };
    },
    allocate: refuse,
    writeFile: refuse,
    list: (directory) => readdir(directory).catch(() => []),
    rename: refuse,
    remove: async () => undefined,
  };
}

/** Whether files can be made and filled in a folder, now and for a while. */
export async function isWritable(directory: string): Promise<boolean> {
  const path = join(directory, 'is-writable.new');
  try {
    const { bavail, bsize, files, ffree } = await statfs(directory);
    if (bavail * bsize < freeBytesMin || (files > 0 && ffree < freeInodesMin)) return false;
    const handle = await open(path, 'w');
    try {
      await handle.writeFile(Buffer.alloc(4096, 1));
      await handle.sync();
    } finally {
      await handle.close();
      await rm(path, { force: true });
    }
    return true;
  } catch {
    return false;
  }
}
