// JSON that no good client sends: examples with one node exchanged for something telling, and texts that are no JSON
// any more. The same randomness makes the same bytes.

import { type Random, seededRandom } from '../../src/simulator/random.ts';

export interface Dice {
  /** A whole number from 0 up to this one, without it. */
  below(count: number): number;
  oneIn(count: number): boolean;
  of<T>(list: readonly T[]): T;
}

export function diceOf(seed: number): Dice {
  const random: Random = seededRandom(seed);
  const below = (count: number) => Math.floor(random() * count);
  return { below, oneIn: (count) => below(count) === 0, of: (list) => list[below(list.length)] as never };
}

/** Stands for a piece of text that JSON.stringify would not write. */
const raw = (text: string) => `@raw:${Buffer.from(text).toString('hex')}@`;

const nested = (depth: number, open: string, close: string) => open.repeat(depth) + close.repeat(depth);

const telling: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  '',
  ' ',
  'NaN',
  '1e3',
  '-0',
  '\u0000',
  'a\u0000b',
  '\u202e',
  '\u{1f4a7}',
  '__proto__',
  'constructor',
  'toString',
  'hasOwnProperty',
  '../../etc/passwd',
  '#',
  '+/x',
  'a,b=c d',
  'a\\',
  'a"b',
  'a\nb 1',
  '%00',
  '2024-13-45T99:99:99Z',
  '+275760-09-13T00:00:00.001Z',
  '1970-01-01T00:00:00Z',
  [],
  {},
  [[]],
  [null],
  { '': '' },
  'x'.repeat(300),
  'y'.repeat(5_000),
  '\u00e4'.repeat(200),
  ...[
    '1e400',
    '-1e400',
    '1e-400',
    '-0',
    '-0.0e-0',
    '9007199254740993',
    '18446744073709551616',
    '0.1000000000000000055511151231257827',
    `1${'0'.repeat(400)}`,
    `0.${'0'.repeat(400)}1`,
    '"\\ud800"',
    '"\\udfff\\ud800"',
    '"\\u0000"',
    '{"__proto__":{"role":"admin"}}',
    '{"a":1,"a":2}',
    '{"constructor":{"prototype":{"x":1}}}',
    nested(15, '[', ']'),
    nested(17, '[', ']'),
    nested(16, '{"a":', '}').replace('}', '1}'),
    `[${'0,'.repeat(1_500)}0]`,
    `{${Array.from({ length: 300 }, (_, index) => `"k${index}":${index}`).join(',')}}`,
  ].map(raw),
];

function exchanged(value: unknown, dice: Dice): unknown {
  const isInner = typeof value === 'object' && value !== null && Object.keys(value).length > 0;
  if (!isInner || dice.oneIn(4)) return dice.of(telling);
  if (Array.isArray(value)) {
    const at = dice.below(value.length);
    if (dice.oneIn(4)) return [...value, ...value, dice.of(telling)];
    return value.map((item: unknown, index) => (index === at ? exchanged(item, dice) : item));
  }
  const entries = Object.entries(value);
  const at = dice.below(entries.length);
  switch (dice.below(5)) {
    case 0:
      return Object.fromEntries(entries.filter((_, index) => index !== at));
    case 1:
      return Object.fromEntries([...entries, [String(dice.of(telling)), dice.of(telling)]]);
    default:
      return Object.fromEntries(
        entries.map(([name, item], index) => [name, index === at ? exchanged(item, dice) : item]),
      );
  }
}

const junk = [0x00, 0x7f, 0x80, 0xc0, 0xed, 0xf5, 0xff, 0x22, 0x5c, 0x7b, 0x5b, 0x2c] as const;

function broken(text: Buffer, dice: Dice): Buffer {
  const at = dice.below(text.length + 1);
  const [before, behind] = [text.subarray(0, at), text.subarray(at)];
  switch (dice.below(8)) {
    case 0:
      return before;
    case 1:
      return Buffer.concat([before, Buffer.from([dice.of(junk)]), behind]);
    case 2:
      return Buffer.concat([text, text]);
    case 3:
      return Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), text]);
    case 4:
      return Buffer.from(text.toString('latin1'), 'utf16le');
    case 5:
      return Buffer.from(nested(1 + dice.below(10_000), dice.of(['[', '{"a":']), ''));
    case 6:
      return Buffer.from(Array.from({ length: dice.below(40) }, () => dice.below(256)));
    default:
      return Buffer.concat([before, Buffer.from([dice.of(junk), dice.of(junk)]), behind.subarray(2)]);
  }
}

/** Now and then the example itself, so that what comes next is judged by what the gateway took before. */
export function oddJson(example: unknown, dice: Dice): Buffer {
  let value = example;
  for (let times = dice.below(4); times > 0; times -= 1) value = exchanged(value, dice);
  const text = JSON.stringify(value).replaceAll(/"@raw:([0-9a-f]*)@"/g, (_, hex: string) =>
    Buffer.from(hex, 'hex').toString(),
  );
  const bytes = Buffer.from(text);
  return dice.oneIn(5) ? broken(bytes, dice) : bytes;
}
