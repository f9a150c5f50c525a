// When things were. A Pi without a clock boots weeks wrong, so the wall clock is not believed until something that can
// know says it is right; until then points carry the boot and how long it had been running. Promises: while `isKnown`
// is false nothing is given a date; once it is, every earlier moment of this boot has an exact one, those of earlier
// boots that never knew theirs a bounded one that says so; asked again it answers the same, also after a restart.
// Steps of a clock that is believed are followed and reported. Does not set the clock.

import assert from 'node:assert/strict';
import type { PointTime } from '../model/point.ts';
import { type Boot, bootNumberOf, dateOf, decodeBoot, encodeBoot, newestKnownNs } from './boots.ts';
import type { Clock } from './clock.ts';
import { errorCode } from './errors.ts';
import type { Log } from './log.ts';

/**
 * What the machine says of its wall clock: something that can know says it is right; it was set from a battery clock,
 * which is right or far from it; something could tell and does not (yet); nothing on this machine can tell.
 */
export type ClockVerdict =
  | { readonly kind: 'synchronized'; readonly source: string }
  | { readonly kind: 'battery' }
  | { readonly kind: 'waiting' }
  | { readonly kind: 'silent' };

/** The journal's hot state, as far as it is needed here. */
export interface BootKeeper {
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]>;
  write(writes: readonly { readonly key: string; readonly value: Buffer | undefined }[]): Promise<void>;
  writeLazily(writes: readonly { readonly key: string; readonly value: Buffer | undefined }[]): void;
}

/** `auto` believes a plausible clock where nothing can tell, `synchronized` never does, `always` asks nobody. */
export type ClockTrust = 'auto' | 'always' | 'synchronized';

export interface TimeBaseOptions {
  readonly keeper: BootKeeper;
  readonly clock: Clock;
  /** Nanoseconds since the machine was started, the same for all processes of a boot, suspended or not. */
  readonly bootNs: () => bigint;
  readonly trust: ClockTrust;
  /** Whether the wall clock is right. Asked often; must be cheap, or remember. */
  readonly probe: () => Promise<ClockVerdict>;
  readonly log: Log;
  /** How long the machine's own sources have before the time of others is believed. */
  readonly remoteGraceMs?: number;
  /** Boots remembered; beyond it the oldest are forgotten. */
  readonly bootsMax?: number;
}

const defaults = { remoteGraceMs: 60_000, bootsMax: 1000 } as const;

/** Nothing was measured by this software before. */
const earliestMs = Date.UTC(2025, 0, 1);
const tickMs = 1000;
/** The wall clock moved against the running time by more between two looks: a step. Less is a clock being slewed. */
const stepNs = 100_000_000n;
/** While nothing is known, what is noted of the boot's age is never older than this when a point is stamped. */
const markUnknownNs = 1_000_000_000n;
/** It only has to say about how late it is; each note costs a commit when nothing else happens. */
const markKnownNs = 600_000_000_000n;
/** A clock that goes back by less stands still instead. */
const sameMomentNs = 1_000_000_000n;
/** So many answers in a row must agree, within so much. A `Date` header is cut to the second. */
const remoteSamples = 3;
const remoteSpreadNs = 2_000_000_000n;
const remoteRoundTripMsMax = 5000;
/** What others say may be so much before the newest time known: theirs is exact to a second, and ours may have been too. */
const remoteSlackMs = 3_600_000;

const keyPrefix = 'time/boot/';
const keyPattern = /^time\/boot\/\d{10}$/;

function keyAfter(key: string | undefined): string {
  const next = key === undefined ? 1 : Number(key.slice(keyPrefix.length)) + 1;
  return keyPrefix + String(next).padStart(10, '0');
}

export interface ClockStep {
  /** What the wall clock would have said, and what it said. */
  readonly fromMs: number;
  readonly toMs: number;
}

export interface TimeStats {
  readonly isKnown: boolean;
  /** Who said so. */
  readonly source: string | undefined;
  /** How long the time has been unknown since this process started; undefined once it is known. */
  readonly unknownMs: number | undefined;
  readonly steps: number;
  readonly boots: number;
  /** It is later than this. */
  readonly newestKnownMs: number;
}

export class TimeBase {
  readonly boot: number;
  readonly #options: TimeBaseOptions;
  /** In order; the last one is now. */
  readonly #boots: Boot[];
  readonly #keys: string[];
  /** Newest time known before this boot began to count. */
  readonly #floorMs: number;
  readonly #openedMs: number;
  readonly #knownListeners: (() => void)[] = [];
  #onStep: (step: ClockStep) => void = () => undefined;
  #source: string | undefined;
  /** The wall clock is wrong and others' time is used: the boot's start. */
  #remoteStartNs: bigint | undefined;
  #wallOffsetNs: bigint | undefined;
  #lastStampNs = 0n;
  #samples: bigint[] = [];
  #isDeciding = false;
  #isWarned = false;
  #looking: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #steps = 0;

  private constructor(options: TimeBaseOptions, boots: Boot[], keys: string[]) {
    this.#options = options;
    this.#boots = boots;
    this.#keys = keys;
    this.#floorMs = Math.max(earliestMs, Number((newestKnownNs(boots) ?? 0n) / 1_000_000n));
    this.#openedMs = options.clock.monotonicMs();
    this.boot = this.#current.number;
  }

  /** Looks at the machine once before it resolves, so that a clock that is right is believed from the first point. */
  static async open(options: TimeBaseOptions): Promise<TimeBase> {
    const boots: Boot[] = [];
    const keys: string[] = [];
    for await (const [key, value] of options.keeper.entries(keyPrefix)) {
      const boot = decodeBoot(value);
      if (boot !== undefined && keyPattern.test(key)) {
        boots.push(boot);
        keys.push(key);
      } else options.log.warn({ event: 'boot_unreadable', key }, 'A boot cannot be read; left out');
    }
    const number = bootNumberOf(options.clock.bootId);
    const at = boots.findIndex((boot) => boot.number === number);
    let obsoleteKey: string | undefined;
    if (at === -1 || at < boots.length - 1) {
      // Data that came from another machine, or back from one, may have later boots: now is the last one all the same.
      const nextKey = keyAfter(keys[keys.length - 1]);
      const [known = { number, lastNs: 0n }] = at === -1 ? [] : boots.splice(at, 1);
      if (at !== -1) [obsoleteKey] = keys.splice(at, 1);
      boots.push(known);
      keys.push(nextKey);
    }
    const time = new TimeBase(options, boots, keys);
    await time.#save(obsoleteKey);
    time.#restore();
    if (!time.isKnown) await time.#look();
    time.#timer = setInterval(() => void time.tick(), tickMs);
    time.#timer.unref();
    return time;
  }

  get #current(): Boot {
    const boot = this.#boots[this.#boots.length - 1];
    assert(boot !== undefined, 'BUG: no boot');
    return boot;
  }

  #change(changes: Partial<Boot>): void {
    this.#boots[this.#boots.length - 1] = { ...this.#current, ...changes };
  }

  get isKnown(): boolean {
    return this.#source !== undefined;
  }

  /** The date, milliseconds since the Unix epoch. While it is not known: it is at least so late. */
  wallMs(): number {
    const { clock, bootNs } = this.#options;
    if (this.#remoteStartNs !== undefined) return Number((this.#remoteStartNs + bootNs()) / 1_000_000n);
    return this.isKnown ? clock.wallMs() : this.#floorMs + clock.monotonicMs() - this.#openedMs;
  }

  /** Nanoseconds since this boot began. While nothing is known it is noted how far the boot got. */
  bootNs(): bigint {
    const ns = this.#options.bootNs();
    if (!this.isKnown && ns - this.#current.lastNs >= markUnknownNs) this.#mark(ns);
    return ns;
  }

  /** Now, for a point of the gateway itself; never the same twice. */
  stamp(): PointTime {
    const isKnown = this.isKnown;
    const ns = isKnown ? BigInt(Math.round(this.wallMs() * 1000)) * 1000n : this.bootNs();
    const isAgain = ns <= this.#lastStampNs && this.#lastStampNs - ns < sameMomentNs;
    this.#lastStampNs = isAgain ? this.#lastStampNs + 1n : ns;
    return isKnown ? { timeNs: this.#lastStampNs } : { timeNs: this.#lastStampNs, boot: this.boot };
  }

  /** When a moment of a boot was; undefined while nobody knows. */
  dateOf(boot: number, bootNs: bigint) {
    return dateOf(this.#boots, boot, bootNs);
  }

  /** Called once, when the time is known; at once if it is already. */
  onKnown(listener: () => void): void {
    if (this.isKnown) listener();
    else this.#knownListeners.push(listener);
  }

  /** One listener. */
  onStep(listener: (step: ClockStep) => void): void {
    this.#onStep = listener;
  }

  /**
   * What another machine says the time is (the `Date` header of an answer). Where the own machine has nobody to ask,
   * several that agree date this boot to about a second.
   */
  observeRemote({ dateMs, roundTripMs }: { readonly dateMs: number; readonly roundTripMs: number }): void {
    if (this.isKnown || !(roundTripMs >= 0 && roundTripMs <= remoteRoundTripMsMax)) return;
    if (!(dateMs >= this.#floorMs - remoteSlackMs && dateMs < 8.64e15)) {
      this.#samples = [];
      return;
    }
    // The header was cut to the second, and written about half a round trip ago.
    const atNs = BigInt(Math.round(dateMs + 500 + roundTripMs / 2)) * 1_000_000n;
    this.#samples = [...this.#samples.slice(1 - remoteSamples), atNs - this.#options.bootNs()];
    const sorted = [...this.#samples].sort((a, b) => (a < b ? -1 : 1));
    const [first] = sorted;
    const last = sorted[remoteSamples - 1];
    const median = sorted[Math.floor(remoteSamples / 2)];
    if (first === undefined || last === undefined || median === undefined) return;
    if (last - first > remoteSpreadNs) return;
    const graceMs = this.#options.remoteGraceMs ?? defaults.remoteGraceMs;
    if (this.#options.clock.monotonicMs() - this.#openedMs < graceMs) return;
    void this.#becomeKnown('remote', median);
  }

  /** Every second: asks the machine while nothing is known, and looks whether a clock that is believed has stepped. */
  async tick(): Promise<void> {
    const ns = this.#options.bootNs();
    if (this.isKnown) {
      this.#followWall(ns);
      if (ns - this.#current.lastNs >= markKnownNs) this.#mark(ns);
    }
    if (!this.isKnown || this.#remoteStartNs !== undefined) await this.#look();
    if (this.isKnown || this.#isWarned) return;
    this.#isWarned = true;
    this.#options.log.warn(
      { event: 'clock_unknown', wallMs: this.#options.clock.wallMs() },
      'The clock cannot be trusted yet; points wait in the journal for their dates',
    );
  }

  stats(): TimeStats {
    const { clock } = this.#options;
    return {
      isKnown: this.isKnown,
      source: this.#source,
      unknownMs: this.isKnown ? undefined : clock.monotonicMs() - this.#openedMs,
      steps: this.#steps,
      boots: this.#boots.length,
      newestKnownMs: this.#floorMs,
    };
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    await this.#looking;
    this.#mark(this.#options.bootNs());
  }

  /** What an earlier process of this boot knew. */
  #restore(): void {
    const { startNs, wallOffsetNs } = this.#current;
    if (startNs === undefined) return;
    this.#source = 'an earlier start';
    this.#wallOffsetNs = wallOffsetNs;
    if (wallOffsetNs === undefined) this.#remoteStartNs = startNs;
  }

  #look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = undefined;
    });
    return this.#looking;
  }

  async #lookOnce(): Promise<void> {
    const source = await this.#ask();
    if (source !== undefined) await this.#becomeKnown(source, undefined);
  }

  async #ask(): Promise<string | undefined> {
    const { trust, probe, clock } = this.#options;
    if (trust === 'always') return 'the configuration';
    const verdict = await probe();
    const wallMs = clock.wallMs();
    if (verdict.kind === 'synchronized') return wallMs >= earliestMs ? verdict.source : undefined;
    // Of the others it is known only that it cannot be earlier than what was seen already.
    if (verdict.kind === 'waiting' || wallMs < this.#floorMs) return undefined;
    if (verdict.kind === 'battery') return 'the battery clock';
    return trust === 'auto' ? 'its plausibility' : undefined;
  }

  /** @param remoteStartNs When this boot began, as others say; undefined when the wall clock is believed. */
  async #becomeKnown(source: string, remoteStartNs: bigint | undefined): Promise<void> {
    if (this.#isDeciding) return;
    this.#isDeciding = true;
    const ns = this.#options.bootNs();
    const wallOffsetNs = remoteStartNs === undefined ? this.#wallNs() - ns : undefined;
    const startNs = this.#current.startNs ?? remoteStartNs ?? wallOffsetNs;
    if (startNs !== undefined) this.#change({ startNs });
    if (wallOffsetNs !== undefined) this.#change({ wallOffsetNs });
    // Before anything is dated by it: after a power cut it must be the same.
    await this.#save();
    this.#isDeciding = false;
    const wasKnown = this.isKnown;
    const anchorNs = this.#remoteStartNs;
    this.#source = source;
    this.#remoteStartNs = remoteStartNs;
    this.#wallOffsetNs = anchorNs ?? wallOffsetNs;
    if (wasKnown) return;
    const level = this.#isWarned ? 'info' : 'debug';
    this.#options.log[level]({ event: 'clock_known', source }, 'The clock is trusted');
    for (const listener of this.#knownListeners.splice(0)) listener();
  }

  #followWall(ns: bigint): void {
    const beforeNs = this.#wallOffsetNs;
    if (this.#remoteStartNs !== undefined || beforeNs === undefined) return;
    const offsetNs = this.#wallNs() - ns;
    this.#wallOffsetNs = offsetNs;
    const movedNs = offsetNs - beforeNs;
    if (movedNs < stepNs && movedNs > -stepNs) return;
    this.#steps += 1;
    this.#change({ wallOffsetNs: offsetNs });
    this.#mark(ns);
    const step = { fromMs: Number((beforeNs + ns) / 1_000_000n), toMs: Number((offsetNs + ns) / 1_000_000n) };
    this.#options.log.warn({ event: 'clock_step', ...step }, 'The clock was stepped');
    this.#onStep(step);
  }

  #wallNs(): bigint {
    return BigInt(Math.round(this.#options.clock.wallMs() * 1000)) * 1000n;
  }

  #mark(ns: bigint): void {
    this.#change({ lastNs: ns });
    this.#options.keeper.writeLazily([this.#write()]);
  }

  #write() {
    return { key: this.#keys[this.#keys.length - 1] ?? '', value: encodeBoot(this.#current) };
  }

  async #save(obsoleteKey?: string): Promise<void> {
    const { keeper, log, bootsMax = defaults.bootsMax } = this.#options;
    const excess = Math.max(0, this.#boots.length - bootsMax);
    this.#boots.splice(0, excess);
    const obsolete = this.#keys.splice(0, excess);
    if (obsoleteKey !== undefined) obsolete.push(obsoleteKey);
    const writes = [this.#write(), ...obsolete.map((key) => ({ key, value: undefined }))];
    try {
      await keeper.write(writes);
    } catch (error) {
      // A full disk must not keep the gateway from starting. What is known goes on in memory.
      log.warn({ event: 'boot_unsaved', code: errorCode(error) }, 'The boot could not be saved; trying on');
      keeper.writeLazily(writes);
    }
  }
}
