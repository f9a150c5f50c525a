// What the gateway did or noticed itself, as a point: readings thinned or dropped, a clock that jumped. So that a
// gap in a chart explains itself. Pure.

import type { FieldValue, Point, PointTime } from './point.ts';

export interface GatewayEvent {
  readonly gatewayId: string;
  /** `thinned`, `dropped`, `clock_step` … */
  readonly kind: string;
  /** At least one. */
  readonly fields: ReadonlyMap<string, FieldValue>;
  readonly time: PointTime;
}

export function gatewayEventPoint({ gatewayId, kind, fields, time }: GatewayEvent): Point {
  return {
    measurement: 'gateway_event',
    tags: new Map([
      ['device_id', 'gateway'],
      ['gateway', gatewayId],
      ['kind', kind],
    ]),
    fields,
    ...time,
  };
}
