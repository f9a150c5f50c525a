// One sample as InfluxDB understands it. Plain data: no clock, no I/O.

/**
 * A field's value. Numbers are always floats: `50` and `50.0` are the same value of the same type, so two
 * firmware versions can never conflict over it.
 */
export type FieldValue = number | boolean | string;

export type FieldType = 'float' | 'boolean' | 'string';

/** When something was. */
export interface PointTime {
  /** Nanoseconds since the Unix epoch; since the start of `boot` where that is set. */
  readonly timeNs: bigint;
  /** The machine's boot whose date was not known yet: until it is, nobody knows when the point was. */
  readonly boot?: number;
}

export interface Point extends PointTime {
  readonly measurement: string;
  /** Tag key → value. Empty values are left out by the encoder: InfluxDB cannot store them. */
  readonly tags: ReadonlyMap<string, string>;
  /** At least one. */
  readonly fields: ReadonlyMap<string, FieldValue>;
}

/**
 * How long a point is worth keeping when the disk fills, and how soon it is sent: alarms before events before
 * telemetry.
 */
export type PointClass = 'alarm' | 'event' | 'telemetry';

export const pointClasses = ['alarm', 'event', 'telemetry'] as const satisfies readonly PointClass[];

/** The type InfluxDB would give the value. */
export function fieldTypeOf(value: FieldValue): FieldType {
  if (typeof value === 'number') return 'float';
  return typeof value === 'boolean' ? 'boolean' : 'string';
}
