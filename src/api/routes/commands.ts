// Commands over HTTP: given by admins, seen by whoever may read, and collected by the devices that cannot be reached.
// A device sees and answers its own alone; what it collects counts as delivered.

import assert from 'node:assert/strict';
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
  kind: v.pipe(
    v.string('the kind of the command'),
    v.description('The last level of the topic: letters, digits, - and _'),
    v.examples(['close']),
  ),
  payload: v.pipe(
    v.optional(payload, {}),
    v.description('What the device is told beside id and kind, at most 8192 bytes of JSON'),
    v.examples([{ speed: 3 }]),
  ),
  expires_in_ms: v.pipe(
    v.optional(v.nullable(v.number('milliseconds, or null for never'))),
    v.description('null: never; default: commands.expires_in_ms of the configuration, a day'),
  ),
  idempotency_key: v.pipe(
    v.optional(v.string('text of 1 to 128 characters')),
    v.description('Sent again with it, it is the same command'),
  ),
});

const state = v.picklist(['queued', 'delivered', 'acknowledged', 'failed', 'expired', 'cancelled']);
const time = v.nullable(v.pipe(v.string(), v.isoTimestamp()));

const shownSchema = v.strictObject({
  command_id: commandId,
  device_id: deviceId,
  kind: v.string(),
  payload: v.record(v.string(), v.unknown()),
  state,
  message: v.pipe(v.nullable(v.string()), v.description('What the device said, or why it went no further')),
  attempts: v.pipe(v.number(), v.integer(), v.description('How often it was given to the device')),
  actor: v.pipe(v.string(), v.description('Who wants it'), v.examples(['user:anna'])),
  idempotency_key: v.nullable(v.string()),
  created_at: v.pipe(time, v.description('null while the date is not known')),
  expires_at: v.pipe(time, v.description('null also when it never expires')),
  delivered_at: time,
  finished_at: time,
});

const listSchema = v.strictObject({
  count: v.pipe(v.number(), v.integer()),
  commands: v.array(shownSchema),
});

const answered = v.strictObject({
  status: v.picklist(['ok', 'failed'], 'ok or failed'),
  message: v.optional(v.string('text')),
});

const unknownDevice = 'There is no such device';
const unknown = 'There is no such device, or it has no such command';

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

  async function answer(ofDevice: string, id: string, body: v.InferOutput<typeof answered>): Promise<Answer> {
    const command = commandIn(ofDevice, id);
    await sink({
      transport: 'http',
      deviceId: ofDevice,
      channel: 'command-ack',
      name: command.kind,
      payload: Buffer.from(JSON.stringify({ id: command.id, ...body })),
      receivedMonotonicMs: monotonicMs(),
    });
    return { status: 200, body: shown(command) };
  }

  /** The device whose key it is. */
  function callerIn(caller: Caller): string {
    assert(caller.kind === 'device', 'BUG: only devices are let in');
    return caller.deviceId;
  }

  const path = '/api/v1/devices/{device_id}/commands';
  const own = '/api/v1/devices/commands';
  return [
    route({
      method: 'GET',
      path: own,
      tag: 'commands',
      summary: 'What the device that asks is to do; it is given again until it answers',
      access: ['device'],
      answers: { 200: { description: 'In the order they were given', schema: listSchema } },
      handle: ({ caller }) => listOf(commands.collect(callerIn(caller))),
    }),
    route({
      method: 'POST',
      path: `${own}/{command_id}/ack`,
      tag: 'commands',
      summary: 'The device that asks says how it went',
      access: ['device'],
      params: v.object({ command_id: commandId }),
      body: answered,
      answers: { 200: { description: 'That is on the disk', schema: shownSchema }, 404: unknown },
      handle: ({ params, body, caller }) => answer(callerIn(caller), params.command_id, body),
    }),
    route({
      method: 'POST',
      path,
      tag: 'commands',
      summary: 'Give a device a command; asleep, it gets it when it wakes',
      access: ['admin'],
      audit: 'command.send',
      params: v.object({ device_id: deviceId }),
      body: newCommand,
      answers: {
        202: { description: 'It is on the disk, and on its way', schema: shownSchema },
        404: unknownDevice,
        409: 'The key names another command, or the device may not connect',
        507: 'As many wait as may: cancel some, or let them expire',
      },
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
      answers: {
        200: { description: 'In the order they were given', schema: listSchema },
        404: unknownDevice,
      },
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
      answers: { 200: { description: 'The command', schema: shownSchema }, 404: unknown },
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
      answers: {
        200: { description: 'It is cancelled, and that is on the disk', schema: shownSchema },
        404: unknown,
        409: 'It is finished already',
      },
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
      answers: { 200: { description: 'That is on the disk', schema: shownSchema }, 404: unknown },
      handle: ({ params, body, caller }) =>
        answer(deviceIn(params.device_id, caller), params.command_id, body),
    }),
  ];
}
