import { expect, test } from 'vitest';
import type { Point } from '../../src/model/point.ts';
import { Rules } from '../../src/rules/engine.ts';
import { silenceRule } from '../../src/rules/silence.ts';

function at(ms: number) {
  return { monotonicMs: ms, wallMs: ms };
}

function point(deviceId: string, field: string): Point {
  return {
    measurement: 'm',
    tags: new Map([['device_id', deviceId]]),
    fields: new Map([[field, 1]]),
    timeNs: 0n,
  };
}

function said(conditions: readonly { id: string; active: boolean; priority: string }[]): string[] {
  return conditions.map(({ id, active, priority }) => `${id} ${active ? priority : 'ended'}`);
}

test('a probe that stops reporting is told apart from a dry one', () => {
  const rules = new Rules().add(silenceRule());
  rules.observe([point('sink', 'wet')], at(0));
  expect(rules.tick(at(149_999))).toEqual([]);
  expect(said(rules.tick(at(150_000)))).toEqual(['silent/sink low']);
  expect(rules.tick(at(900_000))).toEqual([]);
});

test('any word of it counts, and ends the alarm', () => {
  const rules = new Rules().add(silenceRule());
  rules.observe([point('sink', 'wet')], at(0));
  rules.observe([point('sink', 'rssi')], at(100_000));
  expect(rules.tick(at(200_000))).toEqual([]);
  rules.tick(at(250_000));
  expect(said(rules.observe([point('sink', 'rssi')], at(260_000)))).toEqual(['silent/sink ended']);
});

test('its first word after a restart ends an alarm that was brought back', () => {
  const rules = new Rules().add(silenceRule());
  expect(said(rules.observe([point('sink', 'wet')], at(0)))).toEqual(['silent/sink ended']);
});

test('devices without a contact may be silent', () => {
  const rules = new Rules().add(silenceRule());
  rules.observe([point('clock', 't')], at(0));
  expect(rules.tick(at(1e9))).toEqual([]);
});

test('a battery probe has its own deadline', () => {
  const rules = new Rules().add(
    silenceRule({ deadlineMsOf: (id) => (id === 'attic' ? 9_000_000 : undefined) }),
  );
  rules.observe([point('attic', 'wet'), point('sink', 'wet')], at(0));
  expect(said(rules.tick(at(8_000_000)))).toEqual(['silent/sink low']);
});
