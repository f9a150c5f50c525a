import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import { Stamp } from '../../src/ingest/stamp.ts';
import { FakeMachine } from '../support/fake-machine.ts';

const weekMs = 7 * 86_400_000;
const synchronized = { kind: 'synchronized', source: 'a time server' } as const;

test('samples keep their order while the date becomes known', async () => {
  const machine = new FakeMachine();
  machine.boot(-3 * weekMs);
  const time = await machine.open();
  onTestFinished(() => time.close());
  const stamp = new Stamp(time);
  const times = [];
  for (let count = 0; count < 2000; count += 1) {
    if (count % 100 === 99) machine.pass(1);
    if (count === 1000) {
      machine.wallMs = machine.trueMs;
      machine.verdict = synchronized;
      await time.tick();
    }
    times.push(stamp.timeOf(undefined));
  }
  expect(times.map(({ boot }) => boot === undefined).indexOf(true)).toBe(1000);
  const dated = times.map(({ timeNs, boot }) =>
    boot === undefined ? timeNs : (time.dateOf(boot, timeNs)?.timeNs ?? 0n),
  );
  for (const [index, ns] of dated.entries()) if (index > 0) expect(ns > (dated[index - 1] ?? 0n)).toBe(true);
  expect(Math.abs(Number((dated[0] ?? 0n) / 1_000_000n) - (machine.trueMs - 20))).toBeLessThan(2);
});

test('however the clock is set, no two samples get the same time', async () => {
  const step = fc.oneof(
    fc.integer({ min: 0, max: 5 }),
    fc.constantFrom(-900, -1000, -2, 3_600_000, -3_600_000, -86_400_000, 86_400_000),
  );
  // More steps back than are told apart meet by chance alone.
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 7 }), async (steps) => {
      const machine = new FakeMachine();
      machine.verdict = synchronized;
      const time = await machine.open();
      const stamp = new Stamp(time);
      const times: bigint[] = [];
      for (const ms of [0, ...steps]) {
        machine.wallMs += ms;
        for (let count = 0; count < 300; count += 1) times.push(stamp.timeOf(undefined).timeNs);
      }
      expect(new Set(times).size).toBe(times.length);
      await time.close();
    }),
    { numRuns: 300 },
  );
});

test('a clock set back gives no time a second time, although the samples are counted in a circle', async () => {
  const machine = new FakeMachine();
  machine.verdict = synchronized;
  const time = await machine.open();
  onTestFinished(() => time.close());
  const stamp = new Stamp(time);
  const { wallMs } = machine;
  const first = stamp.timeOf(undefined).timeNs;
  machine.wallMs = wallMs + 60_000;
  for (let count = 1; count < 125_000; count += 1) stamp.timeOf(undefined);
  machine.wallMs = wallMs;
  const again = stamp.timeOf(undefined).timeNs;
  expect(again - first).toBe(1n);
});

test('the time zone of the machine, and its summer time, mean nothing', async () => {
  const before = process.env.TZ;
  onTestFinished(() => {
    if (before === undefined) delete process.env.TZ;
    else process.env.TZ = before;
  });
  // A minute before the hour that comes twice.
  const machine = new FakeMachine(Date.UTC(2026, 9, 25, 0, 59));
  machine.verdict = synchronized;
  const time = await machine.open();
  onTestFinished(() => time.close());
  const stamp = new Stamp(time);
  const times: bigint[] = [];
  for (const zone of ['UTC', 'Europe/Berlin', 'America/New_York', 'Pacific/Chatham']) {
    process.env.TZ = zone;
    machine.pass(60_000);
    await time.tick();
    times.push(stamp.timeOf(undefined).timeNs / 60_000_000_000n);
  }
  expect(times.map((minute) => minute - (times[0] ?? 0n))).toEqual([0n, 1n, 2n, 3n]);
  expect(time.stats().steps).toBe(0);
});
