// R1 WET: water at a contact. The first report is enough (the node has debounced it already); it ends after the
// contact was dry for a minute and stays until acknowledged. A wet report is never put aside because of its
// timestamp alone. One that is old by the gateway's clock may come from a node's memory, and the past must not
// sound the buzzer, or from a node whose clock is wrong. So it waits: if no newer report says dry while the node
// catches up (ten seconds without news, a minute at most), it is the present state and raises. Where newer news
// was known already, it must stay unconfirmed for 2.5 heartbeats before it is believed.

import type { Condition } from '../model/alarm.ts';
import type { FieldValue } from '../model/point.ts';
import type { Moment, Rule, Step } from './rule.ts';

export interface WetOptions {
  /** How long the contact must be dry before the condition ends. */
  readonly dryMs?: number;
  /** A report older than this is history until proven otherwise. */
  readonly historyMs?: number;
  /** How long a node's catching up may pause before its last old report counts as the present. */
  readonly settleMs?: number;
  /** How long catching up may last in all. */
  readonly settleMsMax?: number;
  /** How long an old wet report stands against newer news that nothing repeats. */
  readonly unheardMs?: number;
}

const defaults = {
  // A drop running down a probe makes it flicker; a minute of dry is dry.
  dryMs: 60_000,
  historyMs: 15 * 60_000,
  settleMs: 10_000,
  settleMsMax: 60_000,
  unheardMs: 150_000,
} as const;

interface Pending {
  readonly fromMs: number;
  readonly dueMs: number;
  readonly timeNs: bigint;
}

export interface WetState {
  readonly contact: 'unknown' | 'wet' | 'dry';
  /** When the present dry spell began; undefined when it has been reported or there is none. */
  readonly dryFromMs: number | undefined;
  /** A wet report from the past that nothing newer has contradicted yet. */
  readonly pending: Pending | undefined;
  /** Of the newest report, never later than its arrival. */
  readonly newestNs: bigint;
  /** A leak of the past was shown since the last report of the present. */
  readonly isPastShown: boolean;
}

const unknown: WetState = {
  contact: 'unknown',
  dryFromMs: undefined,
  pending: undefined,
  newestNs: 0n,
  isPastShown: false,
};

const wetWords = new Set(['true', 'wet', 'on', '1', 'yes']);

function isWet(value: FieldValue): boolean {
  if (typeof value === 'string') return wetWords.has(value.trim().toLowerCase());
  // Any number but zero: a probe that counts, or reports a level, is wet when it reports something.
  return typeof value === 'number' ? value !== 0 : value;
}

function raised(deviceId: string): Condition {
  return {
    id: `wet/${deviceId}`,
    rule: 'wet',
    deviceId,
    priority: 'critical',
    latching: true,
    active: true,
    message: `Water at ${deviceId}`,
  };
}

function cleared(deviceId: string): Condition {
  return { ...raised(deviceId), active: false, message: `Dry again at ${deviceId}` };
}

/** Shown and kept until acknowledged, never sounded. */
function past(deviceId: string, timeNs: bigint): readonly Condition[] {
  const at = new Date(Number(timeNs / 1_000_000n)).toISOString();
  const condition: Condition = {
    id: `wet-past/${deviceId}`,
    rule: 'wet',
    deviceId,
    priority: 'notice',
    latching: true,
    active: true,
    message: `There was water at ${deviceId} at ${at}; it was reported late`,
  };
  return [condition, { ...condition, active: false }];
}

export function wetRule(options: WetOptions = {}): Rule<WetState> {
  const { dryMs, historyMs, settleMs, settleMsMax, unheardMs } = { ...defaults, ...options };

  function wetNow(state: WetState, deviceId: string): Step<WetState> {
    const conditions = state.contact === 'wet' ? [] : [raised(deviceId)];
    return { state: { ...state, contact: 'wet', dryFromMs: undefined, pending: undefined }, conditions };
  }

  function dryNow(state: WetState, deviceId: string, now: Moment): Step<WetState> {
    const next: WetState = { ...state, pending: undefined };
    if (state.contact === 'dry') return { state: next, conditions: [] };
    const dryFromMs = state.dryFromMs ?? now.monotonicMs;
    if (now.monotonicMs - dryFromMs < dryMs) return { state: { ...next, dryFromMs }, conditions: [] };
    // Also from `unknown`: the alarm may be one that a restart brought back.
    return { state: { ...next, contact: 'dry', dryFromMs: undefined }, conditions: [cleared(deviceId)] };
  }

  /** An old wet report: shown once, and held until it is contradicted or due. */
  function wetOnce(state: WetState, timeNs: bigint, deviceId: string, now: Moment): Step<WetState> {
    const isShown = state.isPastShown || state.contact === 'wet';
    const conditions = isShown ? [] : past(deviceId, timeNs);
    const next: WetState = { ...state, isPastShown: state.isPastShown || !isShown };
    const { monotonicMs } = now;
    if (timeNs < state.newestNs) {
      const pending = state.pending ?? { fromMs: monotonicMs, dueMs: monotonicMs + unheardMs, timeNs };
      return { state: { ...next, pending }, conditions };
    }
    const fromMs = state.pending?.fromMs ?? monotonicMs;
    const dueMs = Math.min(monotonicMs + settleMs, fromMs + settleMsMax);
    const pending = { fromMs, dueMs, timeNs };
    return { state: { ...next, newestNs: timeNs, dryFromMs: undefined, pending }, conditions };
  }

  function dryOnce(state: WetState, timeNs: bigint, deviceId: string, now: Moment): Step<WetState> {
    if (timeNs >= state.newestNs) return dryNow({ ...state, newestNs: timeNs }, deviceId, now);
    const isContradicted = state.pending !== undefined && timeNs >= state.pending.timeNs;
    return { state: isContradicted ? { ...state, pending: undefined } : state, conditions: [] };
  }

  return {
    name: 'wet',

    observe(before, point, deviceId, now) {
      const value = point.fields.get('wet');
      if (value === undefined) return undefined;
      const state = before ?? unknown;
      const { timeNs, boot } = point;
      // Nobody can say that it is old: sound first. It says nothing of which report is the newest either.
      if (now.wallMs === undefined || boot !== undefined) {
        const next = { ...state, isPastShown: false };
        return isWet(value) ? wetNow(next, deviceId) : dryNow(next, deviceId, now);
      }
      const nowNs = BigInt(Math.floor(now.wallMs)) * 1_000_000n;
      if (timeNs < nowNs - BigInt(historyMs) * 1_000_000n) {
        const step = isWet(value) ? wetOnce : dryOnce;
        return step(state, timeNs, deviceId, now);
      }
      const newestNs = timeNs < nowNs ? timeNs : nowNs;
      const next = { ...state, newestNs, isPastShown: false };
      return isWet(value) ? wetNow(next, deviceId) : dryNow(next, deviceId, now);
    },

    tick(state, deviceId, now) {
      const { pending, dryFromMs } = state;
      // From here on the node's clock is the measure, whatever was newest before.
      if (pending !== undefined && now.monotonicMs >= pending.dueMs) {
        return wetNow({ ...state, newestNs: pending.timeNs }, deviceId);
      }
      if (dryFromMs === undefined || now.monotonicMs - dryFromMs < dryMs) return undefined;
      return dryNow(state, deviceId, now);
    },

    isHolding: (state) => state.contact === 'wet' || state.pending !== undefined,
  };
}
