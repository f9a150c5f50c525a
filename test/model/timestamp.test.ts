import { expect, test } from 'vitest';
import { parseTimestamp } from '../../src/model/timestamp.ts';

const momentMs = Date.UTC(2026, 10, 21, 6, 30, 0);
const momentNs = BigInt(momentMs) * 1_000_000n;

test.each([
  ['seconds', momentMs / 1_000],
  ['milliseconds', momentMs],
  ['microseconds', momentMs * 1_000],
  ['seconds in digits', String(momentMs / 1_000)],
  ['milliseconds in digits', String(momentMs)],
  ['microseconds in digits', String(momentMs * 1_000)],
  ['nanoseconds in digits', String(momentNs)],
  ['ISO 8601 with Z', '2026-11-21T06:30:00Z'],
  ['ISO 8601 with an offset', '2026-11-21T08:30:00+02:00'],
  ['ISO 8601 with a short offset', '2026-11-21T08:30:00+02'],
  ['ISO 8601 with a compact offset', '2026-11-21T08:30:00+0200'],
  ['ISO 8601 without a zone, which is UTC', '2026-11-21T06:30:00'],
  ['ISO 8601 with a space', '2026-11-21 06:30'],
])('an epoch or a date is told apart by its form: %s', (_, given) => {
  expect(parseTimestamp(given)).toBe(momentNs);
});

test('a number of nanoseconds loses no more than JSON itself does', () => {
  const difference = (parseTimestamp(Number(momentNs + 123n)) ?? 0n) - momentNs;
  expect(difference >= 0n && difference < 512n).toBe(true);
});

test('fractions of a second are kept, to the nanosecond where they are text', () => {
  expect(parseTimestamp('2026-11-21T06:30:00.123456789Z')).toBe(momentNs + 123_456_789n);
  expect(parseTimestamp('2026-11-21T06:30:00.1234567899Z')).toBe(momentNs + 123_456_789n);
  expect(parseTimestamp(momentMs / 1_000 + 0.25)).toBe(momentNs + 250_000_000n);
});

test.each([
  'yesterday',
  '',
  '2026-13-01',
  '2026-11-21T25:00:00Z',
  '21/11/2026',
  true,
  {},
  [],
  Number.POSITIVE_INFINITY,
  '9'.repeat(19),
  '9'.repeat(40),
])('what is not a time is not guessed at: %j', (given) => {
  expect(parseTimestamp(given)).toBeUndefined();
});
