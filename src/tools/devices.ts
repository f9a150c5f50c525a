// `iotflow devices …`: who may speak to the gateway.

import { randomBytes } from 'node:crypto';
import { dataPaths } from '../config/paths.ts';
import { systemClock } from '../platform/clock.ts';
import { createLog } from '../platform/log.ts';
import { fileWitness } from '../platform/witness.ts';
import { openRegistry } from '../registry/open.ts';
import { operations } from '../registry/operations.ts';
import type { ShownConfig, ShownDevice } from '../registry/shown.ts';
import {
  answer,
  type Call,
  type Command,
  type CommandOption,
  configOption,
  formatTable,
  jsonOption,
} from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation, type OpenStored } from './operator.ts';

const common = { config: configOption, json: jsonOption };

const labelOptions = {
  name: { type: 'string', value: 'NAME', help: 'Name for people, the tag device_name; default the id' },
  type: { type: 'string', value: 'TYPE', help: 'Kind of device, the tag device_type' },
  location: { type: 'string', value: 'PLACE', help: 'Where it is, the tag location' },
} as const satisfies Record<string, CommandOption>;

const idDetails = 'ID is the device id, or the number of the device.';

interface Issued {
  readonly device_id: string;
  readonly api_key: string;
}

/** Devices can be managed before a gateway ever ran. */
export const storedDevices: OpenStored = async ({ config, state }) => {
  const parts = await openRegistry({
    store: state.room('registry'),
    clock: systemClock(),
    randomBytes,
    witness: fileWitness(dataPaths(config.dataDir).registryWitness),
    devicesMax: config.registry.devicesMax,
    log: createLog('silent'),
  });
  return { operations: operations(parts) };
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

/** A number of units in milliseconds; anything that is no number becomes one that the operation refuses. */
function msOf(text: string, unitMs: number): number {
  return /^\d{1,9}(\.\d+)?$/.test(text) ? Math.round(Number(text) * unitMs) : -1;
}

const addCommand: Command = {
  name: 'devices add',
  summary: 'Add a device and show its key, once',
  positionals: ['ID'],
  options: {
    ...labelOptions,
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

function lastSeen({ seen, last_seen }: ShownDevice): string {
  return seen ? (last_seen ?? 'unknown') : '-';
}

function statusOf({ status, service, online }: ShownDevice): string {
  const notes = [...(service ? ['service'] : []), ...(online ? ['online'] : [])];
  return notes.length === 0 ? status : `${status} (${notes.join(', ')})`;
}

const listCommand: Command = {
  name: 'devices list',
  summary: 'List the devices',
  options: common,
  details:
    'LAST SEEN is unknown where the gateway did not know the time. Beside a stopped gateway it is from its stop.',
  run: async (given) => {
    const result = (await call(given, 'devices.list', {})) as { devices: readonly ShownDevice[] };
    const rows = result.devices.map((device) => [
      device.device_id,
      device.name,
      device.device_type,
      device.location,
      statusOf(device),
      lastSeen(device),
    ]);
    const table = formatTable(['ID', 'NAME', 'TYPE', 'LOCATION', 'STATUS', 'LAST SEEN'], rows);
    answer(given, result, rows.length === 0 ? 'no devices yet; iotflow devices add ID makes one' : table);
    return 0;
  },
};

const showCommand: Command = {
  name: 'devices show',
  summary: 'Show everything known of a device',
  positionals: ['ID'],
  options: common,
  details: idDetails,
  run: async (given) => {
    const device = (await call(given, 'devices.show', { device_id: deviceIdOf(given) })) as ShownDevice;
    const rows: [string, string][] = [
      ['number', String(device.id)],
      ['name', device.name],
      ['description', device.description],
      ['type', device.device_type],
      ['location', device.location],
      ['status', statusOf(device)],
      ['firmware', device.firmware_version],
      ['hardware', device.hardware_version],
      ['created', device.created_at ?? 'unknown'],
      ['changed', device.updated_at ?? 'unknown'],
      ['last seen', lastSeen(device)],
      ['keys', device.key_ids.join(', ') || 'none'],
      ['metadata', JSON.stringify(device.metadata)],
    ];
    answer(given, device, formatTable([device.device_id, ''], rows));
    return 0;
  },
};

const changeOptions: Readonly<Record<string, CommandOption>> = {
  ...labelOptions,
  description: { type: 'string', value: 'TEXT', help: 'At most 512 characters' },
  firmware: { type: 'string', value: 'VERSION', help: 'Its firmware' },
  hardware: { type: 'string', value: 'VERSION', help: 'Its hardware' },
  metadata: { type: 'string', value: 'JSON', help: 'A JSON object that replaces the one it has' },
  status: { type: 'string', value: 'STATUS', help: 'active, inactive or maintenance' },
};

/** What is no JSON stays text, which the operation refuses. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

const updateCommand: Command = {
  name: 'devices update',
  summary: 'Change what is known of a device, or its status',
  positionals: ['ID'],
  options: { ...changeOptions, ...common },
  details: 'What is not named stays. Made inactive, a device is cut off and keeps its keys.',
  run: async (given) => {
    const args: Record<string, unknown> = { device_id: deviceIdOf(given), ...labels(given) };
    for (const [option, name] of [
      ['description', 'description'],
      ['firmware', 'firmware_version'],
      ['hardware', 'hardware_version'],
      ['status', 'status'],
    ] as const) {
      const text = given.text(option);
      if (text !== undefined) args[name] = text;
    }
    const metadata = given.text('metadata');
    if (metadata !== undefined) args.metadata = jsonOf(metadata);
    const result = (await call(given, 'devices.update', args)) as ShownDevice;
    answer(given, result, `${result.device_id}: changed`);
    return 0;
  },
};

const configCommand: Command = {
  name: 'devices config',
  summary: 'Show what a device is to be set to and what it says it is, or set the former',
  positionals: ['ID', '[JSON]'],
  options: common,
  details:
    'JSON is the whole document. It goes to the device as a command, which waits until the device is there.',
  run: async (given) => {
    const [device_id = '', document] = given.positionals;
    const result = (await (document === undefined
      ? call(given, 'devices.config', { device_id })
      : call(given, 'devices.configure', { device_id, config: jsonOf(document) }))) as ShownConfig;
    const { desired, reported } = result;
    const rows = [
      ['desired', String(desired.version), JSON.stringify(desired.config)],
      ['reported', String(reported.version), JSON.stringify(reported.config)],
      ['taken over', String(reported.desired_version), ''],
    ];
    answer(given, result, formatTable(['', 'VERSION', 'DOCUMENT'], rows));
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
    const graceMs = msOf(given.text('grace-hours') ?? '0', 3_600_000);
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

const approveCommand: Command = {
  name: 'devices approve',
  summary: 'Let in a device that registered by itself',
  positionals: ['ID'],
  options: common,
  details: 'iotflow devices list shows the pending ones; iotflow devices remove turns one away.',
  run: async (given) => {
    const result = (await call(given, 'devices.approve', { device_id: deviceIdOf(given) })) as ShownDevice;
    answer(given, result, `${result.device_id}: approved; its key works now`);
    return 0;
  },
};

const removeCommand: Command = {
  name: 'devices remove',
  summary: 'Remove a device, its keys and its connections for good',
  positionals: ['ID'],
  options: {
    readings: { type: 'boolean', help: 'Delete what it has measured too, here and in InfluxDB' },
    ...common,
  },
  details: 'Else its readings stay. Its number is given to no other device.',
  run: async (given) => {
    const args = { device_id: deviceIdOf(given), readings: given.flag('readings') };
    const result = (await call(given, 'devices.remove', args)) as Issued & {
      readonly erasure?: { readonly local: string; readonly remote: string };
    };
    const { device_id, erasure } = result;
    const readings = erasure && `; its readings: here ${erasure.local}, InfluxDB ${erasure.remote}`;
    answer(given, result, `${device_id}: removed${readings ?? ''}`);
    return 0;
  },
};

const pairCommand: Command = {
  name: 'devices pair',
  summary: 'Let devices register without asking, for some minutes',
  options: {
    minutes: { type: 'string', value: 'MINUTES', help: 'How long, up to 60; default 5' },
    count: { type: 'string', value: 'N', help: 'How many devices at most, up to 100; default 10' },
    close: { type: 'boolean', help: 'Close the window now' },
    ...common,
  },
  details: 'Asks a running gateway. The window closes by itself, and after that many devices.',
  run: async (given) => {
    const args = {
      for_ms: msOf(given.text('minutes') ?? '5', 60_000),
      devices_max: msOf(given.text('count') ?? '10', 1),
      close: given.flag('close'),
    };
    const result = (await callOperation(requireConfig(given).config, 'devices.pair', args)) as {
      readonly open: boolean;
      readonly ends_in_seconds: number;
      readonly devices_left: number;
    };
    const { open, ends_in_seconds, devices_left } = result;
    const text = `up to ${devices_left} devices may register within ${ends_in_seconds} seconds`;
    answer(given, result, open ? text : 'the pairing window is closed');
    return 0;
  },
};

interface ListedToken {
  readonly token_id: string;
  readonly name: string | null;
  readonly type: string | null;
  readonly location: string | null;
  readonly ends_in_seconds: number;
}

const tokensAddCommand: Command = {
  name: 'devices tokens add',
  summary: 'Make a token with which one device may register, and show it, once',
  options: {
    ...labelOptions,
    hours: { type: 'string', value: 'HOURS', help: 'How long it holds, up to 720; default 24' },
    ...common,
  },
  details:
    'The hours count while the gateway runs. A name, type or location given here holds, whatever the device says.',
  run: async (given) => {
    const args = { life_ms: msOf(given.text('hours') ?? '24', 3_600_000), ...labels(given) };
    const result = (await call(given, 'devices.tokens.add', args)) as ListedToken & {
      readonly enrolment_token: string;
    };
    const text = `${result.enrolment_token}\nThe token is shown this once and works once.`;
    answer(given, result, text);
    return 0;
  },
};

const tokensListCommand: Command = {
  name: 'devices tokens list',
  summary: 'List the enrolment tokens that were not used',
  options: common,
  run: async (given) => {
    const result = (await call(given, 'devices.tokens.list', {})) as { tokens: readonly ListedToken[] };
    const rows = result.tokens.map(({ token_id, name, type, location, ends_in_seconds }) => [
      token_id,
      name ?? '',
      type ?? '',
      location ?? '',
      ends_in_seconds === 0 ? 'ended' : `${Math.ceil(ends_in_seconds / 60)} min`,
    ]);
    const table = formatTable(['ID', 'NAME', 'TYPE', 'LOCATION', 'ENDS IN'], rows);
    answer(given, result, rows.length === 0 ? 'no enrolment tokens' : table);
    return 0;
  },
};

const tokensRevokeCommand: Command = {
  name: 'devices tokens revoke',
  summary: 'End an enrolment token',
  positionals: ['ID'],
  options: common,
  run: async (given) => {
    const [tokenId = ''] = given.positionals;
    const result = await call(given, 'devices.tokens.revoke', { token_id: tokenId });
    answer(given, result, `${tokenId}: revoked`);
    return 0;
  },
};

export const deviceCommands: readonly Command[] = [
  addCommand,
  listCommand,
  showCommand,
  updateCommand,
  configCommand,
  rotateCommand,
  revokeCommand,
  approveCommand,
  removeCommand,
  pairCommand,
  tokensAddCommand,
  tokensListCommand,
  tokensRevokeCommand,
];
