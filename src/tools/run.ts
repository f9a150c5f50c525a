// `iotflow run`: finds and checks the configuration; the gateway itself is handed in, for only main.ts knows it.

import type { LoadedConfig } from '../config/load.ts';
import { type Command, configOption } from './command.ts';
import { requireConfig } from './configuration.ts';

/** Runs until the gateway has stopped; answers the exit code. Faults of the configuration never get here. */
export type StartGateway = (loaded: LoadedConfig) => Promise<number>;

export function runCommand(start: StartGateway): Command {
  return {
    name: 'run',
    summary: 'Run the gateway',
    options: { config: configOption },
    run: async (call) => await start(requireConfig(call)),
  };
}
