import fc from 'fast-check';
import { expect, onTestFinished, test } from 'vitest';
import type { Command } from '../../src/commands/command.ts';
import { type CommandLimits, Commands, type NewCommand } from '../../src/commands/commands.ts';
import type { Delivery, Downlink, OutgoingCommand } from '../../src/model/command.ts';
import type { Message } from '../../src/model/message.ts';
import { createLog } from '../../src/platform/log.ts';
import type { TimeBase } from '../../src/platform/time-base.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { FakeMachine } from '../support/fake-machine.ts';
import { MemorySessionLog } from '../support/session-log.ts';
import { until } from '../support/until.ts';

const hourMs = 3_600_000;
const synchronized = { kind: 'synchronized', source: 'a time server' } as const;

/** A way to devices that keeps what they got, and answers as the test says. */
class Line implements Downlink {
  readonly got: {
    readonly deviceId: string;
    readonly id: string;
    readonly kind: string;
    readonly body: unknown;
  }[] = [];
  readonly listening = new Set<string>();
  answer: () => Promise<Delivery> | Delivery = () => ({ kind: 'taken' });
  #tell: (deviceId: string) => void = () => undefined;

  async deliver(deviceId: string, { id, kind, payload }: OutgoingCommand): Promise<Delivery> {
    if (!this.listening.has(deviceId)) return { kind: 'offline', wasSent: false };
    this.got.push({ deviceId, id, kind, body: JSON.parse(payload.toString()) });
    return await this.answer();
  }

  onReachable(listener: (deviceId: string) => void): void {
    this.#tell = listener;
  }

  wake(deviceId: string): void {
    this.listening.add(deviceId);
    this.#tell(deviceId);
  }

  sleep(deviceId: string): void {
    this.listening.delete(deviceId);
  }

  get kinds(): string[] {
    return this.got.map(({ kind }) => kind);
  }
}

class House {
  readonly machine = new FakeMachine();
  readonly line = new Line();
  readonly devices = new Map([
    ['valve', { id: 1, status: 'active' }],
    ['siren', { id: 2, status: 'active' }],
  ]);
  log = new MemorySessionLog();
  limits: Partial<CommandLimits> = {};
  time!: TimeBase;
  commands!: Commands;
  random = seededRandom(7);
  /** Forever, unless a test is about it. */
  diskPatienceMs = 1_000_000;

  static async open(limits: Partial<CommandLimits> = {}, diskPatienceMs?: number): Promise<House> {
    const house = new House();
    house.limits = limits;
    house.diskPatienceMs = diskPatienceMs ?? house.diskPatienceMs;
    house.machine.verdict = synchronized;
    await house.start();
    onTestFinished(() => house.stop());
    return house;
  }

  async start(): Promise<void> {
    this.time = await this.machine.open();
    this.commands = await Commands.open({
      keeper: this.log,
      time: {
        boot: this.time.boot,
        bootNs: () => this.machine.bootNs,
        dateOf: (boot, ns) => this.time.dateOf(boot, ns),
      },
      clock: { monotonicMs: () => this.machine.monotonicMs },
      random: () => 0.5,
      randomBytes: (size) => Buffer.from(Array.from({ length: size }, () => Math.floor(this.random() * 256))),
      device: (deviceId) => this.devices.get(deviceId),
      log: createLog('silent'),
      limits: this.limits,
      diskPatienceMs: this.diskPatienceMs,
    });
    this.commands.attach(this.line);
  }

  async stop(): Promise<void> {
    await this.commands.close();
    await this.time.close();
  }

  /** As after a power cut: what was not durable is gone. */
  async cut(offMs = 0, aheadMs = 0): Promise<void> {
    this.log = this.log.afterPowerCut();
    await this.stop();
    this.machine.keeper.flush();
    this.machine.boot(aheadMs, offMs);
    await this.start();
  }

  send(wanted: Partial<NewCommand> & { kind: string }): Promise<Command> {
    return this.commands.submit({ deviceId: 'valve', payload: {}, actor: 'anna', ...wanted });
  }

  acknowledge(kind: string, payload: unknown, deviceId = 'valve'): Promise<void> {
    return this.commands.acknowledge(answerOf(kind, payload, deviceId));
  }

  state(command: Command): string | undefined {
    return this.commands.find(command.deviceId, command.id)?.state;
  }
}

function answerOf(kind: string, payload: unknown, deviceId = 'valve'): Message {
  return {
    transport: 'mqtt',
    deviceId,
    channel: 'command-ack',
    name: kind,
    payload: Buffer.from(typeof payload === 'string' ? payload : JSON.stringify(payload)),
    receivedMonotonicMs: 0,
  };
}

/** Lets everything that waits for nothing but its turn happen. */
async function settled(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await new Promise((resolve) => setImmediate(resolve));
}

test('a device that listens has the command before the caller has its answer where the card hangs', async () => {
  const house = await House.open({}, 1);
  house.line.wake('valve');
  let release: () => void = () => undefined;
  house.log.beforeWrite = () => new Promise((resolve) => (release = resolve));
  const sent = house.send({ kind: 'close', payload: { speed: 3 } });
  await until(() => house.line.got.length === 1);
  house.log.beforeWrite = undefined;
  release();
  const command = await sent;
  expect(house.line.got[0]).toMatchObject({ body: { id: command.id, kind: 'close', speed: 3 } });
  expect(house.state(command)).toBe('delivered');
  await house.acknowledge('close', { id: command.id, status: 'ok', message: 'shut' });
  expect(house.commands.show(command)).toMatchObject({
    state: 'acknowledged',
    message: 'shut',
    actor: 'anna',
    created_at: '2026-11-21T00:00:00.000Z',
    delivered_at: '2026-11-21T00:00:00.000Z',
  });
});

test('a device asleep gets its commands in order when it wakes, each after it has the one before', async () => {
  const house = await House.open();
  for (const kind of ['one', 'two', 'three']) await house.send({ kind });
  expect(house.line.got).toEqual([]);
  const release: (() => void)[] = [];
  house.line.answer = () => new Promise((resolve) => release.push(() => resolve({ kind: 'taken' })));
  house.line.wake('valve');
  await settled();
  expect(house.line.kinds).toEqual(['one']);
  release[0]?.();
  await settled();
  expect(house.line.kinds).toEqual(['one', 'two']);
  // It goes to sleep with the second one unconfirmed.
  house.line.answer = () => ({ kind: 'taken' });
  house.line.sleep('valve');
  await house.send({ kind: 'four' });
  house.line.wake('valve');
  expect(release).toHaveLength(2);
  release[1]?.();
  await settled();
  expect(house.line.kinds).toEqual(['one', 'two', 'three', 'four']);
});

test('a device that goes away before it confirms gets the same command again when it is back', async () => {
  const house = await House.open();
  house.line.answer = () => ({ kind: 'offline', wasSent: true });
  const command = await house.send({ kind: 'close' });
  house.line.wake('valve');
  await settled();
  expect(house.state(command)).toBe('queued');
  house.line.answer = () => ({ kind: 'taken' });
  house.line.wake('valve');
  await settled();
  expect(house.line.got.map(({ id }) => id)).toEqual([command.id, command.id]);
  expect(house.state(command)).toBe('delivered');
});

test('a device that is back before it was found to be gone is not forgotten', async () => {
  const house = await House.open();
  let gone: (delivery: Delivery) => void = () => undefined;
  house.line.answer = () => new Promise((resolve) => (gone = resolve));
  house.line.wake('valve');
  await house.send({ kind: 'close' });
  house.line.answer = () => ({ kind: 'taken' });
  house.line.wake('valve');
  gone({ kind: 'offline', wasSent: true });
  await settled();
  house.machine.pass(60_000);
  house.commands.tick();
  await settled();
  expect(house.line.kinds).toEqual(['close', 'close']);
});

test('a device that confirms nothing is tried again ever more rarely, then given up, and the next command goes', async () => {
  const house = await House.open({ attemptsMax: 4 });
  house.line.answer = () => ({ kind: 'unanswered' });
  house.line.wake('valve');
  const first = await house.send({ kind: 'first' });
  const second = await house.send({ kind: 'second' });
  const waits: number[] = [];
  let waited = 0;
  for (let second = 0; second < 300 && house.state(first) === 'queued'; second += 1) {
    const before = house.line.got.length;
    house.machine.pass(1000);
    waited += 1;
    house.commands.tick();
    await settled();
    if (house.line.got.length === before) continue;
    waits.push(waited);
    waited = 0;
    if (house.line.got.length === 3) house.line.answer = () => ({ kind: 'unanswered' });
  }
  expect(waits).toEqual([8, 15, 30]);
  expect(house.commands.show(first)).toMatchObject({
    state: 'failed',
    message: 'sent 4 times, never confirmed',
  });
  expect(house.line.kinds).toEqual(['first', 'first', 'first', 'first', 'second']);
  expect(house.state(second)).toBe('queued');
});

test('a device that answers with ids is asked again until it answers; one that never did is not', async () => {
  const house = await House.open({ attemptsMax: 3 });
  house.line.wake('valve');
  house.line.wake('siren');
  const known = await house.send({ kind: 'close' });
  await house.acknowledge('close', { id: known.id });
  await house.send({ kind: 'close' });
  await house.send({ kind: 'on', deviceId: 'siren' });
  for (let second = 0; second < 600; second += 1) {
    house.machine.pass(1000);
    house.commands.tick();
    await settled();
  }
  expect(house.line.got.filter(({ deviceId }) => deviceId === 'siren')).toHaveLength(1);
  expect(house.line.got.filter(({ deviceId }) => deviceId === 'valve')).toHaveLength(1 + 3);
});

test('what is cancelled on its way stays cancelled, whatever becomes of the delivery', async () => {
  const house = await House.open();
  house.line.wake('valve');
  for (const kind of ['taken', 'unanswered', 'refused'] as const) {
    let end: () => void = () => undefined;
    house.line.answer = () =>
      new Promise((resolve) => (end = () => resolve({ kind, reason: 'for the test' })));
    const command = await house.send({ kind: 'open' });
    await house.commands.cancel('valve', command.id, 'anna');
    end();
    await settled();
    expect(house.state(command)).toBe('cancelled');
  }
  expect(house.commands.stats()).toMatchObject({ cancelled: 3, failed: 0, pending: 0 });
});

test('a node that knows no ids answers the oldest command of the kind that it was given', async () => {
  const house = await House.open();
  house.line.wake('valve');
  const first = await house.send({ kind: 'open' });
  const second = await house.send({ kind: 'open' });
  const other = await house.send({ kind: 'close' });
  await settled();
  await house.acknowledge('open', '');
  expect([first, second, other].map((one) => house.state(one))).toEqual([
    'acknowledged',
    'delivered',
    'delivered',
  ]);
  await house.acknowledge('open', 'failed');
  await house.acknowledge('close', { status: 'ok' });
  expect([second, other].map((one) => house.state(one))).toEqual(['failed', 'acknowledged']);
  await house.acknowledge('open', 'ok');
  await house.acknowledge('open', 'perhaps');
  expect(house.commands.stats()).toMatchObject({
    unmatchedAcknowledgements: 1,
    unreadableAcknowledgements: 1,
  });
});

test('an answer that is taken again because the disk failed answers the same command, not the next', async () => {
  const house = await House.open();
  house.line.wake('valve');
  const first = await house.send({ kind: 'open' });
  const second = await house.send({ kind: 'open' });
  await settled();
  const message = answerOf('open', 'ok');
  house.log.beforeWrite = () => Promise.reject(new Error('the disk'));
  await expect(house.commands.acknowledge(message)).rejects.toThrow('the disk');
  house.log.beforeWrite = undefined;
  await house.commands.acknowledge(message);
  expect([house.state(first), house.state(second)]).toEqual(['acknowledged', 'delivered']);
  await house.cut();
  expect(house.state(first)).toBe('acknowledged');
});

test('answers that come too late, twice, or to nothing, change nothing and are counted', async () => {
  const house = await House.open();
  house.line.wake('valve');
  const command = await house.send({ kind: 'open' });
  await house.commands.cancel('valve', command.id, 'anna');
  await house.acknowledge('open', { id: command.id });
  await house.acknowledge('open', { id: 'nobody' });
  const done = await house.send({ kind: 'open' });
  await house.acknowledge('open', { id: done.id });
  await house.acknowledge('open', { id: done.id, status: 'failed' });
  expect(house.state(done)).toBe('acknowledged');
  const other = await house.send({ kind: 'open' });
  await house.acknowledge('close', { id: other.id });
  await house.acknowledge('open', { id: other.id }, 'siren');
  expect([house.state(command), house.state(other)]).toEqual(['cancelled', 'delivered']);
  expect(house.commands.stats()).toMatchObject({ lateAcknowledgements: 1, unmatchedAcknowledgements: 3 });
});

test('the same idempotency key is the same command, also for a caller that asks before the first is durable', async () => {
  const house = await House.open();
  const wanted = { kind: 'open', payload: { for_s: 30 }, idempotencyKey: 'irrigation-0615' };
  const [first, second] = await Promise.all([house.send(wanted), house.send(wanted)]);
  expect(second).toBe(first);
  await house.cut();
  expect((await house.send(wanted)).id).toBe(first.id);
  expect(house.commands.list('valve')).toHaveLength(1);
  await expect(house.send({ ...wanted, payload: { for_s: 31 } })).rejects.toMatchObject({
    code: 'COMMAND_CONFLICT',
  });
  // The key of another device is another key.
  expect((await house.send({ ...wanted, deviceId: 'siren' })).id).not.toBe(first.id);
});

test('a caller that saw no answer because the power failed asks again, and the device knows the copy by its id', async () => {
  const house = await House.open({}, 1);
  house.line.wake('valve');
  house.log.beforeWrite = () => new Promise(() => undefined);
  const wanted = { kind: 'open', idempotencyKey: 'now' };
  void house.send(wanted);
  await until(() => house.line.got.length === 1);
  house.log = house.log.afterPowerCut();
  house.machine.boot(0);
  await house.start();
  await house.send(wanted);
  await settled();
  const [first, second] = house.line.got;
  expect(first?.id).toBe(second?.id);
});

test('a command that cannot be stored is refused whole, and the key is free again', async () => {
  const house = await House.open();
  house.line.wake('valve');
  house.log.beforeWrite = () => Promise.reject(new Error('no room'));
  await expect(house.send({ kind: 'open', idempotencyKey: 'x' })).rejects.toThrow('no room');
  house.log.beforeWrite = undefined;
  await settled();
  expect([house.commands.list('valve'), house.line.got]).toEqual([[], []]);
  await house.send({ kind: 'open', idempotencyKey: 'x' });
  expect(house.commands.stats()).toMatchObject({ pending: 1 });
});

test('a command expires by the time that passes, whatever the clock is set to', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open', expiresInMs: hourMs });
  house.machine.wallMs += 30 * 24 * hourMs;
  house.machine.pass(hourMs - 1000);
  house.commands.tick();
  expect(house.state(command)).toBe('queued');
  house.machine.pass(1000);
  house.line.wake('valve');
  await settled();
  expect(house.state(command)).toBe('expired');
  expect(house.line.got).toEqual([]);
});

test('what expired while the machine had no power is not delivered', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open', expiresInMs: hourMs });
  await house.cut(2 * hourMs);
  house.line.wake('valve');
  await settled();
  expect([house.state(command), house.line.got]).toEqual(['expired', []]);
});

test('after a power cut without a clock nothing goes that may have expired, until the date is known', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open', expiresInMs: hourMs });
  const lasting = await house.send({ deviceId: 'siren', kind: 'config', expiresInMs: null });
  house.machine.verdict = { kind: 'waiting' };
  await house.cut(hourMs / 2, -3 * 24 * hourMs);
  house.line.wake('valve');
  house.line.wake('siren');
  await settled();
  expect(house.line.got.map(({ id }) => id)).toEqual([lasting.id]);
  expect(house.commands.stats()).toMatchObject({ held: 1 });
  expect(house.commands.collect('valve')).toEqual([]);

  house.machine.wallMs = house.machine.trueMs;
  house.machine.verdict = synchronized;
  await house.time.tick();
  house.commands.tick();
  await settled();
  expect(house.state(command)).toBe('delivered');
});

test('where the date never becomes known, a command ends once this start alone has lasted as long', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open', expiresInMs: hourMs });
  house.machine.verdict = { kind: 'waiting' };
  await house.cut(0, -3 * 24 * hourMs);
  house.line.wake('valve');
  house.machine.pass(hourMs);
  house.commands.tick();
  expect([house.state(command), house.line.got]).toEqual(['expired', []]);
});

test('the newest configuration takes the place of those that were not delivered', async () => {
  const house = await House.open();
  const configs: Command[] = [];
  for (const version of [1, 2, 3]) configs.push(await house.send({ kind: 'config', payload: { version } }));
  await house.send({ kind: 'open' });
  expect(configs.map((one) => house.state(one))).toEqual(['cancelled', 'cancelled', 'queued']);
  house.line.wake('valve');
  await settled();
  expect(house.line.got.map(({ body }) => body)).toMatchObject([
    { kind: 'config', version: 3 },
    { kind: 'open' },
  ]);
});

test('a node that is asked over HTTP is given what it has not answered, until it does', async () => {
  const house = await House.open();
  const first = await house.send({ kind: 'open' });
  expect(house.commands.collect('valve').map(({ id }) => id)).toEqual([first.id]);
  const second = await house.send({ kind: 'close' });
  expect(house.commands.collect('valve').map(({ id }) => id)).toEqual([first.id, second.id]);
  expect([house.state(first), house.state(second)]).toEqual(['delivered', 'delivered']);
  await house.acknowledge('open', { id: first.id });
  expect(house.commands.collect('valve').map(({ id }) => id)).toEqual([second.id]);
  expect(house.commands.collect('nobody')).toEqual([]);
});

test('a device that was revoked gets nothing any more', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open' });
  house.devices.set('valve', { id: 1, status: 'inactive' });
  house.commands.withdraw('valve');
  house.line.wake('valve');
  await settled();
  expect([house.state(command), house.line.got]).toEqual(['failed', []]);
  await expect(house.send({ kind: 'open' })).rejects.toMatchObject({ code: 'DEVICE_CONFLICT' });
  await expect(house.send({ kind: 'open', deviceId: 'nobody' })).rejects.toMatchObject({
    code: 'DEVICE_UNKNOWN',
  });
});

test('a device that was revoked while no gateway ran gets nothing either', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open' });
  house.devices.set('valve', { id: 1, status: 'inactive' });
  await house.cut();
  expect(house.state(command)).toBe('failed');
});

test.each(['in the run', 'beside a stopped gateway'])(
  'another device that is given the id of one that was removed %s gets nothing of its predecessor',
  async (when) => {
    const house = await House.open();
    await house.send({ kind: 'open', idempotencyKey: 'k' });
    const done = await house.send({ kind: 'close' });
    await house.acknowledge('close', { id: done.id });
    house.devices.set('valve', { id: 3, status: 'active' });
    if (when === 'in the run') {
      house.commands.forget('valve');
      expect(house.commands.list('valve')).toEqual([]);
    }
    await house.cut();
    house.line.wake('valve');
    await settled();
    expect([house.commands.list('valve'), house.line.got]).toEqual([[], []]);
    expect(house.commands.stats()).toMatchObject({ pending: 0, remembered: 0, bytes: 0, damagedRecords: 0 });
    // The key is free again.
    await house.send({ kind: 'close', idempotencyKey: 'k' });
    await settled();
    expect(house.line.kinds).toEqual(['close']);
  },
);

test.each([
  ['a kind of two levels', { kind: 'a/b' }, 'kind: expected'],
  ['a wildcard as kind', { kind: '+' }, 'kind: expected'],
  ['no kind', { kind: '' }, 'kind: expected'],
  ['an id of its own', { kind: 'x', payload: { id: 'mine' } }, 'payload.id: expected'],
  ['a kind in the payload', { kind: 'x', payload: { kind: 'y' } }, 'payload.kind: expected'],
  ['a long payload', { kind: 'x', payload: { text: 'x'.repeat(8192) } }, 'payload: expected at most 8192'],
  ['no time at all', { kind: 'x', expiresInMs: 0 }, 'expires_in_ms: expected'],
  ['half a millisecond', { kind: 'x', expiresInMs: 1.5 }, 'expires_in_ms: expected'],
  ['an empty key', { kind: 'x', idempotencyKey: '' }, 'idempotency_key: expected'],
] as const)('a command with %s is refused, and it says why', async (_what, wanted, message) => {
  const house = await House.open();
  await expect(house.send(wanted)).rejects.toMatchObject({
    code: 'COMMAND_INVALID',
    message: expect.stringContaining(message),
  });
  expect(house.commands.stats()).toMatchObject({ pending: 0 });
});

test('what waits is bounded for each device, for all, and in bytes; finished commands make room first', async () => {
  const house = await House.open({
    pendingPerDeviceMax: 2,
    pendingMax: 3,
    bytesMax: 500,
    finishedPerDeviceMax: 2,
  });
  await house.send({ kind: 'a' });
  await house.send({ kind: 'b' });
  await expect(house.send({ kind: 'c' })).rejects.toMatchObject({ code: 'COMMANDS_FULL' });
  house.devices.set('lamp', { id: 3, status: 'active' });
  await house.send({ kind: 'a', deviceId: 'siren' });
  await expect(house.send({ kind: 'a', deviceId: 'lamp' })).rejects.toMatchObject({ code: 'COMMANDS_FULL' });
  house.commands.withdraw('valve');
  for (let count = 0; count < 5; count += 1) {
    const command = await house.send({ kind: 'fill', payload: { text: 'x'.repeat(200) } });
    await house.commands.cancel('valve', command.id, 'anna');
  }
  expect(house.commands.stats().bytes).toBeLessThanOrEqual(500);
  expect(house.commands.list('valve').length).toBeLessThanOrEqual(2);
  await expect(house.send({ kind: 'fill', payload: { text: 'x'.repeat(600) } })).rejects.toMatchObject({
    code: 'COMMANDS_FULL',
  });
  expect(house.commands.stats()).toMatchObject({ pending: 1, refusedFull: 3 });
  // What was forgotten is gone from the disk as well.
  await house.cut();
  expect(house.commands.list('valve').length).toBeLessThanOrEqual(2);
});

test('a damaged record costs itself and no more', async () => {
  const house = await House.open();
  const command = await house.send({ kind: 'open' });
  house.log.put('commands/valve/zzzzzzzzzz', Buffer.from('{"v":1'));
  house.log.put('commands/../0000000001', Buffer.from('{"v":1,"id":"x"}'));
  await house.cut();
  expect(house.state(command)).toBe('queued');
  expect(house.commands.stats()).toMatchObject({ pending: 1, damagedRecords: 2 });
});

test('whatever happens in whatever order, with power cuts in between: nothing accepted is lost, nothing finished is delivered', async () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('send' as const), key: fc.option(fc.nat(3)) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), which: fc.nat(9) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('ack' as const), which: fc.nat(9) }) },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('wake' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('sleep' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), ms: fc.nat(40 * 60_000) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('cut' as const), offMs: fc.nat(40 * 60_000) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('flaky' as const) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const house = new House();
      house.machine.verdict = synchronized;
      await house.start();
      const accepted: { command: Command; acceptedMs: number }[] = [];
      const over = new Set<string>();
      const wrong: string[] = [];
      const outcomes: Delivery[] = [
        { kind: 'offline', wasSent: true },
        { kind: 'unanswered' },
        { kind: 'busy' },
        { kind: 'taken' },
      ];
      let flaky = 0;
      house.line.answer = () => {
        const last = house.line.got.at(-1)!;
        const { acceptedMs } = accepted.find(({ command }) => command.id === last.id) ?? {};
        if (over.has(last.id)) wrong.push('delivered though it was over');
        if (house.machine.trueMs - (acceptedMs ?? Infinity) >= hourMs) wrong.push('delivered though expired');
        flaky = Math.max(0, flaky - 1);
        return flaky > 0 ? outcomes[flaky % 4]! : { kind: 'taken' };
      };
      for (const now of steps) {
        const chosen =
          'which' in now ? accepted[now.which % Math.max(1, accepted.length)]?.command : undefined;
        switch (now.do) {
          case 'send': {
            const acceptedMs = house.machine.trueMs;
            const command = await house.send({
              kind: 'go',
              expiresInMs: hourMs,
              ...(now.key !== null && { idempotencyKey: String(now.key) }),
            });
            if (!accepted.some((one) => one.command.id === command.id))
              accepted.push({ command, acceptedMs });
            break;
          }
          case 'cancel':
            if (chosen === undefined) break;
            await house.commands.cancel('valve', chosen.id, 'anna').catch(() => undefined);
            over.add(chosen.id);
            break;
          case 'ack':
            if (chosen === undefined) break;
            await house.acknowledge('go', { id: chosen.id });
            over.add(chosen.id);
            break;
          case 'wake':
            house.line.wake('valve');
            break;
          case 'sleep':
            house.line.sleep('valve');
            break;
          case 'pass':
            house.machine.pass(now.ms);
            house.commands.tick();
            break;
          case 'cut':
            house.line.sleep('valve');
            await house.cut(now.offMs);
            break;
          case 'flaky':
            flaky = 4;
        }
        await settled();
      }
      // In the end it wakes: everything that is not over by then was delivered.
      house.line.answer = () => ({ kind: 'taken' });
      house.line.wake('valve');
      house.machine.pass(5 * 60_000);
      house.commands.tick();
      await settled();
      for (const { command } of accepted) {
        const state = house.state(command);
        if (state === undefined || state === 'queued') wrong.push(`${state} in the end`);
        const wasGot = house.line.got.some(({ id }) => id === command.id);
        if (state === 'delivered' && !wasGot) wrong.push('never delivered');
      }
      expect(wrong).toEqual([]);
      await house.stop();
    }),
    { numRuns: 150 },
  );
});
