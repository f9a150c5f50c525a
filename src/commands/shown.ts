// A command as people and programs see it: the one form for HTTP, the command line and the control socket.

import type { CommandTime } from './age.ts';
import type { Command, CommandPayload, CommandState, Moment } from './command.ts';

export interface ShownCommand {
  readonly command_id: string;
  readonly device_id: string;
  readonly kind: string;
  readonly payload: CommandPayload;
  readonly state: CommandState;
  /** What the device said, or why it went no further. */
  readonly message: string | null;
  readonly attempts: number;
  readonly actor: string;
  readonly idempotency_key: string | null;
  /** Null while nobody knows the date. */
  readonly created_at: string | null;
  /** Null: never, or the date is unknown. */
  readonly expires_at: string | null;
  readonly delivered_at: string | null;
  readonly finished_at: string | null;
}

export function shownCommand(command: Command, time: CommandTime): ShownCommand {
  const { queued, delivered, finished, expiresInMs } = command;
  return {
    command_id: command.id,
    device_id: command.deviceId,
    kind: command.kind,
    payload: command.payload,
    state: command.state,
    message: command.message ?? null,
    attempts: command.attempts,
    actor: command.actor,
    idempotency_key: command.idempotencyKey ?? null,
    created_at: dateOf(queued, 0, time),
    expires_at: expiresInMs === undefined ? null : dateOf(queued, expiresInMs, time),
    delivered_at: delivered === undefined ? null : dateOf(delivered, 0, time),
    finished_at: finished === undefined ? null : dateOf(finished, 0, time),
  };
}

function dateOf({ boot, bootNs }: Moment, laterMs: number, time: CommandTime): string | null {
  const dated = time.dateOf(boot, bootNs);
  if (dated === undefined) return null;
  const date = new Date(Number(dated.timeNs / 1_000_000n) + laterMs);
  return Number.isNaN(date.getTime()) ? null : date.toISOString();
}
