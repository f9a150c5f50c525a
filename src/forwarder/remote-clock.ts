// Asks InfluxDB what time it is, by the `Date` header of any answer, while nobody on this machine knows. Points wait
// for their dates then, so nothing else is sent that would be answered. Says what it hears; whether that is believed is
// for the listener. Sends no token.

import { get as httpGet, type IncomingMessage } from 'node:http';
import { get as httpsGet } from 'node:https';
import type { Clock } from '../platform/clock.ts';

export interface RemoteClockOptions {
  readonly url: string;
  readonly clock: Clock;
  /** The time answered, cut to the second, and how long question and answer took. */
  readonly observe: (answer: { readonly dateMs: number; readonly roundTripMs: number }) => void;
  readonly intervalMs?: number;
}

const defaultIntervalMs = 10_000;
const timeoutMs = 5_000;

export class RemoteClock {
  readonly #options: RemoteClockOptions;
  #timer: NodeJS.Timeout | undefined;
  #isStopped = false;

  private constructor(options: RemoteClockOptions) {
    this.#options = options;
  }

  static start(options: RemoteClockOptions): RemoteClock {
    const remote = new RemoteClock(options);
    remote.#ask();
    return remote;
  }

  /** Idempotent. */
  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  #ask(): void {
    const { url, clock, observe, intervalMs = defaultIntervalMs } = this.#options;
    const target = new URL(`${url.replace(/\/+$/, '')}/ping`);
    const startMs = clock.monotonicMs();
    const hear = (response: IncomingMessage): void => {
      response.resume();
      const dateMs = Date.parse(response.headers.date ?? '');
      if (!this.#isStopped && Number.isFinite(dateMs)) {
        observe({ dateMs, roundTripMs: clock.monotonicMs() - startMs });
      }
    };
    const get = target.protocol === 'https:' ? httpsGet : httpGet;
    const request = get(target, { timeout: timeoutMs, agent: false }, hear);
    request.on('timeout', () => request.destroy());
    // Nobody answers, or not in a way that can be trusted; the forwarder says so.
    request.on('error', () => undefined);
    request.on('close', () => {
      if (this.#isStopped) return;
      this.#timer = setTimeout(() => this.#ask(), intervalMs);
      this.#timer.unref();
    });
  }
}
