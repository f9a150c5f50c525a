import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { blockBytes, headerBytes, padded, sealFrame } from '../../src/journal/frame.ts';
import { Journal } from '../../src/journal/journal.ts';
import { Ring } from '../../src/journal/ring.ts';
import { scanSegment } from '../../src/journal/segment.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { systemDisk } from '../../src/platform/disk.ts';
import { createLog } from '../../src/platform/log.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
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

test('a burst of several frames in one commit is all there after a power cut, also when nothing else waited', async () => {
  const folder = await cutOff(async (journal) => {
    await append(journal, [1]);
    await drain(journal);
    const { frames } = journal.stats();
    await append(journal, range(100, 130), 'telemetry', 1000);
    expect(journal.stats().frames - frames).toBeGreaterThan(2);
  });
  const { journal, close } = await openJournal(folder);
  expect(await drain(journal)).toEqual(range(100, 130));
  await close();
});

test('of an append that was refused neither lines nor state come back once anything else was committed', async () => {
  const disk = faultyDisk();
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder, { disk, options: { retryMs: 5 } });
  await append(journal, [1]);
  disk.faults.datasync = 'EIO';
  const state = [{ key: 'seen/d', value: Buffer.from('2') }];
  const refused = journal.append({ class: 'telemetry', lines: line(2), points: 1, state });
  await expect(refused).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
  disk.faults.datasync = undefined;
  await append(journal, [3]);
  // The bytes are there all the same: the write went well.
  const copy = tempFolder();
  cpSync(folder, copy, { recursive: true });
  await close();
  const second = await openJournal(copy);
  expect(await drain(second.journal)).toEqual([1, 3]);
  expect(await second.journal.get('seen/d')).toBeUndefined();
  expect(second.journal.stats().quarantined).toMatchObject({ segments: 0, points: 0 });
  await second.close();
});

test('what the process before had not synced is made durable before anybody builds on it', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 3)) await append(journal, [id]);
  });
  const disk = faultyDisk();
  const { journal, close } = await openJournal(folder, { disk });
  expect(disk.writtenBytes).toBe(4096);
  expect(disk.datasyncs).toBe(1);
  expect(await drain(journal)).toEqual([0, 1, 2]);
  await close();
});

test('segments we are not allowed to open are left as they are, and opening says why', async () => {
  const folder = await cutOff((journal) => append(journal, range(0, 100), 'telemetry', 1000));
  const disk = faultyDisk();
  const denied = Object.assign(new Error('EACCES'), { code: 'EACCES' });
  const opening = openJournal(folder, { disk: { ...disk, open: () => Promise.reject(denied) } });
  await expect(opening).rejects.toMatchObject({ code: 'STORE_FAILED' });
  const copy = tempFolder();
  cpSync(folder, copy, { recursive: true });
  const { journal, close } = await openJournal(copy);
  expect(await drain(journal)).toEqual(range(0, 100));
  await close();
});

test('a whole ring of a later version is kept', async () => {
  const folder = await cutOff((journal) => append(journal, range(0, 10)));
  for (const slot of range(0, 4)) {
    const future = Buffer.alloc(64 * 1024);
    future.write(`IFJ\x02 later ${slot}`);
    writeFileSync(segmentPath(folder, slot), future);
  }
  const { journal, close } = await openJournal(folder);
  await append(journal, [1]);
  const kept = readdirSync(join(folder, 'journal', 'quarantine')).sort();
  expect(kept).toEqual(['ring-000.1', 'ring-001.1', 'ring-002.1', 'ring-003.1']);
  for (const [slot, name] of kept.entries()) {
    const content = readFileSync(join(folder, 'journal', 'quarantine', name), 'latin1');
    expect(content.slice(5, 12)).toBe(`later ${slot}`);
  }
  await close();
});

test('a sector that cannot be read at opening costs its own frame and not its segment', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 12)) await append(journal, [id]);
  });
  const disk = faultyDisk();
  disk.faults.badPosition = 5 * 4096 + 700;
  const { journal, close } = await openJournal(folder, { disk });
  expect(await drain(journal)).toEqual(range(0, 12).filter((id) => id !== 5));
  expect(journal.stats().quarantined).toMatchObject({ segments: 1, points: 1 });
  await close();
});

function frameOf(segment: number, life: number, sequence: number): Buffer {
  const lines = line(sequence);
  const length = headerBytes + lines.length;
  const frame = Buffer.alloc(padded(length));
  frame.write(lines, headerBytes);
  sealFrame(frame, 0, {
    ...{ length, segment, life, sequence, place: 0, isAfterOpening: false, previous: sequence - 1 },
    ...{ watermarks: [0, 0, 0], floor: segment, pointsBefore: 0, atMs: 0 },
    ...{
      points: [0, 0, 1],
      bytes: [0, 0, lines.length],
      undated: [false, false, false],
      stateWrites: 0,
      stateBytes: 0,
    },
  });
  return frame;
}

test('bytes a device sent, left behind by a former life of the segment, are never taken for a frame', () => {
  const content = Buffer.alloc(64 * 1024);
  frameOf(7, 1234, 50).copy(content, 0);
  // Of the same number, or of one that would outdate everything: only the random number is not known outside.
  frameOf(7, 0, 51).copy(content, blockBytes);
  frameOf(2 ** 40, 99, 2 ** 40).copy(content, 3 * blockBytes);
  const { id, frames, gaps } = scanSegment(content);
  expect(id).toBe(7);
  expect(frames.map(({ header }) => header.sequence)).toEqual([50]);
  expect(gaps).toEqual([]);
});

test('a ring of sixteen segments full of damage opens without going over the same bytes again and again', async () => {
  const folder = tempFolder();
  const options = { segmentBytes: 4 * 1024 * 1024, ringSegments: 16, freeSegmentsMin: 3 };
  const first = await openJournal(folder, { options });
  await expect.poll(() => first.journal.stats().ring.missing).toBe(0);
  await append(first.journal, [1]);
  await first.close();
  // Every block claims to be a frame of the greatest length.
  const damaged = Buffer.alloc(options.segmentBytes, 0x55);
  for (let at = 0; at < damaged.length; at += blockBytes) {
    damaged.write('IFJ\x01', at, 'latin1');
    damaged.writeUInt32LE(1024 * 1024, at + 8);
  }
  for (const name of readdirSync(join(folder, 'journal', 'ring')).slice(1)) {
    writeFileSync(join(folder, 'journal', 'ring', name), damaged);
  }
  const { journal, close } = await openJournal(folder, { options });
  expect(await drain(journal)).toEqual([1]);
  await close();
});

test('segments that are doubled, empty or cut short do no harm to the others', async () => {
  const folder = await cutOff(async (journal) => {
    for (const id of range(0, 30)) await append(journal, [id]);
  });
  const whole = readFileSync(segmentPath(folder, 0));
  writeFileSync(segmentPath(folder, 2), Buffer.alloc(0));
  // Two files of the same frames, of which one misses the last ones.
  writeFileSync(segmentPath(folder, 3), whole.subarray(0, 10 * 4096 + 700));
  const { journal, close } = await openJournal(folder);
  expect((await drain(journal)).sort((a, b) => a - b)).toEqual(range(0, 30));
  for (const from of range(0, 20))
    await append(journal, range(1000 + from * 25, 1025 + from * 25), 'telemetry', 1000);
  expect(await drain(journal)).toEqual(range(1000, 1500));
  await close();
  const second = await openJournal(folder);
  expect(await drain(second.journal)).toEqual([]);
  expect(readdirSync(join(folder, 'journal', 'ring')).length).toBe(4);
  await second.close();
});
