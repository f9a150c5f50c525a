// The governor against a model of a house: publishers, a group commit that lingers, a card that counts.

import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { nextLingerMs } from '../../src/journal/linger.ts';
import { type Random, seededRandom } from '../../src/simulator/random.ts';

const minuteMs = 60_000;
const lingerMaxMs = 250;
const blockBytes = 4096;

/** Moments of a minute at which messages come, in order. */
type Arrivals = (random: Random, minute: number) => number[];

const regular = (perSecond: number): Arrivals => {
  return () => Array.from({ length: perSecond * 60 }, (_, index) => (index * 1000) / perSecond);
};

const atRandom = (perSecond: number): Arrivals => {
  return (random) => {
    const moments: number[] = [];
    for (let at = 0; ; ) {
      at += (-Math.log(1 - random()) * 1000) / perSecond;
      if (at >= minuteMs) return moments;
      moments.push(at);
    }
  };
};

const inBursts = (perSecond: number, size: number): Arrivals => {
  return () =>
    Array.from(
      { length: perSecond * 60 },
      (_, index) => Math.floor(index / size) * ((1000 * size) / perSecond),
    );
};

interface Minute {
  readonly lingerMs: number;
  readonly bytes: number;
  readonly waitedMs: number;
}

/** What the card gets and the publishers wait, minute by minute. */
function simulate(
  arrivals: Arrivals,
  settings: { budgetBytesPerDay: number; minutes: number; otherBytesPerDay?: number },
): Minute[] {
  const random = seededRandom(7);
  const { budgetBytesPerDay, minutes, otherBytesPerDay = 0 } = settings;
  const otherBytes = (otherBytesPerDay / 86_400_000) * minuteMs;
  const past: Minute[] = [];
  let lingerMs = 0;
  for (let minute = 0; minute < minutes; minute += 1) {
    let commits = 0;
    let waitedMs = 0;
    let closesAt = -1;
    for (const at of arrivals(random, minute)) {
      if (at > closesAt) {
        commits += 1;
        closesAt = at + lingerMs;
      }
      waitedMs = Math.max(waitedMs, Math.round(closesAt - at));
    }
    const commitBytes = commits * blockBytes;
    past.push({ lingerMs, bytes: commitBytes + otherBytes, waitedMs });
    const hour = past.slice(-60);
    const projected = (hour.reduce((sum, { bytes }) => sum + bytes, 0) / hour.length) * 1440;
    lingerMs = nextLingerMs({
      lingerMs,
      lingerMaxMs,
      budgetBytesPerDay,
      projectedBytesPerDay: hour.length < 10 ? undefined : projected,
      elapsedMs: minuteMs,
      commits,
      commitBytes,
      otherBytes,
    });
  }
  return past;
}

function bytesPerDay(minutes: readonly Minute[]): number {
  return (minutes.reduce((sum, { bytes }) => sum + bytes, 0) / minutes.length) * 1440;
}

// 20 single messages a second are 7.1 GB a day; lingering as long as allowed leaves 1.2 GB.
const without = 20 * blockBytes * 86_400;

describe('the governor', () => {
  test.each([
    ['20 messages a second, one at a time', regular(20)],
    ['20 messages a second at random moments', atRandom(20)],
    ['80 messages a second in bursts of five', inBursts(80, 5)],
  ])('brings %s below the budget and stays there', (_, arrivals) => {
    const budgetBytesPerDay = without * 0.4;
    const minutes = simulate(arrivals, { budgetBytesPerDay, minutes: 300 });
    expect(bytesPerDay(minutes.slice(0, 10))).toBeGreaterThan(budgetBytesPerDay);
    const settled = minutes.slice(30);
    expect(bytesPerDay(settled)).toBeLessThanOrEqual(budgetBytesPerDay);
    // And no longer than needed: the budget is used.
    expect(bytesPerDay(settled)).toBeGreaterThan(budgetBytesPerDay * 0.5);
  });

  test('does not hunt: once settled it hardly moves', () => {
    for (const arrivals of [regular(20), atRandom(20), inBursts(80, 5)]) {
      const settled = simulate(arrivals, { budgetBytesPerDay: without * 0.4, minutes: 300 }).slice(60);
      const lingers = settled.map(({ lingerMs }) => lingerMs);
      const steps = lingers.slice(1).map((lingerMs, index) => Math.abs(lingerMs - lingers[index]!));
      expect(Math.max(...steps)).toBeLessThanOrEqual(20);
      expect(Math.max(...lingers) - Math.min(...lingers)).toBeLessThanOrEqual(30);
    }
  });

  test('does not hunt where a minute has few messages and each is another number of them', () => {
    const budgetBytesPerDay = 0.9 * blockBytes * 86_400;
    const settled = simulate(atRandom(1), { budgetBytesPerDay, minutes: 600 }).slice(120);
    const lingers = settled.map(({ lingerMs }) => lingerMs);
    expect(Math.max(...lingers) - Math.min(...lingers)).toBeLessThanOrEqual(lingerMaxMs / 2);
    expect(bytesPerDay(settled)).toBeLessThanOrEqual(budgetBytesPerDay);
  });

  test('holds back nothing beyond the maximum, also where the budget cannot be met', () => {
    const minutes = simulate(atRandom(20), { budgetBytesPerDay: without / 50, minutes: 100 });
    expect(Math.max(...minutes.map(({ waitedMs }) => waitedMs))).toBeLessThanOrEqual(lingerMaxMs);
    expect(minutes.at(-1)?.lingerMs).toBe(lingerMaxMs);
  });

  test('makes room for what others write to the card', () => {
    const budgetBytesPerDay = without * 0.6;
    const alone = simulate(regular(20), { budgetBytesPerDay, minutes: 100 });
    const shared = simulate(regular(20), {
      budgetBytesPerDay,
      minutes: 100,
      otherBytesPerDay: without * 0.2,
    });
    expect(shared.at(-1)!.lingerMs).toBeGreaterThan(alone.at(-1)!.lingerMs);
    expect(bytesPerDay(shared.slice(50))).toBeLessThanOrEqual(budgetBytesPerDay);
  });

  test('forgives a burst, and relaxes when the house is quiet again', () => {
    const quiet = regular(1);
    const burst = simulate(
      (random, minute) => (minute >= 60 && minute < 65 ? regular(40) : quiet)(random, minute),
      {
        budgetBytesPerDay: without * 0.4,
        minutes: 100,
      },
    );
    expect(burst.every(({ lingerMs }) => lingerMs === 0)).toBe(true);
    const busy = simulate((random, minute) => (minute < 60 ? regular(40) : quiet)(random, minute), {
      budgetBytesPerDay: without * 0.4,
      minutes: 100,
    });
    expect(busy[59]!.lingerMs).toBeGreaterThan(0);
    expect(busy.at(-1)!.lingerMs).toBe(0);
  });

  test('answers from 0 to the maximum whatever it is told', () => {
    const figure = fc.integer({ min: 0, max: 1e15 });
    fc.assert(
      fc.property(
        fc.record({
          lingerMs: fc.integer({ min: 0, max: lingerMaxMs }),
          budgetBytesPerDay: figure,
          projectedBytesPerDay: fc.option(figure, { nil: undefined }),
          elapsedMs: figure,
          commits: fc.nat(),
          commitBytes: figure,
          otherBytes: figure,
        }),
        (input) => {
          const next = nextLingerMs({ ...input, lingerMaxMs });
          expect(next).toBeGreaterThanOrEqual(0);
          expect(next).toBeLessThanOrEqual(lingerMaxMs);
        },
      ),
    );
  });
});
