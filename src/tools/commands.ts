// `iotflow commands …`: what devices are to do. Only a running gateway delivers.

import type { ShownCommand } from '../commands/shown.ts';
import { GatewayError } from '../platform/errors.ts';
import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation } from './operator.ts';

const common = { config: configOption, json: jsonOption };
const by = 'command line';

async function call(
  given: Call,
  operation: string,
  args: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  return await callOperation(requireConfig(given).config, operation, args);
}

const unitsMs: Readonly<Record<string, number>> = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** `10m` → milliseconds; `never` → null. */
function expiryIn(given: Call): { readonly expires_in_ms?: number | null } {
  const text = given.text('expires');
  if (text === undefined) return {};
  if (text === 'never') return { expires_in_ms: null };
  const [, digits, unit = ''] = /^(\d{1,7})([smhd])$/.exec(text) ?? [];
  const unitMs = unitsMs[unit];
  if (digits === undefined || unitMs === undefined) {
    throw new GatewayError('ARGUMENT_INVALID', '--expires: expected 30s, 10m, 2h, 7d or never');
  }
  return { expires_in_ms: Number(digits) * unitMs };
}

function payloadIn(text: string | undefined): unknown {
  if (text === undefined) return {};
  try {
    return JSON.parse(text);
  } catch {
    throw new GatewayError('ARGUMENT_INVALID', `expected a JSON object like '{"position": 3}', got ${text}`);
  }
}

function lineOf({ command_id, device_id, kind, state, message }: ShownCommand): string {
  return `${command_id}: ${kind} for ${device_id} is ${state}${message === null ? '' : ` (${message})`}`;
}

const sendCommand: Command = {
  name: 'commands send',
  summary: 'Send a command to a device; asleep, it gets it when it wakes',
  positionals: ['DEVICE', 'KIND', '[JSON]'],
  options: {
    expires: { type: 'string', value: 'TIME', help: 'When it is no longer wanted: 30s, 10m, 2h, 7d, never' },
    key: {
      type: 'string',
      value: 'KEY',
      help: 'Idempotency key: sent again with it, it is the same command',
    },
    ...common,
  },
  details: 'JSON is what the command says, an object of at most 8192 bytes.',
  run: async (given) => {
    const [deviceId, kind, payload] = given.positionals;
    const key = given.text('key');
    const sent = (await call(given, 'commands.send', {
      device_id: deviceId,
      kind,
      payload: payloadIn(payload),
      by,
      ...expiryIn(given),
      ...(key !== undefined && { idempotency_key: key }),
    })) as ShownCommand;
    answer(given, sent, lineOf(sent));
    return 0;
  },
};

const listCommand: Command = {
  name: 'commands list',
  summary: "List a device's commands, those that wait and the latest that are finished",
  positionals: ['DEVICE'],
  options: common,
  run: async (given) => {
    const [deviceId] = given.positionals;
    const result = (await call(given, 'commands.list', { device_id: deviceId })) as {
      commands: readonly ShownCommand[];
    };
    const rows = result.commands.map((command) => [
      command.command_id,
      command.kind,
      command.state,
      command.created_at ?? 'date unknown',
      command.expires_at ?? '-',
      command.actor,
      command.message ?? '-',
    ]);
    const table = formatTable(['ID', 'KIND', 'STATE', 'CREATED', 'EXPIRES', 'BY', 'MESSAGE'], rows);
    answer(given, result, rows.length === 0 ? 'no commands' : table);
    return 0;
  },
};

const showCommand: Command = {
  name: 'commands show',
  summary: 'Show one command',
  positionals: ['DEVICE', 'ID'],
  options: common,
  run: async (given) => {
    const [deviceId, commandId] = given.positionals;
    const shown = await call(given, 'commands.show', { device_id: deviceId, command_id: commandId });
    answer(given, shown, JSON.stringify(shown, null, 2));
    return 0;
  },
};

const cancelCommand: Command = {
  name: 'commands cancel',
  summary: 'Cancel a command that is not finished; a device that has it may carry it out all the same',
  positionals: ['DEVICE', 'ID'],
  options: common,
  run: async (given) => {
    const [deviceId, commandId] = given.positionals;
    const args = { device_id: deviceId, command_id: commandId, by };
    const cancelled = (await call(given, 'commands.cancel', args)) as ShownCommand;
    answer(given, cancelled, lineOf(cancelled));
    return 0;
  },
};

export const outboxCommands: readonly Command[] = [sendCommand, listCommand, showCommand, cancelCommand];
