// A journal in a folder, with what it needs, for tests.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import type { Batch, Lane } from '../../src/journal/contract.ts';
import { Journal, type JournalOptions } from '../../src/journal/journal.ts';
import type { PointClass } from '../../src/model/point.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { type Disk, systemDisk } from '../../src/platform/disk.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Store, StoreWrite } from '../../src/platform/store.ts';

/** Small enough that a few hundred points go once around. */
export const smallRing = {
  segmentBytes: 64 * 1024,
  ringSegments: 4,
  freeSegmentsMin: 2,
  retryMs: 20,
} as const;

export interface OpenJournal {
  readonly journal: Journal;
  readonly store: LevelStore;
  close(): Promise<void>;
}

export async function openJournal(
  folder: string,
  settings: {
    options?: Partial<JournalOptions>;
    disk?: Disk;
    monotonicMs?: () => number;
    /** While it answers true, hot state cannot be checkpointed. */
    isStoreFull?: () => boolean;
    /** Awaited before each write to the store of the blocks. */
    beforeBlockWrite?: BeforeWrite;
  } = {},
): Promise<OpenJournal> {
  const log = createLog('silent');
  const store = await LevelStore.open(join(folder, 'state'), { log });
  const journal = await Journal.open({
    directory: join(folder, 'journal'),
    store: fillable(store.room('journal'), settings.isStoreFull ?? (() => false)),
    disk: settings.disk ?? systemDisk(),
    clock: { ...systemClock(), ...(settings.monotonicMs && { monotonicMs: settings.monotonicMs }) },
    log,
    options: { ...smallRing, ...settings.options },
    openBlockStore: async (...of) => guarded(await LevelStore.open(...of), settings.beforeBlockWrite),
  });
  return {
    journal,
    store,
    async close() {
      await journal.close();
      await store.close();
    },
  };
}

type BeforeWrite = (writes: readonly StoreWrite[]) => Promise<void>;

function guarded(store: LevelStore, beforeWrite: BeforeWrite = async () => undefined): LevelStore {
  const room = store.room.bind(store);
  store.room = (name) => {
    const inner = room(name);
    const write: typeof inner.write = async (writes) => {
      await beforeWrite(writes);
      await inner.write(writes);
    };
    return { ...inner, write };
  };
  return store;
}

function fillable(store: Store, isFull: () => boolean): Store {
  return {
    get: (key) => store.get(key),
    entries: (range) => store.entries(range),
    async write(writes) {
      if (isFull()) throw new GatewayError('STORE_FAILED', 'ENOSPC: injected');
      await store.write(writes);
    },
  };
}

/** One line of line protocol that carries the id, of about this many bytes. */
export function line(id: number | string, bytes = 60): string {
  const start = `m,device_id=d v=${id},pad="`;
  return `${start}${'x'.repeat(Math.max(0, bytes - start.length - 22))}" 1700000000000000000\n`;
}

export async function append(
  journal: Journal,
  ids: Iterable<number>,
  of: PointClass = 'telemetry',
  bytes = 60,
) {
  await Promise.all([...ids].map((id) => journal.append({ class: of, lines: line(id, bytes), points: 1 })));
}

export function linesOf(batch: Batch): string {
  return (batch.encoding === 'gzip' ? gunzipSync(batch.body) : batch.body).toString();
}

/** The ids in the batch, in order. */
export function idsOf(batch: Batch): number[] {
  return idsOfLines(linesOf(batch));
}

function idsOfLines(lines: string): number[] {
  return [...lines.matchAll(/v=(\d+),pad/g)].map((match) => Number(match[1]));
}

/** Takes and accepts all there is in the lanes. */
export async function drain(
  journal: Journal,
  lanes: readonly Lane[] = ['urgent', 'backlog', 'fresh'],
  /** Of lines that may have been thinned: then they are not as many as ids. */
  idsIn: (lines: string) => number[] = idsOfLines,
): Promise<number[]> {
  const ids: number[] = [];
  for (;;) {
    let isEmpty = true;
    const isSettled = journal.stats().ring.free >= 2;
    for (const lane of lanes) {
      for (let batch = await journal.take(lane, 500); batch; batch = await journal.take(lane, 500)) {
        isEmpty = false;
        const found = idsIn(linesOf(batch));
        if (found.length !== batch.points && idsIn === idsOfLines)
          throw new Error(`${batch.points} announced, ${found.length} found`);
        ids.push(...found);
        await journal.accept(batch);
      }
    }
    if (!isEmpty) continue;
    // What is just being moved to a block is not handed out meanwhile, and comes by another lane afterwards.
    if (lanes.every((lane) => journal.pending()[lane] === 0) || isSettled) return ids;
    await sleep(5);
  }
}

export function range(from: number, to: number): number[] {
  return Array.from({ length: to - from }, (_, index) => from + index);
}

/** Waits until the journal has moved to blocks what it wants to move. */
export async function spilled(journal: Journal): Promise<void> {
  while (journal.stats().ring.free < 2) await sleep(5);
}
