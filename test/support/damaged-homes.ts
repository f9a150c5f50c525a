// Data directories as gateways leave them, made once, and what is known to lie in them: the ground against which a
// damaged copy is judged.

import { randomBytes } from 'node:crypto';
import { cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { dataPaths } from '../../src/config/paths.ts';
import { headerBytes, padded } from '../../src/journal/frame.ts';
import { Journal, type JournalOptions } from '../../src/journal/journal.ts';
import { scanSegment } from '../../src/journal/segment.ts';
import type { PointClass } from '../../src/model/point.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { systemDisk } from '../../src/platform/disk.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog, type Log } from '../../src/platform/log.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { Registry } from '../../src/registry/registry.ts';
import { type Damage, filesBelow, isAddition } from './damage.ts';
import { drain, line, linesOf } from './journal.ts';

const options: Partial<JournalOptions> = {
  segmentBytes: 64 * 1024,
  ringSegments: 5,
  freeSegmentsMin: 2,
  blockPoints: 40,
  retryMs: 20,
};

/** Where copies lie: in memory if there is such a disk, because nothing here is about speed. */
const scratch = existsSync('/dev/shm') ? '/dev/shm' : tmpdir();

export function scratchFolder(): string {
  return mkdtempSync(join(scratch, 'iotflow-damage-'));
}

export function remove(folder: string): void {
  rmSync(folder, { recursive: true, force: true });
}

/** Journal, registry and their store, opened as the gateway does. */
export interface OpenHome {
  readonly journal: Journal;
  readonly state: LevelStore;
  readonly registry: Registry;
  close(): Promise<void>;
}

export async function openHome(folder: string, log: Log = createLog('silent')): Promise<OpenHome> {
  const state = await LevelStore.open(join(folder, 'state'), { log, spareBytes: 0 });
  const journal = await Journal.open({
    directory: join(folder, 'journal'),
    store: state.room('hot'),
    disk: systemDisk(),
    clock: systemClock(),
    log,
    options,
  });
  const registry = await Registry.open({
    store: state.room('registry'),
    clock: systemClock(),
    randomBytes,
    witness: fileWitness(dataPaths(folder).registryWitness),
  });
  return {
    journal,
    state,
    registry,
    async close() {
      await journal.close();
      await state.close();
    },
  };
}

function bytesOf(id: number): number {
  return 60 + ((id * 37) % 700);
}

export function lineOf(id: number): string {
  return line(id, bytesOf(id));
}

/** What was told to callers while the home was made. */
interface Written {
  readonly classes: Map<number, PointClass>;
  readonly state: Map<string, string[]>;
  readonly letters: Set<string>;
  /** Keys that are good, and keys that ended. */
  readonly keys: Map<string, string>;
  readonly endedKeys: (readonly [deviceId: string, key: string])[];
}

export interface Home {
  readonly name: string;
  readonly folder: string;
  readonly written: Written;
  /** Ended by a clean stop, rather than killed. */
  readonly isClean: boolean;
  /** Ids handed out when nothing is damaged, and which of them come from blocks. */
  readonly waiting: ReadonlySet<number>;
  readonly inBlocks: ReadonlySet<number>;
  readonly ringPlaces: ReadonlyMap<
    number,
    { readonly file: string; readonly from: number; readonly to: number }
  >;
  /** The file of the ring that was being written. */
  readonly newestFile: string;
  /** By file of the blocks: ids that are there even without it. */
  readonly withoutTable: ReadonlyMap<string, ReadonlySet<number>>;
  readonly stateBefore: ReadonlyMap<string, string>;
}

export async function takeAll(journal: Journal): Promise<{ id: number; text: string; isBlock: boolean }[]> {
  const found: { id: number; text: string; isBlock: boolean }[] = [];
  // What is being moved to a block is not handed out meanwhile.
  for (let waits = 0; journal.stats().ring.free < 2 && waits < 1000; waits += 1) await sleep(3);
  for (const lane of ['urgent', 'backlog', 'fresh'] as const) {
    for (;;) {
      const batch = await journal.take(lane, 300);
      if (batch === undefined) break;
      const lines = linesOf(batch).split('\n').slice(0, -1);
      if (lines.length !== batch.points) throw new Error(`${batch.points} announced, ${lines.length} found`);
      for (const text of lines) {
        const id = Number(/ v=(\d+),pad/.exec(text)?.[1] ?? Number.NaN);
        found.push({ id, text: `${text}\n`, isBlock: batch.encoding === 'gzip' });
      }
    }
  }
  return found;
}

export async function stateOf(journal: Journal): Promise<Map<string, string>> {
  const found = new Map<string, string>();
  for await (const [key, value] of journal.entries('t/')) found.set(key, value.toString());
  return found;
}

interface Plan {
  readonly name: string;
  readonly isClean: boolean;
  /** Opened so often: each opening makes a table of LevelDB's log. */
  readonly lives: number;
  readonly appendsPerLife: number;
  /** Share of what waits that is delivered at the end of each life. */
  readonly delivered: 'nothing' | 'some' | 'all';
}

const plans: readonly Plan[] = [
  { name: 'a ring half full, killed', isClean: false, lives: 1, appendsPerLife: 60, delivered: 'nothing' },
  { name: 'a ring half full, stopped', isClean: true, lives: 2, appendsPerLife: 40, delivered: 'nothing' },
  {
    name: 'a backlog in blocks, killed',
    isClean: false,
    lives: 4,
    appendsPerLife: 220,
    delivered: 'nothing',
  },
  {
    name: 'a backlog in blocks, stopped',
    isClean: true,
    lives: 4,
    appendsPerLife: 220,
    delivered: 'nothing',
  },
  {
    name: 'a backlog being delivered, killed',
    isClean: false,
    lives: 4,
    appendsPerLife: 220,
    delivered: 'some',
  },
  { name: 'all delivered, stopped', isClean: true, lives: 3, appendsPerLife: 300, delivered: 'all' },
];

function classOf(count: number): PointClass {
  if (count % 11 === 0) return 'alarm';
  return count % 7 === 0 ? 'event' : 'telemetry';
}

async function fill(
  { journal, registry }: OpenHome,
  plan: Plan,
  life: number,
  written: Written,
): Promise<void> {
  const device = `d${life}`;
  const { apiKey } = await registry.add({ deviceId: device });
  const rotated = await registry.rotate(device);
  written.endedKeys.push([device, apiKey]);
  if (life % 2 === 1) {
    await registry.revoke(device);
    written.endedKeys.push([device, rotated.apiKey]);
  } else written.keys.set(device, rotated.apiKey);
  for (let count = 0; count < plan.appendsPerLife; ) {
    const appends: Promise<void>[] = [];
    // One class a burst: telemetry that waits for room would be refused for an alarm behind it.
    const of = classOf(count);
    for (let burst = 1 + (count % 4); burst > 0; burst -= 1, count += 1) {
      const id = life * 10_000 + count;
      written.classes.set(id, of);
      const key = `t/${count % 17}`;
      const value = `${key} ${id}`;
      const values = written.state.get(key) ?? [];
      written.state.set(key, values);
      if (count % 3 === 0) values.push(value);
      appends.push(
        journal.append({
          class: of,
          lines: lineOf(id),
          points: 1,
          ...(count % 3 === 0 && { state: [{ key, value: Buffer.from(value) }] }),
        }),
      );
    }
    await Promise.all(appends);
  }
  for (let count = 0; count < 3; count += 1) {
    const bytes = `letter ${life} ${count} ${'y'.repeat(200)}`;
    written.letters.add(bytes);
    await journal.add({
      stage: 'ingest',
      code: 'NOT_JSON',
      reason: 'expected JSON',
      bytes: Buffer.from(bytes),
    });
  }
  if (plan.delivered === 'all') await drain(journal);
  if (plan.delivered === 'some') {
    for (let batches = 0; batches < 4; batches += 1) {
      const batch = (await journal.take('backlog', 60)) ?? (await journal.take('urgent', 20));
      if (batch !== undefined) await journal.accept(batch);
    }
    // What is delivered is on the disk with the next frame.
    const id = life * 10_000 + 9_999;
    written.classes.set(id, 'telemetry');
    await journal.append({ class: 'telemetry', lines: lineOf(id), points: 1 });
  }
}

async function settled(journal: Journal): Promise<void> {
  while (journal.stats().ring.free < 2) await sleep(5);
}

function ringPlaces(folder: string): Map<number, { file: string; from: number; to: number }> {
  const places = new Map<number, { file: string; from: number; to: number }>();
  for (const name of filesBelow(join(folder, 'journal', 'ring'))) {
    const file = join('journal', 'ring', name);
    const content = readFileSync(join(folder, file));
    for (const { header, position } of scanSegment(content).frames) {
      const text = content.toString(
        'latin1',
        position + headerBytes,
        position + header.length - header.stateBytes,
      );
      for (const match of text.matchAll(/ v=(\d+),pad/g)) {
        places.set(Number(match[1]), { file, from: position, to: position + padded(header.length) });
      }
    }
  }
  return places;
}

function newestFile(folder: string): string {
  const [newest] = filesBelow(join(folder, 'journal', 'ring'))
    .map((name) => join('journal', 'ring', name))
    .map((file) => ({ file, id: scanSegment(readFileSync(join(folder, file))).id }))
    .sort((a, b) => b.id - a.id);
  return newest?.file ?? '';
}

async function idsIn(
  folder: string,
  prepare?: (copy: string) => void,
): Promise<{ ids: Set<number>; blocks: Set<number> }> {
  const copy = scratchFolder();
  try {
    cpSync(folder, copy, { recursive: true });
    prepare?.(copy);
    const home = await openHome(copy);
    const found = await takeAll(home.journal);
    await home.close();
    return {
      ids: new Set(found.map(({ id }) => id)),
      blocks: new Set(found.filter(({ isBlock }) => isBlock).map(({ id }) => id)),
    };
  } finally {
    remove(copy);
  }
}

async function makeHome(plan: Plan): Promise<Home> {
  const folder = scratchFolder();
  const live = scratchFolder();
  const written: Written = {
    classes: new Map(),
    state: new Map(),
    letters: new Set(),
    keys: new Map(),
    endedKeys: [],
  };
  for (let life = 0; life < plan.lives; life += 1) {
    const home = await openHome(live);
    await fill(home, plan, life, written);
    await settled(home.journal);
    // Killed: its files are copied while it is open.
    if (!plan.isClean && life === plan.lives - 1) cpSync(live, folder, { recursive: true });
    await home.close();
  }
  if (plan.isClean) cpSync(live, folder, { recursive: true });
  remove(live);
  const { ids, blocks } = await idsIn(folder);
  const withoutTable = new Map<string, ReadonlySet<number>>();
  for (const name of filesBelow(join(folder, 'journal', 'blocks'))) {
    const file = join('journal', 'blocks', name);
    const left = await idsIn(folder, (copy) => rmSync(join(copy, file)));
    withoutTable.set(file, left.blocks);
  }
  const copy = scratchFolder();
  cpSync(folder, copy, { recursive: true });
  const home = await openHome(copy);
  const stateBefore = await stateOf(home.journal);
  await home.close();
  remove(copy);
  return {
    name: plan.name,
    folder,
    written,
    isClean: plan.isClean,
    waiting: ids,
    inBlocks: blocks,
    ringPlaces: ringPlaces(folder),
    newestFile: newestFile(folder),
    withoutTable,
    stateBefore,
  };
}

export async function makeHomes(): Promise<Home[]> {
  const homes: Home[] = [];
  for (const plan of plans) homes.push(await makeHome(plan));
  return homes;
}

/** Ids that no damage touched: they must be handed out. */
export function untouched(home: Home, damages: readonly Damage[]): Set<number> {
  const real = damages.filter((one) => !isAddition(one));
  const left = new Set<number>();
  const tables = real.filter(({ file }) => file.startsWith(join('journal', 'blocks')));
  for (const id of home.waiting) {
    const place = home.ringPlaces.get(id);
    const isTouched = real.some(({ file, from, to }) => {
      if (file !== place?.file) return false;
      return from === undefined || to === undefined || (from < place.to && to > place.from);
    });
    const isLost = home.inBlocks.has(id) && tables.some(({ file }) => !home.withoutTable.get(file)?.has(id));
    if (!isTouched && !isLost) left.add(id);
  }
  return left;
}

export function copyOf(home: Home): string {
  const copy = scratchFolder();
  cpSync(home.folder, copy, { recursive: true });
  mkdirSync(join(copy, 'run'), { recursive: true });
  return copy;
}
