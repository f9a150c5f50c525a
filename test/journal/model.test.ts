import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Batch, Lane } from '../../src/journal/contract.ts';
import { idsOf, line, type OpenJournal, openJournal, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

// The plain model: which ids wait, which are held, what the state is.
interface Model {
  waiting: Map<number, 'urgent' | 'telemetry'>;
  held: { batch: Batch; ids: number[] }[];
  state: Map<string, string>;
  nextId: number;
}

type Step =
  | { do: 'append'; class: 'alarm' | 'event' | 'telemetry'; points: number; bytes: number; key: number }
  | { do: 'lazy'; key: number; delete: boolean }
  | { do: 'take'; lane: Lane; points: number }
  | { do: 'end'; which: number; how: 'accept' | 'release' | 'bury' }
  | { do: 'uplink' }
  | { do: 'reopen' };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant('append' as const),
      class: fc.constantFrom('alarm' as const, 'event' as const, 'telemetry' as const, 'telemetry' as const),
      points: fc.integer({ min: 0, max: 12 }),
      bytes: fc.constantFrom(60, 500, 2500),
      key: fc.integer({ min: 0, max: 5 }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('lazy' as const),
      key: fc.integer({ min: 0, max: 5 }),
      delete: fc.boolean(),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('take' as const),
      lane: fc.constantFrom<Lane>('urgent', 'fresh', 'backlog'),
      points: fc.integer({ min: 1, max: 40 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant('end' as const),
      which: fc.nat(),
      how: fc.constantFrom('accept' as const, 'accept' as const, 'release' as const, 'bury' as const),
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'uplink' as const }) },
  { weight: 1, arbitrary: fc.constant({ do: 'reopen' as const }) },
);

const options = { segmentBytes: 36 * 1024, blockPoints: 15, lazyMs: 5 };

async function run(steps: readonly Step[]): Promise<void> {
  const folder = tempFolder();
  const model: Model = { waiting: new Map(), held: [], state: new Map(), nextId: 1 };
  // Accepted while their segment was being moved: may be sent once more, and no more than that.
  const accepted = new Set<number>();
  let letters = 0;
  let opened: OpenJournal = await openJournal(folder, { options });
  try {
    for (const now of steps) {
      const { journal } = opened;
      if (now.do === 'append') {
        const ids = Array.from({ length: now.points }, () => model.nextId++);
        const value = String(model.nextId);
        const state = now.key === 0 ? [] : [{ key: `s/${now.key}`, value: Buffer.from(value) }];
        const lines = ids.map((id) => line(id, now.bytes)).join('');
        await journal.append({ class: now.class, lines, points: ids.length, state });
        for (const id of ids) model.waiting.set(id, now.class === 'telemetry' ? 'telemetry' : 'urgent');
        if (now.key !== 0) model.state.set(`s/${now.key}`, value);
      } else if (now.do === 'lazy') {
        const value = now.delete ? undefined : Buffer.from('lazy');
        journal.writeLazily([{ key: `s/${now.key}`, value }]);
        if (value === undefined) model.state.delete(`s/${now.key}`);
        else model.state.set(`s/${now.key}`, 'lazy');
      } else if (now.do === 'take') {
        const batch = await journal.take(now.lane, now.points);
        if (batch === undefined) continue;
        const ids = idsOf(batch);
        expect(ids.length).toBe(batch.points);
        for (const id of ids) {
          const kind = now.lane === 'urgent' ? 'urgent' : 'telemetry';
          const isKnown = model.waiting.get(id) === kind || accepted.has(id);
          const isHeld = model.held.some((held) => held.ids.includes(id));
          // A segment that was moved while a batch of it was held gives its lines once more, from the block.
          if (!isKnown && !isHeld) expect.fail(`${id} was not waiting for ${now.lane}`);
          model.waiting.delete(id);
        }
        model.held.push({ batch, ids });
      } else if (now.do === 'end') {
        if (model.held.length === 0) continue;
        const [held] = model.held.splice(now.which % model.held.length, 1);
        const lane = held!.batch.lane === 'urgent' ? 'urgent' : 'telemetry';
        if (now.how === 'release') {
          journal.release(held!.batch);
          for (const id of held!.ids) if (!accepted.has(id)) model.waiting.set(id, lane);
        } else {
          const letter = { stage: 'influx', code: 'X', reason: '', bytes: Buffer.from('x') };
          if (now.how === 'bury') {
            await journal.bury(held!.batch, [letter]);
            letters += 1;
          } else await journal.accept(held!.batch);
          for (const id of held!.ids) {
            accepted.add(id);
            model.waiting.delete(id);
          }
        }
      } else if (now.do === 'uplink') journal.uplinkReturned();
      else {
        await opened.close();
        opened = await openJournal(folder, { options });
        for (const { batch, ids } of model.held) {
          const lane = batch.lane === 'urgent' ? 'urgent' : 'telemetry';
          for (const id of ids) if (!accepted.has(id)) model.waiting.set(id, lane);
        }
        model.held = [];
      }
      for (const [key, value] of model.state) expect((await opened.journal.get(key))?.toString()).toBe(value);
    }

    // In the end all that was appended and never accepted is there.
    const { journal } = opened;
    for (const { batch, ids } of model.held) {
      journal.release(batch);
      for (const id of ids) if (!accepted.has(id)) model.waiting.set(id, 'telemetry');
    }
    await spilled(journal);
    const left = new Set<number>();
    const isDrained = () => Object.values(journal.pending()).every((points) => points === 0);
    do {
      for (const lane of ['urgent', 'backlog', 'fresh'] as const) {
        for (let batch = await journal.take(lane, 100); batch; batch = await journal.take(lane, 100)) {
          for (const id of idsOf(batch)) left.add(id);
          await journal.accept(batch);
        }
      }
      // Lines that are just being moved to a block are pending, and nobody's to take until they are there.
      await new Promise((resolve) => setTimeout(resolve, 1));
    } while (!isDrained());
    expect([...model.waiting.keys()].filter((id) => !left.has(id))).toEqual([]);
    expect([...left].filter((id) => !model.waiting.has(id) && !accepted.has(id))).toEqual([]);
    expect(journal.pending()).toEqual({ urgent: 0, fresh: 0, backlog: 0 });
    const state: Record<string, string> = {};
    for await (const [key, value] of journal.entries('s/')) state[key] = value.toString();
    expect(state).toEqual(Object.fromEntries(model.state));
    expect((await journal.listDeadLetters({ limit: 1000 })).length).toBe(letters);
    const { quarantined, lostBlocks, dropped } = journal.stats();
    expect({ quarantined, lostBlocks }).toEqual({
      quarantined: { segments: 0, bytes: 0, points: 0, tornTails: 0 },
      lostBlocks: 0,
    });
    expect(dropped.telemetry).toEqual({ capacity: 0, age: 0, damage: 0 });
  } finally {
    await opened.close();
  }
}

test('whatever is appended, taken, accepted, released and reopened in any order, nothing is lost', async () => {
  await fc.assert(fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 60, size: 'max' }), run), {
    numRuns: 25,
    // Shrinking takes longer than a test may; the counterexample and its seed are shown as they are.
    endOnFailure: true,
  });
});
