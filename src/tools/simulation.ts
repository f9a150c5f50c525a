// What the simulate commands share: their options read and checked, their waits, their percentiles.

import { backoffMs } from '../platform/backoff.ts';
import { GatewayError } from '../platform/errors.ts';
import type { ReconnectWait } from '../simulator/link.ts';
import type { Call } from './command.ts';

export function number(call: Call, option: string, fallback: number, min: number, max: number): number {
  const text = call.text(option);
  if (text === undefined) return fallback;
  const value = Number(text);
  if (text.trim() === '' || !(value >= min && value <= max)) {
    throw new GatewayError(
      'ARGUMENT_INVALID',
      `--${option}: expected a number from ${min} to ${max}, got "${text}"`,
    );
  }
  return value;
}

/** `5%` or `0.05`. */
export function share(call: Call, option: string): number {
  const text = call.text(option) ?? '0';
  const value = text.endsWith('%') ? Number(text.slice(0, -1)) / 100 : Number(text);
  if (!(value >= 0 && value <= 1)) {
    throw new GatewayError('ARGUMENT_INVALID', `--${option}: expected 0% to 100%, got "${text}"`);
  }
  return value;
}

export function urlOf(call: Call, option: string): string | undefined {
  const text = call.text(option);
  if (text !== undefined && !URL.canParse(text)) {
    throw new GatewayError('ARGUMENT_INVALID', `--${option}: expected a URL, got "${text}"`);
  }
  return text;
}

/** As firmware should: soon at first, never in step with the others. */
export function reconnectWait(random: () => number): ReconnectWait {
  return (failures) => backoffMs(failures, random, { minMs: 1000, maxMs: 15_000 });
}

/** Aborted by Ctrl-C or SIGTERM. */
export function stopRequested(): AbortController {
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.once('SIGTERM', () => stop.abort());
  return stop;
}

export interface Percentiles {
  readonly p50Ms: number | undefined;
  readonly p99Ms: number | undefined;
}

export function percentiles(samplesMs: readonly number[]): Percentiles {
  const sorted = Float64Array.from(samplesMs).sort();
  const at = (fraction: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * fraction))];
  return { p50Ms: at(0.5), p99Ms: at(0.99) };
}

export function latencyText(ms: number | undefined): string {
  return ms === undefined ? '–' : `${ms.toFixed(1)} ms`;
}
