// InfluxDB line protocol, both ways (https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/).
// A point is encoded once, at ingest; everything downstream moves the bytes. Promises: what `encodePoint`
// writes, `parseLine` reads back as the same point (but for line breaks, which a line cannot hold). Does not promise to accept integers as integers: `7i`
// parses to the float 7, because this gateway knows floats alone.

import type { FieldValue, Point, PointTime } from './point.ts';

// Line protocol has no escape for a line break outside string values: control characters become spaces. One test
// for both kinds, because nearly every name passes it, in every message.
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const measurementSpecial = /[, \\\u0000-\u001f\u007f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const keySpecial = /[,= \\\u0000-\u001f\u007f]/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const control = /[\u0000-\u001f\u007f]/g;

// A backslash is escaped too: unescaped at a value's end it would swallow the separator that follows.
function escapeKey(text: string): string {
  if (!keySpecial.test(text)) return text;
  return text.replace(control, ' ').replace(/[,= \\]/g, '\\$&');
}

function escapeMeasurement(text: string): string {
  if (!measurementSpecial.test(text)) return text;
  return text.replace(control, ' ').replace(/[, \\]/g, '\\$&');
}

/** One field's value as line protocol writes it. Numbers must be finite. */
export function encodeFieldValue(value: FieldValue): string {
  if (typeof value === 'number') return String(value);
  if (typeof value === 'boolean') return value ? 'true' : 'false';
  // One line is one point wherever lines are split downstream, so a line break in a text becomes the two
  // characters `\n`, as Telegraf writes it.
  const text = value.includes('\n') ? value.replaceAll('\n', '\\n') : value;
  return `"${text.replace(/[\\"]/g, '\\$&')}"`;
}

/** `measurement,tag=value,…` with tags in key order, as InfluxDB likes them best. Worth caching per series. */
export function encodeSeries(measurement: string, tags: Iterable<readonly [string, string]>): string {
  let series = escapeMeasurement(measurement);
  const sorted = [...tags].sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, value] of sorted) {
    if (value !== '') series += `,${escapeKey(key)}=${escapeKey(value)}`;
  }
  return series;
}

/**
 * The line without its line break, given an already encoded series. A point without a date ends in
 * ` b<boot>+<nanoseconds>`, which no InfluxDB takes: should it ever get there it is refused, never silently wrong.
 */
export function encodeLine(
  series: string,
  fields: Iterable<readonly [string, FieldValue]>,
  { timeNs, boot }: PointTime,
): string {
  let line = series;
  let separator = ' ';
  for (const [key, value] of fields) {
    line += `${separator}${escapeKey(key)}=${encodeFieldValue(value)}`;
    separator = ',';
  }
  return boot === undefined ? `${line} ${timeNs}` : `${line} b${boot}+${timeNs}`;
}

/** The line without its line break. */
export function encodePoint(point: Point): string {
  return encodeLine(encodeSeries(point.measurement, point.tags), point.fields, point);
}

/** Why a line is not line protocol. */
export class LineProtocolError extends Error {
  override readonly name = 'LineProtocolError';
}

export interface ParsedLine {
  readonly measurement: string;
  readonly tags: Map<string, string>;
  readonly fields: Map<string, FieldValue>;
  /** As written; its unit is the sender's affair. Undefined when the line has none. */
  readonly time: bigint | undefined;
}

/**
 * Parses one line without its line break.
 * @throws LineProtocolError naming what was expected and where.
 */
export function parseLine(line: string): ParsedLine {
  let at = 0;

  function fail(expected: string): never {
    throw new LineProtocolError(`expected ${expected} at character ${at + 1}`);
  }

  /** Reads up to an unescaped stop character, which stays unread. */
  function token(stops: string): string {
    let text = '';
    while (at < line.length) {
      const char = line[at] as string;
      if (char === '\\' && at + 1 < line.length) {
        const next = line[at + 1] as string;
        text +=
          next === ',' || next === '=' || next === ' ' || next === '\\' || next === '"' ? next : `\\${next}`;
        at += 2;
        continue;
      }
      if (stops.includes(char)) break;
      text += char;
      at += 1;
    }
    return text;
  }

  function stringValue(): string {
    let text = '';
    at += 1;
    for (;;) {
      if (at >= line.length) fail('a closing quote');
      const char = line[at] as string;
      if (char === '\\' && (line[at + 1] === '"' || line[at + 1] === '\\')) {
        text += line[at + 1];
        at += 2;
        continue;
      }
      at += 1;
      if (char === '"') return text;
      text += char;
    }
  }

  function fieldValue(): FieldValue {
    if (line[at] === '"') return stringValue();
    const start = at;
    while (at < line.length && line[at] !== ',' && line[at] !== ' ') at += 1;
    const text = line.slice(start, at);
    if (/^(t|T|true|True|TRUE)$/.test(text)) return true;
    if (/^(f|F|false|False|FALSE)$/.test(text)) return false;
    const digits = /^[+-]?\d+[iu]$/.test(text) ? text.slice(0, -1) : text;
    if (/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(digits)) {
      const value = Number(digits);
      if (Number.isFinite(value)) return value;
    }
    at = start;
    return fail('a number, a boolean or a quoted string');
  }

  const measurement = token(', ');
  if (measurement === '') fail('a measurement');
  const tags = new Map<string, string>();
  while (line[at] === ',') {
    at += 1;
    const key = token('=, ');
    if (key === '' || line[at] !== '=') fail('tag=value');
    at += 1;
    const value = token(', ');
    if (value === '') fail('a tag value');
    tags.set(key, value);
  }
  if (line[at] !== ' ') fail('a space before the fields');
  while (line[at] === ' ') at += 1;
  const fields = new Map<string, FieldValue>();
  for (;;) {
    const key = token('=, ');
    if (key === '' || line[at] !== '=') fail('field=value');
    at += 1;
    fields.set(key, fieldValue());
    if (line[at] !== ',') break;
    at += 1;
  }
  if (at < line.length && line[at] !== ' ') fail('a space or the end of the line');
  const rest = line.slice(at).trim();
  if (rest !== '' && !/^[+-]?\d{1,19}$/.test(rest)) fail('a timestamp in digits');
  return { measurement, tags, fields, time: rest === '' ? undefined : BigInt(rest) };
}

/** A line of ours as far as thinning looks into it. */
export interface StoredSample {
  /** Measurement and tags as they stand in the line. */
  readonly series: string;
  readonly fields: Map<string, FieldValue>;
  readonly time: PointTime;
}

const undatedTime = / b(\d{1,15})\+(\d{1,19})$/;

/**
 * Parses fields and time of a line this gateway has written; much cheaper than all of it.
 * @throws LineProtocolError as `parseLine`, and for a line without a time.
 */
export function parseStored(line: string): StoredSample {
  let end = 0;
  while (end < line.length && line[end] !== ' ') end += line[end] === '\\' ? 2 : 1;
  const series = line.slice(0, end);
  // Looked for where a date begins with a letter; nothing else ends so.
  const undated = line.includes(' b', end) ? undatedTime.exec(line) : null;
  const { fields, time } = parseLine(`m${line.slice(end, undated?.index)}`);
  if (undated !== null && time === undefined) {
    return { series, fields, time: { timeNs: BigInt(undated[2] ?? 0), boot: Number(undated[1]) } };
  }
  if (time === undefined) throw new LineProtocolError('expected a timestamp at the end');
  return { series, fields, time: { timeNs: time } };
}

/**
 * The lines of a body, without their line breaks; empty ones are left out. A line break inside a quoted string
 * value belongs to its line; a quote that is never closed does not swallow the lines after it.
 */
export function splitLines(text: string): string[] {
  if (!text.includes('"')) return text.split('\n').filter((line) => line !== '');
  const lines: string[] = [];
  let start = 0;
  while (start < text.length) {
    const end = endOfLine(text, start);
    if (end > start) lines.push(text.slice(start, end));
    start = end + 1;
  }
  return lines;
}

function endOfLine(text: string, start: number): number {
  const firstBreak = text.indexOf('\n', start);
  const plainEnd = firstBreak === -1 ? text.length : firstBreak;
  const firstQuote = text.indexOf('"', start);
  if (firstQuote === -1 || firstQuote > plainEnd) return plainEnd;
  let inFields = false;
  let inString = false;
  let isAfterEquals = false;
  for (let at = start; at < text.length; at += 1) {
    const char = text[at];
    if (char === '\n' && !inString) return at;
    if (char === ' ') inFields = true;
    // Only where a value begins does a quote open a string; elsewhere it is a letter like any other.
    if (char === '"') inString = !inString && inFields && isAfterEquals;
    isAfterEquals = char === '=';
    if (char === '\\') at += 1;
  }
  return inString ? plainEnd : text.length;
}
