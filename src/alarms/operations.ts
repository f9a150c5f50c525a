// What an operator may ask of the alarm board, over MQTT, HTTP or the command line.

import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { AlarmBoard } from './board.ts';

function text(args: Readonly<Record<string, unknown>>, name: string): string | undefined {
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' && value !== '' && value.length <= 256) return value;
  throw new GatewayError('ARGUMENT_INVALID', `${name}: expected text of 1 to 256 characters`);
}

/** `alarms.list {}`, `alarms.acknowledge {id?, by?}`, `alarms.silence {by?}`. */
export function operations(board: AlarmBoard): Operations {
  const list: Operation = async () => ({ alarms: board.list() });
  const acknowledge: Operation = async (args) => ({
    acknowledged: await board.acknowledge(text(args, 'id'), text(args, 'by') ?? 'operator'),
  });
  const silence: Operation = async (args) => {
    const { forMs, untilMs } = board.silence(text(args, 'by') ?? 'operator');
    return { for_ms: forMs, until: untilMs === undefined ? null : new Date(untilMs).toISOString() };
  };
  return new Map([
    ['alarms.list', list],
    ['alarms.acknowledge', acknowledge],
    ['alarms.silence', silence],
  ]);
}
