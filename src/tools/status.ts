// `iotflow status`: how the running gateway is, and its figures.

import { answer, type Command, configOption, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation } from './operator.ts';

/** Every figure on a line of its own: `journal.backlogPoints  5`. */
function lines(value: unknown, path: string): string[] {
  if (typeof value === 'object' && value !== null) {
    return Object.entries(value).flatMap(([key, below]) =>
      lines(below, path === '' ? key : `${path}.${key}`),
    );
  }
  return [`${path}  ${String(value)}`];
}

export const statusCommand: Command = {
  name: 'status',
  summary: 'Show how the running gateway is',
  options: { config: configOption, json: jsonOption },
  details: 'Exit code 1 when the gateway fails its task.',
  run: async (call) => {
    const result = await callOperation(requireConfig(call).config, 'gateway.status', {});
    answer(call, result, lines(result, '').join('\n'));
    const { health } = (result ?? {}) as { health?: { ok?: unknown } };
    return health?.ok === false ? 1 : 0;
  },
};
