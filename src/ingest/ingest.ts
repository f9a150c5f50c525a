// message → decode → stamp time → rules look → pin types → de-duplicate → encode → append
//
// The one way a message becomes points. Promises: `take` resolves only when all of the message is durable, as
// points or as dead letters with their reason; the rules see its points before anything is awaited, so an alarm
// never waits for the disk. Does not promise that a copy is not seen twice by the rules: a message whose first
// copy was lost in a crash must still be able to sound the buzzer.

import type {
  Append,
  Appender,
  DeadLetter,
  DeadLetters,
  HotState,
  StateWrite,
  StoredLetter,
} from '../journal/contract.ts';
import { putTogether, takeApart } from '../model/line-parts.ts';
import { encodeFieldValue, encodeLine, encodeSeries } from '../model/line-protocol.ts';
import type { Channel, Message, Sink } from '../model/message.ts';
import { type FieldValue, fieldTypeOf, type Point, type PointClass, type PointTime } from '../model/point.ts';
import { lineWrittenAs, misfitReason, type ServerTypes, writtenAs } from '../model/server-type.ts';
import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { decode, type Fault, type Sample } from './decode.ts';
import { FieldTypes } from './field-types.ts';
import { arrivalOf, isUndated, lineIn, messageIn, timeIn, valueIn } from './replay.ts';
import { type Identity, identityOf, Seen } from './seen.ts';
import { Stamp, type StampTime } from './stamp.ts';
import { type Parcel, pack, type SubmittedPoint, type Verdict } from './submission.ts';

/** What the registry says about a device, and becomes tags. */
export interface DeviceDescription {
  readonly name?: string | undefined;
  readonly type?: string | undefined;
  readonly location?: string | undefined;
}

export interface IngestOptions {
  readonly appender: Appender;
  readonly deadLetters: DeadLetters;
  readonly hotState: HotState;
  readonly describe: (deviceId: string) => DeviceDescription | undefined;
  /** Value of the `gateway` tag. */
  readonly gatewayId: string;
  /** How InfluxDB keeps fields, as far as known; where it is, it decides what a value must be. */
  readonly serverTypes?: ServerTypes;
  /** Called synchronously, before any await. Must not throw. */
  readonly observe: (points: readonly Point[], message: Pick<Message, 'receivedMonotonicMs'>) => void;
  /** Points of one device that have just become durable, as stored; a replayed line's without its tags. Called synchronously; must not throw. */
  readonly onDurable?: ((points: readonly Point[], deviceId: string) => void) | undefined;
  readonly time: StampTime;
  readonly log: Log;
  /** How many fields can have a pinned type. */
  readonly fieldTypesMax?: number;
  /** Of how many devices duplicates are recognised. */
  readonly seenDevicesMax?: number;
}

export interface IngestStats {
  readonly messages: number;
  readonly points: number;
  readonly duplicates: number;
  /** Messages without a payload: MQTT clears a retained message so. */
  readonly empty: number;
  /** Dead letters by code. */
  readonly deadLetters: Readonly<Record<string, number>>;
  /** Submitted points that were refused to their sender, by code. */
  readonly refused: Readonly<Record<string, number>>;
  /** Times no clock could have meant, replaced by the time of arrival. */
  readonly timesReplaced: number;
  readonly tagsDropped: number;
  readonly refusedForNow: number;
  readonly inFlight: number;
  readonly fieldTypes: number;
  readonly seenDevices: number;
  readonly cachedSeries: number;
}

// A rename in the registry clears one device's entries; this bounds what odd topics can fill.
const seriesMax = 20_000;

const classOf = {
  telemetry: 'telemetry',
  status: 'event',
  alarms: 'alarm',
  'command-ack': 'event',
} as const satisfies Record<Channel, PointClass>;

interface Series {
  readonly encoded: string;
  readonly tags: ReadonlyMap<string, string>;
}

/** What became of a dead letter. */
export type Replayed =
  | { readonly kind: 'replayed' }
  /** It is a letter again, under another id. */
  | { readonly kind: 'refused'; readonly code: string; readonly reason: string }
  /** There is no such letter any more. */
  | { readonly kind: 'gone' }
  | { readonly kind: 'impossible'; readonly reason: string };

/** Everything `take` gathers before it has to wait. */
interface Work {
  lines: string;
  /** For whom it may concern once they are durable. */
  readonly stored: Point[];
  points: number;
  isUndated: boolean;
  readonly letters: DeadLetter[];
}

export class Ingest {
  readonly #options: IngestOptions;
  readonly #types: FieldTypes;
  readonly #seen: Seen;
  readonly #stamp: Stamp;
  readonly #series = new Map<string, Map<string, Series>>();
  readonly #deadLetters = new Map<string, number>();
  readonly #refused = new Map<string, number>();
  #cachedSeries = 0;
  #messages = 0;
  #points = 0;
  #duplicates = 0;
  #empty = 0;
  #tagsDropped = 0;
  #refusedForNow = 0;
  #inFlight = 0;

  private constructor(options: IngestOptions, types: FieldTypes, seen: Seen) {
    this.#options = options;
    this.#types = types;
    this.#seen = seen;
    this.#stamp = new Stamp(options.time);
  }

  /** Restores the pinned types and the sequence windows. @throws what the hot state throws. */
  static async open(options: IngestOptions): Promise<Ingest> {
    const { hotState, fieldTypesMax, seenDevicesMax } = options;
    const types = await FieldTypes.open(hotState, fieldTypesMax);
    const seen = await Seen.open(
      hotState,
      seenDevicesMax === undefined ? {} : { devicesMax: seenDevicesMax },
    );
    options.log.debug(
      { event: 'ingest_opened', fieldTypes: types.size, seenDevices: seen.size },
      'Ingest is open',
    );
    return new Ingest(options, types, seen);
  }

  /**
   * The sink of every source.
   * @throws GatewayError of the journal (`JOURNAL_FULL`, `JOURNAL_STALLED`, `JOURNAL_FAILED`): not taken, may be
   * sent again.
   */
  readonly take: Sink = (message) => {
    try {
      return this.#take(message);
    } catch (error) {
      return Promise.reject(error);
    }
  };

  // No async function on the way down: at full load each would cost more than decoding does.
  #take(message: Message): Promise<void> {
    this.#messages += 1;
    const { samples, tagsDropped } = decode(message);
    this.#tagsDropped += tagsDropped;
    if (samples.length === 0) {
      this.#empty += 1;
      return Promise.resolve();
    }
    const points = samples.map((sample) => this.#pointOf(message.deviceId, sample));
    const visible = points.filter((point) => point.fields.size > 0);
    if (visible.length > 0) this.#options.observe(visible, message);

    const { deviceId } = message;
    const identity = samples.length === 1 ? identityOf(samples[0]) : undefined;
    if (identity !== undefined) {
      const copy = this.#seen.copyOf(deviceId, identity.stream, identity.seq);
      if (copy !== undefined) {
        this.#duplicates += 1;
        return copy;
      }
    }

    const work: Work = { lines: '', stored: [], points: 0, isUndated: false, letters: [] };
    for (const [index, point] of points.entries()) {
      const sample = samples[index];
      if (sample === undefined) continue;
      if (sample.fault !== undefined) this.#refuse(work, message, sample, sample.fault, point);
      else this.#encode(work, message, point);
    }
    const stored = this.#store(message, work, identity);
    if (identity !== undefined) this.#seen.awaitWith(deviceId, identity.stream, identity.seq, stored);
    return stored;
  }

  /**
   * Takes points whose sender waits to hear of each: resolves when all that were accepted are durable. What is
   * refused is the sender's to mend and becomes no dead letter; the rules have looked at it all the same.
   * @throws GatewayError of the journal, as `take`: some of the points may be stored, sending all again is right.
   */
  async submit(
    points: readonly SubmittedPoint[],
    { receivedMonotonicMs }: Pick<Message, 'receivedMonotonicMs'>,
  ): Promise<readonly Verdict[]> {
    this.#messages += 1;
    const { verdicts, parcels, copies } = pack(points, {
      types: this.#types,
      seen: this.#seen,
      pointOf: (deviceId, sample) => this.#pointOf(deviceId, sample),
      observe: (visible) => this.#options.observe(visible, { receivedMonotonicMs }),
      typeFault: (measurement, name, value) => this.#typeFault(measurement, name, value),
      lineOf: (deviceId, point) => {
        const { serverTypes } = this.#options;
        const line = this.#lineOf(deviceId, point, point.fields);
        return serverTypes === undefined ? line : lineWrittenAs(line, serverTypes);
      },
    });
    for (const verdict of verdicts) {
      if (verdict.kind === 'refused') {
        this.#refused.set(verdict.code, (this.#refused.get(verdict.code) ?? 0) + 1);
        continue;
      }
      if (verdict.isCopy) this.#duplicates += 1;
      this.#tagsDropped += verdict.tagsDropped.length;
    }
    const stored = parcels.map((parcel) => this.#storeParcel(parcel));
    // Each of them ends before the sender hears of it: what it sends again must not race with what is under way.
    for (const outcome of await Promise.allSettled([...stored, ...copies])) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
    return verdicts;
  }

  /**
   * Tries a dead letter again, as the message it was, at the time it came. The rules do not look: it is no news. Nor
   * can it be a copy: what was refused was never counted as seen. When it resolves, what became of the letter is
   * durable.
   * @throws GatewayError of the journal: the letter is still there
   */
  async replay(letter: StoredLetter): Promise<Replayed> {
    if (letter.isCut) return { kind: 'impossible', reason: 'only its beginning was kept' };
    const line = lineIn(letter);
    const message = messageIn(letter);
    const work: Work = { lines: '', stored: [], points: 0, isUndated: false, letters: [] };
    if (line !== undefined) this.#encodeLine(work, letter, line);
    else if (message !== undefined) this.#encodeAgain(work, letter, message);
    else return { kind: 'impossible', reason: 'it is no message and no line' };

    const pins = work.points > 0 ? this.#types.takeUnsaved() : [];
    const append: Append = {
      class: letter.class ?? (message === undefined ? 'telemetry' : classOf[message.channel]),
      lines: work.lines,
      points: work.points,
      state: pins,
      ...(isUndated(work.lines) && { undated: true }),
    };
    let isDone = false;
    try {
      isDone = await this.#options.deadLetters.replace(letter.id, append, work.letters);
    } finally {
      if (!isDone) this.#types.restore(pins);
    }
    if (!isDone) return { kind: 'gone' };
    this.#points += work.points;
    if (letter.deviceId !== undefined) this.#options.onDurable?.(work.stored, letter.deviceId);
    const [again] = work.letters;
    return again === undefined
      ? { kind: 'replayed' }
      : { kind: 'refused', code: again.code, reason: again.reason };
  }

  #encodeAgain(work: Work, letter: StoredLetter, message: Message): void {
    const { samples } = decode(message);
    for (const [index, sample] of samples.entries()) {
      const isOwn = sample.timeNs !== undefined && this.#stamp.isPlausible(sample.timeNs);
      const { boot: _now, ...own } = this.#pointOf(message.deviceId, sample);
      const point = isOwn ? own : { ...own, ...arrivalOf(letter, index) };
      if (sample.fault !== undefined) this.#refuse(work, message, sample, sample.fault, point);
      else this.#encode(work, message, point);
    }
  }

  /** A line as it was appended, or would have been: of series and time nothing changes. */
  #encodeLine(work: Work, letter: StoredLetter, line: string): void {
    const parts = takeApart(line);
    if (parts === undefined) {
      work.lines += `${line}\n`;
      work.points += 1;
      return;
    }
    const { measurement } = parts;
    const { serverTypes } = this.#options;
    const kept = parts.fields.filter((field) => {
      const fault = this.#typeFault(measurement, field.name, valueIn(field.value));
      if (fault === undefined) return true;
      const { id: _id, wallMs: _wallMs, isCut: _isCut, ...rest } = letter;
      const bytes = Buffer.from(putTogether({ ...parts, fields: [field] }));
      work.letters.push({ ...rest, ...fault, stage: 'ingest', bytes });
      return false;
    });
    if (kept.length === 0) return;
    const time = timeIn(parts.tail);
    if (time !== undefined) {
      const fields = new Map(kept.map(({ name, value }) => [name, valueIn(value)]));
      work.stored.push({ measurement, tags: new Map(), fields, ...time });
    }
    const written = putTogether({ ...parts, fields: kept });
    work.lines += `${serverTypes === undefined ? written : lineWrittenAs(written, serverTypes)}\n`;
    work.points += 1;
  }

  /** The types fields are pinned to, and those InfluxDB told. */
  fieldTypes(): { measurement: string; field: string; pinned?: string; influx?: string }[] {
    const found = new Map<string, { measurement: string; field: string; pinned?: string; influx?: string }>();
    for (const { measurement, field, type } of this.#types.list()) {
      found.set(JSON.stringify([measurement, field]), { measurement, field, pinned: type });
    }
    for (const { measurement, field, type } of this.#options.serverTypes?.list() ?? []) {
      const key = JSON.stringify([measurement, field]);
      found.set(key, { measurement, field, ...found.get(key), influx: type });
    }
    return [...found.values()];
  }

  /** Resolves when the type of the field is durably unknown again, to whether it was known. */
  async forgetFieldType(measurement: string, field: string): Promise<boolean> {
    const wasTold = (await this.#options.serverTypes?.forget(measurement, field)) ?? false;
    const write = this.#types.forget(measurement, field);
    if (write !== undefined) await this.#options.hotState.write([write]);
    return wasTold || write !== undefined;
  }

  /** The registry entry changed: the next point carries the new tags. */
  forget(deviceId: string): void {
    this.#cachedSeries -= this.#series.get(deviceId)?.size ?? 0;
    this.#series.delete(deviceId);
  }

  stats(): IngestStats {
    return {
      messages: this.#messages,
      points: this.#points,
      duplicates: this.#duplicates,
      empty: this.#empty,
      deadLetters: Object.fromEntries(this.#deadLetters),
      refused: Object.fromEntries(this.#refused),
      timesReplaced: this.#stamp.replaced,
      tagsDropped: this.#tagsDropped,
      refusedForNow: this.#refusedForNow,
      inFlight: this.#inFlight,
      fieldTypes: this.#types.size,
      seenDevices: this.#seen.size,
      cachedSeries: this.#cachedSeries,
    };
  }

  #pointOf(deviceId: string, sample: Sample): Point {
    const { measurement, fields } = sample;
    const { tags } = this.#seriesOf(deviceId, measurement);
    const { timeNs, boot } = this.#stamp.timeOf(sample.timeNs);
    return boot === undefined
      ? { measurement, tags, fields, timeNs }
      : { measurement, tags, fields, timeNs, boot };
  }

  #seriesOf(deviceId: string, measurement: string): Series {
    let ofDevice = this.#series.get(deviceId);
    const known = ofDevice?.get(measurement);
    if (known !== undefined) return known;
    if (this.#cachedSeries >= seriesMax) {
      // Rebuilding is cheap and this is rare: no order of use is kept on the hot path for it.
      this.#series.clear();
      this.#cachedSeries = 0;
      ofDevice = undefined;
    }
    if (ofDevice === undefined) {
      ofDevice = new Map();
      this.#series.set(deviceId, ofDevice);
    }
    const description = this.#options.describe(deviceId);
    const tags = new Map<string, string>([['device_id', deviceId]]);
    if (description?.name) tags.set('device_name', description.name);
    if (description?.type) tags.set('device_type', description.type);
    if (description?.location) tags.set('location', description.location);
    tags.set('gateway', this.#options.gatewayId);
    const series = { encoded: encodeSeries(measurement, tags), tags };
    ofDevice.set(measurement, series);
    this.#cachedSeries += 1;
    return series;
  }

  /** Keeps the fields whose type fits; each of the others becomes a dead letter that can be replayed alone. */
  #encode(work: Work, message: Message, point: Point): void {
    let fields: Iterable<readonly [string, FieldValue]> = point.fields;
    let kept = point.fields.size;
    let refused: Set<string> | undefined;
    const { serverTypes } = this.#options;
    const mayBeKnown = serverTypes !== undefined && serverTypes.size > 0;
    let isKnown = false;
    for (const [name, value] of point.fields) {
      isKnown ||= mayBeKnown && serverTypes.typeOf(point.measurement, name) !== undefined;
      const fault = this.#typeFault(point.measurement, name, value);
      if (fault === undefined) continue;
      kept -= 1;
      refused ??= new Set();
      refused.add(name);
      this.#letter(work, message, fault, {
        bytes: Buffer.from(this.#lineOf(message.deviceId, point, [[name, value]])),
      });
    }
    if (kept === 0) return;
    if (refused !== undefined) {
      const dropped = refused;
      fields = [...point.fields].filter(([name]) => !dropped.has(name));
    }
    const line = this.#lineOf(message.deviceId, point, fields);
    work.lines += `${isKnown && serverTypes !== undefined ? lineWrittenAs(line, serverTypes) : line}\n`;
    work.stored.push(refused === undefined ? point : { ...point, fields: new Map(fields) });
    work.points += 1;
    if (point.boot !== undefined) work.isUndated = true;
  }

  /** Why the value cannot be stored in this field; undefined when it can. */
  #typeFault(measurement: string, name: string, value: FieldValue): Fault | undefined {
    const { serverTypes } = this.#options;
    const kept = serverTypes?.typeOf(measurement, name);
    if (kept !== undefined) {
      // What InfluxDB said is worth more than what came first.
      const written = encodeFieldValue(value);
      if (writtenAs(written, kept) !== undefined) return undefined;
      return { code: 'FIELD_TYPE_CONFLICT', reason: misfitReason(measurement, name, kept, written) };
    }
    const type = fieldTypeOf(value);
    const pinning = this.#types.pin(measurement, name, type);
    if (pinning === 'taken') return undefined;
    if (pinning === 'limit') {
      return { code: 'FIELD_LIMIT', reason: `field "${name}": no room for another field of a new name` };
    }
    const pinned = this.#types.typeOf(measurement, name);
    return {
      code: 'FIELD_TYPE_CONFLICT',
      reason: `field "${name}" of ${measurement}: expected ${pinned}, got ${type}`,
    };
  }

  #lineOf(deviceId: string, point: Point, fields: Iterable<readonly [string, FieldValue]>): string {
    return encodeLine(this.#seriesOf(deviceId, point.measurement).encoded, fields, point);
  }

  #refuse(work: Work, message: Message, sample: Sample, fault: Fault, { timeNs, boot }: PointTime): void {
    this.#letter(work, message, fault, {
      bytes: sample.line === undefined ? message.payload : Buffer.from(sample.line),
      time: { timeNs, ...(boot !== undefined && { boot }) },
      transport: message.transport,
    });
  }

  #letter(
    work: Work,
    message: Message,
    fault: Fault,
    kept: Pick<DeadLetter, 'bytes' | 'time' | 'transport'>,
  ): void {
    this.#deadLetters.set(fault.code, (this.#deadLetters.get(fault.code) ?? 0) + 1);
    const pointClass = classOf[message.channel];
    work.letters.push({
      stage: 'ingest',
      code: fault.code,
      reason: fault.reason,
      deviceId: message.deviceId,
      origin: `${message.channel}/${message.name}`,
      ...(pointClass !== 'telemetry' && { class: pointClass }),
      ...kept,
    });
  }

  #store(message: Message, work: Work, identity: Identity | undefined): Promise<void> {
    const { deviceId, channel } = message;
    const pins = work.points > 0 ? this.#types.takeUnsaved() : [];
    const marks =
      identity !== undefined && work.points > 0
        ? this.#seen.mark(deviceId, identity.stream, identity.seq)
        : [];
    const state: StateWrite[] = pins.length === 0 ? marks : [...pins, ...marks];
    const { lines, points, isUndated } = work;
    const dated: Append = { class: classOf[channel], lines, points, state };
    const append: Append = isUndated ? { ...dated, undated: true } : dated;
    this.#inFlight += 1;
    const durable =
      work.letters.length === 0
        ? this.#options.appender.append(append)
        : this.#storeAll(append, work.letters);
    return durable.then(
      () => {
        this.#inFlight -= 1;
        this.#points += work.points;
        this.#options.onDurable?.(work.stored, deviceId);
        if (identity !== undefined) this.#seen.settled(deviceId, identity.stream, identity.seq);
      },
      (error: unknown) => {
        this.#inFlight -= 1;
        this.#refusedForNow += 1;
        this.#types.restore(pins);
        // Sent again it must not pass for a copy: some of it is still missing.
        if (identity !== undefined) this.#unmark(deviceId, identity, error);
        throw error;
      },
    );
  }

  #storeParcel(parcel: Parcel): Promise<void> {
    const { pins, marks, identities, points, lines, stored } = parcel;
    const state: StateWrite[] = [...pins];
    for (const [key, value] of marks) state.push({ key, value });
    const append: Append = { class: 'telemetry', lines, points, state };
    this.#inFlight += 1;
    const durable = this.#options.appender
      .append(parcel.isUndated ? { ...append, undated: true } : append)
      .then(
        () => {
          this.#inFlight -= 1;
          this.#points += points;
          for (const [deviceId, ofDevice] of stored) this.#options.onDurable?.(ofDevice, deviceId);
          for (const { deviceId, stream, seq } of identities) this.#seen.settled(deviceId, stream, seq);
        },
        (error: unknown) => {
          this.#inFlight -= 1;
          this.#refusedForNow += 1;
          this.#types.restore(pins);
          for (const identity of identities) this.#unmark(identity.deviceId, identity, error);
          throw error;
        },
      );
    for (const { deviceId, stream, seq } of identities) {
      this.#seen.awaitWith(deviceId, stream, seq, durable);
    }
    return durable;
  }

  /** Each of them counts: what is durable already stays, and sending again repeats it harmlessly. */
  async #storeAll(append: Append, letters: readonly DeadLetter[]): Promise<void> {
    const { appender, deadLetters } = this.#options;
    const added = letters.map((letter) => deadLetters.add(letter));
    const appended = append.points > 0 ? [appender.append(append)] : [];
    for (const outcome of await Promise.allSettled([...appended, ...added])) {
      if (outcome.status === 'rejected') throw outcome.reason;
    }
  }

  /** A later append of the device may have written this message as seen; that must not outlive a restart. */
  #unmark(deviceId: string, identity: Identity, error: unknown): void {
    const write = this.#seen.unmark(deviceId, identity.stream, identity.seq);
    if (write !== undefined) this.#options.hotState.writeLazily([write]);
    this.#options.log.debug({ event: 'append_refused', deviceId, code: errorCode(error) }, 'Not stored');
  }
}
