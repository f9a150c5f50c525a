// What it takes to thin a backlog at its cap: bytes handed to the disk by this process, memory, points a second. Thirty
// sensors once a second, as a household of nodes sends them.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Journal, type JournalOptions } from '../src/journal/journal.ts';
import { systemClock } from '../src/platform/clock.ts';
import { systemDisk } from '../src/platform/disk.ts';
import { LevelStore } from '../src/platform/level-store.ts';
import { createLog } from '../src/platform/log.ts';
import { temporaryFolder } from './children.ts';
import { type Section, thousands } from './figures.ts';

const sensors = 30;
const seconds = 70_000;

function proc(file: string, name: RegExp): number {
  return Number(name.exec(readFileSync(`/proc/self/${file}`, 'utf8'))?.[1] ?? 0);
}

const writtenBytes = () => proc('io', /^write_bytes:\s+(\d+)/m);
const anonymousBytes = () => proc('status', /RssAnon:\s+(\d+)/) * 1024;

async function open(folder: string, options: Partial<JournalOptions>) {
  const log = createLog('silent');
  const store = await LevelStore.open(join(folder, 'state'), { log });
  const directory = join(folder, 'journal');
  const parts = { directory, store: store.room('journal'), disk: systemDisk(), clock: systemClock(), log };
  const journal = await Journal.open({ ...parts, options });
  return { journal, store };
}

export async function measureJournalThinning(): Promise<Section> {
  const folder = temporaryFolder('thinning');
  const first = await open(folder, {});
  for (let second = 0; second < seconds; second += 20) {
    let lines = '';
    for (let at = second; at < second + 20; at += 1) {
      for (let sensor = 0; sensor < sensors; sensor += 1) {
        const temperature = (20 + Math.sin(at / 900 + sensor) + ((at * 7919) % 100) / 500).toFixed(2);
        const humidity = (50 + Math.cos(at / 700 + sensor) * 5).toFixed(1);
        lines += `climate,device_id=node-${sensor},location=home temperature=${temperature},humidity=${humidity} ${1_700_000_000 + at}000000000\n`;
      }
    }
    await first.journal.append({ class: 'telemetry', lines, points: 20 * sensors });
  }
  const before = first.journal.stats().blocks.telemetry;
  await first.journal.close();
  await first.store.close();

  const writtenBefore = writtenBytes();
  const memoryBefore = anonymousBytes();
  let memory = memoryBefore;
  const startMs = performance.now();
  // So that a good three quarters must go.
  const { journal, store } = await open(folder, { maxBytes: before.bytes * 0.32, retentionMs: 50 });
  while (journal.stats().retention.thinned['1m'].points === 0 || journal.stats().retention.isRunning) {
    memory = Math.max(memory, anonymousBytes());
    await sleep(20);
  }
  const elapsedMs = performance.now() - startMs;
  const written = writtenBytes() - writtenBefore;
  const { thinned } = journal.stats().retention;
  await journal.close();
  await store.close();
  const { points, kept, bytes, runs } = thinned['1m'];
  return {
    title: 'journal-thinning',
    header: [
      'points thinned',
      'left of them',
      'blocks written',
      'saved',
      'written',
      'points/s',
      'memory above before',
    ],
    rows: [
      [
        thousands(points),
        thousands(kept),
        String(runs),
        `${(bytes / 1e6).toFixed(1)} MB`,
        `${(written / 1e6).toFixed(1)} MB`,
        thousands((points / elapsedMs) * 1000),
        `${((memory - memoryBefore) / 1e6).toFixed(0)} MB`,
      ],
    ],
    goals: [],
    remarks: ['Bytes are `write_bytes` of /proc/self/io, LevelDB and the opening of the journal included.'],
  };
}
