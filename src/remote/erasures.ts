// Deletions of what a device has measured, carried out everywhere it may be: what waits in the journal, dead letters,
// local history, InfluxDB. Promises: a deletion is durable before it is answered and goes on after a restart, from any
// step; it is tried until it is done or InfluxDB refuses it for good, and what became of it can be seen. What is sent
// on the way is deleted after it arrived.
//
//   journal (one append: nothing of it is handed out any more) ─▶ history, letters ─▶ batches under way end ─▶ InfluxDB
//
// Every step may be done twice. Does not reach what was backed up, nor what a bridge handed to a broker.

import type { StateWrite, StoredLetter } from '../journal/contract.ts';
import { timestampText } from '../model/timestamp.ts';
import { backoffMs } from '../platform/backoff.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Deleter } from './influx-delete.ts';

const prefix = 'erasure/';
const digits = 16;
/** More that are not done are refused. */
const openMax = 1_000;
/** Of those that are done so many, the newest, are remembered. */
const doneMax = 100;
const lettersPerRound = 500;

/** All of a device up to the deletion when there is no range. */
export interface ErasureOrder {
  readonly deviceId: string;
  readonly range?: { readonly fromNs: bigint; readonly toNs: bigint };
}

export interface Erasure {
  readonly id: string;
  readonly deviceId: string;
  readonly isAll: boolean;
  readonly fromNs: bigint;
  readonly toNs: bigint;
  readonly local: 'waiting' | 'done';
  /** `none`: no InfluxDB was configured. */
  readonly remote: 'none' | 'waiting' | 'done' | 'refused';
  /** Why it waits or was refused. */
  readonly reason?: string;
}

interface ErasureRecord extends Erasure {
  /** The newest dead letter then. */
  readonly lettersUntil: string;
}

export interface ErasuresJournal {
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]>;
  write(writes: readonly StateWrite[]): Promise<void>;
  erase(order: ErasureOrder, state: readonly StateWrite[]): Promise<void>;
  passed(): Promise<void>;
  readonly newestDeadLetter: string | undefined;
  listDeadLetters(options: {
    readonly deviceId: string;
    readonly after?: string;
    readonly until?: string;
    readonly limit: number;
  }): Promise<StoredLetter[]>;
  dropDeadLetters(ids: readonly string[]): Promise<string[]>;
}

export interface ErasuresParts {
  readonly journal: ErasuresJournal;
  readonly history:
    | {
        forgetDevice(deviceId: string): Promise<void>;
        forgetRange(deviceId: string, range: { fromNs: bigint; toNs: bigint }): Promise<void>;
      }
    | undefined;
  /** Undefined where no InfluxDB is configured. */
  readonly remote: Deleter | undefined;
  readonly wallMs: () => number;
  /** Uniform in [0, 1), for jitter. */
  readonly random: () => number;
  readonly log: Log;
  readonly retryMinMs?: number;
  readonly retryMaxMs?: number;
}

export interface ErasuresStats {
  readonly waiting: number;
  readonly refused: number;
  readonly done: number;
  /** What InfluxDB says that a person has to mend. */
  readonly blocked: string | undefined;
}

export class Erasures {
  readonly #parts: ErasuresParts;
  readonly #records = new Map<string, ErasureRecord>();
  readonly #stop = new AbortController();
  /** Ordered just now. */
  readonly #fresh = new Set<string>();
  #work: Promise<void> = Promise.resolve();
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #failures = 0;
  #blocked: string | undefined;
  #nextId = 1;
  #done = 0;

  private constructor(parts: ErasuresParts) {
    this.#parts = parts;
  }

  /** What was not done when the gateway stopped goes on at once. */
  static async open(parts: ErasuresParts): Promise<Erasures> {
    const erasures = new Erasures(parts);
    for await (const [key, value] of parts.journal.entries(prefix)) {
      const id = key.slice(prefix.length);
      erasures.#records.set(id, decode(value));
      erasures.#nextId = Math.max(erasures.#nextId, Number(id) + 1);
    }
    erasures.#kick();
    return erasures;
  }

  async close(): Promise<void> {
    this.#stop.abort();
    clearTimeout(this.#timer);
    await this.#running;
    await this.#work;
  }

  /** The newest first. */
  list(): Erasure[] {
    return [...this.#records.values()].reverse().map(({ lettersUntil: _, ...shown }) => shown);
  }

  stats(): ErasuresStats {
    const records = [...this.#records.values()];
    return {
      waiting: records.filter(isOpen).length,
      refused: records.filter(({ remote }) => remote === 'refused').length,
      done: this.#done,
      blocked: this.#blocked,
    };
  }

  /**
   * Resolves when it is durable and has been tried here; what could not be done yet goes on by itself.
   * @throws GatewayError `ERASURES_FULL`, and what the journal throws: nothing is deleted then.
   */
  async erase({ deviceId, range }: ErasureOrder): Promise<Erasure> {
    if ([...this.#records.values()].filter(isOpen).length >= openMax) {
      throw new GatewayError('ERASURES_FULL', `${openMax} deletions are waiting already`);
    }
    const { journal, remote, wallMs } = this.#parts;
    const nowNs = BigInt(Math.floor(wallMs())) * 1_000_000n;
    const id = String(this.#nextId).padStart(digits, '0');
    this.#nextId += 1;
    const record: ErasureRecord = {
      id,
      deviceId,
      isAll: range === undefined,
      fromNs: range?.fromNs ?? 0n,
      // What comes from now on is not meant.
      toNs: range === undefined || range.toNs > nowNs ? nowNs : range.toNs,
      local: 'waiting',
      remote: remote === undefined ? 'none' : 'waiting',
      lettersUntil: journal.newestDeadLetter ?? '',
    };
    await journal.erase({ deviceId, ...(range && { range }) }, [...this.#oldest(), writeOf(record)]);
    this.#records.set(id, record);
    this.#fresh.add(id);
    await this.#here(record);
    this.#kick();
    return this.#shown(id);
  }

  #shown(id: string): Erasure {
    const found = this.list().find((erasure) => erasure.id === id);
    if (found === undefined) throw new GatewayError('ERASURE_UNKNOWN', 'it was forgotten meanwhile');
    return found;
  }

  /** Ends of the oldest that are done. */
  #oldest(): StateWrite[] {
    const done = [...this.#records.values()].filter((record) => !isOpen(record));
    const gone = done.slice(0, Math.max(0, done.length - doneMax + 1));
    for (const { id } of gone) this.#records.delete(id);
    return gone.map(({ id }) => ({ key: prefix + id, value: undefined }));
  }

  async #note(record: ErasureRecord, change: Partial<ErasureRecord>): Promise<ErasureRecord> {
    const { reason: _, ...rest } = record;
    const changed: ErasureRecord = { ...rest, ...change };
    await this.#parts.journal.write([writeOf(changed)]);
    this.#records.set(changed.id, changed);
    if (isOpen(record) && !isOpen(changed)) this.#done += 1;
    return changed;
  }

  /** The reason is for people, and not worth a write. */
  #wait(record: ErasureRecord, reason: string): void {
    this.#records.set(record.id, { ...record, reason });
  }

  /** Local history and dead letters; one deletion at a time. Never rejects. */
  #here({ id }: Pick<ErasureRecord, 'id'>): Promise<void> {
    this.#work = this.#work.then(async () => {
      const record = this.#records.get(id);
      if (record === undefined || record.local === 'done' || this.#stop.signal.aborted) return;
      const { deviceId, isAll, fromNs, toNs } = record;
      try {
        // Later there may be something newer.
        if (isAll && this.#fresh.delete(id)) await this.#parts.history?.forgetDevice(deviceId);
        else if (fromNs < toNs) await this.#parts.history?.forgetRange(deviceId, { fromNs, toNs });
        await this.#dropLetters(record, record.lettersUntil);
        await this.#note(record, { local: 'done' });
      } catch (error) {
        this.#wait(record, this.#told(error));
      }
    });
    return this.#work;
  }

  #kick(): void {
    if (this.#running !== undefined || this.#stop.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#running = this.#carryOut().then((isDone) => {
      this.#running = undefined;
      if (this.#stop.signal.aborted) return;
      this.#failures = isDone ? 0 : this.#failures + 1;
      const isLeft = [...this.#records.values()].some(isOpen);
      if (isDone && isLeft) this.#kick();
      if (isDone) return;
      const { random, retryMinMs = 1_000, retryMaxMs = 900_000 } = this.#parts;
      const waitMs = backoffMs(this.#failures, random, { minMs: retryMinMs, maxMs: retryMaxMs });
      this.#timer = setTimeout(() => this.#kick(), waitMs);
    });
  }

  /** Answers whether nothing has to be tried again. Never rejects. */
  async #carryOut(): Promise<boolean> {
    let isDone = true;
    for (const { id } of [...this.#records.values()].filter(isOpen)) {
      await this.#here({ id });
      const record = this.#records.get(id);
      if (this.#stop.signal.aborted) return true;
      if (record?.local === 'waiting') isDone = false;
      if (record?.remote !== 'waiting') continue;
      try {
        // What it does not answer to one it will not answer to the next.
        if (!(await this.#there(record))) return false;
      } catch (error) {
        this.#wait(record, this.#told(error));
        return false;
      }
    }
    return isDone;
  }

  /** Answers whether InfluxDB has said its last word. */
  async #there(record: ErasureRecord): Promise<boolean> {
    const { journal, remote, log } = this.#parts;
    const { signal } = this.#stop;
    if (remote === undefined) {
      this.#wait(record, 'no InfluxDB is configured any more');
      return false;
    }
    await unlessAborted(journal.passed(), signal);
    if (signal.aborted) return true;
    // What was under way may have been refused.
    await this.#dropLetters(record, journal.newestDeadLetter ?? '');
    const { deviceId, fromNs, toNs } = record;
    const outcome =
      fromNs < toNs ? await remote({ deviceId, fromNs, toNs }, signal) : { kind: 'done' as const };
    if (signal.aborted) return true;
    this.#blocked = outcome.kind === 'retry' && outcome.isForPeople ? outcome.reason : undefined;
    if (outcome.kind === 'retry') {
      if (record.reason !== outcome.reason) {
        log.warn({ event: 'erasure-waits', deviceId, reason: outcome.reason }, 'InfluxDB does not delete');
      }
      this.#wait(record, outcome.reason);
      return false;
    }
    if (outcome.kind === 'done') await this.#note(record, { remote: 'done' });
    else {
      log.error({ event: 'erasure-refused', deviceId, reason: outcome.reason }, 'InfluxDB refuses to delete');
      await this.#note(record, { remote: 'refused', reason: outcome.reason });
    }
    return true;
  }

  async #dropLetters(record: ErasureRecord, until: string): Promise<void> {
    if (until === '') return;
    const { journal } = this.#parts;
    const { deviceId } = record;
    for (let after: string | undefined; ; ) {
      const limit = lettersPerRound;
      const letters = await journal.listDeadLetters({ deviceId, until, limit, ...(after && { after }) });
      const ids = letters.filter((letter) => isMeant(letter, record)).map(({ id }) => id);
      if (ids.length > 0) await journal.dropDeadLetters(ids);
      after = letters.at(-1)?.id;
      if (letters.length < limit) return;
    }
  }

  #told(error: unknown): string {
    const message = error instanceof Error ? error.message : String(error);
    this.#parts.log.warn(
      { event: 'erasure-failed', code: errorCode(error), error: message },
      'tried again later',
    );
    return message;
  }
}

function isOpen({ local, remote }: Erasure): boolean {
  return local === 'waiting' || remote === 'waiting';
}

/** A letter that came before a deletion of everything; of a stretch of time by the time it is about. */
function isMeant(letter: StoredLetter, { isAll, fromNs, toNs, lettersUntil }: ErasureRecord): boolean {
  if (isAll && letter.id <= lettersUntil) return true;
  const digitsAtEnd =
    letter.stage === 'influx' ? / (\d{1,19})\s*$/.exec(letter.bytes.toString())?.[1] : undefined;
  const { time, wallMs } = letter;
  const known =
    time !== undefined && time.boot === undefined ? time.timeNs : BigInt(Math.floor(wallMs)) * 1_000_000n;
  const timeNs = digitsAtEnd === undefined ? known : BigInt(digitsAtEnd);
  return timeNs >= fromNs && timeNs < toNs;
}

function writeOf({ fromNs, toNs, ...rest }: ErasureRecord): StateWrite {
  const value = Buffer.from(JSON.stringify({ ...rest, fromNs: String(fromNs), toNs: String(toNs) }));
  return { key: prefix + rest.id, value };
}

function decode(value: Buffer): ErasureRecord {
  // Ours, and under a checksum.
  const record = JSON.parse(value.toString()) as ErasureRecord & { fromNs: string; toNs: string };
  return { ...record, fromNs: BigInt(record.fromNs), toNs: BigInt(record.toNs) };
}

/** Resolves with the work or once it is called off. Leaves no listener: there is one signal for all attempts ever made. */
async function unlessAborted(work: Promise<unknown>, signal: AbortSignal): Promise<void> {
  if (signal.aborted) return;
  let stop = (): void => undefined;
  const stopped = new Promise<void>((resolve) => {
    stop = resolve;
  });
  signal.addEventListener('abort', stop);
  try {
    await Promise.race([work, stopped]);
  } finally {
    signal.removeEventListener('abort', stop);
  }
}

/** As people and programs read it. */
export function shownErasure(erasure: Erasure): Record<string, unknown> {
  const { id, deviceId, isAll, fromNs, toNs, local, remote, reason } = erasure;
  return {
    id: Number(id),
    device_id: deviceId,
    from: isAll ? null : timestampText(fromNs),
    to: timestampText(toNs),
    local,
    remote,
    ...(reason !== undefined && { reason }),
  };
}
