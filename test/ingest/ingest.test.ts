import { pino } from 'pino';
import { expect, test } from 'vitest';
import { Ingest, type IngestOptions } from '../../src/ingest/ingest.ts';
import type { Point } from '../../src/model/point.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { fakeClock, knownTime, MemoryJournal, message } from './fakes.ts';

const log = pino({ level: 'silent' });

async function opened(overrides: Partial<IngestOptions> = {}, journal = new MemoryJournal()) {
  const clock = fakeClock();
  const observed: Point[] = [];
  const ingest = await Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    describe: (deviceId) => ({ name: `The ${deviceId}`, type: 'probe', location: 'kitchen' }),
    gatewayId: 'gw-1',
    observe: (points) => void observed.push(...points),
    time: knownTime(clock),
    log,
    ...overrides,
  });
  return { ingest, journal, clock, observed };
}

const full = new GatewayError('JOURNAL_FULL', 'no room');

test('a message becomes a point with the tags of the registry', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"wet":true,"battery":93,"timestamp":"2026-11-20T23:59:00Z"}'));
  expect(journal.lines()).toEqual([
    'leak,device_id=probe-1,device_name=The\\ probe-1,device_type=probe,gateway=gw-1,location=kitchen ' +
      'wet=true,battery=93 1795219140000000000',
  ]);
  expect(journal.appends[0]?.class).toBe('telemetry');
});

test.each([
  ['telemetry', 'telemetry'],
  ['status', 'event'],
  ['alarms', 'alarm'],
  ['command-ack', 'event'],
] as const)('what comes on %s is kept as %s', async (channel, expected) => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":1}', { channel }));
  expect(journal.appends[0]?.class).toBe(expected);
});

test('the rules see a point before the journal has it, and before anything is awaited', async () => {
  const { ingest, journal, observed } = await opened();
  journal.stall();
  const taken = ingest.take(message('{"wet":true}'));
  expect(observed.map(({ fields }) => fields.get('wet'))).toEqual([true]);
  expect(journal.appends).toHaveLength(0);
  journal.release();
  await taken;
  expect(journal.appends).toHaveLength(1);
});

test('the rules see a leak even in a message that cannot be stored', async () => {
  const { ingest, journal, observed } = await opened();
  await ingest.take(message('{"wet":true,"oops":{}}'));
  expect(observed[0]?.fields.get('wet')).toBe(true);
  expect(journal.lines()).toEqual([]);
  expect(journal.letters).toMatchObject([
    { stage: 'ingest', code: 'FIELD_NOT_SCALAR', deviceId: 'probe-1', origin: 'telemetry/leak' },
  ]);
  expect(journal.letters[0]?.bytes.toString()).toBe('{"wet":true,"oops":{}}');
  expect(ingest.stats().deadLetters).toEqual({ FIELD_NOT_SCALAR: 1 });
});

test('points are told of when they are durable, as they were stored, and not when they were refused', async () => {
  const told: [string, Record<string, unknown>][] = [];
  const { ingest, journal } = await opened({
    onDurable: (points, deviceId) => {
      for (const { fields } of points) told.push([deviceId, Object.fromEntries(fields)]);
    },
  });
  journal.stall();
  const taken = ingest.take(message('{"v":1,"w":2}'));
  expect(told).toEqual([]);
  journal.release();
  await taken;
  await ingest.take(message('{"v":"one","w":3}'));
  journal.failWith = full;
  await expect(ingest.take(message('{"v":4}'))).rejects.toThrow();
  expect(told).toEqual([
    ['probe-1', { v: 1, w: 2 }],
    ['probe-1', { w: 3 }],
  ]);
});

test('50 and 50.0 never conflict', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":50}'));
  await ingest.take(message('{"v":50.0}'));
  await ingest.take(message('{"v":50.5}'));
  expect(journal.points()).toHaveLength(3);
  expect(journal.letters).toEqual([]);
});

test('a value of another type goes to the dead letters alone, its neighbours are stored', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":50,"w":1}'));
  await ingest.take(message('{"v":"fifty","w":2}'));
  expect(journal.points().map(({ fields }) => Object.fromEntries(fields))).toEqual([
    { v: 50, w: 1 },
    { w: 2 },
  ]);
  expect(journal.letters).toMatchObject([
    { code: 'FIELD_TYPE_CONFLICT', reason: 'field "v" of leak: expected float, got string' },
  ]);
  expect(journal.letters[0]?.bytes.toString()).toMatch(/^leak,device_id=probe-1,.* v="fifty" \d{19}$/);
});

test('pinned types outlive a restart', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":50}', { name: 'a/b c' }));
  const { ingest: restarted } = await opened({}, journal);
  await restarted.take(message('{"v":true}', { name: 'a/b c' }));
  expect(journal.letters).toMatchObject([{ code: 'FIELD_TYPE_CONFLICT' }]);
});

test('a type whose append failed is written with the next one', async () => {
  const { ingest, journal } = await opened();
  journal.failWith = full;
  await expect(ingest.take(message('{"v":50}'))).rejects.toThrow('no room');
  journal.failWith = undefined;
  await ingest.take(message('{"v":50}'));
  expect([...journal.state.keys()]).toEqual(['ingest/type/leak/v']);
});

test('however many messages fail together with a new type, it is written once', async () => {
  const { ingest, journal } = await opened();
  journal.failWith = full;
  journal.stall();
  const failing = Array.from({ length: 60 }, () => ingest.take(message('{"v":1}')));
  journal.release();
  const outcomes = await Promise.allSettled(failing);
  expect(new Set(outcomes.map((outcome) => outcome.status === 'rejected' && outcome.reason))).toEqual(
    new Set([full]),
  );
  journal.failWith = undefined;
  await ingest.take(message('{"v":1}'));
  expect(journal.appends[0]?.state).toHaveLength(1);
});

test('at the limit of fields new ones are refused and known ones go on', async () => {
  const { ingest, journal } = await opened({ fieldTypesMax: 1 });
  await ingest.take(message('{"a":1}'));
  await ingest.take(message('{"a":2,"b":1}'));
  expect(journal.points()).toHaveLength(2);
  expect(journal.letters).toMatchObject([{ code: 'FIELD_LIMIT' }]);
});

test('a message sent again is stored once and answered both times', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  await ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  expect(journal.points()).toHaveLength(1);
  expect(ingest.stats().duplicates).toBe(1);
});

test('a copy is not acknowledged before the first one is durable', async () => {
  const { ingest, journal } = await opened();
  journal.stall();
  const first = ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  let isAnswered = false;
  const copy = ingest.take(message('{"v":1,"boot":"b","seq":1}')).then(() => {
    isAnswered = true;
  });
  await new Promise((resolve) => setImmediate(resolve));
  expect(isAnswered).toBe(false);
  journal.release();
  await Promise.all([first, copy]);
  expect(journal.points()).toHaveLength(1);
});

test('a copy is not acknowledged before the dead letters of the first one are durable', async () => {
  let keep = () => {};
  const kept = new Promise<void>((resolve) => {
    keep = resolve;
  });
  const { ingest } = await opened({ deadLetters: { add: () => kept, replace: async () => false } });
  await ingest.take(message('{"v":1}'));
  const answered: string[] = [];
  const first = ingest.take(message('{"v":"x","w":1,"boot":"b","seq":1}')).then(() => answered.push('first'));
  await new Promise((resolve) => setImmediate(resolve));
  const copy = ingest.take(message('{"v":"x","w":1,"boot":"b","seq":1}')).then(() => answered.push('copy'));
  await new Promise((resolve) => setImmediate(resolve));
  expect(answered).toEqual([]);
  keep();
  await Promise.all([first, copy]);
  expect(answered).toHaveLength(2);
});

test('a message that could not be stored is new when it is sent again, and so is its copy', async () => {
  const { ingest, journal } = await opened();
  journal.failWith = full;
  journal.stall();
  const first = ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  const copy = ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  journal.release();
  await expect(first).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  await expect(copy).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  journal.failWith = undefined;
  await ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  expect(journal.points()).toHaveLength(1);
});

test('what a later message said about a failed one does not outlive a restart', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":0,"boot":"b","seq":0}'));
  journal.failWith = full;
  journal.stall();
  const failing = ingest.take(message('{"v":1,"boot":"b","seq":1}'));
  journal.failWith = undefined;
  const later = ingest.take(message('{"v":2,"boot":"b","seq":2}'));
  journal.release();
  await expect(failing).rejects.toThrow();
  await later;
  const { ingest: restarted } = await opened({}, journal);
  await restarted.take(message('{"v":1,"boot":"b","seq":1}'));
  expect(journal.points().map(({ fields }) => fields.get('v'))).toEqual([0, 2, 1]);
});

test('a message whose dead letter could not be kept is new when it is sent again', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":1}'));
  journal.failLettersWith = full;
  await expect(ingest.take(message('{"v":"x","w":1,"boot":"b","seq":1}'))).rejects.toThrow();
  journal.failLettersWith = undefined;
  await ingest.take(message('{"v":"x","w":1,"boot":"b","seq":1}'));
  expect(journal.letters).toHaveLength(1);
});

test('duplicates are recognised over a restart, out of order, and per boot', async () => {
  const { ingest, journal } = await opened();
  for (const seq of [1, 3, 2]) await ingest.take(message(`{"v":1,"boot":"b","seq":${seq}}`));
  const { ingest: restarted } = await opened({}, journal);
  for (const seq of [1, 2, 3]) await restarted.take(message(`{"v":1,"boot":"b","seq":${seq}}`));
  expect(restarted.stats().duplicates).toBe(3);
  await restarted.take(message('{"v":1,"boot":"c","seq":1}'));
  await restarted.take(message('{"v":1,"boot":"b","seq":1}'));
  expect(restarted.stats().duplicates).toBe(4);
  expect(journal.points()).toHaveLength(4);
});

test('without a boot a sequence number proves nothing', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('{"v":1,"seq":1}'));
  await ingest.take(message('{"v":1,"seq":1}'));
  expect(journal.points()).toHaveLength(2);
});

test('the oldest boots and devices are forgotten, on disk as well', async () => {
  const { ingest, journal } = await opened({ seenDevicesMax: 2 });
  const kept = () => [...journal.state.keys()].filter((key) => key.startsWith('ingest/seen/')).sort();
  for (let boot = 0; boot < 70; boot += 1) {
    await ingest.take(message(`{"v":1,"boot":${boot},"seq":1}`, { deviceId: 'one' }));
  }
  expect(kept()).toHaveLength(64);
  expect(kept()).not.toContain('ingest/seen/one/0/leak');
  for (const deviceId of ['two', 'three', 'four']) {
    await ingest.take(message('{"v":1,"boot":"a","seq":1}', { deviceId }));
  }
  expect(ingest.stats().seenDevices).toBe(2);
  expect(kept()).toEqual(['ingest/seen/four/a/leak', 'ingest/seen/three/a/leak']);
});

test('two samples of a node without a clock never become one point', async () => {
  const { ingest, journal, clock } = await opened();
  for (let count = 0; count < 2_000; count += 1) await ingest.take(message('1'));
  clock.setWallMs(clock.wallMs() - 500);
  for (let count = 0; count < 2_000; count += 1) await ingest.take(message('1'));
  const times = journal.points().map(({ time }) => time);
  expect(new Set(times).size).toBe(4_000);
  expect(times).toEqual([...times].sort((a, b) => (a! < b! ? -1 : 1)));
});

test('after the clock was set back by an hour the stamps follow it', async () => {
  const { ingest, journal, clock } = await opened();
  await ingest.take(message('1'));
  clock.setWallMs(clock.wallMs() - 3_600_000);
  await ingest.take(message('1'));
  const [first, second] = journal.points().map(({ time }) => time!);
  expect(first! - second!).toBeGreaterThan(3_500n * 1_000_000_000n);
});

test.each([
  ['of a node that never heard of NTP', 12],
  ['from the far future', '2106-01-01T00:00:00Z'],
])('a time %s is replaced by the time of arrival and counted', async (_, timestamp) => {
  const { ingest, journal, clock } = await opened();
  await ingest.take(message(JSON.stringify({ v: 1, timestamp })));
  const difference = journal.points()[0]!.time! - BigInt(clock.wallMs()) * 1_000_000n;
  expect(difference >= 0n && difference < 1_000_000n).toBe(true);
  expect(ingest.stats().timesReplaced).toBe(1);
});

test('while the gateway itself has no time, a node that has one is believed, others are counted from the boot', async () => {
  const time = {
    ...knownTime(fakeClock()),
    ...{ isKnown: false, boot: 77, wallMs: () => Date.UTC(2026, 9, 1), bootNs: () => 5_000n },
  };
  const { ingest, journal, observed } = await opened({ time });
  await ingest.take(message('{"v":1,"timestamp":"2026-11-21T00:00:00Z"}'));
  expect(journal.points()[0]?.time).toBe(1_795_219_200_000_000_000n);
  expect(journal.appends[0]?.undated).toBeUndefined();
  expect(ingest.stats().timesReplaced).toBe(0);
  await ingest.take(message('{"v":1}'));
  await ingest.take(message('{"v":1,"timestamp":"2106-01-01T00:00:00Z"}'));
  expect(journal.lines().slice(1)).toEqual([
    expect.stringMatching(/ v=1 b77\+5000$/),
    expect.stringMatching(/ v=1 b77\+5001$/),
  ]);
  expect(journal.appends.slice(1).map(({ undated }) => undated)).toEqual([true, true]);
  expect(observed.map(({ boot }) => boot)).toEqual([undefined, 77, 77]);
  expect(ingest.stats().timesReplaced).toBe(1);
});

test('a renamed device gets its new tags with the next point', async () => {
  let name = 'Old';
  const { ingest, journal } = await opened({ describe: () => ({ name }) });
  await ingest.take(message('1'));
  name = 'New';
  await ingest.take(message('1'));
  ingest.forget('probe-1');
  await ingest.take(message('1'));
  expect(journal.points().map(({ tags }) => tags.get('device_name'))).toEqual(['Old', 'Old', 'New']);
});

test('of many lines the good ones are stored in one append and each bad one is a letter', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message('a v=1 1795219140\nnonsense\nb v=2 1795219141', { name: 'batch' }));
  expect(journal.appends).toHaveLength(1);
  expect(journal.points().map(({ measurement }) => measurement)).toEqual(['a', 'b']);
  expect(journal.letters.map(({ bytes }) => bytes.toString())).toEqual(['nonsense']);
});

test('an empty message is answered and counted, nothing is stored', async () => {
  const { ingest, journal } = await opened();
  await ingest.take(message(''));
  expect(journal.appends).toEqual([]);
  expect(ingest.stats()).toMatchObject({ messages: 1, empty: 1, points: 0 });
});

test('entries of the hot state that cannot be read are left out', async () => {
  const journal = new MemoryJournal();
  journal.state.set('ingest/type/x/y', Buffer.from('garbage'));
  journal.state.set('ingest/seen/probe-1/b/leak', Buffer.from('garbage'));
  const { ingest } = await opened({}, journal);
  expect(ingest.stats()).toMatchObject({ fieldTypes: 0, seenDevices: 0 });
});
