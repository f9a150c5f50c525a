// message → decode → stamp time → rules look → pin types → de-duplicate → encode → append
//
// The one way a message becomes points. Promises: `take` resolves only when all of the message is durable, as
// points or as dead letters with their reason; the rules see its points before anything is awaited, so an alarm
// never waits for the disk. Does not promise that a copy is not seen twice by the rules: a message whose first
// copy was lost in a crash must still be able to sound the buzzer.

import type { Append, Appender, DeadLetter, DeadLetters, HotState, StateWrite } from '../journal/contract.ts';
import { encodeLine, encodeSeries } from '../model/line-protocol.ts';
import type { Channel, Message, Sink } from '../model/message.ts';
import { type FieldValue, fieldTypeOf, type Point, type PointClass } from '../model/point.ts';
import type { Clock } from '../platform/clock.ts';
import { errorCode } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { decode, type Fault, type Sample } from './decode.ts';
import { FieldTypes } from './field-types.ts';
import { Seen } from './seen.ts';
import { Stamp } from './stamp.ts';

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
  /** Called synchronously, before any await. Must not throw. */
  readonly observe: (points: readonly Point[], message: Message) => void;
  readonly clock: Clock;
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

/** Everything `take` gathers before it has to wait. */
interface Work {
  lines: string;
  points: number;
  readonly letters: DeadLetter[];
}

export class Ingest {
  readonly #options: IngestOptions;
  readonly #types: FieldTypes;
  readonly #seen: Seen;
  readonly #stamp: Stamp;
  readonly #series = new Map<string, Map<string, Series>>();
  readonly #deadLetters = new Map<string, number>();
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
    this.#stamp = new Stamp(options.clock);
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
    const points = samples.map((sample) => this.#pointOf(message, sample));
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

    const work: Work = { lines: '', points: 0, letters: [] };
    for (const [index, point] of points.entries()) {
      const sample = samples[index];
      if (sample === undefined) continue;
      if (sample.fault !== undefined) this.#refuse(work, message, sample, sample.fault);
      else this.#encode(work, message, point);
    }
    const stored = this.#store(message, work, identity);
    if (identity !== undefined) this.#seen.awaitWith(deviceId, identity.stream, identity.seq, stored);
    return stored;
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
      timesReplaced: this.#stamp.replaced,
      tagsDropped: this.#tagsDropped,
      refusedForNow: this.#refusedForNow,
      inFlight: this.#inFlight,
      fieldTypes: this.#types.size,
      seenDevices: this.#seen.size,
      cachedSeries: this.#cachedSeries,
    };
  }

  #pointOf(message: Message, sample: Sample): Point {
    return {
      measurement: sample.measurement,
      tags: this.#seriesOf(message.deviceId, sample.measurement).tags,
      fields: sample.fields,
      timeNs: this.#stamp.timeOf(sample.timeNs),
    };
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
    for (const [name, value] of point.fields) {
      const type = fieldTypeOf(value);
      const pinning = this.#types.pin(point.measurement, name, type);
      if (pinning === 'taken') continue;
      kept -= 1;
      refused ??= new Set();
      refused.add(name);
      const pinned = this.#types.typeOf(point.measurement, name);
      this.#letter(
        work,
        message,
        pinning === 'limit'
          ? { code: 'FIELD_LIMIT', reason: `field "${name}": no room for another field of a new name` }
          : {
              code: 'FIELD_TYPE_CONFLICT',
              reason: `field "${name}" of ${point.measurement}: expected ${pinned}, got ${type}`,
            },
        Buffer.from(this.#lineOf(message.deviceId, point, [[name, value]])),
      );
    }
    if (kept === 0) return;
    if (refused !== undefined) {
      const dropped = refused;
      fields = [...point.fields].filter(([name]) => !dropped.has(name));
    }
    work.lines += `${this.#lineOf(message.deviceId, point, fields)}\n`;
    work.points += 1;
  }

  #lineOf(deviceId: string, point: Point, fields: Iterable<readonly [string, FieldValue]>): string {
    return encodeLine(this.#seriesOf(deviceId, point.measurement).encoded, fields, point);
  }

  #refuse(work: Work, message: Message, sample: Sample, fault: Fault): void {
    const bytes = sample.line === undefined ? message.payload : Buffer.from(sample.line);
    this.#letter(work, message, fault, bytes);
  }

  #letter(work: Work, message: Message, fault: Fault, bytes: Buffer): void {
    this.#deadLetters.set(fault.code, (this.#deadLetters.get(fault.code) ?? 0) + 1);
    work.letters.push({
      stage: 'ingest',
      code: fault.code,
      reason: fault.reason,
      deviceId: message.deviceId,
      origin: `${message.channel}/${message.name}`,
      bytes,
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
    const append: Append = { class: classOf[channel], lines: work.lines, points: work.points, state };
    this.#inFlight += 1;
    const durable =
      work.letters.length === 0
        ? this.#options.appender.append(append)
        : this.#storeAll(append, work.letters);
    return durable.then(
      () => {
        this.#inFlight -= 1;
        this.#points += work.points;
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

/** What tells a message from all others of its device. */
interface Identity {
  /** Boot and measurement: within it numbers are counted. */
  readonly stream: string;
  readonly seq: number;
}

function identityOf(sample: Sample | undefined): Identity | undefined {
  if (sample?.boot === undefined || sample.seq === undefined || sample.fault !== undefined) return undefined;
  return { stream: `${sample.boot}/${sample.measurement}`, seq: sample.seq };
}
