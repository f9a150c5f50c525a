// Files at which LevelDB does not fail but aborts the whole process, because it asserts on what it reads. Its tables are
// one kind (level-tables.ts); here are the others: a log that is something else (a manifest has the same form, with good
// checksums) and whose sequence numbers do not fit into 56 bits, and a repair, which believes logs without looking at
// their checksums. Promises: such a log is set aside, what is damaged in the others is gone before a repair, and of a
// repaired store with wild sequence numbers what can be read is copied.

import { copyFile, lstat, readdir, readFile, rename, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';
import { checkTable, disarmTable, maskedCrc, type TableDamage, varint } from './level-tables.ts';

/** LevelDB counts in 56 bits; no store of ours lives to see half of them. */
const sequenceMax = 2n ** 55n;
const recordHeaderBytes = 7;
const lastSequenceTag = 4n;
const comparatorTag = 1n;
const copiedBytes = 1024 * 1024;

const logBlockBytes = 32_768;
/** Kinds of records that begin a batch of writes. */
const beginnings: readonly (number | undefined)[] = [1, 2];
const ownFiles = /^(CURRENT|LOCK|LOG(\.old)?|MANIFEST-\d+|\d+\.(ldb|sst|log|dbtmp))$/;

function isLogWild(bytes: Buffer): boolean {
  for (let block = 0; block < bytes.length; block += logBlockBytes) {
    const end = Math.min(block + logBlockBytes, bytes.length);
    for (let at = block; at + recordHeaderBytes <= end; ) {
      const length = bytes.readUInt16LE(at + 4);
      const from = at + recordHeaderBytes;
      const isBeginning = beginnings.includes(bytes[at + 6]) && length >= 8 && from + length <= end;
      if (isBeginning && bytes.readBigUInt64LE(from) > sequenceMax) {
        // With a wrong checksum LevelDB passes it over by itself.
        if (bytes.readUInt32LE(at) === maskedCrc(bytes.subarray(at + 6, from + length))) return true;
      }
      at = from + length;
    }
  }
  return false;
}

/** Renames logs that LevelDB must not read to `<name>.damaged`; answers their names. */
export async function setWildLogsAside(directory: string): Promise<string[]> {
  const names = await readdir(directory).catch(() => []);
  const found: string[] = [];
  for (const name of names.filter((one) => one.endsWith('.log'))) {
    const path = join(directory, name);
    if (!(await lstat(path)).isFile() || !isLogWild(await readFile(path))) continue;
    await rename(path, `${path}.damaged`);
    found.push(name);
  }
  return found;
}

/** Whether the manifest that a repair has just written says a last sequence number that cannot be. */
export async function isSequenceWild(directory: string): Promise<boolean> {
  const name = (await readFile(join(directory, 'CURRENT'), 'latin1')).trim();
  const bytes = await readFile(join(directory, name));
  // A version edit: tags with numbers, and a name for the comparator, until the one we look for.
  for (let at = recordHeaderBytes; at < bytes.length; ) {
    const [tag, valueAt] = varint(bytes, at);
    const [value, next] = varint(bytes, valueAt);
    if (tag === lastSequenceTag) return value > sequenceMax;
    if (tag > 9n) return false;
    at = tag === comparatorTag ? next + Number(value) : next;
  }
  return false;
}

interface LogRecord {
  readonly type: number;
  readonly body: Buffer;
}

/** The records of a log or a manifest up to the first that is damaged, and where that is. */
function readLog(bytes: Buffer, onRecord: (record: LogRecord) => void): number | undefined {
  for (let at = 0; at + recordHeaderBytes <= bytes.length; ) {
    const left = logBlockBytes - (at % logBlockBytes);
    if (left < recordHeaderBytes) {
      at += left;
      continue;
    }
    const length = bytes.readUInt16LE(at + 4);
    const type = bytes[at + 6] ?? 0;
    const end = at + recordHeaderBytes + length;
    // Never written, as after a power cut.
    if (type === 0 && length === 0) {
      at += left;
      continue;
    }
    if (end > bytes.length) return undefined;
    if (recordHeaderBytes + length > left) return at;
    if (bytes.readUInt32LE(at) !== maskedCrc(bytes.subarray(at + 6, end))) return at;
    onRecord({ type, body: bytes.subarray(at + recordHeaderBytes, end) });
    at = end;
  }
  return undefined;
}

/** Makes of each damaged record the end of its 32 KiB, which is how LevelDB takes it where it looks at checksums. */
async function disarmLog(path: string): Promise<void> {
  const bytes = await readFile(path);
  let isChanged = false;
  for (let block = 0; block < bytes.length; block += logBlockBytes) {
    const content = bytes.subarray(block, block + logBlockBytes);
    const damagedAt = readLog(content, () => undefined);
    if (damagedAt === undefined) continue;
    content.fill(0, damagedAt);
    isChanged = true;
  }
  if (isChanged) await writeFile(path, bytes, { flush: true });
}

function afterText(edit: Buffer, from: number): number {
  const [length, start] = varint(edit, from);
  return start + Number(length);
}

/** Takes one version edit (db/version_edit.cc) into the tables; false when it is none. */
function applyEdit(edit: Buffer, tables: Map<number, number>): boolean {
  for (let at = 0; at < edit.length; ) {
    const [tag, first] = varint(edit, at);
    const [one, second] = varint(edit, first);
    if (tag === comparatorTag) at = afterText(edit, first);
    else if (tag === 5n) at = afterText(edit, second);
    else if (tag === 6n) {
      const [number, next] = varint(edit, second);
      tables.delete(Number(number));
      at = next;
    } else if (tag === 7n) {
      const [number, third] = varint(edit, second);
      const [bytes, smallestAt] = varint(edit, third);
      tables.set(Number(number), Number(bytes));
      at = afterText(edit, afterText(edit, smallestAt));
    } else if ([2n, 3n, lastSequenceTag, 9n].includes(tag) && one >= 0n) at = second;
    else return false;
  }
  return true;
}

/** Numbers and lengths of the tables that LevelDB would open; undefined when its manifest cannot be followed. */
async function tablesInUse(directory: string): Promise<Map<number, number> | undefined> {
  const tables = new Map<number, number>();
  try {
    const name = (await readFile(join(directory, 'CURRENT'), 'latin1')).trim();
    let isGood = true;
    let edit: Buffer[] = [];
    const damagedAt = readLog(await readFile(join(directory, name)), ({ type, body }) => {
      if (beginnings.includes(type)) edit = [];
      edit.push(body);
      // Whole, or the last part.
      if (type === 1 || type === 4) isGood &&= applyEdit(Buffer.concat(edit), tables);
    });
    return isGood && damagedAt === undefined ? tables : undefined;
  } catch {
    return undefined;
  }
}

const tableName = /^(\d+)\.(ldb|sst)$/;

/** A table to look at: its file, and its length if the manifest says it. */
export interface TableFile {
  readonly name: string;
  readonly bytes: number | undefined;
}

/** The tables LevelDB would read, newest first: where the manifest does not say which, all. */
export async function listTables(directory: string): Promise<TableFile[]> {
  const inUse = await tablesInUse(directory);
  const names = await readdir(directory).catch(() => []);
  return names
    .map((name) => ({ name, number: Number(tableName.exec(name)?.[1]) }))
    .filter(({ number }) => (inUse === undefined ? !Number.isNaN(number) : inUse.has(number)))
    .sort((a, b) => b.number - a.number)
    .map(({ name, number }) => ({ name, bytes: inUse?.get(number) }));
}

/**
 * Makes sure that a repair can read everything that lies there. It takes every table it finds, of the length that the
 * file has. Answers what was damaged.
 */
export async function disarm(
  directory: string,
): Promise<{ name: string; damages: readonly TableDamage[] }[]> {
  const inUse = await tablesInUse(directory);
  const found: { name: string; damages: readonly TableDamage[] }[] = [];
  for (const name of await readdir(directory)) {
    const path = join(directory, name);
    const of = await lstat(path);
    if (!of.isFile()) continue;
    if (name.endsWith('.log')) await disarmLog(path);
    const number = tableName.exec(name)?.[1];
    if (number === undefined) continue;
    const bytes = inUse?.get(Number(number)) ?? of.size;
    let damages = (await checkTable(path))?.damages ?? [];
    if (bytes < of.size && damages[0]?.part === 'footer') {
      const shorter = (await checkTable(path, bytes))?.damages ?? [];
      if (shorter[0]?.part !== 'footer') {
        await truncate(path, bytes);
        damages = shorter;
      }
    }
    if (damages.length === 0) continue;
    found.push({ name, damages });
    await disarmTable(path, damages);
  }
  return found;
}

/** Copies what can be read to a new store, which takes the place of the old one. */
export async function copyReadable(directory: string): Promise<void> {
  const options = { keyEncoding: 'buffer', valueEncoding: 'buffer' } as const;
  const target = `${directory}.new`;
  await rm(target, { recursive: true, force: true });
  const from = new Level<Buffer, Buffer>(directory, options);
  const to = new Level<Buffer, Buffer>(target, options);
  try {
    let some: { type: 'put'; key: Buffer; value: Buffer }[] = [];
    let bytes = 0;
    for await (const [key, value] of from.iterator()) {
      some.push({ type: 'put', key, value });
      bytes += value.length;
      if (bytes < copiedBytes) continue;
      await to.batch(some);
      some = [];
      bytes = 0;
    }
    await to.batch(some, { sync: true });
  } finally {
    await from.close();
    await to.close();
  }
  for (const name of await readdir(directory)) {
    const isStranger = !ownFiles.test(name) && (await lstat(join(directory, name))).isFile();
    if (isStranger) await copyFile(join(directory, name), join(target, name));
  }
  await rm(directory, { recursive: true });
  await rename(target, directory);
}
