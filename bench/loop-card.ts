// A card of its own for a bench: a fresh ext4 on a loop device, so that every byte the kernel writes to it can be
// counted. Needs root.

import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { commandPath } from '../test/support/debian.ts';
import { atExit, runCommand, succeeds } from './children.ts';

export interface LoopCard {
  readonly mount: string;
  /** What was written to it so far, by the block layer's own count. */
  written(): { readonly bytes: number; readonly writes: number };
  unmount(): void;
}

/** Why there can be none here; undefined when there can. */
export function loopCardMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'root, to mount an image';
  for (const [command, debianPackage] of [
    ['losetup', 'mount'],
    ['mkfs.ext4', 'e2fsprogs'],
  ] as const) {
    if (commandPath(command) === undefined) return `Debian package ${debianPackage}`;
  }
  return succeeds('losetup', '--find') ? undefined : 'a free loop device';
}

export async function mountLoopCard(folder: string, bytes: number): Promise<LoopCard> {
  const image = join(folder, 'card.img');
  const file = openSync(image, 'w');
  ftruncateSync(file, bytes);
  closeSync(file);
  // Without lazy initialisation: else the kernel writes inode tables in the background and we would count them.
  await runCommand('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image]);
  const device = (await runCommand('losetup', ['--find', '--show', image])).trim();
  const detach = atExit(() => void succeeds('losetup', '--detach', device));
  const mount = join(folder, 'card');
  mkdirSync(mount);
  await runCommand('mount', ['-o', 'noatime', device, mount]);
  // Lazily: a process that was just killed may still hold a file on it.
  const umount = atExit(() => void succeeds('umount', '--lazy', mount));
  return {
    mount,
    written() {
      const fields = readFileSync(`/sys/block/${basename(device)}/stat`, 'utf8')
        .trim()
        .split(/\s+/)
        .map(Number);
      // Sectors are 512 bytes whatever the device.
      return { writes: fields[4] ?? 0, bytes: (fields[6] ?? 0) * 512 };
    },
    unmount() {
      umount();
      detach();
    },
  };
}
