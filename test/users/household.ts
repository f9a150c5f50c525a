// People of a test: real LevelDB, a clock under the test's hand, and what is kept over a restart.

import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { Audit } from '../../src/users/audit.ts';
import { openPeople, type PeopleOptions } from '../../src/users/people.ts';
import { tempFolder } from '../support/temp.ts';
import { TestTime } from './test-time.ts';

const log = createLog('silent');

export const goodPassword = 'three blind mice';
export const otherPassword = 'see how they run';

export async function household() {
  const folder = tempFolder();
  const time = new TestTime();
  const level = await LevelStore.open(join(folder, 'state'), { log });
  onTestFinished(() => level.close());
  const store = level.room('users');
  const audit = await Audit.open({ store: level.room('audit'), time, wallMs: () => time.wallMs(), log });
  const witnessPath = join(folder, 'users-revisions');
  /** As after a restart of the gateway. */
  const open = (options: Partial<PeopleOptions> = {}) =>
    openPeople({
      store,
      time,
      monotonicMs: () => time.monotonicMs(),
      randomBytes,
      witness: fileWitness(witnessPath),
      audit,
      idleMs: 24 * 3_600_000,
      lifetimeMs: 14 * 86_400_000,
      ...options,
    });
  return { time, store, audit, open, witnessPath };
}

export async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return 'nothing was thrown';
}
