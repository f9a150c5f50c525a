// The journal of a stopped gateway, for commands that look into it: nothing is dropped by that, whatever the caps are.

import { join } from 'node:path';
import type { Config } from '../config/schema.ts';
import { journalOptions } from '../config/stage-options.ts';
import { Journal } from '../journal/journal.ts';
import { systemClock } from '../platform/clock.ts';
import { systemDisk } from '../platform/disk.ts';
import type { LevelStore } from '../platform/level-store.ts';
import { createLog } from '../platform/log.ts';

const ever = Number.MAX_SAFE_INTEGER;

/** Opens it as the gateway does, in a data directory whose state is open. Throws as `Journal.open` does. */
export function openStoredJournal(dataDir: string, state: LevelStore, config: Config): Promise<Journal> {
  return Journal.open({
    directory: join(dataDir, 'journal'),
    store: state.room('hot'),
    disk: systemDisk(),
    clock: systemClock(),
    log: createLog('silent'),
    options: {
      ...journalOptions(config),
      maxBytes: ever,
      maxAgeMs: { alarm: ever, event: ever, telemetry: ever },
    },
  });
}
