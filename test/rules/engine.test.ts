import { expect, test } from 'vitest';
import type { Point } from '../../src/model/point.ts';
import { Rules } from '../../src/rules/engine.ts';
import { wetRule } from '../../src/rules/wet.ts';

const now = { monotonicMs: 0, wallMs: 0 };

function report(deviceId: string, wet: boolean): Point {
  return {
    measurement: 'leak',
    tags: new Map([['device_id', deviceId]]),
    fields: new Map([['wet', wet]]),
    timeNs: 0n,
  };
}

test('each device has its own state', () => {
  const rules = new Rules().add(wetRule());
  const found = rules.observe([report('a', true), report('b', false), report('c', true)], now);
  expect(found.map(({ id }) => id)).toEqual(['wet/a', 'wet/c']);
});

test('points of no device concern no rule', () => {
  const rules = new Rules().add(wetRule());
  expect(rules.observe([{ ...report('a', true), tags: new Map() }], now)).toEqual([]);
  expect(rules.stats().states).toBe(0);
});

test('at the limit a dry device gives way, never a wet one', () => {
  const rules = new Rules({ devicesMax: 2 }).add(wetRule());
  rules.observe([report('wet-one', true), report('dry-one', false), report('third', false)], now);
  expect(rules.stats()).toMatchObject({ states: 2, evicted: 1 });
  expect(rules.observe([report('wet-one', true)], now)).toEqual([]);
});

test('when all are in alarm the limit yields', () => {
  const rules = new Rules({ devicesMax: 1 }).add(wetRule());
  expect(rules.observe([report('a', true), report('b', true)], now)).toHaveLength(2);
  expect(rules.stats()).toMatchObject({ states: 2, evicted: 0 });
});

test('a device that left the registry leaves no state', () => {
  const rules = new Rules().add(wetRule());
  rules.observe([report('a', true)], now);
  rules.forget('a');
  expect(rules.stats().states).toBe(0);
});
