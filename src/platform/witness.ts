// Which revision of each record (of a device, a user) is the newest, in a small file of its own. LevelDB can lose its
// last writes and show the ones before: a key that was revoked would hold again. With a witness an old record is known
// for what it is. Promises: replaced whole; one that is missing or damaged says nothing, and is written anew.

import { readFile } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { replaceFile } from './disk.ts';

export interface Witness {
  /** By id; undefined when there is none to be read. */
  read(): Promise<ReadonlyMap<string, number> | undefined>;
  /** Durable when it resolves. Throws what the disk throws. */
  write(revisions: ReadonlyMap<string, number>): Promise<void>;
}

const form = /^([0-9a-f]{8}) (\{.*\})\n$/s;

function checksum(text: string): string {
  return crc32(text).toString(16).padStart(8, '0');
}

export function fileWitness(path: string): Witness {
  return {
    async read() {
      // A folder, a link to nowhere, a bad sector: all the same to us.
      const text = await readFile(path, 'utf8').catch(() => '');
      const [, sum, json] = form.exec(text) ?? [];
      if (json === undefined || sum !== checksum(json)) return undefined;
      const entries = Object.entries(JSON.parse(json) as Record<string, unknown>);
      return new Map(entries.filter((pair): pair is [string, number] => typeof pair[1] === 'number'));
    },
    async write(revisions) {
      const json = JSON.stringify(Object.fromEntries(revisions));
      await replaceFile(path, `${checksum(json)} ${json}\n`, 0o600);
    },
  };
}
