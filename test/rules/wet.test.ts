import { expect, test } from 'vitest';
import type { Condition } from '../../src/model/alarm.ts';
import type { FieldValue, Point } from '../../src/model/point.ts';
import { Rules } from '../../src/rules/engine.ts';
import { wetRule } from '../../src/rules/wet.ts';

const startMs = Date.UTC(2026, 10, 21);
const minuteMs = 60_000;

/** A gateway and a probe; the clock advances only here. */
function house(options = {}) {
  const rules = new Rules().add(wetRule(options));
  let elapsedMs = 0;
  const all: Condition[] = [];
  const now = () => ({ monotonicMs: 5_000 + elapsedMs, wallMs: startMs + elapsedMs });
  function keep(conditions: readonly Condition[]): string[] {
    all.push(...conditions);
    return conditions.map(({ id, active }) => `${active ? 'raised' : 'cleared'} ${id}`);
  }
  return {
    all,
    /** @param ageMs How old the probe says its report is. */
    report(value: FieldValue, ageMs = 0, measurement = 'leak') {
      const point: Point = {
        measurement,
        tags: new Map([['device_id', 'sink']]),
        fields: new Map([['wet', value]]),
        timeNs: BigInt(startMs + elapsedMs - ageMs) * 1_000_000n,
      };
      return keep(rules.observe([point], now()));
    },
    /** Ticks once a second, as the gateway does. */
    wait(ms: number) {
      const found: string[] = [];
      for (const end = elapsedMs + ms; elapsedMs < end; ) {
        elapsedMs = Math.min(end, elapsedMs + 1_000);
        found.push(...keep(rules.tick(now())));
      }
      return found;
    },
    stats: () => rules.stats(),
  };
}

test.each([true, 1, 0.5, 'true', 'wet', 'on', ' ON ', '1'])('the first report of %j raises', (value) => {
  expect(house().report(value)).toEqual(['raised wet/sink']);
});

test.each([false, 0, 'false', 'dry', 'off', '0', ''])('%j is dry', (value) => {
  expect(house().report(value)).toEqual([]);
});

test('the alarm is critical, latches and names the place', () => {
  const { report, all } = house();
  report(true);
  expect(all).toMatchObject([
    { priority: 'critical', latching: true, deviceId: 'sink', message: 'Water at sink' },
  ]);
});

test('any measurement whose field is named wet counts', () => {
  expect(house().report(true, 0, 'bathroom')).toEqual(['raised wet/sink']);
});

test('a leak is reported once, however often the probe repeats it', () => {
  const { report } = house();
  report(true);
  expect([report(true), report(true)]).toEqual([[], []]);
});

test('a minute of dry ends it, by a report or by time alone', () => {
  const byReport = house();
  byReport.report(true);
  expect(byReport.report(false)).toEqual([]);
  expect(byReport.wait(59_000)).toEqual([]);
  expect(byReport.report(false)).toEqual([]);
  expect(byReport.wait(1_000)).toEqual(['cleared wet/sink']);
  const byTime = house();
  byTime.report(true);
  byTime.report(false);
  expect(byTime.wait(minuteMs)).toEqual(['cleared wet/sink']);
  expect(byTime.wait(minuteMs)).toEqual([]);
});

test('a drop that makes the contact flicker starts the minute anew', () => {
  const { report, wait } = house();
  report(true);
  report(false);
  wait(50_000);
  report(true);
  report(false);
  expect(wait(50_000)).toEqual([]);
  expect(wait(10_000)).toEqual(['cleared wet/sink']);
});

test('an alarm that a restart brought back can end: a dry minute says so', () => {
  const { report, wait } = house();
  report(false);
  expect(wait(minuteMs)).toEqual(['cleared wet/sink']);
});

test('a leak of last night is shown, not sounded, when the probe has told of its end', () => {
  const { report, wait } = house();
  expect(report(true, 60 * minuteMs)).toEqual(['raised wet-past/sink', 'cleared wet-past/sink']);
  expect(report(true, 59 * minuteMs)).toEqual([]);
  expect(report(false, 50 * minuteMs)).toEqual([]);
  expect(wait(10 * minuteMs)).toEqual(['cleared wet/sink']);
});

test('a past leak is a notice, so it never sounds', () => {
  const { report, all } = house();
  report(true, 60 * minuteMs);
  expect(all.map(({ priority, latching }) => [priority, latching])).toEqual([
    ['notice', true],
    ['notice', true],
  ]);
});

test('an old wet report that nothing contradicts is the present, and raises within seconds', () => {
  const { report, wait } = house();
  report(true, 60 * minuteMs);
  expect(wait(9_000)).toEqual([]);
  expect(wait(1_000)).toEqual(['raised wet/sink']);
});

test('a probe whose clock is an hour slow still raises, and ends by its own clock', () => {
  const { report, wait } = house();
  report(true, 60 * minuteMs);
  wait(10_000);
  report(false, 60 * minuteMs);
  expect(wait(minuteMs)).toEqual(['cleared wet/sink']);
});

test('a probe that repeats old wet reports without end raises within a minute', () => {
  const { report, wait } = house();
  const found: string[] = [];
  for (let count = 0; count < 14; count += 1) {
    report(true, 60 * minuteMs);
    found.push(...wait(5_000));
  }
  expect(found).toEqual(['raised wet/sink']);
});

test('a probe whose clock fell back after a good report raises once its word stands unheard', () => {
  const { report, wait } = house();
  report(false);
  wait(minuteMs);
  report(true, 60 * minuteMs);
  expect(wait(149_000)).toEqual([]);
  expect(wait(1_000)).toEqual(['raised wet/sink']);
});

test('old reports sent after the present one do not raise while the present is repeated', () => {
  const { report, wait } = house();
  report(false);
  expect(report(true, 60 * minuteMs)).toEqual(['raised wet-past/sink', 'cleared wet-past/sink']);
  const found: string[] = [];
  for (let minute = 0; minute < 5; minute += 1) {
    found.push(...wait(minuteMs), ...report(false));
  }
  expect(found).toEqual(['cleared wet/sink']);
});

test('old dry reports never end a leak of the present', () => {
  const { report, wait } = house();
  report(true);
  report(false, 60 * minuteMs);
  expect(wait(5 * minuteMs)).toEqual([]);
});

test('a clock that runs ahead does not hide the next leak', () => {
  const { report, wait } = house();
  report(false, -12 * 60 * minuteMs);
  wait(minuteMs);
  expect(report(true)).toEqual(['raised wet/sink']);
});
