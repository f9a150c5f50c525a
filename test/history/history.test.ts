import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import { History, type HistoryOptions } from '../../src/history/history.ts';
import type { Row } from '../../src/history/query.ts';
import type { FieldValue, Point } from '../../src/model/point.ts';
import { createLog } from '../../src/platform/log.ts';
import { type FakeClock, fakeClock } from '../ingest/fakes.ts';
import { tempFolder } from '../support/temp.ts';

const runs = Number(process.env.IOTFLOW_HISTORY_RUNS ?? 30);
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const baseMs = Date.UTC(2026, 10, 21);
const always = { fromNs: 0n, toNs: 2n ** 63n - 1n };

function point(
  timeMs: number,
  fields: Record<string, FieldValue>,
  measurement = 'climate',
  furtherNs = 0,
): Point {
  return {
    measurement,
    tags: new Map(),
    fields: new Map(Object.entries(fields)),
    timeNs: BigInt(timeMs) * 1_000_000n + BigInt(furtherNs),
  };
}

interface Opened {
  readonly history: History;
  readonly clock: FakeClock;
}

async function opened(
  directory = join(tempFolder(), 'history'),
  overrides: Partial<HistoryOptions> = {},
): Promise<Opened> {
  const clock = fakeClock(baseMs);
  const history = await History.open({
    directory,
    clock,
    log: createLog('silent'),
    flushIntervalMs: 0,
    tidyIntervalMs: 0,
    ...overrides,
  });
  onTestFinished(() => history.close());
  return { history, clock };
}

function shown({ measurement, timeNs, fields }: Row): unknown {
  return { measurement, timeNs, fields: Object.fromEntries(fields) };
}

async function rowsOf(history: History, deviceId: string, limit = 10_000): Promise<Row[]> {
  const { rows } = await history.range({ deviceId, ...always, limit, order: 'oldest-first' });
  return [...rows];
}

async function countOf(history: History, deviceId: string): Promise<number> {
  const windowMs = 10_000 * dayMs;
  const functions = ['count'] as const;
  const { windows } = await history.aggregate({ deviceId, ...always, windowMs, functions, limit: 10 });
  return windows.reduce((sum, { fields }) => sum + Number([...fields.values()][0]?.get('count') ?? 0), 0);
}

describe('history', () => {
  test('answers from memory, from disk and after a restart alike', async () => {
    const directory = join(tempFolder(), 'history');
    const { history } = await opened(directory);
    history.record([point(baseMs, { temperature: 21.5, wet: false, mode: 'eco' })], 'a');
    history.record([point(baseMs + 1_000, { temperature: 22 })], 'a');
    const check = async (asked: History) => {
      expect((await rowsOf(asked, 'a')).map(shown)).toEqual([
        {
          measurement: 'climate',
          timeNs: BigInt(baseMs) * 1_000_000n,
          fields: { temperature: 21.5, wet: false, mode: 'eco' },
        },
        {
          measurement: 'climate',
          timeNs: BigInt(baseMs + 1_000) * 1_000_000n,
          fields: { temperature: 22 },
        },
      ]);
      expect(await asked.latest('a')).toEqual([
        {
          measurement: 'climate',
          fields: new Map<string, unknown>([
            ['temperature', { value: 22, timeNs: BigInt(baseMs + 1_000) * 1_000_000n }],
            ['wet', { value: false, timeNs: BigInt(baseMs) * 1_000_000n }],
            ['mode', { value: 'eco', timeNs: BigInt(baseMs) * 1_000_000n }],
          ]),
        },
      ]);
      expect(await asked.latest('a', 'leak')).toEqual([]);
      expect(await rowsOf(asked, 'b')).toEqual([]);
    };
    await check(history);
    await history.flush();
    expect(history.stats()).toMatchObject({ memoryBytes: 0, flushes: 1, failures: 0 });
    await check(history);
    await history.close();
    const { history: restarted } = await opened(directory);
    await check(restarted);
    restarted.record([point(baseMs + 2_000, { temperature: 23 })], 'a');
    const [latest] = await restarted.latest('a');
    expect([...(latest?.fields ?? [])].map(([name, { value }]) => [name, value])).toEqual([
      ['temperature', 23],
      ['wet', false],
      ['mode', 'eco'],
    ]);
  });

  test('samples are thinned to minutes, then dropped, and what was thinned says so', async () => {
    const { history, clock } = await opened();
    for (let second = 0; second < 120; second += 1) {
      history.record([point(baseMs + second * 1_000, { v: second, on: second === 7, s: `${second}` })], 'a');
    }
    await history.flush();
    clock.advance(47 * hourMs);
    await history.tidy();
    expect(await rowsOf(history, 'a')).toHaveLength(120);
    clock.advance(2 * hourMs);
    await history.tidy();
    const rows = await rowsOf(history, 'a');
    expect(rows.every(({ isThinned }) => isThinned)).toBe(true);
    expect(rows.map(shown)).toEqual([
      {
        measurement: 'climate',
        timeNs: BigInt(baseMs + 59_000) * 1_000_000n,
        fields: { v: 29.5, v_min: 0, v_max: 59, on: true, s: '59' },
      },
      {
        measurement: 'climate',
        timeNs: BigInt(baseMs + 119_000) * 1_000_000n,
        fields: { v: 89.5, v_min: 60, v_max: 119, on: false, s: '119' },
      },
    ]);
    expect(history.stats()).toMatchObject({ thinnedRows: 120, chunks: { raw: 0, thinned: 1 } });
    // A reading that was sent late joins what has been thinned.
    history.record([point(baseMs + 30_500, { v: 100 })], 'a');
    expect(await countOf(history, 'a')).toBe(121);
    await history.flush();
    clock.advance(49 * hourMs);
    await history.tidy();
    expect(await countOf(history, 'a')).toBe(121);
    clock.advance(31 * dayMs);
    // In memory a series is kept for a while after its last sample.
    for (let flush = 0; flush < 15; flush += 1) await history.flush();
    await history.tidy();
    expect(await rowsOf(history, 'a')).toEqual([]);
    expect(await history.latest('a')).toEqual([]);
    expect(history.stats()).toMatchObject({ bytes: { raw: 0, thinned: 0 }, droppedBuckets: { age: 1 } });
  });

  test('a wall clock that jumps to 2099 and back deletes nothing, and its samples are not the latest for ever', async () => {
    const { history, clock } = await opened();
    history.record([point(baseMs, { v: 1 })], 'a');
    await history.flush();
    const wrongMs = Date.UTC(2099, 0, 1);
    clock.setWallMs(wrongMs);
    history.record([point(wrongMs, { v: 2 })], 'a');
    await history.flush();
    clock.advance(hourMs);
    await history.tidy();
    clock.setWallMs(baseMs + 2 * hourMs);
    await history.tidy();
    expect((await rowsOf(history, 'a')).map(({ fields }) => fields.get('v'))).toEqual([1, 2]);
    history.record([point(baseMs + 2 * hourMs, { v: 3 })], 'a');
    const [inMemory] = await history.latest('a');
    expect(inMemory?.fields.get('v')?.value).toBe(3);
    await history.flush();
    const [stored] = await history.latest('a');
    expect(stored?.fields.get('v')?.value).toBe(3);
  });

  test('hours without power age nothing', async () => {
    const directory = join(tempFolder(), 'history');
    const { history, clock } = await opened(directory);
    history.record([point(baseMs, { v: 1 })], 'a');
    clock.advance(40 * hourMs);
    await history.close();
    const { history: restarted, clock: later } = await opened(directory);
    later.setWallMs(baseMs + 365 * dayMs);
    await restarted.tidy();
    later.advance(40 * hourMs);
    await restarted.tidy();
    expect((await rowsOf(restarted, 'a'))[0]?.isThinned).toBe(false);
    later.advance(10 * hourMs);
    await restarted.tidy();
    expect((await rowsOf(restarted, 'a'))[0]?.isThinned).toBe(true);
  });

  test('at its cap history thins the oldest samples before it drops any', async () => {
    const { history, clock } = await opened(undefined, { maxBytes: 60_000 });
    let seed = 1;
    const fill = async (hour: number) => {
      for (let row = 0; row < 3_000; row += 1) {
        seed = (seed * 16_807) % 2_147_483_647;
        history.record([point(baseMs + hour * hourMs + row * 1_000, { v: seed })], 'a');
      }
      await history.flush();
      await history.tidy();
    };
    for (let hour = 0; hour < 12; hour += 1) {
      await fill(hour);
      clock.advance(hourMs);
    }
    const rows = await rowsOf(history, 'a', 100_000);
    expect(rows[0]?.timeNs).toBeLessThan(BigInt(baseMs + hourMs) * 1_000_000n);
    expect(rows[0]?.isThinned).toBe(true);
    expect(rows.at(-1)?.isThinned).toBe(false);
    const { bytes, droppedBuckets } = history.stats();
    expect(bytes.raw + bytes.thinned).toBeLessThan(60_000);
    expect(droppedBuckets).toEqual({ age: 0, capacity: 0, disk: 0 });
    for (let hour = 12; hour < 80; hour += 1) {
      await fill(hour);
      clock.advance(hourMs);
    }
    const { bytes: later, droppedBuckets: gone } = history.stats();
    expect(later.raw + later.thinned).toBeLessThan(60_000);
    expect(gone.capacity).toBeGreaterThan(0);
  });

  test('forgets a stretch of time and nothing beside it; the latest values are those of what is left', async () => {
    const moment = fc.integer({ min: 0, max: 400 }).map((minutes) => baseMs + minutes * 60_000);
    const asked = fc.record({
      times: fc.uniqueArray(moment, { minLength: 1, maxLength: 40 }),
      from: moment,
      minutes: fc.integer({ min: 1, max: 300 }),
      flushed: fc.boolean(),
    });
    await fc.assert(
      fc.asyncProperty(asked, async ({ times, from, minutes, flushed }) => {
        const directory = join(tempFolder(), 'history');
        const { history, clock } = await opened(directory);
        clock.advance(7 * hourMs);
        const to = from + minutes * 60_000;
        for (const [index, ms] of times.entries()) {
          const fields = index % 3 === 0 ? { v: index, mode: `m${index}` } : { v: index };
          history.record([point(ms, fields, index % 2 === 0 ? 'climate' : 'power')], 'a');
          history.record([point(ms, { v: 1 })], 'b');
          if (flushed && index === 20) await history.flush();
        }
        const rest = (await rowsOf(history, 'a')).filter(({ timeNs }) => {
          const ms = Number(timeNs / 1_000_000n);
          return ms < from || ms >= to;
        });
        await history.forgetRange('a', { fromNs: BigInt(from) * 1_000_000n, toNs: BigInt(to) * 1_000_000n });
        const check = async (one: History) => {
          expect((await rowsOf(one, 'a')).map(shown)).toEqual(rest.map(shown));
          expect(await rowsOf(one, 'b')).toHaveLength(times.length);
          const latest = new Map<string, unknown>();
          for (const { measurement, fields, timeNs } of rest) {
            for (const [name, value] of fields) latest.set(`${measurement} ${name}`, { value, timeNs });
          }
          const found = (await one.latest('a')).flatMap(({ measurement, fields }) =>
            [...fields].map(([name, value]) => [`${measurement} ${name}`, value] as const),
          );
          expect(new Map(found)).toEqual(latest);
        };
        await check(history);
        await history.close();
        const { history: restarted } = await opened(directory);
        await check(restarted);
        await restarted.close();
      }),
      { numRuns: runs },
    );
  });

  test('forgets a stretch of time that was thinned', async () => {
    const { history, clock } = await opened();
    for (let minute = 0; minute < 180; minute += 1) {
      for (const second of [0, 20, 40])
        history.record([point(baseMs + minute * 60_000 + second * 1_000, { v: minute })], 'a');
    }
    await history.flush();
    clock.advance(60 * hourMs);
    await history.tidy();
    const fromNs = BigInt(baseMs + 60 * 60_000) * 1_000_000n;
    await history.forgetRange('a', { fromNs, toNs: 2n ** 62n });
    expect((await rowsOf(history, 'a')).map(({ fields }) => fields.get('v'))).toEqual(
      Array.from({ length: 60 }, (_, minute) => minute),
    );
    const [latest] = await history.latest('a');
    expect(latest?.fields.get('v')?.value).toBe(59);
  });

  test('forgets a device entirely, in memory, on disk, thinned and after a restart', async () => {
    const directory = join(tempFolder(), 'history');
    const { history, clock } = await opened(directory);
    for (const device of ['a', 'a-2', 'b']) history.record([point(baseMs, { v: 1 })], device);
    await history.flush();
    clock.advance(49 * hourMs);
    await history.tidy();
    for (const device of ['a', 'a-2', 'b']) history.record([point(baseMs + hourMs, { v: 2 })], device);
    await history.flush();
    for (const device of ['a', 'a-2', 'b']) history.record([point(baseMs + 2 * hourMs, { v: 3 })], device);
    await history.forgetDevice('a');
    const check = async (asked: History) => {
      expect(await rowsOf(asked, 'a')).toEqual([]);
      expect(await asked.latest('a')).toEqual([]);
      expect(await rowsOf(asked, 'a-2')).toHaveLength(3);
      expect(await rowsOf(asked, 'b')).toHaveLength(3);
    };
    await check(history);
    await history.close();
    const { history: restarted } = await opened(directory);
    await check(restarted);
  });

  test('on a full disk it writes nothing, keeps its memory in bounds, gives its space away and goes on after', async () => {
    let free = 10e9;
    const { history, clock } = await opened(undefined, {
      freeBytes: async () => free,
      memoryBytesMax: 200_000,
    });
    history.record([point(baseMs, { v: 1 })], 'a');
    await history.flush();
    free = 100e6;
    for (let row = 0; row < 50_000; row += 1) {
      history.record([point(baseMs + hourMs + row * 50, { v: Math.sin(row) })], 'a');
      if (row % 500 === 0) await history.flush();
    }
    await history.flush();
    expect(history.stats()).toMatchObject({ paused: 'disk-full', flushes: 1, failures: 0 });
    expect(history.stats().memoryBytes).toBeLessThan(250_000);
    expect(history.stats().thinnedRows).toBeGreaterThan(10_000);
    expect(await rowsOf(history, 'a')).not.toHaveLength(0);
    free = 10e6;
    await history.tidy();
    expect(history.stats()).toMatchObject({ droppedBuckets: { disk: 1 }, chunks: { raw: 0 } });
    free = 10e9;
    clock.advance(1_000);
    await history.flush();
    expect(history.stats()).toMatchObject({ paused: undefined, memoryBytes: 0 });
    expect(history.stats().dropped.memory).toBe(0);
    expect(await countOf(history, 'a')).toBe(50_000);
  });

  test('what is more than the memory takes is counted, not kept', async () => {
    const { history } = await opened(undefined, { freeBytes: async () => 0, memoryBytesMax: 50_000 });
    for (let row = 0; row < 3_000; row += 1) history.record([point(baseMs + row, { [`f${row}`]: 1 })], 'a');
    // Columns grow by doubling: the last step may go beyond.
    expect(history.stats().memoryBytes).toBeLessThan(100_000);
    expect(history.stats().dropped.memory).toBeGreaterThan(0);
  });

  test('points without a date are kept aside until it is known', async () => {
    const { history } = await opened();
    history.record([{ ...point(0, { v: 1 }), timeNs: 5_000_000_000n, boot: 3 }], 'a');
    expect(await rowsOf(history, 'a')).toEqual([]);
    history.date(() => undefined);
    expect(history.stats().undated).toBe(1);
    history.date((boot, ns) => BigInt(baseMs + boot) * 1_000_000n + ns);
    expect((await rowsOf(history, 'a')).map(({ timeNs }) => timeNs)).toEqual([
      BigInt(baseMs + 3 + 5_000) * 1_000_000n,
    ]);
    expect(history.stats().undated).toBe(0);
    // One that was on its way to the disk meanwhile.
    history.record([{ ...point(0, { v: 2 }), timeNs: 6_000_000_000n, boot: 3 }], 'a');
    expect(await rowsOf(history, 'a')).toHaveLength(2);
  });

  test('opens whatever became of its files, and answers with what can be read', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(), fc.nat(), fc.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 6,
        }),
        async (changes) => {
          const directory = join(tempFolder(), 'history');
          const { history } = await opened(directory);
          for (let hour = 0; hour < 5; hour += 1) {
            for (let row = 0; row < 50; row += 1) {
              history.record([point(baseMs + hour * hourMs + row * 1_000, { v: row })], 'a');
            }
            await history.flush();
          }
          await history.close();
          const files = readdirSync(directory).filter((name) => /\.(log|ldb)$|MANIFEST/.test(name));
          for (const [file, at, value] of changes) {
            const path = join(directory, files[file % files.length] ?? '');
            const bytes = readFileSync(path);
            if (bytes.length > 0) bytes[at % bytes.length]! ^= value;
            writeFileSync(path, bytes);
          }
          const { history: restarted } = await opened(directory);
          expect(await countOf(restarted, 'a')).toBeLessThanOrEqual(250);
          restarted.record([point(baseMs + 10 * hourMs, { v: 7 })], 'a');
          await restarted.flush();
          await restarted.tidy();
          expect((await rowsOf(restarted, 'a')).at(-1)?.fields.get('v')).toBe(7);
          await restarted.close();
        },
      ),
      { numRuns: Math.ceil(runs / 3) },
    );
  });

  test('a directory that is no store is no obstacle', async () => {
    const directory = join(tempFolder(), 'history');
    mkdirSync(directory, { recursive: true });
    writeFileSync(join(directory, 'CURRENT'), 'nonsense');
    const { history } = await opened(directory);
    history.record([point(baseMs, { v: 1 })], 'a');
    await history.flush();
    expect(await rowsOf(history, 'a')).toHaveLength(1);
  });
});

// Against a list in memory that does the same the slow way.

type Step =
  | { readonly do: 'record'; readonly device: string; readonly points: readonly Point[] }
  | { readonly do: 'flush' | 'restart' | 'tidy' };

const devices = ['a', 'b'];
const measurements = ['climate', 'door/1'];
const fieldsArbitrary = fc
  .record(
    {
      t: fc.integer({ min: -500, max: 500 }).map((tenths) => tenths / 10),
      x: fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 }).map((value) => value + 0),
      open: fc.boolean(),
      state: fc.constantFrom('on', 'off', 'ümlaut'),
    },
    { requiredKeys: [] },
  )
  .filter((fields) => Object.keys(fields).length > 0) as fc.Arbitrary<Record<string, FieldValue>>;

function pointsArbitrary(spanMs: number): fc.Arbitrary<Point[]> {
  return fc.array(
    fc
      .tuple(
        fc.integer({ min: 0, max: spanMs }),
        fc.constantFrom(...measurements),
        fieldsArbitrary,
        fc.constantFrom(0, 1, 999_999),
      )
      .map(([ms, measurement, fields, ns]) => point(baseMs + ms, fields, measurement, ns)),
    { minLength: 1, maxLength: 40 },
  );
}

function stepsArbitrary(spanMs: number): fc.Arbitrary<Step[]> {
  return fc.array(
    fc.oneof(
      {
        weight: 5,
        arbitrary: fc.record({
          do: fc.constant('record' as const),
          device: fc.constantFrom(...devices),
          points: pointsArbitrary(spanMs),
        }),
      },
      { weight: 2, arbitrary: fc.constant<Step>({ do: 'flush' }) },
      { weight: 1, arbitrary: fc.constant<Step>({ do: 'restart' }) },
      { weight: 2, arbitrary: fc.constant<Step>({ do: 'tidy' }) },
    ),
    { minLength: 1, maxLength: 20 },
  );
}

class NaiveHistory {
  readonly #rows = new Map<string, { device: string; point: Point }>();

  has(device: string, { measurement, timeNs }: Point): boolean {
    return this.#rows.has(`${device} ${measurement} ${timeNs}`);
  }

  add(device: string, given: Point): void {
    const key = `${device} ${given.measurement} ${given.timeNs}`;
    const known = this.#rows.get(key)?.point.fields ?? [];
    this.#rows.set(key, { device, point: { ...given, fields: new Map([...known, ...given.fields]) } });
  }

  points(device: string, fromNs: bigint, toNs: bigint): Point[] {
    return [...this.#rows.values()]
      .filter((row) => row.device === device && row.point.timeNs >= fromNs && row.point.timeNs < toNs)
      .map((row) => row.point)
      .sort((a, b) => {
        if (a.timeNs !== b.timeNs) return a.timeNs < b.timeNs ? -1 : 1;
        return a.measurement < b.measurement ? -1 : 1;
      });
  }
}

async function play(
  steps: readonly Step[],
  naive: NaiveHistory,
  options: Partial<HistoryOptions>,
  isOnce: boolean,
): Promise<History> {
  const directory = join(tempFolder(), 'history');
  let { history, clock } = await opened(directory, options);
  for (const step of steps) {
    if (step.do === 'record') {
      const points = step.points.filter((one, index) => {
        const first = step.points.findIndex(
          (other) => other.timeNs === one.timeNs && other.measurement === one.measurement,
        );
        return !isOnce || (first === index && !naive.has(step.device, one));
      });
      for (const one of points) naive.add(step.device, one);
      history.record(points, step.device);
    } else if (step.do === 'restart') {
      await history.close();
      ({ history, clock } = await opened(directory, options));
    } else if (step.do === 'flush') {
      await history.flush();
    } else {
      clock.advance(13 * hourMs);
      await history.tidy();
    }
  }
  return history;
}

test('a range is what a plain list would answer, page by page, both ways', async () => {
  const spanMs = 3 * hourMs;
  await fc.assert(
    fc.asyncProperty(
      stepsArbitrary(spanMs),
      fc.integer({ min: 0, max: spanMs }),
      fc.integer({ min: 0, max: spanMs }),
      fc.integer({ min: 1, max: 30 }),
      fc.option(fc.constantFrom(...measurements), { nil: undefined }),
      async (steps, one, other, limit, measurement) => {
        const naive = new NaiveHistory();
        // Samples stay as they came.
        const history = await play(steps, naive, { rawHours: 1_000 }, false);
        const fromNs = BigInt(baseMs + Math.min(one, other)) * 1_000_000n;
        const toNs = BigInt(baseMs + Math.max(one, other)) * 1_000_000n + 1n;
        for (const deviceId of devices) {
          const expected = naive
            .points(deviceId, fromNs, toNs)
            .filter((row) => measurement === undefined || row.measurement === measurement)
            .map(({ measurement: name, timeNs, fields }) => ({
              measurement: name,
              timeNs,
              fields: Object.fromEntries(fields),
            }));
          for (const order of ['oldest-first', 'newest-first'] as const) {
            const got: unknown[] = [];
            let after: string | undefined;
            do {
              const { rows, next } = await history.range({
                deviceId,
                fromNs,
                toNs,
                limit,
                order,
                ...(measurement === undefined ? {} : { measurement }),
                ...(after === undefined ? {} : { after }),
              });
              expect(rows.length).toBeLessThanOrEqual(limit);
              got.push(...rows.map(shown));
              after = next;
            } while (after !== undefined);
            expect(got).toEqual(order === 'oldest-first' ? expected : expected.reverse());
          }
        }
        await history.close();
      },
    ),
    { numRuns: runs },
  );
});

test('an aggregate is what a plain list would come to, thinned or not', async () => {
  const spanMs = 30 * hourMs;
  await fc.assert(
    fc.asyncProperty(
      stepsArbitrary(spanMs),
      fc.constantFrom(60_000, 5 * 60_000, hourMs, 7 * hourMs),
      fc.integer({ min: 1, max: 500 }),
      async (steps, windowMs, limit) => {
        const naive = new NaiveHistory();
        const history = await play(steps, naive, { rawHours: 20 }, true);
        for (const deviceId of devices) {
          const got = new Map<string, unknown>();
          let fromNs = always.fromNs;
          for (;;) {
            const { windows, nextFromNs } = await history.aggregate({
              deviceId,
              fromNs,
              toNs: always.toNs,
              windowMs,
              functions: ['count', 'min', 'max', 'sum', 'last'],
              limit,
            });
            for (const { measurement, timeNs, fields } of windows) {
              for (const [name, values] of fields) got.set(`${measurement} ${timeNs} ${name}`, values);
            }
            if (nextFromNs === undefined) break;
            fromNs = nextFromNs;
          }
          const expected = new Map<string, FieldValue[]>();
          for (const { measurement, timeNs, fields } of naive.points(deviceId, 0n, always.toNs)) {
            const startMs = Math.floor(Number(timeNs / 1_000_000n) / windowMs) * windowMs;
            for (const [name, value] of fields) {
              const key = `${measurement} ${BigInt(startMs) * 1_000_000n} ${name}`;
              expected.set(key, [...(expected.get(key) ?? []), value]);
            }
          }
          expect([...got.keys()].sort()).toEqual([...expected.keys()].sort());
          for (const [key, values] of expected) {
            const answer = got.get(key) as Map<string, FieldValue>;
            if (typeof values[0] === 'string') continue;
            const numbers = values.map(Number);
            expect(answer.get('count')).toBe(numbers.length);
            expect(Number(answer.get('min'))).toBe(Math.min(...numbers));
            expect(Number(answer.get('max'))).toBe(Math.max(...numbers));
            const sum = numbers.reduce((total, value) => total + value, 0);
            const scale = numbers.reduce((total, value) => total + Math.abs(value), 0);
            expect(Math.abs(Number(answer.get('sum')) - sum)).toBeLessThanOrEqual(scale * 1e-9 + 1e-6);
          }
        }
        await history.close();
      },
    ),
    { numRuns: runs },
  );
});
