// Drains the journal into InfluxDB.
//
//   spool ─ urgent, fresh ─▶ one request at a time ──┐
//         ─ backlog ───────▶ a few beside it ────────┴─▶ accepted │ refused lines → isolation → dead letters
//
// Promises: a batch is forgotten only after InfluxDB took it; it never gives up; one bad point holds back no other;
// while the uplink is down a single probe goes out at a time; memory holds the batches in flight and no more. Does
// not promise order between lanes, nor that a point is sent once: sending again is harmless (same point, same time).

import { AssertionError } from 'node:assert';
import type { Batch, DeadLetter, Lane, Spool } from '../journal/contract.ts';
import { backoffMs } from '../platform/backoff.ts';
import type { Clock } from '../platform/clock.ts';
import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { WriteOutcome } from './answer.ts';
import { type Form, formOf, learnFrom, letterOf, otherForm, readLines } from './conversion.ts';
import { type InfluxTarget, InfluxWriter } from './influx-write.ts';
import { type Isolation, isolate, type RefusedLine, type SetRefusal } from './isolation.ts';
import type { LearntTypes } from './server-types.ts';
import type { Uplink } from './uplink.ts';

export interface ForwarderOptions {
  /** Most points in a request (`influx.batch_points`). */
  readonly batchPoints: number;
  /** How long fresh points wait for company (`influx.flush_interval_ms`). */
  readonly flushIntervalMs: number;
  /** Backlog requests at the same time. */
  readonly backlogInFlightMax: number;
  /** Silence on a connection that ends a request. */
  readonly requestTimeoutMs: number;
  /** Smaller bodies are sent uncompressed. */
  readonly gzipMinBytes: number;
  /** First and longest wait while InfluxDB cannot be reached. */
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
  /** Wait between tries while only a person can mend it: a wrong token, a missing bucket. */
  readonly pausedRetryMs: number;
  /** Longest wait of the backlog after an outage (`influx.drain_jitter_ms`); a tenth of a shorter one. */
  readonly drainJitterMs: number;
  /** Requests to isolate one batch at full speed; beyond that they are paced and the lane goes on beside them. */
  readonly isolationRequestsMax: number;
  readonly isolationPaceMs: number;
  /** Paced isolations at the same time; each holds one batch in memory. */
  readonly pacedIsolationsMax: number;
}

const defaults: ForwarderOptions = {
  batchPoints: 5000,
  // A point shows up in a dashboard about a second after it was measured. A household's 20 points a second still
  // share a request; ten seconds would save little (requests are small either way) and feel dead.
  flushIntervalMs: 1000,
  // Two hide the round trip of each other; more would only take memory and upstream from the fresh lane.
  backlogInFlightMax: 2,
  requestTimeoutMs: 30_000,
  gzipMinBytes: 1024,
  retryMinMs: 1000,
  retryMaxMs: 60_000,
  pausedRetryMs: 30_000,
  drainJitterMs: 30_000,
  isolationRequestsMax: 64,
  isolationPaceMs: 250,
  pacedIsolationsMax: 2,
};

const laneOrder: readonly Lane[] = ['urgent', 'fresh', 'backlog'];
// Within an isolation a lost request is tried again this often before the batch is put back: on a link that loses
// one request in ten, thirty questions in a row would hardly ever all be answered.
const isolationTries = 5;
const refusedLogIntervalMs = 60_000;
// Of an outage, at most, before the backlog drains: nobody minds a tenth more, and a street of gateways that lost
// their provider at the same instant does not send months of readings from the same instant on.
const drainWaitShare = 0.1;
// That many questions without a single point taken, and a suspicious refusal is not about points.
const suspiciousRequestsMax = 40;
// Requests never shrink below this because of timeouts.
const pointsMaxFloor = 50;
// After this many accepted requests in a row a shrunken request size doubles again.
const growAfterAccepted = 10;

export interface ForwarderParts {
  readonly spool: Spool;
  /** Undefined: nothing is configured, points stay in the journal. */
  readonly target: InfluxTarget | Uplink | undefined;
  /** Those of the target; undefined: lines go as they are and nothing is learnt. */
  readonly types?: LearntTypes;
  readonly clock: Clock;
  /** Uniform in [0, 1), for jitter. */
  readonly random: () => number;
  readonly log: Log;
  readonly options?: Partial<ForwarderOptions>;
}

export type ForwarderState = 'disabled' | 'idle' | 'sending' | 'retrying' | 'paused';

/** A snapshot; counters count since the start. */
export interface ForwarderStats {
  readonly state: ForwarderState;
  /** What it forwards to, for people. */
  readonly remote: string;
  /** Wall clock, milliseconds. */
  readonly stateSinceMs: number;
  /** Why it is paused or retrying, for people. Without secrets. */
  readonly reason?: string;
  /** Milliseconds until the next try while paused or retrying. */
  readonly nextTryMs?: number;
  readonly lastError?: { readonly message: string; readonly atMs: number };
  readonly lastAcceptedAtMs?: number;
  /** How long the oldest fresh or urgent point has been waiting, milliseconds. */
  readonly freshLagMs: number;
  readonly pending: Readonly<Record<Lane, number>>;
  readonly inFlight: { readonly fresh: number; readonly backlog: number; readonly pacedIsolations: number };
  /** Current size of a request; below `batchPoints` while the link or the server cannot take more. */
  readonly pointsMax: number;
  readonly acceptedPoints: number;
  readonly acceptedBatches: number;
  readonly buriedPoints: number;
  readonly requests: number;
  /** Bodies as sent, compressed. */
  readonly sentBytes: number;
  /** Requests that only served to find refused points. */
  readonly isolationRequests: number;
  readonly failures: number;
  /** Points written in another form than the journal holds, because InfluxDB keeps their field so. */
  readonly convertedPoints: number;
  /** Fields whose type InfluxDB told. */
  readonly serverTypes: number;
}

interface Down {
  readonly kind: 'retrying' | 'paused';
  readonly reason: string;
  readonly sinceMs: number;
  readonly failures: number;
  readonly nextTryAtMs: number;
}

/** A batch on its way. */
interface Delivery {
  readonly batch: Batch;
  /** Sent to see whether the uplink is back. */
  readonly isProbe: boolean;
  /** Since when its oldest point waited, if it is fresh. */
  readonly sinceMs: number | undefined;
  /** Accepted, buried or released: no longer counted as held. */
  isOver: boolean;
}

type Failure = Exclude<WriteOutcome, { kind: 'accepted' | 'rejected' | 'too-large' }>;

export class Forwarder {
  readonly #spool: Spool;
  readonly #types: LearntTypes | undefined;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #log: Log;
  readonly #options: ForwarderOptions;
  /** Nothing new is started; isolations end early, requests under way finish. */
  readonly #closing = new AbortController();
  /** Cuts off requests under way. */
  readonly #stop = new AbortController();
  readonly #deliveries = new Set<Promise<void>>();
  /** True when `take` had nothing and nothing has come since. */
  readonly #isDrained: Record<Lane, boolean> = { urgent: false, fresh: false, backlog: false };
  /** Counts the news of available points: a `take` that crossed one proves nothing drained. */
  #news = 0;

  #writer: Uplink | undefined;
  #hasEverAccepted = false;
  #down: Down | undefined;
  #isProbing = false;
  #freshInFlight = 0;
  #backlogInFlight = 0;
  #pacedIsolations = 0;
  #freshHeldPoints = 0;
  /** When the backlog may drain after an outage, monotonic. */
  #drainFromMs = 0;
  #pointsMax: number;
  #acceptedInARow = 0;
  #timer: NodeJS.Timeout | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;
  /** Since when the oldest fresh point nobody holds has been waiting, monotonic. */
  #freshSinceMs: number | undefined;
  /** The same of the points in the fresh request under way. */
  #freshTakenSinceMs: number | undefined;
  #state: ForwarderState = 'idle';
  #stateSinceMs: number;
  #lastError: { message: string; atMs: number } | undefined;
  #lastAcceptedAtMs: number | undefined;
  #acceptedPoints = 0;
  #acceptedBatches = 0;
  #buriedPoints = 0;
  #requests = 0;
  /** Of writers that were replaced. */
  #sentBytesBefore = 0;
  #refusedLoggedAtMs = Number.NEGATIVE_INFINITY;
  #isolationRequests = 0;
  #failures = 0;
  #convertedPoints = 0;

  private constructor(parts: ForwarderParts) {
    this.#spool = parts.spool;
    this.#types = parts.types;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#log = parts.log;
    this.#options = { ...defaults, ...parts.options };
    this.#pointsMax = this.#options.batchPoints;
    this.#stateSinceMs = parts.clock.wallMs();
  }

  /** @throws TypeError for a target whose URL is none */
  static start(parts: ForwarderParts): Forwarder {
    const forwarder = new Forwarder(parts);
    forwarder.retarget(parts.target);
    parts.spool.onAvailable(() => forwarder.#onAvailable());
    return forwarder;
  }

  /**
   * Another configuration: what was paused is tried at once.
   * @throws TypeError for a URL that is none; the old target then stays
   */
  retarget(target: InfluxTarget | Uplink | undefined): void {
    const writer = target === undefined ? undefined : this.#uplinkTo(target);
    this.#sentBytesBefore += this.#writer?.sentBytes ?? 0;
    this.#writer?.close();
    this.#writer = writer;
    this.#hasEverAccepted = false;
    if (this.#down !== undefined) this.#down = { ...this.#down, nextTryAtMs: this.#clock.monotonicMs() };
    this.#onAvailable();
    this.#noteState();
  }

  #uplinkTo(target: InfluxTarget | Uplink): Uplink {
    if ('write' in target) return target;
    const { requestTimeoutMs, gzipMinBytes } = this.#options;
    return InfluxWriter.open(target, { requestTimeoutMs, gzipMinBytes, wallMs: () => this.#clock.wallMs() });
  }

  get #remote(): Pick<Uplink, 'name' | 'stage'> {
    return this.#writer ?? { name: 'InfluxDB', stage: 'influx' };
  }

  /**
   * Takes nothing more and waits for the requests under way; at the deadline they are cut off and their batches
   * stay in the journal.
   */
  async close({ deadlineMs }: { readonly deadlineMs: number }): Promise<void> {
    // Isolations can be long, and repeating one costs only requests.
    this.#closing.abort();
    clearTimeout(this.#timer);
    const deadline = setTimeout(() => this.#stop.abort(), deadlineMs);
    await Promise.all(this.#deliveries);
    clearTimeout(deadline);
    this.#writer?.close();
  }

  stats(): ForwarderStats {
    const now = this.#clock.monotonicMs();
    const since = Math.min(this.#freshSinceMs ?? now, this.#freshTakenSinceMs ?? now);
    const down = this.#down;
    return {
      state: this.#state,
      remote: this.#remote.name,
      stateSinceMs: this.#stateSinceMs,
      ...(down === undefined ? {} : { reason: down.reason, nextTryMs: Math.max(0, down.nextTryAtMs - now) }),
      ...(this.#lastError === undefined ? {} : { lastError: this.#lastError }),
      ...(this.#lastAcceptedAtMs === undefined ? {} : { lastAcceptedAtMs: this.#lastAcceptedAtMs }),
      freshLagMs: now - since,
      pending: this.#spool.pending(),
      inFlight: {
        fresh: this.#freshInFlight,
        backlog: this.#backlogInFlight,
        pacedIsolations: this.#pacedIsolations,
      },
      pointsMax: this.#pointsMax,
      acceptedPoints: this.#acceptedPoints,
      acceptedBatches: this.#acceptedBatches,
      buriedPoints: this.#buriedPoints,
      requests: this.#requests,
      sentBytes: this.#sentBytesBefore + (this.#writer?.sentBytes ?? 0),
      isolationRequests: this.#isolationRequests,
      failures: this.#failures,
      convertedPoints: this.#convertedPoints,
      serverTypes: this.#types?.size ?? 0,
    };
  }

  #onAvailable(): void {
    this.#noteNews();
    this.#noteFreshWaiting();
    this.#pump();
  }

  #noteNews(): void {
    this.#news += 1;
    this.#isDrained.urgent = false;
    this.#isDrained.fresh = false;
    this.#isDrained.backlog = false;
  }

  #freshWaiting(): number {
    return this.#spool.pending().fresh - this.#freshHeldPoints;
  }

  #noteFreshWaiting(): void {
    if (this.#freshWaiting() <= 0) this.#freshSinceMs = undefined;
    else this.#freshSinceMs ??= this.#clock.monotonicMs();
  }

  #mayHave(lane: Lane): boolean {
    return !this.#isDrained[lane] && this.#spool.pending()[lane] > 0;
  }

  /** Starts every delivery that may start now. Cheap: it runs after every commit. */
  #pump(): void {
    if (this.#closing.signal.aborted || this.#writer === undefined) return;
    if (this.#down !== undefined) {
      this.#probe(this.#down);
      return;
    }
    if (this.#freshInFlight === 0) {
      if (this.#mayHave('urgent')) this.#start('urgent');
      else if (this.#isFreshDue()) this.#start('fresh');
    }
    if (this.#clock.monotonicMs() < this.#drainFromMs) {
      this.#wakeAt(this.#drainFromMs);
      return;
    }
    while (this.#backlogInFlight < this.#options.backlogInFlightMax && this.#mayHave('backlog')) {
      this.#start('backlog');
    }
  }

  #probe(down: Down): void {
    if (this.#isProbing) return;
    if (this.#clock.monotonicMs() < down.nextTryAtMs) {
      this.#wakeAt(down.nextTryAtMs);
      return;
    }
    const lanes = laneOrder.filter((candidate) => this.#mayHave(candidate));
    // If the first points of one lane are what the server means, those of another will show it.
    const lane = lanes[down.kind === 'paused' ? (down.failures - 1) % lanes.length : 0];
    if (lane !== undefined) this.#start(lane);
  }

  #isFreshDue(): boolean {
    if (!this.#mayHave('fresh') || this.#freshSinceMs === undefined) return false;
    if (this.#freshWaiting() >= this.#pointsMax) return true;
    const dueAtMs = this.#freshSinceMs + this.#options.flushIntervalMs;
    if (this.#clock.monotonicMs() >= dueAtMs) return true;
    this.#wakeAt(dueAtMs);
    return false;
  }

  /** One timer serves all waits: whoever wakes first looks at everything. */
  #wakeAt(atMs: number): void {
    if (this.#timerAtMs <= atMs) return;
    clearTimeout(this.#timer);
    this.#timerAtMs = atMs;
    const waitMs = Math.max(1, Math.ceil(atMs - this.#clock.monotonicMs()));
    this.#timer = setTimeout(() => {
      this.#timerAtMs = Number.POSITIVE_INFINITY;
      this.#pump();
    }, waitMs);
  }

  #start(lane: Lane): void {
    const isProbe = this.#down !== undefined;
    if (isProbe) this.#isProbing = true;
    if (lane === 'backlog') this.#backlogInFlight += 1;
    else this.#freshInFlight += 1;
    this.#noteState();
    const delivery = this.#deliver(lane, isProbe).then(() => {
      this.#deliveries.delete(delivery);
      if (isProbe) this.#isProbing = false;
      if (lane === 'backlog') this.#backlogInFlight -= 1;
      else this.#freshInFlight -= 1;
      this.#noteState();
      this.#pump();
    });
    this.#deliveries.add(delivery);
  }

  /** One batch from take to its end. Resolves early when its isolation goes on, paced, beside the lane. */
  async #deliver(lane: Lane, isProbe: boolean): Promise<void> {
    let batch: Batch | undefined;
    const news = this.#news;
    try {
      batch = await this.#spool.take(lane, this.#pointsMax);
    } catch (error) {
      this.#fail({ kind: 'retry', reason: `journal: ${messageOf(error)}` }, isProbe);
      return;
    }
    if (batch === undefined) {
      if (news === this.#news) this.#isDrained[lane] = true;
      return;
    }
    const sinceMs = lane === 'fresh' ? this.#freshSinceMs : undefined;
    const delivery: Delivery = { batch, isProbe, sinceMs, isOver: false };
    if (lane === 'fresh') {
      this.#freshHeldPoints += batch.points;
      this.#freshTakenSinceMs = sinceMs;
      this.#freshSinceMs = undefined;
      this.#noteFreshWaiting();
    }
    try {
      await this.#settle(delivery);
    } catch (error) {
      this.#putBackAfter(delivery, error);
    }
  }

  async #settle(delivery: Delivery): Promise<void> {
    const { batch, isProbe } = delivery;
    if (this.#closing.signal.aborted) {
      this.#putBack(delivery);
      return;
    }
    const form = await formOf(batch, this.#types);
    const outcome = await this.#send(form.body, form.encoding);
    switch (outcome.kind) {
      case 'accepted':
        await this.#accept(delivery);
        this.#convertedPoints += form.originals.size;
        this.#uplinkWorks(isProbe);
        return;
      case 'rejected':
        if (!this.#isSuspicious(outcome.refusal)) this.#uplinkWorks(isProbe);
        await this.#isolateBeside(delivery, form, outcome.refusal);
        return;
      case 'too-large':
        this.#uplinkWorks(isProbe);
        this.#shrink();
        await this.#isolateBeside(delivery, form, 'too-large');
        return;
      default:
        // First the failure: giving the batch back makes it available, and nothing but a probe may take it now.
        this.#fail(outcome, isProbe);
        this.#putBack(delivery);
    }
  }

  async #accept(delivery: Delivery): Promise<void> {
    await this.#spool.accept(delivery.batch);
    this.#noteAccepted(delivery.batch.points);
    this.#end(delivery);
  }

  #putBack(delivery: Delivery): void {
    this.#spool.release(delivery.batch);
    this.#end(delivery);
    if (delivery.sinceMs !== undefined && this.#freshWaiting() > 0) this.#freshSinceMs = delivery.sinceMs;
    this.#noteNews();
  }

  /** The journal could not write down the end of the batch: it will be delivered again, which is harmless. */
  #putBackAfter(delivery: Delivery, error: unknown): void {
    if (error instanceof AssertionError) throw error;
    this.#fail({ kind: 'retry', reason: `journal: ${messageOf(error)}` }, delivery.isProbe);
    this.#putBack(delivery);
  }

  #end(delivery: Delivery): void {
    if (delivery.isOver) return;
    delivery.isOver = true;
    if (delivery.batch.lane !== 'fresh') return;
    this.#freshHeldPoints -= delivery.batch.points;
    this.#freshTakenSinceMs = undefined;
    this.#noteFreshWaiting();
  }

  async #send(body: Buffer, encoding: 'identity' | 'gzip'): Promise<WriteOutcome> {
    const writer = this.#writer;
    if (writer === undefined) return { kind: 'retry', reason: 'nothing to forward to is configured' };
    this.#requests += 1;
    const outcome = await writer.write(body, encoding, this.#stop.signal);
    // What the target before this one took says nothing about this one.
    if (outcome.kind === 'accepted' && writer === this.#writer) this.#hasEverAccepted = true;
    return outcome;
  }

  /** Resolves when the batch has ended, or when its isolation has become a long one that may go on by itself. */
  async #isolateBeside(delivery: Delivery, form: Form, refusal: SetRefusal): Promise<void> {
    let detach: () => void = () => {};
    const detached = new Promise<void>((resolve) => {
      detach = resolve;
    });
    const isolation = this.#isolate(delivery, form, refusal, detach);
    this.#deliveries.add(isolation);
    const forget = (): void => {
      this.#deliveries.delete(isolation);
    };
    isolation.then(forget, forget);
    await Promise.race([isolation, detached]);
  }

  /**
   * A server that has taken nothing yet and does not speak of points may mean the request as such: burying all
   * points for a misspelt URL would be the worst kind of loss.
   */
  #isSuspicious(refusal: SetRefusal): boolean {
    return refusal !== 'too-large' && !refusal.aboutPoints && !this.#hasEverAccepted;
  }

  /** @param detach called when the lane may go on without waiting for this */
  async #isolate(delivery: Delivery, form: Form, refusal: SetRefusal, detach: () => void): Promise<void> {
    const { batch, isProbe } = delivery;
    const lines = await readLines(form);
    if (lines === undefined) {
      const reason = 'the stored block cannot be unpacked';
      await this.#bury(delivery, [
        { stage: this.#remote.stage, code: 'BLOCK_UNREADABLE', reason, bytes: batch.body },
      ]);
      return;
    }
    this.#learn(delivery, refusal, lines);
    let asked = 0;
    let isPaced = false;
    const ask = async (some: readonly string[]): Promise<WriteOutcome> => {
      asked += 1;
      if (asked > suspiciousRequestsMax && this.#isSuspicious(refusal)) return nothingTaken(refusal);
      if (asked > this.#options.isolationRequestsMax) {
        if (!isPaced && this.#pacedIsolations < this.#options.pacedIsolationsMax) {
          isPaced = true;
          this.#pacedIsolations += 1;
          detach();
        }
        await this.#wait(this.#options.isolationPaceMs);
      }
      const outcome = await this.#askPatiently(some);
      if (outcome.kind === 'rejected') this.#learn(delivery, outcome.refusal, some);
      return outcome;
    };
    try {
      const result = await this.#inEveryForm(await isolate(lines, refusal, ask), form, ask);
      if (result.kind === 'resolved' && !this.#isSuspicious(refusal)) {
        this.#uplinkWorks(isProbe);
        await this.#bury(
          delivery,
          result.refused.map((refused) => letterOf(refused, batch, this.#remote, this.#types)),
        );
        return;
      }
      const outcome = result.kind === 'resolved' ? nothingTaken(refusal) : result.outcome;
      if (isFailure(outcome) && !this.#closing.signal.aborted) this.#fail(outcome, isProbe);
      this.#putBack(delivery);
    } catch (error) {
      // Nobody waits for a detached isolation: its end is told here.
      if (!isPaced) throw error;
      this.#putBackAfter(delivery, error);
    } finally {
      if (isPaced) this.#pacedIsolations -= 1;
    }
  }

  #learn({ batch }: Delivery, refusal: SetRefusal, lines: readonly string[]): void {
    if (this.#types !== undefined) learnFrom(refusal, lines, this.#types, batch.lane === 'backlog');
  }

  /** What was refused gets a second chance as the server keeps it, or as it was before it was converted. */
  async #inEveryForm(
    result: Isolation,
    form: Form,
    ask: (lines: readonly string[]) => Promise<WriteOutcome>,
  ): Promise<Isolation> {
    const types = this.#types;
    if (types === undefined || result.kind !== 'resolved') return result;
    const refused: RefusedLine[] = [];
    const others = new Map<string, string>();
    for (const { line, reason } of result.refused) {
      const original = form.originals.get(line) ?? line;
      const other = otherForm(line, form, types);
      if (other === undefined) refused.push({ line: original, reason });
      else others.set(other, original);
    }
    if (others.size === 0) return { kind: 'resolved', refused };
    const lines = [...others.keys()];
    const outcome = await ask(lines);
    if (outcome.kind === 'accepted') {
      this.#convertedPoints += lines.length;
      return { kind: 'resolved', refused };
    }
    if (isFailure(outcome)) return { kind: 'interrupted', outcome };
    const refusal = outcome.kind === 'rejected' ? outcome.refusal : 'too-large';
    const second = await isolate(lines, refusal, ask);
    if (second.kind !== 'resolved') return second;
    this.#convertedPoints += lines.length - second.refused.length;
    for (const { line, reason } of second.refused) refused.push({ line: others.get(line) ?? line, reason });
    return { kind: 'resolved', refused };
  }

  async #askPatiently(lines: readonly string[]): Promise<WriteOutcome> {
    const body = Buffer.from(`${lines.join('\n')}\n`);
    for (let tries = 1; ; tries += 1) {
      if (this.#closing.signal.aborted) return { kind: 'retry', reason: 'stopped' };
      this.#isolationRequests += 1;
      const outcome = await this.#send(body, 'identity');
      if (outcome.kind !== 'retry' || tries === isolationTries) return outcome;
      const { retryMinMs, retryMaxMs } = this.#options;
      // A batch is not kept in memory for a server that wants to be left alone for long.
      if ((outcome.retryAfterMs ?? 0) > retryMaxMs) return outcome;
      const waitMs = backoffMs(tries, this.#random, { minMs: retryMinMs, maxMs: retryMaxMs });
      await this.#wait(Math.max(waitMs, outcome.retryAfterMs ?? 0));
    }
  }

  /** Ends early when the forwarder closes. */
  #wait(waitMs: number): Promise<void> {
    const { signal } = this.#closing;
    return new Promise((resolve) => {
      if (signal.aborted) return resolve();
      const timer = setTimeout(done, waitMs);
      function done(): void {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        resolve();
      }
      signal.addEventListener('abort', done);
    });
  }

  async #bury(delivery: Delivery, letters: readonly DeadLetter[]): Promise<void> {
    if (letters.length === 0) {
      // Parts of it were accepted one by one, all of them: nothing is left to refuse.
      await this.#accept(delivery);
      return;
    }
    const { batch } = delivery;
    await this.#spool.bury(batch, letters);
    this.#noteAccepted(Math.max(0, batch.points - letters.length));
    this.#buriedPoints += letters.length;
    this.#end(delivery);
    this.#logRefused(letters[0]?.reason);
  }

  /** One device that never learns would otherwise fill the log, a line a second. */
  #logRefused(reason: string | undefined): void {
    const now = this.#clock.monotonicMs();
    if (now - this.#refusedLoggedAtMs < refusedLogIntervalMs) return;
    this.#refusedLoggedAtMs = now;
    this.#log.warn(
      { event: 'points-refused', refusedSinceStart: this.#buriedPoints, reason },
      `${this.#remote.name} refuses points; they are in the dead letters`,
    );
  }

  #noteAccepted(points: number): void {
    this.#acceptedPoints += points;
    this.#acceptedBatches += 1;
    this.#lastAcceptedAtMs = this.#clock.wallMs();
    this.#acceptedInARow += 1;
    if (this.#acceptedInARow >= growAfterAccepted && this.#pointsMax < this.#options.batchPoints) {
      this.#acceptedInARow = 0;
      this.#pointsMax = Math.min(this.#options.batchPoints, this.#pointsMax * 2);
    }
  }

  #shrink(): void {
    this.#acceptedInARow = 0;
    const floor = Math.min(pointsMaxFloor, this.#options.batchPoints);
    this.#pointsMax = Math.max(floor, Math.floor(this.#pointsMax / 2));
  }

  /** The server answered a probe: what waited is backlog now. */
  #uplinkWorks(isProbe: boolean): void {
    // An answer to a request sent before the failure says nothing about now.
    if (this.#down === undefined || !isProbe) return;
    const now = this.#clock.monotonicMs();
    const downMs = Math.round(now - this.#down.sinceMs);
    this.#down = undefined;
    this.#drainFromMs = now + this.#random() * Math.min(this.#options.drainJitterMs, downMs * drainWaitShare);
    this.#log.info({ event: 'uplink-returned', downMs }, `${this.#remote.name} takes points again`);
    this.#spool.uplinkReturned();
    this.#freshSinceMs = undefined;
    this.#onAvailable();
    this.#noteState();
  }

  #fail(outcome: Failure, isProbe: boolean): void {
    this.#failures += 1;
    const reason = outcome.kind === 'retry' ? outcome.reason : pauseReason(outcome);
    this.#lastError = { message: reason, atMs: this.#clock.wallMs() };
    if (outcome.kind === 'retry' && outcome.isTimeout) this.#shrink();
    // Requests that were under way when the first one failed are no second failure.
    if (this.#down !== undefined && !isProbe) return;
    const now = this.#clock.monotonicMs();
    const failures = (this.#down?.failures ?? 0) + 1;
    const kind = outcome.kind === 'retry' ? 'retrying' : 'paused';
    if (this.#down?.kind !== kind)
      this.#log.warn({ event: `uplink-${kind}`, reason }, `${this.#remote.name} takes no points`);
    this.#down = {
      kind,
      reason,
      failures,
      sinceMs: this.#down?.sinceMs ?? now,
      nextTryAtMs: now + this.#waitAfter(outcome, failures),
    };
    this.#noteState();
    // Whoever called pumps next, and that sets the timer.
    this.#wakeAt(this.#down.nextTryAtMs);
  }

  #waitAfter(outcome: Failure, failures: number): number {
    const { retryMinMs, retryMaxMs, pausedRetryMs } = this.#options;
    if (outcome.kind !== 'retry') return pausedRetryMs;
    const waitMs = backoffMs(failures, this.#random, { minMs: retryMinMs, maxMs: retryMaxMs });
    return Math.max(waitMs, outcome.retryAfterMs ?? 0);
  }

  #noteState(): void {
    const state = this.#readState();
    if (state === this.#state) return;
    this.#state = state;
    this.#stateSinceMs = this.#clock.wallMs();
  }

  #readState(): ForwarderState {
    if (this.#writer === undefined) return 'disabled';
    if (this.#down !== undefined) return this.#down.kind;
    return this.#freshInFlight + this.#backlogInFlight > 0 ? 'sending' : 'idle';
  }
}

function nothingTaken(refusal: SetRefusal): Failure {
  return { kind: 'unexpected', message: refusal === 'too-large' ? refusal : refusal.message };
}

function isFailure(outcome: WriteOutcome): outcome is Failure {
  return outcome.kind !== 'accepted' && outcome.kind !== 'rejected' && outcome.kind !== 'too-large';
}

function pauseReason(outcome: Exclude<Failure, { kind: 'retry' }>): string {
  if (outcome.kind === 'unauthorised') return `the token is refused (${outcome.message})`;
  if (outcome.kind === 'not-found') return `organisation or bucket not found (${outcome.message})`;
  return `unexpected answer (${outcome.message})`;
}

function messageOf(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const code = errorCode(error);
  return code === undefined ? message : `${code}: ${message}`;
}
