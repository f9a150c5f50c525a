// Deleting what a device has measured, which two documents offer, each with names of its own for the stretch of time.

import * as v from 'valibot';
import {
  askHistory,
  deviceOnceKnown,
  deviceParams,
  type ErasureAnswer,
  erasureAnswer,
  optionalText,
  type QueryParts,
  timeForms,
} from '../recent-queries.ts';
import { type Route, route } from '../route.ts';
import { deleted } from '../telemetry-answers.ts';

/** @param names of the parameters that say from when, inclusive, and until when, exclusive */
export function eraseRoute(
  {
    path,
    tag,
    names: [from, to],
  }: { readonly path: string; readonly tag: string; readonly names: readonly [string, string] },
  { find, history }: Pick<QueryParts, 'find' | 'history'>,
): Route {
  return route({
    method: 'DELETE',
    path,
    tag,
    summary: 'Delete what a device has measured, here and in InfluxDB.',
    description:
      'Of a stretch of time, or all of it up to now. It survives a power cut, and goes on until it is done.',
    access: ['admin'],
    audit: 'telemetry.delete',
    params: deviceParams,
    query: v.strictObject({
      [from]: optionalText(`inclusive: ${timeForms}`, '2024-01-01T00:00:00Z'),
      [to]: optionalText(`exclusive: ${timeForms}`, '2024-01-02T00:00:00Z'),
    }),
    answers: {
      200: { description: 'It is gone.', schema: deleted },
      202: {
        description:
          'Nothing of it is shown or sent any more; `erasure` says what is still to be deleted where.',
        schema: deleted,
      },
    },
    handle: async ({ params, query, caller, signal }) => {
      const device = deviceOnceKnown(params.device_id, caller, find);
      const asked = { from: [from, query[from]], to: [to, query[to]] } as const;
      const erasure = await askHistory<ErasureAnswer>(history, 'erase', device.deviceId, asked, signal);
      return erasureAnswer(erasure, device.name);
    },
  });
}
