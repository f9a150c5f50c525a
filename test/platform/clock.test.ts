import { expect, test } from 'vitest';
import { bootTime, systemClock } from '../../src/platform/clock.ts';

const secondNs = 1_000_000_000n;

test('the time since the start of the machine goes on while it sleeps, to a hundredth of a second', () => {
  let monotonicNs = 100n * secondNs;
  let sleptNs = 0n;
  // In hundredths, cut off.
  const uptime = () => ((monotonicNs + sleptNs) / 10_000_000n) * 10_000_000n;
  const bootNs = bootTime(() => monotonicNs, uptime);
  expect(bootNs()).toBe(100n * secondNs);
  monotonicNs += 12_345_678n;
  expect(bootNs()).toBe(100n * secondNs + 12_345_678n);
  sleptNs = 3600n * secondNs;
  monotonicNs += 25_000_000n;
  const awakeNs = bootNs();
  expect(awakeNs - monotonicNs - sleptNs).toBeLessThanOrEqual(0n);
  expect(awakeNs - monotonicNs - sleptNs).toBeGreaterThan(-10_000_000n);
  for (let count = 0; count < 1000; count += 1) {
    monotonicNs += 7_000_000n;
    expect(bootNs() - awakeNs).toBe(monotonicNs - (100n * secondNs + 37_345_678n));
  }
  // Another process of the same boot says the same.
  expect(Number(bootTime(() => monotonicNs, uptime)() - bootNs()) / 1e6).toBeCloseTo(0, -2);
});

test('where the uptime cannot be read, or counts something else, the monotonic clock is all there is', () => {
  for (const uptime of [undefined, 5n * secondNs]) {
    expect(
      bootTime(
        () => 100n * secondNs,
        () => uptime,
      )(),
    ).toBe(100n * secondNs);
  }
});

test('the clocks of this machine agree with each other', async () => {
  const bootNs = bootTime();
  const clock = systemClock();
  const before = [bootNs(), clock.monotonicMs()] as const;
  await new Promise((resolve) => setTimeout(resolve, 50));
  const elapsedMs = Number(bootNs() - before[0]) / 1e6;
  expect(Math.abs(elapsedMs - (clock.monotonicMs() - before[1]))).toBeLessThan(20);
});
