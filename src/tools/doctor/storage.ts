// Where the data lies: whose it is, what kind of disk, how much room, whether a flush means anything, and whether the
// stores open. Writes one file of 4 KiB into the data directory and removes it; a store that is damaged mends itself
// when it is opened, as it would for the gateway. Changes nothing else.

import { constants } from 'node:fs';
import { access, open, readdir, readFile, realpath, rm, stat, statfs } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { dataPaths } from '../../config/paths.ts';
import type { Config } from '../../config/schema.ts';
import { errorCode } from '../../platform/errors.ts';
import { LevelStore } from '../../platform/level-store.ts';
import { createLog } from '../../platform/log.ts';
import { type Check, type Finding, fail, ok, skipped, warn } from './check.ts';
import { type AskedGateway, megabytes, runs } from './running-gateway.ts';

/** No disk writes and flushes 4 KiB in less; NVMe with a capacitor takes 20 to 50 µs. */
const flushMsMin = 0.02;
const flushes = 15;
/** LevelDB and the ring cannot go on with less. */
const freeBytesMin = 32 * 1024 * 1024;
const inodesMin = 100;

const doubtfulKinds: ReadonlyMap<string, readonly [is: string, todo: string]> = new Map([
  ...['tmpfs', 'ramfs'].map((kind) => [
    kind,
    ['memory: all is lost without power', 'put data_dir on a disk'],
  ]),
  ...['vfat', 'exfat', 'msdos', 'ntfs', 'ntfs3', 'fuseblk'].map((kind) => [
    kind,
    ['a file system that a power cut can damage', 'put data_dir on ext4'],
  ]),
  ['overlay', ['a layer of a container, gone with it', 'mount a volume there']],
  ...['nfs', 'nfs4', 'cifs', 'smb3', '9p', 'fuse.sshfs'].map((kind) => [
    kind,
    ['on the network: a flush there may mean nothing', 'put data_dir on a disk of this machine'],
  ]),
] as [string, [string, string]][]);

/** The folder itself, or what is there of the way to it. */
async function nearestFolder(folder: string): Promise<string> {
  for (let at = folder; ; at = dirname(at)) {
    try {
      return await realpath(at);
    } catch (error) {
      if (errorCode(error) !== 'ENOENT' || dirname(at) === at) throw error;
    }
  }
}

async function exists(path: string): Promise<boolean> {
  return await access(path).then(
    () => true,
    () => false,
  );
}

export function dataDirCheck({ dataDir }: Config): Check {
  return { name: 'data_dir', run: () => dataDirFindings(dataDir) };
}

async function dataDirFindings(dataDir: string): Promise<Finding[]> {
  const asRoot = 'make it once as root and give it to the user of the gateway (chown)';
  let found: Awaited<ReturnType<typeof stat>>;
  try {
    found = await stat(dataDir);
  } catch (error) {
    const code = errorCode(error) ?? '';
    if (code !== 'ENOENT') return [fail(`${dataDir} cannot be used: ${code}`, asRoot)];
    const above = await nearestFolder(dataDir);
    const isFree = await access(above, constants.W_OK).then(
      () => true,
      () => false,
    );
    return isFree
      ? [ok(`${dataDir} is made at the first start`)]
      : [fail(`${dataDir} is not there and ${above} may not be written by this user`, asRoot)];
  }
  if (!found.isDirectory()) return [fail(`${dataDir} is not a directory`, 'set data_dir to one')];
  const own = process.getuid?.() ?? found.uid;
  if (own !== found.uid && own !== 0) {
    return [
      fail(
        `${dataDir} belongs to user ${found.uid}, and this is user ${own}`,
        `sudo -u '#${found.uid}' iotflow doctor`,
      ),
    ];
  }
  const mode = (found.mode & 0o777).toString(8);
  if ((found.mode & 0o077) !== 0) {
    return [warn(`${dataDir} is open to other users (mode ${mode})`, `chmod 700 ${dataDir}`)];
  }
  return [ok(own === found.uid ? dataDir : `${dataDir}, of user ${found.uid}`)];
}

/** Kind and options of the mount a folder lies on; the last one mounted wins. */
export function mountOf(
  mountInfo: string,
  folder: string,
): { kind: string; isReadOnly: boolean } | undefined {
  let best: { point: string; kind: string; isReadOnly: boolean } | undefined;
  for (const line of mountInfo.split('\n')) {
    const [mount = '', source = ''] = line.split(' - ');
    const columns = mount.split(' ');
    // Spaces and the like are octal (proc_pid_mountinfo(5)).
    const point = columns[4]?.replace(/\\([0-7]{3})/g, (_, octal: string) =>
      String.fromCharCode(Number.parseInt(octal, 8)),
    );
    if (point === undefined || source === '') continue;
    const isAbove = point === '/' || folder === point || folder.startsWith(`${point}/`);
    if (!isAbove || point.length < (best?.point.length ?? 0)) continue;
    const [kind = '', , superOptions = ''] = source.split(' ');
    const options = `${columns[5]},${superOptions}`.split(',');
    best = { point, kind, isReadOnly: options.includes('ro') };
  }
  return best;
}

export function fileSystemCheck({ dataDir }: Config, procDirectory: string): Check {
  return {
    name: 'file system',
    run: async () => {
      const folder = await nearestFolder(dataDir);
      const text = await readFile(join(procDirectory, 'self', 'mountinfo'), 'utf8').catch(() => '');
      const mount = mountOf(text, folder);
      if (mount === undefined) return [skipped('not known on this system')];
      if (mount.isReadOnly) {
        return [
          fail(
            `${folder} is mounted read-only`,
            'a card that failed does this to itself: see dmesg, replace it',
          ),
        ];
      }
      const doubt = doubtfulKinds.get(mount.kind);
      return doubt === undefined ? [ok(mount.kind)] : [warn(`${mount.kind} is ${doubt[0]}`, doubt[1])];
    },
  };
}

export function spaceCheck(config: Config): Check {
  return {
    name: 'disk space',
    run: async () => {
      const folder = await nearestFolder(config.dataDir);
      const { bsize, bavail, files, ffree } = await statfs(folder);
      const freeBytes = bsize * bavail;
      const free = `${megabytes(freeBytes)} free`;
      if (freeBytes < freeBytesMin) return [fail(`${free} on ${folder}`, 'make room; readings are refused')];
      // Some file systems make inodes as needed and say 0.
      if (files > 0 && ffree < inodesMin) {
        return [fail(`${free}, but only ${ffree} inodes`, 'remove small files on this disk')];
      }
      const { maxBytes } = config.journal;
      if (freeBytes < maxBytes) {
        const text = `${free}: less than journal.max_bytes (${megabytes(maxBytes)})`;
        return [
          warn(
            text,
            'make room, or lower journal.max_bytes, so that the oldest readings go and not the newest',
          ),
        ];
      }
      return [ok(free)];
    },
  };
}

export function flushCheck({ dataDir }: Config): Check {
  return {
    name: 'flush',
    run: async (signal) => {
      if (!(await exists(dataDir))) return [skipped('data_dir is not there yet')];
      return await flushFindings(dataDir, signal);
    },
  };
}

async function flushFindings(dataDir: string, signal: AbortSignal): Promise<Finding[]> {
  const file = join(dataDir, `.doctor-${process.pid}`);
  const flags = constants.O_CREAT | constants.O_EXCL | constants.O_RDWR | constants.O_DSYNC;
  try {
    const handle = await open(file, flags, 0o600);
    try {
      const block = Buffer.alloc(4096);
      await handle.write(block, 0, block.length, 0);
      const tookMs: number[] = [];
      while (tookMs.length < flushes && !signal.aborted) {
        const startMs = performance.now();
        await handle.write(block, 0, block.length, 0);
        tookMs.push(performance.now() - startMs);
      }
      tookMs.sort((a, b) => a - b);
      // The trip through the thread pool is in it: what is left below the limit did not go to any disk.
      const typicalMs = tookMs[tookMs.length >> 1] ?? 0;
      const text = `4 KiB to the disk takes ${typicalMs.toFixed(2)} ms`;
      if (typicalMs >= flushMsMin) return [ok(text)];
      return [warn(`${text}: no disk is that fast, it may not flush at all`, 'see how the disk is attached')];
    } finally {
      await handle.close();
    }
  } catch (error) {
    const code = errorCode(error) ?? String(error);
    const todos: Readonly<Record<string, string>> = {
      ENOSPC: 'make room on the disk',
      EDQUOT: 'raise the quota of this user',
      EROFS: 'a card that failed turns read-only: see dmesg, replace it',
      EACCES: `run this as the user of the gateway, or give it to that user: chown -R USER ${dataDir}`,
      EIO: 'the disk fails: see dmesg, replace it',
    };
    return [fail(`${dataDir} cannot be written: ${code}`, todos[code] ?? 'see dmesg')];
  } finally {
    await rm(file, { force: true }).catch(() => undefined);
  }
}

export function storesCheck({ dataDir }: Config, asked: AskedGateway): Check {
  return { name: 'journal', run: () => storesFindings(dataDir, asked) };
}

async function storesFindings(dataDir: string, asked: AskedGateway): Promise<Finding[]> {
  const gateway = runs(asked);
  if (gateway !== undefined) {
    const waiting = Object.values(gateway.figures?.journal?.pending ?? {}).reduce(
      (sum, count) => sum + count,
      0,
    );
    return [ok(`open in the gateway; ${waiting} points wait for InfluxDB`)];
  }
  const paths = [dataPaths(dataDir).state, join(dataDir, 'journal', 'blocks')];
  const found: string[] = [];
  for (const path of paths) if (await exists(path)) found.push(path);
  if (found.length === 0) return [skipped('there is none yet')];
  // LevelDB writes when it opens: files of another user's would keep the gateway out.
  const { uid } = await stat(dataDir);
  const own = process.getuid?.() ?? uid;
  if (own !== uid)
    return [skipped(`it belongs to user ${uid}: sudo -u '#${uid}' iotflow doctor looks into it`)];
  const findings: Finding[] = [];
  for (const path of found) {
    try {
      const store = await LevelStore.open(path, { log: createLog('silent') });
      await store.close();
    } catch (error) {
      findings.push(
        errorCode(error) === 'STORE_LOCKED'
          ? fail(
              `another process has ${path} open`,
              'wait, or find and stop it: fuser -v '.concat(join(path, 'LOCK')),
            )
          : fail(
              `${path} does not open: ${error instanceof Error ? error.message : error}`,
              'see dmesg for the disk',
            ),
      );
    }
  }
  const aside = await readdir(join(dataDir, 'journal', 'quarantine')).catch(() => []);
  if (aside.length > 0) {
    findings.push(
      warn(
        `${aside.length} damaged files were set aside in ${join(dataDir, 'journal', 'quarantine')}`,
        'keep a copy',
      ),
    );
  }
  return findings.length > 0 ? findings : [ok('opens')];
}
