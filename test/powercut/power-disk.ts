// Mounts the disk that can lose its power (power-disk.c), compiled on the spot. Cuts are folders: what would be
// found on the disk after the power is back. They lie in memory where there is room, because there are many.

import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { atExit, repositoryRoot, runCommand, startChild, succeeds, waitFor } from '../../bench/children.ts';

/**
 * How names reach the disk. `ordered`: in one order, which fsync of any new file drives on, as on ext4; `own`: fsync
 * of a file keeps its own name alone, as on F2FS; `posix`: in no order at all.
 */
export type Names = 'ordered' | 'own' | 'posix';
/** `ordered`: no holes in what was appended to a file (ext4); `any`: zeros may stand for what is missing. */
export type Sectors = 'ordered' | 'any';

export interface CutOptions {
  readonly seed: number;
  readonly sectors: Sectors;
  /** Made by the cut; must not exist. */
  readonly to: string;
}

/** What a cut waits for. */
export interface Moment {
  /**
   * `first`: a write at position 0 of a file, `again`: such a write over something that is no zeros; with `-fsync`
   * the sync that follows it. `any`: whatever changes or syncs something.
   */
  readonly event:
    | 'write'
    | 'first'
    | 'again'
    | 'fsync'
    | 'first-fsync'
    | 'again-fsync'
    | 'create'
    | 'mkdir'
    | 'rename'
    | 'unlink'
    | 'fsyncdir'
    | 'any';
  readonly when: 'before' | 'after';
  /** The how-manieth from now on. */
  readonly count: number;
  /** Of the path below the mount; `*` also stands for slashes. */
  readonly glob: string;
}

export interface Cut {
  readonly folder: string;
  /** CLOCK_MONOTONIC, as `process.hrtime` has it: what was acknowledged before must be in the folder. */
  readonly ns: number;
  readonly event: string;
  readonly path: string;
}

export interface PowerDisk {
  /** The mount. */
  readonly folder: string;
  cut(options: CutOptions): Promise<Cut>;
  /** Resolves when the moment has come; to undefined when it was disarmed before. */
  cutAt(
    moment: Moment,
    options: CutOptions,
  ): { readonly cut: Promise<Cut | undefined>; disarm(): Promise<void> };
  unmount(): Promise<void>;
}

const roomBytes = 4 * 2 ** 30;

/** A folder for disks and cuts, gone at the end. */
export function powerCutFolder(): string {
  const memory = '/dev/shm';
  let parent = tmpdir();
  try {
    const { bavail, bsize } = statfsSync(memory);
    if (bavail * bsize > roomBytes) parent = memory;
  } catch {
    // No such file system.
  }
  // Short: the control socket of a gateway below it has a path of at most 107 bytes.
  const folder = mkdtempSync(join(process.env.IOTFLOW_POWERCUT_DIR ?? parent, 'powercut-'));
  atExit(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}

/** Compiles the file system; answers the path of the program. */
export async function buildPowerDisk(folder: string): Promise<string> {
  const program = join(folder, 'power-disk');
  const flags = (await runCommand('pkg-config', ['fuse3', '--cflags', '--libs'])).trim().split(/\s+/);
  const source = join(repositoryRoot(), 'test', 'powercut', 'power-disk.c');
  await runCommand('gcc', ['-O2', '-Wall', source, '-o', program, ...flags]);
  return program;
}

/** An empty disk, or one with everything below `from` on it. */
export async function mountPowerDisk(options: {
  readonly program: string;
  /** For its socket and its mount point; made, and gone after unmounting. */
  readonly folder: string;
  readonly names: Names;
  readonly from?: string;
}): Promise<PowerDisk> {
  const folder = join(options.folder, 'm');
  const socketPath = join(options.folder, 'c');
  mkdirSync(folder, { recursive: true });
  const child = startChild(options.program, [
    options.names,
    socketPath,
    options.from ?? '-',
    folder,
    '-f',
    '-s',
  ]);
  const unmount = atExit(() => void succeeds('fusermount3', '-u', '-z', folder));
  await waitFor('the mount', () => (succeeds('mountpoint', '-q', folder) ? true : undefined), {
    child,
    everyMs: 10,
    timeoutMs: 20_000,
  });

  const send = (line: string): { readonly answer: Promise<Cut | undefined>; readonly socket: Socket } => {
    const socket = connect(socketPath);
    const answer = new Promise<Cut | undefined>((resolve, reject) => {
      let text = '';
      socket.on('data', (chunk: Buffer) => {
        text += chunk.toString();
      });
      socket.on('error', reject);
      socket.on('close', () => {
        const [ok, ns, event = '', path = ''] = text.trim().split(' ');
        const to = line.split(' ').find((word) => word.startsWith('/')) ?? '';
        resolve(ok === 'ok' ? { folder: to, ns: Number(ns), event, path } : undefined);
      });
    });
    socket.write(`${line}\n`);
    return { answer, socket };
  };

  return {
    folder,
    async cut({ seed, sectors, to }) {
      const cut = await send(`cut ${seed} ${sectors} ${to}`).answer;
      if (cut === undefined) throw new Error(`the disk did not take the cut: ${child.lastOutput()}`);
      return cut;
    },
    cutAt({ event, when, count, glob }, { seed, sectors, to }) {
      const { answer } = send(`arm ${event} ${when} ${count} ${seed} ${sectors} ${to} ${glob}`);
      return {
        cut: answer,
        disarm: async () => {
          await send(`disarm ${to}`).answer;
          await answer;
        },
      };
    },
    async unmount() {
      unmount();
      await child.stop();
      rmSync(options.folder, { recursive: true, force: true });
    },
  };
}
