// Copies of the built program with one durability call taken out of each. A suite of power cuts that does not find
// them is blind. Three are not among them, because they cannot be seen here. The fsync of a new segment's zeros: the
// first commit in it syncs the whole file, and before that nothing is in it. The fsync of the folder after its new
// name: in a first start other folders are synced later, and with them, in the order of names, this one. And those of
// the folders above a new folder: these file systems keep them with the first file that is synced below.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Names } from './power-disk.ts';

export interface Mutant {
  readonly name: string;
  readonly without: string;
  /** The disk on which it shows. */
  readonly names: Names;
  apply(dist: string): void;
}

function replacing(file: string, from: string, to: string): Mutant['apply'] {
  return (dist) => {
    const path = join(dist, file);
    const text = readFileSync(path, 'utf8');
    if (!text.includes(from))
      throw new Error(`${file} no longer has ${from}: adapt test/powercut/mutants.ts`);
    writeFileSync(path, text.replace(from, to));
  };
}

export const mutants: readonly Mutant[] = [
  {
    name: 'commit-unsynced',
    without: 'O_DSYNC of the ring: PUBACK before the bytes are on the disk',
    names: 'ordered',
    apply: replacing('platform/disk.js', ' | constants.O_DSYNC', ''),
  },
  {
    name: 'store-unsynced',
    without: 'sync of LevelDB batches: blocks, checkpoints, devices',
    names: 'ordered',
    apply: replacing(
      'platform/level-store.js',
      'batch(operations, { sync })',
      'batch(operations, { sync: false })',
    ),
  },
];
