import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type Answer, readAnswer, readRetryAfter } from '../../src/forwarder/answer.ts';

function json(status: number, body: unknown): Answer {
  return { status, contentType: 'application/json; charset=utf-8', body: JSON.stringify(body) };
}

describe('An answer of InfluxDB', () => {
  test('2.x names the conflicting field and counts what it dropped', () => {
    const outcome = readAnswer(
      json(422, {
        code: 'unprocessable entity',
        message:
          'failure writing points to database: partial write: field type conflict: input field "NS" on measurement "query_types" is type integer, already exists as type float dropped=7',
      }),
      0,
    );
    expect(outcome).toMatchObject({
      kind: 'rejected',
      refusal: {
        aboutPoints: true,
        dropped: 7,
        conflict: { field: 'NS', measurement: 'query_types', type: 'integer' },
      },
    });
  });

  test('2.0 said the same with status 500', () => {
    const message =
      'unexpected error writing points to database: partial write: points beyond retention policy dropped=2';
    expect(readAnswer(json(500, { code: 'internal error', message }), 0)).toMatchObject({
      kind: 'rejected',
      refusal: { dropped: 2, aboutPoints: true },
    });
    expect(readAnswer(json(500, { code: 'internal error', message: 'timeout' }), 0).kind).toBe('retry');
  });

  test('1.x quotes the lines it cannot parse', () => {
    const error = `partial write: unable to parse 'cpu value=': missing field value\nunable to parse 'it's, so v=1x 5': invalid number dropped=0`;
    const outcome = readAnswer(json(400, { error }), 0);
    expect(outcome).toMatchObject({
      kind: 'rejected',
      refusal: { quoted: ['cpu value=', "it's, so v=1x 5"] },
    });
  });

  test('3 numbers the lines, in a list or alone', () => {
    const line = {
      original_line: 'home,room=Sunroom temp=hi 1735549200',
      line_number: 2,
      error_message: 'invalid column type',
    };
    for (const data of [[line], line]) {
      const outcome = readAnswer(json(400, { error: 'partial write of line protocol occurred', data }), 0);
      expect(outcome).toMatchObject({
        kind: 'rejected',
        refusal: { numbered: new Map([[2, 'invalid column type']]), aboutPoints: true },
      });
    }
  });

  test('a 400 of a proxy condemns no point', () => {
    const page: Answer = {
      status: 400,
      contentType: 'text/html',
      body: '<html><h1>400 The plain HTTP request was sent to HTTPS port</h1></html>',
    };
    expect(readAnswer(page, 0).kind).toBe('unexpected');
  });

  test.each([
    [401, 'unauthorised'],
    [403, 'unauthorised'],
    [404, 'not-found'],
    [413, 'too-large'],
    [408, 'retry'],
    [429, 'retry'],
    [500, 'retry'],
    [503, 'retry'],
    [302, 'unexpected'],
    [418, 'unexpected'],
  ])('%d is %s', (status, kind) => {
    expect(readAnswer(json(status, { message: 'x' }), 0).kind).toBe(kind);
  });

  test('Retry-After counts in seconds or names a date, and is believed for an hour at most', () => {
    expect(readRetryAfter('7', 0)).toBe(7000);
    expect(readRetryAfter('Sat, 21 Nov 2026 07:00:10 GMT', Date.UTC(2026, 10, 21, 7, 0, 0))).toBe(10_000);
    expect(readRetryAfter('Sat, 21 Nov 2026 07:00:10 GMT', Date.UTC(2026, 10, 22))).toBe(0);
    expect(readRetryAfter('999999', 0)).toBe(3_600_000);
    expect(readRetryAfter('soon', 0)).toBeUndefined();
    expect(readRetryAfter(undefined, 0)).toBeUndefined();
  });

  test('no answer whatever makes the reader throw', () => {
    fc.assert(
      fc.property(
        fc.record({
          status: fc.integer({ min: 100, max: 599 }),
          contentType: fc.constantFrom('application/json', 'text/plain', ''),
          body: fc.oneof(
            fc.string(),
            fc.json(),
            fc.string().map((text) => `{"message":${JSON.stringify(text)},"data":[{"line_number":1}]}`),
            fc.string().map((text) => `unable to parse '${text}': x`),
          ),
          retryAfter: fc.string(),
        }),
        (answer) => {
          expect(readAnswer(answer, 0).kind).toBeTypeOf('string');
        },
      ),
      { numRuns: 2000 },
    );
  });
});
