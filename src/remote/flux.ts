// Questions to InfluxDB in Flux. Pure. Promises: what a client wrote gets into a script as a quoted text and as
// nothing else, whatever it holds; everything a script does is a stretch of time of one device of this gateway
// (several gateways may share a bucket). Times and lengths are numbers of ours.
//
// Only what every Flux since InfluxDB 1.8 knows (no `types`, no `experimental`). `from |> range |> filter |> limit`,
// `|> last` and `|> aggregateWindow` are answered by the storage engine without reading more than they need.

import { timestampText } from '../model/timestamp.ts';

export interface FluxScope {
  readonly bucket: string;
  readonly gatewayId: string;
  readonly deviceId: string;
  readonly measurement?: string;
  /** Default all. */
  readonly fields?: readonly string[];
  /** Inclusive, nanoseconds since the epoch. */
  readonly fromNs: bigint;
  /** Exclusive. */
  readonly toNs: bigint;
}

/**
 * A text as Flux writes it (https://docs.influxdata.com/flux/v0/spec/lexical-elements/#string-literals). As a byte where
 * the client library writes `\\$`, which is no escape yet in old versions: `${` would begin an expression.
 */
function quoted(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
  const escaped = text.replace(/["\\$\u0000-\u001f\u007f]/g, (char) => {
    if (char === '"' || char === '\\') return `\\${char}`;
    return `\\x${char.charCodeAt(0).toString(16).padStart(2, '0')}`;
  });
  return `"${escaped}"`;
}

function isColumn(column: string, value: string): string {
  return `r[${quoted(column)}] == ${quoted(value)}`;
}

function anyOf(conditions: readonly string[]): string {
  return `(${conditions.join(' or ')})`;
}

function scoped(scope: FluxScope, only: readonly FieldName[] = []): string {
  const { bucket, gatewayId, deviceId, measurement, fields, fromNs, toNs } = scope;
  const conditions = [isColumn('device_id', deviceId), isColumn('gateway', gatewayId)];
  if (measurement !== undefined) conditions.push(isColumn('_measurement', measurement));
  if (fields !== undefined) conditions.push(anyOf(fields.map((field) => isColumn('_field', field))));
  const pairs = only.map(
    ({ measurement: of, field }) => `(${isColumn('_measurement', of)} and ${isColumn('_field', field)})`,
  );
  if (pairs.length > 0) conditions.push(anyOf(pairs));
  return [
    `from(bucket: ${quoted(bucket)})`,
    `range(start: ${timestampText(fromNs)}, stop: ${timestampText(toNs)})`,
    `filter(fn: (r) => ${conditions.join(' and ')})`,
  ].join('\n  |> ');
}

/** The first samples of every field, at most so many of each. */
export function samplesFlux(scope: FluxScope, isNewestFirst: boolean, samplesMax: number): string {
  const sort = isNewestFirst ? '\n  |> sort(columns: ["_time"], desc: true)' : '';
  return `${scoped(scope)}${sort}\n  |> limit(n: ${samplesMax})\n  |> drop(columns: ["_start", "_stop"])\n`;
}

/** The newest sample of every field: its value, and what type it has. */
export function lastFlux(scope: FluxScope): string {
  return `${scoped(scope)}\n  |> last()\n  |> drop(columns: ["_start", "_stop"])\n`;
}

/** What parts of a window add up exactly, whatever series they are of. */
export const additive = ['sum', 'count', 'min', 'max'] as const;
/** What needs the samples of all series in the order of time. */
export const ordered = ['first', 'last'] as const;
export type WindowFunction = (typeof additive)[number] | (typeof ordered)[number];

export interface FieldName {
  readonly measurement: string;
  readonly field: string;
}

export interface WindowedFields {
  /** For the variable in the script. */
  readonly name: 'numbers' | 'booleans' | 'all';
  readonly fields: readonly FieldName[];
  readonly functions: readonly WindowFunction[];
}

/** A result for each function: `_time` is where the window begins. */
export function windowsFlux(scope: FluxScope, windowMs: number, parts: readonly WindowedFields[]): string {
  return parts
    .map(({ name, fields, functions }) => {
      let source = scoped(scope, fields);
      if (name === 'booleans') source += '\n  |> toFloat()';
      if (name === 'all') {
        source += '\n  |> group(columns: ["_measurement", "_field"])\n  |> sort(columns: ["_time"])';
      }
      const results = functions.map(
        (fn) =>
          `${name}\n  |> aggregateWindow(every: ${windowMs}ms, fn: ${fn}, createEmpty: false, timeSrc: "_start")\n` +
          `  |> yield(name: "${name}_${fn}")\n`,
      );
      return `${name} = ${source}\n${results.join('')}`;
    })
    .join('');
}
