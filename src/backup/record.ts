// What a backup consists of, one behind the other: a header, the parts of the data directory, an end that says
// how much there was and what its SHA-256 is. Encoding only; `archive.ts` puts it into a file. docs/backup.md.

import { createHash } from 'node:crypto';
import { GatewayError } from '../platform/errors.ts';

const kinds = ['header', 'ring', 'state', 'block', 'file', 'end'] as const;
export type RecordKind = (typeof kinds)[number];

/**
 * - `header`: no key; JSON of `BackupHeader`.
 * - `ring`: key `NAME FILE_BYTES POSITION`; bytes of that file from that position.
 * - `state`, `block`: an entry of the LevelDB `state`, `journal/blocks`, as it lies there.
 * - `file`: key is the path below the data directory; its content.
 * - `end`: no key; JSON of `BackupEnd`.
 */
export interface BackupRecord {
  readonly kind: RecordKind;
  readonly key: string;
  readonly value: Buffer;
}

export interface BackupHeader {
  readonly createdAt: string;
  readonly gatewayId: string;
  /** Of the gateway that made it. */
  readonly version: string;
  /** Waiting for the uplink, by class. */
  readonly points: Readonly<Record<string, number>>;
  /** The journal was at its cap: telemetry may be less. */
  readonly isThinning: boolean;
  readonly devices: number;
}

export interface BackupEnd {
  /** Before this one, by kind. */
  readonly records: Readonly<Record<string, number>>;
  /** Of their keys and values. */
  readonly bytes: number;
  /** Of the ring, that the disk refused to give: some points may be missing. */
  readonly unreadableBytes: number;
  /** Of the records before this one as they are encoded. */
  readonly sha256: string;
}

const overheadBytes = 7;
/** Far above what a block, or a file we take, can have. */
const valueBytesMax = 64 * 1024 * 1024;

export function encodeRecord(record: BackupRecord): Buffer {
  const key = Buffer.from(record.key);
  const start = Buffer.alloc(overheadBytes);
  start.writeUInt8(kinds.indexOf(record.kind), 0);
  start.writeUInt16LE(key.length, 1);
  start.writeUInt32LE(record.value.length, 3);
  return Buffer.concat([start, key, record.value]);
}

export function damaged(why: string): GatewayError {
  return new GatewayError('BACKUP_DAMAGED', `not a whole backup: ${why}`);
}

/** Reads records out of bytes that come in parts of any size. */
export class RecordReader {
  #rest: Buffer = Buffer.alloc(0);

  /**
   * The records that are whole now.
   * @throws GatewayError `BACKUP_DAMAGED`
   */
  *push(bytes: Buffer): Generator<{ readonly record: BackupRecord; readonly encoded: Buffer }, void, void> {
    this.#rest = this.#rest.length === 0 ? bytes : Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= overheadBytes) {
      const kind = kinds[this.#rest.readUInt8(0)];
      const valueAt = overheadBytes + this.#rest.readUInt16LE(1);
      const valueBytes = this.#rest.readUInt32LE(3);
      if (kind === undefined) throw damaged('a part of an unknown kind');
      if (valueBytes > valueBytesMax) throw damaged('a part that is too large');
      const end = valueAt + valueBytes;
      if (this.#rest.length < end) return;
      const encoded = this.#rest.subarray(0, end);
      const key = encoded.toString('utf8', overheadBytes, valueAt);
      this.#rest = this.#rest.subarray(end);
      yield { record: { kind, key, value: encoded.subarray(valueAt) }, encoded };
    }
  }

  /** Whether nothing is left over. */
  get isEmpty(): boolean {
    return this.#rest.length === 0;
  }
}

/** Counts records on their way, so that the end can be written, or compared. */
export class Tally {
  readonly #hash = createHash('sha256');
  readonly #records: Record<string, number> = {};
  #bytes = 0;

  add(record: BackupRecord, encoded: Buffer): void {
    this.#hash.update(encoded);
    this.#records[record.kind] = (this.#records[record.kind] ?? 0) + 1;
    this.#bytes += encoded.length - overheadBytes;
  }

  get bytes(): number {
    return this.#bytes;
  }

  /** The end of what was added; nothing can be added afterwards. */
  end(unreadableBytes: number): BackupEnd {
    return {
      records: this.#records,
      bytes: this.#bytes,
      unreadableBytes,
      sha256: this.#hash.digest('hex'),
    };
  }
}

export function jsonRecord(kind: 'header' | 'end', value: BackupHeader | BackupEnd): BackupRecord {
  return { kind, key: '', value: Buffer.from(JSON.stringify(value)) };
}

/** @throws GatewayError `BACKUP_DAMAGED` */
export function parsed<Value extends BackupHeader | BackupEnd>(record: BackupRecord): Value {
  try {
    return JSON.parse(record.value.toString()) as Value;
  } catch {
    throw damaged(`its ${record.kind} cannot be read`);
  }
}
