// `iotflow devices …`: who may speak to the gateway.

import { randomBytes } from 'node:crypto';
import { dataPaths } from '../config/paths.ts';
import { systemClock } from '../platform/clock.ts';
import { fileWitness } from '../platform/witness.ts';
import { operations, type ShownDevice } from '../registry/operations.ts';
import { Registry } from '../registry/registry.ts';
import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation, type OpenStored } from './operator.ts';

const common = { config: configOption, json: jsonOption };

interface Issued {
  readonly device_id: string;
  readonly api_key: string;
}

/** Devices can be managed before a gateway ever ran. */
export const storedDevices: OpenStored = async ({ config, state }) => {
  const registry = await Registry.open({
    store: state.room('registry'),
    clock: systemClock(),
    randomBytes,
    witness: fileWitness(dataPaths(config.dataDir).registryWitness),
    devicesMax: config.registry.devicesMax,
  });
  return { operations: operations(registry) };
};

async function call(
  given: Call,
  operation: string,
  args: Readonly<Record<string, unknown>>,
): Promise<unknown> {
  return await callOperation(requireConfig(given).config, operation, args, storedDevices);
}

function deviceIdOf(given: Call): string {
  return given.positionals[0] ?? '';
}

function answerKey(given: Call, issued: Issued, done: string): void {
  const text = [
    `${issued.device_id}: ${done}`,
    `  MQTT user name  ${issued.device_id}`,
    `  MQTT password   ${issued.api_key}`,
    'The password is shown this once and stored nowhere.',
  ].join('\n');
  answer(given, { device_id: issued.device_id, api_key: issued.api_key }, text);
}

function labels(given: Call): Record<string, string> {
  const found = ['name', 'type', 'location'].map((label) => [label, given.text(label)] as const);
  return Object.fromEntries(found.filter((pair): pair is [string, string] => pair[1] !== undefined));
}

const addCommand: Command = {
  name: 'devices add',
  summary: 'Add a device and show its key, once',
  positionals: ['ID'],
  options: {
    name: { type: 'string', value: 'NAME', help: 'Name for people, the tag device_name; default the id' },
    type: { type: 'string', value: 'TYPE', help: 'Kind of device, the tag device_type' },
    location: { type: 'string', value: 'PLACE', help: 'Where it is, the tag location' },
    service: { type: 'boolean', help: "A local account that may read every device's topics" },
    ...common,
  },
  details: 'Ids are 1 to 64 characters of a-z, 0-9, - and _. Works with the gateway running and stopped.',
  run: async (given) => {
    const args = { device_id: deviceIdOf(given), service: given.flag('service'), ...labels(given) };
    answerKey(given, (await call(given, 'devices.add', args)) as Issued, 'added');
    return 0;
  },
};

const listCommand: Command = {
  name: 'devices list',
  summary: 'List the devices',
  options: common,
  run: async (given) => {
    const result = (await call(given, 'devices.list', {})) as { devices: readonly ShownDevice[] };
    const rows = result.devices.map((device) => [
      device.device_id,
      device.name,
      device.type,
      device.location,
      device.service ? `${device.status} (service)` : device.status,
      device.last_seen ?? '-',
    ]);
    const table = formatTable(['ID', 'NAME', 'TYPE', 'LOCATION', 'STATUS', 'LAST SEEN'], rows);
    answer(given, result, rows.length === 0 ? 'no devices yet; iotflow devices add ID makes one' : table);
    return 0;
  },
};

const rotateCommand: Command = {
  name: 'devices rotate',
  summary: 'Give a device a new key; the old one ends',
  positionals: ['ID'],
  options: {
    'grace-hours': {
      type: 'string',
      value: 'HOURS',
      help: 'How long the old key still holds, 0 to 720; default 0',
    },
    ...common,
  },
  details: 'A revoked device may connect again with its new key.',
  run: async (given) => {
    const hours = given.text('grace-hours') ?? '0';
    // Anything that is no number becomes one that the operation refuses.
    const graceMs = /^\d+(\.\d+)?$/.test(hours) ? Math.round(Number(hours) * 3_600_000) : -1;
    const args = { device_id: deviceIdOf(given), grace_ms: graceMs };
    answerKey(given, (await call(given, 'devices.rotate', args)) as Issued, 'has a new key');
    return 0;
  },
};

const revokeCommand: Command = {
  name: 'devices revoke',
  summary: 'End every key of a device and its connections',
  positionals: ['ID'],
  options: common,
  run: async (given) => {
    const result = (await call(given, 'devices.revoke', { device_id: deviceIdOf(given) })) as ShownDevice;
    answer(given, result, `${result.device_id}: revoked; iotflow devices rotate lets it in again`);
    return 0;
  },
};

export const deviceCommands: readonly Command[] = [addCommand, listCommand, rotateCommand, revokeCommand];
