// Where things lie below the data directory, for the gateway and for the commands beside it.

import { join } from 'node:path';

export interface DataPaths {
  /** LevelDB: registry, alarms, cursors, sessions. */
  readonly state: string;
  /** What exists only while a gateway runs. */
  readonly controlSocket: string;
  readonly portsFile: string;
}

export function dataPaths(dataDir: string): DataPaths {
  return {
    state: join(dataDir, 'state'),
    controlSocket: join(dataDir, 'run', 'control.sock'),
    portsFile: join(dataDir, 'run', 'ports.json'),
  };
}
