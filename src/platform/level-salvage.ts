// Files at which LevelDB does not fail but aborts the whole process: it asserts that sequence numbers fit into 56 bits,
// and takes them from files that may be damaged. Two ways are known: a log that is something else (a manifest has the
// same form, with good checksums), and a repair that believed a damaged key. Promises: both are recognised before
// LevelDB acts on them; the log is set aside, and of the repaired store what can be read is copied.

import { copyFile, lstat, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Level } from 'level';

/** LevelDB counts in 56 bits; no store of ours lives to see half of them. */
const sequenceMax = 2n ** 55n;
const recordHeaderBytes = 7;
const lastSequenceTag = 4n;
const comparatorTag = 1n;
const copiedBytes = 1024 * 1024;

function varint(bytes: Buffer, from: number): readonly [value: bigint, next: number] {
  let value = 0n;
  let at = from;
  for (let shift = 0n; at < bytes.length; shift += 7n) {
    const byte = bytes[at] ?? 0;
    at += 1;
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) break;
  }
  return [value, at];
}

const logBlockBytes = 32_768;
/** Kinds of records that begin a batch of writes. */
const beginnings: readonly (number | undefined)[] = [1, 2];
const ownFiles = /^(CURRENT|LOCK|LOG(\.old)?|MANIFEST-\d+|\d+\.(ldb|sst|log|dbtmp))$/;

/** CRC-32C as LevelDB writes it (doc/log_format.md, util/crc32c.h). */
function maskedCrc(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0);
  }
  crc = ~crc >>> 0;
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

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
