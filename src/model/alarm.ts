// The words of alarms, after ISA-18.2. Pure data; the alarms room keeps the board.

/** CRITICAL wakes people; NOTICE only shows. */
export type AlarmPriority = 'critical' | 'high' | 'low' | 'notice';

/**
 * What the rules say about one thing at one moment: raised or cleared. A rule reports a condition when it
 * changes, not at every point.
 */
export interface Condition {
  /** Stable id of rule and place: `wet/kitchen-probe`. The alarm of the same id follows it. */
  readonly id: string;
  readonly rule: string;
  readonly deviceId: string;
  readonly priority: AlarmPriority;
  /** Whether the alarm stays until acknowledged even if the condition goes (ISA-18.2 latched alarms). */
  readonly latching: boolean;
  readonly active: boolean;
  /** One sentence for people: "Water at kitchen-probe". */
  readonly message: string;
}

/** ISA-18.2 §5: the states an alarm can be seen in. */
export type AlarmState =
  | 'normal'
  | 'unacknowledged'
  | 'acknowledged'
  | 'returned-unacknowledged'
  | 'latched'
  | 'shelved';
