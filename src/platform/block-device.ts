// What the kernel says about the block device under a folder: its size, the bytes written to it since boot, and how
// worn it says it is. Promises plain reads of /sys and /proc that never throw; what is not known (tmpfs, an overlay,
// a network disk, another system than Linux) is undefined. Counts the whole device, whoever writes: that is what
// wears it out.

import { readdir, readFile, realpath, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';

export interface BlockDevice {
  /** As in /sys/block: `mmcblk0`, `sda`, `nvme0n1`. */
  readonly name: string;
  /** Its folder below /sys. */
  readonly directory: string;
  readonly bytes: number;
}

// Sectors of 512 bytes, whatever the device has (Documentation/block/stat.rst).
const sectorBytes = 512;

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, 'utf8');
  } catch {
    return undefined;
  }
}

/** A partition's disk, and the one disk below an encrypted or logical volume. */
async function wholeDisk(directory: string): Promise<string> {
  if ((await readText(join(directory, 'partition'))) !== undefined) return dirname(directory);
  const below = await readdir(join(directory, 'slaves')).catch(() => []);
  const [only] = below;
  if (only === undefined || below.length > 1) return directory;
  return await wholeDisk(await realpath(join(directory, 'slaves', only)));
}

/** The device the folder's file system lies on. */
export async function findBlockDevice(
  folder: string,
  sysDirectory = '/sys',
): Promise<BlockDevice | undefined> {
  try {
    const { dev } = await stat(folder);
    // gnu_dev_major and gnu_dev_minor of glibc, for the 32-bit numbers Linux uses.
    const major = (dev >>> 8) & 0xfff;
    const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
    const directory = await wholeDisk(
      await realpath(join(sysDirectory, 'dev', 'block', `${major}:${minor}`)),
    );
    const sectors = Number(await readText(join(directory, 'size')));
    if (!Number.isFinite(sectors)) return undefined;
    return { name: basename(directory), directory, bytes: sectors * sectorBytes };
  } catch {
    return undefined;
  }
}

/** Bytes written to the device since boot. */
export async function readDeviceWrittenBytes(device: BlockDevice): Promise<number | undefined> {
  const columns = (await readText(join(device.directory, 'stat')))?.trim().split(/\s+/);
  const sectors = Number(columns?.[6]);
  return Number.isFinite(sectors) ? sectors * sectorBytes : undefined;
}

/**
 * The part of its life that eMMC says is used, 0 to 1, the worse of its two kinds of memory, in steps of a tenth.
 * SD cards, SATA and most NVMe disks do not tell it there.
 */
export async function readLifeUsed(device: BlockDevice): Promise<number | undefined> {
  // JEDEC eMMC 5.0, DEVICE_LIFE_TIME_EST: 0x01 is 0-10 % used, 0x0a 90-100 %, 0x0b exceeded, 0 not defined.
  const text = await readText(join(device.directory, 'device', 'life_time'));
  const steps = (text ?? '').trim().split(/\s+/).map(Number);
  const worst = Math.max(...steps.filter((step) => step >= 1 && step <= 11));
  return Number.isFinite(worst) ? Math.min(1, worst / 10) : undefined;
}

/** Bytes this process caused to be sent to any block device, since it started. */
export async function readOwnWrittenBytes(procDirectory = '/proc'): Promise<number | undefined> {
  const match = /^write_bytes: (\d+)$/m.exec((await readText(join(procDirectory, 'self', 'io'))) ?? '');
  return match === null ? undefined : Number(match[1]);
}
