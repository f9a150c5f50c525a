// Mounts the disk that fails on demand (faulty-mount.c) for a test. Compiled on the spot, once a process.

import { execFileSync, spawn } from 'node:child_process';
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { commandPath } from './debian.ts';
import { until } from './until.ts';

type Operation = 'open' | 'create' | 'mkdir' | 'unlink' | 'rename' | 'truncate' | 'write' | 'fsync' | 'read';

export interface FaultyMount {
  readonly folder: string;
  /** From now on these operations on paths that match (fnmatch, with a leading slash) fail. Adds to what fails. */
  fail(code: keyof typeof errnos, operations: readonly Operation[], pattern?: string): void;
  /** Everything works again. */
  mend(): void;
}

/** Linux. */
const errnos = { EIO: 5, EROFS: 30, EDQUOT: 122, ENOSPC: 28 } as const;

export const writing: readonly Operation[] = [
  'open',
  'create',
  'mkdir',
  'unlink',
  'rename',
  'truncate',
  'write',
  'fsync',
];

function run(command: string, ...args: string[]): string {
  return execFileSync(commandPath(command) ?? command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  });
}

function succeeds(command: string, ...args: string[]): boolean {
  try {
    run(command, ...args);
    return true;
  } catch {
    return false;
  }
}

/** What is missing for `faultyMount`; undefined when it works. */
export function faultyMountMissing(): string | undefined {
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

/** An empty disk, gone after the test. */
export async function faultyMount(): Promise<FaultyMount> {
  const parent = mkdtempSync(join(tmpdir(), 'iotflow-test-faulty-'));
  onTestFinished(() => rmSync(parent, { recursive: true, force: true }));
  const [backing, folder, control] = [
    join(parent, 'backing'),
    join(parent, 'mount'),
    join(parent, 'control'),
  ];
  mkdirSync(backing);
  mkdirSync(folder);
  writeFileSync(control, '');
  const program = join(parent, 'faulty-mount');
  const source = join(import.meta.dirname, 'faulty-mount.c');
  const flags = run('pkg-config', 'fuse3', '--cflags', '--libs');
  run('gcc', '-O1', '-Wall', source, '-o', program, ...flags.trim().split(/\s+/));
  const child = spawn(program, [backing, control, folder, '-f'], { stdio: 'ignore' });
  onTestFinished(() => {
    succeeds('fusermount3', '-u', '-z', folder);
    child.kill('SIGKILL');
  });
  await until(() => succeeds('mountpoint', '-q', folder));
  let lines = '';
  return {
    folder,
    fail(code, operations, pattern = '*') {
      lines += `${operations.join(',')} ${errnos[code]} ${pattern}\n`;
      writeFileSync(control, lines);
    },
    mend() {
      lines = '';
      writeFileSync(control, '');
    },
  };
}
