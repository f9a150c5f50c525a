// What one commit of the journal alone costs the card, beside the same through LevelDB: bytes the kernel writes to a
// block device with a fresh ext4 of its own, the last syncfs included, the one-time zeros of the ring left out.

import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { Level } from 'level';
import { Journal } from '../src/journal/journal.ts';
import { systemClock } from '../src/platform/clock.ts';
import { systemDisk } from '../src/platform/disk.ts';
import { LevelStore } from '../src/platform/level-store.ts';
import { createLog } from '../src/platform/log.ts';
import { runCommand, temporaryFolder } from './children.ts';
import { progress, ratio, type Section, sectionText, thousands } from './figures.ts';
import { loopCardMissing, mountLoopCard } from './loop-card.ts';

const imageBytes = 600_000_000;
const lineBytes = 115;
const settleMs = 15_000;

interface Pattern {
  readonly name: string;
  readonly commits: number;
  readonly burst: number;
  /** Pause between bursts: 250 ms is 20 a second in fives. */
  readonly pauseMs: number;
  readonly goalBytes: number;
}

const patterns: readonly Pattern[] = [
  { name: '1 a commit', commits: 2_000, burst: 1, pauseMs: 0, goalBytes: 4_300 },
  { name: 'bursts of 5, 20/s', commits: 120, burst: 5, pauseMs: 250, goalBytes: 1_000 },
  { name: '25 a commit', commits: 1_000, burst: 25, pauseMs: 0, goalBytes: 200 },
];

/** Where the lines go; `append` resolves when durable. */
interface Sink {
  append(line: string): Promise<void>;
  close(): Promise<void>;
}

function line(index: number): string {
  const time = 1_700_000_000_000_000_000n + BigInt(index) * 1_000_000n;
  const start = `water,device_id=kitchen-${index % 16},location=home flow=${(Math.random() * 40).toFixed(3)}`;
  return `${start},level=${(Math.random() * 100).toFixed(3)},n=${String(index).padStart(12, '0')} ${time}\n`;
}

async function openJournal(folder: string): Promise<Sink> {
  const log = createLog('silent');
  const store = await LevelStore.open(join(folder, 'state'), { log });
  const journal = await Journal.open({
    directory: join(folder, 'journal'),
    store: store.room('journal'),
    disk: systemDisk(),
    clock: systemClock(),
    log,
  });
  while (journal.stats().ring.missing > 0) await sleep(50);
  return {
    append: (lines) => journal.append({ class: 'telemetry', lines, points: 1 }),
    async close() {
      await journal.close();
      await store.close();
    },
  };
}

/** A key for each line and one synced batch for each commit, grouped as the journal groups. */
async function openLevel(folder: string): Promise<Sink> {
  const level = new Level<string, string>(join(folder, 'level'));
  await level.open();
  let next = 0;
  let queue: { line: string; resolve: () => void; reject: (error: unknown) => void }[] = [];
  let isRunning = false;
  async function run(): Promise<void> {
    while (queue.length > 0) {
      const taken = queue;
      queue = [];
      const batch = taken.map((entry) => {
        next += 1;
        return { type: 'put' as const, key: String(next).padStart(16, '0'), value: entry.line };
      });
      try {
        await level.batch(batch, { sync: true });
        for (const entry of taken) entry.resolve();
      } catch (error) {
        for (const entry of taken) entry.reject(error);
      }
      await new Promise(setImmediate);
    }
    isRunning = false;
  }
  return {
    append: (text) =>
      new Promise((resolve, reject) => {
        queue.push({ line: text, resolve, reject });
        if (isRunning) return;
        isRunning = true;
        setImmediate(() => void run());
      }),
    close: () => level.close(),
  };
}

/** Device bytes a message, on an image of its own. */
async function measure(open: (folder: string) => Promise<Sink>, pattern: Pattern): Promise<number> {
  const card = await mountLoopCard(temporaryFolder('wear'), imageBytes);
  try {
    const sink = await open(card.mount);
    // The ring's zeros and the stores' spare files are written once in the life of a card.
    await sleep(settleMs);
    await runCommand('sync', ['--file-system', card.mount]);
    const before = card.written().bytes;
    for (let commit = 0; commit < pattern.commits; commit += 1) {
      const burst = Array.from({ length: pattern.burst }, (_, at) => line(commit * pattern.burst + at));
      await Promise.all(burst.map((text) => sink.append(text)));
      if (pattern.pauseMs > 0) await sleep(pattern.pauseMs);
    }
    await runCommand('sync', ['--file-system', card.mount]);
    const bytes = card.written().bytes - before;
    await sink.close();
    return bytes / (pattern.commits * pattern.burst);
  } finally {
    card.unmount();
  }
}

export async function measureJournalWear(): Promise<Section> {
  const title = 'Bytes written to the card for one message, the journal alone';
  const header = ['how they come', 'journal', 'LevelDB, a key a message', 'ratio'];
  const missing = loopCardMissing();
  if (missing !== undefined) {
    return { title, header, rows: [], goals: [], remarks: [`skipped: journal wear (needs ${missing})`] };
  }
  const rows: string[][] = [];
  const goals: Section['goals'][number][] = [];
  for (const pattern of patterns) {
    const journal = await measure(openJournal, pattern);
    const level = await measure(openLevel, pattern);
    progress(`${pattern.name}: ${thousands(journal)} B, LevelDB ${thousands(level)} B`);
    rows.push([pattern.name, thousands(journal), thousands(level), ratio(level / journal)]);
    goals.push({
      name: pattern.name,
      measured: `${thousands(journal)} B`,
      wanted: `≤ ${thousands(pattern.goalBytes)} B`,
      met: journal <= pattern.goalBytes,
    });
  }
  return {
    title,
    header,
    rows,
    goals,
    remarks: [`a fresh ext4 (noatime) on a loop device for each figure; lines of about ${lineBytes} bytes`],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureJournalWear()));
