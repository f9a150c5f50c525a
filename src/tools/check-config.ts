// `iotflow check-config`: every fault of a configuration, or the word that it is good.

import { formatFault } from '../config/fault.ts';
import { type Command, configOption, jsonOption } from './command.ts';
import { configFile, readConfig } from './configuration.ts';

export const checkConfigCommand: Command = {
  name: 'check-config',
  summary: 'Check a configuration and list every fault in it',
  positionals: ['[FILE]'],
  options: { config: configOption, json: jsonOption },
  details:
    'Environment variables are checked with it. Exit code 0 when all is good, 1 when there are faults.',
  run: async (call) => {
    const file = configFile(call, call.positionals[0] ?? call.text('config'));
    const name = file ?? 'configuration';
    const loaded = readConfig(call, file);
    const faults = 'faults' in loaded ? loaded.faults : [];
    const warnings = 'warnings' in loaded ? loaded.warnings : [];
    if (call.flag('json')) {
      call.stdout.write(`${JSON.stringify({ ok: faults.length === 0, faults, warnings })}\n`);
    } else {
      for (const warning of warnings) call.stderr.write(`warning: ${warning}\n`);
      for (const fault of faults) call.stdout.write(`${formatFault(fault, name)}\n`);
      if (faults.length === 0) {
        call.stdout.write(
          file === undefined ? 'no configuration file: defaults are good\n' : `${file}: good\n`,
        );
      }
    }
    return faults.length === 0 ? 0 : 1;
  },
};
