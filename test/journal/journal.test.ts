import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { faultyDisk } from '../support/faulty-disk.ts';
import { append, drain, idsOf, line, openJournal, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

test('an append resolves only after its bytes have been synced', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk });
  const release = disk.holdDatasync();
  let durable = false;
  const appended = journal.append({ class: 'telemetry', lines: line(1), points: 1 }).then(() => {
    durable = true;
  });
  await sleep(50);
  expect(disk.datasyncs).toBe(1);
  expect(disk.writtenBytes).toBe(4096);
  expect(durable).toBe(false);
  expect(journal.pendingBytes).toBe(line(1).length);
  expect(await journal.take('fresh', 10)).toBeUndefined();
  release();
  await appended;
  expect(journal.pendingBytes).toBe(0);
  await close();
});

test('appends made while the disk is busy share the next sync, and resolve in their order', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk });
  const release = disk.holdDatasync();
  const order: number[] = [];
  const done = [append(journal, [0]).then(() => order.push(0))];
  await sleep(20);
  for (const id of range(1, 200)) done.push(append(journal, [id]).then(() => order.push(id)));
  await sleep(20);
  expect(disk.datasyncs).toBe(1);
  release();
  await Promise.all(done);
  expect(disk.datasyncs).toBe(2);
  expect(order).toEqual(range(0, 200));
  expect(await drain(journal)).toEqual(range(0, 200));
  await close();
});

test('after a clean stop nothing that was accepted is handed out again, and the rest is', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await append(first.journal, range(0, 100));
  const batch = await first.journal.take('fresh', 100);
  await first.journal.accept(batch!);
  await append(first.journal, range(100, 120));
  await first.close();

  const second = await openJournal(folder);
  expect(second.journal.pending()).toEqual({ urgent: 0, fresh: 20, backlog: 0 });
  expect(await drain(second.journal)).toEqual(range(100, 120));
  await second.close();

  const third = await openJournal(folder);
  expect(third.journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await third.close();
});

test('alarms and events go before telemetry, and each lane gives the oldest first', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await append(journal, [1, 2]);
  await append(journal, [3], 'alarm');
  await append(journal, [4], 'event');
  await append(journal, [5], 'alarm');
  expect(journal.pending()).toEqual({ urgent: 3, fresh: 2, backlog: 0 });
  const urgent = await journal.take('urgent', 10);
  expect(idsOf(urgent!)).toEqual([3, 4, 5]);
  journal.uplinkReturned();
  await append(journal, [6]);
  expect(journal.pending()).toEqual({ urgent: 3, fresh: 1, backlog: 2 });
  expect(idsOf((await journal.take('fresh', 10))!)).toEqual([6]);
  expect(idsOf((await journal.take('backlog', 10))!)).toEqual([1, 2]);
  await close();
});

test('a held batch is not handed out twice, and is the first again when it is released', async () => {
  const { journal, close } = await openJournal(tempFolder());
  for (const id of range(0, 6)) await append(journal, [id]);
  const first = await journal.take('fresh', 2);
  const second = await journal.take('fresh', 2);
  expect(idsOf(first!)).toEqual([0, 1]);
  expect(idsOf(second!)).toEqual([2, 3]);
  await journal.accept(second!);
  journal.release(first!);
  expect(idsOf((await journal.take('fresh', 3))!)).toEqual([0, 1, 4]);
  expect(journal.pending().fresh).toBe(4);
  await close();
});

test('what was held when the gateway stopped is handed out again', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await append(first.journal, [1, 2, 3]);
  expect(await first.journal.take('fresh', 10)).toBeDefined();
  await first.close();
  const second = await openJournal(folder);
  expect(await drain(second.journal)).toEqual([1, 2, 3]);
  await second.close();
});

test('the listener hears of new points at most once a commit', async () => {
  const { journal, close } = await openJournal(tempFolder());
  let heard = 0;
  journal.onAvailable(() => {
    heard += 1;
  });
  await append(journal, range(0, 50));
  expect(heard).toBe(1);
  await journal.write([{ key: 'a/b', value: Buffer.from('c') }]);
  expect(heard).toBe(1);
  await close();
});

test('a journal that waits too long for its disk refuses more instead of filling the memory', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk, options: { pendingBytesMax: 1000 } });
  const release = disk.holdDatasync();
  const accepted = append(journal, range(0, 10), 'telemetry', 100);
  await expect(append(journal, [10], 'telemetry', 100)).rejects.toMatchObject({ code: 'JOURNAL_STALLED' });
  release();
  await accepted;
  await append(journal, [11]);
  expect(await drain(journal)).toEqual([...range(0, 10), 11]);
  expect(journal.stats().refusedStalled).toBe(1);
  await close();
});

test('an append that no frame can hold is refused, and a closed journal says so', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await expect(append(journal, [1], 'telemetry', 70_000)).rejects.toMatchObject({
    code: 'JOURNAL_TOO_LARGE',
  });
  await append(journal, [2], 'telemetry', 61_000);
  expect(await drain(journal)).toEqual([2]);
  await close();
  await expect(append(journal, [3])).rejects.toMatchObject({ code: 'JOURNAL_CLOSED' });
  await close();
});

test.each(['write', 'datasync'] as const)(
  'after a failed %s the appends are refused, the segment is left, and what was durable stays',
  async (what) => {
    const folder = tempFolder();
    const disk = faultyDisk();
    const first = await openJournal(folder, { disk });
    await append(first.journal, range(0, 10));
    disk.faults[what] = 'EIO';
    await expect(append(first.journal, [10])).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
    disk.faults[what] = undefined;
    await append(first.journal, range(11, 20));
    expect(first.journal.stats()).toMatchObject({ failedCommits: 1, refusedFailed: 1 });
    await first.close();
    const second = await openJournal(folder);
    const ids = await drain(second.journal);
    // Whether the refused one is there is unknown; the others are.
    expect(ids.filter((id) => id !== 10)).toEqual([...range(0, 10), ...range(11, 20)]);
    expect(second.journal.stats().quarantined.points).toBe(0);
    await second.close();
  },
);

test('a disk that fails for a while costs refused appends and nothing else', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk, options: { retryMs: 5 } });
  const durable: number[] = [];
  const offer = (ids: number[]) =>
    Promise.allSettled(ids.map((id) => append(journal, [id]).then(() => durable.push(id))));
  await offer(range(0, 50));
  disk.faults.datasync = 'EIO';
  disk.faults.allocate = 'EIO';
  for (const id of range(50, 60)) await offer([id]);
  disk.faults.datasync = undefined;
  disk.faults.allocate = undefined;
  for (let id = 60; durable[durable.length - 1] !== id - 1; id += 1) {
    await offer([id]);
    await sleep(5);
  }
  await offer(range(1000, 1200));
  expect(durable).toEqual(expect.arrayContaining([...range(0, 50), ...range(1000, 1200)]));
  expect(await drain(journal)).toEqual(durable);
  await close();
});

test('a frame damaged on the disk is not delivered wrong: it is given up and counted', async () => {
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder);
  for (const id of range(0, 3)) await append(journal, [id]);
  const { openSync, writeSync, closeSync } = await import('node:fs');
  const file = openSync(`${folder}/journal/ring/ring-000`, 'r+');
  writeSync(file, 'XX', 4096 + 140);
  closeSync(file);
  expect(await drain(journal)).toEqual([0, 2]);
  expect(journal.stats().dropped.telemetry.damage).toBe(1);
  expect(journal.pending().fresh).toBe(0);
  await close();
});

test('a sector that cannot be read costs its own frame and not the delivery', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk });
  for (const id of range(0, 5)) await append(journal, [id]);
  disk.faults.badPosition = 2 * 4096 + 100;
  expect(await drain(journal)).toEqual([0, 1, 3, 4]);
  expect(journal.stats().dropped.telemetry.damage).toBe(1);
  await close();
});

test('after failures in every segment telemetry alone gets the ring going again', async () => {
  const disk = faultyDisk();
  let gate: Promise<void> | undefined;
  const gated = {
    ...disk,
    async allocate(path: string, bytes: number) {
      const file = await disk.allocate(path, bytes);
      const read = async (buffer: Uint8Array, position: number) => {
        await gate;
        return await file.read(buffer, position);
      };
      return { ...file, read };
    },
  };
  const { journal, close } = await openJournal(tempFolder(), { disk: gated, options: { retryMs: 2 } });
  await expect.poll(() => journal.stats().ring.missing).toBe(0);
  let open: () => void = () => undefined;
  gate = new Promise((resolve) => {
    open = resolve;
  });
  const fail = async (id: number) => {
    disk.faults.datasync = 'EIO';
    await expect(append(journal, [id], 'alarm')).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
    disk.faults.datasync = undefined;
    await sleep(10);
  };
  // Nothing can be moved to blocks: the floor stays where it is while three segments are abandoned.
  await append(journal, [1], 'telemetry', 60_000);
  for (const id of [2, 3, 4]) {
    await append(journal, [id], 'alarm', 6000);
    await fail(100 + id);
  }
  open();
  await expect.poll(() => journal.stats().ring.used).toBe(1);
  await append(journal, [5]);
  await append(journal, [6]);
  expect((await drain(journal)).sort((a, b) => a - b)).toEqual([1, 2, 3, 4, 5, 6]);
  await close();
});
