// What goes out on one connection, bounded. A reader that keeps up is waited for, for a moment and not before a lot
// is unsent, so that a burst reaches it whole. One that does not empty its socket in that moment counts as stuck:
// nobody waits for it until it has caught up, and beyond the bound QoS 0 is dropped and QoS 1 and 2 end the
// connection (a session keeps its queue).

import type { Duplex } from 'node:stream';

/** Longer than any reader on the same network needs for half a megabyte. */
const patienceMs = 250;

export class Outflow {
  readonly #connection: Duplex;
  readonly #boundBytes: number;
  #waiting: (() => void)[] = [];
  #timer: NodeJS.Timeout | undefined;
  #stuck = false;
  #overflowing = false;

  constructor(connection: Duplex, boundBytes: number) {
    this.#connection = connection;
    this.#boundBytes = boundBytes;
  }

  /** Starts to listen; call once. */
  watch(): void {
    const settle = () => {
      this.#stuck = false;
      this.#release();
    };
    this.#connection.on('drain', settle);
    this.#connection.on('close', settle);
  }

  /** No more fits: the bound is reached. */
  get isFull(): boolean {
    return this.#connection.writableLength > this.#boundBytes;
  }

  /** So much is unsent that it can only be answers to a client that sends and never reads. */
  get isOverrun(): boolean {
    return this.#connection.writableLength > this.#boundBytes * 1.25;
  }

  /** Its connection is being ended for reading too slowly. */
  get isOverflowing(): boolean {
    return this.#overflowing;
  }

  overflow(): void {
    this.#overflowing = true;
    // Not within the delivery: the emitter is still walking through its subscribers.
    setImmediate(() => this.#connection.destroy());
  }

  waitForDrain(done: () => void): void {
    if (this.#stuck || this.#connection.writableLength < this.#boundBytes / 2 || this.#connection.destroyed) {
      setImmediate(done);
      return;
    }
    this.#waiting.push(done);
    this.#timer ??= setTimeout(() => {
      this.#stuck = true;
      this.#release();
    }, patienceMs).unref();
  }

  #release(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) setImmediate(done);
  }
}
