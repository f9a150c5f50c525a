import * as fc from 'fast-check';
import { expect, test } from 'vitest';
import { SequenceWindow, windowSize } from '../../src/ingest/sequence-window.ts';

test('a number is known once it was seen, in whatever order', () => {
  const window = new SequenceWindow();
  for (const seq of [5, 3, 9]) window.add(seq);
  expect([3, 4, 5, 6, 9, 10].map((seq) => window.has(seq))).toEqual([true, false, true, false, true, false]);
});

test('what has fallen below the window counts as new', () => {
  const window = new SequenceWindow();
  window.add(0);
  window.add(windowSize - 1);
  expect(window.has(0)).toBe(true);
  window.add(windowSize);
  expect(window.has(0)).toBe(false);
});

test('a device that loses nothing needs a few bytes', () => {
  const window = new SequenceWindow();
  for (let seq = 0; seq < 100_000; seq += 1) window.add(seq);
  expect(window.encode().toString()).toBe(`99999 ${windowSize}`);
});

test('it behaves like a set of the last numbers, also after saving and loading', async () => {
  const step = fc.record({
    verb: fc.constantFrom('add', 'add', 'remove', 'reload'),
    seq: fc.oneof(fc.nat(10), fc.nat(3_000), fc.integer({ min: 1e9, max: 1e9 + 40 })),
  });
  await fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      let window = new SequenceWindow();
      let model = new Set<number>();
      let highest = -1;
      const touched = steps.flatMap(({ seq }) => [seq - 1, seq, seq + 1]);
      for (const { verb, seq } of steps) {
        if (verb === 'add') {
          window.add(seq);
          highest = Math.max(highest, seq);
          model.add(seq);
        } else if (verb === 'remove') {
          window.remove(seq);
          model.delete(seq);
        } else {
          const loaded = SequenceWindow.decode(window.encode());
          expect(loaded).toBeDefined();
          window = loaded!;
        }
        model = new Set([...model].filter((one) => one > highest - windowSize));
        for (const one of touched) {
          expect(window.has(one), `${one} after ${verb} ${seq}`).toBe(model.has(one));
        }
      }
    }),
    { numRuns: 300 },
  );
});

test('bytes that are no window are recognised, whatever they are', async () => {
  expect(SequenceWindow.decode(Buffer.from('garbage'))).toBeUndefined();
  expect(SequenceWindow.decode(Buffer.from('5 -1'))).toBeUndefined();
  expect(SequenceWindow.decode(Buffer.from('5 9999'))).toBeUndefined();
  await fc.assert(
    fc.property(fc.uint8Array({ maxLength: 64 }), (bytes) => {
      SequenceWindow.decode(Buffer.from(bytes));
    }),
  );
});

test('a window whose only message failed can be saved, loaded, and saved again', () => {
  const window = new SequenceWindow();
  window.add(5);
  window.remove(5);
  const loaded = SequenceWindow.decode(window.encode());
  expect(loaded?.has(5)).toBe(false);
  expect(loaded?.encode().toString()).toBe('5 0');
  loaded?.add(5);
  expect(SequenceWindow.decode(loaded?.encode() ?? Buffer.alloc(0))?.has(5)).toBe(true);
});
