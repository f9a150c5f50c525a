// The disk fills, fails, or cannot be written, under the built gateway with real clients. Each time: a leak sounds,
// the page says what is wrong, nothing is acknowledged that is not kept, and when the fault is over all goes on in the
// same process. What is done on a disk that is full while InfluxDB is away: full-disk.test.ts.

import { closeSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { faultyMount, faultyMountMissing, writing } from '../support/faulty-mount.ts';
import { iotflow, writeConfig } from '../support/gateway-process.ts';
import { Household } from '../support/household.ts';
import { canHurtExt4, canMount, ext4Disk, fillDisk, smallDisk, useUpInodes } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';

const cannotFail = faultyMountMissing();
const needs = cannotFail === undefined ? '' : ` (needs ${cannotFail})`;
const isLong = process.env.IOTFLOW_LONG_FAULTS === '1';
const alarms = isLong ? 50 : 4;
const patient = { timeout: isLong ? 900_000 : 80_000 };

test.skipIf(!canMount())(
  'on a disk filled to the last byte the ring turns while InfluxDB takes what comes, and alarms outlive kill -9 (needs root)',
  { timeout: isLong ? 1_800_000 : 150_000 },
  async () => {
    const disk = smallDisk(64);
    const house = await Household.start({ dataDir: join(disk, 'data'), isFlooding: true });
    const probes = Array.from({ length: alarms }, (_, index) => `probe-${index}`);
    await house.addProbes(probes);
    const empty = fillDisk(disk);
    const written = () => house.metric('iotflow_journal_written_bytes_total');
    const before = await written();
    // Of segments of 4 MiB.
    const segments = isLong ? 240 : 2;
    await expect.poll(written, patient).toBeGreaterThan(before + segments * 4 * 1024 * 1024);
    await house.says(/DISK_FAILING/);
    await house.takesReadings();
    for (const probe of probes) {
      await house.leakIsHeard(probe);
      await house.acknowledge();
    }
    await house.leakIsHeard();
    await house.saves();
    await house.crash();
    expect(house.isSounding).toBe(true);
    await house.says(/JOURNAL_FULL|DISK_FAILING/);
    empty();
    await house.takesReadings();
    expect(house.isSounding).toBe(true);
    await house.acknowledge();
    await house.nothingIsLost();
  },
);

test.skipIf(!canMount())(
  'without inodes readings are refused once the ring is full, a leak sounds, and all goes on when there are some (needs root)',
  { timeout: 150_000 },
  async () => {
    const disk = smallDisk(96, { inodes: 200 });
    const house = await Household.start({ dataDir: join(disk, 'data'), isOffline: true, isFlooding: true });
    const empty = useUpInodes(disk);
    await house.says(/JOURNAL_FULL/);
    await house.leakIsHeard();
    await house.acknowledge();
    empty();
    await house.nothingIsLost();
    await house.saysNoMore(/JOURNAL|DISK/);
  },
);

test.skipIf(cannotFail !== undefined).each([
  ['becomes read-only', 'EROFS', /DISK_READ_ONLY/],
  ['fails every write', 'EIO', /DISK_FAILING/],
  ['is over its quota', 'EDQUOT', /JOURNAL_FULL/],
] as const)(
  `a disk that %s: readings are refused, a leak sounds, and all goes on afterwards${needs}`,
  {
    timeout: 150_000,
  },
  async (_fault, code, reason) => {
    const disk = await faultyMount();
    const house = await Household.start({ dataDir: join(disk.folder, 'data') });
    await house.addProbes(['garage']);
    disk.fail(code, writing);
    await house.says(reason);
    expect((await house.health()).status).toBe('failing');
    expect(await house.metric('iotflow_journal_disk_trouble')).toBe(1);
    await house.leakIsHeard();
    disk.mend();
    await house.saysNoMore(/JOURNAL|DISK/);
    // Its facts are on the disk now.
    await house.saves();
    await house.acknowledge();

    // Once more, and now the process is started while the disk is so.
    disk.fail(code, writing);
    await house.crash();
    await house.says(reason);
    expect((await house.health()).status).toBe('failing');
    expect(house.isSounding).toBe(false);
    await house.leakIsHeard('garage');
    disk.mend();
    await house.takesReadings();
    await house.saysNoMore(/JOURNAL|DISK/);
    // What could not be saved in the meantime is now.
    expect(house.isSounding).toBe(true);
    await house.saves();
    await house.crash();
    expect(house.isSounding).toBe(true);
    await house.acknowledge();
    await house.nothingIsLost();
  },
);

test.skipIf(cannotFail !== undefined)(
  `a first start on a disk that cannot be written ends with one line that says so${needs}`,
  async () => {
    const disk = await faultyMount();
    disk.fail('EROFS', writing);
    const configFile = writeConfig(tempFolder(), { data_dir: join(disk.folder, 'data') });
    const failure: unknown = await iotflow('run', '--config', configFile).catch((error: unknown) => error);
    expect(failure).toMatchObject({ code: 1 });
    const { stderr } = failure as { stderr: string };
    expect(stderr).toMatch(/^iotflow: cannot make data_dir /);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  },
);

test.skipIf(!canHurtExt4() || !canMount())(
  'an ext4 that turned read-only by itself: a leak sounds, and after the check of the next boot nothing is missing (needs root)',
  { timeout: 150_000 },
  async () => {
    const disk = ext4Disk(96);
    const house = await Household.start({ dataDir: join(disk.folder, 'data') });
    disk.hurt();
    await house.says(/DISK_READ_ONLY|DISK_FAILING/);
    await house.leakIsHeard();
    await house.gateway.kill();
    disk.repair();
    await house.restart();
    await house.nothingIsLost();
  },
);

test.skipIf(cannotFail !== undefined)(
  `one segment that cannot be written, and a LevelDB whose log fails: readings are taken all the same${needs}`,
  { timeout: 150_000 },
  async () => {
    const disk = await faultyMount();
    const house = await Household.start({ dataDir: join(disk.folder, 'data'), isFlooding: true });
    disk.fail('EIO', ['write', 'fsync', 'create', 'open'], '*/ring/ring-002*');
    disk.fail('EIO', ['write', 'fsync'], '*.log');
    const failed = () => house.metric('iotflow_journal_failed_commits_total');
    await expect.poll(failed, patient).toBeGreaterThan(0);
    await house.takesReadings();
    await house.leakIsHeard();
    disk.mend();
    await house.nothingIsLost();
  },
);

test.skipIf(!canMount())(
  'a log that cannot be written, because its disk is full or its reader gone, stops nobody (needs root)',
  { timeout: 150_000 },
  async () => {
    const disk = smallDisk(1);
    const data = smallDisk(96);
    const house = await Household.start({ dataDir: join(data, 'data') });
    const logFd = openSync(join(disk, 'gateway.log'), 'a');
    fillDisk(disk);
    await house.gateway.stop();
    await house.restart(logFd);
    closeSync(logFd);
    await house.leakIsHeard();
    await house.takesReadings();
    await house.gateway.stop();
    await house.restart();
    house.gateway.child.stdout?.destroy();
    house.gateway.child.stderr?.destroy();
    // A line of the log.
    await house.acknowledge();
    await house.takesReadings();
    await house.nothingIsLost();
  },
);
