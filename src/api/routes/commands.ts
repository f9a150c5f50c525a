// Commands over HTTP: given by admins, seen by whoever may read, and collected by the devices that cannot be reached.
// A device sees and answers its own alone; what it collects counts as delivered.

import * as v from 'valibot';
import type { Command } from '../../commands/command.ts';
import type { Commands } from '../../commands/commands.ts';
import type { Message } from '../../model/message.ts';
import { GatewayError } from '../../platform/errors.ts';
import { type Answer, actorOf, type Caller, type Route, route } from '../route.ts';

export interface CommandRouteParts {
  readonly commands: Pick<Commands, 'submit' | 'find' | 'list' | 'collect' | 'cancel' | 'show'>;
  /** The exact id, or the number the registry gave the device. */
  readonly find: (text: string) => { readonly deviceId: string } | undefined;
  /** An answer of a device's, taken as from any transport. */
  readonly sink: (message: Message) => Promise<void>;
  readonly monotonicMs: () => number;
}

const deviceId = v.pipe(v.string('the id of a device'), v.examples(['valve-1']));
const commandId = v.pipe(v.string('the id of a command'), v.examples(['9f86d081884c7d65']));
const payload = v.pipe(
  v.unknown(),
  // A record makes an empty object of a list.
  v.check((given) => !Array.isArray(given), 'a JSON object'),
  v.record(v.string(), v.unknown(), 'a JSON object'),
);

const newCommand = v.strictObject({
  kind: v.pipe(v.string('the kind of the command'), v.examples(['close'])),
  payload: v.optional(payload, {}),
  /** Null: never. Default: `commands.expires_in_ms`. */
  expires_in_ms: v.optional(v.nullable(v.number('milliseconds, or null for never'))),
  idempotency_key: v.optional(v.string('text of 1 to 128 characters')),
});

const answered = v.strictObject({
  status: v.picklist(['ok', 'failed'], 'ok or failed'),
  message: v.optional(v.string('text')),
});

export function commandRoutes({ commands, find, sink, monotonicMs }: CommandRouteParts): Route[] {
  const shown = (command: Command) => commands.show(command);

  function deviceIn(text: string, caller: Caller): string {
    const known = find(text)?.deviceId;
    // Before it is said whether there is such a device.
    if (caller.kind === 'device' && caller.deviceId !== (known ?? text)) {
      throw new GatewayError('FORBIDDEN', 'a device asks for its own commands');
    }
    if (known !== undefined) return known;
    throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(text.slice(0, 80))}`);
  }

  function commandIn(ofDevice: string, id: string): Command {
    const command = commands.find(ofDevice, id);
    if (command !== undefined) return command;
    throw new GatewayError('COMMAND_UNKNOWN', `device ${ofDevice} has no such command`);
  }

  function listOf(list: readonly Command[]): Answer {
    return { status: 200, body: { count: list.length, commands: list.map(shown) } };
  }

  const path = '/api/v1/devices/{device_id}/commands';
  return [
    route({
      method: 'POST',
      path,
      tag: 'commands',
      summary: 'Give a device a command; asleep, it gets it when it wakes',
      access: ['admin'],
      audit: 'command.send',
      params: v.object({ device_id: deviceId }),
      body: newCommand,
      answers: { 202: 'It is on the disk, and on its way', 409: 'The key names another command' },
      handle: async (request) => {
        const { params, body, caller } = request;
        const { expires_in_ms: expiresInMs, idempotency_key: idempotencyKey } = body;
        const command = await commands.submit({
          deviceId: deviceIn(params.device_id, caller),
          kind: body.kind,
          payload: body.payload,
          actor: actorOf(request),
          ...(expiresInMs !== undefined && { expiresInMs }),
          ...(idempotencyKey !== undefined && { idempotencyKey }),
        });
        const { kind, id } = command;
        return {
          status: 202,
          body: shown(command),
          audited: { target: command.deviceId, detail: { kind, command_id: id } },
        };
      },
    }),
    route({
      method: 'GET',
      path,
      tag: 'commands',
      summary: 'The commands of a device; asked by the device itself, those it is to carry out',
      access: ['device', 'service', 'viewer'],
      params: v.object({ device_id: deviceId }),
      answers: { 200: 'In the order they were given' },
      handle: ({ params, caller }) => {
        const id = deviceIn(params.device_id, caller);
        return listOf(caller.kind === 'device' ? commands.collect(id) : commands.list(id));
      },
    }),
    route({
      method: 'GET',
      path: `${path}/{command_id}`,
      tag: 'commands',
      summary: 'One command, and what became of it',
      access: ['device', 'service', 'viewer'],
      params: v.object({ device_id: deviceId, command_id: commandId }),
      answers: { 200: 'The command', 404: 'There is no such command' },
      handle: ({ params, caller }) => ({
        status: 200,
        body: shown(commandIn(deviceIn(params.device_id, caller), params.command_id)),
      }),
    }),
    route({
      method: 'DELETE',
      path: `${path}/{command_id}`,
      tag: 'commands',
      summary: 'Cancel a command; a device that has it may carry it out all the same',
      access: ['admin'],
      audit: 'command.cancel',
      params: v.object({ device_id: deviceId, command_id: commandId }),
      answers: { 200: 'It is cancelled, and that is on the disk', 409: 'It is finished already' },
      handle: async (request) => {
        const { params, caller } = request;
        const id = deviceIn(params.device_id, caller);
        const command = await commands.cancel(id, params.command_id, actorOf(request));
        return { status: 200, body: shown(command), audited: { target: `${id}/${command.id}` } };
      },
    }),
    route({
      method: 'POST',
      path: `${path}/{command_id}/ack`,
      tag: 'commands',
      summary: 'A device says how it went',
      access: ['device'],
      params: v.object({ device_id: deviceId, command_id: commandId }),
      body: answered,
      answers: { 200: 'That is on the disk', 404: 'There is no such command' },
      handle: async ({ params, body, caller }) => {
        const id = deviceIn(params.device_id, caller);
        const command = commandIn(id, params.command_id);
        await sink({
          transport: 'http',
          deviceId: id,
          channel: 'command-ack',
          name: command.kind,
          payload: Buffer.from(JSON.stringify({ id: command.id, ...body })),
          receivedMonotonicMs: monotonicMs(),
        });
        return { status: 200, body: shown(command) };
      },
    }),
  ];
}
