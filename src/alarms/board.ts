// The alarm board: every alarm that is not normal, its facts, and the sound that follows from them. Promises:
// `apply` returns with the buzzer on, having waited for nothing; an acknowledgement is silent at once and
// confirmed when durable; after a restart what was unacknowledged sounds again. Saving and recording follow in
// the background and are tried until they succeed: a full disk must not silence anyone.

import type { AlarmPriority, AlarmState, Condition } from '../model/alarm.ts';
import type { PointTime } from '../model/point.ts';
import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import { Histogram, type HistogramSnapshot } from '../platform/histogram.ts';
import type { Log } from '../platform/log.ts';
import type { Annunciator } from './annunciator.ts';
import { Persistence, type StateKeeper } from './persistence.ts';
import {
  type AlarmFacts,
  parseFacts,
  type Raised,
  rankOf,
  type Sound,
  soundOfAll,
  stateOf,
  withAcknowledgement,
  withCondition,
} from './state.ts';
import { type ShownAlarm, showAlarm } from './view.ts';

export type AlarmVerb = 'raised' | 'cleared' | 'acknowledged' | 'restored' | 'evicted';

/** One step in an alarm's life, for the journal and for whoever shows it. */
export interface AlarmChange {
  readonly verb: AlarmVerb;
  readonly facts: AlarmFacts;
  readonly from: AlarmState;
  readonly to: AlarmState;
  readonly at: PointTime;
  /** Who acknowledged. */
  readonly by?: string;
}

/** An alarm as it is shown. */
export interface AlarmView {
  readonly id: string;
  readonly state: AlarmState;
  readonly priority: AlarmPriority;
  readonly deviceId: string;
  readonly message: string;
  readonly active: boolean;
  readonly acknowledged: boolean;
  /** Milliseconds since the Unix epoch; absent while the date is not known. */
  readonly raisedMs?: number;
  /** The time is the latest it can have been: the machine did not know the date before it was started anew. */
  readonly isRaisedUncertain?: true;
  /** Milliseconds ago; where the date is not known, and the machine has been running since. */
  readonly raisedAgoMs?: number;
  readonly raisedCount: number;
}

/** Every alarm that is not normal, the most important first, and what they sound like. */
export interface ShownAlarms {
  readonly alarms: readonly ShownAlarm[];
  readonly count: number;
  readonly sound: Sound;
  readonly is_silenced: boolean;
}

/** What is known of the time; `platform/time-base.ts`. */
export interface AlarmTime {
  readonly isKnown: boolean;
  readonly boot: number;
  wallMs(): number;
  stamp(): PointTime;
  dateOf(boot: number, bootNs: bigint): { readonly timeNs: bigint; readonly isCertain: boolean } | undefined;
}

export interface AlarmBoardOptions {
  /** Where facts live; the hot state of the journal. */
  readonly hotState: StateKeeper;
  readonly annunciators: readonly Annunciator[];
  /** Stores the change as a point of class `alarm`. Rejects when it must be tried again. */
  readonly record: (change: AlarmChange) => Promise<void>;
  readonly clock: Clock;
  readonly time: AlarmTime;
  readonly log: Log;
  readonly alarmsMax?: number;
  readonly hushMs?: number;
  /** Waits between attempts to save or record; the first and the longest. */
  readonly retryMs?: number;
  readonly retryMsMax?: number;
}

const defaults = {
  alarmsMax: 1_000,
  // As buyers know it from smoke detectors.
  hushMs: 10 * 60_000,
  retryMs: 500,
  retryMsMax: 30_000,
} as const;

export interface AlarmBoardStats {
  /** Not normal, by state. */
  readonly states: Readonly<Partial<Record<AlarmState, number>>>;
  readonly sound: Sound;
  readonly isHushed: boolean;
  readonly raised: number;
  readonly evicted: number;
  /** From the last byte of the message to the buzzer being on. */
  readonly latency: HistogramSnapshot;
  readonly saveFailures: number;
  readonly unsaved: number;
  readonly recordFailures: number;
  readonly unrecorded: number;
  readonly recordsDropped: number;
}

/** One moment, as points, facts and shelves have it. */
interface Now {
  readonly at: PointTime;
  readonly raised: Raised;
  readonly shelfMs: number;
}

const keyPrefix = 'alarms/';

export class AlarmBoard {
  readonly #options: AlarmBoardOptions;
  readonly #alarms = new Map<string, AlarmFacts>();
  readonly #latency = new Histogram();
  readonly #persistence: Persistence<AlarmChange>;
  readonly #listeners = new Set<(changes: readonly AlarmChange[]) => void>();
  #sound: Sound = 'off';
  #hushedUntilMs: number | undefined;
  #raised = 0;
  #evicted = 0;

  private constructor(options: AlarmBoardOptions) {
    this.#options = options;
    this.#persistence = new Persistence({
      keeper: options.hotState,
      record: options.record,
      log: options.log,
      retryMs: options.retryMs ?? defaults.retryMs,
      retryMsMax: options.retryMsMax ?? defaults.retryMsMax,
    });
  }

  /** Restores the alarms and sounds what must be heard. @throws what the hot state throws. */
  static async open(options: AlarmBoardOptions): Promise<AlarmBoard> {
    const board = new AlarmBoard(options);
    for await (const [key, value] of options.hotState.entries(keyPrefix)) {
      const facts = parseFacts(value);
      if (facts === undefined || `${keyPrefix}${facts.id}` !== key) {
        options.log.warn({ event: 'alarm_unreadable', key }, 'A stored alarm cannot be read; left out');
        continue;
      }
      board.#alarms.set(facts.id, facts);
    }
    if (board.#alarms.size > 0) {
      options.log.warn({ event: 'alarms_restored', alarms: board.#alarms.size }, 'Alarms are restored');
    }
    board.#sound = board.#wantedSound();
    board.#announce();
    return board;
  }

  /**
   * What the rules found. The buzzer is on when this returns.
   * @param receivedMonotonicMs When the last byte of the message behind it was read, for the latency.
   */
  apply(conditions: readonly Condition[], receivedMonotonicMs?: number): void {
    if (conditions.length === 0) return;
    const now = this.#now();
    const changes: AlarmChange[] = [];
    let hasRaised = false;
    for (const condition of conditions) {
      const before = this.#alarms.get(condition.id);
      const after = withCondition(before, condition, now.raised);
      if (after === undefined || after === before) continue;
      const isRaise = after.active && after.raisedCount !== (before?.raisedCount ?? 0);
      if (isRaise) {
        this.#raised += 1;
        hasRaised = true;
        if (before === undefined) this.#makeRoom(changes, now);
        // Whoever hushed one leak does not know of the next.
        if (after.priority === 'critical') this.#hushedUntilMs = undefined;
      }
      this.#put(after, now);
      if (isRaise || before?.active !== after.active) {
        changes.push(changeOf(isRaise ? 'raised' : 'cleared', before, after, now));
      }
    }
    const soundBefore = this.#sound;
    this.#updateSound();
    const isHeard = hasRaised && this.#sound !== 'off' && soundBefore !== this.#sound;
    if (isHeard && receivedMonotonicMs !== undefined) {
      this.#latency.observe(this.#options.clock.monotonicMs() - receivedMonotonicMs);
    }
    void this.#follow(changes);
  }

  /** The device left the house: what it said no longer holds. Unacknowledged alarms stay until somebody saw them. */
  withdraw(deviceId: string): void {
    const conditions = [...this.#alarms.values()]
      .filter((facts) => facts.deviceId === deviceId && facts.active)
      .map((facts) => ({ ...facts, active: false }));
    this.apply(conditions);
  }

  /** To be called about once a second: a hush or a shelving may have ended. */
  tick(): void {
    if (this.#hushedUntilMs === undefined && this.#alarms.size === 0) return;
    this.#updateSound();
  }

  /**
   * Silences at once; resolves with the ids when it is durable.
   * @param id Undefined: all that are unacknowledged.
   * @throws GatewayError `ALARM_UNKNOWN`; or of the journal when it could not be saved yet (it stays silent, and
   * saving goes on).
   */
  async acknowledge(id: string | undefined, by: string): Promise<readonly string[]> {
    const now = this.#now();
    const chosen = id === undefined ? [...this.#alarms.values()] : [this.#known(id)];
    const changes: AlarmChange[] = [];
    for (const before of chosen) {
      if (before.acknowledged) continue;
      const after = withAcknowledgement(before, by);
      this.#put(after, now);
      changes.push({ ...changeOf('acknowledged', before, after, now), by });
    }
    this.#updateSound();
    const saved = this.#follow(changes);
    // Also when nothing changed: an earlier acknowledgement may still be on its way to the disk.
    await saved;
    return changes.map(({ facts }) => facts.id);
  }

  /** Quiet for ten minutes; a new critical alarm is heard all the same. Not kept over a restart. */
  silence(by: string): { readonly forMs: number; readonly untilMs: number | undefined } {
    const hushMs = this.#options.hushMs ?? defaults.hushMs;
    this.#hushedUntilMs = this.#options.clock.monotonicMs() + hushMs;
    this.#options.log.info({ event: 'alarms_silenced', by, hushMs }, 'Alarms are silenced');
    this.#updateSound();
    const { time } = this.#options;
    return { forMs: hushMs, untilMs: time.isKnown ? time.wallMs() + hushMs : undefined };
  }

  /** All that are not normal, the most important first. */
  list(): readonly AlarmView[] {
    const now = this.#now();
    const raisedMs = (facts: AlarmFacts) => this.#raisedView(facts, now).raisedMs ?? Number.MAX_SAFE_INTEGER;
    return [...this.#alarms.values()]
      .sort((a, b) => rankOf(b) - rankOf(a) || raisedMs(b) - raisedMs(a))
      .map((facts) => ({
        id: facts.id,
        state: stateOf(facts, now.shelfMs),
        priority: facts.priority,
        deviceId: facts.deviceId,
        message: facts.message,
        active: facts.active,
        acknowledged: facts.acknowledged,
        ...this.#raisedView(facts, now),
        raisedCount: facts.raisedCount,
      }));
  }

  /** As everybody outside sees it. */
  shown(): ShownAlarms {
    const alarms = this.list().map(showAlarm);
    return { alarms, count: alarms.length, sound: this.#sound, is_silenced: this.#isHushed() };
  }

  /** Called after the sound, in the same turn. Returns what ends it. */
  onChange(listener: (changes: readonly AlarmChange[]) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  stats(): AlarmBoardStats {
    const states: Partial<Record<AlarmState, number>> = {};
    for (const { state } of this.list()) states[state] = (states[state] ?? 0) + 1;
    return {
      states,
      sound: this.#sound,
      isHushed: this.#isHushed(),
      raised: this.#raised,
      evicted: this.#evicted,
      latency: this.#latency.snapshot(),
      ...this.#persistence.stats(),
    };
  }

  /** Silences the outputs; gives what is unsaved one last attempt. The next start sounds what is left. */
  async close(): Promise<void> {
    for (const annunciator of this.#options.annunciators) annunciator.sound('off');
    await this.#persistence.close();
  }

  #known(id: string): AlarmFacts {
    const facts = this.#alarms.get(id);
    if (facts === undefined) {
      const known = [...this.#alarms.keys()].join(', ');
      throw new GatewayError('ALARM_UNKNOWN', `No alarm "${id}"; there is ${known === '' ? 'none' : known}`);
    }
    return facts;
  }

  #now(): Now {
    const { time } = this.#options;
    const at = time.stamp();
    const ms = Number(at.timeNs / 1_000_000n);
    const raised = at.boot === undefined ? { raisedMs: ms } : { raisedMs: ms, raisedBoot: at.boot };
    return { at, raised, shelfMs: this.#shelfMs };
  }

  /** Nothing stays shelved by a clock that may be weeks behind. */
  get #shelfMs(): number {
    const { time } = this.#options;
    return time.isKnown ? time.wallMs() : Number.POSITIVE_INFINITY;
  }

  #raisedView({ raisedMs, raisedBoot }: AlarmFacts, now: Now) {
    if (raisedBoot === undefined) return { raisedMs };
    const dated = this.#options.time.dateOf(raisedBoot, BigInt(Math.round(raisedMs)) * 1_000_000n);
    if (dated !== undefined) {
      const view = { raisedMs: Number(dated.timeNs / 1_000_000n) };
      return dated.isCertain ? view : { ...view, isRaisedUncertain: true as const };
    }
    return raisedBoot === now.raised.raisedBoot ? { raisedAgoMs: now.raised.raisedMs - raisedMs } : {};
  }

  #put(facts: AlarmFacts, { shelfMs }: Now): void {
    const isNormal = stateOf(facts, shelfMs) === 'normal';
    if (isNormal) this.#alarms.delete(facts.id);
    else this.#alarms.set(facts.id, facts);
    const value = isNormal ? undefined : Buffer.from(JSON.stringify(facts));
    this.#persistence.change(`${keyPrefix}${facts.id}`, value);
  }

  /** At the limit the least important gives way; sound is never the price. */
  #makeRoom(changes: AlarmChange[], now: Now): void {
    if (this.#alarms.size < (this.#options.alarmsMax ?? defaults.alarmsMax)) return;
    let least: AlarmFacts | undefined;
    for (const facts of this.#alarms.values()) {
      if (least === undefined || rankOf(facts) < rankOf(least)) least = facts;
    }
    if (least === undefined) return;
    this.#evicted += 1;
    this.#alarms.delete(least.id);
    this.#persistence.change(`${keyPrefix}${least.id}`, undefined);
    changes.push({
      verb: 'evicted',
      facts: least,
      from: stateOf(least, now.shelfMs),
      to: 'normal',
      at: now.at,
    });
  }

  #isHushed(): boolean {
    if (this.#hushedUntilMs === undefined) return false;
    return this.#options.clock.monotonicMs() < this.#hushedUntilMs;
  }

  #wantedSound(): Sound {
    return soundOfAll(this.#alarms.values(), this.#shelfMs, this.#isHushed());
  }

  #updateSound(): void {
    if (!this.#isHushed()) this.#hushedUntilMs = undefined;
    const wanted = this.#wantedSound();
    if (wanted === this.#sound) return;
    this.#sound = wanted;
    this.#announce();
  }

  #announce(): void {
    for (const annunciator of this.#options.annunciators) annunciator.sound(this.#sound);
  }

  /** What comes after the sound. Resolves when the facts are durable. */
  #follow(changes: readonly AlarmChange[]): Promise<void> {
    const saved = this.#persistence.flush();
    for (const change of changes) {
      const { verb, facts, to } = change;
      this.#options.log.warn({ event: `alarm_${verb}`, alarm: facts.id, state: to }, facts.message);
      this.#persistence.record(change);
    }
    if (changes.length > 0) for (const listener of this.#listeners) listener(changes);
    return saved;
  }
}

function changeOf(
  verb: AlarmVerb,
  before: AlarmFacts | undefined,
  after: AlarmFacts,
  { at, shelfMs }: Now,
): AlarmChange {
  return {
    verb,
    facts: after,
    from: before === undefined ? 'normal' : stateOf(before, shelfMs),
    to: stateOf(after, shelfMs),
    at,
  };
}
