// Power cuts at every kind of moment. The ring lies on a disk in memory that remembers what was synced; a cut
// leaves any choice of the sectors that were not. LevelDB lies in real files, copied at the cut. A journal is
// opened on what is left and compared with what its callers had been told.

import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import type { Append, Batch, Dating, Lane, StateWrite } from '../../src/journal/contract.ts';
import type { JournalOptions, JournalStats } from '../../src/journal/journal.ts';
import { type PointClass, pointClasses } from '../../src/model/point.ts';
import { type Random, seededRandom } from '../../src/simulator/random.ts';
import { CrashDisk } from '../support/crash-disk.ts';
import { drain, linesOf, type OpenJournal, openJournal } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const isMany = process.env.IOTFLOW_CRASH_RUNS !== undefined;
const cutsWanted = Number(process.env.IOTFLOW_CRASH_RUNS ?? 200);
const firstSeed = Number(process.env.IOTFLOW_CRASH_SEED ?? 1);
const cutsPerLife = 6;
const livesPerRun = 4;
const keys = 6;

// Small frames and segments: many commits are of several frames, and the ring goes around in every life.
const usual: Partial<JournalOptions> = {
  segmentBytes: 64 * 1024,
  ringSegments: 4,
  freeSegmentsMin: 2,
  blockPoints: 30,
  retryMs: 2,
  lazyMs: 3,
  pendingBytesMax: 400_000,
};

/** Now and then somebody changes the size of the ring, or the cap, between two lives. */
function chosen(random: Random): Partial<JournalOptions> {
  const maxBytes = random() < 0.5 ? pick(random, [20_000, 60_000]) : 1e9;
  if (random() < 0.7) return { ...usual, maxBytes };
  return {
    ...usual,
    maxBytes,
    ringSegments: pick(random, [4, 5, 6]),
    segmentBytes: pick(random, [64, 64, 96]) * 1024,
    freeSegmentsMin: pick(random, [2, 3]),
  };
}

const startNs = 1_700_000_000_000_000_000n;

/** A line whose id survives thinning: it is the name of a field. All are of one series and one hour. */
function line(
  id: number,
  bytes: number,
  of: PointClass,
  random: Random,
  boot: number | undefined,
  deviceId: string,
): string {
  // What is not to be dropped packs well.
  let pad = of === 'telemetry' ? '' : 'x'.repeat(bytes);
  while (pad.length < bytes - 60) pad += random().toString(36).slice(2);
  const time = boot === undefined ? `${startNs + BigInt(id)}` : `b${boot}+${id}`;
  return `m,device_id=${deviceId} i${id}=1,pad="${pad}" ${time}\n`;
}

/** When boot 1 began is known; of the other one it is a guess. */
const dating: Dating = (boot, bootNs) => ({ timeNs: startNs + bootNs, isCertain: boot === 1 });

function idsIn(lines: string): number[] {
  if (/ b\d+\+\d+$/m.test(lines)) throw new Error('handed out without a date');
  return [...lines.matchAll(/[ ,]i(\d+)=1/g)].map((match) => Number(match[1]));
}

/** What callers were told of one append. */
interface Told {
  readonly ids: readonly number[];
  readonly class: PointClass;
  /** `refused`: nothing of it may ever be seen. `failed`: it may. */
  outcome: 'pending' | 'durable' | 'refused' | 'failed';
  /** Handed out and its acceptance has begun: it need not come again. */
  isAccepted: boolean;
  readonly deviceId: string;
  /** `asked`: its device's points were to be deleted, it may be gone. `done`: it must be. */
  erasure: 'none' | 'asked' | 'done';
}

/** One write of a key, in the order of the calls. */
interface Written {
  readonly value: string | undefined;
  readonly append: number | undefined;
  isDurable: boolean;
}

interface Ledger {
  readonly appends: Told[];
  readonly history: Map<string, Written[]>;
  /** A number: replayed as this append. */
  readonly letters: Map<string, 'pending' | 'durable' | number>;
  /** Whether the disk failed at some time: then damage may be reported that is none. */
  hasFailed: boolean;
  /** Of which classes the caps took something: then some may be missing. */
  readonly dropped: Set<PointClass>;
}

interface Cut {
  readonly disk: CrashDisk;
  readonly folder: string;
  readonly ledger: Ledger;
  readonly isPowerCut: boolean;
  /** What the life had done before the cut. */
  readonly hasThinned: boolean;
  readonly hasCarried: boolean;
}

function newLedger(): Ledger {
  return { appends: [], history: new Map(), letters: new Map(), hasFailed: false, dropped: new Set() };
}

function droppedIn(stats: JournalStats | undefined): PointClass[] {
  return pointClasses.filter((name) => (stats?.dropped[name].capacity ?? 0) > 0);
}

function copyLevel(from: string, to: string): void {
  for (const name of ['state', join('journal', 'blocks')]) {
    mkdirSync(join(to, name), { recursive: true });
    for (const file of readdirSync(join(from, name))) {
      if (file === 'LOCK') continue;
      copyFileSync(join(from, name, file), join(to, name, file));
    }
  }
}

function pick<T>(random: Random, choices: readonly T[]): T {
  return choices[Math.floor(random() * choices.length)]!;
}

/** Lives from one opening to the cut; answers the cuts that could have happened on the way. */
async function live(at: Cut, random: Random, isFailing: boolean, nextFolder: () => string): Promise<Cut[]> {
  const { disk, ledger, folder } = at;
  const cuts: Cut[] = [];
  let isOver = false;
  let moments = 0;
  let nextCut = 1 + Math.floor(random() * 60);
  let opening: OpenJournal | undefined;
  disk.onMoment = () => {
    moments += 1;
    if (isOver || moments < nextCut || cuts.length === cutsPerLife) return;
    nextCut = moments + 1 + Math.floor(random() ** 2 * 80);
    const left = nextFolder();
    copyLevel(folder, left);
    const isPowerCut = random() < 0.8;
    ledger.hasFailed ||= disk.failures > 0;
    const stats = opening?.journal.stats();
    for (const name of droppedIn(stats)) ledger.dropped.add(name);
    const { '1m': minutes, '1h': hours } = stats?.retention.thinned ?? {};
    cuts.push({
      disk: isPowerCut ? disk.afterPowerCut(random) : disk.afterKill(random),
      folder: left,
      ledger: structuredClone(ledger),
      isPowerCut,
      hasThinned: (minutes?.runs ?? 0) + (hours?.runs ?? 0) > 0,
      hasCarried: stats?.isStateCarried === true,
    });
  };
  disk.slowShare = random() < 0.5 ? 0.2 : 0;
  let isStoreFull = random() < 0.3;
  const opened = await openJournal(folder, {
    disk,
    options: chosen(random),
    isStoreFull: () => isStoreFull,
  });
  disk.failureShare = isFailing ? 0.02 : 0;
  opening = opened;
  const { journal } = opened;
  // Now and then the card is to be spared.
  if (random() < 0.3) journal.linger(4);
  if (random() < 0.5) journal.date(dating);
  const waiting: Promise<unknown>[] = [];
  const held: Batch[] = [];
  // What can be read now must stay, also what was written and never acknowledged: callers build on it.
  for (const key of ledger.history.keys()) {
    const value = (await journal.get(key))?.toString();
    ledger.history.set(key, [{ value, append: undefined, isDurable: true }]);
  }
  const byId = new Map<number, Told>();
  for (const told of ledger.appends) for (const id of told.ids) byId.set(id, told);

  function stateWrites(
    count: number,
    append: number | undefined,
  ): { writes: StateWrite[]; notes: Written[] } {
    const writes: StateWrite[] = [];
    const notes: Written[] = [];
    for (let index = 0; index < count; index += 1) {
      const key = `k/${Math.floor(random() * keys)}`;
      if (writes.some((write) => write.key === key)) continue;
      const value = random() < 0.2 ? undefined : `${ledger.appends.length}.${moments}.${random()}`;
      const note = { value, append, isDurable: false };
      const history = ledger.history.get(key) ?? [];
      history.push(note);
      ledger.history.set(key, history);
      notes.push(note);
      writes.push({ key, value: value === undefined ? undefined : Buffer.from(value) });
    }
    return { writes, notes };
  }

  function append(count = Math.floor(random() * 12), letter?: string): Promise<void> {
    const first = ledger.appends.length * 100;
    const bytes = pick(random, [60, 60, 300, 900, 2500]);
    const of = pick(random, [...pointClasses, 'telemetry', 'telemetry', 'telemetry'] as const);
    const told: Told = {
      class: of,
      ids: Array.from({ length: count }, (_, index) => first + index),
      outcome: 'pending',
      isAccepted: false,
      deviceId: letter === undefined && random() < 0.25 ? 'e' : 'd',
      erasure: 'none',
    };
    const { writes, notes } = stateWrites(Math.floor(random() * 3), ledger.appends.length);
    ledger.appends.push(told);
    for (const id of told.ids) byId.set(id, told);
    const boot = random() < 0.15 ? pick(random, [1, 2]) : undefined;
    const lines = told.ids.map((id) => line(id, bytes, of, random, boot, told.deviceId)).join('');
    const made: Append = {
      ...{ class: of, lines, points: count, state: writes },
      ...(boot !== undefined && { undated: true }),
    };
    const stored =
      letter === undefined
        ? journal.append(made)
        : journal.replace(letter, made, []).then((isThere) => {
            expect(isThere).toBe(true);
          });
    return stored.then(
      () => {
        told.outcome = 'durable';
        for (const note of notes) note.isDurable = true;
      },
      (error: { code?: string }) => {
        told.outcome = error.code === 'JOURNAL_FAILED' ? 'failed' : 'refused';
        if (
          !['JOURNAL_FAILED', 'JOURNAL_FULL', 'JOURNAL_STALLED', 'JOURNAL_CLOSED'].includes(error.code ?? '')
        )
          throw error;
      },
    );
  }

  async function end(batch: Batch): Promise<void> {
    const way = random();
    if (way < 0.2) return journal.release(batch);
    // From the call on it may be gone.
    for (const id of idsIn(linesOf(batch))) byId.get(id)!.isAccepted = true;
    if (way < 0.9) return journal.accept(batch);
    const text = `letter ${ledger.letters.size} of ${firstSeed}`;
    ledger.letters.set(text, 'pending');
    try {
      await journal.bury(batch, [{ stage: 'influx', code: 'X', reason: '', bytes: Buffer.from(text) }]);
      ledger.letters.set(text, 'durable');
    } catch {
      journal.release(batch);
    }
  }

  /** Whatever there is of device `e` is deleted. */
  async function erase(): Promise<void> {
    const asked = ledger.appends.filter(({ deviceId }) => deviceId === 'e');
    const durable = asked.filter(({ outcome }) => outcome === 'durable');
    for (const told of asked) if (told.erasure === 'none') told.erasure = 'asked';
    await journal.erase({ deviceId: 'e' }).then(
      () => {
        for (const told of durable) told.erasure = 'done';
      },
      (error: { code?: string }) => {
        if (!error.code?.startsWith('JOURNAL_')) throw error;
      },
    );
  }

  /** A letter becomes points again. */
  async function replay(): Promise<void> {
    const [letter] = await journal.listDeadLetters({ limit: 1 });
    if (letter === undefined) return;
    const text = letter.bytes.toString();
    const before = ledger.letters.get(text);
    const number = ledger.appends.length;
    ledger.letters.set(text, number);
    await append(1 + Math.floor(random() * 3), letter.id);
    // Refused, it is what it was; after a failed write nobody knows.
    if (ledger.appends[number]?.outcome === 'refused' && before !== undefined)
      ledger.letters.set(text, before);
  }

  const isOnline = random() < 0.6;
  for (let step = 0; step < 220 && cuts.length < cutsPerLife; step += 1) {
    const what = random();
    if (random() < 0.03) waiting.push(erase());
    if (random() < 0.02) isStoreFull = !isStoreFull && random() < 0.5;
    if (what < 0.55) {
      const burst = random() < 0.2 ? Math.floor(random() * 25) : 1;
      for (let index = 0; index < burst; index += 1) waiting.push(append());
      if (random() < 0.4) await Promise.all(waiting.splice(0));
    } else if (what < 0.62) journal.writeLazily(stateWrites(2, undefined).writes);
    else if (what < 0.75 && isOnline) {
      const batch = await journal.take(pick<Lane>(random, ['urgent', 'fresh', 'backlog']), 40);
      if (batch !== undefined) held.push(batch);
    } else if (what < 0.9) {
      const [batch] = held.splice(Math.floor(random() * held.length), 1);
      if (batch !== undefined) await end(batch);
    } else if (what < 0.93 && isOnline) {
      // All delivered: from here on nothing old holds the watermark back.
      await Promise.all(waiting.splice(0));
      for (const batch of held.splice(0)) await end(batch);
      for (const lane of ['urgent', 'backlog', 'fresh'] as const) {
        for (let batch = await journal.take(lane, 100); batch; batch = await journal.take(lane, 100)) {
          for (const id of idsIn(linesOf(batch))) byId.get(id)!.isAccepted = true;
          await journal.accept(batch);
        }
      }
    } else if (what < 0.95) journal.uplinkReturned();
    else if (what < 0.97) await replay();
    else if (what < 0.975) journal.date(dating);
    else await Promise.all(waiting.splice(0));
  }
  isOver = true;
  disk.failureShare = 0;
  await opened.close();
  await Promise.all(waiting);
  return cuts;
}

/** Opens what the cut left and answers what is wrong with it. */
async function check(cut: Cut, random: Random): Promise<string[]> {
  const faults: string[] = [];
  const { ledger } = cut;
  let opened: OpenJournal;
  try {
    opened = await openJournal(cut.folder, { disk: cut.disk, options: chosen(random) });
  } catch (error) {
    return [`does not open: ${error instanceof Error ? error.stack : String(error)}`];
  }
  try {
    const { journal } = opened;
    const stats = journal.stats();
    if (!ledger.hasFailed && stats.quarantined.segments + stats.quarantined.points > 0) {
      faults.push(`undamaged, and reported ${JSON.stringify(stats.quarantined)}`);
    }
    const seen = new Map<string, string | undefined>();
    for (const key of ledger.history.keys()) seen.set(key, (await journal.get(key))?.toString());
    const letters = new Set(
      (await journal.listDeadLetters({ limit: 1e6 })).map(({ bytes }) => bytes.toString()),
    );
    const found = new Set<number>();
    journal.date(dating);
    // What is just being moved to a block comes a little later.
    for (let tries = 0; tries < 400; tries += 1) {
      for (const id of await drain(journal, undefined, idsIn)) found.add(id);
      const { urgent, fresh, backlog } = journal.pending();
      if (urgent + fresh + backlog === 0) break;
      await sleep(5);
    }

    const dropped = journal.stats().dropped;
    const mayMiss = new Set([...ledger.dropped, ...droppedIn(journal.stats())]);
    ledger.appends.forEach((told, number) => {
      const present = told.ids.filter((id) => found.has(id)).length;
      if (told.erasure === 'done' && present > 0) faults.push(`append ${number} was deleted and is there`);
      if (mayMiss.has(told.class) && told.outcome !== 'refused') return;
      if (told.outcome === 'refused' && present > 0) faults.push(`append ${number} was refused and is there`);
      if (present > 0 && present < told.ids.length) faults.push(`of append ${number} only a part is there`);
      const mayBeGone = told.isAccepted || told.erasure !== 'none';
      if (told.outcome === 'durable' && !mayBeGone && present < told.ids.length) {
        faults.push(`append ${number} was acknowledged and is not there`);
      }
    });
    for (const id of found) {
      if (ledger.appends[Math.floor(id / 100)]?.ids.includes(id) !== true)
        faults.push(`${id} was never appended`);
    }
    for (const [key, history] of ledger.history) {
      const from = history.findLastIndex((written) => written.isDurable);
      const legal: readonly Written[] =
        from < 0
          ? [{ value: undefined, append: undefined, isDurable: true }, ...history]
          : history.slice(from);
      const value = seen.get(key);
      const at = legal.findLastIndex((written) => written.value === value);
      if (at < 0) {
        const isOld = history.some((written) => written.value === value);
        faults.push(`${key} has ${isOld ? 'an old value' : 'a value nobody wrote'}`);
        continue;
      }
      const { append } = legal[at]!;
      const told = append === undefined ? undefined : ledger.appends[append];
      if (
        value !== undefined &&
        told !== undefined &&
        !told.isAccepted &&
        told.erasure === 'none' &&
        !mayMiss.has(told.class) &&
        told.ids.some((id) => !found.has(id))
      ) {
        faults.push(`the state of append ${append} is there and its lines are not`);
      }
      legal.forEach((written, index) => {
        if (index <= at || written.append === undefined) return;
        const ids = ledger.appends[written.append]?.ids ?? [];
        if (ids.some((id) => found.has(id))) {
          faults.push(`the lines of append ${written.append} are there and its state is not`);
        }
      });
    }
    for (const [text, outcome] of ledger.letters) {
      if (outcome === 'durable' && !letters.has(text)) faults.push(`${text} is gone`);
      if (typeof outcome !== 'number') continue;
      const told = ledger.appends[outcome]!;
      const isThere = told.isAccepted || told.ids.every((id) => found.has(id));
      if (!letters.has(text) && !isThere && !mayMiss.has(told.class))
        faults.push(`${text} was replayed, and neither it nor its points are there`);
      if (letters.has(text) && told.outcome === 'durable')
        faults.push(`${text} was replayed and is still there`);
    }
    const { pending, lostBlocks, quarantined } = journal.stats();
    if (pending.urgent + pending.fresh + pending.backlog !== 0)
      faults.push(`left: ${JSON.stringify(pending)}`);
    if (lostBlocks > 0) faults.push(`${lostBlocks} blocks lost`);
    if (!ledger.hasFailed && quarantined.points > 0)
      faults.push(`${quarantined.points} points reported lost`);
    for (const name of pointClasses) {
      if (dropped[name].damage > 0) faults.push(`${dropped[name].damage} points of ${name} damaged`);
    }
  } finally {
    await opened.close();
  }
  return faults;
}

interface Result {
  cuts: number;
  powerCuts: number;
  /** Of lives that had thinned, or carried state from segment to segment, before. */
  thinned: number;
  carried: number;
  /** Seed and what was wrong, the first few. */
  faults: string[];
}

async function crash(seed: number, settings: { isLying?: boolean } = {}): Promise<Result> {
  const random = seededRandom(seed);
  const root = tempFolder();
  let folders = 0;
  const nextFolder = () => {
    folders += 1;
    return join(root, String(folders));
  };
  const result: Result = { cuts: 0, powerCuts: 0, thinned: 0, carried: 0, faults: [] };
  let at: Cut = {
    disk: new CrashDisk({ random, isLying: settings.isLying ?? false }),
    folder: nextFolder(),
    ledger: newLedger(),
    isPowerCut: true,
    hasThinned: false,
    hasCarried: false,
  };
  const isFailing = seed % 3 === 0;
  for (let life = 0; life < livesPerRun && result.faults.length === 0; life += 1) {
    const cuts = await live(at, random, isFailing, nextFolder);
    rmSync(at.folder, { recursive: true });
    const last = cuts.pop();
    // One of them is lived on from, so that cuts follow cuts.
    for (const cut of cuts) {
      result.cuts += 1;
      if (cut.isPowerCut) result.powerCuts += 1;
      if (cut.hasThinned) result.thinned += 1;
      if (cut.hasCarried) result.carried += 1;
      const faults = await check(cut, random);
      result.faults.push(...faults.slice(0, 3).map((fault) => `seed ${seed}, life ${life}: ${fault}`));
      rmSync(cut.folder, { recursive: true });
    }
    if (last === undefined) break;
    at = last;
    // Whoever waited was never told.
    for (const told of at.ledger.appends) if (told.outcome === 'pending') told.outcome = 'failed';
  }
  rmSync(root, { recursive: true, force: true });
  return result;
}

test(`a power cut at any of ${cutsWanted} moments loses nothing that was acknowledged and leaves nothing half`, {
  timeout: isMany ? 24 * 3600 * 1000 : 240_000,
}, async () => {
  const total: Result = { cuts: 0, powerCuts: 0, thinned: 0, carried: 0, faults: [] };
  for (let seed = firstSeed; total.cuts < cutsWanted && total.faults.length < 10; seed += 1) {
    const { cuts, powerCuts, thinned, carried, faults } = await crash(seed);
    total.cuts += cuts;
    total.powerCuts += powerCuts;
    total.thinned += thinned;
    total.carried += carried;
    total.faults.push(...faults);
  }
  expect(total.faults).toEqual([]);
  expect(total.powerCuts).toBeGreaterThan(cutsWanted / 2);
  expect(total.thinned).toBeGreaterThan(cutsWanted / 50);
  expect(total.carried).toBeGreaterThan(cutsWanted / 50);
  if (isMany) console.log(JSON.stringify(total));
});

test('the same check finds the loss when a disk says it has synced and has not', async () => {
  const faults: string[] = [];
  for (let seed = 1; faults.length === 0 && seed < 10; seed += 1) {
    faults.push(...(await crash(seed, { isLying: true })).faults);
  }
  expect(faults.join()).toMatch(/was acknowledged and is not there|has an old value/);
});
