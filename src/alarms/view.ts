// The alarms as everybody outside sees them: over HTTP, MQTT, in the command line. Names are snake_case, times RFC 3339.

import type { AlarmPriority, AlarmState } from '../model/alarm.ts';
import type { AlarmView } from './board.ts';

export interface ShownAlarm {
  readonly id: string;
  readonly state: AlarmState;
  readonly priority: AlarmPriority;
  readonly device_id: string;
  readonly message: string;
  readonly active: boolean;
  readonly acknowledged: boolean;
  /** Null while the date is not known. */
  readonly raised_at: string | null;
  readonly is_raised_uncertain?: true;
  readonly raised_ago_ms?: number;
  readonly raised_count: number;
}

export function showAlarm(alarm: AlarmView): ShownAlarm {
  const { raisedMs, isRaisedUncertain, raisedAgoMs } = alarm;
  return {
    id: alarm.id,
    state: alarm.state,
    priority: alarm.priority,
    device_id: alarm.deviceId,
    message: alarm.message,
    active: alarm.active,
    acknowledged: alarm.acknowledged,
    raised_at: raisedMs === undefined ? null : new Date(raisedMs).toISOString(),
    ...(isRaisedUncertain && { is_raised_uncertain: true }),
    ...(raisedAgoMs !== undefined && { raised_ago_ms: raisedAgoMs }),
    raised_count: alarm.raisedCount,
  };
}
