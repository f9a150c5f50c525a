// `iotflow alarms …`: what sounds, and how to quiet it. Only a running gateway has alarms.

import type { ShownAlarm } from '../alarms/view.ts';
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

function sinceOf({ raised_at, is_raised_uncertain, raised_ago_ms }: ShownAlarm): string {
  if (raised_at !== null) return `${raised_at}${is_raised_uncertain ? ' at the latest' : ''}`;
  if (raised_ago_ms === undefined) return 'date unknown';
  return `${Math.round(raised_ago_ms / 60_000)} min ago`;
}

const listCommand: Command = {
  name: 'alarms list',
  summary: 'List the alarms that are not normal',
  options: common,
  run: async (given) => {
    const result = (await call(given, 'alarms.list', {})) as { alarms: readonly ShownAlarm[] };
    const rows = result.alarms.map((alarm) => [
      alarm.id,
      alarm.state,
      alarm.priority,
      sinceOf(alarm),
      alarm.message,
    ]);
    const table = formatTable(['ID', 'STATE', 'PRIORITY', 'SINCE', 'MESSAGE'], rows);
    answer(given, result, rows.length === 0 ? 'no alarms' : table);
    return 0;
  },
};

const acknowledgeCommand: Command = {
  name: 'alarms acknowledge',
  summary: 'Acknowledge one alarm, or all of them; their sound stops',
  positionals: ['[ID]'],
  options: common,
  run: async (given) => {
    const [id] = given.positionals;
    const result = await call(given, 'alarms.acknowledge', { by, ...(id === undefined ? {} : { id }) });
    const { acknowledged } = result as { acknowledged?: unknown };
    const ids = Array.isArray(acknowledged) ? acknowledged.map(String) : [String(acknowledged)];
    const text =
      ids.length === 0 ? 'nothing was waiting to be acknowledged' : `acknowledged: ${ids.join(', ')}`;
    answer(given, result, text);
    return 0;
  },
};

const silenceCommand: Command = {
  name: 'alarms silence',
  summary: 'Silence the sound for some minutes; a new alarm breaks the silence',
  options: common,
  run: async (given) => {
    const result = await call(given, 'alarms.silence', { by });
    const { until } = result as { until?: unknown };
    answer(given, result, typeof until === 'string' ? `silent until ${until}` : 'silent for some minutes');
    return 0;
  },
};

export const alarmCommands: readonly Command[] = [listCommand, acknowledgeCommand, silenceCommand];
