// What must still go on when nothing more fits on the disk.

import { expect, test } from 'vitest';
import { append, drain, openJournal, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const kilobyte = 1000;

test('on a disk too full for checkpoints the ring goes around as long as readings are delivered, and no state is lost', async () => {
  const folder = tempFolder();
  let isFull = true;
  const first = await openJournal(folder, { isStoreFull: () => isFull });
  await first.journal.write([{ key: 'old/1', value: Buffer.from('written once') }]);
  await first.journal.write([{ key: 'old/2', value: Buffer.from('deleted later') }]);
  const ids: number[] = [];
  for (const round of range(0, 60)) {
    const state = [{ key: `k/${round % 7}`, value: Buffer.from(`round ${round}`) }];
    const lines = range(round * 10, round * 10 + 10).map(
      (id) => `m v=${id},pad="${'x'.repeat(kilobyte)}" 1\n`,
    );
    await first.journal.append({ class: 'telemetry', lines: lines.join(''), points: 10, state });
    if (round === 30) await first.journal.write([{ key: 'old/2', value: undefined }]);
    ids.push(...(await drain(first.journal)));
  }
  expect(ids).toEqual(range(0, 600));
  // 64 KiB segments: several times around.
  expect(first.journal.stats().writtenBytes).toBeGreaterThan(8 * 64 * 1024);
  expect(first.journal.stats()).toMatchObject({
    isSpillFailing: false,
    isStateCarried: true,
    spilledPoints: 0,
    refusedFull: 0,
  });
  // The power goes: nothing is ever said to the store.
  await first.close();

  const second = await openJournal(folder, { isStoreFull: () => isFull });
  const check = async () => {
    expect((await second.journal.get('old/1'))?.toString()).toBe('written once');
    expect(await second.journal.get('old/2')).toBeUndefined();
    for (const key of range(0, 7)) {
      const last = range(0, 60).findLast((round) => round % 7 === key);
      expect((await second.journal.get(`k/${key}`))?.toString()).toBe(`round ${last}`);
    }
  };
  await check();
  isFull = false;
  for (const round of range(0, 30)) {
    await append(second.journal, range(round * 10, round * 10 + 10), 'telemetry', kilobyte);
    await drain(second.journal);
  }
  expect(second.journal.stats().isStateCarried).toBe(false);
  await check();
  await second.close();
});

test('what a full disk still takes is alarms to the last byte, events and state to three quarters of the reserve, no readings', async () => {
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder, { isStoreFull: () => true, options: { lazyMs: 5 } });
  // More state than is worth carrying: no segment can be freed.
  await journal.write([{ key: 'big/1', value: Buffer.alloc(40_000) }]);
  const offer = async (of: 'alarm' | 'event' | 'telemetry') => {
    const isTaken = await append(journal, [1], of).then(
      () => true,
      (error: unknown) => {
        expect(error).toMatchObject({ code: 'JOURNAL_FULL' });
        return false;
      },
    );
    return isTaken;
  };
  const count = async (of: 'alarm' | 'event' | 'telemetry') => {
    let taken = 0;
    while (await offer(of)) taken += 1;
    return taken;
  };
  await count('telemetry');
  const events = await count('event');
  // Each a frame of 4 KiB.
  expect(events).toBeGreaterThanOrEqual(7);
  await expect(journal.write([{ key: 'k/1', value: Buffer.from('x') }])).rejects.toMatchObject({
    code: 'JOURNAL_FULL',
  });
  // A lazy write that finds no room must not keep alarms waiting behind it.
  journal.writeLazily([{ key: 'lazy/1', value: Buffer.from('waits') }]);
  expect(await count('telemetry')).toBe(0);
  const alarms = await count('alarm');
  expect(alarms).toBeGreaterThanOrEqual(4);
  expect((await journal.get('lazy/1'))?.toString()).toBe('waits');
  await close();
});

test('an alarm and its state find room in the same moment in which readings and events are refused', async () => {
  const { journal, close } = await openJournal(tempFolder(), { isStoreFull: () => true });
  await journal.write([{ key: 'big/1', value: Buffer.alloc(40_000) }]);
  for (let isTaken = true; isTaken; ) {
    isTaken = await append(journal, [1], 'event').then(
      () => true,
      () => false,
    );
  }
  const outcomes = await Promise.allSettled([
    append(journal, [2], 'telemetry'),
    append(journal, [3], 'event'),
    journal.append({
      class: 'alarm',
      lines: 'alarm v=4,pad="" 1\n',
      points: 1,
      state: [{ key: 'alarm/1', value: Buffer.from('on') }],
    }),
  ]);
  expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'rejected', 'fulfilled']);
  expect((await journal.get('alarm/1'))?.toString()).toBe('on');
  await close();
});

test('what was to be written lazily is kept by a clean stop, also where only the room for alarms is left', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder, { isStoreFull: () => true });
  await first.journal.write([
    { key: 'big/1', value: Buffer.alloc(40_000) },
    { key: 'k/1', value: Buffer.from('old') },
  ]);
  for (let isTaken = true; isTaken; ) {
    isTaken = await append(first.journal, [1], 'event').then(
      () => true,
      () => false,
    );
  }
  first.journal.writeLazily([
    { key: 'k/1', value: undefined },
    { key: 'k/2', value: Buffer.from('new') },
  ]);
  await first.close();
  const second = await openJournal(folder);
  expect(await second.journal.get('k/1')).toBeUndefined();
  expect((await second.journal.get('k/2'))?.toString()).toBe('new');
  await second.close();
});
