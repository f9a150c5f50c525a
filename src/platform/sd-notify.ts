// Tells systemd READY, WATCHDOG, STATUS and STOPPING. The protocol is a datagram to an AF_UNIX socket, which
// Node's core cannot send, and every npm package that can compiles native code at install. So the datagrams go
// through `systemd-notify`. Spawning it from here would block the event loop for about 6 ms a time (measured
// with 150 MB resident), against an alarm budget of 20; one small shell, started once, forks it instead and
// reads its orders from a pipe. The unit needs `NotifyAccess=all`, because the sender is not the main process.
// Promises: never throws, never delays the gateway, does nothing outside systemd. Does not promise delivery.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Log } from './log.ts';

export interface SdNotifyOptions {
  /** `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `PATH` are read from it. */
  readonly environment: NodeJS.ProcessEnv;
  /** The watchdog is fed only while this is true: what hangs for good is restarted by systemd. */
  readonly isHealthy: () => boolean;
  readonly log: Log;
  /** How long `stopping` waits for its message to be delivered. */
  readonly deliveryMsMax?: number;
}

const defaults = { deliveryMsMax: 500 } as const;

// `read -r` and the quotes keep every byte of the line one argument. `--no-block` is not used: systemd can tell
// whom a message is from only while its sender still lives, and the tool waits for just that.
const courier =
  'command -v systemd-notify >/dev/null || exit 127; ' +
  'while IFS= read -r line; do systemd-notify "$line" || :; done';

export class SdNotify {
  readonly #options: SdNotifyOptions;
  readonly #socket: string | undefined;
  readonly #watchdogMs: number | undefined;
  #courier: ChildProcess | undefined;
  #watchdogTimer: NodeJS.Timeout | undefined;
  #failed = false;

  private constructor(options: SdNotifyOptions) {
    const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: watchdogUsec } = options.environment;
    const usec = Number(watchdogUsec);
    this.#options = options;
    this.#socket = socket === '' ? undefined : socket;
    this.#watchdogMs = Number.isFinite(usec) && usec > 0 ? usec / 1_000 : undefined;
  }

  static open(options: SdNotifyOptions): SdNotify {
    return new SdNotify(options);
  }

  /** Start-up is complete; from now on the watchdog is fed, twice per interval as sd_watchdog_enabled(3) asks. */
  ready(status: string): void {
    if (this.#socket === undefined) return;
    this.#send('READY=1');
    this.status(status);
    if (this.#watchdogMs === undefined || this.#watchdogTimer !== undefined) return;
    this.#send('WATCHDOG=1');
    this.#watchdogTimer = setInterval(() => {
      if (this.#options.isHealthy()) this.#send('WATCHDOG=1');
    }, this.#watchdogMs / 2);
    this.#watchdogTimer.unref();
  }

  /** One line for `systemctl status`. */
  status(text: string): void {
    this.#send(`STATUS=${text.replace(/[\r\n]+/g, ' ').slice(0, 200)}`);
  }

  /** The last word. Resolves when it is delivered or after `deliveryMsMax`, whichever is first. */
  async stopping(): Promise<void> {
    clearInterval(this.#watchdogTimer);
    this.#send('STOPPING=1');
    const child = this.#courier;
    this.#courier = undefined;
    if (child === undefined) return;
    const deliveryMsMax = this.#options.deliveryMsMax ?? defaults.deliveryMsMax;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, deliveryMsMax);
      child.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      child.stdin?.end();
    });
  }

  #send(line: string): void {
    if (this.#socket === undefined || this.#failed) return;
    this.#courier ??= this.#startCourier(this.#socket);
    const pipe = this.#courier.stdin;
    // A courier that stopped reading must not gather orders in memory; a missed watchdog is then the right end.
    if (pipe === null || pipe.writableLength > 4_096) return;
    pipe.write(`${line}\n`);
  }

  #startCourier(socket: string): ChildProcess {
    const child = spawn('/bin/sh', ['-c', courier], {
      env: { PATH: this.#options.environment.PATH ?? '/usr/bin:/bin', NOTIFY_SOCKET: socket },
      stdio: ['pipe', 'ignore', 'ignore'],
    });
    child.unref();
    child.once('error', (error) => {
      this.#failed = true;
      this.#options.log.error({ event: 'sd_notify_failed', err: error }, 'Cannot reach systemd');
    });
    child.once('exit', (status) => {
      // Killed from outside: the next order starts another.
      if (this.#courier === child) this.#courier = undefined;
      if (status !== 127) return;
      this.#failed = true;
      this.#options.log.error(
        { event: 'sd_notify_failed' },
        'Cannot reach systemd: the command systemd-notify is missing',
      );
    });
    // EPIPE of a courier that died; its exit is handled above.
    child.stdin?.on('error', () => undefined);
    return child;
  }
}
