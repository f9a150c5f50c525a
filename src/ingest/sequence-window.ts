// Which sequence numbers of one boot of one device were seen: the highest and a sliding window of bits below it,
// so that a message out of order is told from one sent again. Pure data. What has fallen below the window counts
// as new: storing a point twice is harmless, dropping one is not.

/** How far out of order a message may come and still be recognised. */
export const windowSize = 1_024;

export class SequenceWindow {
  #highest = -1;
  /** Below it nothing was ever seen. */
  #lowest = Number.POSITIVE_INFINITY;
  /** From here to the highest all were seen: encoding an orderly device need not look at a thousand bits. */
  #solidFrom = 0;
  readonly #bits = new Uint32Array(windowSize / 32);

  has(seq: number): boolean {
    if (seq > this.#highest || seq <= this.#highest - windowSize) return false;
    return this.#bit(seq);
  }

  add(seq: number): void {
    if (seq > this.#highest) {
      const steps = Math.min(windowSize, seq - this.#highest);
      if (steps === windowSize) this.#bits.fill(0);
      else for (let step = 1; step < steps; step += 1) this.#clear(this.#highest + step);
      if (seq !== this.#highest + 1) this.#solidFrom = seq;
      this.#highest = seq;
    } else if (seq <= this.#highest - windowSize) {
      return;
    }
    if (seq < this.#lowest) this.#lowest = seq;
    const slot = seq % windowSize;
    this.#bits[slot >>> 5] = (this.#bits[slot >>> 5] ?? 0) | (1 << (slot & 31));
    if (seq !== this.#solidFrom - 1) return;
    const floor = this.#floor();
    do this.#solidFrom -= 1;
    while (this.#solidFrom > floor && this.#bit(this.#solidFrom - 1));
  }

  remove(seq: number): void {
    if (seq > this.#highest || seq <= this.#highest - windowSize) return;
    this.#clear(seq);
    if (seq >= this.#solidFrom) this.#solidFrom = seq + 1;
  }

  /**
   * The highest number, then the lengths of runs downwards from it, seen and missing in turn: a device that
   * loses nothing needs a few bytes, not 128, in every commit.
   */
  encode(): Buffer {
    if (this.#highest < 0) return Buffer.from('-1');
    const floor = this.#floor();
    const runs: number[] = [];
    let isSeen = true;
    let seq = Math.max(this.#solidFrom, floor) - 1;
    let length = this.#highest - seq;
    for (; seq >= floor; seq -= 1) {
      if (this.#bit(seq) === isSeen) {
        length += 1;
        continue;
      }
      runs.push(length);
      isSeen = !isSeen;
      length = 1;
    }
    if (isSeen) runs.push(length);
    return Buffer.from([this.#highest, ...runs].join(' '));
  }

  /** Undefined when the bytes are no window. */
  static decode(bytes: Buffer): SequenceWindow | undefined {
    const numbers = bytes.toString('latin1').split(' ').map(Number);
    const [highest = Number.NaN, ...runs] = numbers;
    if (!Number.isSafeInteger(highest) || highest < -1 || runs.length > windowSize) return undefined;
    const window = new SequenceWindow();
    window.#highest = highest;
    window.#solidFrom = highest + 1;
    let seq = highest;
    let isSeen = true;
    for (const length of runs) {
      if (!Number.isSafeInteger(length) || length < 0 || length > windowSize) return undefined;
      const end = seq - length;
      if (end < -1 || end < highest - windowSize) return undefined;
      if (isSeen) for (let at = seq; at > end; at -= 1) window.add(at);
      seq = end;
      isSeen = !isSeen;
    }
    return window;
  }

  /** The lowest number the window can tell about. */
  #floor(): number {
    // Read back with everything taken out again, a window has a highest number and nothing that was seen.
    const lowest = Math.min(this.#lowest, this.#highest + 1);
    return Math.max(lowest, this.#highest - windowSize + 1);
  }

  #bit(seq: number): boolean {
    if (seq < 0) return false;
    const slot = seq % windowSize;
    return ((this.#bits[slot >>> 5] ?? 0) & (1 << (slot & 31))) !== 0;
  }

  #clear(seq: number): void {
    if (seq < 0) return;
    const slot = seq % windowSize;
    this.#bits[slot >>> 5] = (this.#bits[slot >>> 5] ?? 0) & ~(1 << (slot & 31));
  }
}
