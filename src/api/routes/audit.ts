// The audit log over HTTP: who changed what.

import * as v from 'valibot';
import type { Audit } from '../../users/audit.ts';
import { type Route, route } from '../route.ts';

function count(max: number) {
  const expected = `a whole number from 1 to ${max}`;
  return v.pipe(
    v.string(expected),
    v.regex(/^\d{1,12}$/, expected),
    v.transform(Number),
    v.minValue(1, expected),
    v.maxValue(max, expected),
  );
}

const entrySchema = v.strictObject({
  id: v.number(),
  time: v.pipe(v.string(), v.isoTimestamp()),
  time_uncertain: v.pipe(v.boolean(), v.description('The clock was not known to be right')),
  actor: v.pipe(v.string(), v.examples(['user:anna', 'device:kitchen', 'anyone@192.0.2.7', 'cli'])),
  action: v.pipe(v.string(), v.examples(['user.add'])),
  target: v.pipe(v.string(), v.examples(['bert'])),
  detail: v.optional(v.record(v.string(), v.unknown())),
  address: v.optional(v.string()),
});

export function auditRoutes(audit: Pick<Audit, 'page'>): Route[] {
  return [
    route({
      method: 'GET',
      path: '/api/v1/admin/audit',
      tag: 'admin',
      summary: 'Who changed what, the newest first',
      access: ['admin'],
      query: v.strictObject({
        limit: v.optional(count(1_000)),
        before: v.optional(
          v.pipe(count(999_999_999_999), v.description('The id of an entry: those before it')),
        ),
      }),
      answers: {
        200: {
          description: 'Entries; `dropped` are gone for being the oldest of too many',
          schema: v.strictObject({
            count: v.number(),
            entries: v.array(entrySchema),
            dropped: v.number(),
            damaged: v.number(),
          }),
        },
      },
      handle: async ({ query: { limit, before } }) => ({
        status: 200,
        body: await audit.page({
          ...(limit !== undefined && { limit }),
          ...(before !== undefined && { before }),
        }),
      }),
    }),
  ];
}
