// A disk of a few megabytes, to fill it up. Mounting needs root, and a container may forbid it all the same.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { commandPath } from './debian.ts';

function run(command: string, args: readonly string[]): void {
  execFileSync(commandPath(command) ?? command, args, { stdio: 'ignore' });
}

function mount(megabytes: number): { folder: string; unmount: () => void } {
  const folder = mkdtempSync(join(tmpdir(), 'iotflow-test-disk-'));
  const unmount = () => rmSync(folder, { recursive: true, force: true });
  try {
    run('mount', ['-t', 'tmpfs', '-o', `size=${megabytes}m`, 'tmpfs', folder]);
  } catch (error) {
    unmount();
    throw error;
  }
  return {
    folder,
    unmount() {
      run('umount', ['-l', folder]);
      unmount();
    },
  };
}

/** Whether `smallDisk` works here. */
export function canMount(): boolean {
  try {
    mount(1).unmount();
    return true;
  } catch {
    return false;
  }
}

/** The folder of an empty disk of this size, gone after the test. */
export function smallDisk(megabytes: number): string {
  const { folder, unmount } = mount(megabytes);
  onTestFinished(unmount);
  return folder;
}

/** What the kernel does to a disk it no longer trusts. */
export function turnReadOnly(disk: string): void {
  run('mount', ['-o', 'remount,ro', disk]);
}
