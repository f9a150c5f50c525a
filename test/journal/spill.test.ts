import { randomBytes } from 'node:crypto';
import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { type DiskFile, systemDisk } from '../../src/platform/disk.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
import { collectGarbage } from '../support/garbage.ts';
import { append, drain, idsOf, line, openJournal, range, spilled } from '../support/journal.ts';
import { canMount, smallDisk } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';

const kilobyte = 1000;

test('months offline: what does not fit the ring goes to blocks and comes back oldest first', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder, { options: { blockPoints: 20 } });
  for (const from of range(0, 40))
    await append(first.journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
  expect(first.journal.stats().spilledPoints).toBeGreaterThan(500);
  expect(first.journal.pending()).toMatchObject({ fresh: expect.any(Number), urgent: 0 });
  await first.close();

  const second = await openJournal(folder, { options: { blockPoints: 20 } });
  const { backlog, fresh } = second.journal.pending();
  expect(backlog + fresh).toBe(1000);
  expect(backlog).toBeGreaterThan(500);
  const batch = await second.journal.take('backlog', 100);
  expect(batch?.encoding).toBe('gzip');
  expect(idsOf(batch!)).toEqual(range(0, batch!.points));
  expect(batch!.points).toBeGreaterThan(75);
  second.journal.release(batch!);
  expect(await drain(second.journal)).toEqual(range(0, 1000));
  expect(second.journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await second.close();

  const third = await openJournal(folder);
  expect(third.journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await third.close();
});

test('alarms that were moved to blocks still go first, and are never behind telemetry', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await append(journal, [1_000_000], 'alarm');
  for (const from of range(0, 30))
    await append(journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
  await append(journal, [1_000_001], 'event');
  expect(journal.stats().blocks.alarm.points).toBe(1);
  expect(journal.pending().urgent).toBe(2);
  expect(await drain(journal, ['urgent'])).toEqual([1_000_000, 1_000_001]);
  await close();
});

test('a block in flight is given back first and not handed out twice', async () => {
  const { journal, close } = await openJournal(tempFolder(), { options: { blockPoints: 10 } });
  for (const from of range(0, 20))
    await append(journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
  const first = await journal.take('backlog', 25);
  const second = await journal.take('backlog', 25);
  expect(idsOf(first!)[0]).toBe(0);
  expect(idsOf(second!)[0]).toBe(first!.points);
  await journal.accept(second!);
  journal.release(first!);
  const again = await journal.take('backlog', 25);
  expect(idsOf(again!)).toEqual(idsOf(first!));
  const third = await journal.take('backlog', 25);
  expect(idsOf(third!)[0]).toBe(first!.points + second!.points);
  await close();
});

test('a batch held while its segment is moved is neither lost when released nor when accepted', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await append(journal, range(0, 10), 'telemetry', kilobyte);
  await append(journal, range(10, 20), 'telemetry', kilobyte);
  const released = await journal.take('fresh', 10);
  const accepted = await journal.take('fresh', 10);
  for (const from of range(1, 30))
    await append(journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
  journal.release(released!);
  await journal.accept(accepted!);
  const ids = await drain(journal);
  expect(new Set(ids)).toEqual(new Set([...range(0, 20), ...range(25, 750)]));
  expect(journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await close();
});

test('beyond the byte cap the oldest telemetry goes, counted, and alarms stay', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 6000, blockPoints: 10 },
  });
  await append(journal, [1_000_000], 'alarm');
  let id = 0;
  for (let round = 0; round < 60; round += 1) {
    // Incompressible enough for the cap to matter.
    const lines = range(0, 25).map(() => {
      id += 1;
      // An hour apart: nothing to be gained by thinning.
      return `m v=${id - 1},pad="${Math.random()}${'y'.repeat(900)}" ${id * 3_600}000000000\n`;
    });
    await journal.append({ class: 'telemetry', lines: lines.join(''), points: 25 });
  }
  await spilled(journal);
  const stats = journal.stats();
  expect(stats.blocks.telemetry.bytes + stats.blocks.alarm.bytes).toBeLessThanOrEqual(6000);
  expect(stats.dropped.telemetry.capacity).toBeGreaterThan(0);
  expect(stats.dropped.alarm).toEqual({ capacity: 0, age: 0, damage: 0 });
  expect(await drain(journal, ['urgent'])).toEqual([1_000_000]);
  const left = await drain(journal, ['backlog', 'fresh']);
  expect(left).toEqual(range(id - left.length, id));
  expect(left.length + stats.dropped.telemetry.capacity).toBe(id);
  await close();
});

test('blocks beyond the age cap go, by running time and not by the wall clock', async () => {
  let nowMs = 0;
  const settings = {
    options: { maxAgeMs: { alarm: 1000, event: 1000, telemetry: 1000 }, blockPoints: 10 },
    monotonicMs: () => nowMs,
  };
  const { journal, close } = await openJournal(tempFolder(), settings);
  for (const from of range(0, 15))
    await append(journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
  await spilled(journal);
  const before = journal.stats();
  expect(before.spilledPoints).toBeGreaterThan(0);
  expect(before.dropped.telemetry.age).toBe(0);
  nowMs = 5000;
  for (const from of range(15, 35))
    await append(journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
  await spilled(journal);
  const { age } = journal.stats().dropped.telemetry;
  expect(age).toBe(375);
  // The caps look at a block that is in part too old, and nobody else is given it meanwhile.
  await expect.poll(() => journal.stats().retention.isRunning).toBe(false);
  expect(await drain(journal)).toEqual(range(375, 875));
  await close();
});

test('with blocks that cannot be written telemetry is refused, alarms still fit, and it goes on afterwards', async () => {
  const folder = tempFolder();
  const { journal, store, close } = await openJournal(folder);
  const broken = store.stats();
  expect(broken.failed).toBe(false);
  // The store of the checkpoints fails, and there is too much state to keep it in the ring: no segment can be freed.
  await store.close();
  await journal.write([{ key: 'a/1', value: Buffer.alloc(40_000) }]);
  const durable: number[] = [];
  let refused: unknown;
  for (let id = 0; refused === undefined && id < 1000; id += 1) {
    await append(journal, [id], 'telemetry', kilobyte).then(
      () => durable.push(id),
      (error: unknown) => {
        refused = error;
      },
    );
  }
  expect(refused).toMatchObject({ code: 'JOURNAL_FULL' });
  await append(journal, [2_000_000], 'alarm');
  await journal.write([{ key: 'a/2', value: Buffer.from('y') }]);
  await expect(append(journal, [2_000_001])).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  expect(journal.stats()).toMatchObject({ isSpillFailing: true });
  await close();

  const second = await openJournal(folder);
  await append(second.journal, [3_000_000]);
  const ids = await drain(second.journal);
  expect([...ids].sort((a, b) => a - b)).toEqual([...durable, 2_000_000, 3_000_000]);
  expect(await second.journal.get('a/2')).toEqual(Buffer.from('y'));
  await second.close();
});

test('a ring that cannot be made for lack of space refuses, and works once there is space', async () => {
  const disk = faultyDisk();
  disk.faults.allocate = 'ENOSPC';
  const { journal, close } = await openJournal(tempFolder(), { disk });
  await expect(append(journal, [1])).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  await expect(append(journal, [2], 'alarm')).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  disk.faults.allocate = undefined;
  for (let isRoom = false; !isRoom; ) {
    await sleep(10);
    isRoom = await append(journal, [3]).then(
      () => true,
      () => false,
    );
  }
  expect(await drain(journal)).toEqual([3]);
  await close();
});

test('segments are recycled, never unlinked: the ring keeps its size', async () => {
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder);
  const ring = join(folder, 'journal', 'ring');
  for (const from of range(0, 50)) {
    await append(journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
    await drain(journal);
  }
  expect(readdirSync(ring).sort()).toEqual(['ring-000', 'ring-001', 'ring-002', 'ring-003']);
  expect(journal.stats()).toMatchObject({ spilledPoints: 0, ring: { segments: 4, missing: 0 } });
  await close();
});

test('a ring made smaller or of other segments still gives back what the old one held', async () => {
  const folder = tempFolder();
  const options = { ringSegments: 8, segmentBytes: 32 * 1024 };
  const first = await openJournal(folder, { options });
  for (const id of range(0, 100)) await append(first.journal, [id], 'telemetry', kilobyte);
  await first.close();
  const second = await openJournal(folder, { options: { ringSegments: 4, segmentBytes: 64 * 1024 } });
  for (const id of range(100, 300)) await append(second.journal, [id], 'telemetry', kilobyte);
  expect((await drain(second.journal)).sort((a, b) => a - b)).toEqual(range(0, 300));
  await second.close();
  expect(readdirSync(join(folder, 'journal', 'ring')).length).toBeLessThanOrEqual(4);
});

test('a backlog of many points does not stay in memory', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { segmentBytes: 1024 * 1024, blockPoints: 5000 },
  });
  const block = Array.from({ length: 5000 }, (_, id) => line(id, 80)).join('');
  const feed = async (times: number) => {
    for (let round = 0; round < times; round += 1) {
      await journal.append({ class: 'telemetry', lines: block, points: 5000 });
    }
  };
  const heap = () => {
    collectGarbage();
    return process.memoryUsage().heapUsed + process.memoryUsage().arrayBuffers;
  };
  await feed(20);
  const before = heap();
  await feed(200);
  expect(journal.pending().backlog + journal.pending().fresh).toBe(1_100_000);
  // The million points are 80 MB of lines.
  await expect.poll(() => heap() - before).toBeLessThan(40_000_000);
  await close();
});

test.skipIf(!canMount())(
  'on a full disk telemetry is refused and alarms are not, and it goes on once there is space (needs root, to mount)',
  async () => {
    const disk = smallDisk(2);
    const { journal, close } = await openJournal(disk);
    await expect.poll(() => journal.stats().ring.missing).toBe(0);
    writeFileSync(join(disk, 'ballast'), Buffer.alloc(1_500_000));
    const durable: number[] = [];
    let next = 0;
    const offer = async () => {
      next += 1;
      const id = next;
      const lines = `m v=${id},pad="${randomBytes(3000).toString('base64')}" 1\n`;
      await journal.append({ class: 'telemetry', lines, points: 1 });
      durable.push(id);
    };
    for (let isFull = false; !isFull; ) {
      await offer().catch((error: unknown) => {
        expect(error).toMatchObject({ code: 'JOURNAL_FULL' });
        isFull = true;
      });
    }
    await append(journal, [1_000_000], 'alarm');
    await expect(offer()).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
    rmSync(join(disk, 'ballast'));
    for (let isRoom = false; !isRoom; ) {
      await sleep(10);
      isRoom = await offer().then(
        () => true,
        () => false,
      );
    }
    for (const _ of range(0, 10)) await offer();
    await spilled(journal);
    expect(await drain(journal)).toEqual([1_000_000, ...durable]);
    expect(journal.stats()).toMatchObject({ isSpillFailing: false, quarantined: { points: 0 } });
    await close();
  },
);

test.skipIf(!canMount())(
  'a gateway that starts on a full disk opens its journal, takes alarms and delivers (needs root, to mount)',
  async () => {
    const disk = smallDisk(6);
    const first = await openJournal(disk);
    await expect.poll(() => first.journal.stats().ring.missing).toBe(0);
    await first.journal.write([{ key: 'k/1', value: randomBytes(20_000) }]);
    for (const from of range(0, 20))
      await append(first.journal, range(from * 25, from * 25 + 25), 'telemetry', kilobyte);
    await first.close();
    // As the stores make them once they have been running for a while.
    for (const name of ['state', join('journal', 'blocks')]) {
      writeFileSync(join(disk, `${name}.spare`), Buffer.alloc(512 * 1024));
    }
    for (const bytes of [100_000, 4096]) {
      try {
        for (let index = 0; ; index += 1) writeFileSync(join(disk, `${bytes}-${index}`), Buffer.alloc(bytes));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' });
      }
    }
    const { journal, close } = await openJournal(disk);
    expect((await journal.get('k/1'))?.length).toBe(20_000);
    await append(journal, [1_000_000], 'alarm');
    expect(await drain(journal)).toEqual([1_000_000, ...range(0, 500)]);
    await close();
  },
);

test.skipIf(!canMount())(
  'readings that could not be moved for want of space are offered to the uplink again (needs root, to mount)',
  async () => {
    const folder = smallDisk(2);
    const real = systemDisk();
    let gate: Promise<void> | undefined;
    let isHeld = false;
    const disk = {
      ...real,
      async open(path: string) {
        return heldUp(await real.open(path));
      },
      async allocate(path: string, bytes: number) {
        return heldUp(await real.allocate(path, bytes));
      },
    };
    function heldUp(file: DiskFile): DiskFile {
      return {
        ...file,
        async read(buffer, position) {
          const mine = gate;
          gate = undefined;
          if (mine !== undefined) {
            isHeld = true;
            await mine;
          }
          return await file.read(buffer, position);
        },
      };
    }
    const { journal, close } = await openJournal(folder, { disk });
    await expect.poll(() => journal.stats().ring.missing).toBe(0);
    writeFileSync(join(folder, 'ballast'), Buffer.alloc(1_500_000));
    for (let isFull = false; !isFull; ) {
      const lines = `m v=1,pad="${randomBytes(3000).toString('base64')}" 1\n`;
      await journal.append({ class: 'telemetry', lines, points: 1 }).catch(() => {
        isFull = true;
      });
    }
    await expect.poll(() => journal.stats().isSpillFailing).toBe(true);
    let open: () => void = () => undefined;
    gate = new Promise((resolve) => {
      open = resolve;
    });
    await expect.poll(() => isHeld).toBe(true);
    // All there is but what is just being moved: from here on the forwarder waits to be told.
    for (const lane of ['backlog', 'fresh'] as const) {
      for (let batch = await journal.take(lane, 500); batch; batch = await journal.take(lane, 500))
        await journal.accept(batch);
    }
    const { fresh, backlog } = journal.pending();
    expect(fresh + backlog).toBeGreaterThan(0);
    let isTold = false;
    journal.onAvailable(() => {
      isTold = true;
    });
    open();
    await expect.poll(() => isTold).toBe(true);
    await close();
  },
);

test('stopping does not wait for a ring that is still being made', async () => {
  const disk = faultyDisk();
  let allocated = 0;
  const slow = {
    ...disk,
    async allocate(path: string, bytes: number) {
      allocated += 1;
      await sleep(50);
      return await disk.allocate(path, bytes);
    },
  };
  const { journal, close } = await openJournal(tempFolder(), { disk: slow, options: { ringSegments: 16 } });
  await append(journal, [1]);
  await close();
  expect(allocated).toBeLessThan(8);
});
