import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Batch } from '../../src/journal/contract.ts';
import type { Journal } from '../../src/journal/journal.ts';
import { systemDisk } from '../../src/platform/disk.ts';
import { drain, linesOf, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

/** The long form: IOTFLOW_ERASURE_RUNS=500. */
const runs = Number(process.env.IOTFLOW_ERASURE_RUNS ?? 8);

const baseNs = 1_700_000_000_000_000_000n;

/** Point `id` is of the second `id`. */
function lineOf(deviceId: string, id: number, note = ''): string {
  return `m,device_id=${deviceId},location=x\\ y v=${id},pad="${note}${'x'.repeat(120)}" ${baseNs + BigInt(id) * 1_000_000_000n}\n`;
}

async function append(journal: Journal, deviceId: string, ids: readonly number[], note = ''): Promise<void> {
  await Promise.all(
    ids.map((id) => journal.append({ class: 'telemetry', lines: lineOf(deviceId, id, note), points: 1 })),
  );
}

function idsOf(lines: string): Record<string, number[]> {
  const found: Record<string, number[]> = {};
  for (const [, device = '', id = ''] of lines.matchAll(/^m,device_id=([\w-]+),.* v=(\d+),/gm)) {
    const ids = found[device] ?? [];
    found[device] = ids;
    ids.push(Number(id));
  }
  return found;
}

async function drained(journal: Journal): Promise<Record<string, number[]>> {
  let lines = '';
  await drain(journal, undefined, (some) => {
    lines += some;
    return [];
  });
  const found = idsOf(lines);
  for (const ids of Object.values(found)) ids.sort((a, b) => a - b);
  return found;
}

const seconds = (from: number, to: number) => ({
  fromNs: baseNs + BigInt(from) * 1_000_000_000n,
  toNs: baseNs + BigInt(to) * 1_000_000_000n,
});

test('of a deleted device nothing that waited comes out, of others and of later all does', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await append(journal, 'a', range(0, 20));
  await append(journal, 'b', range(0, 20), ',device_id=a ');
  await append(journal, 'a-2', range(0, 20));
  await journal.erase({ deviceId: 'a' });
  await append(journal, 'a', [7, 30]);
  expect(await drained(journal)).toEqual({ a: [7, 30], b: range(0, 20), 'a-2': range(0, 20) });
  expect(journal.stats()).toMatchObject({ erasures: { open: 1, points: 20 }, acceptedPoints: 42 });
  expect(journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await close();
});

test('a stretch of time is deleted to the nanosecond, also of points whose date was not known', async () => {
  const { journal, close } = await openJournal(tempFolder());
  journal.date((boot, ns) => ({ timeNs: baseNs + ns, isCertain: boot === 1 }));
  await append(journal, 'a', range(0, 10));
  const undated = (second: number) => `m,device_id=a,x=1 v=${100 + second},pad="" b1+${second}000000000\n`;
  for (const second of [2, 3, 7]) {
    await journal.append({ class: 'telemetry', lines: undated(second), points: 1, undated: true });
  }
  await journal.erase({ deviceId: 'a', range: seconds(3, 6) });
  expect(await drained(journal)).toEqual({ a: [0, 1, 2, 6, 7, 8, 9, 102, 107] });
  await close();
});

test('a deletion that waits for room keeps nothing in a block that is made meanwhile', async () => {
  const folder = tempFolder();
  // One block takes whatever a segment holds.
  const options = { blockPoints: 10_000 };
  let opened = await openJournal(folder, { options });
  const filler = (round: number, from: number) =>
    range(from, from + 400).map((id) =>
      opened.journal.append({
        class: 'telemetry',
        lines: lineOf('b', round * 1_000 + id, 'x'.repeat(900)),
        points: 1,
      }),
    );
  for (let round = 0; round < 12; round += 1) {
    await append(opened.journal, 'a', [round]);
    // What is before the deletion in the queue fills the ring, so that old frames and these go to one block.
    const before = filler(round, 0);
    const erased = opened.journal.erase({ deviceId: 'a' });
    const behind = filler(round, 400);
    await Promise.all([...before, erased, ...behind]);
  }
  await opened.close();
  opened = await openJournal(folder, { options });
  const found = await drained(opened.journal);
  expect(found.a).toBeUndefined();
  expect(found.b).toHaveLength(12 * 800);
  await opened.close();
});

test('deletions that are written at the same time are all kept, also over a restart', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  const devices = ['a', 'b', 'c', 'd'];
  for (const device of [...devices, 'e']) await append(first.journal, device, range(0, 3));
  await Promise.all(devices.map((deviceId) => first.journal.erase({ deviceId })));
  await first.close();
  const second = await openJournal(folder);
  expect(await drained(second.journal)).toEqual({ e: range(0, 3) });
  await second.close();
});

test('the deletion holds in blocks, in what is moved to blocks later, after restarts, and in an export', async () => {
  const folder = tempFolder();
  let opened = await openJournal(folder);
  await append(opened.journal, 'a', range(0, 300));
  await append(opened.journal, 'b', range(0, 300));
  await spilled(opened.journal);
  await append(opened.journal, 'a', range(300, 500));
  await opened.journal.erase({ deviceId: 'a' });
  await append(opened.journal, 'a', range(500, 900));
  await spilled(opened.journal);
  expect(opened.journal.stats().spilledBlocks).toBeGreaterThan(1);
  await opened.close();
  opened = await openJournal(folder);
  let exported = '';
  for (let after: string | undefined; ; ) {
    const page = await opened.journal.read(undefined, after);
    exported += page.lines.toString();
    after = page.next;
    if (after === undefined) break;
  }
  const left = { a: range(500, 900), b: range(0, 300) };
  const unsorted = idsOf(exported);
  for (const ids of Object.values(unsorted)) ids.sort((a, b) => a - b);
  expect(unsorted).toEqual(left);
  expect(await drained(opened.journal)).toEqual(left);
  await opened.close();
});

test('what was handed out before may still be delivered: the deletion of the rest can be waited for', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await append(journal, 'a', [1, 2]);
  const batch = (await journal.take('fresh', 10)) as Batch;
  await journal.erase({ deviceId: 'a' });
  let isPassed = false;
  const passed = journal.passed().then(() => {
    isPassed = true;
  });
  await append(journal, 'a', [3]);
  expect(isPassed).toBe(false);
  journal.release(batch);
  await passed;
  expect(await drained(journal)).toEqual({ a: [3] });
  await journal.passed();
  await close();
});

test('a deletion is forgotten once nothing older is left, and not before', async () => {
  const folder = tempFolder();
  let opened = await openJournal(folder);
  await append(opened.journal, 'b', [1]);
  await opened.journal.erase({ deviceId: 'a' });
  await opened.close();
  opened = await openJournal(folder);
  expect(opened.journal.stats().erasures.open).toBe(1);
  await drained(opened.journal);
  await append(opened.journal, 'b', [2]);
  await opened.close();
  opened = await openJournal(folder);
  expect(opened.journal.stats().erasures.open).toBe(0);
  await opened.close();
});

test('thinned at the cap, nothing of the deleted device is in what is left', async () => {
  const { journal, close } = await openJournal(tempFolder(), {
    options: { maxBytes: 60_000, blockPoints: 200 },
  });
  const reading = (device: string, id: number) =>
    `m,device_id=${device} v=${id},noise=${(id * 7919 + device.length * 104_729) % 1_000_003} ${baseNs + BigInt(id) * 1_000_000_000n}\n`;
  const deletedUntil = 1_500;
  for (let from = 0; from < 9_000; from += 500) {
    if (from === deletedUntil) await journal.erase({ deviceId: 'a' });
    const lines = range(from, from + 500).flatMap((id) => [reading('a', id), reading('b', id)]);
    await journal.append({ class: 'telemetry', lines: lines.join(''), points: lines.length });
    await spilled(journal);
  }
  await until(() => journal.stats().retention.thinned['1m'].runs > 0);
  let lines = '';
  await drain(journal, undefined, (some) => {
    lines += some;
    return [];
  });
  const timesOf = (device: string) =>
    [...lines.matchAll(new RegExp(`^m,device_id=${device} .* (\\d+)$`, 'gm'))].map(([, time]) =>
      BigInt(time ?? 0),
    );
  expect(timesOf('b').some((time) => time < seconds(0, deletedUntil).toNs)).toBe(true);
  expect(timesOf('a').length).toBeGreaterThan(0);
  expect(timesOf('a').filter((time) => time < seconds(0, deletedUntil).toNs)).toEqual([]);
  await close();
});

test('whatever is appended, deleted, delivered, moved and restarted: nothing deleted comes out, nothing else is missing', async () => {
  const step = fc.oneof(
    fc.record({
      kind: fc.constant('append' as const),
      device: fc.constantFrom('a', 'b'),
      count: fc.integer({ min: 1, max: 120 }),
    }),
    fc.record({
      kind: fc.constant('erase' as const),
      device: fc.constantFrom('a', 'b'),
      from: fc.nat(600),
      length: fc.option(fc.integer({ min: 1, max: 400 })),
    }),
    fc.record({ kind: fc.constantFrom('deliver' as const, 'restart' as const) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 3, maxLength: 14 }), async (steps) => {
      const folder = tempFolder();
      let opened = await openJournal(folder, { disk: systemDisk() });
      const expected = new Set<string>();
      const delivered = new Set<string>();
      const erased = new Set<string>();
      let next = 0;
      try {
        for (const one of steps) {
          const { journal } = opened;
          if (one.kind === 'append') {
            const ids = range(next, next + one.count);
            next += one.count;
            await append(journal, one.device, ids);
            for (const id of ids) expected.add(`${one.device}${id}`);
          } else if (one.kind === 'erase') {
            const { device, from, length } = one;
            await journal.erase({
              deviceId: device,
              ...(length !== null && { range: seconds(from, from + length) }),
            });
            for (const name of [...expected]) {
              const id = Number(name.slice(1));
              if (name[0] !== device || (length !== null && (id < from || id >= from + length))) continue;
              expected.delete(name);
              erased.add(name);
            }
          } else if (one.kind === 'deliver') {
            const batch = await journal.take('fresh', 50);
            if (batch === undefined) continue;
            for (const [device, ids] of Object.entries(idsOf(linesOf(batch)))) {
              for (const id of ids) delivered.add(`${device}${id}`);
            }
            for (const name of delivered) {
              expect(erased.has(name)).toBe(false);
              expected.delete(name);
            }
            await journal.accept(batch);
          } else {
            await opened.close();
            opened = await openJournal(folder);
          }
        }
        const left = await drained(opened.journal);
        const names = Object.entries(left).flatMap(([device, ids]) => ids.map((id) => `${device}${id}`));
        expect(names.sort()).toEqual([...expected].sort());
      } finally {
        await opened.close();
      }
    }),
    { numRuns: runs },
  );
}, 300_000);
