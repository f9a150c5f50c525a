// Where things lie below the data directory, for the gateway and for the commands beside it.

import { join } from 'node:path';

export interface DataPaths {
  /** LevelDB: registry, alarms, cursors, sessions. */
  readonly state: string;
  /** Beside LevelDB's files, which leave it alone: what replaces the one replaces the other. */
  readonly registryWitness: string;
  readonly usersWitness: string;
  /** LevelDB: recent readings, for queries. */
  readonly history: string;
  /** What exists only while a gateway runs. */
  readonly controlSocket: string;
  readonly portsFile: string;
}

export function dataPaths(dataDir: string): DataPaths {
  return {
    state: join(dataDir, 'state'),
    registryWitness: join(dataDir, 'state', 'registry-revisions'),
    usersWitness: join(dataDir, 'state', 'users-revisions'),
    history: join(dataDir, 'history'),
    controlSocket: join(dataDir, 'run', 'control.sock'),
    portsFile: join(dataDir, 'run', 'ports.json'),
  };
}

/** Files that are backed up beside the stores, by their folder. */
export const backedUpFolders = ['tls'] as const;
/** Where a restored copy of the configuration goes: it is for people, the gateway does not read it. */
export const restoredConfigName = 'config.from-backup.yaml';

const backedUpNames = ['state', 'journal', ...backedUpFolders, restoredConfigName];

/**
 * Whether a restore exchanges an entry of the data directory (with what lies beside a store, such as
 * `state.damaged-1`). The rest stays: `run/`, `restore/`, what others put there.
 */
export function isBackedUp(name: string): boolean {
  return backedUpNames.some((data) => name === data || name.startsWith(`${data}.`));
}
