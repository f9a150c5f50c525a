// What a rule is: a pure step `(state, point, now) → conditions`, with its state held by the engine, one per
// device. Time is passed in, so every rule can be replayed on stored data. A rule reports a condition when it
// changes, not at every point.

import type { Condition } from '../model/alarm.ts';
import type { Point } from '../model/point.ts';

export interface Moment {
  /** For durations. */
  readonly monotonicMs: number;
  /** Only to judge how old a point is; undefined while the date is not known, when every report counts as the present. */
  readonly wallMs: number | undefined;
}

export interface Step<State> {
  readonly state: State;
  readonly conditions: readonly Condition[];
}

/** One kind of danger, watched per device. */
export interface Rule<State> {
  readonly name: string;
  /**
   * @param state Undefined before the first point of the device that concerned the rule.
   * @returns Undefined when the point does not concern it.
   */
  observe(state: State | undefined, point: Point, deviceId: string, now: Moment): Step<State> | undefined;
  /** Time passed. Undefined: nothing changed. */
  tick(state: State, deviceId: string, now: Moment): Step<State> | undefined;
  /** Whether the state must not be given up for want of room. */
  isHolding(state: State): boolean;
}
