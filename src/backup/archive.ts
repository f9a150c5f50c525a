// The file of a backup: a short preamble, then chunks of up to 256 KiB, each compressed and sealed, the last one
// marked. Promises: a file that was cut anywhere, or of which any bit was changed, is refused at the latest at its
// end; with a passphrase nothing but its length can be learnt from it. docs/backup.md has the bytes.
//
// Encrypted, the chunks are the STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár 2015): AES-256-GCM with the
// chunk's number and the mark of the last one as nonce, under a key that scrypt makes of the passphrase and a random
// salt of this file. So chunks cannot be left out, repeated, exchanged or cut off.

import { createCipheriv, createDecipheriv, randomBytes, type ScryptOptions, scrypt } from 'node:crypto';
import { promisify } from 'node:util';
import { crc32, deflateRaw, inflateRaw } from 'node:zlib';
import { GatewayError } from '../platform/errors.ts';
import {
  type BackupEnd,
  type BackupRecord,
  damaged,
  encodeRecord,
  jsonRecord,
  parsed,
  RecordReader,
  Tally,
} from './record.ts';

const magic = Buffer.from('IFBACKUP');
const version = 1;
const forms = { plain: 0, encrypted: 1 } as const;
/** Magic, version, form. */
const plainPreambleBytes = 10;
const saltBytes = 16;
/** Then log2 of N, and the salt. */
const encryptedPreambleBytes = plainPreambleBytes + 1 + saltBytes;

const chunkBytes = 256 * 1024;
const chunkHeaderBytes = 5;
const lastFlag = 1;
const deflatedFlag = 2;
const crcBytes = 4;
const tagBytes = 16;

/** OWASP's second choice: 32 MiB of memory, which a small Pi has. */
const scryptLogN = 15;
/** Of a file: beyond, somebody wants to see the machine out of memory. */
const scryptLogNMax = 18;

const compress = promisify(deflateRaw) as (bytes: Buffer, options: { level: number }) => Promise<Buffer>;
const decompress = promisify(inflateRaw) as (
  bytes: Buffer,
  options: { maxOutputLength: number },
) => Promise<Buffer>;
const derive = promisify(scrypt) as (
  passphrase: string,
  salt: Buffer,
  length: number,
  options: ScryptOptions,
) => Promise<Buffer>;

async function keyOf(passphrase: string, salt: Buffer, logN: number): Promise<Buffer> {
  const options = { N: 2 ** logN, r: 8, p: 1, maxmem: 2 ** logN * 1024 + 32 * 1024 * 1024 };
  // The same passphrase typed on another keyboard may come composed differently.
  return await derive(passphrase.normalize('NFC'), salt, 32, options);
}

/** Seals chunks one after the other: by CRC, or by AES-256-GCM when there is a key. */
class Seal {
  readonly #preamble: Buffer;
  readonly #key: Buffer | undefined;
  #number = 0;

  constructor(preamble: Buffer, key: Buffer | undefined) {
    this.#preamble = preamble;
    this.#key = key;
  }

  /** What closes a chunk, in bytes. */
  get bytes(): number {
    return this.#key === undefined ? crcBytes : tagBytes;
  }

  /** The chunk as it is stored. */
  close(header: Buffer, body: Buffer): Buffer {
    const context = this.#next();
    if (this.#key === undefined) return Buffer.concat([header, body, this.#crc(context, header, body)]);
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(context, header));
    cipher.setAAD(Buffer.concat([this.#preamble, header]));
    const sealed = Buffer.concat([cipher.update(body), cipher.final()]);
    return Buffer.concat([header, sealed, cipher.getAuthTag()]);
  }

  /** Undefined when it is not what `close` made at this place. */
  open(header: Buffer, sealed: Buffer, check: Buffer): Buffer | undefined {
    const context = this.#next();
    if (this.#key === undefined) return this.#crc(context, header, sealed).equals(check) ? sealed : undefined;
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonceOf(context, header));
    decipher.setAAD(Buffer.concat([this.#preamble, header]));
    decipher.setAuthTag(check);
    try {
      return Buffer.concat([decipher.update(sealed), decipher.final()]);
    } catch {
      return undefined;
    }
  }

  /** The chunk's number, 11 bytes. */
  #next(): Buffer {
    const number = Buffer.alloc(11);
    number.writeUIntBE(this.#number, 5, 6);
    this.#number += 1;
    return number;
  }

  #crc(context: Buffer, header: Buffer, body: Buffer): Buffer {
    const sum = Buffer.alloc(crcBytes);
    sum.writeUInt32LE(crc32(body, crc32(header, crc32(context, crc32(this.#preamble)))));
    return sum;
  }
}

function nonceOf(context: Buffer, header: Buffer): Buffer {
  return Buffer.concat([context, header.subarray(0, 1)]);
}

export interface ArchiveOptions {
  /** Encrypts. */
  readonly passphrase?: string | undefined;
  /** Takes the file's bytes in order. */
  readonly sink: (bytes: Buffer) => Promise<void>;
}

export class ArchiveWriter {
  readonly #sink: (bytes: Buffer) => Promise<void>;
  readonly #seal: Seal;
  readonly #tally = new Tally();
  #waiting: Buffer[] = [];
  #waitingBytes = 0;
  #writtenBytes = 0;

  private constructor(sink: (bytes: Buffer) => Promise<void>, seal: Seal) {
    this.#sink = sink;
    this.#seal = seal;
  }

  static async start({ passphrase, sink }: ArchiveOptions): Promise<ArchiveWriter> {
    const form = passphrase === undefined ? forms.plain : forms.encrypted;
    let preamble = Buffer.concat([magic, Buffer.from([version, form])]);
    let key: Buffer | undefined;
    if (passphrase !== undefined) {
      const salt = randomBytes(saltBytes);
      preamble = Buffer.concat([preamble, Buffer.from([scryptLogN]), salt]);
      key = await keyOf(passphrase, salt, scryptLogN);
    }
    const writer = new ArchiveWriter(sink, new Seal(preamble, key));
    await writer.#write(preamble);
    return writer;
  }

  /** Of the file so far. */
  get writtenBytes(): number {
    return this.#writtenBytes;
  }

  async add(record: BackupRecord): Promise<void> {
    const encoded = encodeRecord(record);
    this.#tally.add(record, encoded);
    await this.#push(encoded);
  }

  /** Writes the end; nothing can be added afterwards. */
  async finish(unreadableBytes: number): Promise<BackupEnd> {
    const end = this.#tally.end(unreadableBytes);
    await this.#push(encodeRecord(jsonRecord('end', end)));
    await this.#chunk(Buffer.concat(this.#waiting), lastFlag);
    return end;
  }

  async #push(bytes: Buffer): Promise<void> {
    this.#waiting.push(bytes);
    this.#waitingBytes += bytes.length;
    if (this.#waitingBytes < chunkBytes) return;
    let rest = Buffer.concat(this.#waiting);
    // The last chunk is never empty: it takes what is left here.
    for (; rest.length > chunkBytes; rest = rest.subarray(chunkBytes))
      await this.#chunk(rest.subarray(0, chunkBytes), 0);
    this.#waiting = [rest];
    this.#waitingBytes = rest.length;
  }

  async #chunk(bytes: Buffer, flag: number): Promise<void> {
    const small = await compress(bytes, { level: 1 });
    const isSmaller = small.length < bytes.length;
    const body = isSmaller ? small : bytes;
    const header = Buffer.alloc(chunkHeaderBytes);
    header.writeUInt8(flag + (isSmaller ? deflatedFlag : 0), 0);
    header.writeUInt32LE(body.length, 1);
    await this.#write(this.#seal.close(header, body));
  }

  async #write(bytes: Buffer): Promise<void> {
    this.#writtenBytes += bytes.length;
    await this.#sink(bytes);
  }
}

/** Where a backup is read from. */
export interface ArchiveSource {
  readonly bytes: number;
  /** Fills the buffer from the position; answers how many bytes there were. */
  read(buffer: Buffer, position: number): Promise<number>;
}

async function take(source: ArchiveSource, position: number, length: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(length);
  const read = await source.read(bytes, position);
  if (read < length) throw damaged(`it ends at byte ${position + read}, in the midst of something`);
  return bytes;
}

async function readPreamble(source: ArchiveSource): Promise<Buffer> {
  const least = await take(source, 0, Math.min(source.bytes, plainPreambleBytes));
  if (!magic.equals(least.subarray(0, magic.length))) {
    throw new GatewayError('BACKUP_UNKNOWN', 'this is no backup of this gateway');
  }
  if (least.length < plainPreambleBytes) throw damaged('it ends in its first line');
  if (least[8] !== version) {
    const text = `it has the format ${least[8]}, and this version of iotflow knows ${version}`;
    throw new GatewayError('BACKUP_VERSION', `cannot read this backup: ${text}`);
  }
  if (least[9] === forms.plain) return least;
  if (least[9] !== forms.encrypted) throw damaged('its first bytes are wrong');
  return await take(source, 0, encryptedPreambleBytes);
}

/** Whether the passphrase is needed. Throws as `readArchive` does. */
export async function isEncrypted(source: ArchiveSource): Promise<boolean> {
  return (await readPreamble(source))[9] === forms.encrypted;
}

/**
 * All records but the end, which it returns once everything has been compared with it: what was read before that is
 * not proven.
 * @throws GatewayError `BACKUP_UNKNOWN`, `BACKUP_VERSION`, `BACKUP_PASSPHRASE`, `BACKUP_DAMAGED`
 */
export async function* readArchive(
  source: ArchiveSource,
  passphrase: string | undefined,
): AsyncGenerator<BackupRecord, BackupEnd, void> {
  const preamble = await readPreamble(source);
  const seal = new Seal(preamble, await keyFor(preamble, passphrase));
  const reader = new RecordReader();
  const tally = new Tally();
  let end: BackupEnd | undefined;
  let at = preamble.length;
  for (let isLast = false; !isLast; ) {
    const header = await take(source, at, chunkHeaderBytes);
    const length = header.readUInt32LE(1);
    const flags = header.readUInt8(0);
    if (length > chunkBytes || flags > lastFlag + deflatedFlag) throw damaged(`the bytes at ${at} are wrong`);
    const stored = await take(source, at + chunkHeaderBytes, length + seal.bytes);
    const body = seal.open(header, stored.subarray(0, length), stored.subarray(length));
    if (body === undefined) throw chunkFault(preamble, at);
    isLast = (flags & lastFlag) !== 0;
    at += chunkHeaderBytes + stored.length;
    const bytes = (flags & deflatedFlag) === 0 ? body : await inflated(body, at);
    for (const { record, encoded } of reader.push(bytes)) {
      if (end !== undefined) throw damaged('something follows its end');
      if (record.kind === 'end') {
        end = parsed<BackupEnd>(record);
        continue;
      }
      tally.add(record, encoded);
      yield record;
    }
  }
  if (end === undefined || !reader.isEmpty) throw damaged('its end is missing');
  if (at !== source.bytes) throw damaged(`${source.bytes - at} bytes follow its end`);
  const found = tally.end(end.unreadableBytes);
  if (found.sha256 !== end.sha256 || found.bytes !== end.bytes) throw damaged('its checksum is wrong');
  return end;
}

async function keyFor(preamble: Buffer, passphrase: string | undefined): Promise<Buffer | undefined> {
  if (preamble[9] === forms.plain) return undefined;
  if (passphrase === undefined) {
    throw new GatewayError('BACKUP_PASSPHRASE', 'this backup is encrypted: its passphrase is needed');
  }
  const logN = preamble[plainPreambleBytes] ?? 0;
  if (logN < 1 || logN > scryptLogNMax) throw damaged('its first bytes are wrong');
  return await keyOf(passphrase, preamble.subarray(plainPreambleBytes + 1), logN);
}

function chunkFault(preamble: Buffer, at: number): GatewayError {
  if (preamble[9] === forms.encrypted && at === preamble.length) {
    return new GatewayError('BACKUP_PASSPHRASE', 'the passphrase is wrong, or the backup is damaged');
  }
  return damaged(`the bytes from ${at} on were changed`);
}

async function inflated(body: Buffer, at: number): Promise<Buffer> {
  try {
    return await decompress(body, { maxOutputLength: chunkBytes });
  } catch {
    throw damaged(`the bytes before ${at} cannot be unpacked`);
  }
}
