// Arguments of operations come from outside: the control socket, the command line, HTTP. One checker for all of them.
// Promises: what it returns has the type and the size it says; what it refuses, it names, with what was expected.

import { parseDuration, parseTimestamp, timestampExpected } from '../model/timestamp.ts';
import { GatewayError } from './errors.ts';

export type Arguments = Readonly<Record<string, unknown>>;

const textCharactersMax = 512;
/** The largest time InfluxDB and a chunk of history can hold. */
const timeNsMax = 2n ** 63n - 1n;

/** The error for an argument that will not do. The message begins with its name. */
export function invalidArgument(message: string): GatewayError {
  return new GatewayError('ARGUMENT_INVALID', message);
}

/** @throws GatewayError `ARGUMENT_INVALID` for a name nobody asked for: a typing error must not be passed over. */
export function checkNames(args: Arguments, known: readonly string[]): void {
  const unknown = Object.keys(args).find((name) => !known.includes(name));
  if (unknown === undefined) return;
  const names = known.join(', ') || 'none';
  throw invalidArgument(`unknown argument ${JSON.stringify(unknown.slice(0, 80))}; known are ${names}`);
}

export interface TextBounds {
  /** Characters; 0 allows the empty text. Default 1. */
  readonly min?: number;
  /** Default 512. */
  readonly max?: number;
}

/** Undefined where it was left out. */
export function optionalText(args: Arguments, name: string, bounds: TextBounds = {}): string | undefined {
  const { min = 1, max = textCharactersMax } = bounds;
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' && value.length >= min && value.length <= max) return value;
  throw invalidArgument(`${name}: expected text of ${min} to ${max} characters`);
}

export function requiredText(args: Arguments, name: string, bounds: TextBounds = {}): string {
  const value = optionalText(args, name, bounds);
  if (value !== undefined) return value;
  const { min = 1, max = textCharactersMax } = bounds;
  throw invalidArgument(`${name}: expected text of ${min} to ${max} characters`);
}

/** False where it was left out. */
export function optionalFlag(args: Arguments, name: string): boolean {
  const value = args[name] ?? false;
  if (typeof value === 'boolean') return value;
  throw invalidArgument(`${name}: expected true or false`);
}

export interface WholeBounds {
  readonly min: number;
  readonly max: number;
  /** Where it was left out. */
  readonly fallback: number;
}

export function optionalWhole(args: Arguments, name: string, { min, max, fallback }: WholeBounds): number {
  const value = args[name] ?? fallback;
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value;
  throw invalidArgument(`${name}: expected a whole number from ${min} to ${max}`);
}

/** `now`, `-1h`, or a time; nanoseconds since the epoch. */
export function momentArgument(args: Arguments, name: string, fallback: string, nowMs: number): bigint {
  const value = args[name] ?? fallback;
  const given = typeof value === 'string' ? value.trim() : value;
  if (given === 'now' || given === 'now()') return BigInt(Math.floor(nowMs)) * 1_000_000n;
  const isAgo = typeof given === 'string' && given.startsWith('-');
  const agoMs = isAgo ? parseDuration(given.slice(1)) : undefined;
  const found = agoMs === undefined ? parseTimestamp(given) : BigInt(Math.floor(nowMs) - agoMs) * 1_000_000n;
  // A minus is a time before now; before 1970 nothing was measured here.
  if (found === undefined || (isAgo && agoMs === undefined)) {
    throw invalidArgument(
      `${name}: expected now, a time before it such as -1h or -7d, or ${timestampExpected}`,
    );
  }
  if (found < 0n) return 0n;
  return found > timeNsMax ? timeNsMax : found;
}
