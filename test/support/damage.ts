// Damage to files, chosen by a seed: what cards, power cuts and people do to a data directory.

import {
  closeSync,
  copyFileSync,
  fstatSync,
  ftruncateSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Random } from '../../src/simulator/random.ts';

/** What was done to one file. */
export interface Damage {
  readonly kind: string;
  /** Relative to the folder. */
  readonly file: string;
  /** Bytes that may have changed; undefined: all of the file. */
  readonly from?: number;
  readonly to?: number;
}

export function pick<T>(random: Random, choices: readonly T[]): T {
  const chosen = choices[Math.floor(random() * choices.length)];
  if (chosen === undefined) throw new Error('nothing to choose from');
  return chosen;
}

function bytesOf(random: Random, length: number): Buffer {
  return Buffer.from(Array.from({ length }, () => Math.floor(random() * 256)));
}

/** Regular files below the folder, in a fixed order. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => lstatSync(join(folder, name)).isFile())
    .sort();
}

type Edit = (random: Random, handle: number, bytes: number) => readonly [from: number, to: number];

function write(handle: number, content: Buffer, at: number): readonly [number, number] {
  writeSync(handle, content, 0, content.length, at);
  return [at, at + content.length];
}

function inside(random: Random, bytes: number): number {
  return Math.floor(random() * bytes);
}

const sectorBytes = 512;

/** Changes within a file that stays where it is. */
const edits: Readonly<Record<string, Edit>> = {
  'bit flip': (random, handle, bytes) => {
    const at = inside(random, bytes);
    const one = Buffer.alloc(1);
    readSync(handle, one, 0, 1, at);
    one[0] = (one[0] ?? 0) ^ (1 << Math.floor(random() * 8));
    return write(handle, one, at);
  },
  'bytes of noise': (random, handle, bytes) =>
    write(handle, bytesOf(random, 1 + inside(random, Math.min(4096, bytes))), inside(random, bytes)),
  'run of zeros': (random, handle, bytes) =>
    write(handle, Buffer.alloc(1 + inside(random, bytes)), inside(random, bytes)),
  'run of ones': (random, handle, bytes) =>
    write(handle, Buffer.alloc(1 + inside(random, Math.min(65_536, bytes)), 0xff), inside(random, bytes)),
  'zero-filled tail': (random, handle, bytes) => {
    const at = inside(random, bytes);
    return write(handle, Buffer.alloc(bytes - at), at);
  },
  'sectors swapped': (random, handle, bytes) => {
    const sectors = Math.max(1, Math.floor(bytes / sectorBytes));
    const [a, b] = [inside(random, sectors) * sectorBytes, inside(random, sectors) * sectorBytes];
    const [one, other] = [Buffer.alloc(sectorBytes), Buffer.alloc(sectorBytes)];
    const [oneBytes, otherBytes] = [
      readSync(handle, one, 0, sectorBytes, a),
      readSync(handle, other, 0, sectorBytes, b),
    ];
    write(handle, other.subarray(0, otherBytes), a);
    write(handle, one.subarray(0, oneBytes), b);
    return [Math.min(a, b), Math.max(a, b) + sectorBytes];
  },
  truncated: (random, handle, bytes) => {
    const at = inside(random, bytes);
    ftruncateSync(handle, at);
    return [at, bytes];
  },
  emptied: (_random, handle, bytes) => {
    ftruncateSync(handle, 0);
    return [0, bytes];
  },
  'zeros appended': (random, handle, bytes) => write(handle, Buffer.alloc(1 + inside(random, 65_536)), bytes),
  'noise appended': (random, handle, bytes) =>
    write(handle, bytesOf(random, 1 + inside(random, 8192)), bytes),
  'version byte': (random, handle, bytes) => {
    // Of a frame at a multiple of 4096, or what lies there in another file.
    const at = inside(random, Math.ceil(bytes / 4096)) * 4096 + 3;
    return write(handle, Buffer.from([pick(random, [0, 2, 3, 255])]), Math.min(at, bytes));
  },
};

type Replace = (random: Random, folder: string, file: string) => void;

/** Changes after which another thing lies there, or nothing. */
const replacements: Readonly<Record<string, Replace>> = {
  missing: (_random, folder, file) => rmSync(join(folder, file)),
  'a directory in its place': (_random, folder, file) => {
    rmSync(join(folder, file));
    mkdirSync(join(folder, file, 'inner'), { recursive: true });
    writeFileSync(join(folder, file, 'inner', 'something'), 'of somebody else');
  },
  'a symlink to nothing': (_random, folder, file) => {
    rmSync(join(folder, file));
    symlinkSync(join(folder, 'nowhere', 'at', 'all'), join(folder, file));
  },
  'a symlink to itself': (_random, folder, file) => {
    rmSync(join(folder, file));
    symlinkSync(join(folder, file), join(folder, file));
  },
  'a foreign file': (random, folder, file) => {
    writeFileSync(
      join(folder, file),
      Buffer.concat([Buffer.from('SQLite format 3\0'), bytesOf(random, 5000)]),
    );
  },
  'another file of the data': (random, folder, file) => {
    copyFileSync(join(folder, pick(random, filesBelow(folder))), join(folder, file));
  },
  'a later version': (random, folder, file) => {
    const content = Buffer.alloc(65_536);
    content.write('IFJ\x02 what a later version wrote');
    content.writeDoubleLE(random(), 64);
    writeFileSync(join(folder, file), content);
  },
};

/** Further files where none were. */
const additions: Readonly<Record<string, Replace>> = {
  'a leftover .new': (random, folder, file) =>
    writeFileSync(join(folder, `${file}.new`), bytesOf(random, 3000)),
  'a leftover .new directory': (_random, folder, file) => mkdirSync(join(folder, `${file}.new`)),
  'a copy beside it': (_random, folder, file) =>
    copyFileSync(join(folder, file), join(folder, `${file}.bak`)),
  'a slot more': (random, folder, file) => {
    if (!/ring-\d+$/.test(file)) return;
    const slot = String(4 + Math.floor(random() * 12)).padStart(3, '0');
    copyFileSync(join(folder, file), join(folder, file.replace(/\d+$/, slot)));
  },
  'a full quarantine': (random, folder) => {
    const quarantine = join(folder, 'journal', 'quarantine');
    mkdirSync(quarantine, { recursive: true });
    for (let at = 0; at < 20; at += 1) {
      writeFileSync(join(quarantine, `segment-${at}-${at * 4096}`), bytesOf(random, 64));
      writeFileSync(join(quarantine, `ring-00${at % 4}.${at}`), bytesOf(random, 64));
    }
  },
  'damaged copies of before': (random, folder) => {
    for (const name of ['state', join('journal', 'blocks')]) {
      for (const copy of [1, 2]) {
        const directory = join(folder, `${name}.damaged-${copy}`);
        mkdirSync(directory, { recursive: true });
        writeFileSync(join(directory, 'CURRENT'), bytesOf(random, 16));
      }
    }
  },
};

/** Slots of the ring, or tables of a LevelDB, in which `a slot more` and the like leave the file itself alone. */
export function isAddition(damage: Damage): boolean {
  return damage.kind in additions;
}

/** Does one random thing to one of the files; answers what. */
export function damage(folder: string, files: readonly string[], random: Random): Damage {
  const present = files.filter((file) => lstatSync(join(folder, file), { throwIfNoEntry: false })?.isFile());
  const file = pick(random, present);
  const roll = random();
  if (roll < 0.7) {
    const kind = pick(random, Object.keys(edits));
    const handle = openSync(join(folder, file), 'r+');
    try {
      const { size } = fstatSync(handle);
      if (size === 0) return { kind: 'emptied', file };
      const [from, to] = edits[kind]?.(random, handle, size) ?? [0, size];
      return { kind, file, from, to };
    } finally {
      closeSync(handle);
    }
  }
  const table = roll < 0.93 ? replacements : additions;
  const kind = pick(random, Object.keys(table));
  table[kind]?.(random, folder, file);
  return { kind, file };
}
