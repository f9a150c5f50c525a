// Reads the file of a backup from its header to its proven end.

import { open } from 'node:fs/promises';
import { type ArchiveSource, isEncrypted, readArchive } from '../backup/archive.ts';
import { type BackupEnd, type BackupHeader, type BackupRecord, damaged, parsed } from '../backup/record.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Progress } from './progress.ts';

export interface ReadBackup {
  readonly header: BackupHeader;
  readonly end: BackupEnd;
}

async function withFile<Result>(
  path: string,
  use: (source: ArchiveSource) => Promise<Result>,
): Promise<Result> {
  const failure = (error: unknown) => {
    if (error instanceof GatewayError || errorCode(error) === undefined) return error;
    return new GatewayError('BACKUP_UNREADABLE', `cannot read ${path}: ${errorCode(error)}`, {
      cause: error,
    });
  };
  const file = await open(path, 'r').catch((error: unknown) => {
    throw failure(error);
  });
  try {
    const read: ArchiveSource['read'] = async (buffer, position) => {
      let done = 0;
      while (done < buffer.length) {
        const { bytesRead } = await file
          .read(buffer, done, buffer.length - done, position + done)
          .catch((error: unknown) => {
            throw failure(error);
          });
        if (bytesRead === 0) break;
        done += bytesRead;
      }
      return done;
    };
    return await use({ bytes: (await file.stat()).size, read });
  } finally {
    await file.close();
  }
}

/** @throws GatewayError as `readArchive` does, `BACKUP_UNREADABLE`. */
export function isBackupEncrypted(path: string): Promise<boolean> {
  return withFile(path, isEncrypted);
}

/**
 * Hands on every record behind the header. Nothing of it is proven before this resolves.
 * @throws GatewayError as `readArchive` does, `BACKUP_UNREADABLE`, and what `take` throws.
 */
export function readBackup(
  path: string,
  passphrase: string | undefined,
  take: (record: BackupRecord) => Promise<void>,
  progress: Progress,
): Promise<ReadBackup> {
  return withFile(path, async (source) => {
    const records = readArchive(source, passphrase);
    const first = await records.next();
    if (first.done === true || first.value.kind !== 'header') throw damaged('its header is missing');
    const header = parsed<BackupHeader>(first.value);
    for (;;) {
      const next = await records.next();
      if (next.done === true) return { header, end: next.value };
      await take(next.value);
      progress.add(next.value.value.length);
    }
  });
}
