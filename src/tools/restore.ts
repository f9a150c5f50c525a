// `iotflow restore FILE`: puts the data of a backup in place of those of a stopped gateway. Promises: a file that is
// not whole is refused before anything is touched; what is built from it is opened, counted and synced beside the old
// data before it takes their place; the old data are kept; a power cut leaves the one or the other (`exchange.ts`).

import { randomBytes } from 'node:crypto';
import { mkdir, open, readdir, statfs } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import type { BackupRecord } from '../backup/record.ts';
import { damaged } from '../backup/record.ts';
import { backedUpFolders, dataPaths, isBackedUp, restoredConfigName } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { pointClasses } from '../model/point.ts';
import { systemClock } from '../platform/clock.ts';
import { makeDirectory, syncDirectory, systemDisk } from '../platform/disk.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { Exchange } from '../platform/exchange.ts';
import { LevelStore, type LevelStoreStats, requireUnlocked } from '../platform/level-store.ts';
import { createLog, type Log } from '../platform/log.ts';
import { Registry } from '../registry/registry.ts';
import { isBackupEncrypted, type ReadBackup, readBackup } from './backup-file.ts';
import { answer, type Call, type Command, configOption, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { prepareDataDir } from './operator.ts';
import { askPassphrase, givenPassphrase, passphraseOption } from './passphrase.ts';
import { Progress } from './progress.ts';
import { openStoredJournal } from './stored-journal.ts';

/** Beside what the backup unpacks to: the ring's other segments are made anew, and LevelDB wants some room. */
const spareBytes = 80 * 1024 * 1024;
const batchBytes = 1024 * 1024;

export const restoreCommand: Command = {
  name: 'restore',
  summary: 'Put a backup in place of the data of a stopped gateway, which are kept',
  positionals: ['[FILE]'],
  options: {
    config: configOption,
    json: jsonOption,
    check: { type: 'boolean', help: 'Only read all of it and say whether it is whole' },
    undo: { type: 'boolean', help: 'Instead of a FILE: bring back the data from before the last restore' },
    'passphrase-file': passphraseOption,
  },
  details: [
    'The old data go to <data_dir>/restore/before-N; those of the last two restores are kept.',
    'What was delivered since the backup was made is sent again, which InfluxDB takes as the same points.',
  ].join('\n'),
  run: async (call) => {
    const { config } = requireConfig(call);
    const [file] = call.positionals;
    if (call.flag('undo')) return await undo(call, config);
    if (file === undefined) {
      throw new GatewayError('ARGUMENT_INVALID', 'expected FILE, or --undo; see iotflow restore --help');
    }
    const given = givenPassphrase(call);
    const isAsked = given === undefined && (await isBackupEncrypted(file));
    const passphrase = isAsked ? await askPassphrase(call, { isNew: false }) : given;
    const checking = new Progress(call, 'checked');
    const whole = await readBackup(file, passphrase, async () => undefined, checking);
    if (call.flag('check')) {
      report(call, config, file, whole, undefined);
      return 0;
    }
    const before = await asOnlyUser(config, async (exchange, lookAgain) => {
      const log = createLog('silent');
      await requireRoom(config.dataDir, whole);
      try {
        const folder = await exchange.build();
        await build(folder, file, passphrase, whole, new Progress(call, 'restored'), log);
        await prove(folder, config, whole, log);
        await syncTree(folder);
        await lookAgain();
      } catch (error) {
        await exchange.discard();
        throw error;
      }
      return await exchange.commit();
    });
    report(call, config, file, whole, before ?? null);
    return 0;
  },
};

async function undo(call: Call, config: Config): Promise<number> {
  const from = await asOnlyUser(config, async (exchange, lookAgain) => {
    await lookAgain();
    return await exchange.undo();
  });
  if (from === undefined) {
    throw new GatewayError('RESTORE_NONE', `nothing was ever restored in ${config.dataDir}`);
  }
  answer(call, { undone: true }, `the data from before the last restore are back (they were in ${from})`);
  return 0;
}

/** No gateway has the data open, and none can open them until it is done. */
async function asOnlyUser<Result>(
  config: Config,
  use: (exchange: Exchange, lookAgain: () => Promise<void>) => Promise<Result>,
): Promise<Result> {
  const { dataDir } = config;
  const { state, controlSocket } = dataPaths(dataDir);
  const running = new GatewayError(
    'GATEWAY_RUNNING',
    `a gateway runs with the data in ${dataDir}: stop it first`,
  );
  if (await isListening(controlSocket)) throw running;
  prepareDataDir(dataDir);
  let exchange: Exchange | undefined;
  try {
    exchange = await Exchange.open({ directory: dataDir, isData: isBackedUp, log: createLog('silent') });
    // From here on no gateway gets past the exchange; one that did just before has its state open by the time of
    // the second look.
    await requireUnlocked(state);
    return await use(exchange, () => requireUnlocked(state));
  } catch (error) {
    if (errorCode(error) === 'STORE_LOCKED') throw running;
    if (error instanceof GatewayError || errorCode(error) === undefined) throw error;
    const why = errorCode(error) === 'ENOSPC' ? 'the disk is full' : String(error);
    throw new GatewayError('RESTORE_FAILED', `cannot restore into ${dataDir}: ${why}`, { cause: error });
  } finally {
    await exchange?.close();
  }
}

function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path, () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', (error) => resolve(['EAGAIN', 'EACCES', 'EPERM'].includes(errorCode(error) ?? '')));
  });
}

async function requireRoom(dataDir: string, { end }: ReadBackup): Promise<void> {
  const { bavail, bsize } = await statfs(dataDir);
  const neededBytes = end.bytes + spareBytes;
  if (bavail * bsize >= neededBytes) return;
  const mega = (bytes: number) => `${Math.ceil(bytes / 1_000_000)} MB`;
  throw new GatewayError(
    'RESTORE_NO_ROOM',
    `the old data are kept, so ${mega(neededBytes)} are needed in ${dataDir}; ${mega(bavail * bsize)} are free`,
  );
}

/** Writes the parts of the backup into the empty folder. */
async function build(
  folder: string,
  file: string,
  passphrase: string | undefined,
  expected: ReadBackup,
  progress: Progress,
  log: Log,
): Promise<void> {
  const state = await Loader.open(join(folder, 'state'), log);
  const blocks = await Loader.open(join(folder, 'journal', 'blocks'), log);
  try {
    const take = async (record: BackupRecord): Promise<void> => {
      if (record.kind === 'state') await state.put(record);
      else if (record.kind === 'block') await blocks.put(record);
      else if (record.kind === 'ring') await writeRingPart(join(folder, 'journal', 'ring'), record);
      else if (record.kind === 'file') await writeSmallFile(folder, record);
    };
    const read = await readBackup(file, passphrase, take, progress);
    if (read.end.sha256 !== expected.end.sha256) throw damaged('it changed while it was read');
    await state.flush();
    await blocks.flush();
  } finally {
    await state.close();
    await blocks.close();
  }
}

/** Fills a LevelDB in batches of about a megabyte. */
class Loader {
  readonly #store: LevelStore;
  #batch: (readonly [string, Buffer])[] = [];
  #bytes = 0;

  private constructor(store: LevelStore) {
    this.#store = store;
  }

  static async open(directory: string, log: Log): Promise<Loader> {
    return new Loader(await LevelStore.open(directory, { log, spareBytes: 0 }));
  }

  async put({ key, value }: BackupRecord): Promise<void> {
    this.#batch.push([key, value]);
    this.#bytes += value.length;
    if (this.#bytes >= batchBytes) await this.flush();
  }

  /** Synced all together at the end, with the tree. */
  async flush(): Promise<void> {
    await this.#store.putSealed(this.#batch, { sync: false });
    this.#batch = [];
    this.#bytes = 0;
  }

  close(): Promise<void> {
    return this.#store.close();
  }
}

async function writeRingPart(folder: string, { key, value }: BackupRecord): Promise<void> {
  const [, name, fileBytes, position] = /^(ring-\d{3,6}) (\d{1,9}) (\d{1,9})$/.exec(key) ?? [];
  if (name === undefined || Number(position) + value.length > Number(fileBytes)) {
    throw damaged('a part of the ring has no right name');
  }
  const disk = systemDisk();
  const path = join(folder, name);
  await makeDirectory(folder);
  // Zeros really written behind what was committed: the ring overwrites them for ever.
  const file = Number(position) === 0 ? await disk.allocate(path, Number(fileBytes)) : await disk.open(path);
  try {
    await file.write(value, Number(position));
  } finally {
    await file.close();
  }
}

async function writeSmallFile(folder: string, { key, value }: BackupRecord): Promise<void> {
  const [parent, name, more] = key.split('/');
  const isKnown =
    key === restoredConfigName ||
    (backedUpFolders.some((known) => known === parent) &&
      more === undefined &&
      name !== undefined &&
      /^\w[\w.-]*$/.test(name));
  if (!isKnown) throw damaged(`it has a file ${JSON.stringify(key.slice(0, 80))}, which no backup has`);
  const path = join(folder, key);
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const file = await open(path, 'wx', key.endsWith('.crt') ? 0o644 : 0o600);
  try {
    await file.writeFile(value);
  } finally {
    await file.close();
  }
}

/**
 * Opens the new data as a gateway would, and counts.
 * @throws GatewayError `RESTORE_UNPROVEN`
 */
async function prove(folder: string, config: Config, { header, end }: ReadBackup, log: Log): Promise<void> {
  const state = await LevelStore.open(join(folder, 'state'), { log, spareBytes: 0 });
  try {
    const journal = await openStoredJournal(folder, state, config);
    try {
      if (!isSound(journal.stats().blockStore)) throw unproven('its blocks cannot be opened as they are');
      const snapshot = journal.snapshot();
      await snapshot.close();
      for (const name of pointClasses) {
        const missing = (header.points[name] ?? 0) - snapshot.points[name];
        const isExplained = end.unreadableBytes > 0 || (header.isThinning && name === 'telemetry');
        if (missing > 0 && !isExplained)
          throw unproven(`${missing} points of the class ${name} are missing in it`);
      }
    } finally {
      await journal.close();
    }
    const registry = await Registry.open({
      store: state.room('registry'),
      clock: systemClock(),
      randomBytes,
      devicesMax: config.registry.devicesMax,
    });
    const { devices } = registry.stats();
    if (devices < header.devices) throw unproven(`${header.devices - devices} devices are missing in it`);
    if (!isSound(state.stats())) throw unproven('its state cannot be opened as it is');
  } finally {
    await state.close();
  }
}

function isSound({ repairs, startedEmpty, failed }: LevelStoreStats): boolean {
  return repairs + startedEmpty === 0 && !failed;
}

function unproven(why: string): GatewayError {
  return new GatewayError('RESTORE_UNPROVEN', `the restored data were not put in place: ${why}`);
}

/** Every file, then the folder it is in. */
async function syncTree(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) {
      await syncTree(path);
      continue;
    }
    const file = await open(path, 'r');
    try {
      await file.sync();
    } finally {
      await file.close();
    }
  }
  await syncDirectory(folder);
}

/** `before`: where the old data lie; null when there were none; undefined when nothing was restored. */
function report(
  call: Call,
  config: Config,
  file: string,
  { header, end }: ReadBackup,
  before: string | null | undefined,
): void {
  const points = Object.values(header.points).reduce((sum, count) => sum + count, 0);
  const result = {
    file,
    restored: before !== undefined,
    created_at: header.createdAt,
    gateway_id: header.gatewayId,
    version: header.version,
    devices: header.devices,
    points,
    unreadable_bytes: end.unreadableBytes,
    sha256: end.sha256,
    ...(before === undefined ? {} : { before }),
  };
  const what = `made ${header.createdAt} by ${header.gatewayId}, ${header.devices} devices, ${points} points`;
  const lines = [`${file}: ${before === undefined ? 'whole' : 'restored'}, ${what}`];
  if (typeof before === 'string') {
    lines.push(`The old data are in ${before}; iotflow restore --undo brings them back.`);
  }
  if (header.gatewayId !== config.gatewayId) {
    lines.push(`This gateway is called ${config.gatewayId}: set gateway_id to go on under the other name.`);
  }
  answer(call, result, lines.join('\n'));
}
