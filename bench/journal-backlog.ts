// The journal with a backlog: how long it takes to open and how much memory of its own it needs with a million and
// with ten million points waiting, and how fast it takes points from many at once. No broker, no network.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { argv, execPath } from 'node:process';
import { fileURLToPath } from 'node:url';
import { Journal, type JournalOptions } from '../src/journal/journal.ts';
import { systemClock } from '../src/platform/clock.ts';
import { systemDisk } from '../src/platform/disk.ts';
import { LevelStore } from '../src/platform/level-store.ts';
import { createLog } from '../src/platform/log.ts';
import { runCommand, temporaryFolder } from './children.ts';
import { milliseconds, progress, type Section, sectionText, thousands } from './figures.ts';

const backlogs = [1_000_000, 10_000_000] as const;
const appenders = 200;
const pointsPerAppend = 100;

function anonymousBytes(): number {
  return Number(/RssAnon:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) * 1024;
}

async function open(folder: string, options: Partial<JournalOptions> = {}) {
  const log = createLog('silent');
  const store = await LevelStore.open(join(folder, 'state'), { log });
  const journal = await Journal.open({
    directory: join(folder, 'journal'),
    store: store.room('journal'),
    disk: systemDisk(),
    clock: systemClock(),
    log,
    options,
  });
  return { journal, store };
}

function lines(first: number, count: number): string {
  let text = '';
  for (let index = first; index < first + count; index += 1) {
    const flow = ((index * 7919) % 40_000) / 1000;
    const level = ((index * 104_729) % 100_000) / 1000;
    const time = 1_700_000_000_000_000_000n + BigInt(index) * 1_000_000n;
    text += `water,device_id=kitchen-${index % 16},location=home flow=${flow},level=${level},n=${index} ${time}\n`;
  }
  return text;
}

async function fill(journal: Journal, from: number, to: number): Promise<number> {
  let next = from;
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: appenders }, async () => {
      while (next < to) {
        const first = next;
        next += pointsPerAppend;
        const append = {
          class: 'telemetry' as const,
          lines: lines(first, pointsPerAppend),
          points: pointsPerAppend,
        };
        await journal.append(append);
      }
    }),
  );
  return ((to - from) / (performance.now() - startMs)) * 1000;
}

/** In a process of its own: opens, takes a few batches, and prints what that needed. */
async function reopen(folder: string): Promise<void> {
  const idle = anonymousBytes();
  const startMs = performance.now();
  const { journal, store } = await open(folder);
  const openMs = performance.now() - startMs;
  const opened = anonymousBytes();
  let taken = 0;
  let mostBytes = opened;
  for (let round = 0; round < 200; round += 1) {
    const batch = await journal.take('backlog', 5000);
    if (batch === undefined) break;
    taken += batch.points;
    await journal.accept(batch);
    mostBytes = Math.max(mostBytes, anonymousBytes());
  }
  const { backlog, fresh } = journal.pending();
  process.stdout.write(
    JSON.stringify({ openMs, idle, opened, mostBytes, taken, points: taken + backlog + fresh }),
  );
  await journal.close();
  await store.close();
}

interface Reopened {
  readonly openMs: number;
  readonly idle: number;
  readonly opened: number;
  readonly mostBytes: number;
  readonly taken: number;
  readonly points: number;
}

/** Appends a second from many appenders of one point each: what single messages cost. */
async function singlePoints(journal: Journal, points: number): Promise<number> {
  const one = lines(1, 1);
  let left = points;
  const startMs = performance.now();
  await Promise.all(
    Array.from({ length: appenders }, async () => {
      while (left > 0) {
        left -= 1;
        await journal.append({ class: 'telemetry', lines: one, points: 1 });
      }
    }),
  );
  return (points / (performance.now() - startMs)) * 1000;
}

export async function measureJournalBacklog(): Promise<Section> {
  const mega = (bytes: number) => (bytes / 1_000_000).toFixed(0);
  const rows: string[][] = [];
  const remarks: string[] = [];
  for (const gzipLevel of [1, 6]) {
    const { journal, store } = await open(temporaryFolder('gzip'), { gzipLevel });
    const rate = await fill(journal, 0, 1_000_000);
    const { points, bytes } = journal.stats().blocks.telemetry;
    remarks.push(
      `gzip level ${gzipLevel}: ${thousands(rate)} points/s, ${(bytes / points).toFixed(1)} B a point stored`,
    );
    await journal.close();
    await store.close();
  }
  const folder = temporaryFolder('backlog');
  let filled = 0;
  for (const points of backlogs) {
    const { journal, store } = await open(folder);
    const rate = await fill(journal, filled, points);
    filled = points;
    const single = await singlePoints(journal, 200_000);
    progress(`${thousands(points)} points: ${thousands(rate)} points/s, ${thousands(single)} appends/s`);
    await journal.close();
    await store.close();
    const script = fileURLToPath(import.meta.url);
    const found = JSON.parse(await runCommand(execPath, [script, 'reopen', folder])) as Reopened;
    rows.push([
      thousands(found.points),
      milliseconds(found.openMs),
      mega(found.idle),
      mega(found.opened),
      mega(found.mostBytes),
      thousands(rate),
      thousands(single),
    ]);
  }
  return {
    title: 'The journal with a backlog',
    header: [
      'points waiting',
      'open ms',
      'MB before',
      'MB opened',
      'MB while draining',
      'points/s in',
      'appends/s',
    ],
    rows,
    goals: [],
    remarks: [
      `memory is anonymous (RssAnon); ${appenders} appenders, ${pointsPerAppend} points an append, then one`,
      ...remarks,
    ],
  };
}

if (argv[2] === 'reopen' && argv[3] !== undefined) await reopen(argv[3]);
else if (argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(sectionText(await measureJournalBacklog()));
}
