// A session log in memory whose power can be cut: what was not awaited may be gone.

import type { LogWrite, SessionLog } from '../../src/sources/mqtt/session-log.ts';

export class MemorySessionLog implements SessionLog {
  readonly #durable: Map<string, Buffer>;
  readonly #visible: Map<string, Buffer>;
  /** Set to make writes wait, or fail. */
  beforeWrite: (() => Promise<void>) | undefined;
  writes = 0;
  get runningMs(): number {
    return performance.now();
  }

  constructor(durable: ReadonlyMap<string, Buffer> = new Map()) {
    this.#durable = new Map(durable);
    this.#visible = new Map(durable);
  }

  async *entries(prefix: string): AsyncIterable<readonly [string, Buffer]> {
    const keys = [...this.#visible.keys()].filter((key) => key.startsWith(prefix)).sort();
    for (const key of keys) yield [key, this.#visible.get(key)!];
  }

  async get(key: string): Promise<Buffer | undefined> {
    return this.#visible.get(key);
  }

  async write(writes: readonly LogWrite[]): Promise<void> {
    this.writes += 1;
    const copied = writes.map(({ key, value }) => ({ key, value: value && Buffer.from(value) }));
    apply(this.#visible, copied);
    await this.beforeWrite?.();
    // Later than any callback of the same turn, as a disk is.
    await new Promise((resolve) => setImmediate(resolve));
    apply(this.#durable, copied);
  }

  writeLazily(writes: readonly LogWrite[]): void {
    apply(this.#visible, writes);
  }

  keys(prefix: string): string[] {
    return [...this.#visible.keys()].filter((key) => key.startsWith(prefix));
  }

  /** What a plug pulled now would leave. */
  afterPowerCut(): MemorySessionLog {
    return new MemorySessionLog(this.#durable);
  }

  /** What a killed process leaves: the kernel has every write. */
  afterKill(): MemorySessionLog {
    return new MemorySessionLog(this.#visible);
  }

  put(key: string, value: Buffer): void {
    this.#durable.set(key, value);
    this.#visible.set(key, value);
  }
}

function apply(map: Map<string, Buffer>, writes: readonly LogWrite[]): void {
  for (const { key, value } of writes) {
    if (Buffer.byteLength(key) > 512) throw new Error(`key too long: ${key}`);
    if (value === undefined) map.delete(key);
    else map.set(key, value);
  }
}
