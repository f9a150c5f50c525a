// The facts of one alarm, and what follows from them: its ISA-18.2 state and its sound, both pure. The facts are
// orthogonal (is it so? does anyone know? must someone know?), so nothing here depends on the order in which they
// came about.

import type { AlarmPriority, AlarmState, Condition } from '../model/alarm.ts';

export interface AlarmFacts {
  readonly id: string;
  readonly rule: string;
  readonly deviceId: string;
  readonly priority: AlarmPriority;
  readonly latching: boolean;
  readonly message: string;
  /** What the rule says now. */
  readonly active: boolean;
  readonly acknowledged: boolean;
  readonly acknowledgedBy?: string;
  /** Milliseconds since the Unix epoch. Shelved until then: shown, never heard. */
  readonly shelvedUntilMs?: number;
  /** When it was last raised: milliseconds since the Unix epoch; since the start of `raisedBoot` where that is set. */
  readonly raisedMs: number;
  /** The machine's boot, when the date was not known. */
  readonly raisedBoot?: number;
  /** How many times it was raised since it was last normal. */
  readonly raisedCount: number;
}

/** From quiet to loud. */
export const sounds = ['off', 'trouble', 'high', 'critical'] as const;

export type Sound = (typeof sounds)[number];

const soundOf = {
  critical: 'critical',
  high: 'high',
  low: 'trouble',
  notice: 'off',
} as const satisfies Record<AlarmPriority, Sound>;

/** When something was raised, as the facts have it. */
export type Raised = Pick<AlarmFacts, 'raisedMs' | 'raisedBoot'>;

/** `normal` means: nothing is left to know, the alarm can be forgotten. */
export function stateOf(facts: AlarmFacts, wallMs: number): AlarmState {
  if (!facts.active && facts.acknowledged) return 'normal';
  if (facts.shelvedUntilMs !== undefined && wallMs < facts.shelvedUntilMs) return 'shelved';
  if (facts.active) return facts.acknowledged ? 'acknowledged' : 'unacknowledged';
  return facts.latching ? 'latched' : 'returned-unacknowledged';
}

/** What this alarm alone would sound like. */
export function soundOfAlarm(facts: AlarmFacts, wallMs: number): Sound {
  const state = stateOf(facts, wallMs);
  // Returned and not latching: worth a look, not worth waking anyone.
  return state === 'unacknowledged' || state === 'latched' ? soundOf[facts.priority] : 'off';
}

/** The loudest of all, or nothing while hushed. */
export function soundOfAll(alarms: Iterable<AlarmFacts>, wallMs: number, isHushed: boolean): Sound {
  if (isHushed) return 'off';
  let loudest = 0;
  for (const facts of alarms) loudest = Math.max(loudest, sounds.indexOf(soundOfAlarm(facts, wallMs)));
  return sounds[loudest] ?? 'off';
}

/** Importance for display and for giving way at the limit; higher matters more. */
export function rankOf(facts: AlarmFacts): number {
  const byPriority = { notice: 0, low: 1, high: 2, critical: 3 } as const satisfies Record<
    AlarmPriority,
    number
  >;
  const isOpen = facts.active && !facts.acknowledged;
  return byPriority[facts.priority] * 4 + (facts.active ? 1 : 0) + (isOpen ? 2 : 0);
}

/** The facts after a rule has spoken; undefined when it concerns nothing that is known. */
export function withCondition(
  before: AlarmFacts | undefined,
  condition: Condition,
  raised: Raised,
): AlarmFacts | undefined {
  const { id, rule, deviceId, priority, latching, message, active } = condition;
  if (before === undefined) {
    if (!active) return undefined;
    return {
      ...{ id, rule, deviceId, priority, latching, message, active },
      acknowledged: false,
      ...raised,
      raisedCount: 1,
    };
  }
  // The words of the danger stay: "Dry again" would be a strange name for what is still to be acknowledged.
  if (!active) return { ...before, active: false };
  // Raised anew, or grown more serious: whoever acknowledged it did not acknowledge this.
  const isNew = !before.active || rankOf({ ...before, priority }) > rankOf(before);
  if (!isNew) return { ...before, message };
  const { acknowledgedBy: _by, raisedBoot: _boot, ...rest } = before;
  return {
    ...rest,
    ...{ rule, deviceId, priority, latching, message, active },
    acknowledged: false,
    ...raised,
    raisedCount: before.raisedCount + 1,
  };
}

/** @param by Who it was, for the record. */
export function withAcknowledgement(before: AlarmFacts, by: string): AlarmFacts {
  return { ...before, acknowledged: true, acknowledgedBy: by };
}

function isPriority(value: unknown): value is AlarmPriority {
  return value === 'critical' || value === 'high' || value === 'low' || value === 'notice';
}

/** Undefined when the bytes are no alarm. */
export function parseFacts(bytes: Buffer): AlarmFacts | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString());
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const facts = value as Partial<Record<keyof AlarmFacts, unknown>>;
  const isWhole =
    typeof facts.id === 'string' &&
    typeof facts.rule === 'string' &&
    typeof facts.deviceId === 'string' &&
    isPriority(facts.priority) &&
    typeof facts.latching === 'boolean' &&
    typeof facts.message === 'string' &&
    typeof facts.active === 'boolean' &&
    typeof facts.acknowledged === 'boolean' &&
    typeof facts.raisedMs === 'number' &&
    (facts.raisedBoot === undefined || typeof facts.raisedBoot === 'number') &&
    typeof facts.raisedCount === 'number' &&
    (facts.shelvedUntilMs === undefined || typeof facts.shelvedUntilMs === 'number') &&
    (facts.acknowledgedBy === undefined || typeof facts.acknowledgedBy === 'string');
  return isWhole ? (value as AlarmFacts) : undefined;
}
