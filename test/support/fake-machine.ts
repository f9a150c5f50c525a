// A machine whose clock can be wrong: it boots, sleeps, loses power, and its wall clock is set. What it wrote stays.

import { createLog } from '../../src/platform/log.ts';
import type { BootKeeper, ClockVerdict, TimeBaseOptions } from '../../src/platform/time-base.ts';
import { TimeBase } from '../../src/platform/time-base.ts';

class Keeper implements BootKeeper {
  readonly stored = new Map<string, Buffer>();
  readonly lazy = new Map<string, Buffer | undefined>();
  isFailing = false;

  async *entries(prefix: string) {
    for (const key of [...this.stored.keys()].sort()) {
      const value = this.stored.get(key);
      if (key.startsWith(prefix) && value !== undefined) yield [key, value] as const;
    }
  }

  async write(writes: Parameters<BootKeeper['write']>[0]): Promise<void> {
    if (this.isFailing) throw new Error('no room');
    this.flush();
    for (const { key, value } of writes) this.#put(key, value);
  }

  writeLazily(writes: Parameters<BootKeeper['write']>[0]): void {
    for (const { key, value } of writes) this.lazy.set(key, value);
  }

  /** As with the next commit. */
  flush(): void {
    for (const [key, value] of this.lazy) this.#put(key, value);
    this.lazy.clear();
  }

  #put(key: string, value: Buffer | undefined): void {
    if (value === undefined) this.stored.delete(key);
    else this.stored.set(key, value);
  }
}

export class FakeMachine {
  readonly keeper = new Keeper();
  verdict: ClockVerdict = { kind: 'waiting' };
  /** What time it really is. */
  trueMs: number;
  wallMs: number;
  bootNs = 0n;
  /** Of the process; stands still while the machine sleeps. */
  monotonicMs = 0;
  #boots = 0;

  constructor(trueMs = Date.UTC(2026, 10, 21)) {
    this.trueMs = trueMs;
    this.wallMs = trueMs;
    this.boot(0);
  }

  /** @param aheadMs How far the wall clock is ahead of the truth. */
  boot(aheadMs: number, offMs = 0): void {
    this.#boots += 1;
    this.trueMs += offMs;
    this.wallMs = this.trueMs + aheadMs;
    this.bootNs = 0n;
    this.keeper.lazy.clear();
  }

  pass(ms: number): void {
    this.monotonicMs += ms;
    this.sleep(ms);
  }

  sleep(ms: number): void {
    this.trueMs += ms;
    this.wallMs += ms;
    this.bootNs += BigInt(Math.round(ms * 1e6));
  }

  async open(options: Partial<TimeBaseOptions> = {}): Promise<TimeBase> {
    const time = await TimeBase.open({
      keeper: this.keeper,
      clock: {
        wallMs: () => this.wallMs,
        monotonicMs: () => this.monotonicMs,
        bootId: `boot-${this.#boots}`,
      },
      bootNs: () => this.bootNs,
      trust: 'auto',
      probe: async () => this.verdict,
      log: createLog('silent'),
      ...options,
    });
    return time;
  }
}
