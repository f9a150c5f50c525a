// Disks of a few megabytes, to fill up and to break. Mounting needs root, and a container may forbid it all the same.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { onTestFinished } from 'vitest';
import { commandPath } from './debian.ts';

function run(command: string, args: readonly string[]): string {
  return execFileSync(commandPath(command) ?? command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

function mount(args: readonly string[]): { folder: string; unmount: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'iotflow-test-disk-'));
  const remove = () => rmSync(folder, { recursive: true, force: true });
  try {
    run('mount', [...args, folder]);
  } catch (error) {
    remove();
    throw error;
  }
  return {
    folder,
    unmount() {
      run('umount', ['-l', folder]);
      remove();
    },
  };
}

function tmpfs(options: string): string[] {
  return ['-t', 'tmpfs', '-o', options, 'tmpfs'];
}

/** Whether `smallDisk` works here. */
export function canMount(): boolean {
  try {
    mount(tmpfs('size=1m')).unmount();
    return true;
  } catch {
    return false;
  }
}

/** The folder of an empty disk of this size, gone after the test. */
export function smallDisk(megabytes: number, { inodes }: { readonly inodes?: number } = {}): string {
  const { folder, unmount } = mount(
    tmpfs(`size=${megabytes}m${inodes === undefined ? '' : `,nr_inodes=${inodes}`}`),
  );
  onTestFinished(unmount);
  return folder;
}

/** What the kernel does to a disk it no longer trusts. */
export function turnReadOnly(disk: string): void {
  run('mount', ['-o', 'remount,ro', disk]);
}

export function turnWritable(disk: string): void {
  run('mount', ['-o', 'remount,rw', disk]);
}

/** A real ext4, mounted as Raspberry Pi OS mounts the card. */
export interface Ext4Disk {
  readonly folder: string;
  /** The kernel finds an error, and from now on writes nothing: `errors=remount-ro`. */
  hurt(): void;
  /** What the next boot does: unmounts, checks, mounts. */
  repair(): void;
}

/** Whether `ext4Disk` works here. */
export function canHurtExt4(): boolean {
  return (
    existsSync('/sys/fs/ext4') && existsSync('/dev/loop-control') && commandPath('mkfs.ext4') !== undefined
  );
}

/** Gone after the test. */
export function ext4Disk(megabytes: number): Ext4Disk {
  const parent = mkdtempSync(join(tmpdir(), 'iotflow-test-card-'));
  onTestFinished(() => rmSync(parent, { recursive: true, force: true }));
  const image = join(parent, 'image');
  writeFileSync(image, '');
  truncateSync(image, megabytes * 1024 * 1024);
  run('mkfs.ext4', ['-q', '-F', image]);
  const { folder, unmount } = mount(['-o', 'loop,errors=remount-ro', image]);
  onTestFinished(unmount);
  const device = () => run('findmnt', ['-no', 'SOURCE', folder]).trim();
  return {
    folder,
    hurt: () => writeFileSync(`/sys/fs/ext4/${basename(device())}/trigger_fs_error`, 'by a test'),
    repair() {
      run('umount', [folder]);
      // 1: errors were corrected.
      run('sh', ['-c', `e2fsck -fy '${image}' || [ $? -eq 1 ]`]);
      run('mount', ['-o', 'loop,errors=remount-ro', image, folder]);
    },
  };
}

/** Whatever else lives on the disk fills it to the last byte; answers how to give it back. */
export function fillDisk(disk: string): () => void {
  const ballast = join(disk, 'ballast');
  let files = 0;
  try {
    for (; ; files += 1) writeFileSync(`${ballast}-${files}`, Buffer.alloc(256 * 1024, 1));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
  return () => {
    for (let at = 0; at <= files; at += 1) rmSync(`${ballast}-${at}`, { force: true });
  };
}

/** The same with empty files: no room for one more name. */
export function useUpInodes(disk: string): () => void {
  const names = join(disk, 'name');
  let files = 0;
  try {
    for (; ; files += 1) writeFileSync(`${names}-${files}`, '');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
  return () => {
    for (let at = 0; at <= files; at += 1) rmSync(`${names}-${at}`, { force: true });
  };
}
