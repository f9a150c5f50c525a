import { randomBytes } from 'node:crypto';
import { crc32 } from 'node:zlib';
import { expect, test } from 'vitest';
import { type ArchiveSource, ArchiveWriter, isEncrypted, readArchive } from '../../src/backup/archive.ts';
import type { BackupRecord } from '../../src/backup/record.ts';
import { errorCode } from '../../src/platform/errors.ts';
import { seededRandom } from '../../src/simulator/random.ts';

const passphrase = 'correct horse battery staple';

const records: readonly BackupRecord[] = [
  { kind: 'header', key: '', value: Buffer.from('{"devices":3}') },
  { kind: 'ring', key: 'ring-000 4194304 0', value: randomBytes(300_000) },
  { kind: 'state', key: 'hot/sessions/é', value: Buffer.alloc(700_000, 'x') },
  { kind: 'block', key: 'blocks/telemetry/1', value: Buffer.alloc(0) },
  { kind: 'file', key: 'tls/ca.crt', value: Buffer.from('pem') },
];

function sourceOf(file: Buffer): ArchiveSource {
  return { bytes: file.length, read: async (buffer, position) => file.copy(buffer, 0, position) };
}

async function write(secret?: string): Promise<Buffer> {
  const parts: Buffer[] = [];
  const writer = await ArchiveWriter.start({
    passphrase: secret,
    sink: async (bytes) => void parts.push(Buffer.from(bytes)),
  });
  for (const record of records) await writer.add(record);
  await writer.finish(0);
  return Buffer.concat(parts);
}

async function read(file: Buffer, secret?: string): Promise<BackupRecord[]> {
  const found: BackupRecord[] = [];
  for await (const record of readArchive(sourceOf(file), secret)) found.push(record);
  return found;
}

/** Comparing large buffers byte by byte takes the matcher seconds. */
function shown(found: readonly BackupRecord[]): unknown {
  return found.map(({ kind, key, value }) => [kind, key, value.length, crc32(value)]);
}

async function refusal(file: Buffer, secret?: string): Promise<string | undefined> {
  return await read(file, secret).then(
    () => undefined,
    (error: unknown) => errorCode(error),
  );
}

const codes = ['BACKUP_DAMAGED', 'BACKUP_UNKNOWN', 'BACKUP_VERSION', 'BACKUP_PASSPHRASE'];

test.each([
  ['plain', undefined],
  ['encrypted', passphrase],
])('a backup, %s, reads back as it was written', async (_, secret) => {
  const file = await write(secret);
  expect(await isEncrypted(sourceOf(file))).toBe(secret !== undefined);
  expect(shown(await read(file, secret))).toEqual(shown(records));
});

test.each([
  ['plain', undefined, 400],
  ['encrypted', passphrase, 40],
])('a backup, %s, that was cut anywhere or has one bit changed is refused', async (_, secret, cases) => {
  const file = await write(secret);
  const random = seededRandom(7);
  const at = (bytes: number) => Math.floor(random() * bytes);
  for (let round = 0; round < cases; round += 1) {
    const length = round < cases / 2 ? round : at(file.length);
    expect(codes, `cut at ${length}`).toContain(await refusal(file.subarray(0, length), secret));
    const changed = Buffer.from(file);
    const byte = round < cases / 2 ? round : at(file.length);
    changed.writeUInt8(changed.readUInt8(byte) ^ (1 << at(8)), byte);
    expect(codes, `bit at ${byte}`).toContain(await refusal(changed, secret));
  }
  expect(await refusal(Buffer.concat([file, Buffer.alloc(1)]), secret)).toBe('BACKUP_DAMAGED');
});

test('chunks of an encrypted backup cannot be left out, exchanged or taken from another one', async () => {
  const file = await write(passphrase);
  const other = await write(passphrase);
  const chunks: Buffer[] = [];
  const preambleBytes = 27;
  for (let at = preambleBytes; at < file.length; ) {
    const bytes = 5 + file.readUInt32LE(at + 1) + 16;
    chunks.push(file.subarray(at, at + bytes));
    at += bytes;
  }
  const [first, second, ...rest] = chunks;
  const preamble = file.subarray(0, preambleBytes);
  if (first === undefined || second === undefined) throw new Error('too few chunks');
  for (const wrong of [
    [preamble, second, ...rest],
    [preamble, first, ...rest],
    [preamble, second, first, ...rest],
    [preamble, first, second],
    [other.subarray(0, preambleBytes), first, second, ...rest],
  ]) {
    expect(codes).toContain(await refusal(Buffer.concat(wrong), passphrase));
  }
  const whole = Buffer.concat([preamble, first, second, ...rest]);
  expect(shown(await read(whole, passphrase))).toEqual(shown(records));
});

test('a wrong passphrase, a missing one, a foreign file and a later format are told apart', async () => {
  const file = await write(passphrase);
  expect(await refusal(file, 'another passphrase')).toBe('BACKUP_PASSPHRASE');
  expect(await refusal(file)).toBe('BACKUP_PASSPHRASE');
  expect(await refusal(Buffer.from('PK\u0003\u0004 some other archive'))).toBe('BACKUP_UNKNOWN');
  expect(await refusal(Buffer.alloc(0))).toBe('BACKUP_UNKNOWN');
  const later = await write();
  later.writeUInt8(2, 8);
  expect(await refusal(later)).toBe('BACKUP_VERSION');
});

test('an encrypted backup shows nothing of what is in it', async () => {
  const file = await write(passphrase);
  for (const text of ['devices', 'tls/ca.crt', 'hot/sessions']) expect(file.includes(text)).toBe(false);
});
