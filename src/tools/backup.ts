// `iotflow backup FILE`: registry, sessions, alarms, everything not delivered yet, and the certificates, in one file;
// beside a running gateway or a stopped one. Promises: the name FILE stands for a whole backup at every moment,
// because it is written under another name, synced, and read back before it gets that name.

import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { type FileHandle, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ArchiveWriter } from '../backup/archive.ts';
import { Backups } from '../backup/backups.ts';
import type { BackupEnd, BackupHeader, BackupRecord } from '../backup/record.ts';
import { RecordReader } from '../backup/record.ts';
import { backedUpFolders, dataPaths, restoredConfigName } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../platform/clock.ts';
import { syncDirectory } from '../platform/disk.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { Registry } from '../registry/registry.ts';
import { readBackup } from './backup-file.ts';
import { type Call, type Command, configOption, jsonOption } from './command.ts';
import { configFile, requireConfig } from './configuration.ts';
import { type CallOperation, type OpenStored, withOperations } from './operator.ts';
import { askPassphrase, givenPassphrase, passphraseOption } from './passphrase.ts';
import { Progress } from './progress.ts';
import { openStoredJournal } from './stored-journal.ts';

/** Of the small files beside the stores. */
const fileBytesMax = 1024 * 1024;
const filesMax = 64;

interface Page {
  readonly data: string;
  readonly isEnd: boolean;
  readonly unreadableBytes: number;
}

interface Made {
  readonly header: BackupHeader;
  readonly end: BackupEnd;
  readonly bytes: number;
}

export const backupCommand: Command = {
  name: 'backup',
  summary: 'Copy state and journal into one file, also while the gateway runs',
  positionals: ['FILE'],
  options: {
    config: configOption,
    json: jsonOption,
    encrypt: { type: 'boolean', help: 'Encrypt it with a passphrase, and take the configuration file along' },
    'passphrase-file': passphraseOption,
  },
  details: [
    'FILE - writes to standard output. A passphrase given by file or environment encrypts as well.',
    'In it: devices and their hashed keys, the CA and its key, MQTT sessions, alarms, what was not delivered yet.',
    'Not in it: secrets given in files or the environment, quarantined damage, delivered history.',
  ].join('\n'),
  run: async (call) => {
    const { config } = requireConfig(call);
    const [target = ''] = call.positionals;
    const given = givenPassphrase(call);
    const isAsked = given === undefined && call.flag('encrypt');
    const passphrase = isAsked ? await askPassphrase(call, { isNew: true }) : given;
    if (!existsSync(dataPaths(config.dataDir).state)) {
      throw new GatewayError('BACKUP_EMPTY', `nothing to back up: no gateway ever ran in ${config.dataDir}`);
    }
    const made =
      target === '-'
        ? await toStdout(call, config, passphrase)
        : await toFile(call, config, target, passphrase);
    report(call, target, made, passphrase !== undefined);
    return 0;
  },
};

async function toStdout(call: Call, config: Config, passphrase: string | undefined): Promise<Made> {
  if (process.stdout.isTTY) {
    throw new GatewayError(
      'BACKUP_FAILED',
      'a backup is no text for a terminal: send it to a file or a pipe',
    );
  }
  const sink = (bytes: Buffer) =>
    new Promise<void>((resolve, reject) => {
      process.stdout.write(bytes, (error) => (error ? reject(failure('-', error)) : resolve()));
    });
  return await make(call, config, passphrase, sink);
}

async function toFile(
  call: Call,
  config: Config,
  target: string,
  passphrase: string | undefined,
): Promise<Made> {
  if ((await stat(target).catch(() => undefined))?.isDirectory()) {
    throw new GatewayError('BACKUP_FAILED', `${target} is a directory: expected the name of a file`);
  }
  const part = `${target}.part`;
  let file: FileHandle | undefined;
  try {
    await rm(part, { force: true });
    file = await open(part, 'wx', 0o600);
    const opened = file;
    const made = await make(call, config, passphrase, async (bytes) => {
      // In a loop of its own: a disk that is nearly full writes a part, and says so only the next time.
      for (let at = 0; at < bytes.length; ) at += (await opened.write(bytes, at)).bytesWritten;
    });
    await file.sync();
    await file.close();
    const read = await readBackup(part, passphrase, async () => undefined, new Progress(call, 'verified'));
    if (read.end.sha256 !== made.end.sha256) {
      throw new GatewayError('BACKUP_FAILED', `${target} does not read back as it was written`);
    }
    await rename(part, target);
    // Not every file system has that, a FAT stick for one.
    await syncDirectory(dirname(target)).catch(() => undefined);
    return made;
  } catch (error) {
    await file?.close().catch(() => undefined);
    await rm(part, { force: true }).catch(() => undefined);
    throw failure(target, error);
  }
}

function failure(target: string, error: unknown): unknown {
  const code = errorCode(error);
  if (error instanceof GatewayError || code === undefined) return error;
  const why = code === 'ENOSPC' ? 'the disk is full' : code;
  return new GatewayError('BACKUP_FAILED', `cannot write ${target}: ${why}; nothing is left of it`, {
    cause: error,
  });
}

/** Reads all of it from the gateway, or from what a stopped one left, into the sink. */
function make(
  call: Call,
  config: Config,
  passphrase: string | undefined,
  sink: (bytes: Buffer) => Promise<void>,
): Promise<Made> {
  return withOperations(config, stored(call.version), async (operation) => {
    const { id, header } = (await operation('backup.begin', {})) as { id: string; header: BackupHeader };
    try {
      // Only now: `withOperations` may have called in vain before, and nothing may be written then.
      const writer = await ArchiveWriter.start({ passphrase, sink });
      const unreadableBytes = await copyPages(operation, id, writer, new Progress(call, 'read'));
      for (const record of await smallFiles(config.dataDir)) await writer.add(record);
      if (passphrase !== undefined) for (const record of await configRecord(call)) await writer.add(record);
      const end = await writer.finish(unreadableBytes);
      return { header, end, bytes: writer.writtenBytes };
    } finally {
      // What the gateway keeps for it is of no use any more, however it ended.
      await operation('backup.end', { id }).catch(() => undefined);
    }
  });
}

async function copyPages(
  operation: CallOperation,
  id: string,
  writer: ArchiveWriter,
  progress: Progress,
): Promise<number> {
  const reader = new RecordReader();
  for (;;) {
    const page = (await operation('backup.read', { id })) as Page;
    const bytes = Buffer.from(page.data, 'base64');
    for (const { record } of reader.push(bytes)) await writer.add(record);
    progress.add(bytes.length);
    if (page.isEnd) return page.unreadableBytes;
  }
}

async function smallFiles(dataDir: string): Promise<BackupRecord[]> {
  const records: BackupRecord[] = [];
  for (const folder of backedUpFolders) {
    const entries = await readdir(join(dataDir, folder), { withFileTypes: true }).catch(() => []);
    for (const entry of entries) {
      if (!entry.isFile() || /\.(new|damaged)$/.test(entry.name)) continue;
      const value = await readFile(join(dataDir, folder, entry.name));
      if (value.length > fileBytesMax || records.length >= filesMax) continue;
      records.push({ kind: 'file', key: `${folder}/${entry.name}`, value });
    }
  }
  return records;
}

/** With its secrets, so only where it is encrypted. */
async function configRecord(call: Call): Promise<BackupRecord[]> {
  const file = configFile(call);
  if (file === undefined) return [];
  return [{ kind: 'file', key: restoredConfigName, value: await readFile(file) }];
}

function stored(version: string): OpenStored {
  return async ({ config, state }) => {
    const registry = await Registry.open({
      store: state.room('registry'),
      clock: systemClock(),
      randomBytes,
      devicesMax: config.registry.devicesMax,
    });
    const journal = await openStoredJournal(config.dataDir, state, config);
    const backups = new Backups({
      journal,
      state,
      header: () => ({
        createdAt: new Date().toISOString(),
        gatewayId: config.gatewayId,
        version,
        devices: registry.stats().devices,
      }),
    });
    return {
      operations: backups.operations,
      close: async () => {
        await backups.close();
        await journal.close();
      },
    };
  };
}

function report(call: Call, target: string, { header, end, bytes }: Made, isEncrypted: boolean): void {
  const points = Object.values(header.points).reduce((sum, count) => sum + count, 0);
  const result = {
    file: target,
    bytes,
    encrypted: isEncrypted,
    verified: target !== '-',
    created_at: header.createdAt,
    devices: header.devices,
    points,
    unreadable_bytes: end.unreadableBytes,
    sha256: end.sha256,
  };
  const lines = [
    `${target === '-' ? 'written' : `${target}: written and read back`}, ${bytes} bytes, ` +
      `${header.devices} devices, ${points} points not delivered yet`,
  ];
  if (end.unreadableBytes > 0) {
    lines.push(`The disk refused ${end.unreadableBytes} bytes of the journal: points may be missing in it.`);
  }
  if (!isEncrypted)
    lines.push('Not encrypted: it holds the key of the CA. Who has it can pose as the gateway.');
  // Standard output may be the backup.
  const output = target === '-' ? call.stderr : call.stdout;
  output.write(call.flag('json') ? `${JSON.stringify(result)}\n` : `${lines.join('\n')}\n`);
}
