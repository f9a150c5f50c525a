import { gunzipSync, gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Dating } from '../../src/journal/contract.ts';
import { dateGzip, dateLines } from '../../src/journal/dating.ts';
import type { Journal } from '../../src/journal/journal.ts';
import { encodePoint, parseLine } from '../../src/model/line-protocol.ts';
import type { FieldValue, Point, PointTime } from '../../src/model/point.ts';
import { line, linesOf, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const startNs = 1_790_000_000_000_000_000n;
/** Boot 7 began at a known time, of all others only the end is known. */
const dating: Dating = (boot, bootNs) =>
  boot === 7
    ? { timeNs: startNs + bootNs, isCertain: true }
    : { timeNs: startNs - 1_000_000_000_000n + bootNs, isCertain: false };

function undatedLine(id: number, boot = 7): string {
  return line(id).replace(/ \d+\n$/, ` b${boot}+${id}000000000\n`);
}

function appendUndated(journal: Journal, ids: readonly number[], boot = 7): Promise<unknown> {
  return Promise.all(
    ids.map((id) =>
      journal.append({ class: 'telemetry', lines: undatedLine(id, boot), points: 1, undated: true }),
    ),
  );
}

/** What is handed out: the id of each point with its time, and whether that is certain. */
async function drainTimes(journal: Journal): Promise<Map<number, { time: bigint; isCertain: boolean }>> {
  const times = new Map<number, { time: bigint; isCertain: boolean }>();
  for (const lane of ['urgent', 'backlog', 'fresh'] as const) {
    for (let batch = await journal.take(lane, 500); batch; batch = await journal.take(lane, 500)) {
      for (const text of linesOf(batch).trimEnd().split('\n')) {
        const { fields, tags, time } = parseLine(text);
        if (time === undefined) throw new Error(`no time: ${text}`);
        times.set(Number(fields.get('v')), { time, isCertain: tags.get('clock') !== 'uncertain' });
      }
      await journal.accept(batch);
    }
  }
  return times;
}

test('points without a date wait until it is known, all others go on', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await appendUndated(journal, [1, 2]);
  await journal.append({ class: 'telemetry', lines: line(3), points: 1 });
  expect(journal.pending()).toEqual({ urgent: 0, fresh: 1, backlog: 0 });
  expect(journal.stats().undated).toEqual({ alarm: 0, event: 0, telemetry: 2 });
  expect([...(await drainTimes(journal)).keys()]).toEqual([3]);

  let isTold = false;
  journal.onAvailable(() => {
    isTold = true;
  });
  journal.date(dating);
  expect(isTold).toBe(true);
  expect(journal.pending()).toEqual({ urgent: 0, fresh: 2, backlog: 0 });
  expect(journal.stats().undated).toEqual({ alarm: 0, event: 0, telemetry: 0 });
  expect(await drainTimes(journal)).toEqual(
    new Map([
      [1, { time: startNs + 1_000_000_000n, isCertain: true }],
      [2, { time: startNs + 2_000_000_000n, isCertain: true }],
    ]),
  );
  expect(journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await close();
});

test('points without a date survive restarts, in the ring and in blocks, and blocks of others go on', async () => {
  const folder = tempFolder();
  let { journal, close } = await openJournal(folder);
  const dated = range(1, 400);
  const undated = range(1000, 2500);
  for (const id of dated) await journal.append({ class: 'telemetry', lines: line(id, 400), points: 1 });
  for (let at = 0; at < undated.length; at += 10) await appendUndated(journal, undated.slice(at, at + 10), 6);
  await spilled(journal);
  expect(journal.stats().spilledBlocks).toBeGreaterThan(3);
  // What shares a block with one that has no date waits with it.
  const waiting = journal.stats().undated.telemetry;
  expect(waiting).toBeGreaterThanOrEqual(undated.length);
  expect(waiting).toBeLessThan(undated.length + 100);
  await close();

  ({ journal, close } = await openJournal(folder));
  expect(journal.stats().undated.telemetry).toBe(waiting);
  const first = await drainTimes(journal);
  expect(first.size).toBeGreaterThan(100);
  expect([...first.keys()].every((id) => id < 400)).toBe(true);
  await close();

  ({ journal, close } = await openJournal(folder));
  journal.date(dating);
  const rest = await drainTimes(journal);
  for (const id of dated) expect(first.has(id) || rest.has(id), `${id}`).toBe(true);
  for (const id of undated) {
    const time = startNs - 1_000_000_000_000n + BigInt(id) * 1_000_000_000n;
    expect(rest.get(id), `${id}`).toEqual({ time, isCertain: false });
  }
  expect(journal.stats().undated.telemetry).toBe(0);
  expect(journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
  await close();
});

test('at the cap blocks without a date are dropped in their turn, counted', async () => {
  const { journal, close } = await openJournal(tempFolder(), { options: { maxBytes: 4_000 } });
  const ids = range(0, 3000);
  for (let at = 0; at < ids.length; at += 20) {
    // An hour apart: nothing to be gained by thinning.
    for (const id of ids.slice(at, at + 20)) {
      const lines = line(id).replace(/ \d+\n$/, ` b7+${id * 3600}000000000\n`);
      await journal.append({ class: 'telemetry', lines, points: 1, undated: true });
    }
    if (at % 500 === 0) expect(await journal.take('backlog', 500)).toBeUndefined();
  }
  await spilled(journal);
  // The caps hold a block while they judge it, and nobody else is given it meanwhile.
  await expect.poll(() => journal.stats().retention.isRunning).toBe(false);
  const dropped = journal.stats().dropped.telemetry.capacity;
  expect(dropped).toBeGreaterThan(0);
  expect(journal.stats().undated.telemetry).toBe(ids.length - dropped);
  journal.date(dating);
  expect([...(await drainTimes(journal)).keys()].sort((a, b) => a - b)).toEqual(range(dropped, ids.length));
  await close();
});

const text = fc
  .string({ minLength: 1, maxLength: 12, unit: 'binary' })
  .filter((value) => value.trim() !== '');
const value: fc.Arbitrary<FieldValue> = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  fc.boolean(),
  fc.string({ unit: 'binary' }),
  fc.constant(' b7+12'),
);
const time: fc.Arbitrary<PointTime> = fc.record(
  {
    timeNs: fc.bigInt({ min: 0n, max: 2n ** 60n }),
    boot: fc.constantFrom(7, 2 ** 48 - 1),
  },
  { requiredKeys: ['timeNs'] },
);
const point: fc.Arbitrary<Point> = fc
  .tuple(
    text,
    fc.dictionary(text, text, { maxKeys: 3 }),
    fc.dictionary(text, value, { minKeys: 1, maxKeys: 3 }),
    time,
  )
  .map(([measurement, tags, fields, when]) => ({
    measurement,
    tags: new Map(Object.entries(tags)),
    fields: new Map(Object.entries(fields)),
    ...when,
  }));

test('dating a line changes its time, adds the tag where it is uncertain, and nothing else', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(point, { minLength: 1, maxLength: 5 }), async (points) => {
      const lines = points.map((one) => `${encodePoint(one)}\n`).join('');
      const expected = points.map(({ boot, timeNs, ...one }) => {
        if (boot === undefined) return { ...one, timeNs };
        const dated = dating(boot, timeNs);
        const tags = dated.isCertain ? one.tags : new Map([...one.tags, ['clock', 'uncertain']]);
        return { ...one, tags, timeNs: dated.timeNs };
      });
      const found = dateLines(Buffer.from(lines), dating).toString();
      expect(gunzipSync(await dateGzip(gzipSync(lines), dating)).toString()).toBe(found);
      // The order of tags means nothing.
      const normal = (all: string) => all.trimEnd().split('\n').map(parseLine);
      expect(normal(found)).toEqual(normal(expected.map((one) => `${encodePoint(one)}\n`).join('')));
    }),
    { numRuns: 500 },
  );
});
