// What an answer of InfluxDB means, as a value. Pure. Knows the words of 1.x, 2.x and 3, and of proxies in
// between: only an answer that speaks of points may condemn points; a 400 from a captive portal or a proxy never
// does. Wording changes between versions, so whatever is read from a text is a hint, to be confirmed by asking
// the server again (isolation.ts); only status codes decide.

import { isServerType, type ServerType } from '../model/server-type.ts';

/** Which points were refused, as far as the server told. */
export interface Refusal {
  /** The server's own words, shortened. */
  readonly message: string;
  /** True when the words can only be about points; false for "invalid" and nothing more. */
  readonly aboutPoints: boolean;
  /** InfluxDB 3: lines by number, the first is 1. */
  readonly numbered: ReadonlyMap<number, string>;
  /** InfluxDB 1.x and 2.x: lines quoted in full as unparsable. */
  readonly quoted: readonly string[];
  /** A field whose type differs from the stored one; `type` is what was sent. */
  readonly conflict?: {
    readonly measurement: string;
    readonly field: string;
    readonly type: string;
    readonly existing?: ServerType;
  };
  /** InfluxDB 3: the same, by number of the line, whose measurement it is. */
  readonly columns?: readonly {
    readonly line: number;
    readonly field: string;
    readonly existing: ServerType;
  }[];
  /** How many points of the request were not stored. */
  readonly dropped?: number;
}

export type WriteOutcome =
  | { readonly kind: 'accepted' }
  | { readonly kind: 'rejected'; readonly refusal: Refusal }
  | { readonly kind: 'too-large'; readonly message: string }
  | {
      readonly kind: 'retry';
      readonly reason: string;
      readonly retryAfterMs?: number;
      readonly isTimeout?: boolean;
    }
  /** 401, 403: the token or its rights are wrong. */
  | { readonly kind: 'unauthorised'; readonly message: string }
  /** 404: no such organisation or bucket. */
  | { readonly kind: 'not-found'; readonly message: string }
  /** Whoever answered is not InfluxDB, or the request as such is wrong. */
  | { readonly kind: 'unexpected'; readonly message: string };

export interface Answer {
  readonly status: number;
  readonly contentType: string;
  /** What was read of it; texts may be cut. */
  readonly body: string;
  /** The `Retry-After` header. */
  readonly retryAfter?: string;
  /** The `X-Influxdb-Error` header. */
  readonly influxError?: string;
}

const messageCharsMax = 500;
// A server that says "come back in a day" would be believed for a day after it recovered.
const retryAfterMsMax = 3_600_000;

const speaksOfPoints =
  /partial write|unable to parse|line protocol|field type conflict|beyond retention|max-series|column type|points? (?:is|are|batch)|invalid (?:field|tag|number|timestamp|measurement)|time outside range/i;

/** @param nowMs the wall clock, for a `Retry-After` that is a date */
export function readAnswer(answer: Answer, nowMs: number): WriteOutcome {
  const { status } = answer;
  if (status === 204) return { kind: 'accepted' };
  const message = readMessage(answer);
  // InfluxDB 2.0 answered conflicts with 500; the words are the same ones.
  const isRefusal =
    status === 400 || status === 422 || (status === 500 && /partial write/.test(message.full));
  if (isRefusal) {
    if (!message.isInflux) return { kind: 'unexpected', message: `${status}: ${message.short}` };
    return { kind: 'rejected', refusal: readRefusal(message, status) };
  }
  if (status === 413) return { kind: 'too-large', message: message.short };
  if (status === 401 || status === 403)
    return { kind: 'unauthorised', message: `${status}: ${message.short}` };
  if (status === 404) return { kind: 'not-found', message: message.short };
  if (status >= 500 || status === 429 || status === 408 || status === 425) {
    const reason = `${status}: ${message.short}`;
    const retryAfterMs = readRetryAfter(answer.retryAfter, nowMs);
    return retryAfterMs === undefined ? { kind: 'retry', reason } : { kind: 'retry', reason, retryAfterMs };
  }
  return { kind: 'unexpected', message: `${status}: ${message.short}` };
}

/** Seconds or an HTTP date (RFC 9110, 10.2.3) → milliseconds from now. */
export function readRetryAfter(header: string | undefined, nowMs: number): number | undefined {
  if (header === undefined) return undefined;
  const text = header.trim();
  const wait = /^\d{1,9}$/.test(text) ? Number(text) * 1000 : Date.parse(text) - nowMs;
  if (!Number.isFinite(wait)) return undefined;
  return Math.min(Math.max(wait, 0), retryAfterMsMax);
}

interface Message {
  readonly full: string;
  readonly short: string;
  readonly isInflux: boolean;
  readonly numbered: ReadonlyMap<number, string>;
}

function readMessage(answer: Answer): Message {
  const numbered = new Map<number, string>();
  let full = '';
  let isInflux = false;
  const json = answer.contentType.includes('json') ? parseObject(answer.body) : undefined;
  if (json !== undefined) {
    // 2.x says `message`, 1.x and 3 say `error`.
    const text = json.message ?? json.error;
    if (typeof text === 'string') {
      full = text;
      isInflux = true;
    }
    for (const [number, words] of numberedLines(json.data)) numbered.set(number, words);
    if (numbered.size > 0) full += `: ${[...numbered.values()][0]}`;
  } else if (answer.influxError !== undefined) {
    full = answer.influxError;
    isInflux = true;
  } else {
    full = answer.body;
    isInflux = /^(?:\s*\{"(?:code|error|message)"|partial write|unable to parse|failure writing)/.test(full);
  }
  return { full, short: shorten(full), isInflux, numbered };
}

function readRefusal(message: Message, status: number): Refusal {
  const quoted = [...message.full.matchAll(/unable to parse '([\s\S]*?)': [^\n]*(?:\n|$)/g)].map(
    (match) => match[1],
  );
  const conflict =
    /input field "((?:[^"\\]|\\.)*)" on measurement "((?:[^"\\]|\\.)*)" is type (\w+)(?:, already exists as type (\w+))?/.exec(
      message.full,
    );
  const columns = readColumns(message.numbered);
  const dropped = /dropped=(\d{1,9})/.exec(message.full);
  const aboutPoints =
    status === 422 || message.numbered.size > 0 || quoted.length > 0 || speaksOfPoints.test(message.full);
  return {
    message: message.short,
    aboutPoints,
    numbered: message.numbered,
    quoted: quoted.filter((line) => line !== undefined),
    ...(conflict === null ? {} : { conflict: readConflict(conflict) }),
    ...(columns.length === 0 ? {} : { columns }),
    ...(dropped === null ? {} : { dropped: Number(dropped[1]) }),
  };
}

function readConflict(match: RegExpExecArray): NonNullable<Refusal['conflict']> {
  const [, field = '', measurement = '', type = '', existing] = match;
  // Go's %q: quotes and backslashes are escaped.
  const unquote = (text: string): string => text.replace(/\\(.)/g, '$1');
  return {
    measurement: unquote(measurement),
    field: unquote(field),
    type,
    ...(isServerType(existing) && { existing }),
  };
}

// 3.0: "invalid field value in line protocol for field 'f' on line 1: expected type
// iox::column_type::field::integer, but got …"; later "invalid column type for column 'f', expected
// iox::column_type::field::integer, got …".
const columnWords = /(?:for field|for column) '(.+?)'.*?expected (?:type )?iox::column_type::field::(\w+)/;

function readColumns(numbered: ReadonlyMap<number, string>): NonNullable<Refusal['columns']> {
  return [...numbered].flatMap(([line, words]) => {
    const [, field, named] = columnWords.exec(words) ?? [];
    const existing = named === 'uinteger' ? 'unsigned' : named;
    return field !== undefined && isServerType(existing) ? [{ line, field, existing }] : [];
  });
}

function parseObject(text: string): Readonly<Record<string, unknown>> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== 'object' || value === null) return undefined;
    return value as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

/** InfluxDB 3: `data` is a list of refused lines, or one of them when the whole request was refused for it. */
function numberedLines(list: unknown): [number, string][] {
  const items: unknown[] = Array.isArray(list) ? list : [list];
  const lines: [number, string][] = [];
  for (const item of items) {
    if (typeof item !== 'object' || item === null || !('line_number' in item)) continue;
    const words = 'error_message' in item ? item.error_message : undefined;
    if (typeof item.line_number !== 'number' || !Number.isInteger(item.line_number)) continue;
    lines.push([item.line_number, typeof words === 'string' ? shorten(words) : 'refused']);
  }
  return lines;
}

function shorten(text: string): string {
  const flat = text.replace(/\s+/g, ' ').trim();
  if (flat === '') return 'no explanation';
  return flat.length > messageCharsMax ? `${flat.slice(0, messageCharsMax)}…` : flat;
}
