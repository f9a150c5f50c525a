// The power goes during `iotflow restore`: the old data or the new must be there whole. Which of them is what
// docs/backup.md says: the new ones from the moment their folder is called `proven-N`, and surely once the command has
// answered.

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { runTool } from './gateway.ts';
import type { Moment, PowerDisk } from './power-disk.ts';

export type RestoreKind = 'restore' | 'exchange' | 'restored';

/** The how-manieth is drawn from 1 to `most`. */
export const restoreMoments: readonly {
  readonly kind: RestoreKind;
  readonly event: Moment['event'];
  readonly glob: string;
  readonly most: number;
}[] = [
  { kind: 'restore', event: 'any', glob: '*/restore/building/*', most: 60 },
  { kind: 'restore', event: 'any', glob: '*/restore/building/*', most: 300 },
  { kind: 'exchange', event: 'rename', glob: '*/restore/proven-*', most: 1 },
  { kind: 'exchange', event: 'mkdir', glob: '*/restore/before-*', most: 1 },
  { kind: 'exchange', event: 'rename', glob: '*/restore/before-*', most: 3 },
  { kind: 'exchange', event: 'fsyncdir', glob: '*/restore/before-*', most: 1 },
  { kind: 'exchange', event: 'rename', glob: '*/restore/moving-*', most: 1 },
  // Into their places: nothing else is renamed to what lies there.
  { kind: 'exchange', event: 'rename', glob: '/data/[!r]*', most: 3 },
  { kind: 'exchange', event: 'fsyncdir', glob: '/data', most: 3 },
  { kind: 'exchange', event: 'fsyncdir', glob: '*/restore', most: 5 },
  { kind: 'exchange', event: 'unlink', glob: '*/restore/moving-*', most: 1 },
];

/** Runs the command on the disk; the cuts are armed. */
export async function restoreOn(disk: PowerDisk, mainJs: string, file: string): Promise<void> {
  const settings = { dataDir: join(disk.folder, 'data'), influxUrl: 'http://127.0.0.1:9' };
  await runTool(mainJs, settings, 'restore', file);
}

/** Whether the new data must be in what a cut left. */
export function isRestored(image: string): boolean {
  try {
    return readdirSync(join(image, 'data', 'restore')).some((name) => /^(proven|moving|before)-/.test(name));
  } catch {
    return false;
  }
}
