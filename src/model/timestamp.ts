// A sender's idea of time → nanoseconds, and back as RFC 3339. Pure. ISO 8601, or an epoch in s, ms, µs or ns told apart by its
// magnitude: the four ranges do not overlap between the years 1973 and 5138. Does not judge whether the time is
// plausible; that needs a clock.

const secondsEnd = 1e11;
const millisecondsEnd = 1e14;
const microsecondsEnd = 1e17;

// A date alone is midnight. No zone means UTC: nodes have no zone, and Python's utcnow().isoformat() omits it.
const isoPattern =
  /^(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9})\d*)?)?\s?(Z|z|[+-]\d\d(?::?\d\d)?)?$/;

/** What was expected, for people who read a refusal. */
export const timestampExpected = 'ISO 8601, or an epoch in s, ms, µs or ns';

/** From a JSON number; beyond 2^53 (nanoseconds) JSON itself rounds to some 256 ns. Undefined: not a time. */
function fromNumber(value: number): bigint | undefined {
  if (!Number.isFinite(value)) return undefined;
  const magnitude = Math.abs(value);
  // Microseconds are what a double still holds exactly for a present epoch.
  if (magnitude < secondsEnd) return BigInt(Math.round(value * 1e6)) * 1_000n;
  if (magnitude < millisecondsEnd) return BigInt(Math.round(value * 1e3)) * 1_000n;
  if (magnitude < microsecondsEnd) return BigInt(Math.round(value)) * 1_000n;
  return magnitude < 1e19 ? BigInt(Math.round(value)) : undefined;
}

/** From an integer of any size, exactly. Undefined: beyond what InfluxDB can store. */
export function timeOfEpoch(value: bigint): bigint | undefined {
  const magnitude = value < 0n ? -value : value;
  if (magnitude < BigInt(secondsEnd)) return value * 1_000_000_000n;
  if (magnitude < BigInt(millisecondsEnd)) return value * 1_000_000n;
  if (magnitude < BigInt(microsecondsEnd)) return value * 1_000n;
  return magnitude < 9_223_372_036_854_775_807n ? value : undefined;
}

function fromIso(text: string): bigint | undefined {
  const match = isoPattern.exec(text);
  if (match === null) return undefined;
  const [, date, time = '00:00', fraction = '', zone = 'Z'] = match;
  const offset = /^[+-]/.test(zone) ? `${zone.slice(0, 3)}:${zone.slice(3).replace(':', '') || '00'}` : 'Z';
  const ms = Date.parse(`${date}T${time}${offset}`);
  if (Number.isNaN(ms)) return undefined;
  return BigInt(ms) * 1_000_000n + BigInt(fraction.padEnd(9, '0'));
}

/** Nanoseconds since the Unix epoch; undefined when the value names no time. */
export function parseTimestamp(value: unknown): bigint | undefined {
  if (typeof value === 'number') return fromNumber(value);
  if (typeof value !== 'string' || value.length > 64) return undefined;
  const text = value.trim();
  if (/^[+-]?\d{1,19}$/.test(text)) return timeOfEpoch(BigInt(text));
  if (/^[+-]?\d{1,19}\.\d{1,9}$/.test(text)) return fromNumber(Number(text));
  return fromIso(text);
}

/** RFC 3339, with as many decimals as it needs. */
export function timestampText(timeNs: bigint): string {
  const seconds = timeNs / 1_000_000_000n;
  const rest = timeNs % 1_000_000_000n;
  const whole = new Date(Number(seconds) * 1_000).toISOString().slice(0, 19);
  const decimals = rest === 0n ? '' : `.${String(rest).padStart(9, '0').replace(/0+$/, '')}`;
  return `${whole}${decimals}Z`;
}

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const;

/** `5m`, `1h`, `24h`, `7d` in milliseconds; undefined when it is none. */
export function parseDuration(given: string): number | undefined {
  const match = /^(\d{1,9})(ms|s|m|h|d|w)$/.exec(given);
  if (match === null) return undefined;
  return Number(match[1]) * unitMs[match[2] as keyof typeof unitMs];
}
