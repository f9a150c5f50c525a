// Which configuration a command works with: --config FILE, else $IOTFLOW_CONFIG, else config.yaml in the working
// directory, else defaults.

import { existsSync } from 'node:fs';
import { formatFault } from '../config/fault.ts';
import { type FaultyConfig, type LoadedConfig, loadConfig } from '../config/load.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Call } from './command.ts';

/** The file in charge; undefined for defaults. */
export function configFile(call: Call, option = call.text('config')): string | undefined {
  const named = option ?? call.env.IOTFLOW_CONFIG;
  if (named !== undefined && named !== '') return named;
  return existsSync('config.yaml') ? 'config.yaml' : undefined;
}

export function readConfig(call: Call, file: string | undefined): LoadedConfig | FaultyConfig {
  return loadConfig({ env: call.env, ...(file === undefined ? {} : { file }) });
}

/**
 * For commands that cannot go on without. Lists every fault on standard error.
 * @throws GatewayError `CONFIG_INVALID`
 */
export function requireConfig(call: Call): LoadedConfig {
  const file = configFile(call);
  const loaded = readConfig(call, file);
  if ('config' in loaded) return loaded;
  const name = file ?? 'configuration';
  for (const fault of loaded.faults) call.stderr.write(`${formatFault(fault, name)}\n`);
  const count = loaded.faults.length === 1 ? '1 fault' : `${loaded.faults.length} faults`;
  throw new GatewayError('CONFIG_INVALID', `${name} has ${count}`);
}
