import { readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import {
  findBlockDevice,
  readDeviceWrittenBytes,
  readLifeUsed,
  readOwnWrittenBytes,
} from '../../src/platform/block-device.ts';
import { tempFolder } from '../support/temp.ts';
import { writeTree } from '../support/tree.ts';

/** The number the kernel gives the folder's file system, as in /sys/dev/block. */
function numberOf(folder: string): string {
  const { dev } = statSync(folder);
  return `${(dev >>> 8) & 0xfff}:${(dev & 0xff) | ((dev >>> 12) & 0xfff00)}`;
}

const stat = '  4421  1203  381204  2210  88123  40211  2048  99  0  1 2 3 4 5 6 7 8\n';

test('the card under a partition is found, with its size and what was written to it', async () => {
  const folder = tempFolder();
  const card = 'devices/platform/soc/mmc_host/mmc0/mmc0:0001/block/mmcblk0';
  writeTree(folder, {
    [`sys/${card}/size`]: '62333952\n',
    [`sys/${card}/stat`]: stat,
    [`sys/${card}/mmcblk0p2/partition`]: '2\n',
    [`sys/${card}/mmcblk0p2/size`]: '61800000\n',
    [`sys/dev/block/${numberOf(folder)}`]: `-> ../../${card}/mmcblk0p2`,
    'proc/self/io': 'rchar: 5\nwrite_bytes: 4096\ncancelled_write_bytes: 0\n',
  });
  const device = await findBlockDevice(folder, join(folder, 'sys'));
  expect(device).toMatchObject({ name: 'mmcblk0', bytes: 62_333_952 * 512 });
  expect(await readDeviceWrittenBytes(device!)).toBe(2048 * 512);
  expect(await readOwnWrittenBytes(join(folder, 'proc'))).toBe(4096);
  expect(await readLifeUsed(device!)).toBeUndefined();
  writeTree(join(folder, 'sys', card), { 'device/life_time': '0x02 0x0b\n' });
  expect(await readLifeUsed(device!)).toBe(1);
  writeFileSync(join(folder, 'sys', card, 'device/life_time'), '0x03 0x00\n');
  expect(await readLifeUsed(device!)).toBeCloseTo(0.3);
});

test('below an encrypted volume the disk itself is found', async () => {
  const folder = tempFolder();
  writeTree(folder, {
    'sys/devices/pci/nvme0n1/size': '1000\n',
    'sys/devices/pci/nvme0n1/nvme0n1p3/partition': '3\n',
    'sys/devices/virtual/block/dm-0/slaves/nvme0n1p3': '-> ../../../../pci/nvme0n1/nvme0n1p3',
    [`sys/dev/block/${numberOf(folder)}`]: '-> ../../devices/virtual/block/dm-0',
  });
  expect(await findBlockDevice(folder, join(folder, 'sys'))).toMatchObject({ name: 'nvme0n1' });
});

test('a file system without a device of its own, or no file system at all, has none', async () => {
  const folder = tempFolder();
  expect(await findBlockDevice('/proc')).toBeUndefined();
  expect(await findBlockDevice(folder, join(folder, 'nothing'))).toBeUndefined();
  expect(await findBlockDevice(join(folder, 'nothing'))).toBeUndefined();
  expect(await readOwnWrittenBytes(folder)).toBeUndefined();
});

test('on this machine the kernel answers', async () => {
  const own = await readOwnWrittenBytes();
  expect(own).toBe(Number(/^write_bytes: (\d+)$/m.exec(readFileSync('/proc/self/io', 'utf8'))?.[1]));
  const device = await findBlockDevice(tempFolder());
  // In a container the folder may lie on an overlay.
  if (device !== undefined) {
    expect(device.bytes).toBeGreaterThan(0);
    expect(await readDeviceWrittenBytes(device)).toBeGreaterThanOrEqual(0);
  }
});
