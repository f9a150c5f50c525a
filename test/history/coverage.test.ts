import { expect, test } from 'vitest';
import { type Bucket, hourMs, type Level } from '../../src/history/chunk-store.ts';
import { coveredFromMs } from '../../src/history/coverage.ts';

const dayMs = 24 * hourMs;
const wallMs = Date.UTC(2026, 10, 21, 12);

/** What came when, as history's own clock tells it that has been running for so long. */
function bucket(level: Level, atMs: number, cameMs: number, runMs: number): Bucket {
  const bornMs = runMs - (wallMs - cameMs);
  const number = Math.floor(atMs / (level === 'raw' ? hourMs : dayMs));
  return { level, number, bytes: 1, chunks: 1, rows: 1, bornMs, changedMs: bornMs };
}

test('history that has just begun covers what came since it began, and nothing before', () => {
  expect(coveredFromMs([], 5_000, wallMs)).toBe(wallMs - 5_000);
  const runMs = 20 * 60_000;
  const buckets = [bucket('raw', wallMs - runMs, wallMs - runMs, runMs)];
  expect(coveredFromMs(buckets, runMs, wallMs)).toBe(wallMs - runMs);
});

test('once the oldest days are gone it covers what is left', () => {
  const runMs = 400 * dayMs;
  const days = [30, 29, 3].map((ago) => bucket('thinned', wallMs - ago * dayMs, wallMs - ago * dayMs, runMs));
  const buckets = [bucket('raw', wallMs - hourMs, wallMs - hourMs, runMs), ...days];
  expect(coveredFromMs(buckets, runMs, wallMs)).toBe(Date.UTC(2026, 9, 22));
});

test('a reading of last year that came today does not make it cover a year', () => {
  const runMs = 400 * dayMs;
  const late = bucket('raw', wallMs - 365 * dayMs, wallMs - hourMs, runMs);
  const today = bucket('raw', wallMs - hourMs, wallMs - hourMs, runMs);
  expect(coveredFromMs([late, today], runMs, wallMs)).toBe(wallMs - hourMs);
});

test('days without power make it cover less, never more', () => {
  // Ran for two days of the last ten.
  const runMs = 2 * dayMs;
  const before = { ...bucket('thinned', wallMs - 10 * dayMs, wallMs, runMs), bornMs: 0, changedMs: 0 };
  expect(coveredFromMs([before], runMs, wallMs)).toBeGreaterThanOrEqual(wallMs - 2 * dayMs);
});
