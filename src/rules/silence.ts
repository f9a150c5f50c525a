// R9 SILENT: silence is never shown as safety. A device that has reported `wet` once must go on being heard; 2.5
// missed heartbeats and it is "unknown", with a low alarm of its own that ends when it is heard again. Does not
// know of devices that never reported since this process started; the registry's last seen shows those.

import type { Condition } from '../model/alarm.ts';
import type { Rule } from './rule.ts';

export interface SilenceOptions {
  /** Milliseconds without a word. */
  readonly deadlineMs?: number;
  /** Of one device, where the registry knows its heartbeat (battery nodes: 15 to 60 minutes). */
  readonly deadlineMsOf?: (deviceId: string) => number | undefined;
}

const defaults = {
  // Probes on mains power report every 60 s.
  deadlineMs: 150_000,
} as const;

export interface SilenceState {
  readonly heardMs: number;
  readonly isSilent: boolean;
  /** The device has a contact, so its silence matters. */
  readonly isWatched: boolean;
}

function condition(deviceId: string, active: boolean): Condition {
  return {
    id: `silent/${deviceId}`,
    rule: 'silence',
    deviceId,
    priority: 'low',
    latching: false,
    active,
    message: active
      ? `${deviceId} has stopped reporting: whether it is dry there is unknown`
      : `${deviceId} reports again`,
  };
}

export function silenceRule(options: SilenceOptions = {}): Rule<SilenceState> {
  function deadlineMsOf(deviceId: string): number {
    return options.deadlineMsOf?.(deviceId) ?? options.deadlineMs ?? defaults.deadlineMs;
  }

  return {
    name: 'silence',

    observe(before, point, deviceId, now) {
      const isWatched = before?.isWatched === true || point.fields.has('wet');
      if (!isWatched) return undefined;
      const state = { heardMs: now.monotonicMs, isSilent: false, isWatched };
      // At the first word of this process too: the alarm may be one that a restart brought back.
      const isReturn = before === undefined || before.isSilent;
      return { state, conditions: isReturn ? [condition(deviceId, false)] : [] };
    },

    tick(state, deviceId, now) {
      if (state.isSilent || now.monotonicMs - state.heardMs < deadlineMsOf(deviceId)) return undefined;
      return { state: { ...state, isSilent: true }, conditions: [condition(deviceId, true)] };
    },

    isHolding: (state) => state.isSilent,
  };
}
