import { pino } from 'pino';
import { expect, test } from 'vitest';
import { Ingest, type IngestOptions } from '../../src/ingest/ingest.ts';
import type { StoredLetter } from '../../src/journal/contract.ts';
import type { Point } from '../../src/model/point.ts';
import type { ServerType, ServerTypes } from '../../src/model/server-type.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { fakeClock, knownTime, MemoryJournal, message } from './fakes.ts';

async function opened(overrides: Partial<IngestOptions> = {}) {
  const journal = new MemoryJournal();
  const clock = fakeClock();
  let observed = 0;
  const ingest = await Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    describe: () => ({ location: 'kitchen' }),
    gatewayId: 'gw-1',
    observe: () => {
      observed += 1;
    },
    time: knownTime(clock),
    log: pino({ level: 'silent' }),
    ...overrides,
  });
  return { ingest, journal, clock, observed: () => observed };
}

/** The newest letter as the journal would have kept it. */
function stored(journal: MemoryJournal, wallMs: number, id = '0000000000000001'): StoredLetter {
  const letter = journal.letters.at(-1);
  if (letter === undefined) throw new Error('no letter');
  return { ...letter, id, wallMs, isCut: false };
}

function told(types: Readonly<Record<string, ServerType>>): ServerTypes {
  return {
    size: Object.keys(types).length,
    typeOf: (measurement, field) => types[`${measurement} ${field}`],
    list: () => [],
    forget: async () => false,
  };
}

test('a field that was refused joins the point it came with: same series, same time', async () => {
  const durable: Point[] = [];
  const { ingest, journal, clock, observed } = await opened({
    onDurable: (points) => durable.push(...points),
  });
  await ingest.take(message('{"level":"n/a"}', { name: 'tank' }));
  await ingest.take(message('{"level":5,"flow":1}', { name: 'tank' }));
  const letter = stored(journal, clock.wallMs());
  expect(await ingest.replay(letter)).toMatchObject({ kind: 'refused', code: 'FIELD_TYPE_CONFLICT' });
  expect(journal.replaced.get(letter.id)).toMatchObject({
    append: { points: 0 },
    letters: [{ bytes: letter.bytes }],
  });

  expect(await ingest.forgetFieldType('tank', 'level')).toBe(true);
  clock.advance(3_600_000);
  journal.replaced.clear();
  expect(await ingest.replay(letter)).toEqual({ kind: 'replayed' });
  expect(durable.at(-1)).toMatchObject({ measurement: 'tank', fields: new Map([['level', 5]]) });
  expect(durable.at(-1)?.timeNs).toBe(durable.at(-2)?.timeNs);
  const [, withFlow, replayed] = journal.points();
  expect(replayed?.fields).toEqual(new Map([['level', 5]]));
  expect([replayed?.measurement, replayed?.tags, replayed?.time]).toEqual([
    withFlow?.measurement,
    withFlow?.tags,
    withFlow?.time,
  ]);
  // The rules saw it when it came; now it is no news.
  expect(observed()).toBe(2);
  // Pinned anew, and durable with the point.
  expect(journal.replaced.get(letter.id)?.append.state).toHaveLength(1);
});

test('what came before the date was known is replayed without one, whatever is known by then, and the other way', async () => {
  const clock = fakeClock();
  const time = { ...knownTime(clock), isKnown: false, boot: 77, bootNs: () => 5_000n };
  const { ingest, journal } = await opened({ time });
  const refuse = async (id: string) => {
    await ingest.take(message('{"v":1,"bad":[]}'));
    return { ...stored(journal, clock.wallMs(), id), bytes: Buffer.from('{"v":1}') };
  };
  const undated = await refuse('1');
  time.isKnown = true;
  const dated = await refuse('2');
  expect(await ingest.replay(undated)).toEqual({ kind: 'replayed' });
  expect(journal.lines().at(-1)).toMatch(/ v=1 b77\+5000$/);
  expect(journal.replaced.get('1')?.append.undated).toBe(true);
  time.isKnown = false;
  expect(await ingest.replay(dated)).toEqual({ kind: 'replayed' });
  expect(journal.lines().at(-1)).toMatch(/ v=1 \d{19}$/);
  expect(journal.replaced.get('2')?.append.undated).toBeUndefined();
});

test('a message without a time gets that of its arrival, an implausible one too, its own is kept', async () => {
  const { ingest, journal, clock } = await opened();
  const cameNs = BigInt(clock.wallMs()) * 1_000_000n;
  const payloads = [
    '{"v":1,"bad":[]}',
    '{"v":1,"bad":[],"timestamp":5}',
    '{"v":1,"bad":[],"timestamp":"2026-11-20T10:00:00Z"}',
  ];
  const letters: StoredLetter[] = [];
  for (const payload of payloads) {
    await ingest.take(message(payload));
    const { bytes: _, ...letter } = stored(journal, clock.wallMs(), String(letters.length));
    // A later version that can read it.
    letters.push({ ...letter, bytes: Buffer.from(payload.replace(',"bad":[]', '')) });
  }
  clock.advance(86_400_000);
  for (const letter of letters) expect(await ingest.replay(letter)).toEqual({ kind: 'replayed' });
  const times = journal.points().map(({ time }) => time ?? 0n);
  expect(times[0]! - cameNs).toBeLessThan(1_000_000n);
  expect(times[1]! - cameNs).toBeLessThan(1_000_000n);
  expect(times[2]).toBe(1_795_168_800_000_000_000n);
  // Letters of an earlier version say only when they were written.
  const { time: _, ...old } = { ...letters[0]!, id: 'old' };
  await ingest.replay(old);
  expect(journal.points().at(-1)?.time).toBe(cameNs);
});

test('a replay is never taken for a copy', async () => {
  const { ingest, journal, clock } = await opened();
  await ingest.take(message('{"v":"text"}'));
  await ingest.take(message('{"v":1,"w":2,"boot":"b","seq":7}'));
  const letter = stored(journal, clock.wallMs());
  await ingest.forgetFieldType('leak', 'v');
  expect(await ingest.replay(letter)).toEqual({ kind: 'replayed' });
  expect(journal.points()).toHaveLength(3);
});

test('what the journal cannot take now stays a letter, and its type is still to be saved', async () => {
  const { ingest, journal, clock } = await opened();
  await ingest.take(message('{"v":"text"}'));
  await ingest.take(message('{"v":1}'));
  const letter = stored(journal, clock.wallMs());
  await ingest.forgetFieldType('leak', 'v');
  journal.failWith = new GatewayError('JOURNAL_FULL', 'no room');
  await expect(ingest.replay(letter)).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  journal.failWith = undefined;
  await ingest.replay(letter);
  expect(journal.replaced.get(letter.id)?.append.state).toHaveLength(1);
});

test('a cut letter and an unreadable block cannot be replayed and say so', async () => {
  const { ingest } = await opened();
  const letter = {
    id: '1',
    wallMs: 0,
    isCut: false,
    stage: 'ingest',
    code: 'NOT_JSON',
    reason: '',
    bytes: Buffer.from('{'),
  };
  expect(await ingest.replay({ ...letter, isCut: true })).toEqual({
    kind: 'impossible',
    reason: 'only its beginning was kept',
  });
  expect(await ingest.replay({ ...letter, stage: 'influx', code: 'BLOCK_UNREADABLE' })).toMatchObject({
    kind: 'impossible',
  });
});

test('a line without a date is appended as one', async () => {
  const { ingest, journal } = await opened();
  const letter = {
    id: '1',
    wallMs: 0,
    isCut: false,
    stage: 'influx',
    code: 'INFLUX_REJECTED',
    reason: '',
    bytes: Buffer.from('m v=1 b3+17'),
  };
  expect(await ingest.replay(letter)).toEqual({ kind: 'replayed' });
  expect(journal.appends[0]).toMatchObject({ lines: 'm v=1 b3+17\n', undated: true });
});

test('where InfluxDB said how it keeps a field, new values are written so, and only misfits are set aside', async () => {
  const { ingest, journal } = await opened({ serverTypes: told({ 'leak n': 'integer', 'leak t': 'float' }) });
  await ingest.take(message('{"t":"n/a"}'));
  await ingest.take(message('{"n":5,"t":5}'));
  await ingest.take(message('{"n":5.5,"t":6.5}'));
  expect(journal.lines().map((line) => line.split(' ')[1])).toEqual(['n=5i,t=5', 't=6.5']);
  expect(journal.letters.map(({ code, reason }) => [code, reason])).toEqual([
    ['FIELD_TYPE_CONFLICT', 'field "t" of leak: InfluxDB keeps it as float, and "n/a" is not a float'],
    [
      'FIELD_TYPE_CONFLICT',
      'field "n" of leak: InfluxDB keeps it as integer, and 5.5 is not a whole number that fits',
    ],
  ]);
});
