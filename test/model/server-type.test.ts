import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { putTogether, takeApart } from '../../src/model/line-parts.ts';
import { encodePoint, parseLine } from '../../src/model/line-protocol.ts';
import { lineWrittenAs, type ServerType, typeOfValue, writtenAs } from '../../src/model/server-type.ts';

describe('A value for a field of a known type', () => {
  test.each<[string, ServerType, string | undefined]>([
    ['50', 'integer', '50i'],
    ['50.0', 'integer', '50i'],
    ['-0', 'integer', '0i'],
    ['5e3', 'integer', '5000i'],
    ['50.5', 'integer', undefined],
    ['1e19', 'integer', undefined],
    ['9223372036854775807', 'integer', undefined],
    ['-9223372036854775808', 'integer', '-9223372036854775808i'],
    ['50', 'unsigned', '50u'],
    ['-1', 'unsigned', undefined],
    ['50i', 'float', '50'],
    ['50i', 'unsigned', '50u'],
    ['-50i', 'unsigned', undefined],
    ['50.25', 'float', '50.25'],
    ['true', 'integer', undefined],
    ['"50"', 'integer', undefined],
    ['50', 'string', undefined],
    ['50', 'boolean', undefined],
    ['T', 'boolean', 'T'],
  ])('%s as %s is %s', (value, type, written) => {
    expect(writtenAs(value, type)).toBe(written);
  });

  test('only the fields that must change do, digit by digit', () => {
    const types = {
      typeOf: (_: string, field: string) =>
        (field === 'a b' ? 'integer' : undefined) as ServerType | undefined,
    };
    expect(lineWrittenAs('m,t=x\\ y a\\ b=50.0,c=50.0,d="a\\ b=1, \\"x" 17', types)).toBe(
      'm,t=x\\ y a\\ b=50i,c=50.0,d="a\\ b=1, \\"x" 17',
    );
    expect(lineWrittenAs('m a\\ b=50.5 17', types)).toBe('m a\\ b=50.5 17');
    expect(lineWrittenAs('m a\\ b=50 b3+17', types)).toBe('m a\\ b=50i b3+17');
    expect(lineWrittenAs('no line at all', types)).toBe('no line at all');
  });

  test('a mean of thinned integers is rounded, because its extremes stand beside it', () => {
    const types = {
      typeOf: (_: string, field: string): ServerType | undefined => (field === 'v' ? 'integer' : undefined),
    };
    expect(lineWrittenAs('m v=50.4,v_min=40,v_max=60 17', types)).toBe('m v=50i,v_min=40,v_max=60 17');
    expect(lineWrittenAs('m v=50.4,v_min=40 17', types)).toBe('m v=50.4,v_min=40 17');
  });
});

test('whatever point is encoded, its line comes apart as it is read, and together as it was', () => {
  const name = fc
    .string({ minLength: 1, maxLength: 8, unit: 'grapheme' })
    .filter((text) => text.trim() === text && text !== '');
  const value = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.string({ maxLength: 12 }),
  );
  fc.assert(
    fc.property(
      name,
      fc.array(fc.tuple(name, name), { maxLength: 3 }),
      fc.array(fc.tuple(name, value), { minLength: 1, maxLength: 4 }),
      (measurement, tags, fields) => {
        const line = encodePoint({ measurement, tags: new Map(tags), fields: new Map(fields), timeNs: 17n });
        const parts = takeApart(line);
        const parsed = parseLine(line);
        expect(parts?.measurement).toBe(parsed.measurement);
        expect(parts?.fields.map((field) => field.name)).toEqual([...parsed.fields.keys()]);
        expect(parts?.fields.map((field) => typeOfValue(field.value))).toEqual(
          [...parsed.fields.values()].map((one) => (typeof one === 'number' ? 'float' : typeof one)),
        );
        expect(parts && putTogether(parts)).toBe(line);
      },
    ),
  );
});
