// A button of the kernel's input class (`dtoverlay=gpio-key`): the same on every Raspberry Pi, no native module. Promises:
// a long press is told while it is still held, once; a short one when it is let go; a device that is missing or goes
// away is looked for again and again. It looks ten times a second, because a read that waits for a key would keep one
// of libuv's four threads for ever. It takes any key of the device, so it is not for a keyboard.

import { closeSync, constants, openSync, readSync } from 'node:fs';
import type { Clock } from './clock.ts';
import { errorCode } from './errors.ts';
import type { Log } from './log.ts';

const defaults = { pollMs: 100, retryMs: 10_000 };

// struct input_event (linux/input.h): the time, two longs, then type, code and value.
const timeBytes = process.arch === 'arm' || process.arch === 'ia32' ? 8 : 16;
const eventBytes = timeBytes + 8;
const eventsPerRead = 64;
const typeSync = 0;
const typeKey = 1;
/** Of `typeSync`: events were lost. */
const codeDropped = 3;
const released = 0;
const pressed = 1;

export interface ButtonOptions {
  /** `/dev/input/by-path/platform-button@11-event`. */
  readonly path: string;
  readonly longPressMs: number;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly log: Log;
  readonly onShortPress: () => void;
  readonly onLongPress: () => void;
  readonly pollMs?: number;
  readonly retryMs?: number;
}

export interface ButtonStats {
  readonly isThere: boolean;
  readonly isHeld: boolean;
  readonly shortPresses: number;
  readonly longPresses: number;
}

export class Button {
  readonly #options: ButtonOptions;
  readonly #retryMs: number;
  readonly #events = Buffer.alloc(eventBytes * eventsPerRead);
  readonly #timer: NodeJS.Timeout;
  #fd: number | undefined;
  #nextTryMs = Number.NEGATIVE_INFINITY;
  #isMissed = false;
  #press: { readonly sinceMs: number; isTold: boolean } | undefined;
  #shortPresses = 0;
  #longPresses = 0;

  private constructor(options: ButtonOptions) {
    this.#options = options;
    this.#retryMs = options.retryMs ?? defaults.retryMs;
    this.#timer = setInterval(() => this.#look(), options.pollMs ?? defaults.pollMs).unref();
    this.#look();
  }

  static start(options: ButtonOptions): Button {
    return new Button(options);
  }

  stats(): ButtonStats {
    return {
      isThere: this.#fd !== undefined,
      isHeld: this.#press !== undefined,
      shortPresses: this.#shortPresses,
      longPresses: this.#longPresses,
    };
  }

  close(): void {
    clearInterval(this.#timer);
    this.#leave();
  }

  #look(): void {
    const { clock, longPressMs, onLongPress, log, path } = this.#options;
    const nowMs = clock.monotonicMs();
    try {
      this.#open(nowMs);
      this.#read(nowMs);
    } catch (error) {
      this.#leave();
      this.#nextTryMs = nowMs + this.#retryMs;
      if (!this.#isMissed) log.error({ event: 'button_unavailable', path, err: error }, 'No button');
      this.#isMissed = true;
    }
    if (this.#press === undefined || this.#press.isTold || nowMs - this.#press.sinceMs < longPressMs) return;
    this.#press.isTold = true;
    this.#longPresses += 1;
    onLongPress();
  }

  #open(nowMs: number): void {
    if (this.#fd !== undefined || nowMs < this.#nextTryMs) return;
    const { path, log } = this.#options;
    this.#fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    if (this.#isMissed) log.info({ event: 'button_back', path }, 'The button is back');
    this.#isMissed = false;
  }

  #read(nowMs: number): void {
    for (;;) {
      const bytes = this.#fd === undefined ? 0 : readNow(this.#fd, this.#events);
      for (let at = 0; at + eventBytes <= bytes; at += eventBytes) this.#take(at + timeBytes, nowMs);
      if (bytes < this.#events.length) return;
    }
  }

  #take(at: number, nowMs: number): void {
    const type = this.#events.readUInt16LE(at);
    const code = this.#events.readUInt16LE(at + 2);
    const value = this.#events.readInt32LE(at + 4);
    // Nobody knows whether it is still held.
    if (type === typeSync && code === codeDropped) this.#press = undefined;
    if (type !== typeKey) return;
    if (value === pressed) this.#press = { sinceMs: nowMs, isTold: false };
    if (value !== released || this.#press === undefined) return;
    const { isTold } = this.#press;
    this.#press = undefined;
    if (isTold) return;
    this.#shortPresses += 1;
    this.#options.onShortPress();
  }

  #leave(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
    this.#press = undefined;
  }
}

/** What is there to be read; 0 where nothing is. */
function readNow(fd: number, buffer: Buffer): number {
  try {
    return readSync(fd, buffer);
  } catch (error) {
    if (errorCode(error) === 'EAGAIN') return 0;
    throw error;
  }
}
