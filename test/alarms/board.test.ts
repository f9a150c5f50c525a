import { pino } from 'pino';
import { expect, test } from 'vitest';
import { AlarmBoard, type AlarmBoardOptions, type AlarmChange } from '../../src/alarms/board.ts';
import { operations } from '../../src/alarms/operations.ts';
import type { Sound } from '../../src/alarms/state.ts';
import type { Condition } from '../../src/model/alarm.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { fakeClock, knownTime, MemoryJournal } from '../ingest/fakes.ts';
import { until } from '../support/until.ts';

const log = pino({ level: 'silent' });

async function opened(overrides: Partial<AlarmBoardOptions> = {}, journal = new MemoryJournal()) {
  const clock = fakeClock();
  const sounds: Sound[] = [];
  const recorded: AlarmChange[] = [];
  const board = await AlarmBoard.open({
    hotState: journal,
    annunciators: [{ name: 'test', sound: (sound) => void sounds.push(sound) }],
    record: async (change) => void recorded.push(change),
    clock,
    time: knownTime(clock),
    log,
    retryMs: 5,
    ...overrides,
  });
  return { board, clock, journal, sounds, recorded, now: () => sounds.at(-1) };
}

function wet(place = 'sink', active = true): Condition {
  return {
    id: `wet/${place}`,
    rule: 'wet',
    deviceId: place,
    priority: 'critical',
    latching: true,
    active,
    message: `Water at ${place}`,
  };
}

function silent(active = true): Condition {
  const id = 'silent/sink';
  return {
    ...wet('sink', active),
    id,
    rule: 'silence',
    priority: 'low',
    latching: false,
    message: 'No word',
  };
}

function states(board: AlarmBoard): string[] {
  return board.list().map(({ id, state }) => `${id} ${state}`);
}

test('the buzzer is on when apply returns, although the disk has stalled', async () => {
  const { board, journal, now } = await opened();
  journal.stall();
  board.apply([wet()]);
  expect(now()).toBe('critical');
  expect(journal.state.size).toBe(0);
  journal.release();
  await until(() => journal.state.size === 1);
});

test('the time from message to buzzer is kept as a histogram', async () => {
  const { board, clock } = await opened();
  const received = clock.monotonicMs();
  clock.advance(3);
  board.apply([wet()], received);
  expect(board.stats().latency).toMatchObject({ count: 1, sumMs: 3 });
});

test('a leak goes through its life: raised, acknowledged, dry, forgotten', async () => {
  const { board, sounds, recorded, journal } = await opened();
  board.apply([wet()]);
  expect(states(board)).toEqual(['wet/sink unacknowledged']);
  await board.acknowledge('wet/sink', 'me');
  expect(states(board)).toEqual(['wet/sink acknowledged']);
  board.apply([wet('sink', false)]);
  expect(states(board)).toEqual([]);
  expect(sounds).toEqual(['off', 'critical', 'off']);
  await until(() => recorded.length === 3 && journal.state.size === 0);
  expect(recorded.map(({ verb, from, to, by }) => [verb, from, to, by])).toEqual([
    ['raised', 'normal', 'unacknowledged', undefined],
    ['acknowledged', 'unacknowledged', 'acknowledged', 'me'],
    ['cleared', 'acknowledged', 'normal', undefined],
  ]);
});

test('a leak that dried up before anyone looked goes on sounding until acknowledged', async () => {
  const { board, now } = await opened();
  board.apply([wet()]);
  board.apply([wet('sink', false)]);
  expect(states(board)).toEqual(['wet/sink latched']);
  expect(now()).toBe('critical');
  await board.acknowledge(undefined, 'me');
  expect(states(board)).toEqual([]);
  expect(now()).toBe('off');
});

test('an alarm that does not latch falls silent when it is over, and is still shown', async () => {
  const { board, now } = await opened();
  board.apply([silent()]);
  expect(now()).toBe('trouble');
  board.apply([silent(false)]);
  expect(now()).toBe('off');
  expect(states(board)).toEqual(['silent/sink returned-unacknowledged']);
});

test('an acknowledgement is silent at once and confirmed when it is durable', async () => {
  const { board, journal, now } = await opened();
  board.apply([wet()]);
  await until(() => journal.state.size === 1);
  journal.stall();
  let isConfirmed = false;
  const confirmed = board.acknowledge(undefined, 'me').then(() => {
    isConfirmed = true;
  });
  expect(now()).toBe('off');
  await new Promise((resolve) => setImmediate(resolve));
  expect(isConfirmed).toBe(false);
  journal.release();
  await confirmed;
  expect(journal.state.get('alarms/wet/sink')?.toString()).toContain('"acknowledged":true');
});

test('a disk that fails neither silences the alarm nor loses it', async () => {
  const { board, journal, now } = await opened();
  journal.failWith = new GatewayError('JOURNAL_FAILED', 'broken');
  board.apply([wet()]);
  expect(now()).toBe('critical');
  await expect(board.acknowledge(undefined, 'me')).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
  expect(now()).toBe('off');
  journal.failWith = undefined;
  await until(() => journal.state.size === 1);
  expect(board.stats().saveFailures).toBeGreaterThan(0);
  expect(board.stats().unsaved).toBe(0);
});

test('changes that could not be recorded are recorded later, in order', async () => {
  const recorded: string[] = [];
  let isBroken = true;
  const { board } = await opened({
    record: async ({ verb }) => {
      if (isBroken) throw new GatewayError('JOURNAL_FULL', 'full');
      recorded.push(verb);
    },
  });
  board.apply([wet()]);
  await until(() => board.stats().recordFailures > 0);
  await board.acknowledge(undefined, 'me');
  isBroken = false;
  await until(() => recorded.length === 2);
  expect(recorded).toEqual(['raised', 'acknowledged']);
});

test('after a restart an unacknowledged leak sounds again at once, an acknowledged one does not', async () => {
  const first = await opened();
  first.board.apply([wet('sink'), wet('bath')]);
  await first.board.acknowledge('wet/bath', 'me');
  await first.board.close();
  expect(first.now()).toBe('off');
  const second = await opened({}, first.journal);
  expect(second.sounds).toEqual(['critical']);
  expect(states(second.board)).toEqual(['wet/sink unacknowledged', 'wet/bath acknowledged']);
  await second.board.acknowledge(undefined, 'me');
  second.board.apply([wet('bath')]);
  expect(second.now()).toBe('off');
});

test('a stored alarm that cannot be read does not keep the board from opening', async () => {
  const journal = new MemoryJournal();
  journal.state.set('alarms/wet/sink', Buffer.from('garbage'));
  const { board } = await opened({}, journal);
  expect(board.list()).toEqual([]);
});

test('silence hushes for ten minutes', async () => {
  const { board, clock, now } = await opened();
  board.apply([wet()]);
  board.silence('me');
  expect(now()).toBe('off');
  expect(states(board)).toEqual(['wet/sink unacknowledged']);
  clock.advance(10 * 60_000 - 1);
  board.tick();
  expect(now()).toBe('off');
  clock.advance(1);
  board.tick();
  expect(now()).toBe('critical');
});

test('a new leak breaks the hush, a lesser alarm and the same leak do not', async () => {
  const { board, now } = await opened();
  board.apply([wet('sink')]);
  board.silence('me');
  board.apply([silent(), wet('sink')]);
  expect(now()).toBe('off');
  board.apply([wet('bath')]);
  expect(now()).toBe('critical');
});

test('at the limit the least important alarm gives way, and is recorded', async () => {
  const { board, recorded } = await opened({ alarmsMax: 2 });
  board.apply([silent(), wet('sink')]);
  board.apply([wet('bath')]);
  expect(states(board).sort()).toEqual(['wet/bath unacknowledged', 'wet/sink unacknowledged']);
  expect(board.stats().evicted).toBe(1);
  await until(() => recorded.length === 4);
  expect(recorded.map(({ verb }) => verb)).toContain('evicted');
});

test('listeners hear of changes after the sound', async () => {
  const { board, sounds } = await opened();
  const heard: string[] = [];
  const stop = board.onChange((changes) => {
    heard.push(...changes.map(({ verb }) => `${verb} with ${sounds.at(-1)}`));
  });
  board.apply([wet()]);
  board.apply([wet()]);
  stop();
  board.apply([wet('sink', false)]);
  expect(heard).toEqual(['raised with critical']);
});

test('an operator lists, acknowledges and silences by name', async () => {
  const { board, now } = await opened();
  board.apply([wet('sink'), wet('bath')]);
  const known = operations(board);
  expect([...known.keys()]).toEqual(['alarms.list', 'alarms.acknowledge', 'alarms.silence']);
  expect(await known.get('alarms.list')!({})).toMatchObject({
    alarms: [
      { id: 'wet/sink', device_id: 'sink', raised_count: 1, raised_at: expect.stringMatching(/Z$/) },
      { id: 'wet/bath' },
    ],
    count: 2,
    sound: 'critical',
    is_silenced: false,
  });
  expect(await known.get('alarms.acknowledge')!({ id: 'wet/sink' })).toEqual({ acknowledged: ['wet/sink'] });
  expect(await known.get('alarms.silence')!({})).toHaveProperty('until');
  expect(now()).toBe('off');
  await expect(known.get('alarms.acknowledge')!({ id: 'wet/moon' })).rejects.toMatchObject({
    code: 'ALARM_UNKNOWN',
  });
  await expect(known.get('alarms.acknowledge')!({ id: 7 })).rejects.toMatchObject({
    code: 'ARGUMENT_INVALID',
  });
});
