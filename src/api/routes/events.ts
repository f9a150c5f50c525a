// The page's ear: see events.ts.

import * as v from 'valibot';
import type { Events } from '../events.ts';
import { type Route, route } from '../route.ts';

export function eventRoutes(events: Pick<Events, 'listen'>): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/events',
      tag: 'gateway',
      summary: 'Alarms and health as they change, as server-sent events',
      description:
        'Event `alarms` has what GET /api/v1/alarms answers, event `health` what GET /health does; both come at once ' +
        'and whenever they change. A comment comes every 15 s. With `Last-Event-ID` only what has changed since.',
      access: 'anyone',
      isPlaintextAllowed: true,
      answers: {
        200: {
          description: 'Events, until either side ends it',
          contentType: 'text/event-stream',
          schema: v.string(),
        },
        503: 'There are as many listeners as there may be',
      },
      handle: (request) => events.listen(request),
    }),
  ];
}
