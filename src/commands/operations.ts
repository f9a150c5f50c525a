// What an operator may do with commands, by name, for the control socket. Arguments come from outside and are checked
// here.

import { GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { CommandPayload } from './command.ts';
import type { Commands } from './commands.ts';

type Args = Parameters<Operation>[0];

function invalid(name: string, expected: string): GatewayError {
  return new GatewayError('ARGUMENT_INVALID', `${name}: expected ${expected}`);
}

function text(args: Args, name: string): string {
  const value = args[name];
  if (typeof value !== 'string' || value === '' || value.length > 256) {
    throw invalid(name, 'text of 1 to 256 characters');
  }
  return value;
}

function payloadIn(args: Args): CommandPayload {
  const { payload = {} } = args;
  if (typeof payload === 'object' && payload !== null && !Array.isArray(payload)) {
    return payload as CommandPayload;
  }
  throw invalid('payload', 'a JSON object');
}

function expiryIn({ expires_in_ms: given }: Args): number | null | undefined {
  if (given === undefined || given === null || typeof given === 'number') return given;
  throw invalid('expires_in_ms', 'a number of milliseconds, or null for never');
}

/**
 * `commands.send`, `commands.list`, `commands.show`, `commands.cancel`.
 * @param find By device id or number.
 */
export function operations(
  commands: Commands,
  find: (text: string) => { readonly deviceId: string } | undefined,
): Operations {
  const deviceIn = (args: Args): string => {
    const given = text(args, 'device_id');
    const device = find(given);
    if (device !== undefined) return device.deviceId;
    throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(given.slice(0, 80))}`);
  };
  const send: Operation = async (args) => {
    const expiresInMs = expiryIn(args);
    const command = await commands.submit({
      deviceId: deviceIn(args),
      kind: text(args, 'kind'),
      payload: payloadIn(args),
      actor: args.by === undefined ? 'operator' : text(args, 'by'),
      ...(expiresInMs !== undefined && { expiresInMs }),
      ...(args.idempotency_key !== undefined && { idempotencyKey: text(args, 'idempotency_key') }),
    });
    return commands.show(command);
  };
  const list: Operation = async (args) => {
    const shown = commands.list(deviceIn(args)).map((command) => commands.show(command));
    return { count: shown.length, commands: shown };
  };
  const show: Operation = async (args) => {
    const command = commands.find(deviceIn(args), text(args, 'command_id'));
    if (command !== undefined) return commands.show(command);
    throw new GatewayError('COMMAND_UNKNOWN', `device ${args.device_id} has no such command`);
  };
  const cancel: Operation = async (args) => {
    const by = args.by === undefined ? 'operator' : text(args, 'by');
    return commands.show(await commands.cancel(deviceIn(args), text(args, 'command_id'), by));
  };
  return new Map([
    ['commands.send', send],
    ['commands.list', list],
    ['commands.show', show],
    ['commands.cancel', cancel],
  ]);
}
