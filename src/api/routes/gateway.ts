// The gateway about itself, for those who have a key: in one answer what a page shows at the top.

import * as v from 'valibot';
import { type GatewayFigures, healthOf } from '../figures.ts';
import { answerHealth } from '../health.ts';
import { type Route, route } from '../route.ts';
import { healthSchema } from './pages.ts';

const count = v.pipe(v.number(), v.integer());

const gatewaySchema = v.strictObject({
  gateway_id: v.string(),
  version: v.string(),
  uptime_ms: count,
  is_date_known: v.boolean(),
  health: healthSchema,
  devices: v.strictObject({ count, max: count }),
  uplink: v.strictObject({
    state: v.picklist(['disabled', 'idle', 'sending', 'retrying', 'paused']),
    accepted_points: count,
  }),
  alarms: v.strictObject({ count, sound: v.picklist(['off', 'trouble', 'high', 'critical']) }),
});

export function gatewayRoutes(figures: () => GatewayFigures): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/gateway',
      tag: 'gateway',
      summary: 'What runs, how it is, and what waits',
      access: ['device', 'service', 'viewer'],
      answers: { 200: { description: 'The gateway', schema: gatewaySchema } },
      handle: () => {
        const now = figures();
        return {
          status: 200,
          body: {
            gateway_id: now.gatewayId,
            version: now.version,
            uptime_ms: Math.round(now.uptimeMs),
            is_date_known: now.time.isKnown,
            health: answerHealth(healthOf(now)).body,
            devices: { count: now.registry.devices, max: now.registry.devicesMax },
            uplink: { state: now.forwarder.state, accepted_points: now.forwarder.acceptedPoints },
            alarms: { count: now.alarms.list.length, sound: now.alarms.sound },
          },
        };
      },
    }),
  ];
}
