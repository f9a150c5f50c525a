import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { Journal } from '../../src/journal/journal.ts';
import { Ring } from '../../src/journal/ring.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { systemDisk } from '../../src/platform/disk.ts';
import { createLog } from '../../src/platform/log.ts';
import { append, drain, line, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

/** A journal as a power cut leaves it: its files are copied while it is open. */
async function cutOff(fill: (journal: Awaited<ReturnType<typeof openJournal>>['journal']) => Promise<void>) {
  const folder = tempFolder();
  const opened = await openJournal(folder);
  await fill(opened.journal);
  const copy = tempFolder();
  cpSync(folder, copy, { recursive: true });
  for (const name of ['state', join('journal', 'blocks')]) {
    writeFileSync(join(copy, name, 'LOCK'), '');
  }
  await opened.close();
  return copy;
}

function segmentPath(folder: string, slot: number): string {
  return join(folder, 'journal', 'ring', `ring-00${slot}`);
}

test('after a power cut everything acknowledged is there, in order', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 30)) await append(journal, [id]);
  });
  const { journal, close } = await openJournal(folder);
  expect(await drain(journal)).toEqual(range(0, 30));
  await close();
});

test('what was accepted before the last commit is not handed out again after a power cut', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 10)) await append(journal, [id]);
    await drain(journal);
    await append(journal, [10]);
  });
  const { journal, close } = await openJournal(folder);
  expect(await drain(journal)).toEqual([10]);
  await close();
});

test('a tail torn at any sector of the last frame is cut, and everything before it is there', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 5)) await append(journal, [id]);
    await append(journal, [5], 'telemetry', 9000);
  });
  const path = segmentPath(folder, 0);
  const whole = readFileSync(path);
  const start = 5 * 4096;
  for (let sector = 0; sector < (3 * 4096) / 512; sector += 1) {
    const torn = Buffer.from(whole);
    torn.fill(0, start + sector * 512, start + 3 * 4096);
    writeFileSync(path, torn);
    const copy = tempFolder();
    cpSync(folder, copy, { recursive: true });
    const { journal, close } = await openJournal(copy);
    const ids = await drain(journal);
    const isWhole = torn.subarray(start).equals(whole.subarray(start));
    expect(ids).toEqual(isWhole ? range(0, 6) : range(0, 5));
    const { tornTails, points, segments } = journal.stats().quarantined;
    expect({ points, segments }).toEqual({ points: 0, segments: 0 });
    expect(tornTails).toBe(isWhole || sector === 0 ? 0 : 1);
    await close();
  }
});

test('sectors of the last frame written out of order are noticed too', async () => {
  const folder = await cutOff(async (journal) => {
    await append(journal, [0]);
    await append(journal, [1], 'telemetry', 9000);
  });
  const path = segmentPath(folder, 0);
  const whole = readFileSync(path);
  for (let sector = 8; sector < 8 + 9128 / 512; sector += 1) {
    const torn = Buffer.from(whole);
    torn.fill(0, sector * 512, sector * 512 + 512);
    writeFileSync(path, torn);
    const copy = tempFolder();
    cpSync(folder, copy, { recursive: true });
    const { journal, close } = await openJournal(copy);
    expect(await drain(journal)).toEqual([0]);
    await close();
  }
});

test('one flipped bit costs one frame: all others are there and the gap is reported and kept', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 12)) await append(journal, [id]);
  });
  const path = segmentPath(folder, 0);
  const whole = readFileSync(path);
  for (const offset of [0, 4, 8, 9, 16, 24, 33, 60, 72, 76, 90, 100, 130, 187]) {
    for (const frame of [0, 5]) {
      const damaged = Buffer.from(whole);
      const at = frame * 4096 + offset;
      damaged[at] = damaged[at]! ^ 0x10;
      writeFileSync(path, damaged);
      const copy = tempFolder();
      cpSync(folder, copy, { recursive: true });
      const { journal, close } = await openJournal(copy);
      expect(await drain(journal)).toEqual(range(0, 12).filter((id) => id !== frame));
      const { quarantined } = journal.stats();
      expect(quarantined).toMatchObject({ segments: 1, bytes: 4096 });
      // What the first frame held cannot be told by one before it.
      expect(quarantined.points).toBe(frame === 0 ? 0 : 1);
      expect(readdirSync(join(copy, 'journal', 'quarantine'))).toEqual([`segment-1-${frame * 4096}`]);
      await append(journal, [100]);
      expect(await drain(journal)).toEqual([100]);
      await close();
    }
  }
});

test('a whole segment overwritten with noise is put aside and the others are read', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 100)) await append(journal, [id], 'telemetry', 1000);
  });
  const noise = Buffer.from(range(0, 64 * 1024).map((index) => (index * 7919) % 251));
  writeFileSync(segmentPath(folder, 0), noise);
  const { journal, close } = await openJournal(folder);
  const ids = await drain(journal);
  expect(ids.length).toBeGreaterThan(30);
  expect(ids).toEqual(range(100 - ids.length, 100));
  expect(journal.stats().quarantined.segments).toBe(1);
  expect(readdirSync(join(folder, 'journal', 'quarantine'))).toEqual(['ring-000.1']);
  await append(journal, [100]);
  await close();
});

test('a file of a later version is moved aside, not written over', async () => {
  const folder = await cutOff((journal) => append(journal, [1]));
  const future = Buffer.alloc(64 * 1024);
  future.write('IFJ\x02 what a later version wrote');
  writeFileSync(segmentPath(folder, 0), future);
  const { journal, close } = await openJournal(folder);
  expect(await drain(journal)).toEqual([]);
  expect(readFileSync(join(folder, 'journal', 'quarantine', 'ring-000.1'))).toEqual(future);
  await close();
});

test('a ring that was lost does not make new points look already delivered', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  for (const from of range(0, 20))
    await append(first.journal, range(from * 25, from * 25 + 25), 'telemetry', 1000);
  const { points } = first.journal.stats().blocks.telemetry;
  expect(points).toBeGreaterThan(0);
  await first.close();
  for (const name of readdirSync(join(folder, 'journal', 'ring'))) {
    writeFileSync(join(folder, 'journal', 'ring', name), Buffer.alloc(64 * 1024));
  }
  const second = await openJournal(folder);
  await append(second.journal, [5000]);
  await second.close();
  const third = await openJournal(folder);
  const ids = await drain(third.journal);
  expect(ids[ids.length - 1]).toBe(5000);
  expect(ids.length).toBeGreaterThan(points);
  await third.close();
});

test('lines and state of one append are both there or both gone', async () => {
  const folder = await cutOff(async (journal) => {
    const state = [{ key: 'seen/d', value: Buffer.from('7') }];
    await journal.append({ class: 'telemetry', lines: line(1), points: 1, state });
    await journal.append({
      class: 'telemetry',
      lines: line(2, 6000),
      points: 1,
      state: [{ key: 'seen/d', value: Buffer.from('8') }],
    });
  });
  const path = segmentPath(folder, 0);
  const whole = readFileSync(path);
  const { journal, close } = await openJournal(folder);
  expect(await journal.get('seen/d')).toEqual(Buffer.from('8'));
  await close();
  const torn = Buffer.from(whole);
  torn.fill(0, 8192);
  const other = await cutOff(async () => undefined);
  writeFileSync(segmentPath(other, 0), torn);
  const second = await openJournal(other);
  expect(await drain(second.journal)).toEqual([1]);
  expect(await second.journal.get('seen/d')).toEqual(Buffer.from('7'));
  await second.close();
});

test('segments that were free before a power cut are free after it', async () => {
  const folder = await cutOff(async (journal) => {
    for (const from of range(0, 40)) {
      await append(journal, range(from * 25, from * 25 + 25), 'telemetry', 1000);
      await drain(journal);
    }
    await spilled(journal);
    await append(journal, [5000]);
    expect(journal.stats().ring.free).toBe(2);
  });
  const { ring, recovered } = await Ring.open({
    directory: join(folder, 'journal'),
    disk: systemDisk(),
    log: createLog('silent'),
    segmentBytes: 64 * 1024,
    segments: 4,
  });
  expect(ring.freeSegments).toBe(2);
  expect(recovered.frames.length).toBeGreaterThan(0);
  await ring.close();
});

test('a second process is refused and changes nothing', async () => {
  const folder = tempFolder();
  const { journal, store, close } = await openJournal(folder);
  await append(journal, [1]);
  const second = Journal.open({
    directory: join(folder, 'journal'),
    store: store.room('other'),
    disk: systemDisk(),
    clock: systemClock(),
    log: createLog('silent'),
  });
  await expect(second).rejects.toMatchObject({ code: 'STORE_LOCKED' });
  await append(journal, [2]);
  expect(await drain(journal)).toEqual([1, 2]);
  await close();
});
