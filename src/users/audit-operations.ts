// What an operator may ask of the audit log. Arguments come from outside and are checked here.

import { GatewayError } from '../platform/errors.ts';
import type { Operations } from '../platform/operations.ts';
import type { Audit, ShownEntry } from './audit.ts';

export interface ShownAudit {
  readonly count: number;
  readonly entries: readonly ShownEntry[];
  /** Gone for being the oldest of too many, since the first. */
  readonly dropped: number;
  /** Damaged or missing. */
  readonly damaged: number;
}

const limitMax = 10_000;

export async function auditPage(
  audit: Audit,
  wanted: { limit?: number; before?: number },
): Promise<ShownAudit> {
  const entries = await audit.list(wanted);
  const { dropped, damaged } = audit.stats();
  return { count: entries.length, entries, dropped, damaged };
}

/** `audit.list`. */
export function auditOperations(audit: Audit): Operations {
  return new Map([
    [
      'audit.list',
      async ({ limit = 100 }) => {
        if (typeof limit === 'number' && Number.isInteger(limit) && limit >= 1 && limit <= limitMax) {
          return await auditPage(audit, { limit });
        }
        throw new GatewayError('ARGUMENT_INVALID', `limit: expected a whole number from 1 to ${limitMax}`);
      },
    ],
  ]);
}
