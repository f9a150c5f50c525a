// Whatever a device sends, decoding never throws and what is stored is line protocol. The long form is
// IOTFLOW_FUZZ_RUNS=1000000.

import * as fc from 'fast-check';
import { pino } from 'pino';
import { expect, test } from 'vitest';
import { decode } from '../../src/ingest/decode.ts';
import { Ingest } from '../../src/ingest/ingest.ts';
import { parseLine } from '../../src/model/line-protocol.ts';
import type { Channel } from '../../src/model/message.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { fakeClock, knownTime, MemoryJournal, message } from '../ingest/fakes.ts';
import { collectGarbage } from '../support/garbage.ts';

const runs = Number(process.env.IOTFLOW_FUZZ_RUNS ?? 50_000);
const channels = ['telemetry', 'status', 'alarms', 'command-ack'] as const satisfies readonly Channel[];

/** Bytes in use after a full collection. */
function heapUsed(): number {
  collectGarbage();
  return process.memoryUsage().heapUsed;
}

async function openedIngest(journal: MemoryJournal) {
  return Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    describe: () => undefined,
    gatewayId: 'gw',
    observe: () => undefined,
    time: knownTime(fakeClock()),
    log: pino({ level: 'silent' }),
  });
}

/** Everything stored parses, and each line is one line. */
function expectLineProtocol(journal: MemoryJournal): void {
  for (const { lines, points } of journal.appends) {
    const each = lines.split('\n');
    expect(each.pop()).toBe('');
    expect(each).toHaveLength(points);
    for (const line of each) expect(parseLine(line).time).toBeTypeOf('bigint');
  }
}

test('any JSON object of scalars is stored as the same values', async () => {
  const scalar = fc.oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.boolean(),
    fc.string({ unit: 'grapheme', maxLength: 40 }),
  );
  const name = fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 20 })
    // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are refused in names
    .filter((text) => !/[\u0000-\u001f\u007f]/.test(text))
    .filter((text) => !['time', 'timestamp', 'boot', 'seq', 'metadata'].includes(text));
  await fc.assert(
    fc.asyncProperty(fc.dictionary(name, scalar, { minKeys: 1, maxKeys: 20 }), async (object) => {
      const journal = new MemoryJournal();
      const ingest = await openedIngest(journal);
      await ingest.take(message(JSON.stringify(object)));
      expect(journal.letters).toEqual([]);
      const stored = journal.points()[0]!.fields;
      expect(stored.size).toBe(Object.keys(object).length);
      for (const [key, value] of Object.entries(object)) {
        const expected = typeof value === 'string' ? value.replace(/\r\n?|\n/g, ' ') : value;
        // JSON knows no negative zero, and InfluxDB no difference.
        expect(stored.get(key)).toBe(expected === 0 ? 0 : expected);
      }
    }),
    { numRuns: 300 },
  );
});

test('any bytes on any channel are answered, and what is stored is line protocol', async () => {
  const payload = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
    fc.json({ maxDepth: 4 }).map((text) => Buffer.from(text)),
    fc.string({ unit: 'binary', maxLength: 100 }).map((text) => Buffer.from(text)),
  );
  await fc.assert(
    fc.asyncProperty(
      payload,
      fc.constantFrom(...channels),
      fc.string({ unit: 'binary', maxLength: 30 }),
      async (bytes, channel, name) => {
        const journal = new MemoryJournal();
        const ingest = await openedIngest(journal);
        await ingest.take(message(bytes, { channel, name }));
        expectLineProtocol(journal);
        const { empty } = ingest.stats();
        expect(empty + journal.appends.length + journal.letters.length).toBeGreaterThan(0);
      },
    ),
    { numRuns: 1_000 },
  );
});

const templates = [
  '{"wet":true,"battery":93.5,"mode":"eco","timestamp":1795219140,"boot":"b1","seq":12}',
  '{"t":21.5,"metadata":{"room":"bath","x":[1,{"y":2}]},"timestamp":"2026-11-21T06:30:00.123Z"}',
  'climate,room=a\\ b,x=y t=21.5,h=40i,ok=t,s="a \\"q\\" b" 1795219140000000000\nleak wet=true',
  '-12.5e3',
  'offline',
  '"text \\u0000 \\ud83d\\ude00"',
  '{"__proto__":{"a":1},"constructor":1,"a":1e308,"b":-0.0}',
];
const splices = [
  '\n',
  '"',
  '\\',
  '{',
  '}',
  '[',
  ']',
  ',',
  '=',
  ' ',
  '\u0000',
  '\r',
  'é',
  '💧',
  '1e999',
  'NaN',
  '__proto__',
];

test(`${runs} mutated messages neither crash it nor make memory grow`, { timeout: 600_000 }, async () => {
  const random = seededRandom(20_261_121);
  const pick = <T>(from: readonly T[]): T => from[Math.floor(random() * from.length)]!;
  let journal = new MemoryJournal();
  let ingest = await openedIngest(journal);
  let heapAfterWarmUp = 0;
  for (let run = 0; run < runs; run += 1) {
    let bytes = Buffer.from(pick(templates));
    const mutations = Math.floor(random() * 6);
    for (let mutation = 0; mutation < mutations; mutation += 1) {
      const at = Math.floor(random() * (bytes.length + 1));
      const kind = random();
      if (kind < 0.4)
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.from(pick(splices)), bytes.subarray(at)]);
      else if (kind < 0.7 && at < bytes.length) bytes[at] = Math.floor(random() * 256);
      else if (kind < 0.9) bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(at + 1)]);
      else bytes = bytes.subarray(0, at);
    }
    const channel = pick(channels);
    const { samples } = decode({ channel, name: 'fuzz', payload: bytes });
    for (const { fields, fault } of samples) {
      if (fault === undefined && fields.size === 0)
        expect.fail(`no fields and no fault: ${bytes.toString('hex')}`);
    }
    await ingest.take(message(bytes, { channel, name: 'fuzz' }));
    if (run % 5_000 === 4_999) {
      expectLineProtocol(journal);
      // What decoding itself keeps is what is measured, not what the fake journal gathers.
      journal = new MemoryJournal();
      ingest = await openedIngest(journal);
      if (run === 9_999) heapAfterWarmUp = heapUsed();
    }
  }
  expectLineProtocol(journal);
  journal = new MemoryJournal();
  ingest = await openedIngest(journal);
  // A hundred bytes kept per message would already be twice this in the long form.
  expect(heapUsed() - heapAfterWarmUp).toBeLessThan(8e6);
});

test('one ingest that takes the same devices for ever keeps a bounded state', async () => {
  const journal = new MemoryJournal();
  const ingest = await Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    describe: () => undefined,
    gatewayId: 'gw',
    observe: () => undefined,
    time: knownTime(fakeClock()),
    log: pino({ level: 'silent' }),
    fieldTypesMax: 100,
    seenDevicesMax: 50,
  });
  for (let count = 0; count < 5_000; count += 1) {
    const payload = `{"f${count}":1,"boot":"b${count}","seq":${count}}`;
    await ingest.take(message(payload, { deviceId: `d${count % 200}`, name: `m${count % 40}` }));
  }
  const { fieldTypes, seenDevices, cachedSeries, inFlight } = ingest.stats();
  expect({ fieldTypes, seenDevices, inFlight }).toEqual({ fieldTypes: 100, seenDevices: 50, inFlight: 0 });
  expect(cachedSeries).toBeLessThanOrEqual(8_000);
  expect(journal.state.size).toBeLessThanOrEqual(100 + 50 * 4);
});
