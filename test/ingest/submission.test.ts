// Points handed over together by a sender who waits to hear of each: HTTP.

import { pino } from 'pino';
import { expect, test } from 'vitest';
import { Ingest, type IngestOptions } from '../../src/ingest/ingest.ts';
import type { SubmittedPoint } from '../../src/ingest/submission.ts';
import type { Point } from '../../src/model/point.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { fakeClock, knownTime, MemoryJournal, message } from './fakes.ts';

const log = pino({ level: 'silent' });
const full = new GatewayError('JOURNAL_FULL', 'no room');

async function opened(overrides: Partial<IngestOptions> = {}, journal = new MemoryJournal()) {
  const clock = fakeClock();
  const observed: Point[] = [];
  const ingest = await Ingest.open({
    appender: journal,
    deadLetters: journal,
    hotState: journal,
    describe: () => ({ location: 'kitchen' }),
    gatewayId: 'gw-1',
    observe: (points) => void observed.push(...points),
    time: knownTime(clock),
    log,
    ...overrides,
  });
  const submit = (...points: SubmittedPoint[]) => ingest.submit(points, { receivedMonotonicMs: 0 });
  return { ingest, submit, journal, observed };
}

function point(fields: SubmittedPoint['fields'], overrides: Partial<SubmittedPoint> = {}): SubmittedPoint {
  return { deviceId: 'probe-1', measurement: 'climate', fields, ...overrides };
}

const accepted = { kind: 'accepted', isCopy: false, tagsDropped: [], isTimeReplaced: false };

test('points of several devices become one durable append with the tags of the registry', async () => {
  const { submit, journal } = await opened();
  const timestamp = '2026-11-20T23:59:00Z';
  const verdicts = await submit(
    point({ temperature: 21.5, timestamp }),
    point({ on: true, timestamp }, { deviceId: 'plug-1', measurement: '' }),
  );
  expect(verdicts).toMatchObject([accepted, accepted]);
  expect(journal.appends).toMatchObject([{ class: 'telemetry', points: 2 }]);
  expect(journal.lines()).toEqual([
    'climate,device_id=probe-1,gateway=gw-1,location=kitchen temperature=21.5 1795219140000000000',
    'device_telemetry,device_id=plug-1,gateway=gw-1,location=kitchen on=true 1795219140000000000',
  ]);
});

test('the rules see all points before the journal has the first, also those that are refused', async () => {
  const { submit, journal, observed } = await opened();
  journal.stall();
  const answered = submit(
    point({ temperature: 1 }),
    point({ wet: true, oops: [] }, { measurement: 'leak' }),
    point({ wet: true }, { deviceId: 'probe-2', measurement: 'leak' }),
  );
  expect(observed.map(({ tags, fields }) => [tags.get('device_id'), fields.get('wet')])).toEqual([
    ['probe-1', undefined],
    ['probe-1', true],
    ['probe-2', true],
  ]);
  expect(journal.appends).toHaveLength(0);
  journal.release();
  expect((await answered).map(({ kind }) => kind)).toEqual(['accepted', 'refused', 'accepted']);
});

test('a point that cannot be taken is told to its sender and is no dead letter; its neighbours are stored', async () => {
  const { ingest, submit, journal } = await opened();
  const verdicts = await submit(
    point({ temperature: 1 }),
    point({ temperature: { value: 2 } }),
    point({}),
    point({ temperature: 3, timestamp: 'yesterday' }),
    point({ temperature: 4 }),
  );
  expect(verdicts).toMatchObject([
    accepted,
    { kind: 'refused', code: 'FIELD_NOT_SCALAR', field: 'temperature' },
    { kind: 'refused', code: 'NO_FIELDS' },
    { kind: 'refused', code: 'TIMESTAMP_INVALID', field: 'timestamp' },
    accepted,
  ]);
  expect(journal.points().map(({ fields }) => fields.get('temperature'))).toEqual([1, 4]);
  expect(journal.letters).toEqual([]);
  expect(ingest.stats().refused).toEqual({ FIELD_NOT_SCALAR: 1, NO_FIELDS: 1, TIMESTAMP_INVALID: 1 });
});

test('a value of another type refuses its point whole, and what else was in it pins no type', async () => {
  const { ingest, submit, journal } = await opened();
  await submit(point({ temperature: 1 }));
  expect(await submit(point({ fresh: 'text', temperature: 'warm' }))).toMatchObject([
    { kind: 'refused', code: 'FIELD_TYPE_CONFLICT', field: 'temperature' },
  ]);
  expect(await submit(point({ fresh: 5, temperature: 2 }))).toMatchObject([accepted]);
  expect(journal.points()).toHaveLength(2);
  expect([...journal.state.keys()]).toEqual(['ingest/type/climate/temperature', 'ingest/type/climate/fresh']);
  expect(ingest.fieldTypes()).toContainEqual({ measurement: 'climate', field: 'fresh', pinned: 'float' });
});

test('where there is no room for new fields a point is refused whole, known fields go on', async () => {
  const { ingest, submit } = await opened({ fieldTypesMax: 2 });
  expect(
    await submit(point({ a: 1 }), point({ b: 1, c: 1 }), point({ a: 2 }), point({ d: 1 })),
  ).toMatchObject([accepted, { code: 'FIELD_LIMIT', field: 'c' }, accepted, accepted]);
  expect(ingest.stats().fieldTypes).toBe(2);
});

test('a point sent twice is stored once, within a submission, after it, and beside MQTT', async () => {
  const { ingest, submit, journal } = await opened();
  const one = { temperature: 1, boot: 'b1', seq: 7 };
  const copied = { ...accepted, isCopy: true };
  expect(await submit(point(one), point(one), point({ ...one, seq: 8 }))).toMatchObject([
    accepted,
    copied,
    accepted,
  ]);
  expect(await submit(point(one), point(one, { deviceId: 'probe-2' }))).toMatchObject([copied, accepted]);
  await ingest.take(message(JSON.stringify({ ...one, seq: 8 }), { name: 'climate' }));
  expect(journal.points()).toHaveLength(3);
  expect(ingest.stats().duplicates).toBe(3);
});

test('what was seen outlives a restart', async () => {
  const { submit, journal } = await opened();
  await submit(...Array.from({ length: 20 }, (_, seq) => point({ v: seq, boot: 'b1', seq })));
  const restarted = await opened({}, journal);
  expect(
    await restarted.submit(point({ v: 3, boot: 'b1', seq: 3 }), point({ v: 20, boot: 'b1', seq: 20 })),
  ).toMatchObject([{ ...accepted, isCopy: true }, accepted]);
});

test('a copy is answered when the first one is durable, and not when that failed', async () => {
  const { submit, journal } = await opened();
  const one = point({ temperature: 1, boot: 'b1', seq: 7 });
  journal.stall();
  journal.failWith = full;
  const answers = [submit(one), submit(one)];
  journal.release();
  for (const answer of answers) await expect(answer).rejects.toThrow('no room');
  journal.failWith = undefined;
  expect(await submit(one)).toMatchObject([accepted]);
});

test('what the journal refuses can be sent again: it is no copy, and its types are written then', async () => {
  const { ingest, submit, journal } = await opened();
  journal.failWith = full;
  const one = point({ temperature: 1, boot: 'b1', seq: 7 });
  await expect(submit(one)).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  journal.failWith = undefined;
  journal.state.clear();
  expect(await submit(one)).toMatchObject([accepted]);
  expect([...journal.state.keys()].sort()).toEqual([
    'ingest/seen/probe-1/b1/climate',
    'ingest/type/climate/temperature',
  ]);
  expect(ingest.stats()).toMatchObject({ points: 1, inFlight: 0, refusedForNow: 1 });
});

test('tags are those of the registry; others are named, and points that differed only by them are not merged', async () => {
  const { ingest, submit, journal } = await opened();
  const timestamp = '2026-11-20T23:59:00Z';
  const verdicts = await submit(
    point({ v: 1, timestamp }, { tags: { location: 'kitchen', sensor_type: 'dht22' } }),
    point({ v: 2, timestamp }, { tags: { location: 'kitchen', sensor_type: 'bme280' } }),
    point({ v: 3, timestamp }),
    point({ v: 4 }, { tags: { location: 'attic' } }),
  );
  expect(verdicts).toMatchObject([
    { ...accepted, tagsDropped: ['sensor_type'] },
    { code: 'TAGS_NOT_ALLOWED' },
    { code: 'TAGS_NOT_ALLOWED' },
    { ...accepted, tagsDropped: ['location'] },
  ]);
  expect(journal.points().map(({ tags }) => tags.get('location'))).toEqual(['kitchen', 'kitchen']);
  expect(ingest.stats().tagsDropped).toBe(2);
});

test('a time no clock could have meant is replaced, and the sender hears it', async () => {
  const { submit, journal } = await opened();
  expect(await submit(point({ v: 1, timestamp: 0 }))).toMatchObject([{ ...accepted, isTimeReplaced: true }]);
  expect(journal.points()[0]?.time).toBe(1_795_219_200_000_000_008n);
});

test('history is told of each device’s points once they are durable', async () => {
  const told: [string, number][] = [];
  const { submit, journal } = await opened({
    onDurable: (points, id) => void told.push([id, points.length]),
  });
  journal.stall();
  const answered = submit(point({ v: 1 }), point({ v: 2 }, { deviceId: 'probe-2' }), point({ v: 3 }));
  expect(told).toEqual([]);
  journal.release();
  await answered;
  expect(told).toEqual([
    ['probe-1', 2],
    ['probe-2', 1],
  ]);
});

test('no append comes near what the journal refuses for good, however long names and texts are', async () => {
  const { submit, journal } = await opened();
  const name = (n: number) => `${'é'.repeat(60)}${n}`;
  const fields = (n: number) =>
    Object.fromEntries(Array.from({ length: 60 }, (_, at) => [name(n * 60 + at), '"'.repeat(1_000)]));
  const verdicts = await submit(
    ...Array.from({ length: 12 }, (_, n) => point(fields(n), { measurement: name(n) })),
  );
  expect(verdicts.every(({ kind }) => kind === 'accepted')).toBe(true);
  expect(journal.points()).toHaveLength(12);
  expect(journal.appends.length).toBeGreaterThan(1);
  for (const { lines, state = [] } of journal.appends) {
    const stateBytes = state.reduce(
      (sum, { key, value }) => sum + Buffer.byteLength(key) + (value?.length ?? 0),
      0,
    );
    expect(Buffer.byteLength(lines) + stateBytes).toBeLessThan(512 * 1024);
  }
});
