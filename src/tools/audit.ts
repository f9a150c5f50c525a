// `iotflow audit`: who changed what.

import type { ShownAudit } from '../users/audit.ts';
import { auditOperations } from '../users/audit-operations.ts';
import { openStoredAudit } from './audit-trail.ts';
import { answer, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation, type OpenStored } from './operator.ts';

const storedAudit: OpenStored = async ({ state }) => {
  const audit = await openStoredAudit(state);
  return { operations: auditOperations(audit), close: () => audit.close() };
};

export const auditCommand: Command = {
  name: 'audit',
  summary: 'Show who changed what, the newest first',
  options: {
    limit: { type: 'string', value: 'N', help: 'How many; default 100' },
    config: configOption,
    json: jsonOption,
  },
  run: async (given) => {
    const limit = Number(given.text('limit') ?? 100);
    const { config } = requireConfig(given);
    const result = (await callOperation(config, 'audit.list', { limit }, storedAudit)) as ShownAudit;
    const rows = result.entries.map((entry) => [
      `${entry.time}${entry.time_uncertain ? ' ?' : ''}`,
      entry.actor,
      entry.action,
      entry.target,
      entry.address ?? '-',
      Object.entries(entry.detail ?? {})
        .map(([name, value]) => `${name}=${String(value)}`)
        .join(' '),
    ]);
    const table = formatTable(['TIME', 'WHO', 'WHAT', 'OF', 'FROM', 'DETAIL'], rows);
    const missing = result.damaged > 0 ? [`${result.damaged} entries are damaged or missing`] : [];
    answer(given, result, [rows.length === 0 ? 'nothing was changed yet' : table, ...missing].join('\n'));
    return 0;
  },
};
