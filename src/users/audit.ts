// Who changed what, when, from where. Promises: an entry is on the disk when `record` resolves; entries are only ever
// added, and numbered without gaps, so that what is missing or damaged is noticed; the oldest go when there are too
// many, and their number is known; programs cannot push out what people did (audit-pace.ts). Does not promise that a
// change and its entry survive a power cut together: the entry follows the change. Secrets are kept out by those who
// record; what looks like one all the same is struck out.

import type { Log } from '../platform/log.ts';
import type { Store, StoreWrite } from '../platform/store.ts';
import { AuditPace } from './audit-pace.ts';
import { dated, isMoment, isoTime, type KnownTime, type Moment, momentNow } from './moment.ts';

export interface AuditFact {
  /** `user:anna`, `device:kitchen`, `anyone@192.0.2.7`, `cli`. */
  readonly actor: string;
  /** A noun and a verb: `device.add`, `user.password`. */
  readonly action: string;
  /** What was changed: a device id, a user's name. */
  readonly target: string;
  /** What else a reader needs; no secrets. */
  readonly detail?: Readonly<Record<string, unknown>>;
  /** Where the request came from. */
  readonly address?: string;
}

/** What other stages are handed. Never rejects: what was changed is changed. */
export interface AuditTrail {
  record(fact: AuditFact): Promise<void>;
}

interface Entry extends AuditFact {
  readonly seq: number;
  readonly at: Moment;
}

export interface ShownEntry {
  readonly id: number;
  readonly time: string;
  /** The clock was not known to be right; it was not later than this. */
  readonly time_uncertain: boolean;
  readonly actor: string;
  readonly action: string;
  readonly target: string;
  readonly detail?: AuditFact['detail'];
  readonly address?: string;
}

export interface ShownAudit {
  readonly count: number;
  readonly entries: readonly ShownEntry[];
  /** Gone for being the oldest of too many, since the first. */
  readonly dropped: number;
  /** Damaged or missing. */
  readonly damaged: number;
}

export interface AuditStats {
  readonly entries: number;
  readonly bytes: number;
  /** Gone since the first one, for being the oldest of too many. */
  readonly dropped: number;
  /** Damaged or missing between others. */
  readonly damaged: number;
  /** Could not be written since the start. */
  readonly failed: number;
  /** Left out since the start, for coming from the same program again and again. */
  readonly skipped: number;
}

export interface AuditOptions {
  readonly store: Store;
  /** Undefined beside a stopped gateway, where nobody knows whether the clock is right. */
  readonly time?: KnownTime;
  readonly wallMs: () => number;
  readonly log: Log;
  readonly entriesMax?: number;
  readonly bytesMax?: number;
}

const defaults = { entriesMax: 10_000, bytesMax: 4 * 1024 * 1024 };
const waitingMax = 1_000;
const textCharactersMax = 256;
const detailsMax = 16;
const keyPrefix = 'entry/';
const keysEnd = 'entry0';

/** Keys of devices and users, enrolment tokens and whatever else begins so. */
const secretText = /\bg[a-z]_[0-9a-f]{6,}_[\w-]{16,}/g;
const secretName = /password|secret|token$|api_?key|authorization|cookie|code$/i;

function cut(text: string): string {
  return text
    .replace(secretText, '[secret]')
    .replace(/\p{Cc}/gu, ' ')
    .slice(0, textCharactersMax);
}

function cleaned({ actor, action, target, detail, address }: AuditFact): AuditFact {
  const details = Object.entries(detail ?? {})
    .filter(([, given]) => given !== undefined)
    .slice(0, detailsMax);
  const value = (name: string, given: unknown) => {
    if (typeof given === 'number' || typeof given === 'boolean' || given === null) return given;
    if (secretName.test(name)) return '[secret]';
    return cut(typeof given === 'string' ? given : JSON.stringify(given));
  };
  return {
    actor: cut(actor),
    action: cut(action),
    target: cut(target),
    ...(details.length > 0 && {
      detail: Object.fromEntries(details.map(([name, given]) => [cut(name), value(name, given)])),
    }),
    ...(address !== undefined && { address: cut(address) }),
  };
}

function keyOf(seq: number): string {
  return keyPrefix + String(seq).padStart(12, '0');
}

function decode(key: string, bytes: Buffer): Entry | undefined {
  try {
    const entry = JSON.parse(bytes.toString()) as Entry;
    const texts = [entry.actor, entry.action, entry.target];
    if (keyOf(entry.seq) !== key || !isMoment(entry.at)) return undefined;
    return texts.every((text) => typeof text === 'string') ? entry : undefined;
  } catch {
    return undefined;
  }
}

export class Audit implements AuditTrail {
  readonly #options: AuditOptions;
  readonly #entriesMax: number;
  readonly #bytesMax: number;
  /** Bytes of each entry that is kept, the oldest first. */
  #kept: { readonly seq: number; readonly bytes: number }[] = [];
  #bytes = 0;
  #nextSeq = 1;
  #damaged = 0;
  #failed = 0;
  #waiting = 0;
  readonly #pace = new AuditPace();
  #writing: Promise<unknown> = Promise.resolve();

  private constructor(options: AuditOptions) {
    this.#options = options;
    this.#entriesMax = options.entriesMax ?? defaults.entriesMax;
    this.#bytesMax = options.bytesMax ?? defaults.bytesMax;
  }

  /** @throws GatewayError `STORE_FAILED` when the store cannot be read. */
  static async open(options: AuditOptions): Promise<Audit> {
    const audit = new Audit(options);
    for await (const [key, bytes] of options.store.entries({ gte: keyPrefix, lt: keysEnd })) {
      const seq = Number(key.slice(keyPrefix.length));
      if (!Number.isSafeInteger(seq)) continue;
      audit.#kept.push({ seq, bytes: bytes.length });
      audit.#bytes += bytes.length;
      if (audit.#kept.length > 1) audit.#damaged += seq - audit.#nextSeq;
      if (decode(key, bytes) === undefined) audit.#damaged += 1;
      audit.#nextSeq = seq + 1;
    }
    return audit;
  }

  async record(fact: AuditFact): Promise<void> {
    if (this.#waiting >= waitingMax) {
      this.#failed += 1;
      return;
    }
    const { time, wallMs } = this.#options;
    const at: Moment = time === undefined ? { wallMs: Math.round(wallMs()) } : momentNow(time);
    const skipped = this.#pace.pass(fact.actor, at.bootMs ?? 0);
    if (skipped === undefined) return;
    const detail = skipped === 0 ? fact.detail : { ...fact.detail, left_out_before: skipped };
    const whole = detail === undefined ? fact : { ...fact, detail };
    this.#waiting += 1;
    const written = this.#writing.then(() => this.#write({ ...cleaned(whole), at }));
    this.#writing = written;
    await written;
    this.#waiting -= 1;
  }

  /** The newest first, or those before an entry. */
  async list({
    limit = 100,
    before,
  }: {
    readonly limit?: number;
    readonly before?: number;
  } = {}): Promise<ShownEntry[]> {
    const found: ShownEntry[] = [];
    const lt = before === undefined ? keysEnd : keyOf(before);
    for await (const [key, bytes] of this.#options.store.entries({ gte: keyPrefix, lt, reverse: true })) {
      if (found.length >= limit) break;
      const entry = decode(key, bytes);
      if (entry !== undefined) found.push(this.#shown(entry));
    }
    return found;
  }

  async page(wanted: { readonly limit?: number; readonly before?: number }): Promise<ShownAudit> {
    const entries = await this.list(wanted);
    const { dropped, damaged } = this.stats();
    return { count: entries.length, entries, dropped, damaged };
  }

  stats(): AuditStats {
    const first = this.#kept[0]?.seq ?? this.#nextSeq;
    return {
      entries: this.#kept.length,
      bytes: this.#bytes,
      dropped: first - 1,
      damaged: this.#damaged,
      failed: this.#failed,
      skipped: this.#pace.skipped,
    };
  }

  /** When what was recorded is on the disk. */
  async close(): Promise<void> {
    await this.#writing;
  }

  #shown({ seq, at, actor, action, target, detail, address }: Entry): ShownEntry {
    const { wallMs, isCertain } = dated(at, this.#options.time);
    return {
      id: seq,
      time: isoTime(wallMs),
      time_uncertain: !isCertain,
      actor,
      action,
      target,
      ...(detail !== undefined && { detail }),
      ...(address !== undefined && { address }),
    };
  }

  async #write(fact: Omit<Entry, 'seq'>): Promise<void> {
    const seq = this.#nextSeq;
    const value = Buffer.from(JSON.stringify({ seq, ...fact }));
    const writes: StoreWrite[] = [{ key: keyOf(seq), value }];
    let bytes = this.#bytes + value.length;
    let obsolete = 0;
    while (this.#kept.length - obsolete >= this.#entriesMax || bytes > this.#bytesMax) {
      const oldest = this.#kept[obsolete];
      if (oldest === undefined) break;
      bytes -= oldest.bytes;
      writes.push({ key: keyOf(oldest.seq), value: undefined });
      obsolete += 1;
    }
    try {
      await this.#options.store.write(writes);
    } catch (error) {
      this.#failed += 1;
      const { actor, action, target } = fact;
      this.#options.log.error(
        { event: 'audit_unwritten', actor, action, target, err: error },
        'Not recorded',
      );
      return;
    }
    this.#kept.splice(0, obsolete);
    this.#kept.push({ seq, bytes: value.length });
    this.#bytes = bytes;
    this.#nextSeq = seq + 1;
  }
}
