// What an operator may ask about the types of fields: which are known, and to forget one that came from a typing
// error, or from a bucket that has been made anew since.

import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { Ingest } from './ingest.ts';

function text(args: Parameters<Operation>[0], name: string): string {
  const value = args[name];
  if (typeof value === 'string' && value !== '' && value.length <= 1024) return value;
  throw new GatewayError('ARGUMENT_INVALID', `${name}: expected text of 1 to 1024 characters`);
}

/** `field-types.list {}`, `field-types.forget {measurement, field}`. */
export function operations(ingest: Pick<Ingest, 'fieldTypes' | 'forgetFieldType'>): Operations {
  const list: Operation = async () => ({ field_types: ingest.fieldTypes() });
  const forget: Operation = async (args) => {
    const measurement = text(args, 'measurement');
    const field = text(args, 'field');
    if (await ingest.forgetFieldType(measurement, field)) return { measurement, field, forgotten: true };
    throw new GatewayError('FIELD_TYPE_UNKNOWN', `no type is known of field "${field}" of ${measurement}`);
  };
  return new Map([
    ['field-types.list', list],
    ['field-types.forget', forget],
  ]);
}
