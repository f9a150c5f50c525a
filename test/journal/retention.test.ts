import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { Journal } from '../../src/journal/journal.ts';
import type { RetentionReport } from '../../src/journal/retention.ts';
import { parseLine, parseStored } from '../../src/model/line-protocol.ts';
import { append, drain, linesOf, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const startS = 1_700_000_000;
const series = 5;

/** Readings of a few sensors from one second to another, as often as every so many seconds. */
async function feed(journal: Journal, fromS: number, toS: number, everyS = 1): Promise<number> {
  let points = 0;
  let lines = '';
  let count = 0;
  const flush = async () => {
    await journal.append({ class: 'telemetry', lines, points: count });
    points += count;
    lines = '';
    count = 0;
  };
  for (let second = fromS; second < toS; second += everyS) {
    for (let index = 0; index < series; index += 1) {
      const value = 20 + Math.sin(second / 600 + index) + Math.random() / 100;
      lines += `climate,device_id=d${index} temperature=${value} ${startS + second}000000000\n`;
      count += 1;
    }
    if (count >= 500) await flush();
  }
  if (count > 0) await flush();
  await spilled(journal);
  return points;
}

/** Waits until the journal has done what its caps ask for. */
async function settled(journal: Journal): Promise<void> {
  while (journal.stats().retention.isRunning) await sleep(5);
}

async function takeAll(journal: Journal): Promise<string[]> {
  const lines: string[] = [];
  for (const lane of ['backlog', 'fresh'] as const) {
    for (let batch = await journal.take(lane, 5000); batch; batch = await journal.take(lane, 5000)) {
      lines.push(...linesOf(batch).trim().split('\n'));
      await journal.accept(batch);
    }
  }
  return lines;
}

test('at the byte cap the oldest readings become minutes and hours, nothing is dropped and no extreme is lost', async () => {
  const folder = tempFolder();
  const options = { maxBytes: 80_000, blockPoints: 200 };
  const first = await openJournal(folder, { options });
  let points = 0;
  // A spike in the very first minute, and a hundred thousand readings behind it.
  await first.journal.append({
    class: 'telemetry',
    lines: `climate,device_id=d0 temperature=95.5 ${startS + 3}500000000\n`,
    points: 1,
  });
  for (const part of range(0, 10)) {
    points += await feed(first.journal, part * 2000, part * 2000 + 2000);
    await settled(first.journal);
  }
  const { blocks, dropped, retention } = first.journal.stats();
  expect(dropped.telemetry).toEqual({ capacity: 0, age: 0, damage: 0 });
  expect(retention.thinned['1m'].points).toBeGreaterThan(points / 4);
  expect(retention.thinned['1m'].kept).toBeLessThan(retention.thinned['1m'].points / 20);
  expect(retention.thinned['1h'].points).toBeGreaterThan(0);
  const bytes = Object.values(blocks).reduce((sum, row) => sum + row.bytes, 0);
  expect(bytes).toBeLessThanOrEqual(80_000);
  const { pending } = first.journal.stats();
  await first.close();

  const second = await openJournal(folder, { options });
  const reopened = second.journal.pending();
  expect(reopened.backlog + reopened.fresh).toBe(pending.backlog + pending.fresh);
  const lines = await takeAll(second.journal);
  expect(lines.length).toBe(pending.backlog + pending.fresh);
  expect(second.journal.stats().lostBlocks).toBe(0);
  // Oldest first, and each sensor's readings of every hour are still there in some form.
  const times = lines.map((text) => Number(parseStored(text).time.timeNs / 1_000_000_000n) - startS);
  expect(Math.min(...times)).toBeLessThan(3600);
  expect(Math.max(...times)).toBe(19_999);
  for (const hour of range(0, 6)) {
    const there = lines.filter((_, at) => Math.floor(times[at]! / 3600) === hour);
    const devices = new Set(there.map((text) => parseLine(text).tags.get('device_id')));
    expect(devices.size).toBe(series);
  }
  const extremes = lines.map((text) => parseStored(text).fields.get('temperature_max'));
  expect(extremes).toContain(95.5);
  // The newest stay as they came.
  expect(lines.slice(-1000).every((text) => !text.includes('_max'))).toBe(true);
  await second.close();
});

test('readings that come every ten minutes are thinned to hours at once, since minutes would gain nothing', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 300_000, blockPoints: 500 },
  });
  await feed(journal, 0, 3_000_000, 600);
  await settled(journal);
  const { dropped, retention } = journal.stats();
  expect(retention.thinned['1m'].points).toBe(0);
  expect(retention.thinned['1h'].points).toBeGreaterThan(1000);
  expect(dropped.telemetry.capacity).toBe(0);
  await close();
});

test('what cannot be thinned any more is dropped: hours first, events and alarms last, each drop told with its span', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 60_000, blockPoints: 200, retentionMs: 20 },
  });
  const reports: RetentionReport[] = [];
  journal.onRetention((report) => reports.push(report));
  await append(journal, [1_000_000], 'alarm');
  await append(journal, [1_000_001], 'event');
  // Once in two hours: neither minutes nor hours would be fewer.
  const points = await feed(journal, 0, 20_000_000, 7200);
  await settled(journal);
  const { dropped, retention } = journal.stats();
  expect(retention.thinned['1h'].points).toBe(0);
  expect(dropped.telemetry.capacity).toBeGreaterThan(0);
  expect(dropped.alarm.capacity + dropped.event.capacity).toBe(0);
  await expect
    .poll(() => reports.reduce((sum, report) => sum + report.points, 0))
    .toBe(dropped.telemetry.capacity);
  expect(reports[0]).toMatchObject({ kind: 'dropped', class: 'telemetry', detail: 'capacity', kept: 0 });
  expect(reports[0]?.fromMs).toBe(startS * 1000);
  expect(reports[0]!.toMs!).toBeGreaterThan(startS * 1000);
  expect(await drain(journal, ['urgent'])).toEqual([1_000_000, 1_000_001]);
  expect((await takeAll(journal)).length).toBe(points - dropped.telemetry.capacity);
  await close();
});

test('a batch on its way to InfluxDB is neither thinned nor dropped under it', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 100_000, blockPoints: 500 },
  });
  await feed(journal, 0, 400);
  const batch = await journal.take('backlog', 500);
  await feed(journal, 400, 8000);
  await settled(journal);
  journal.release(batch!);
  const again = await journal.take('backlog', 500);
  expect(linesOf(again!)).toBe(linesOf(batch!));
  journal.release(again!);
  // Let go, it is thinned with the others.
  await feed(journal, 8000, 12_000);
  await settled(journal);
  expect(journal.stats().retention.thinned['1m'].points).toBeGreaterThan(1000);
  const lines = await takeAll(journal);
  expect(lines.length).toBe(new Set(lines).size);
  expect(journal.stats()).toMatchObject({ lostBlocks: 0, pending: { backlog: 0, fresh: 0 } });
  await close();
});

test('what was held back to be thinned is offered to the uplink when that is done', async () => {
  // The first thinned block is held up on its way to the store, so that the uplink surely asks meanwhile.
  let release: () => void = () => undefined;
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  let isHeldUp = false;
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 600_000, blockPoints: 500 },
    beforeBlockWrite: async (writes) => {
      const isReplacement = writes.some(({ value }) => value === undefined) && writes.length > 2;
      if (!isReplacement || isHeldUp) return;
      isHeldUp = true;
      await released;
    },
  });
  let isTold = false;
  journal.onAvailable(() => {
    isTold = true;
  });
  // No further than to its start: beyond the cap whoever brings more waits for it.
  for (let from = 0; !journal.stats().retention.isRunning; from += 100) await feed(journal, from, from + 100);
  await expect.poll(() => isHeldUp).toBe(true);
  await takeAll(journal);
  const held = journal.pending();
  expect(held.backlog + held.fresh).toBeGreaterThan(0);
  isTold = false;
  release();
  await settled(journal);
  expect(isTold).toBe(true);
  const { backlog, fresh } = journal.pending();
  expect(backlog + fresh).toBeGreaterThan(0);
  expect((await takeAll(journal)).length).toBe(backlog + fresh);
  await close();
});

test('age passes also while nothing comes in, and each class has its own', async () => {
  let nowMs = 0;
  const { journal, close } = await openJournal(tempFolder(), {
    options: {
      maxAgeMs: { alarm: 100_000, event: 10_000, telemetry: 1000 },
      blockPoints: 100,
      retentionMs: 10,
    },
    monotonicMs: () => nowMs,
  });
  await append(journal, [1], 'alarm');
  await append(journal, [2], 'event');
  await feed(journal, 0, 4000);
  const inBlocks = journal.stats().blocks.telemetry.points;
  expect(inBlocks).toBeGreaterThan(1000);
  nowMs = 5000;
  await expect.poll(() => journal.stats().dropped.telemetry.age).toBe(inBlocks);
  expect(journal.stats().dropped.event.age).toBe(0);
  nowMs = 50_000;
  await expect.poll(() => journal.stats().dropped.event.age).toBe(1);
  expect(await drain(journal, ['urgent'])).toEqual([1]);
  await close();
});

test('what cannot be read as a point is kept as it is when its block is thinned', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 60_000, blockPoints: 500 },
  });
  await journal.append({ class: 'telemetry', lines: 'not a point\n', points: 1 });
  await feed(journal, 0, 6000);
  await settled(journal);
  expect(journal.stats().retention.thinned['1m'].runs).toBeGreaterThan(0);
  expect(await takeAll(journal)).toContain('not a point');
  await close();
});

test('readings without a date are thinned within their boot and get their dates when they are known', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 60_000, blockPoints: 500 },
  });
  for (const boot of [3, 4]) {
    let lines = '';
    for (const second of range(0, 300))
      lines += `m,device_id=d v=${second % 7} b${boot}+${second}000000000\n`;
    await journal.append({ class: 'telemetry', lines, points: 300, undated: true });
  }
  const points = await feed(journal, 0, 8000);
  await settled(journal);
  const { undated, retention } = journal.stats();
  expect(retention.thinned['1m'].points).toBeGreaterThan(points / 4);
  expect(undated.telemetry).toBeGreaterThan(0);
  const isDated = (text: string) => !text.startsWith('m,');
  expect((await takeAll(journal)).every(isDated)).toBe(true);
  journal.date((boot, bootNs) => ({
    timeNs: BigInt(boot) * 1_000_000_000_000_000n + bootNs,
    isCertain: true,
  }));
  const dated = (await takeAll(journal)).filter((text) => text.startsWith('m,'));
  expect(dated.map((text) => parseStored(text).time.timeNs / 1_000_000_000n)).toEqual(
    [3, 4].flatMap((boot) => [59, 119, 179, 239, 299].map((second) => BigInt(boot * 1_000_000 + second))),
  );
  expect(dated[0]).toContain('v_max=6');
  await close();
});
