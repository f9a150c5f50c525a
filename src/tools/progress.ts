// Progress of long work on standard error: a line every two seconds, none for what is quicker.

import type { Call } from './command.ts';

const intervalMs = 2000;

export class Progress {
  readonly #call: Call;
  readonly #done: string;
  #bytes = 0;
  #nextMs = performance.now() + intervalMs;

  /** `done` is the word behind the megabytes: `read`. */
  constructor(call: Call, done: string) {
    this.#call = call;
    this.#done = done;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    if (performance.now() < this.#nextMs) return;
    this.#nextMs = performance.now() + intervalMs;
    this.#call.stderr.write(`${(this.#bytes / 1_000_000).toFixed(0)} MB ${this.#done}\n`);
  }
}
