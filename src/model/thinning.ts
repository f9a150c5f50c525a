// Fewer points that still tell the story: all samples of a series within a window become one. Promises: the mean
// stays under the field's own name, the extremes beside it as `f_min` and `f_max` where they differ from it, so
// that a spike is never averaged away; thinning what is thinned keeps them. Memory is bounded: windows that have
// been open longest are closed early, and as the time of a window is that of its last sample, two parts of one
// window never overwrite each other. The mean of thinned points weighs them alike. No clock, no I/O.

import type { FieldValue } from './point.ts';

export const minuteNs = 60_000_000_000n;
export const hourNs = 3_600_000_000_000n;

const openBytesMaxDefault = 8 * 1024 * 1024;
/** What a window and a field of it cost in memory beside their texts; an estimate. */
const windowBytes = 300;
const fieldBytes = 120;

/** One field of one window so far. */
export interface FieldSummary {
  /** Of numbers the mean, of booleans whether any was true, of texts the last. */
  value: FieldValue;
  /** How many samples are in it. */
  count: number;
  /** The extremes of numbers; meaningless for the others. */
  min: number;
  max: number;
}

/** `min` and `max` are known of a sample that is a summary itself. */
export function summaryOf(value: FieldValue, min?: number, max?: number): FieldSummary {
  const number = typeof value === 'number' ? value : 0;
  return { value, count: 1, min: min ?? number, max: max ?? number };
}

/** Takes in the next sample, in the order of time. A value of another type begins anew. */
export function addSample(summary: FieldSummary, value: FieldValue, min?: number, max?: number): void {
  if (typeof value !== typeof summary.value) {
    Object.assign(summary, summaryOf(value, min, max));
    return;
  }
  summary.count += 1;
  if (typeof value === 'number' && typeof summary.value === 'number') {
    summary.min = Math.min(summary.min, min ?? value);
    summary.max = Math.max(summary.max, max ?? value);
    // Each part divided for itself: a sum could overflow. Kept between the extremes, which rounding could leave,
    // so that a constant value stays exactly what it is.
    const mean = summary.value + (value / summary.count - summary.value / summary.count);
    summary.value = Math.min(summary.max, Math.max(summary.min, mean));
  } else if (typeof value === 'boolean') summary.value = summary.value === true || value;
  else summary.value = value;
}

/** The fields a summary is written as. */
export function* summaryFields(
  name: string,
  { value, min, max }: FieldSummary,
): Iterable<[name: string, value: FieldValue]> {
  yield [name, value];
  if (typeof value !== 'number') return;
  if (min !== value) yield [`${name}_min`, min];
  if (max !== value) yield [`${name}_max`, max];
}

interface Window {
  readonly series: string;
  readonly fields: Map<string, FieldSummary>;
  timeNs: bigint;
  bytes: number;
}

export interface ThinnerOptions {
  readonly windowNs: bigint;
  /** A window that is done. The series is as it was given. */
  readonly emit: (series: string, fields: Map<string, FieldValue>, timeNs: bigint) => void;
  /** Estimated memory of open windows; default 8 MiB. */
  readonly openBytesMax?: number;
}

/**
 * Thins a stream of samples of many series. Windows of one series may be open side by side: a node that sends what
 * it had kept mixes old with new.
 */
export class Thinner {
  readonly #options: ThinnerOptions;
  readonly #openBytesMax: number;
  /** The one opened first is first. */
  readonly #open = new Map<string, Window>();
  #openBytes = 0;
  #emitted = 0;

  constructor(options: ThinnerOptions) {
    this.#options = options;
    this.#openBytesMax = options.openBytesMax ?? openBytesMaxDefault;
  }

  /** Points that have been emitted or would be by `finish`. */
  get points(): number {
    return this.#emitted + this.#open.size;
  }

  add(series: string, fields: ReadonlyMap<string, FieldValue>, timeNs: bigint): void {
    const key = `${timeNs / this.#options.windowNs} ${series}`;
    let window = this.#open.get(key);
    if (window === undefined) {
      window = { series, fields: new Map(), timeNs, bytes: 0 };
      this.#open.set(key, window);
      this.#grow(window, windowBytes + 2 * key.length);
    }
    const isLate = timeNs < window.timeNs;
    if (!isLate) window.timeNs = timeNs;
    for (const [name, value] of fields) this.#addField(window, name, value, fields, isLate);
    while (this.#openBytes > this.#openBytesMax) {
      const [oldest] = this.#open.keys();
      if (oldest === undefined) return;
      this.#close(oldest);
    }
  }

  /** Emits what is still open, at most so many windows; answers whether that was all. */
  finish(windowsMax: number = Number.POSITIVE_INFINITY): boolean {
    let left = windowsMax;
    for (const key of this.#open.keys()) {
      if (left === 0) return false;
      left -= 1;
      this.#close(key);
    }
    return true;
  }

  #addField(
    window: Window,
    name: string,
    value: FieldValue,
    beside: ReadonlyMap<string, FieldValue>,
    isLate: boolean,
  ): void {
    if (isExtreme(name, value, beside)) return;
    const min = extremeOf(`${name}_min`, beside);
    const max = extremeOf(`${name}_max`, beside);
    const summary = window.fields.get(name);
    if (summary === undefined) {
      window.fields.set(name, summaryOf(value, min, max));
      this.#grow(window, fieldBytes + 2 * name.length + textLength(value));
      return;
    }
    // The last text is the one of the latest time, in whatever order they come.
    if (isLate && typeof value === 'string') return;
    this.#grow(window, Math.max(0, textLength(value) - textLength(summary.value)));
    addSample(summary, value, min, max);
  }

  #grow(window: Window, bytes: number): void {
    window.bytes += bytes;
    this.#openBytes += bytes;
  }

  #close(key: string): void {
    const window = this.#open.get(key);
    if (window === undefined) return;
    this.#open.delete(key);
    this.#openBytes -= window.bytes;
    this.#emitted += 1;
    const fields = new Map<string, FieldValue>();
    for (const [name, summary] of window.fields) {
      for (const [as, value] of summaryFields(name, summary)) {
        // A field the device itself calls so goes first.
        if (as === name || !window.fields.has(as)) fields.set(as, value);
      }
    }
    this.#options.emit(window.series, fields, window.timeNs);
  }
}

function textLength(value: FieldValue): number {
  return typeof value === 'string' ? value.length : 0;
}

function extremeOf(name: string, fields: ReadonlyMap<string, FieldValue>): number | undefined {
  const value = fields.get(name);
  return typeof value === 'number' && isExtreme(name, value, fields) ? value : undefined;
}

/** Whether the field is the lower or upper extreme of another one beside it. */
function isExtreme(name: string, value: FieldValue, fields: ReadonlyMap<string, FieldValue>): boolean {
  if (typeof value !== 'number') return false;
  const isMin = name.endsWith('_min');
  if (!isMin && !name.endsWith('_max')) return false;
  const of = fields.get(name.slice(0, -'_min'.length));
  if (typeof of !== 'number') return false;
  // Of something else when it does not fit: minutes, say.
  return isMin ? value <= of : value >= of;
}
