import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Answer, readAnswer, type WriteOutcome } from '../../src/forwarder/answer.ts';
import { isolate } from '../../src/forwarder/isolation.ts';

type Dialect = 'opaque' | 'opaque-partial' | 'dropped' | 'numbered' | 'quoted' | 'first-quoted' | 'lying';

/** A server in miniature: which lines it refuses, how it says so, what it has stored. */
function server(isBad: (line: string) => boolean, dialect: Dialect, bytesMax = Number.POSITIVE_INFINITY) {
  const stored = new Map<string, number>();
  let requests = 0;

  function answer(lines: readonly string[]): Answer {
    if (lines.join('\n').length > bytesMax) return { status: 413, contentType: '', body: '' };
    const bad = lines.filter(isBad);
    const keepsGood = bad.length === 0 || !['opaque', 'first-quoted', 'lying'].includes(dialect);
    if (keepsGood) for (const line of lines) if (!isBad(line)) stored.set(line, (stored.get(line) ?? 0) + 1);
    if (bad.length === 0) return { status: 204, contentType: '', body: '' };
    const json = (body: unknown): Answer => ({
      status: 400,
      contentType: 'application/json',
      body: JSON.stringify(body),
    });
    switch (dialect) {
      case 'opaque':
      case 'opaque-partial':
        return json({ code: 'invalid', message: 'write failed' });
      case 'dropped':
        return json({
          code: 'unprocessable entity',
          message: `partial write: field type conflict: input field "v" on measurement "m" is type float, already exists as type string dropped=${bad.length}`,
        });
      case 'numbered': {
        const numbers = lines.flatMap((line, index) => (isBad(line) ? [index + 1] : []));
        const data = numbers.slice(0, 100).map((line_number) => ({ line_number, error_message: 'no' }));
        return json({ error: 'partial write of line protocol occurred', data });
      }
      case 'quoted':
        return json({ error: bad.map((line) => `unable to parse '${line}': no`).join('\n') });
      case 'first-quoted':
        return json({ code: 'invalid', message: `unable to parse '${bad[0]}': no` });
      case 'lying':
        return json({
          code: 'invalid',
          message: `unable to parse '${lines.find((line) => !isBad(line)) ?? ''}': no`,
        });
    }
  }

  return {
    stored,
    get requests() {
      return requests;
    },
    async send(lines: readonly string[]): Promise<WriteOutcome> {
      requests += 1;
      return readAnswer(answer(lines), 0);
    },
  };
}

function numberedLines(count: number): string[] {
  return Array.from({ length: count }, (_, index) => `m,n=${index} v=${index} ${index}`);
}

async function resolveAll(lines: readonly string[], target: ReturnType<typeof server>) {
  const first = await target.send(lines);
  if (first.kind === 'accepted') return [];
  if (first.kind !== 'rejected' && first.kind !== 'too-large') throw new Error(first.kind);
  const result = await isolate(lines, first.kind === 'rejected' ? first.refusal : 'too-large', target.send);
  if (result.kind !== 'resolved') throw new Error('interrupted');
  return result.refused.map(({ line }) => line);
}

const dialects: readonly Dialect[] = [
  'opaque',
  'opaque-partial',
  'dropped',
  'numbered',
  'quoted',
  'first-quoted',
  'lying',
];

describe('Isolation', () => {
  test('whatever the server says, every good line arrives and every bad line is refused exactly once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.boolean(), { minLength: 1, maxLength: 200 }),
        fc.constantFrom(...dialects),
        fc.option(fc.integer({ min: 12, max: 4000 }), { nil: Number.POSITIVE_INFINITY }),
        async (badness, dialect, bytesMax) => {
          const lines = numberedLines(badness.length);
          const longest = Math.max(...lines.map((line) => line.length));
          const bad = new Set(lines.filter((_line, index) => badness[index]));
          const target = server((line) => bad.has(line), dialect, Math.max(longest, bytesMax));
          const refused = await resolveAll(lines, target);
          expect([...refused].sort()).toEqual([...bad].sort());
          expect([...target.stored.keys()].sort()).toEqual(lines.filter((line) => !bad.has(line)).sort());
        },
      ),
      { numRuns: 500 },
    );
  });

  test.each(dialects)('one bad line among 5,000 costs about log2(n) questions (%s)', async (dialect) => {
    const lines = numberedLines(5000);
    for (const at of [0, 1, 2499, 2500, 3333, 4999]) {
      const target = server((line) => line === lines[at], dialect);
      expect(await resolveAll(lines, target)).toEqual([lines[at]]);
      expect(target.stored.size).toBe(4999);
      expect(target.requests - 1).toBeLessThanOrEqual(dialect === 'lying' ? 17 : 15);
    }
  });

  test.each(['dropped', 'numbered'] as const)(
    'a batch that is bad as a whole costs few questions (%s)',
    async (dialect) => {
      const lines = numberedLines(5000);
      const target = server(() => true, dialect);
      expect(new Set(await resolveAll(lines, target))).toEqual(new Set(lines));
      // InfluxDB 3 names a hundred lines at most in one answer.
      expect(target.requests - 1).toBeLessThanOrEqual(dialect === 'dropped' ? 0 : 120);
    },
  );

  test('half of the points conflicting costs few questions', async () => {
    const lines = numberedLines(5000).map((line, index) =>
      index % 2 === 0 ? line : line.replace('m,', 'other,'),
    );
    const target = server((line) => line.startsWith('m,'), 'dropped');
    expect((await resolveAll(lines, target)).length).toBe(2500);
    expect(target.requests - 1).toBe(2);
  });

  test('five bad lines without any hint cost about 2·log2(n) questions each', async () => {
    const lines = numberedLines(5000);
    const target = server((line) => /n=\d*499 /.test(line), 'opaque');
    expect((await resolveAll(lines, target)).length).toBe(5);
    expect(target.requests - 1).toBeLessThanOrEqual(5 * 25);
  });

  test('a single line larger than the server takes is refused with that reason', async () => {
    const lines = [...numberedLines(20), `m v="${'x'.repeat(500)}" 1`];
    const target = server(() => false, 'opaque', 300);
    const first = await target.send(lines);
    expect(first.kind).toBe('too-large');
    const result = await isolate(lines, 'too-large', target.send);
    expect(result).toEqual({
      kind: 'resolved',
      refused: [{ line: lines[20], reason: 'larger than InfluxDB takes in one request' }],
    });
    expect(target.stored.size).toBe(20);
  });

  test('an outage while asking interrupts, and nothing is called bad', async () => {
    const lines = numberedLines(100);
    let left = 3;
    const target = server((line) => line === lines[42], 'opaque');
    const first = await target.send(lines);
    if (first.kind !== 'rejected') throw new Error(first.kind);
    const result = await isolate(lines, first.refusal, async (some) => {
      left -= 1;
      return left < 0 ? { kind: 'retry', reason: 'gone' } : target.send(some);
    });
    expect(result).toEqual({ kind: 'interrupted', outcome: { kind: 'retry', reason: 'gone' } });
  });
});
