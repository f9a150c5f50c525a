// A journal in memory whose disk can be stalled or broken, for tests of what stands before it.

import type { AlarmTime } from '../../src/alarms/board.ts';
import type { StampTime } from '../../src/ingest/stamp.ts';
import type {
  Append,
  Appender,
  DeadLetter,
  DeadLetters,
  HotState,
  StateWrite,
} from '../../src/journal/contract.ts';
import { parseLine } from '../../src/model/line-protocol.ts';
import type { Message } from '../../src/model/message.ts';
import type { Clock } from '../../src/platform/clock.ts';

export interface FakeClock extends Clock {
  advance(ms: number): void;
  setWallMs(ms: number): void;
}

export function fakeClock(wallMs = Date.UTC(2026, 10, 21)): FakeClock {
  let wall = wallMs;
  let monotonic = 1_000;
  return {
    bootId: 'test-boot',
    wallMs: () => wall,
    monotonicMs: () => monotonic,
    advance(ms) {
      wall += ms;
      monotonic += ms;
    },
    setWallMs(ms) {
      wall = ms;
    },
  };
}

/** A time base on a clock that is right. */
export function knownTime(clock: Clock): StampTime & AlarmTime {
  return {
    isKnown: true,
    boot: 1,
    wallMs: () => clock.wallMs(),
    bootNs: () => BigInt(Math.round(clock.monotonicMs() * 1e6)),
    dateOf: () => undefined,
    stamp: () => ({ timeNs: BigInt(Math.round(clock.wallMs() * 1e6)) }),
  };
}

export class MemoryJournal implements Appender, DeadLetters, HotState {
  readonly state = new Map<string, Buffer>();
  readonly appends: Append[] = [];
  readonly letters: DeadLetter[] = [];
  readonly pendingBytes = 0;
  failWith: Error | undefined;
  failLettersWith: Error | undefined;
  #gate: Promise<void> | undefined;
  #openGate: (() => void) | undefined;

  /** From now on nothing becomes durable until `release`. */
  stall(): void {
    this.#gate = new Promise((resolve) => {
      this.#openGate = resolve;
    });
  }

  release(): void {
    this.#openGate?.();
    this.#gate = undefined;
  }

  async append(append: Append): Promise<void> {
    const failure = this.failWith;
    await this.#gate;
    if (failure !== undefined) throw failure;
    this.appends.push(append);
    this.#apply(append.state ?? []);
  }

  async add(letter: DeadLetter): Promise<void> {
    await this.#gate;
    if (this.failLettersWith !== undefined) throw this.failLettersWith;
    this.letters.push(letter);
  }

  /** What became of letters, by id. */
  readonly replaced = new Map<string, { append: Append; letters: readonly DeadLetter[] }>();

  async replace(id: string, append: Append, letters: readonly DeadLetter[]): Promise<boolean> {
    if (this.replaced.has(id)) return false;
    await this.append(append);
    this.replaced.set(id, { append, letters });
    return true;
  }

  async *entries(prefix: string): AsyncIterable<readonly [string, Buffer]> {
    for (const key of [...this.state.keys()].sort()) {
      const value = this.state.get(key);
      if (key.startsWith(prefix) && value !== undefined) yield [key, value];
    }
  }

  async get(key: string): Promise<Buffer | undefined> {
    return this.state.get(key);
  }

  async write(writes: readonly StateWrite[]): Promise<void> {
    const failure = this.failWith;
    await this.#gate;
    if (failure !== undefined) throw failure;
    this.#apply(writes);
  }

  writeLazily(writes: readonly StateWrite[]): void {
    this.#apply(writes);
  }

  lines(): string[] {
    return this.appends.flatMap(({ lines }) => lines.split('\n').slice(0, -1));
  }

  points() {
    return this.lines().map(parseLine);
  }

  #apply(writes: readonly StateWrite[]): void {
    for (const { key, value } of writes) {
      if (value === undefined) this.state.delete(key);
      else this.state.set(key, value);
    }
  }
}

export function message(payload: string | Buffer, overrides: Partial<Message> = {}): Message {
  return {
    transport: 'mqtt',
    deviceId: 'probe-1',
    channel: 'telemetry',
    name: 'leak',
    payload: Buffer.from(payload),
    receivedMonotonicMs: 0,
    ...overrides,
  };
}
