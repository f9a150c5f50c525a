// What an operator may ask of the audit log. Arguments come from outside and are checked here.

import { GatewayError } from '../platform/errors.ts';
import type { Operations } from '../platform/operations.ts';
import type { Audit } from './audit.ts';

const limitMax = 10_000;

/** `audit.list`. */
export function auditOperations(audit: Audit): Operations {
  return new Map([
    [
      'audit.list',
      async ({ limit = 100 }) => {
        if (typeof limit === 'number' && Number.isInteger(limit) && limit >= 1 && limit <= limitMax) {
          return await audit.page({ limit });
        }
        throw new GatewayError('ARGUMENT_INVALID', `limit: expected a whole number from 1 to ${limitMax}`);
      },
    ],
  ]);
}
