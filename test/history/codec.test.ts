import fc from 'fast-check';
import { expect, test } from 'vitest';
import { decode, encode, headOf } from '../../src/history/codec.ts';
import { type Column, kinds, mergeTables, stats, type Table, valueAt } from '../../src/history/table.ts';

const runs = Number(process.env.IOTFLOW_FUZZ_RUNS ?? 1_000);

const hourMs = 3_600_000;
const baseMs = 496_000 * hourMs;

const decimals = fc.tuple(fc.integer({ min: -1_000_000, max: 1_000_000 }), fc.integer({ min: 0, max: 8 }));
const anyNumber = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }),
  decimals.map(([whole, places]) => whole / 10 ** places),
  fc.float({ noNaN: true, noDefaultInfinity: true }),
);

function numbers(value: fc.Arbitrary<number>, rows: number): fc.Arbitrary<Float64Array> {
  const absent = fc.constant(Number.NaN);
  return fc
    .oneof(
      fc.array(fc.oneof(value, absent), { minLength: rows, maxLength: rows }),
      fc.array(value, { minLength: rows, maxLength: rows }),
      value.map((one) => new Array<number>(rows).fill(one)),
    )
    .map((values) => Float64Array.from(values));
}

function column(rows: number): fc.Arbitrary<Column> {
  const name = fc.string({ maxLength: 20, unit: 'grapheme' });
  const stat = fc.constantFrom(...stats);
  return fc.constantFrom(...kinds).chain((kind): fc.Arbitrary<Column> => {
    if (kind === 'string') {
      const text = fc.option(fc.constantFrom('open', 'closed', '', 'ümlaut "quoted"'), { nil: undefined });
      return fc.record({
        name,
        kind: fc.constant('string' as const),
        stat,
        values: fc.array(text, { minLength: rows, maxLength: rows }),
      });
    }
    const value = kind === 'float' ? anyNumber : fc.constantFrom(0, 1);
    return fc.record({ name, kind: fc.constant(kind), stat, values: numbers(value, rows) });
  });
}

const anyTable: fc.Arbitrary<Table> = fc
  .uniqueArray(
    fc.tuple(
      fc.integer({ min: 0, max: hourMs - 1 }),
      fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 999_999 })),
    ),
    { minLength: 1, maxLength: 300, selector: ([ms, ns]) => ms * 1e6 + ns },
  )
  .chain((times) => {
    const sorted = times.sort((a, b) => a[0] - b[0] || a[1] - b[1]);
    return fc.array(column(sorted.length), { maxLength: 5 }).map((columns) => ({
      rows: sorted.length,
      ms: Float64Array.from(sorted, ([ms]) => baseMs + ms),
      ns: Uint32Array.from(sorted, ([, ns]) => ns),
      columns,
    }));
  });

/** Minus zero is the same number to everybody who reads it. */
function plain(table: Table | undefined): unknown {
  if (table === undefined) return undefined;
  return {
    ms: [...table.ms],
    ns: [...table.ns],
    columns: table.columns.map((one) => ({
      name: one.name,
      kind: one.kind,
      stat: one.stat,
      values: Array.from({ length: table.rows }, (_, row) => {
        const value = one.values[row];
        return typeof value === 'number' && Number.isNaN(value) ? 'absent' : value === 0 ? 0 : value;
      }),
    })),
  };
}

test('a chunk reads back as it was written, whatever it holds', () => {
  fc.assert(
    fc.property(anyTable, (table) => {
      const bytes = encode(table);
      expect(plain(decode(bytes))).toEqual(plain(table));
      expect(headOf(bytes)).toMatchObject({
        firstMs: table.ms[0],
        lastMs: table.ms[table.rows - 1],
        rows: table.rows,
      });
    }),
    { numRuns: Math.min(runs, 5_000) },
  );
});

test('large numbers beside small decimals stay exact', () => {
  const table: Table = {
    rows: 2,
    ms: Float64Array.of(baseMs, baseMs + 1),
    ns: new Uint32Array(2),
    columns: [{ name: 'v', kind: 'float', stat: 'value', values: Float64Array.of(450_359_984_128, -0.0001) }],
  };
  expect(plain(decode(encode(table)))).toEqual(plain(table));
});

test('only the fields asked for are read', () => {
  fc.assert(
    fc.property(anyTable, fc.string({ maxLength: 3 }), (table, name) => {
      const read = decode(encode(table), (field) => field.length > name.length);
      expect(plain(read)).toEqual(
        plain({ ...table, columns: table.columns.filter((one) => one.name.length > name.length) }),
      );
    }),
    { numRuns: Math.min(runs, 5_000) },
  );
});

test('damaged bytes are no table, and never an error or a flood of memory', () => {
  fc.assert(
    fc.property(
      anyTable,
      fc.array(fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 })), { maxLength: 8 }),
      fc.option(fc.nat(), { nil: undefined }),
      (table, changes, cut) => {
        const bytes = Buffer.from(encode(table));
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        const given = cut === undefined ? bytes : bytes.subarray(0, cut % (bytes.length + 1));
        const read = decode(given);
        if (read === undefined) return;
        // Then it is a table in every respect.
        for (const one of read.columns) {
          expect(one.values.length).toBe(read.rows);
          valueAt(one, read.rows - 1);
        }
        for (let row = 1; row < read.rows; row += 1) {
          expect(read.ms[row]! * 1e6 + read.ns[row]!).toBeGreaterThanOrEqual(
            read.ms[row - 1]! * 1e6 + read.ns[row - 1]!,
          );
        }
      },
    ),
    { numRuns: runs },
  );
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (noise) => {
      decode(Buffer.from(noise));
      decode(Buffer.from([1, 0, ...noise]));
      headOf(Buffer.from(noise));
    }),
    { numRuns: runs },
  );
});

test('a steady sensor costs a few bytes a sample', () => {
  const rows = 300;
  let value = 21.5;
  let seed = 7;
  const values = Float64Array.from({ length: rows }, () => {
    seed = (seed * 1_103_515_245 + 12_345) % 2 ** 31;
    value = Math.round((value + ((seed >> 8) % 5) / 10 - 0.2) * 10) / 10;
    return value;
  });
  const table: Table = {
    rows,
    ms: Float64Array.from({ length: rows }, (_, row) => baseMs + row * 1_000),
    ns: new Uint32Array(rows),
    columns: [{ name: 'temperature', kind: 'float', stat: 'value', values }],
  };
  expect(encode(table).length / rows).toBeLessThan(1.5);
});

test('of two samples of one moment the later arrival wins, field by field', () => {
  const one = (arrival: number, names: string[]): Table => ({
    rows: 2,
    ms: Float64Array.of(baseMs, baseMs + arrival),
    ns: new Uint32Array(2),
    columns: names.map((name) => ({
      name,
      kind: 'float',
      stat: 'value',
      values: Float64Array.of(arrival, arrival),
    })),
  });
  expect(plain(mergeTables([one(1, ['a', 'b']), one(2, ['b', 'c'])]))).toEqual({
    ms: [baseMs, baseMs + 1, baseMs + 2],
    ns: [0, 0, 0],
    columns: [
      { name: 'a', kind: 'float', stat: 'value', values: [1, 1, 'absent'] },
      { name: 'b', kind: 'float', stat: 'value', values: [2, 1, 2] },
      { name: 'c', kind: 'float', stat: 'value', values: [2, 'absent', 2] },
    ],
  });
});
