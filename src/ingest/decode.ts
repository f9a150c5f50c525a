// Bytes from a device → samples. Pure; never throws, whatever the bytes. Takes a JSON object of fields, a bare
// number, true or false, line protocol (telemetry), or a bare word (the other channels). What cannot be taken is
// answered with a code, the field and what was expected. A faulty message still yields its good fields: it is
// not stored, but the rules may look at it, because `{"wet":true,"x":[]}` is a leak first and a mistake second.

import { isUtf8 } from 'node:buffer';
import { LineProtocolError, type ParsedLine, parseLine } from '../model/line-protocol.ts';
import type { Channel } from '../model/message.ts';
import type { FieldValue } from '../model/point.ts';
import { parseTimestamp, timeOfEpoch, timestampExpected } from '../model/timestamp.ts';

/** What one message may hold. Part of the outside contract, so no configuration key. */
export const decodeLimits = {
  /** A busy node's report has some twenty fields. */
  fieldsMax: 64,
  /** Of a field's or measurement's name: InfluxDB indexes each. */
  nameBytesMax: 128,
  stringBytesMax: 1_024,
  linesMax: 1_000,
  payloadBytesMax: 256 * 1_024,
} as const;

export interface Fault {
  /** Stable, for machines. */
  readonly code: string;
  /** For people: which field, what was expected. */
  readonly reason: string;
  readonly field?: string;
}

export interface Sample {
  readonly measurement: string;
  readonly fields: Map<string, FieldValue>;
  /** As the sender says; undefined when it says nothing. */
  readonly timeNs: bigint | undefined;
  /** With both, the message has an identity and a re-sent one is told apart. */
  readonly boot: string | undefined;
  readonly seq: number | undefined;
  /** The sample must not be stored, and why. The fields read so far are there all the same. */
  readonly fault: Fault | undefined;
  /** The line it came from, where the message has many and only this one is at fault. */
  readonly line: string | undefined;
}

export interface Decoded {
  readonly samples: readonly Sample[];
  /** Tags in line protocol that the registry does not know; they are left out. */
  readonly tagsDropped: number;
}

/** The part of a message that decoding depends on. */
export interface DecodeInput {
  readonly channel: Channel;
  readonly name: string;
  readonly payload: Buffer;
}

const nothing: Decoded = { samples: [], tagsDropped: 0 };

const channelMeasurement = {
  status: 'status',
  alarms: 'alarm_report',
  'command-ack': 'command_ack',
} as const satisfies Record<Exclude<Channel, 'telemetry'>, string>;

const numberPattern = /^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/;
const bootPattern = /^[\w.:-]{1,64}$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const controlPattern = /[\u0000-\u001f\u007f]/;

/** Whether a UTF-16 unit can be at most three bytes of UTF-8, so most names need no second look. */
function isLongerThan(text: string, bytesMax: number): boolean {
  return text.length * 3 > bytesMax && Buffer.byteLength(text) > bytesMax;
}

function nameFault(name: string, what: 'field' | 'measurement'): Fault | undefined {
  const at = what === 'field' ? { field: name.slice(0, decodeLimits.nameBytesMax) } : {};
  if (name === '' || controlPattern.test(name)) {
    return { code: 'NAME_INVALID', reason: `expected a ${what} name without control characters`, ...at };
  }
  if (isLongerThan(name, decodeLimits.nameBytesMax)) {
    return {
      code: 'NAME_TOO_LONG',
      reason: `expected a ${what} name of at most ${decodeLimits.nameBytesMax} bytes`,
      ...at,
    };
  }
  // InfluxDB keeps this name for itself and drops the point.
  if (what === 'field' && name === 'time') {
    return { code: 'NAME_RESERVED', reason: 'expected another field name than "time"', ...at };
  }
  return undefined;
}

/** Puts one field into the sample, or says why not. */
function takeField(fields: Map<string, FieldValue>, name: string, value: unknown): Fault | undefined {
  const fault = nameFault(name, 'field');
  if (fault !== undefined) return fault;
  let taken: FieldValue;
  switch (typeof value) {
    case 'number':
      if (!Number.isFinite(value)) {
        return { code: 'NUMBER_TOO_LARGE', reason: `field "${name}": expected a finite number`, field: name };
      }
      taken = value;
      break;
    case 'boolean':
      taken = value;
      break;
    case 'string':
      if (isLongerThan(value, decodeLimits.stringBytesMax)) {
        return {
          code: 'STRING_TOO_LONG',
          reason: `field "${name}": expected at most ${decodeLimits.stringBytesMax} bytes`,
          field: name,
        };
      }
      // A line break would split the point in two for everyone downstream who counts lines.
      taken = /[\r\n]/.test(value) ? value.replace(/\r\n?|\n/g, ' ') : value;
      break;
    default:
      return {
        code: 'FIELD_NOT_SCALAR',
        reason: `field "${name}": expected a number, true, false or text, not ${Array.isArray(value) ? 'an array' : 'an object'}`,
        field: name,
      };
  }
  if (fields.size >= decodeLimits.fieldsMax && !fields.has(name)) {
    return {
      code: 'TOO_MANY_FIELDS',
      reason: `expected at most ${decodeLimits.fieldsMax} fields`,
      field: name,
    };
  }
  fields.set(name, taken);
  return undefined;
}

function measurementOf(channel: Channel, name: string): string {
  if (channel !== 'telemetry') return channelMeasurement[channel];
  return name === '' ? 'device_telemetry' : name;
}

function single(input: DecodeInput, fields: Map<string, FieldValue>, fault: Fault | undefined): Decoded {
  const measurement = measurementOf(input.channel, input.name);
  return {
    samples: [
      {
        measurement,
        fields,
        timeNs: undefined,
        boot: undefined,
        seq: undefined,
        fault: fault ?? nameFault(measurement, 'measurement'),
        line: undefined,
      },
    ],
    tagsDropped: 0,
  };
}

function refused(input: DecodeInput, code: string, reason: string): Decoded {
  return single(input, new Map(), { code, reason });
}

function bootOf(value: unknown): string | undefined {
  if (typeof value === 'string' && bootPattern.test(value)) return value;
  return typeof value === 'number' && Number.isSafeInteger(value) && value >= 0 ? String(value) : undefined;
}

function decodeObject(
  input: Omit<DecodeInput, 'payload'>,
  object: Readonly<Record<string, unknown>>,
): Sample {
  const fields = new Map<string, FieldValue>();
  const measurement = measurementOf(input.channel, input.name);
  let fault = nameFault(measurement, 'measurement');
  let timeNs: bigint | undefined;
  let boot: string | undefined;
  let seq: number | undefined;

  for (const name of Object.keys(object)) {
    const value = object[name];
    if (value === null) continue;
    switch (name) {
      case 'timestamp':
        timeNs = parseTimestamp(value);
        if (timeNs === undefined) {
          fault ??= {
            code: 'TIMESTAMP_INVALID',
            reason: `timestamp: expected ${timestampExpected}`,
            field: name,
          };
        }
        break;
      case 'boot':
        boot = bootOf(value);
        if (boot === undefined) {
          fault ??= {
            code: 'BOOT_INVALID',
            reason: 'boot: expected a whole number, or 1 to 64 letters, digits or one of . : _ -',
            field: name,
          };
        }
        break;
      case 'seq':
        if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) seq = value;
        else fault ??= { code: 'SEQ_INVALID', reason: 'seq: expected a whole number from 0', field: name };
        break;
      case 'metadata':
        // Describing a device is the registry's affair; senders of old attach it to every message.
        if (typeof value === 'object') break;
        fault = takeField(fields, name, value) ?? fault;
        break;
      default:
        fault = takeField(fields, name, value) ?? fault;
    }
  }
  if (fields.size === 0) fault ??= { code: 'NO_FIELDS', reason: 'expected at least one field' };
  else if (input.channel !== 'telemetry' && !fields.has('kind') && fields.size < decodeLimits.fieldsMax) {
    // The measurement is the channel's, so the kind would be lost.
    fields.set('kind', input.name);
  }
  return { measurement, fields, timeNs, boot, seq, fault, line: undefined };
}

/** An object of fields that came as part of something larger; an empty name is `device_telemetry`. */
export function decodeFields(name: string, object: Readonly<Record<string, unknown>>): Sample {
  return decodeObject({ channel: 'telemetry', name }, object);
}

const registryTags = new Set(['device_id', 'device_name', 'device_type', 'location', 'gateway']);

function sampleOfLine(parsed: ParsedLine, line: string): Sample {
  const fields = new Map<string, FieldValue>();
  let fault = nameFault(parsed.measurement, 'measurement');
  for (const [name, value] of parsed.fields) fault = takeField(fields, name, value) ?? fault;
  let timeNs: bigint | undefined;
  if (parsed.time !== undefined) {
    timeNs = timeOfEpoch(parsed.time);
    if (timeNs === undefined) {
      fault ??= { code: 'TIMESTAMP_INVALID', reason: `timestamp: expected ${timestampExpected}` };
    }
  }
  return { measurement: parsed.measurement, fields, timeNs, boot: undefined, seq: undefined, fault, line };
}

/** Each line stands alone: a bad one is refused, the others are kept. Its own measurement counts. */
function decodeLines(input: DecodeInput, text: string): Decoded {
  const lines = text.split('\n', decodeLimits.linesMax + 1);
  if (lines.length > decodeLimits.linesMax) {
    return refused(input, 'TOO_MANY_LINES', `expected at most ${decodeLimits.linesMax} lines`);
  }
  const samples: Sample[] = [];
  const taken = new Set<string>();
  let tagsDropped = 0;
  let parsedAny = false;
  for (const raw of lines) {
    const line = raw.trim();
    if (line === '' || line.startsWith('#')) continue;
    try {
      const parsed = parseLine(line);
      parsedAny = true;
      const sample = sampleOfLine(parsed, line);
      let foreignTags = 0;
      for (const key of parsed.tags.keys()) if (!registryTags.has(key)) foreignTags += 1;
      tagsDropped += foreignTags;
      const series = `${parsed.measurement}\n${parsed.time ?? ''}`;
      // Without their own tags two lines can become one point, and the second would overwrite the first.
      const isClash = foreignTags > 0 && parsed.time !== undefined && taken.has(series);
      taken.add(series);
      samples.push(
        isClash && sample.fault === undefined
          ? {
              ...sample,
              fault: {
                code: 'TAGS_NOT_ALLOWED',
                reason:
                  'tags come from the registry; without its own tags this line is the same point as another',
              },
            }
          : sample,
      );
    } catch (error) {
      if (!(error instanceof LineProtocolError)) throw error;
      samples.push({
        measurement: measurementOf(input.channel, input.name),
        fields: new Map(),
        timeNs: undefined,
        boot: undefined,
        seq: undefined,
        fault: { code: 'NOT_LINE_PROTOCOL', reason: error.message },
        line,
      });
    }
  }
  if (!parsedAny) {
    return refused(
      input,
      'NOT_DECODABLE',
      'expected a JSON object of fields, a number, true, false, or line protocol',
    );
  }
  return { samples, tagsDropped };
}

/** The fields of a status word: the kind names it. */
function decodeWord(input: DecodeInput, word: string): Decoded {
  const fields = new Map<string, FieldValue>();
  const fault = takeField(fields, input.name === '' ? 'value' : input.name, word);
  return single(input, fields, fault);
}

function decodeScalar(input: DecodeInput, value: number | boolean): Decoded {
  const fields = new Map<string, FieldValue>();
  const isTelemetry = input.channel === 'telemetry' || input.name === '';
  const fault = takeField(fields, isTelemetry ? 'value' : input.name, value);
  return single(input, fields, fault);
}

/** An empty payload (how MQTT clears a retained message) yields no sample and no fault. */
export function decode(input: DecodeInput): Decoded {
  const { payload } = input;
  if (payload.length > decodeLimits.payloadBytesMax) {
    return refused(input, 'PAYLOAD_TOO_LARGE', `expected at most ${decodeLimits.payloadBytesMax} bytes`);
  }
  if (!isUtf8(payload)) return refused(input, 'NOT_UTF8', 'expected UTF-8 text');
  const text = payload.toString().trim();
  if (text === '') return nothing;
  const first = text[0];
  if (first === '{' || first === '[' || first === '"') {
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch {
      return refused(input, 'NOT_JSON', 'expected a JSON object of fields (NaN and Infinity are not JSON)');
    }
    if (typeof value === 'string' && input.channel !== 'telemetry') return decodeWord(input, value);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      return refused(input, 'NOT_AN_OBJECT', 'expected a JSON object of fields, not an array or text');
    }
    return { samples: [decodeObject(input, value as Readonly<Record<string, unknown>>)], tagsDropped: 0 };
  }
  if (text === 'true' || text === 'false') return decodeScalar(input, text === 'true');
  if (text.length <= 64 && numberPattern.test(text)) return decodeScalar(input, Number(text));
  if (text === 'null') return refused(input, 'NO_FIELDS', 'expected at least one field');
  return input.channel === 'telemetry' ? decodeLines(input, text) : decodeWord(input, text);
}
