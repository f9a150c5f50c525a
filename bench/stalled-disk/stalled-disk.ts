// Mounts the stalling disk for a bench. Compiled on the spot, because it is twenty lines of C for a kernel interface
// Node does not have; skipped by name where its parts are missing.

import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commandPath } from '../../test/support/debian.ts';
import {
  atExit,
  repositoryRoot,
  runCommand,
  startChild,
  succeeds,
  temporaryFolder,
  waitFor,
} from '../children.ts';

export interface StalledDisk {
  /** The mount: what lies here is on the disk that can stall. */
  readonly folder: string;
  /** From now on a flush hangs. */
  stall(): void;
  /** What hung goes through. */
  release(): void;
  unmount(): Promise<void>;
}

export function stalledDiskMissing(): string | undefined {
  for (const [command, debianPackage] of [
    ['gcc', 'gcc'],
    ['pkg-config', 'pkg-config'],
    ['fusermount3', 'fuse3'],
  ] as const) {
    if (commandPath(command) === undefined) return `Debian package ${debianPackage}`;
  }
  if (!succeeds('pkg-config', '--exists', 'fuse3')) return 'Debian package libfuse3-dev';
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK);
  } catch {
    return 'access to /dev/fuse';
  }
  return undefined;
}

export async function mountStalledDisk(): Promise<StalledDisk> {
  const parent = temporaryFolder('stall');
  const [backing, folder, control] = [
    join(parent, 'backing'),
    join(parent, 'mount'),
    join(parent, 'control'),
  ];
  mkdirSync(backing);
  mkdirSync(folder);
  writeFileSync(control, '');
  const program = join(parent, 'stall');
  const flags = (await runCommand('pkg-config', ['fuse3', '--cflags', '--libs'])).trim().split(/\s+/);
  const source = join(repositoryRoot(), 'bench', 'stalled-disk', 'stall.c');
  await runCommand('gcc', ['-O2', '-Wall', source, '-o', program, ...flags]);
  const child = startChild(program, [backing, control, folder, '-f']);
  // Killed with the bench, its mount would stay behind as a dead folder.
  const lazily = atExit(() => void succeeds('fusermount3', '-u', '-z', folder));
  await waitFor('the mount', () => isMounted(folder), { child, timeoutMs: 10_000 });
  return {
    folder,
    stall: () => writeFileSync(control, 'stalled'),
    release: () => writeFileSync(control, ''),
    unmount: async () => {
      writeFileSync(control, '');
      lazily();
      await child.stop();
    },
  };
}

function isMounted(folder: string): true | undefined {
  return succeeds('findmnt', folder) ? true : undefined;
}
