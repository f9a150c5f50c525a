import { expect, test } from 'vitest';
import { backoffMs } from '../../src/platform/backoff.ts';

const range = { minMs: 1000, maxMs: 60_000 };

test('waits double up to the ceiling, half of each being chance', () => {
  expect([1, 2, 3, 6, 7, 8, 5000].map((failures) => backoffMs(failures, () => 0, range))).toEqual([
    500, 1000, 2000, 16_000, 30_000, 30_000, 30_000,
  ]);
  expect([1, 2, 7].map((failures) => backoffMs(failures, () => 0.999_999, range))).toEqual([
    1000, 2000, 60_000,
  ]);
});
