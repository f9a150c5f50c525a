// Keeps the board's facts and records its changes behind the sound's back. Promises: the newest value of every
// key reaches the disk as long as the process lives and the disk ever works again; changes are recorded in
// order. Bounded: one value per key, and the oldest unrecorded changes go first, counted.

import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';

interface StateWrite {
  readonly key: string;
  readonly value: Buffer | undefined;
}

/** The journal's hot state, as far as alarms need it. */
export interface StateKeeper {
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]>;
  write(writes: readonly StateWrite[]): Promise<void>;
}

export interface PersistenceOptions<Change> {
  readonly keeper: StateKeeper;
  readonly record: (change: Change) => Promise<void>;
  readonly log: Log;
  readonly retryMs: number;
  readonly retryMsMax: number;
}

// A change is some 300 bytes; so many only wait while the journal refuses alarms, which have their own reserve.
const unrecordedMax = 1_000;

export class Persistence<Change> {
  readonly #options: PersistenceOptions<Change>;
  #dirty = new Map<string, Buffer | undefined>();
  #attempt: Promise<void> = Promise.resolve();
  /** An attempt that has not begun yet and will take what is dirty then. */
  #nextAttempt: Promise<void> | undefined;
  #saveTimer: NodeJS.Timeout | undefined;
  #saveRetryMs: number;
  #saveFailures = 0;
  readonly #unrecorded: Change[] = [];
  #isRecording = false;
  #recordTimer: NodeJS.Timeout | undefined;
  #recordRetryMs: number;
  #recordFailures = 0;
  #recordsDropped = 0;
  #isClosed = false;

  constructor(options: PersistenceOptions<Change>) {
    this.#options = options;
    this.#saveRetryMs = options.retryMs;
    this.#recordRetryMs = options.retryMs;
  }

  /** Takes effect with the next `flush`. */
  change(key: string, value: Buffer | undefined): void {
    this.#dirty.set(key, value);
  }

  /**
   * Resolves when everything changed so far is durable; rejects with what the first attempt throws, and goes on
   * trying. Callers that only want it to happen need not look at it.
   */
  flush(): Promise<void> {
    clearTimeout(this.#saveTimer);
    if (this.#nextAttempt !== undefined) return this.#nextAttempt;
    // One at a time: an older value must not overtake a newer one.
    const attempt = this.#attempt
      .catch(() => undefined)
      .then(() => {
        this.#nextAttempt = undefined;
        return this.#save();
      });
    this.#nextAttempt = attempt;
    this.#attempt = attempt;
    attempt.catch(() => undefined);
    return attempt;
  }

  record(change: Change): void {
    this.#unrecorded.push(change);
    if (this.#unrecorded.length > unrecordedMax) {
      this.#unrecorded.shift();
      this.#recordsDropped += 1;
    }
    void this.#drain();
  }

  stats() {
    return {
      saveFailures: this.#saveFailures,
      unsaved: this.#dirty.size,
      recordFailures: this.#recordFailures,
      unrecorded: this.#unrecorded.length,
      recordsDropped: this.#recordsDropped,
    };
  }

  /** One last attempt; never rejects. */
  async close(): Promise<void> {
    clearTimeout(this.#recordTimer);
    await this.#drain();
    this.#isClosed = true;
    await this.flush().catch(() => undefined);
    clearTimeout(this.#saveTimer);
    clearTimeout(this.#recordTimer);
  }

  async #save(): Promise<void> {
    if (this.#dirty.size === 0) return;
    const writes = this.#dirty;
    this.#dirty = new Map();
    try {
      await this.#options.keeper.write([...writes].map(([key, value]) => ({ key, value })));
      if (this.#saveRetryMs !== this.#options.retryMs) {
        this.#options.log.info({ event: 'alarms_saved_again' }, 'Alarms can be saved again');
      }
      this.#saveRetryMs = this.#options.retryMs;
    } catch (error) {
      // What changed meanwhile is newer.
      this.#dirty = new Map([...writes, ...this.#dirty]);
      this.#saveFailures += 1;
      if (this.#saveRetryMs === this.#options.retryMs) {
        this.#options.log.error(
          { event: 'alarms_unsaved', code: errorCode(error), err: error },
          'Alarms cannot be saved; trying on',
        );
      }
      if (!this.#isClosed) {
        this.#saveTimer = setTimeout(() => void this.flush().catch(() => undefined), this.#saveRetryMs);
        this.#saveTimer.unref();
        this.#saveRetryMs = Math.min(this.#saveRetryMs * 2, this.#options.retryMsMax);
      }
      throw error;
    }
  }

  async #drain(): Promise<void> {
    if (this.#isRecording) return;
    this.#isRecording = true;
    clearTimeout(this.#recordTimer);
    try {
      for (;;) {
        const change = this.#unrecorded[0];
        if (change === undefined) break;
        await this.#options.record(change);
        // The bound may have taken it away meanwhile.
        if (this.#unrecorded[0] === change) this.#unrecorded.shift();
        this.#recordRetryMs = this.#options.retryMs;
      }
    } catch (error) {
      this.#recordFailures += 1;
      if (this.#recordRetryMs === this.#options.retryMs) {
        this.#options.log.error(
          { event: 'alarm_unrecorded', code: errorCode(error), err: error },
          'An alarm cannot be recorded; trying on',
        );
      }
      if (!this.#isClosed) {
        this.#recordTimer = setTimeout(() => void this.#drain(), this.#recordRetryMs);
        this.#recordTimer.unref();
        this.#recordRetryMs = Math.min(this.#recordRetryMs * 2, this.#options.retryMsMax);
      }
    } finally {
      this.#isRecording = false;
    }
  }
}
