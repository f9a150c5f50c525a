// Where things lie below the data directory: one place, for the gateway and for the commands beside it.

import { join } from 'node:path';

export interface DataPaths {
  /** LevelDB: registry, alarms, cursors, sessions. */
  readonly state: string;
  readonly journal: string;
  readonly certificates: string;
  /** What exists only while a gateway runs. */
  readonly run: string;
  readonly controlSocket: string;
  readonly portsFile: string;
}

export function dataPaths(dataDir: string): DataPaths {
  const run = join(dataDir, 'run');
  return {
    state: join(dataDir, 'state'),
    journal: join(dataDir, 'journal'),
    certificates: join(dataDir, 'certificates'),
    run,
    controlSocket: join(run, 'control.sock'),
    portsFile: join(run, 'ports.json'),
  };
}
