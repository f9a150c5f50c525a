// Deletions by name: for the HTTP API and the control socket.

import { checkNames, invalidArgument, momentArgument, requiredText } from '../platform/arguments.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import { type Erasures, shownErasure } from './erasures.ts';

export interface ErasureParts {
  readonly erasures: Pick<Erasures, 'erase' | 'list'>;
  readonly wallMs: () => number;
  /** Without a date nobody knows what "until now" is. */
  readonly isDateKnown: () => boolean;
}

/** `history.erase {device_id, from?, to?}` (all without a time), `history.erasures {}`. */
export function operations({ erasures, wallMs, isDateKnown }: ErasureParts): Operations {
  const erase: Operation = async (args) => {
    checkNames(args, ['device_id', 'from', 'to']);
    const deviceId = requiredText(args, 'device_id');
    if (!isDateKnown()) {
      throw new GatewayError('DATE_UNAVAILABLE', 'the gateway does not know the date yet: try again later');
    }
    if (args.from === undefined && args.to === undefined) {
      return shownErasure(await erasures.erase({ deviceId }));
    }
    const nowMs = wallMs();
    const fromNs = momentArgument(args, 'from', '1970-01-01T00:00:00Z', nowMs);
    const toNs = momentArgument(args, 'to', 'now', nowMs);
    if (fromNs >= toNs) throw invalidArgument('from: expected a time before "to"');
    return shownErasure(await erasures.erase({ deviceId, range: { fromNs, toNs } }));
  };
  const list: Operation = async (args) => {
    checkNames(args, []);
    const found = erasures.list().map(shownErasure);
    return { erasures: found, count: found.length };
  };
  return new Map([
    ['history.erase', erase],
    ['history.erasures', list],
  ]);
}
