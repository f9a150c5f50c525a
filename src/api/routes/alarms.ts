// The alarms over HTTP: what sounds, and the button. Seeing and hushing them needs no key, also from the house's
// network: whoever stands in the noise at 3 am has none at hand, and quiet lasts ten minutes. To acknowledge is to
// say "I know", so it needs somebody: the device of the alarm, a service account as over MQTT, or a user.

import * as v from 'valibot';
import type { AlarmBoard } from '../../alarms/board.ts';
import { refusal } from '../refusal.ts';
import { type Answer, actorOf, type Role, type Route, route } from '../route.ts';

const id = v.pipe(
  v.string('the id of an alarm'),
  v.minLength(1, 'the id of an alarm'),
  v.examples(['wet/kitchen-probe']),
);

const time = v.pipe(v.string(), v.isoTimestamp());
const count = v.pipe(v.number(), v.integer());

const alarmSchema = v.strictObject({
  id,
  state: v.picklist(['unacknowledged', 'acknowledged', 'returned-unacknowledged', 'latched', 'shelved']),
  priority: v.picklist(['critical', 'high', 'low', 'notice']),
  device_id: v.string(),
  message: v.pipe(v.string(), v.examples(['Water at kitchen-probe'])),
  active: v.boolean(),
  acknowledged: v.boolean(),
  raised_at: v.pipe(v.nullable(time), v.description('null while the date is not known')),
  is_raised_uncertain: v.optional(v.boolean()),
  raised_ago_ms: v.optional(v.number()),
  raised_count: count,
});

const alarmsSchema = v.strictObject({
  alarms: v.array(alarmSchema),
  count,
  sound: v.picklist(['off', 'trouble', 'high', 'critical']),
  is_silenced: v.boolean(),
});

const acknowledgedSchema = v.strictObject({ acknowledged: v.array(id), count });

const silencedSchema = v.strictObject({ for_ms: count, until: v.nullable(time) });

const acknowledgers: readonly Role[] = ['device', 'service', 'viewer', 'admin'];

function answerOf(acknowledged: readonly string[]): Answer {
  const isNothing = acknowledged.length === 0;
  return {
    status: 200,
    body: { acknowledged, count: acknowledged.length },
    audited: isNothing ? 'nothing' : { target: acknowledged.join(', ') },
  };
}

export function alarmRoutes(board: Pick<AlarmBoard, 'shown' | 'list' | 'acknowledge' | 'silence'>): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/alarms',
      tag: 'alarms',
      summary: 'Every alarm that is not normal, the most important first',
      access: 'anyone',
      isPlaintextAllowed: true,
      answers: { 200: { description: 'The alarms, and what they sound like', schema: alarmsSchema } },
      handle: () => ({ status: 200, body: board.shown() }),
    }),
    route({
      method: 'POST',
      path: '/api/v1/alarms/{id}/acknowledge',
      tag: 'alarms',
      summary: 'Acknowledge one alarm; a device only its own',
      access: acknowledgers,
      audit: 'alarm.acknowledge',
      params: v.object({ id }),
      answers: {
        200: { description: 'It is quiet, and that is on the disk', schema: acknowledgedSchema },
        404: 'There is no such alarm',
      },
      handle: async (request) => {
        const { params, caller } = request;
        if (caller.kind === 'device') {
          const alarm = board.list().find((known) => known.id === params.id);
          if (alarm !== undefined && alarm.deviceId !== caller.deviceId) {
            return refusal('FORBIDDEN', 'a device acknowledges its own alarms');
          }
        }
        return answerOf(await board.acknowledge(params.id, actorOf(request)));
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/alarms/acknowledge',
      tag: 'alarms',
      summary: 'Acknowledge every alarm; a device every one of its own',
      access: acknowledgers,
      audit: 'alarm.acknowledge',
      answers: {
        200: { description: 'They are quiet, and that is on the disk', schema: acknowledgedSchema },
      },
      handle: async (request) => {
        const by = actorOf(request);
        const { caller } = request;
        const own = board
          .list()
          .filter(({ deviceId }) => caller.kind === 'device' && deviceId === caller.deviceId);
        const acknowledged =
          caller.kind === 'device'
            ? (await Promise.all(own.map((alarm) => board.acknowledge(alarm.id, by)))).flat()
            : await board.acknowledge(undefined, by);
        return answerOf(acknowledged);
      },
    }),
    route({
      method: 'POST',
      path: '/api/v1/alarms/silence',
      tag: 'alarms',
      summary: 'Quiet for ten minutes; a new critical alarm is heard all the same',
      access: 'anyone',
      isPlaintextAllowed: true,
      // Anyone may ask, again and again: the audit log does not let that push out what else is in it.
      audit: 'alarm.silence',
      answers: {
        200: {
          description: 'How long it is quiet; `until` is null while the date is not known',
          schema: silencedSchema,
        },
      },
      handle: (request) => {
        const { forMs, untilMs } = board.silence(actorOf(request));
        const until = untilMs === undefined ? null : new Date(untilMs).toISOString();
        return { status: 200, body: { for_ms: forMs, until }, audited: { target: 'all' } };
      },
    }),
  ];
}
