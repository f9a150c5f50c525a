// Processes and folders a bench makes, and the promise that none of them outlives it. Also what the kernel says
// about a process's memory. Not a supervisor: a child that ends early is an error of the bench.

import { type ChildProcess, type SpawnOptions, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statfsSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { commandPath } from '../test/support/debian.ts';

const children = new Set<ChildProcess>();
const cleanups = new Set<() => void>();

process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL');
  // In reverse: a disk is unmounted before the folder it was mounted in goes.
  for (const cleanup of [...cleanups].reverse()) {
    try {
      cleanup();
    } catch (error) {
      process.stderr.write(`left behind: ${String(error)}\n`);
    }
  }
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => process.exit(130));

/** Runs once when the bench ends, whatever ends it. Returns a way to run it now. */
export function atExit(cleanup: () => void): () => void {
  const once = (): void => {
    if (cleanups.delete(once)) cleanup();
  };
  cleanups.add(once);
  return once;
}

/** The repository, wherever the compiled bench lies in it. */
export function repositoryRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(folder, 'package.json'))) folder = dirname(folder);
  return folder;
}

/** On a real disk if the machine has one: `BENCH_DIR`, else the system's temporary folder. */
export function temporaryFolder(name: string): string {
  const parent = process.env.BENCH_DIR ?? tmpdir();
  mkdirSync(parent, { recursive: true });
  const folder = mkdtempSync(join(parent, `iotflow-bench-${name}-`));
  atExit(() => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }));
  return folder;
}

/** fsync costs nothing in memory: figures of durable brokers there would be a lie. */
export function isMemoryDisk(folder: string): boolean {
  const tmpfs = 0x01021994;
  return statfsSync(folder).type === tmpfs;
}

export interface Child {
  readonly pid: number;
  readonly process: ChildProcess;
  /** Resolves when it has ended, however it ended. */
  readonly ended: Promise<void>;
  /** What it last wrote to stderr and stdout, for the error message of whoever waited for it. */
  lastOutput(): string;
  /** SIGTERM, then SIGKILL after `graceMs`. */
  stop(graceMs?: number): Promise<void>;
}

export function startChild(command: string, args: readonly string[], options: SpawnOptions = {}): Child {
  const started = spawn(commandPath(command) ?? command, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  children.add(started);
  let output = '';
  const keep = (chunk: Buffer): void => {
    output = (output + chunk.toString()).slice(-4000);
  };
  started.stdout?.on('data', keep);
  started.stderr?.on('data', keep);
  const ended = new Promise<void>((resolve) => {
    started.on('exit', () => resolve());
    started.on('error', (error) => {
      output += error.message;
      resolve();
    });
  }).then(() => {
    children.delete(started);
  });
  return {
    pid: started.pid ?? 0,
    process: started,
    ended,
    lastOutput: () => output,
    stop: async (graceMs = 10_000) => {
      if (started.exitCode !== null || started.signalCode !== null) return;
      started.kill('SIGTERM');
      const grace = new AbortController();
      const timer = sleep(graceMs, undefined, { signal: grace.signal }).then(
        () => started.kill('SIGKILL'),
        () => false,
      );
      await ended;
      grace.abort();
      await timer;
    },
  };
}

/** Runs a command to its end and answers its stdout. Throws with its output when it fails or takes too long. */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: SpawnOptions & { timeoutMs?: number } = {},
): Promise<string> {
  const child = startChild(command, args, { timeout: options.timeoutMs ?? 60_000, ...options });
  let stdout = '';
  child.process.stdout?.on('data', (chunk: Buffer) => {
    stdout += chunk.toString();
  });
  await child.ended;
  if (child.process.exitCode !== 0) {
    throw new Error(`${command} ${args.join(' ')} failed (${child.process.exitCode}): ${child.lastOutput()}`);
  }
  return stdout;
}

/** Runs a short command and says whether it succeeded; for cleaning up, where nothing may be awaited. */
export function succeeds(command: string, ...args: readonly string[]): boolean {
  return spawnSync(commandPath(command) ?? command, args, { stdio: 'ignore' }).status === 0;
}

/** Polls until `probe` answers something; `child`, if given, must live on meanwhile. */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T | undefined> | T | undefined,
  options: { timeoutMs?: number; everyMs?: number; child?: Child } = {},
): Promise<T> {
  const deadline = performance.now() + (options.timeoutMs ?? 60_000);
  while (performance.now() < deadline) {
    const found = await probe();
    if (found !== undefined) return found;
    const child = options.child;
    if (child !== undefined && (child.process.exitCode !== null || child.process.signalCode !== null)) {
      throw new Error(`${what}: the process ended first: ${child.lastOutput()}`);
    }
    await sleep(options.everyMs ?? 50);
  }
  throw new Error(
    `${what}: not within ${options.timeoutMs ?? 60_000} ms. ${options.child?.lastOutput() ?? ''}`,
  );
}

export async function waitForPort(port: number, child: Child, timeoutMs = 60_000): Promise<void> {
  await waitFor(`port ${port}`, async () => ((await isListening(port)) ? true : undefined), {
    timeoutMs,
    child,
  });
}

function isListening(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host: '127.0.0.1', port });
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(false));
  });
}

export interface Memory {
  /** Anonymous memory: heap, stacks. What the process itself needs. */
  readonly anonymousMb: number;
  /** Pages of mapped files (the program, libraries, LevelDB tables): the kernel takes them back at will. */
  readonly fileMb: number;
  readonly totalMb: number;
}

/** Of one process, from /proc/{pid}/status, in MB of 2^20 bytes. */
export function memoryOf(pid: number): Memory {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8');
  const mb = (key: string): number =>
    Number(new RegExp(`^${key}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) / 1024;
  return { anonymousMb: mb('RssAnon'), fileMb: mb('RssFile'), totalMb: mb('VmRSS') };
}

/** Of a process and all its descendants (an Erlang node keeps helpers). */
export function memoryOfTree(pid: number): Memory {
  const sum = { ...memoryOf(pid) };
  for (const child of childrenOf(pid)) {
    const memory = memoryOfTree(child);
    sum.anonymousMb += memory.anonymousMb;
    sum.fileMb += memory.fileMb;
    sum.totalMb += memory.totalMb;
  }
  return sum;
}

function childrenOf(pid: number): number[] {
  try {
    const list = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8');
    return list.split(' ').filter(Boolean).map(Number);
  } catch {
    return [];
  }
}
