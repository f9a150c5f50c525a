// The audit log beside a stopped gateway. Opened with the first change: commands that change nothing do not wait.

import { systemClock } from '../platform/clock.ts';
import type { LevelStore } from '../platform/level-store.ts';
import { createLog } from '../platform/log.ts';
import { Audit, type AuditTrail } from '../users/audit.ts';

export function openStoredAudit(state: LevelStore): Promise<Audit> {
  const { wallMs } = systemClock();
  return Audit.open({ store: state.room('audit'), wallMs, log: createLog('silent') });
}

export function storedTrail(state: LevelStore): AuditTrail {
  let opening: Promise<Audit> | undefined;
  return {
    record: async (fact) => {
      opening ??= openStoredAudit(state);
      await (await opening).record(fact);
    },
  };
}
