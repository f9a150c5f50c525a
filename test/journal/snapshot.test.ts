import { mkdirSync } from 'node:fs';
import { appendFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { JournalSnapshot } from '../../src/journal/snapshot.ts';
import { errorCode } from '../../src/platform/errors.ts';
import { type LevelSnapshot, LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
import {
  append,
  drain,
  idsOf,
  line,
  type OpenJournal,
  openJournal,
  range,
  spilled,
} from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

interface Taken {
  readonly journal: JournalSnapshot;
  readonly state: LevelSnapshot;
}

function take({ journal, store }: OpenJournal): Taken {
  return { state: store.snapshot(), journal: journal.snapshot() };
}

async function fill(directory: string, entries: AsyncIterable<readonly [string, Buffer]>): Promise<void> {
  const store = await LevelStore.open(directory, { log: createLog('silent'), spareBytes: 0 });
  for await (const entry of entries) await store.putSealed([entry], { sync: false });
  await store.close();
}

/** Writes what the snapshot shows into a folder, with a pause after each piece. */
async function copy({ journal, state }: Taken, folder: string, pause = turn as () => Promise<unknown>) {
  mkdirSync(join(folder, 'journal', 'ring'), { recursive: true });
  for await (const { name, fileBytes, position, bytes } of journal.ring()) {
    const path = join(folder, 'journal', 'ring', name);
    await appendFile(path, '');
    const file = await open(path, 'r+');
    await file.truncate(fileBytes);
    await file.write(bytes, 0, bytes.length, position);
    await file.close();
    await pause();
  }
  await fill(join(folder, 'state'), state.entries());
  await fill(join(folder, 'journal', 'blocks'), journal.blocks());
  await journal.close();
  await state.close();
}

test('a copy taken under load holds all that was acknowledged before, and opens without a loss', async () => {
  const random = seededRandom(11);
  const folder = tempFolder();
  const source = await openJournal(folder);
  const { journal } = source;
  const acknowledged = new Set<number>();
  const accepted = new Set<number>();
  let keyValue = 0;
  let next = 0;
  let isOver = false;
  const load = async () => {
    while (!isOver) {
      const id = next;
      next += 1;
      const value = Buffer.from(String(id));
      const write = { class: 'telemetry', lines: line(id, 400), points: 1 } as const;
      await journal.append({ ...write, state: [{ key: `t/${id % 7}`, value }] });
      acknowledged.add(id);
      keyValue = Math.max(keyValue, id);
    }
  };
  const deliver = async () => {
    while (!isOver) {
      const batch = await journal.take(random() < 0.5 ? 'backlog' : 'fresh', 20);
      if (batch !== undefined && random() < 0.7) {
        await journal.accept(batch);
        for (const id of idsOf(batch)) accepted.add(id);
      } else if (batch !== undefined) journal.release(batch);
      await turn();
    }
  };
  const running = [load(), load(), load(), deliver()];
  let held = 0;
  for (let round = 0; round < 8; round += 1) {
    await new Promise((resolve) => setTimeout(resolve, 20 + random() * 60));
    const before = { acknowledged: new Set(acknowledged), accepted: new Set(accepted) };
    const points = Object.values(journal.stats().ring.points).reduce((sum, count) => sum + count, 0);
    const snapshot = take(source);
    const target = join(folder, `copy-${round}`);
    await copy(snapshot, target, async () => {
      // Until the ring goes round under the reader, which takes a busy machine longer; not for ever, as what is read
      // already is held no more.
      for (let wait = 0; wait < 50 && held === 0; wait += 1) {
        await new Promise((resolve) => setTimeout(resolve, 20));
        held = Math.max(held, snapshot.journal.heldBytes);
      }
      await new Promise((resolve) => setTimeout(resolve, 60));
    });
    const restored = await openJournal(target);
    const { quarantined, lostBlocks, dropped } = restored.journal.stats();
    expect({ ...quarantined, tornTails: 0 }).toEqual({ segments: 0, bytes: 0, points: 0, tornTails: 0 });
    expect({ lostBlocks, damage: dropped.telemetry.damage }).toEqual({ lostBlocks: 0, damage: 0 });
    // Each key has the value of an append that was acknowledged before the snapshot, or of one soon after.
    const newest = [...before.acknowledged].reduce((most, id) => Math.max(most, id), 0);
    const values: number[] = [];
    for await (const [, value] of restored.journal.entries('t/')) values.push(Number(value));
    expect(Math.max(...values)).toBeGreaterThanOrEqual(newest);
    const found = new Set(await drain(restored.journal));
    const missing = [...before.acknowledged].filter((id) => !found.has(id) && !accepted.has(id));
    expect(missing, `round ${round}, ${points} points in the ring`).toEqual([]);
    await restored.close();
  }
  isOver = true;
  await Promise.all(running);
  await source.close();
  // The ring went round under the reader, or this would show nothing.
  expect(held).toBeGreaterThan(0);
});

test('a reader that is too slow loses its snapshot, and no append waits for it', async () => {
  const folder = tempFolder();
  const options = { segmentBytes: 4 * 1024 * 1024, ringSegments: 10 };
  const source = await openJournal(folder, { options });
  const appendSome = async (from: number, to: number) => {
    for (let id = from; id < to; id += 10)
      await append(source.journal, range(id, id + 10), 'telemetry', 500_000);
  };
  await appendSome(0, 60);
  const { journal, state } = take(source);
  await appendSome(60, 140);
  await spilled(source.journal);
  expect(journal.heldBytes).toBe(0);
  const read = async () => {
    for await (const _ of journal.ring());
  };
  expect(await read().catch(errorCode)).toBe('SNAPSHOT_LOST');
  await Promise.all([journal.close(), state.close()]);
  // The next one is better off.
  const again = take(source);
  const target = join(folder, 'copy');
  await copy(again, target);
  await source.close();
});

test('what a bad card does not give stays zeros and is counted; the rest is copied', async () => {
  const folder = tempFolder();
  const disk = faultyDisk();
  const source = await openJournal(folder, { disk });
  for (const id of range(0, 20)) await append(source.journal, [id]);
  disk.faults.badPosition = 8 * 4096 + 100;
  const snapshot = take(source);
  const target = join(folder, 'copy');
  await copy(snapshot, target);
  expect(snapshot.journal.unreadableBytes).toBe(4096);
  disk.faults.badPosition = undefined;
  await source.close();
  const restored = await openJournal(target);
  expect(await drain(restored.journal)).toEqual(range(0, 20).filter((id) => id !== 8));
  await restored.close();
});
