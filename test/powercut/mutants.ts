// Copies of the built program with one durability call taken out of each. A suite of power cuts that does not find
// them is blind. Some are not among them, because they were not seen here. The fsync of a new segment's zeros: the
// first commit in it syncs the whole file, and before that nothing is in it. The fsync of the folder after its new
// name, see docs/reliability.md. Those inside an exchange: one of them drives all names on, and the next start finishes
// the rest. And those of the folders above a new folder: these file systems keep them with the first file below.

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Part } from './life.ts';
import type { Names } from './power-disk.ts';

export interface Mutant {
  readonly name: string;
  readonly without: string;
  /** The disk on which it shows. */
  readonly names: Names;
  /** What of a life is enough to see it. */
  readonly part: Part;
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
    part: 'all',
    apply: replacing('platform/disk.js', ' | constants.O_DSYNC', ''),
  },
  {
    name: 'store-unsynced',
    without: 'sync of LevelDB batches: blocks, checkpoints, devices',
    names: 'ordered',
    part: 'all',
    apply: replacing(
      'platform/level-store.js',
      'batch(operations, { sync })',
      'batch(operations, { sync: false })',
    ),
  },
  {
    name: 'restore-unsynced',
    without: 'fsync of what a restore built, before it is put in place',
    names: 'ordered',
    part: 'restore',
    apply: replacing('tools/restore.js', 'await syncTree(folder);', ''),
  },
  {
    name: 'folders-unsynced',
    without: 'fsync of every folder: a restore has answered and the old data are back',
    names: 'ordered',
    part: 'restore',
    apply: replacing(
      'platform/disk.js',
      "await open(directory, 'r');\n    try {\n        await handle.sync();",
      "await open(directory, 'r');\n    try {",
    ),
  },
];
