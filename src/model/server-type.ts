// What InfluxDB keeps a field as. The gateway knows numbers; InfluxDB tells integers from floats, and a field that
// was first written as an integer (by whatever wrote it before us) refuses `50` and takes `50i`. Pure.

import { type LineField, putTogether, takeApart } from './line-parts.ts';

export type ServerType = 'float' | 'integer' | 'unsigned' | 'boolean' | 'string';

export interface ServerFieldType {
  readonly measurement: string;
  readonly field: string;
  readonly type: ServerType;
}

/** The types InfluxDB is known to keep fields as. Only those it spoke of: most are unknown. */
export interface ServerTypes {
  /** How many are known. */
  readonly size: number;
  typeOf(measurement: string, field: string): ServerType | undefined;
  list(): readonly ServerFieldType[];
  /** Resolves when it is durably forgotten, to whether it was known. */
  forget(measurement: string, field: string): Promise<boolean>;
}

const serverTypes: ReadonlySet<string> = new Set(['float', 'integer', 'unsigned', 'boolean', 'string']);

export function isServerType(text: unknown): text is ServerType {
  return typeof text === 'string' && serverTypes.has(text);
}

const int64End = 2 ** 63;
const uint64End = 2 ** 64;

/** The type of a value as line protocol writes it; undefined when it is none. */
export function typeOfValue(value: string): ServerType | undefined {
  if (value.startsWith('"')) return 'string';
  if (/^[+-]?\d+i$/.test(value)) return 'integer';
  if (/^\+?\d+u$/.test(value)) return 'unsigned';
  if (/^(?:t|T|true|True|TRUE|f|F|false|False|FALSE)$/.test(value)) return 'boolean';
  return Number.isFinite(Number(value)) ? 'float' : undefined;
}

/** The same value written as the type; undefined when it is not the same any more. */
export function writtenAs(value: string, type: ServerType): string | undefined {
  const own = typeOfValue(value);
  if (own === type) return value;
  if (own !== 'float' && own !== 'integer' && own !== 'unsigned') return undefined;
  if (type === 'boolean' || type === 'string') return undefined;
  const digits = own === 'float' ? wholeDigits(value) : value.slice(0, -1);
  if (type === 'float') return digits;
  if (digits === undefined) return undefined;
  // The largest numbers have no exact double: what rounds up to the end does not fit either.
  const number = Number(digits);
  if (type === 'integer') return number >= -int64End && number < int64End ? `${digits}i` : undefined;
  return number >= 0 && number < uint64End ? `${digits.replace(/^[+-]/, '')}u` : undefined;
}

function wholeDigits(value: string): string | undefined {
  const number = Number(value);
  return Number.isInteger(number) ? String(BigInt(number)) : undefined;
}

/** The line with every value written as its type wants it; what does not fit, and what is unknown, stays. */
export function lineWrittenAs(line: string, types: Pick<ServerTypes, 'typeOf'>): string {
  const parts = takeApart(line);
  if (parts === undefined) return line;
  let isChanged = false;
  const fields = parts.fields.map((field) => {
    const type = types.typeOf(parts.measurement, field.name);
    const value =
      type === undefined
        ? undefined
        : (writtenAs(field.value, type) ?? writtenAs(roundedMean(field, parts.fields), type));
    if (value === undefined || value === field.value) return field;
    isChanged = true;
    return { ...field, value };
  });
  return isChanged ? putTogether({ ...parts, fields }) : line;
}

/**
 * A mean of thinned integers (`thinning.ts`) has a fraction, and its extremes beside it: they say what it is, and are
 * worth more than the fraction. Any other value stays as it is.
 */
function roundedMean({ name, value }: LineField, fields: readonly LineField[]): string {
  const isBeside = (other: string) => fields.some((field) => field.name === other);
  const isMean = typeOfValue(value) === 'float' && isBeside(`${name}_min`) && isBeside(`${name}_max`);
  return isMean ? String(Math.round(Number(value))) : value;
}

/** Why a value cannot be stored: for people. */
export function misfitReason(measurement: string, field: string, type: ServerType, value: string): string {
  const shown = value.length > 80 ? `${value.slice(0, 80)}…` : value;
  const kept = `field "${field}" of ${measurement}: InfluxDB keeps it as ${type}`;
  return `${kept}, and ${shown} is not ${type === 'integer' || type === 'unsigned' ? 'a whole number that fits' : `a ${type}`}`;
}
