import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { encodePoint, LineProtocolError, parseLine } from '../../src/model/line-protocol.ts';
import type { FieldValue, Point } from '../../src/model/point.ts';

// Control characters have no place in names: the encoder turns them into spaces, so they are tested apart.
const name = fc
  .string({ minLength: 1, maxLength: 12, unit: 'grapheme' })
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is left out
  .filter((text) => !/[\u0000-\u001f\u007f]/.test(text));
const value: fc.Arbitrary<FieldValue> = fc.oneof(
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => (Object.is(number, -0) ? 0 : number)),
  fc.boolean(),
  fc.string({ maxLength: 20, unit: 'grapheme' }).filter((text) => !text.includes('\n')),
);
const point: fc.Arbitrary<Point> = fc.record({
  measurement: name,
  tags: fc.array(fc.tuple(name, name), { maxLength: 4 }).map((pairs) => new Map(pairs)),
  fields: fc.array(fc.tuple(name, value), { minLength: 1, maxLength: 4 }).map((pairs) => new Map(pairs)),
  timeNs: fc.bigInt({ min: -(2n ** 62n), max: 2n ** 62n }),
});

describe('line protocol', () => {
  test('what is written is read back as the same point, whatever the names and values hold', () => {
    fc.assert(
      fc.property(point, (given) => {
        const parsed = parseLine(encodePoint(given));
        expect(parsed.measurement).toBe(given.measurement);
        expect(new Map([...parsed.tags].sort())).toEqual(new Map([...given.tags].sort()));
        expect(parsed.fields).toEqual(given.fields);
        expect(parsed.time).toBe(given.timeNs);
      }),
      { numRuns: 2000 },
    );
  });

  test('tags stand in key order and an empty tag value is left out', () => {
    const line = encodePoint({
      measurement: 'leak',
      tags: new Map([
        ['location', ''],
        ['device_name', 'Under the sink'],
        ['device_id', 'esp32_001'],
      ]),
      fields: new Map<string, FieldValue>([['wet', true]]),
      timeNs: 1_700_000_000_000_000_000n,
    });
    expect(line).toBe('leak,device_id=esp32_001,device_name=Under\\ the\\ sink wet=true 1700000000000000000');
  });

  test('50 and 50.0 are written alike, so the type of a field never depends on its value', () => {
    const at = (text: string) =>
      encodePoint({
        measurement: 'm',
        tags: new Map(),
        fields: new Map([['v', JSON.parse(text) as number]]),
        timeNs: 1n,
      });
    expect(at('50')).toBe(at('50.0'));
    expect(at('50')).toBe('m v=50 1');
  });

  test('a tag value that ends in a backslash does not swallow what follows', () => {
    const given: Point = {
      measurement: 'm',
      tags: new Map([
        ['a', 'C:\\'],
        ['b', 'x'],
      ]),
      fields: new Map([['v', 1]]),
      timeNs: 1n,
    };
    expect(parseLine(encodePoint(given)).tags).toEqual(given.tags);
  });

  test('a line break in a name cannot start a second line', () => {
    const line = encodePoint({
      measurement: 'm\nevil v=1 1',
      tags: new Map([['t\r', 'a\nb']]),
      fields: new Map<string, FieldValue>([
        ['f\n', 1],
        ['note', 'a\nb'],
      ]),
      timeNs: 1n,
    });
    expect(line.includes('\n')).toBe(false);
  });

  test.each([
    ['', 'a measurement'],
    ['m', 'a space before the fields'],
    ['m ', 'field=value'],
    ['m v', 'field=value'],
    ['m v=', 'a number, a boolean or a quoted string'],
    ['m v=1.2.3', 'a number, a boolean or a quoted string'],
    ['m v="open', 'a closing quote'],
    ['m,t v=1', 'tag=value'],
    ['m,t= v=1', 'a tag value'],
    ['m v=1 soon', 'a timestamp in digits'],
    ['m v=NaN', 'a number, a boolean or a quoted string'],
  ])('%j is refused, saying that %s was expected', (line, expected) => {
    expect(() => parseLine(line)).toThrow(LineProtocolError);
    expect(() => parseLine(line)).toThrow(expected);
  });

  test('integers of other writers are read as floats', () => {
    expect(parseLine('m v=7i,u=8u 1').fields).toEqual(
      new Map([
        ['v', 7],
        ['u', 8],
      ]),
    );
  });

  test('any text at all is either parsed or refused with a reason', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), (text) => {
        try {
          parseLine(text);
        } catch (error) {
          expect(error).toBeInstanceOf(LineProtocolError);
        }
      }),
      { numRuns: 5000 },
    );
  });
});
