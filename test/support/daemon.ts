// A server of somebody else as a child process: started, waited for, killed.

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

export class Daemon {
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Resolves when `isReady` says so. @throws when the process ends before, with what it printed last. */
  static async start(
    command: string,
    args: readonly string[],
    isReady: () => Promise<boolean>,
  ): Promise<Daemon> {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let printed = '';
    const keep = (chunk: Buffer): void => {
      printed = (printed + chunk.toString()).slice(-4000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    const daemon = new Daemon(child);
    while (!(await isReady().catch(() => false))) {
      if (child.exitCode !== null) throw new Error(`${command} ended: ${printed}`);
      await sleep(50);
    }
    return daemon;
  }

  /** Resolves when the process is gone. */
  async stop(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const ended = once(this.#child, 'exit');
    this.#child.kill(signal);
    await ended;
  }
}
