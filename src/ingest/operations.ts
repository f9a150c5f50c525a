// What an operator may ask about the types of fields: which are known, and to forget one that came from a typing
// error, or from a bucket that has been made anew since.

import { requiredText } from '../platform/arguments.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { Ingest } from './ingest.ts';

const bounds = { max: 1024 };

/** `field-types.list {}`, `field-types.forget {measurement, field}`. */
export function operations(ingest: Pick<Ingest, 'fieldTypes' | 'forgetFieldType'>): Operations {
  const list: Operation = async () => ({ field_types: ingest.fieldTypes() });
  const forget: Operation = async (args) => {
    const measurement = requiredText(args, 'measurement', bounds);
    const field = requiredText(args, 'field', bounds);
    if (await ingest.forgetFieldType(measurement, field)) return { measurement, field, forgotten: true };
    throw new GatewayError('FIELD_TYPE_UNKNOWN', `no type is known of field "${field}" of ${measurement}`);
  };
  return new Map([
    ['field-types.list', list],
    ['field-types.forget', forget],
  ]);
}
