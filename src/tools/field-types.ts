// `iotflow field-types …`: what every field is taken for, and how to forget it after a typing error or a new bucket.

import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation } from './operator.ts';
import { storedLetters } from './stored-letters.ts';

const common = { config: configOption, json: jsonOption };

async function call(given: Call, operation: string, args: Readonly<Record<string, unknown>>) {
  return await callOperation(requireConfig(given).config, operation, args, storedLetters);
}

interface ShownType {
  readonly measurement: string;
  readonly field: string;
  /** By its first value. */
  readonly pinned?: string;
  /** As InfluxDB said. */
  readonly influx?: string;
}

const listCommand: Command = {
  name: 'field-types list',
  summary: 'List the type of every field: pinned at its first value, or told by InfluxDB',
  options: common,
  run: async (given) => {
    const result = (await call(given, 'field-types.list', {})) as { field_types: readonly ShownType[] };
    const rows = result.field_types.map(({ measurement, field, pinned, influx }) => [
      measurement,
      field,
      pinned ?? '-',
      influx ?? '-',
    ]);
    const table = formatTable(['MEASUREMENT', 'FIELD', 'PINNED', 'INFLUXDB'], rows);
    answer(given, result, rows.length === 0 ? 'no field types yet' : table);
    return 0;
  },
};

const forgetCommand: Command = {
  name: 'field-types forget',
  summary: 'Forget the type of a field; its next value sets it anew',
  positionals: ['MEASUREMENT', 'FIELD'],
  options: common,
  details:
    'Afterwards iotflow dead-letters replay --all --code FIELD_TYPE_CONFLICT gives what was refused a chance.',
  run: async (given) => {
    const [measurement, field] = given.positionals;
    const result = await call(given, 'field-types.forget', { measurement, field });
    answer(given, result, `forgotten: ${field} of ${measurement}`);
    return 0;
  },
};

export const fieldTypeCommands: readonly Command[] = [listCommand, forgetCommand];
