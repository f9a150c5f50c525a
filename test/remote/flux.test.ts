// Whatever a client asks for, a script does what it was written for, and nothing else.

import fc from 'fast-check';
import { expect, test } from 'vitest';
import { type FluxScope, lastFlux, samplesFlux, windowsFlux } from '../../src/remote/flux.ts';
import { lexFlux, parseFlux } from '../support/flux.ts';

const scope: FluxScope = {
  bucket: 'telemetry',
  gatewayId: 'gw-1',
  deviceId: 'node-1',
  fromNs: 1_700_000_000_000_000_001n,
  toNs: 1_700_000_360_000_000_000n,
};

/** What tempts a scanner: quotes, escapes, expressions in texts, line ends, comments, pipes. */
const hostile = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 40 }),
  fc
    .array(
      fc.constantFrom(
        '"',
        '\\',
        '$',
        '{',
        '}',
        '${',
        '\\"',
        '\n',
        '\r',
        '//',
        '|> ',
        'drop()',
        ') ',
        '\u2028',
        '\0',
        'a',
      ),
      { maxLength: 12 },
    )
    .map((parts) => parts.join('')),
);

function scripts(given: { measurement: string; field: string; deviceId: string; bucket: string }) {
  const asked = { ...scope, ...given, fields: [given.field] };
  const names = [{ measurement: given.measurement, field: given.field }];
  return [
    samplesFlux(asked, true, 11),
    samplesFlux(asked, false, 11),
    lastFlux(asked),
    windowsFlux(asked, 60_000, [
      { name: 'numbers', fields: names, functions: ['sum', 'count'] },
      { name: 'booleans', fields: names, functions: ['max'] },
      { name: 'all', fields: names, functions: ['last'] },
    ]),
  ];
}

test('a script has the same words whatever texts it is asked for, and the texts are in it as they were given', () => {
  const plain = { measurement: 'm', field: 'f', deviceId: 'd', bucket: 'b' };
  const expected = scripts(plain).map(lexFlux);
  const given = fc.record({ measurement: hostile, field: hostile, deviceId: hostile, bucket: hostile });
  fc.assert(
    fc.property(given, (texts) => {
      for (const [index, script] of scripts(texts).entries()) {
        const tokens = lexFlux(script);
        const should = expected[index]?.map(({ kind, text }) => {
          const name = Object.entries(plain).find(([, value]) => kind === 'text' && value === text)?.[0];
          return name === undefined ? { kind, text } : { kind, text: texts[name as keyof typeof texts] };
        });
        expect(tokens).toEqual(should);
        expect(() => parseFlux(script)).not.toThrow();
      }
    }),
    { numRuns: 400 },
  );
});

test('the lexer of these tests sees a text that leaves its quotes', () => {
  const script = samplesFlux(scope, false, 5).replace('"node-1"', '"node-1" or true) |> drop()//"');
  expect(lexFlux(script).map(({ text }) => text)).not.toEqual(
    lexFlux(samplesFlux(scope, false, 5)).map(({ text }) => text),
  );
});

test('a script reads one device of this gateway, between two times that lose no digit', () => {
  expect(samplesFlux({ ...scope, measurement: 'climate', fields: ['t', 'h'] }, true, 101)).toBe(
    `from(bucket: "telemetry")
  |> range(start: 2023-11-14T22:13:20.000000001Z, stop: 2023-11-14T22:19:20Z)
  |> filter(fn: (r) => r["device_id"] == "node-1" and r["gateway"] == "gw-1" and r["_measurement"] == "climate" and (r["_field"] == "t" or r["_field"] == "h"))
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: 101)
  |> drop(columns: ["_start", "_stop"])
`,
  );
});
