// Points whose sender waits to hear of each → what is refused and why, and what is to be appended. Works through all
// of them without awaiting anything: the rules look at every point before the first is judged, a point is stored with
// all of its fields or not at all, and a point sent twice (boot and sequence number) is stored once, also within one
// submission. Everything goes into one append as long as that stays well below what the journal takes at once.

import type { StateWrite } from '../journal/contract.ts';
import type { FieldValue, Point } from '../model/point.ts';
import { decodeFields, type Fault, type Sample } from './decode.ts';
import type { FieldTypes } from './field-types.ts';
import { type Identity, identityOf, type Seen } from './seen.ts';

/** The journal refuses appends beyond 1 MiB for good; the largest point there can be still fits on top of this. */
const parcelBytesMax = 256 * 1_024;

export interface SubmittedPoint {
  /** Of a device of the registry on whose behalf the sender may speak. */
  readonly deviceId: string;
  /** Empty: `device_telemetry`. */
  readonly measurement: string;
  /** Fields, and what MQTT takes beside them: `timestamp`, `boot`, `seq`. */
  readonly fields: Readonly<Record<string, unknown>>;
  /** As the sender has them. What is stored are those of the registry. */
  readonly tags?: Readonly<Record<string, unknown>>;
}

/** What became of a submitted point. */
export type Verdict =
  | {
      readonly kind: 'accepted';
      /** As it is stored; of a copy without a time of its own the first one has another. */
      readonly point: Point;
      /** It is stored already, or just being. */
      readonly isCopy: boolean;
      /** Tags that are not stored as they were sent. */
      readonly tagsDropped: readonly string[];
      /** No clock could have meant its time: it has that of its arrival. */
      readonly isTimeReplaced: boolean;
    }
  | { readonly kind: 'refused'; readonly code: string; readonly reason: string; readonly field?: string };

/** What one append takes. */
export interface Parcel {
  lines: string;
  points: number;
  bytes: number;
  isUndated: boolean;
  readonly pins: StateWrite[];
  /** The last word about each stream. */
  readonly marks: Map<string, StateWrite['value']>;
  readonly identities: (Identity & { readonly deviceId: string })[];
  /** By device. */
  readonly stored: Map<string, Point[]>;
}

interface Packed {
  /** One for each point, in their order. */
  readonly verdicts: readonly Verdict[];
  readonly parcels: readonly Parcel[];
  /** When the copies' first ones are durable. */
  readonly copies: readonly Promise<void>[];
}

/** What ingest lends. */
interface Lent {
  readonly types: FieldTypes;
  readonly seen: Seen;
  readonly pointOf: (deviceId: string, sample: Sample) => Point;
  readonly observe: (points: readonly Point[]) => void;
  /** Pins the type of a new field. */
  readonly typeFault: (measurement: string, name: string, value: FieldValue) => Fault | undefined;
  readonly lineOf: (deviceId: string, point: Point) => string;
}

export function pack(submitted: readonly SubmittedPoint[], lent: Lent): Packed {
  const entries = submitted.map(({ deviceId, measurement, fields, tags = {} }) => {
    const sample = decodeFields(measurement, fields);
    return { deviceId, tags, sample, point: lent.pointOf(deviceId, sample) };
  });
  const visible = entries.map(({ point }) => point).filter(({ fields }) => fields.size > 0);
  if (visible.length > 0) lent.observe(visible);

  const parcels: Parcel[] = [];
  const copies: Promise<void>[] = [];
  /** Whether what is stored of a device at a time has lost tags. */
  const isStrippedAt = new Map<string, boolean>();
  const verdicts = entries.map(({ deviceId, tags, sample, point }): Verdict => {
    if (sample.fault !== undefined) return refused(sample.fault);
    const tagsDropped = Object.keys(tags).filter((key) => point.tags.get(key) !== tags[key]);
    const isTimeReplaced = sample.timeNs !== undefined && sample.timeNs !== point.timeNs;
    const accepted: Verdict = { kind: 'accepted', point, isCopy: false, tagsDropped, isTimeReplaced };
    const identity = identityOf(sample);
    const copy = identity && lent.seen.copyOf(deviceId, identity.stream, identity.seq);
    if (copy !== undefined) {
      copies.push(copy);
      return { ...accepted, isCopy: true };
    }
    const place = JSON.stringify([deviceId, point.measurement, String(point.timeNs)]);
    const isOtherStripped = isStrippedAt.get(place);
    const isStripped = tagsDropped.length > 0;
    // Without their own tags two points can become one, and the second would overwrite the first.
    if (isOtherStripped !== undefined && (isOtherStripped || isStripped)) return refused(clash);
    const fault = pinAll(lent, point);
    if (fault !== undefined) return refused(fault);
    isStrippedAt.set(place, isStripped);
    put(parcels, deviceId, point, {
      line: `${lent.lineOf(deviceId, point)}\n`,
      pins: lent.types.takeUnsaved(),
      marks: identity === undefined ? [] : lent.seen.mark(deviceId, identity.stream, identity.seq),
      identity,
    });
    return accepted;
  });
  return { verdicts, parcels, copies };
}

function refused({ code, reason, field }: Fault): Verdict {
  return { kind: 'refused', code, reason, ...(field !== undefined && { field }) };
}

const clash: Fault = {
  code: 'TAGS_NOT_ALLOWED',
  reason: 'tags come from the registry; without its own tags this point is the same as another',
  field: 'tags',
};

/** Pins the types of all its fields, or of none: then why. */
function pinAll({ types, typeFault }: Lent, { measurement, fields }: Point): Fault | undefined {
  const pinned: string[] = [];
  for (const [name, value] of fields) {
    const isNew = types.typeOf(measurement, name) === undefined;
    const fault = typeFault(measurement, name, value);
    if (fault !== undefined) {
      // Nothing has been appended since, so there is nothing to write either.
      for (const one of pinned) types.forget(measurement, one);
      return { ...fault, field: name };
    }
    if (isNew) pinned.push(name);
  }
  return undefined;
}

interface Piece {
  readonly line: string;
  readonly pins: readonly StateWrite[];
  readonly marks: readonly StateWrite[];
  readonly identity: Identity | undefined;
}

function put(parcels: Parcel[], deviceId: string, point: Point, piece: Piece): void {
  const { line, pins, marks, identity } = piece;
  const last = parcels.at(-1);
  let bytes = Buffer.byteLength(line);
  for (const { key, value } of [...pins, ...marks.filter((mark) => !last?.marks.has(mark.key))]) {
    bytes += Buffer.byteLength(key) + (value?.length ?? 0);
  }
  let parcel = last;
  if (parcel === undefined || parcel.bytes + bytes > parcelBytesMax) {
    parcel = {
      lines: '',
      points: 0,
      bytes: 0,
      isUndated: false,
      pins: [],
      marks: new Map(),
      identities: [],
      stored: new Map(),
    };
    parcels.push(parcel);
  }
  parcel.lines += line;
  parcel.points += 1;
  parcel.bytes += bytes;
  parcel.isUndated ||= point.boot !== undefined;
  parcel.pins.push(...pins);
  for (const { key, value } of marks) parcel.marks.set(key, value);
  if (identity !== undefined) parcel.identities.push({ ...identity, deviceId });
  const ofDevice = parcel.stored.get(deviceId);
  if (ofDevice === undefined) parcel.stored.set(deviceId, [point]);
  else ofDevice.push(point);
}
