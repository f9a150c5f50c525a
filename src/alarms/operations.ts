// What an operator may ask of the alarm board, over MQTT, HTTP or the command line.

import { optionalText } from '../platform/arguments.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { AlarmBoard } from './board.ts';

const bounds = { max: 256 };

/** `alarms.list {}`, `alarms.acknowledge {id?, by?}`, `alarms.silence {by?}`. */
export function operations(board: AlarmBoard): Operations {
  const list: Operation = async () => board.shown();
  const acknowledge: Operation = async (args) => ({
    acknowledged: await board.acknowledge(
      optionalText(args, 'id', bounds),
      optionalText(args, 'by', bounds) ?? 'operator',
    ),
  });
  const silence: Operation = async (args) => {
    const { forMs, untilMs } = board.silence(optionalText(args, 'by', bounds) ?? 'operator');
    return { for_ms: forMs, until: untilMs === undefined ? null : new Date(untilMs).toISOString() };
  };
  return new Map([
    ['alarms.list', list],
    ['alarms.acknowledge', acknowledge],
    ['alarms.silence', silence],
  ]);
}
