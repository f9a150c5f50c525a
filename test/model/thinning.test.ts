import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { FieldValue } from '../../src/model/point.ts';
import {
  addSample,
  hourNs,
  minuteNs,
  summaryFields,
  summaryOf,
  Thinner,
  type ThinnerOptions,
} from '../../src/model/thinning.ts';

interface Sample {
  readonly series: string;
  readonly fields: Map<string, FieldValue>;
  readonly timeNs: bigint;
}

function thinned(samples: Iterable<Sample>, options: Omit<ThinnerOptions, 'emit'>): Sample[] {
  const out: Sample[] = [];
  const thinner = new Thinner({
    ...options,
    emit: (series, fields, timeNs) => out.push({ series, fields, timeNs }),
  });
  for (const { series, fields, timeNs } of samples) thinner.add(series, fields, timeNs);
  const announced = thinner.points;
  thinner.finish();
  expect(out.length).toBe(announced);
  return out;
}

function sample(timeS: number, fields: Record<string, FieldValue>, series = 'm,device_id=d'): Sample {
  return { series, fields: new Map(Object.entries(fields)), timeNs: BigInt(timeS) * 1_000_000_000n };
}

const samples: fc.Arbitrary<Sample[]> = fc
  .uniqueArray(
    fc.record({
      series: fc.constantFrom('a', 'b', 'c'),
      // Each name has its own type, as ingest sees to.
      fields: fc
        .record(
          {
            // A zero has no sign in line protocol.
            t: fc.double({ min: -1e6, max: 1e6, noNaN: true }).map((value) => value + 0),
            u: fc.integer({ min: 0, max: 3 }),
            wet: fc.boolean(),
            note: fc.string({ maxLength: 5 }),
          },
          { requiredKeys: ['t'] },
        )
        .map((fields) => new Map<string, FieldValue>(Object.entries(fields))),
      timeNs: fc.bigInt({ min: 0n, max: 3n * hourNs }),
    }),
    { minLength: 1, maxLength: 200, selector: ({ series, timeNs }) => `${series} ${timeNs}` },
  )
  .map((list) => list.sort((a, b) => Number(a.timeNs - b.timeNs)));

/** The definition, as slowly as it reads. */
function naive(all: readonly Sample[], windowNs: bigint): Map<string, Map<string, FieldValue>> {
  const groups = new Map<string, Sample[]>();
  for (const one of all) {
    const key = `${one.series} ${one.timeNs / windowNs}`;
    groups.set(key, [...(groups.get(key) ?? []), one]);
  }
  const result = new Map<string, Map<string, FieldValue>>();
  for (const group of groups.values()) {
    const fields = new Map<string, FieldValue>();
    for (const name of new Set(group.flatMap((one) => [...one.fields.keys()]))) {
      const values = group.flatMap((one) => one.fields.get(name) ?? []);
      const numbers = values.filter((value) => typeof value === 'number');
      if (typeof values[0] === 'boolean') fields.set(name, values.includes(true));
      else if (typeof values[0] === 'string') fields.set(name, values.at(-1)!);
      else {
        fields.set(name, numbers.reduce((sum, value) => sum + value, 0) / numbers.length);
        fields.set(`${name}_min`, Math.min(...numbers));
        fields.set(`${name}_max`, Math.max(...numbers));
      }
    }
    result.set(`${group[0]!.series} ${group.at(-1)!.timeNs}`, fields);
  }
  return result;
}

test('every window becomes one point: mean, extremes, whether any was true, the last text, the last time', () => {
  fc.assert(
    fc.property(samples, fc.constantFrom(minuteNs, hourNs), (given, windowNs) => {
      const expected = naive(given, windowNs);
      const found = thinned(given, { windowNs });
      expect(found.length).toBe(expected.size);
      for (const { series, fields, timeNs } of found) {
        const wanted = expected.get(`${series} ${timeNs}`);
        for (const [name, value] of wanted ?? []) {
          // Extremes are left out where they say nothing.
          const got = fields.get(name) ?? fields.get(name.replace(/_(min|max)$/, ''));
          if (typeof value === 'number') expect(got).toBeCloseTo(value, 6);
          else expect(got).toBe(value);
        }
        for (const name of fields.keys()) expect(wanted?.has(name)).toBe(true);
      }
    }),
    { numRuns: 500 },
  );
});

test('thinned twice, the extremes are those of the first samples, however little memory there was', () => {
  fc.assert(
    fc.property(samples, fc.constantFrom(1, 2000, 8_000_000), (given, openBytesMax) => {
      const minutes = thinned(given, { windowNs: minuteNs, openBytesMax });
      const hours = thinned(minutes, { windowNs: hourNs });
      for (const [key, wanted] of naive(given, hourNs)) {
        const hour = hours.find(({ series, timeNs }) => `${series} ${timeNs}` === key);
        for (const name of ['t', 'u']) {
          const mean = hour?.fields.get(name);
          expect(hour?.fields.get(`${name}_min`) ?? mean).toBe(wanted.get(`${name}_min`));
          expect(hour?.fields.get(`${name}_max`) ?? mean).toBe(wanted.get(`${name}_max`));
        }
        expect(hour?.fields.get('wet')).toBe(wanted.get('wet'));
        expect(hour?.fields.get('note')).toBe(wanted.get('note'));
      }
    }),
    { numRuns: 300 },
  );
});

test('parts of a window closed early never stand on one another', () => {
  fc.assert(
    fc.property(samples, (given) => {
      const times = thinned(given, { windowNs: hourNs, openBytesMax: 1 }).map(
        ({ series, timeNs }) => `${series} ${timeNs}`,
      );
      expect(new Set(times).size).toBe(times.length);
    }),
  );
});

test('a value that does not change stays exactly itself and gets no extremes', () => {
  const steady = Array.from({ length: 60 }, (_, second) => sample(second, { t: 0.1 }));
  expect(thinned(steady, { windowNs: minuteNs })).toEqual([sample(59, { t: 0.1 })]);
});

test('values at the edge of what a number holds do not overflow the mean', () => {
  const [point] = thinned(
    [sample(0, { t: 1.7e308 }), sample(1, { t: 1.7e308 }), sample(2, { t: -1.7e308 })],
    {
      windowNs: minuteNs,
    },
  );
  expect(Number.isFinite(point?.fields.get('t'))).toBe(true);
});

test('readings sent late, mixed with new ones, are thinned all the same and the last text is the latest', () => {
  const mixed = [0, 1, 2].flatMap((second) => [
    sample(7200 + second, { t: 1, note: `new ${second}` }),
    sample(2 - second, { t: 2, note: `old ${2 - second}` }),
  ]);
  expect(thinned(mixed, { windowNs: minuteNs })).toEqual([
    sample(7202, { t: 1, note: 'new 2' }),
    sample(2, { t: 2, note: 'old 2' }),
  ]);
});

test("a device's own field called like an extreme that cannot be one keeps its mean", () => {
  const uptime = [sample(0, { uptime: 6, uptime_min: 100 }), sample(1, { uptime: 8, uptime_min: 102 })];
  expect(thinned(uptime, { windowNs: minuteNs })[0]?.fields).toEqual(
    new Map([
      ['uptime', 7],
      ['uptime_max', 8],
      ['uptime_min', 101],
      ['uptime_min_min', 100],
      ['uptime_min_max', 102],
    ]),
  );
});

test('a single column is summarised the same way', () => {
  const column = summaryOf(2);
  for (const value of [3, 7]) addSample(column, value);
  expect([...summaryFields('t', column)]).toEqual([
    ['t', 4],
    ['t_min', 2],
    ['t_max', 7],
  ]);
  expect(column.count).toBe(3);
});
