import { expect, test } from 'vitest';
import {
  type AlarmFacts,
  parseFacts,
  rankOf,
  soundOfAlarm,
  soundOfAll,
  stateOf,
  withAcknowledgement,
  withCondition,
} from '../../src/alarms/state.ts';
import type { AlarmPriority, Condition } from '../../src/model/alarm.ts';

const nowMs = 1_000_000;
const priorities = ['critical', 'high', 'low', 'notice'] as const satisfies readonly AlarmPriority[];
const both = [true, false] as const;

function facts(overrides: Partial<AlarmFacts> = {}): AlarmFacts {
  return {
    id: 'wet/sink',
    rule: 'wet',
    deviceId: 'sink',
    priority: 'critical',
    latching: true,
    message: 'Water at sink',
    active: true,
    acknowledged: false,
    raisedMs: 1,
    raisedCount: 1,
    ...overrides,
  };
}

const condition: Condition = {
  id: 'wet/sink',
  rule: 'wet',
  deviceId: 'sink',
  priority: 'critical',
  latching: true,
  active: true,
  message: 'Water at sink',
};

const everything = priorities.flatMap((priority) =>
  both.flatMap((active) =>
    both.flatMap((acknowledged) =>
      both.flatMap((latching) =>
        [undefined, nowMs, nowMs + 1].map((shelvedUntilMs) =>
          facts({
            ...{ priority, active, acknowledged, latching },
            ...(shelvedUntilMs === undefined ? {} : { shelvedUntilMs }),
          }),
        ),
      ),
    ),
  ),
);

// The whole truth table, written out by hand: [active, acknowledged, latching] → state.
const truth = new Map([
  ['true,false,true', 'unacknowledged'],
  ['true,false,false', 'unacknowledged'],
  ['true,true,true', 'acknowledged'],
  ['true,true,false', 'acknowledged'],
  ['false,false,true', 'latched'],
  ['false,false,false', 'returned-unacknowledged'],
  ['false,true,true', 'normal'],
  ['false,true,false', 'normal'],
]);

test('every combination of facts has the state ISA-18.2 gives it', () => {
  expect(everything).toHaveLength(4 * 2 * 2 * 2 * 3);
  for (const one of everything) {
    const plain = truth.get(`${one.active},${one.acknowledged},${one.latching}`);
    const isShelved = one.shelvedUntilMs !== undefined && one.shelvedUntilMs > nowMs && plain !== 'normal';
    expect(stateOf(one, nowMs)).toBe(isShelved ? 'shelved' : plain);
  }
});

test('every combination of facts has its sound: only what nobody has acknowledged is heard', () => {
  for (const one of everything) {
    const state = stateOf(one, nowMs);
    const isHeard = state === 'unacknowledged' || state === 'latched';
    const loud = { critical: 'critical', high: 'high', low: 'trouble', notice: 'off' }[one.priority];
    expect(soundOfAlarm(one, nowMs)).toBe(isHeard ? loud : 'off');
  }
});

test('of several alarms the most serious is heard, and none while hushed', () => {
  for (const one of everything) {
    for (const other of everything) {
      const order = ['off', 'trouble', 'high', 'critical'];
      const expected = Math.max(
        order.indexOf(soundOfAlarm(one, nowMs)),
        order.indexOf(soundOfAlarm(other, nowMs)),
      );
      expect(soundOfAll([one, other], nowMs, false)).toBe(order[expected]);
      expect(soundOfAll([one, other], nowMs, true)).toBe('off');
    }
  }
  expect(soundOfAll([], nowMs, false)).toBe('off');
});

test('a condition that ends without having begun is nothing', () => {
  expect(withCondition(undefined, { ...condition, active: false }, { raisedMs: nowMs })).toBeUndefined();
});

test('acknowledged water that comes again is unacknowledged', () => {
  const known = withAcknowledgement(facts(), 'me');
  const dry = withCondition(
    { ...known, acknowledged: false },
    { ...condition, active: false },
    { raisedMs: nowMs },
  )!;
  const again = withCondition({ ...dry, acknowledged: true }, condition, { raisedMs: nowMs })!;
  expect(again).toMatchObject({ active: true, acknowledged: false, raisedCount: 2, raisedMs: nowMs });
  expect(again.acknowledgedBy).toBeUndefined();
});

test('water that is still there does not undo the acknowledgement', () => {
  const known = withAcknowledgement(facts(), 'me');
  expect(withCondition(known, condition, { raisedMs: nowMs })).toEqual(known);
});

test('an acknowledged alarm that grows more serious must be acknowledged again', () => {
  const known = withAcknowledgement(facts({ priority: 'low' }), 'me');
  expect(withCondition(known, condition, { raisedMs: nowMs })).toMatchObject({
    priority: 'critical',
    acknowledged: false,
  });
});

test('what is active and unacknowledged matters more than what is over', () => {
  expect(rankOf(facts())).toBeGreaterThan(rankOf(facts({ active: false })));
  expect(rankOf(facts({ active: false }))).toBeGreaterThan(rankOf(facts({ priority: 'high' })));
});

test('facts survive being written; other bytes are recognised', () => {
  expect(parseFacts(Buffer.from(JSON.stringify(facts())))).toEqual(facts());
  for (const bytes of ['', 'null', '1', '[]', '{}', JSON.stringify({ ...facts(), priority: 'loud' })]) {
    expect(parseFacts(Buffer.from(bytes))).toBeUndefined();
  }
});
