import { statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { WearMeter, type WearOptions } from '../../src/journal/wear.ts';
import { createLog } from '../../src/platform/log.ts';
import { append, openJournal, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';
import { writeTree } from '../support/tree.ts';

const hourMs = 3_600_000;
const cardBytes = 32e9;

/** A machine with a card whose counters a test moves. */
function machine() {
  const folder = tempFolder();
  const sys = join(folder, 'sys');
  const proc = join(folder, 'proc');
  const { dev } = statSync(folder);
  const number = `${(dev >>> 8) & 0xfff}:${(dev & 0xff) | ((dev >>> 12) & 0xfff00)}`;
  writeTree(folder, {
    'sys/block/mmcblk0/size': `${cardBytes / 512}\n`,
    'sys/block/mmcblk0/device/life_time': '0x02 0x05\n',
    [`sys/dev/block/${number}`]: '-> ../../block/mmcblk0',
    'proc/self/io': 'write_bytes: 0\n',
  });
  const counters = { uptimeMs: 0, deviceBytes: 0, ownBytes: 0 };
  const show = () => {
    writeFileSync(join(sys, 'block/mmcblk0/stat'), `1 1 1 1 1 1 ${counters.deviceBytes / 512} 1 0 0 0\n`);
    writeFileSync(join(proc, 'self/io'), `write_bytes: ${counters.ownBytes}\n`);
  };
  show();
  return {
    folder,
    sys,
    proc,
    uptimeMs: () => counters.uptimeMs,
    /** The machine runs on and so much is written. */
    pass(ms: number, bytes: { deviceBytes?: number; ownBytes?: number } = {}) {
      counters.uptimeMs += ms;
      counters.deviceBytes += bytes.deviceBytes ?? 0;
      counters.ownBytes += bytes.ownBytes ?? 0;
      show();
    },
    reboot() {
      Object.assign(counters, { uptimeMs: 0, deviceBytes: 0, ownBytes: 0 });
      show();
    },
  };
}

async function started(
  at: ReturnType<typeof machine>,
  overrides: Partial<WearOptions> = {},
): Promise<{
  meter: WearMeter;
  journal: Awaited<ReturnType<typeof openJournal>>;
  close: () => Promise<void>;
}> {
  const journal = await openJournal(at.folder);
  const meter = await WearMeter.start({
    journal: journal.journal,
    dataDirectory: at.folder,
    clock: { bootId: 'boot-1' },
    uptimeMs: at.uptimeMs,
    log: createLog('silent'),
    sampleIntervalMs: 60_000,
    cardEnduranceBytes: undefined,
    budgetBytesPerDay: undefined,
    lifeYears: 10,
    lingerMaxMs: 250,
    sysDirectory: at.sys,
    procDirectory: at.proc,
    ...overrides,
  });
  let isOpen = true;
  const close = async () => {
    if (!isOpen) return;
    isOpen = false;
    await meter.stop();
    await journal.close();
  };
  onTestFinished(close);
  return { meter, journal, close };
}

test('bytes a day, bytes a point and years of card life come from what the kernel counts', async () => {
  const at = machine();
  at.pass(5 * hourMs, { deviceBytes: 7e9 + 512 });
  const { meter, journal } = await started(at);
  expect(meter.stats()).toMatchObject({ device: 'mmcblk0', bytesPerDay: undefined, lifeYears: undefined });
  await append(journal.journal, range(0, 50));
  for (let minute = 0; minute < 60; minute += 1) {
    at.pass(60_000, { deviceBytes: 1_024_000, ownBytes: 512_000 });
    await meter.look();
  }
  const { stats } = { stats: meter.stats() };
  const perDay = 1_024_000 * 1440;
  expect(stats.bytesPerDay).toBeCloseTo(perDay);
  expect(stats.bytesPerDayLastHour).toBeCloseTo(perDay);
  expect(stats).toMatchObject({
    deviceWrittenBytes: 60 * 1_024_000,
    ownWrittenBytes: 60 * 512_000,
    ownBytesPerPoint: (60 * 512_000) / 50,
    enduranceBytes: cardBytes * 100,
    lifeUsed: 0.5,
  });
  // Half of the card's life is used already.
  expect(stats.lifeYears).toBeCloseTo((cardBytes * 100 * 0.5) / perDay / 365.25);
  expect(stats.budgetBytesPerDay).toBeCloseTo((cardBytes * 100) / 3652.5);
});

test('the figures go on after a restart, and count what was written meanwhile', async () => {
  const at = machine();
  const first = await started(at);
  at.pass(2 * hourMs, { deviceBytes: 1_024_000 });
  await first.close();
  at.pass(hourMs, { deviceBytes: 512_000 });
  const second = await started(at);
  expect(second.meter.stats()).toMatchObject({ measuredMs: 3 * hourMs, deviceWrittenBytes: 0 });
  expect(second.meter.stats().bytesPerDay).toBeCloseTo((1_536_000 / 3) * 24);
  await second.close();
  at.reboot();
  at.pass(hourMs, { deviceBytes: 3_072_000 });
  const third = await started(at, { clock: { bootId: 'boot-2' } });
  expect(third.meter.stats()).toMatchObject({ measuredMs: 4 * hourMs });
  expect(third.meter.stats().bytesPerDay).toBeCloseTo((4_608_000 / 4) * 24);
});

test('another card begins anew', async () => {
  const at = machine();
  const first = await started(at);
  at.pass(2 * hourMs, { deviceBytes: 1_024_000 });
  await first.close();
  writeFileSync(join(at.sys, 'block/mmcblk0/size'), '1000000\n');
  const second = await started(at);
  expect(second.meter.stats()).toMatchObject({ measuredMs: 0, bytesPerDay: undefined });
});

test('only the last day counts, and what is kept of it stays small', async () => {
  const at = machine();
  const { meter, journal } = await started(at);
  for (let hour = 0; hour < 100; hour += 1) {
    at.pass(hourMs, { deviceBytes: hour < 60 ? 1_024_000_000 : 512_000 });
    await meter.look();
  }
  expect(meter.stats().bytesPerDay).toBeCloseTo(512_000 * 24);
  expect(meter.stats().measuredMs).toBeLessThanOrEqual(24 * hourMs);
  const stored = await journal.journal.get('wear/hours');
  expect(stored?.length).toBeLessThan(4096);
  // What it cost to keep: a commit an hour at most.
  expect(journal.journal.stats().commits).toBeLessThanOrEqual(100);
});

test('over its budget the journal is told to linger, and no longer when it is quiet', async () => {
  const at = machine();
  const { meter, journal } = await started(at, { budgetBytesPerDay: 10_000_000 });
  const minute = async () => {
    for (const id of range(0, 20)) await append(journal.journal, [id]);
    at.pass(60_000, { deviceBytes: 20 * 4096 });
    await meter.look();
  };
  for (let count = 0; count < 9; count += 1) await minute();
  expect(meter.stats().lingerMs).toBe(0);
  await minute();
  expect(meter.stats().lingerMs).toBeGreaterThan(0);
  expect(journal.journal.stats().lingerMs).toBe(meter.stats().lingerMs);
  for (let count = 0; count < 90; count += 1) {
    at.pass(60_000);
    await meter.look();
  }
  expect(journal.journal.stats().lingerMs).toBe(0);
});

test('where no block device is known the bytes of this process are counted', async () => {
  const at = machine();
  const { meter } = await started(at, { sysDirectory: join(at.folder, 'nothing') });
  for (let count = 0; count < 10; count += 1) {
    at.pass(60_000, { ownBytes: 4096, deviceBytes: 1_024_000 });
    await meter.look();
  }
  expect(meter.stats()).toMatchObject({ device: undefined, deviceWrittenBytes: 40_960 });
  expect(meter.stats().bytesPerDay).toBeCloseTo(4096 * 1440);
});

test('stored figures that make no sense are left out', async () => {
  const at = machine();
  const first = await openJournal(at.folder);
  for (const value of [
    '',
    'nonsense',
    '{}',
    '{"boot":"boot-1","disk":"mmcblk0 32000000000","uptimeMs":0,"deviceBytes":0,"hours":[{"ms":-1}]}',
  ]) {
    await first.journal.write([{ key: 'wear/hours', value: Buffer.from(value) }]);
    const meter = await WearMeter.start({
      journal: first.journal,
      dataDirectory: at.folder,
      clock: { bootId: 'boot-1' },
      uptimeMs: at.uptimeMs,
      log: createLog('silent'),
      sampleIntervalMs: 60_000,
      cardEnduranceBytes: undefined,
      budgetBytesPerDay: undefined,
      lifeYears: 10,
      lingerMaxMs: 250,
      sysDirectory: at.sys,
      procDirectory: at.proc,
    });
    expect(meter.stats().measuredMs).toBe(0);
    await meter.stop();
  }
  await first.close();
});
