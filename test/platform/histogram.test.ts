import { expect, test } from 'vitest';
import { Histogram } from '../../src/platform/histogram.ts';

test('every observation is counted in the bucket whose bound holds it', () => {
  const histogram = new Histogram();
  for (const ms of [0, 0.1, 0.11, 1, 20, 20.1, 9_999, 60_000]) histogram.observe(ms);
  const { boundsMs, counts, count, maxMs, sumMs } = histogram.snapshot();
  const byBound = Object.fromEntries(counts.map((value, index) => [boundsMs[index] ?? 'above', value]));
  expect(byBound).toMatchObject({ 0.1: 2, 0.2: 1, 1: 1, 20: 1, 50: 1, 10000: 1, above: 1 });
  expect(count).toBe(8);
  expect(counts.reduce((sum, value) => sum + value)).toBe(8);
  expect(maxMs).toBe(60_000);
  expect(sumMs).toBeCloseTo(70_040.31);
});

test('a clock that ran backwards counts as no time, nonsense as nothing', () => {
  const histogram = new Histogram();
  histogram.observe(-5);
  histogram.observe(Number.NaN);
  expect(histogram.snapshot()).toMatchObject({ count: 1, sumMs: 0 });
});

test('a snapshot does not change afterwards', () => {
  const histogram = new Histogram();
  const before = histogram.snapshot();
  histogram.observe(1);
  expect(before.counts.every((value) => value === 0)).toBe(true);
});
