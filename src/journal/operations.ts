// What an operator may ask of the journal, by name: for the control socket of a running gateway and for the command
// line beside a stopped one.

import { type PointClass, pointClasses } from '../model/point.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import { snakeCased } from '../platform/outside-names.ts';
import type { Journal } from './journal.ts';

function classesIn(value: unknown): readonly PointClass[] | undefined {
  if (value === undefined) return undefined;
  const found = pointClasses.filter((name) => name === value);
  if (found.length === 1) return found;
  throw new GatewayError('ARGUMENT_INVALID', `class: expected one of ${pointClasses.join(', ')}`);
}

/** `journal.stat`, and `journal.read`, which answers a page of lines and where to go on. */
export function journalOperations(journal: Pick<Journal, 'stats' | 'read'>): Operations {
  const table: Readonly<Record<string, Operation>> = {
    'journal.stat': async () => snakeCased(journal.stats()),
    'journal.read': async ({ after, class: of }) => {
      if (after !== undefined && typeof after !== 'string') {
        throw new GatewayError('ARGUMENT_INVALID', 'after: expected text');
      }
      const { lines, next } = await journal.read(classesIn(of), after);
      return { lines: lines.toString(), next: next ?? null };
    },
  };
  return new Map(Object.entries(table));
}
