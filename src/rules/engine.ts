// Runs every rule over every point and keeps their state, one per device and rule. Synchronous and in memory:
// it stands before the journal on the alarm's way. Bounded: beyond the limit the longest known device that the
// rule is not holding gives way, counted. Does not persist: the alarm board does, and nodes repeat themselves.

import type { Condition } from '../model/alarm.ts';
import type { Point } from '../model/point.ts';
import type { Moment, Rule } from './rule.ts';

export interface RulesOptions {
  /** How many devices a rule may hold state of. */
  readonly devicesMax?: number;
}

const defaults = { devicesMax: 10_000 } as const;

export interface RulesStats {
  readonly points: number;
  readonly conditions: number;
  /** States held, over all rules. */
  readonly states: number;
  readonly evicted: number;
}

/** A rule with its states; the state's type stays inside. */
interface Watch {
  observe(point: Point, deviceId: string, now: Moment, found: Condition[]): void;
  tick(now: Moment, found: Condition[]): void;
  forget(deviceId: string): void;
  readonly size: number;
  readonly evicted: number;
}

function watch<State>(rule: Rule<State>, devicesMax: number): Watch {
  const states = new Map<string, State>();
  let evicted = 0;

  function makeRoom(): void {
    if (states.size < devicesMax) return;
    for (const [deviceId, state] of states) {
      if (rule.isHolding(state)) continue;
      states.delete(deviceId);
      evicted += 1;
      return;
    }
    // Every one of them is in alarm: the limit yields before an alarm does.
  }

  return {
    observe(point, deviceId, now, found) {
      const before = states.get(deviceId);
      const step = rule.observe(before, point, deviceId, now);
      if (step === undefined) return;
      if (before === undefined) makeRoom();
      states.set(deviceId, step.state);
      found.push(...step.conditions);
    },
    tick(now, found) {
      for (const [deviceId, state] of states) {
        const step = rule.tick(state, deviceId, now);
        if (step === undefined) continue;
        states.set(deviceId, step.state);
        found.push(...step.conditions);
      }
    },
    forget: (deviceId) => void states.delete(deviceId),
    get size() {
      return states.size;
    },
    get evicted() {
      return evicted;
    },
  };
}

export class Rules {
  readonly #watches: Watch[] = [];
  readonly #devicesMax: number;
  #points = 0;
  #conditions = 0;

  constructor(options: RulesOptions = {}) {
    this.#devicesMax = options.devicesMax ?? defaults.devicesMax;
  }

  add<State>(rule: Rule<State>): this {
    this.#watches.push(watch(rule, this.#devicesMax));
    return this;
  }

  /** What changed because of these points; points without a `device_id` tag concern no rule. */
  observe(points: readonly Point[], now: Moment): readonly Condition[] {
    const found: Condition[] = [];
    for (const point of points) {
      this.#points += 1;
      const deviceId = point.tags.get('device_id');
      if (deviceId === undefined) continue;
      for (const one of this.#watches) one.observe(point, deviceId, now, found);
    }
    this.#conditions += found.length;
    return found;
  }

  /** What changed because time passed. To be called about once a second. */
  tick(now: Moment): readonly Condition[] {
    const found: Condition[] = [];
    for (const one of this.#watches) one.tick(now, found);
    this.#conditions += found.length;
    return found;
  }

  /** The device left the registry. */
  forget(deviceId: string): void {
    for (const one of this.#watches) one.forget(deviceId);
  }

  stats(): RulesStats {
    let states = 0;
    let evicted = 0;
    for (const one of this.#watches) {
      states += one.size;
      evicted += one.evicted;
    }
    return { points: this.#points, conditions: this.#conditions, states, evicted };
  }
}
