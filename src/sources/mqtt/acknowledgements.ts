// PUBACKs on their way out: collected while one commit's messages are answered and written at the end of the turn, so
// that a commit costs each publisher's socket one write. The order of `add` is the order on the wire; whoever writes
// to the connection himself flushes first.

import type { Duplex } from 'node:stream';

const puback = 0x40;
const pubackBytes = 4;
/** Sixteen of them; a commit that holds more of one publisher makes room. */
const firstBytes = 64;

export class Acknowledgements {
  readonly #stream: Duplex;
  #buffer: Buffer = Buffer.allocUnsafe(firstBytes);
  #bytes = 0;

  constructor(stream: Duplex) {
    this.#stream = stream;
  }

  add(messageId: number): void {
    if (this.#bytes === 0) process.nextTick(() => this.flush());
    if (this.#bytes + pubackBytes > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(this.#buffer.length * 2);
      this.#buffer.copy(larger, 0, 0, this.#bytes);
      this.#buffer = larger;
    }
    this.#buffer[this.#bytes] = puback;
    this.#buffer[this.#bytes + 1] = 2;
    this.#buffer.writeUInt16BE(messageId, this.#bytes + 2);
    this.#bytes += pubackBytes;
  }

  flush(): void {
    if (this.#bytes === 0) return;
    const bytes = this.#buffer.subarray(0, this.#bytes);
    // The stream keeps the old one until it is sent.
    this.#buffer = Buffer.allocUnsafe(firstBytes);
    this.#bytes = 0;
    if (this.#stream.writable) this.#stream.write(bytes);
  }
}
