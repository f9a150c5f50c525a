import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import type { PointTime } from '../../src/model/point.ts';
import type { ClockStep, TimeBase, TimeBaseOptions } from '../../src/platform/time-base.ts';
import { FakeMachine } from '../support/fake-machine.ts';

const weekMs = 7 * 86_400_000;
const synchronized = { kind: 'synchronized', source: 'a time server' } as const;

async function opened(machine: FakeMachine, options: Partial<TimeBaseOptions> = {}): Promise<TimeBase> {
  const time = await machine.open(options);
  onTestFinished(() => time.close());
  return time;
}

/** When the stamp says it was, and how far that is from the truth. */
function dated(time: TimeBase, { timeNs, boot }: PointTime) {
  if (boot === undefined) return { ms: Number(timeNs / 1_000_000n), isCertain: true };
  const found = time.dateOf(boot, timeNs);
  if (found === undefined) return undefined;
  return { ms: Number(found.timeNs / 1_000_000n), isCertain: found.isCertain };
}

test('a clock that a time server has set is believed from the first point', async () => {
  const machine = new FakeMachine();
  machine.verdict = synchronized;
  const time = await opened(machine);
  expect(time.isKnown).toBe(true);
  expect(time.stamp()).toEqual({ timeNs: BigInt(machine.trueMs) * 1_000_000n });
});

test('a clock weeks behind gives nothing a date; once it is right, everything of this boot has the true one', async () => {
  const machine = new FakeMachine();
  machine.boot(-3 * weekMs);
  const time = await opened(machine);
  const stamps: [PointTime, number][] = [];
  for (let count = 0; count < 5; count += 1) {
    stamps.push([time.stamp(), machine.trueMs]);
    machine.pass(60_000);
    await time.tick();
  }
  expect(time.isKnown).toBe(false);
  expect(stamps.every(([stamp]) => stamp.boot === time.boot && dated(time, stamp) === undefined)).toBe(true);

  let isTold = 0;
  time.onKnown(() => (isTold += 1));
  machine.wallMs = machine.trueMs;
  machine.verdict = synchronized;
  await time.tick();
  expect([time.isKnown, isTold, time.stats().steps]).toEqual([true, 1, 0]);
  for (const [stamp, ms] of stamps) expect(dated(time, stamp)).toEqual({ ms, isCertain: true });
});

test('sleep counts: what was measured before it keeps its distance', async () => {
  const machine = new FakeMachine();
  machine.boot(-weekMs);
  const time = await opened(machine);
  const before = [time.stamp(), machine.trueMs] as const;
  machine.sleep(5 * 3_600_000);
  const after = [time.stamp(), machine.trueMs] as const;
  machine.wallMs = machine.trueMs;
  machine.verdict = synchronized;
  await time.tick();
  for (const [stamp, ms] of [before, after]) expect(dated(time, stamp)).toEqual({ ms, isCertain: true });
});

test('a gateway started again in the same boot goes on where it was, with the same dates', async () => {
  const machine = new FakeMachine();
  machine.boot(-weekMs);
  const first = await opened(machine);
  const stamp = first.stamp();
  const { trueMs } = machine;
  machine.pass(10_000);
  const second = await opened(machine);
  expect([second.isKnown, second.boot]).toEqual([false, first.boot]);
  machine.wallMs = machine.trueMs;
  machine.verdict = synchronized;
  await second.tick();
  expect(dated(second, stamp)).toEqual({ ms: trueMs, isCertain: true });

  machine.pass(10_000);
  machine.verdict = { kind: 'waiting' };
  const third = await opened(machine);
  expect(third.isKnown).toBe(true);
  expect(dated(third, stamp)).toEqual({ ms: trueMs, isCertain: true });
});

test('points of boots that never knew the date are bounded by the boots around them, and say so', async () => {
  const machine = new FakeMachine();
  machine.verdict = synchronized;
  await (await opened(machine)).close();
  machine.keeper.flush();
  const offMs = 40_000;
  const points: { stamp: PointTime; ms: number }[] = [];
  machine.verdict = { kind: 'waiting' };
  for (let boot = 0; boot < 3; boot += 1) {
    machine.boot(-3 * weekMs, offMs);
    for (let start = 0; start < 2; start += 1) {
      const time = await opened(machine);
      for (let count = 0; count < 10; count += 1) {
        machine.pass(30_000);
        points.push({ stamp: time.stamp(), ms: machine.trueMs });
        machine.keeper.flush();
      }
    }
  }
  machine.boot(0, offMs);
  const time = await opened(machine);
  expect(points.every(({ stamp }) => dated(time, stamp) === undefined)).toBe(true);
  machine.verdict = synchronized;
  machine.pass(5_000);
  await time.tick();
  let before = 0;
  for (const { stamp, ms } of points) {
    const found = dated(time, stamp);
    if (found === undefined) throw new Error('no date');
    expect(found.isCertain).toBe(false);
    // As late as it can have been: too late by what the machine was off since, and never earlier than it was.
    expect(found.ms).toBeGreaterThanOrEqual(ms);
    expect(found.ms).toBeLessThanOrEqual(ms + 3 * offMs);
    expect(found.ms).toBeGreaterThan(before);
    before = found.ms;
  }
  expect(before).toBeLessThan(machine.trueMs);
  // The same after the next start, and the one after a later boot.
  const answers = points.map(({ stamp }) => dated(time, stamp));
  machine.keeper.flush();
  machine.boot(0, offMs);
  const later = await opened(machine);
  expect(points.map(({ stamp }) => dated(later, stamp))).toEqual(answers);
});

test('whatever happens before the date is known, it is never guessed: exact, or bounded and marked', async () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant('pass'), ms: fc.integer({ min: 1, max: 600_000 }) }),
    fc.record({ kind: fc.constant('sleep'), ms: fc.integer({ min: 1, max: 86_400_000 }) }),
    fc.record({ kind: fc.constant('restart'), ms: fc.constant(0) }),
    fc.record({ kind: fc.constant('power cut'), ms: fc.integer({ min: 1000, max: 86_400_000 }) }),
    fc.record({ kind: fc.constant('synchronize'), ms: fc.constant(0) }),
    fc.record({ kind: fc.constant('set wrong'), ms: fc.integer({ min: -weekMs, max: weekMs }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
      const machine = new FakeMachine();
      machine.boot(-2 * weekMs);
      let time = await machine.open();
      const points: { stamp: PointTime; ms: number; bootNumber: number }[] = [];
      const known = new Set<number>();
      for (const { kind, ms } of steps) {
        if (kind === 'pass') machine.pass(ms);
        if (kind === 'sleep') machine.sleep(ms);
        // A clock that is believed is not set wrong here: nobody could tell that from one that is set right.
        if (kind === 'set wrong' && !time.isKnown) machine.wallMs = machine.trueMs + ms;
        if (kind === 'restart') {
          await time.close();
          time = await machine.open();
        }
        if (kind === 'power cut') {
          machine.verdict = { kind: 'waiting' };
          machine.boot(-2 * weekMs, ms);
          time = await machine.open();
        }
        if (kind === 'synchronize') {
          machine.wallMs = machine.trueMs;
          machine.verdict = synchronized;
          await time.tick();
        }
        if (time.isKnown) known.add(time.boot);
        points.push({ stamp: time.stamp(), ms: machine.trueMs, bootNumber: time.boot });
        machine.keeper.flush();
      }
      machine.boot(0, 1000);
      machine.verdict = synchronized;
      const last = await machine.open();
      for (const { stamp, ms, bootNumber } of points) {
        const found = dated(last, stamp);
        expect(found?.isCertain).toBe(known.has(bootNumber));
        if (found?.isCertain) expect(Math.abs(found.ms - ms)).toBeLessThanOrEqual(1);
        else expect(found?.ms).toBeGreaterThanOrEqual(ms - 1001);
      }
      await last.close();
    }),
    { numRuns: 200 },
  );
});

test('steps of a clock that is believed are followed and reported, in both directions; slow drift is not', async () => {
  const machine = new FakeMachine();
  machine.verdict = synchronized;
  const time = await opened(machine);
  const steps: ClockStep[] = [];
  time.onStep((step) => steps.push(step));
  for (let count = 0; count < 600; count += 1) {
    machine.pass(1000);
    machine.wallMs += 0.5;
    await time.tick();
  }
  expect(steps).toEqual([]);
  const { wallMs } = machine;
  machine.wallMs += 3_600_000;
  await time.tick();
  machine.wallMs -= 7_200_000;
  await time.tick();
  expect(steps).toEqual([
    { fromMs: wallMs, toMs: wallMs + 3_600_000 },
    { fromMs: wallMs + 3_600_000, toMs: wallMs - 3_600_000 },
  ]);
  expect(time.stats().steps).toBe(2);
  // One that happened while the gateway was not running is found at the next start, once.
  machine.wallMs += 3_600_000;
  const again = await opened(machine);
  again.onStep((step) => steps.push(step));
  await again.tick();
  await again.tick();
  expect(steps.length).toBe(3);
});

test('where nothing can tell, a clock is believed if it is not earlier than the newest time ever known', async () => {
  const machine = new FakeMachine();
  machine.verdict = { kind: 'silent' };
  const first = await opened(machine);
  expect(first.isKnown).toBe(true);
  machine.pass(3_600_000);
  await first.close();
  machine.keeper.flush();

  machine.boot(-weekMs);
  expect((await opened(machine)).isKnown).toBe(false);
  expect((await opened(machine, { trust: 'always' })).isKnown).toBe(true);
  machine.boot(0);
  expect((await opened(machine, { trust: 'synchronized' })).isKnown).toBe(false);
  machine.boot(0);
  expect((await opened(machine)).isKnown).toBe(true);
});

test('a battery clock is believed unless it is earlier than can be', async () => {
  const machine = new FakeMachine();
  machine.verdict = { kind: 'battery' };
  expect((await opened(machine, { trust: 'synchronized' })).isKnown).toBe(true);
  machine.boot(0);
  machine.wallMs = Date.UTC(2000, 0, 1);
  expect((await opened(machine)).isKnown).toBe(false);
});

test('where nobody here knows the time, several answers of another machine that agree date the boot', async () => {
  const machine = new FakeMachine();
  machine.boot(-3 * weekMs);
  const time = await opened(machine);
  const stamp = time.stamp();
  const { trueMs } = machine;
  const hear = (dateMs: number, roundTripMs = 20) => time.observeRemote({ dateMs, roundTripMs });
  const second = () => Math.floor(machine.trueMs / 1000) * 1000;
  // The machine's own sources come first.
  for (let count = 0; count < 5; count += 1) hear(second());
  expect(time.isKnown).toBe(false);
  machine.pass(61_000);
  // Absurd, contradictory or slow ones say nothing.
  for (let count = 0; count < 5; count += 1) hear(Date.UTC(1999, 0, 1));
  for (let count = 0; count < 6; count += 1) hear(second() + count * 10_000);
  for (let count = 0; count < 5; count += 1) hear(second(), 20_000);
  expect(time.isKnown).toBe(false);
  for (let count = 0; count < 3; count += 1) {
    machine.pass(10_000);
    hear(second());
  }
  await time.tick();
  expect(time.isKnown).toBe(true);
  const found = dated(time, stamp);
  expect(found?.isCertain).toBe(true);
  expect(Math.abs((found?.ms ?? 0) - trueMs)).toBeLessThan(1000);
  // The wall clock is still wrong, and nobody looks at it.
  expect(Math.abs(time.wallMs() - machine.trueMs)).toBeLessThan(1000);
  expect(time.stamp().boot).toBeUndefined();

  const again = await opened(machine);
  expect(dated(again, stamp)).toEqual(found);
  expect(Math.abs(again.wallMs() - machine.trueMs)).toBeLessThan(1000);
  machine.wallMs = machine.trueMs;
  machine.verdict = synchronized;
  await again.tick();
  expect(again.wallMs()).toBe(machine.trueMs);
  expect(dated(again, stamp)).toEqual(found);
});

test('a disk that is full keeps nobody from knowing the time', async () => {
  const machine = new FakeMachine();
  machine.keeper.isFailing = true;
  machine.boot(-weekMs);
  const time = await opened(machine);
  const stamp = time.stamp();
  machine.wallMs = machine.trueMs;
  machine.verdict = synchronized;
  await time.tick();
  expect(dated(time, stamp)).toEqual({ ms: machine.trueMs, isCertain: true });
  machine.keeper.flush();
  machine.verdict = { kind: 'waiting' };
  expect((await opened(machine)).isKnown).toBe(true);
});

test('the table of boots is bounded, and points of boots it has forgotten are uncertain, in order', async () => {
  const machine = new FakeMachine();
  machine.boot(-weekMs);
  const first = await opened(machine);
  const stamps = [first.stamp()];
  machine.pass(1000);
  stamps.push(first.stamp());
  for (let count = 0; count < 6; count += 1) {
    machine.boot(-weekMs, 60_000);
    await opened(machine, { bootsMax: 4 });
  }
  machine.boot(0, 60_000);
  machine.verdict = synchronized;
  const time = await opened(machine, { bootsMax: 4 });
  expect(time.stats().boots).toBe(4);
  expect(machine.keeper.stored.size).toBe(4);
  const [one, two] = stamps.map((stamp) => dated(time, stamp));
  expect([one?.isCertain, two?.isCertain]).toEqual([false, false]);
  expect((two?.ms ?? 0) - (one?.ms ?? 0)).toBe(1000);
  expect(two?.ms).toBeLessThan(machine.trueMs);
});
