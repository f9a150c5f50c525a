import fc from 'fast-check';
import { expect, test } from 'vitest';
import { encodePoint, splitLines } from '../../src/model/line-protocol.ts';

test('a line break inside a string value belongs to its line, a quote in a tag does not open a string', () => {
  const lines = ['m,t=a"b f="x\ny \\" z",g=1 1', 'm f=2 2', 'm,t=" f=3 3'];
  expect(splitLines(`${lines.join('\n')}\n\n`)).toEqual(lines);
});

test('a quote that is never closed does not swallow the lines after it', () => {
  expect(splitLines('m f="open 1\nm f=2 2\n')).toEqual(['m f="open 1', 'm f=2 2']);
});

test('whatever is encoded comes apart again', () => {
  const point = fc.record({
    measurement: fc.string({ minLength: 1 }),
    tags: fc.array(fc.tuple(fc.string({ minLength: 1 }), fc.string({ minLength: 1 })), { maxLength: 3 }),
    fields: fc.array(fc.tuple(fc.string({ minLength: 1 }), fc.oneof(fc.string(), fc.boolean())), {
      minLength: 1,
      maxLength: 3,
    }),
  });
  fc.assert(
    fc.property(fc.array(point, { maxLength: 10 }), (points) => {
      const lines = points.map(({ measurement, tags, fields }) =>
        encodePoint({ measurement, tags: new Map(tags), fields: new Map(fields), timeNs: 1n }),
      );
      expect(splitLines(lines.map((line) => `${line}\n`).join(''))).toEqual(lines);
    }),
  );
});
