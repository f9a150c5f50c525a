// Deletions through a real journal and real local history, with a remote side that does what it is told, cut short
// between any two steps.

import { getEventListeners } from 'node:events';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { History } from '../../src/history/history.ts';
import type { DeadLetter } from '../../src/journal/contract.ts';
import { createLog } from '../../src/platform/log.ts';
import { Erasures, type ErasuresJournal, type ErasuresParts } from '../../src/remote/erasures.ts';
import type { DeleteOutcome, Deletion } from '../../src/remote/influx-delete.ts';
import { fakeClock } from '../ingest/fakes.ts';
import { drain, openJournal } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const nowMs = Date.UTC(2026, 10, 21, 12);
const ns = (ms: number) => BigInt(ms) * 1_000_000n;
const log = createLog('silent');

async function openStores(folder: string) {
  const clock = fakeClock(nowMs);
  const { journal, close } = await openJournal(folder);
  const history = await History.open({
    directory: join(folder, 'history'),
    clock,
    log,
    flushIntervalMs: 0,
    tidyIntervalMs: 0,
  });
  const stop = async () => {
    await history.close();
    await close();
  };
  const record = async (deviceId: string, agoMs: number) => {
    const timeNs = ns(nowMs - agoMs);
    await journal.append({
      class: 'telemetry',
      lines: `m,device_id=${deviceId},gateway=g v=${agoMs} ${timeNs}\n`,
      points: 1,
    });
    const fields = new Map([['v', agoMs]]);
    history.record([{ measurement: 'm', tags: new Map(), fields, timeNs }], deviceId);
  };
  const letter = (deviceId: string, stage: string, agoMs: number): DeadLetter => ({
    stage,
    code: 'X',
    reason: 'x',
    deviceId,
    bytes: Buffer.from(stage === 'influx' ? `m,device_id=${deviceId} v=1 ${ns(nowMs - agoMs)}` : '{}'),
    ...(stage === 'ingest' && { time: { timeNs: ns(nowMs - agoMs) } }),
  });
  /** What is left of each device: waiting, in history, dead letters. */
  const left = async () => {
    let lines = '';
    await drain(journal, undefined, (some) => {
      lines += some;
      return [];
    });
    const of = async (deviceId: string) => {
      const query = { deviceId, fromNs: 0n, toNs: 2n ** 62n, limit: 100, order: 'newest-first' as const };
      const { rows } = await history.range(query);
      const letters = await journal.listDeadLetters({ deviceId, limit: 100 });
      const waiting = [...lines.matchAll(new RegExp(`device_id=${deviceId},`, 'g'))].length;
      return { waiting, history: rows.length, letters: letters.length };
    };
    return { a: await of('a'), b: await of('b') };
  };
  return { journal, history, record, letter, left, stop };
}

function partsOf(
  stores: { journal: ErasuresJournal; history: ErasuresParts['history'] },
  remote: (deletion: Deletion) => Promise<DeleteOutcome>,
): ErasuresParts {
  return {
    ...stores,
    remote,
    wallMs: () => nowMs,
    random: () => 0.5,
    log,
    retryMinMs: 5,
    retryMaxMs: 10,
  };
}

async function filled(folder: string) {
  const stores = await openStores(folder);
  for (const device of ['a', 'b']) {
    for (const agoMs of [3_600_000, 60_000, 1_000]) await stores.record(device, agoMs);
    await stores.journal.add(stores.letter(device, 'ingest', 3_600_000));
    await stores.journal.add(stores.letter(device, 'influx', 60_000));
  }
  return stores;
}

test('cut short anywhere, a deletion is carried out after the restart: here, among the letters and there', async () => {
  const untouched = { waiting: 3, history: 3, letters: 2 };
  let isThrough = false;
  for (let cutAt = 1; !isThrough; cutAt += 1) {
    expect(cutAt).toBeLessThan(50);
    const folder = tempFolder();
    const deletions: Deletion[] = [];
    const first = await filled(folder);
    let steps = 0;
    let isDead = false;
    const alive = async (): Promise<void> => {
      steps += 1;
      if (steps === cutAt) isDead = true;
      if (isDead) throw new Error('the power is gone');
    };
    const { journal, history } = first;
    const mortal: ErasuresJournal = {
      entries: (prefix) => journal.entries(prefix),
      write: async (writes) => alive().then(() => journal.write(writes)),
      erase: async (order, state) => {
        await alive();
        await journal.erase(order, state);
        // Durable, and nobody hears of it.
        await alive();
      },
      passed: async () => alive().then(() => journal.passed()),
      get newestDeadLetter() {
        return journal.newestDeadLetter;
      },
      listDeadLetters: async (options) => alive().then(() => journal.listDeadLetters(options)),
      dropDeadLetters: async (ids) => alive().then(() => journal.dropDeadLetters(ids)),
    };
    const erasures = await Erasures.open(
      partsOf(
        {
          journal: mortal,
          history: {
            forgetDevice: async (id) => alive().then(() => history.forgetDevice(id)),
            forgetRange: async (id, range) => alive().then(() => history.forgetRange(id, range)),
          },
        },
        async (deletion) => {
          await alive();
          deletions.push(deletion);
          await alive();
          return { kind: 'done' };
        },
      ),
    );
    const answer = await erasures.erase({ deviceId: 'a' }).catch(() => undefined);
    if (answer !== undefined) {
      await until(() => isDead || erasures.list().every(({ remote }) => remote === 'done'));
    }
    isThrough = !isDead;
    isDead = true;
    await erasures.close();
    await first.stop();

    const second = await openStores(folder);
    const again = await Erasures.open(
      partsOf({ journal: second.journal, history: second.history }, async (deletion) => {
        deletions.push(deletion);
        return { kind: 'done' };
      }),
    );
    await until(() => again.stats().waiting === 0);
    const found = await second.left();
    expect(found.b).toEqual(untouched);
    // Only what had not become durable never happened; and then nobody was told that it had.
    if (again.list().length === 0) {
      expect([cutAt, answer, found.a]).toEqual([1, undefined, untouched]);
    } else {
      expect(found.a).toEqual({ waiting: 0, history: 0, letters: 0 });
      expect(deletions.at(-1)).toEqual({ deviceId: 'a', fromNs: 0n, toNs: ns(nowMs) });
    }
    await again.close();
    await second.stop();
  }
});

test('a stretch of time: what is beside it stays, everywhere', async () => {
  const stores = await filled(tempFolder());
  onTestFinished(() => stores.stop());
  const deletions: Deletion[] = [];
  const erasures = await Erasures.open(
    partsOf(stores, async (deletion) => {
      deletions.push(deletion);
      return { kind: 'done' };
    }),
  );
  onTestFinished(() => erasures.close());
  const range = { fromNs: ns(nowMs - 3_600_000), toNs: ns(nowMs - 60_000) };
  await erasures.erase({ deviceId: 'a', range });
  await until(() => erasures.stats().waiting === 0);
  expect(deletions).toEqual([{ deviceId: 'a', ...range }]);
  expect((await stores.left()).a).toEqual({ waiting: 2, history: 2, letters: 1 });
});

test('InfluxDB is asked again until it did it, or refused for good; what waits and why can be seen', async () => {
  const stores = await filled(tempFolder());
  onTestFinished(() => stores.stop());
  const outcomes: DeleteOutcome[] = [
    { kind: 'retry', reason: 'ENETUNREACH', isForPeople: false },
    { kind: 'retry', reason: '403: the token may not', isForPeople: true },
  ];
  let answer: () => void = () => undefined;
  const erasures = await Erasures.open(
    partsOf(stores, async () => {
      const next = outcomes.shift();
      if (next !== undefined) return next;
      await new Promise<void>((resolve) => {
        answer = resolve;
      });
      return { kind: 'refused', reason: '404: path not found' };
    }),
  );
  onTestFinished(() => erasures.close());
  const first = await erasures.erase({ deviceId: 'a' });
  expect(first).toMatchObject({ local: 'done', remote: 'waiting' });
  await until(() => outcomes.length === 0);
  expect(erasures.list()).toMatchObject([{ reason: expect.stringMatching(/ENETUNREACH|403/) }]);
  await until(() => erasures.list()[0]?.reason === '403: the token may not');
  expect(erasures.stats()).toEqual({ waiting: 1, refused: 0, done: 0, blocked: '403: the token may not' });
  // Whatever is on its way by now.
  const told = setInterval(() => answer(), 5);
  onTestFinished(() => clearInterval(told));
  await until(() => erasures.stats().waiting === 0);
  expect(erasures.list()).toMatchObject([{ remote: 'refused', reason: '404: path not found' }]);
  expect(erasures.stats()).toEqual({ waiting: 0, refused: 1, done: 1, blocked: undefined });
});

test('however often InfluxDB is asked, nothing of it is kept', async () => {
  const stores = await filled(tempFolder());
  onTestFinished(() => stores.stop());
  const listening: number[] = [];
  const { remote: _none, ...parts } = partsOf(stores, async () => ({ kind: 'done' }));
  const erasures = await Erasures.open({
    ...parts,
    remote: async (_deletion, signal) => {
      listening.push(getEventListeners(signal, 'abort').length);
      return listening.length < 5 ? { kind: 'retry', reason: 'later', isForPeople: false } : { kind: 'done' };
    },
  });
  onTestFinished(() => erasures.close());
  await erasures.erase({ deviceId: 'a' });
  await until(() => erasures.stats().waiting === 0);
  expect(new Set(listening)).toEqual(new Set([listening[0]]));
});

test('what is on its way to InfluxDB arrives before it is deleted there, and its dead letters go as well', async () => {
  const stores = await filled(tempFolder());
  onTestFinished(() => stores.stop());
  const batch = await stores.journal.take('fresh', 100);
  if (batch === undefined) return expect.fail('nothing to take');
  const events: string[] = [];
  const erasures = await Erasures.open(
    partsOf(stores, async () => {
      events.push('deleted');
      return { kind: 'done' };
    }),
  );
  onTestFinished(() => erasures.close());
  await erasures.erase({ deviceId: 'a' });
  await stores.journal.add(stores.letter('b', 'influx', 1_000));
  events.push('arrived');
  await stores.journal.bury(batch, [stores.letter('a', 'influx', 1_000)]);
  await until(() => erasures.stats().waiting === 0);
  expect(events).toEqual(['arrived', 'deleted']);
  const { a, b } = await stores.left();
  expect([a.letters, b.letters]).toEqual([0, 3]);
});

test('so many deletions are remembered, and no more', async () => {
  const stores = await openStores(tempFolder());
  onTestFinished(() => stores.stop());
  const erasures = await Erasures.open({
    ...partsOf(stores, async () => ({ kind: 'done' })),
    remote: undefined,
  });
  onTestFinished(() => erasures.close());
  for (let count = 0; count < 105; count += 1) {
    expect(await erasures.erase({ deviceId: 'a' })).toMatchObject({ local: 'done', remote: 'none' });
  }
  expect(erasures.list()).toHaveLength(100);
  expect(erasures.list()[0]?.id).toBe('0000000000000105');
});
