// Waiting for what another part does in its own time, without a limit of its own: the test's timeout is the limit.

import { setTimeout as sleep } from 'node:timers/promises';

export async function until(isSo: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await isSo())) await sleep(5);
}
