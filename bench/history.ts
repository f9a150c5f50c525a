// Recent history of a day: 30 devices that send a sample of three fields every second. How long the day of one of
// them takes to read, how long others have to wait meanwhile, what it costs the disk and the memory.

import { join } from 'node:path';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { History } from '../src/history/history.ts';
import type { RangeQuery } from '../src/history/query.ts';
import type { Point } from '../src/model/point.ts';
import { createLog } from '../src/platform/log.ts';
import { seededRandom } from '../src/simulator/random.ts';
import { memoryOf, runCommand, temporaryFolder } from './children.ts';
import { median, milliseconds, progress, type Section, sectionText, thousands } from './figures.ts';
import { loopCardMissing, mountLoopCard } from './loop-card.ts';

const devices = 30;
const daySeconds = 86_400;
const flushSeconds = 300;
const rounds = 5;
const startMs = Date.UTC(2026, 10, 20);
const wantedMs = 200;

/** A day passes in a minute here; ages are judged by it. */
let wallMs = startMs;
const clock = { bootId: 'bench', wallMs: () => wallMs, monotonicMs: () => performance.now() };

function open(directory: string): Promise<History> {
  return History.open({
    directory,
    clock,
    log: createLog('silent'),
    flushIntervalMs: 0,
    tidyIntervalMs: 0,
  });
}

/** Steps of the size real sensors report. */
function walks(random: () => number): (() => ReadonlyMap<string, number>)[] {
  return Array.from({ length: devices }, () => {
    let temperature = 200 + Math.floor(random() * 50);
    let humidity = 450 + Math.floor(random() * 100);
    let flow = random() * 10;
    return () => {
      temperature += Math.floor(random() * 3) - 1;
      humidity += Math.floor(random() * 5) - 2;
      flow = Math.max(0, flow + random() - 0.5);
      return new Map([
        ['temperature', temperature / 10],
        ['humidity', humidity / 10],
        ['flow', Math.fround(flow)],
      ]);
    };
  });
}

interface Answer {
  readonly what: string;
  readonly rows: number;
  readonly ms: readonly number[];
  readonly blockedMs: number;
}

async function timed(what: string, run: () => Promise<number>, times = rounds): Promise<Answer> {
  const ms: number[] = [];
  let rows = 0;
  const delay = monitorEventLoopDelay({ resolution: 1 });
  await sleep(50);
  delay.enable();
  for (let round = 0; round < times; round += 1) {
    const at = performance.now();
    rows = await run();
    ms.push(performance.now() - at);
    await sleep(20);
  }
  delay.disable();
  const answer = { what, rows, ms, blockedMs: delay.max / 1e6 };
  progress(`${what}: ${ms.map((one) => one.toFixed(0)).join(' ')} ms, ${rows} rows`);
  return answer;
}

export async function measureHistory(): Promise<Section> {
  const folder = temporaryFolder('history');
  const missing = loopCardMissing();
  const card = missing === undefined ? await mountLoopCard(folder, 1_000_000_000) : undefined;
  const directory = join(card?.mount ?? folder, 'history');
  let history = await open(directory);
  try {
    const next = walks(seededRandom(7));
    const written = card?.written().bytes ?? 0;
    let recordMs = 0;
    let flushMs = 0;
    for (let second = 0; second < daySeconds; second += 1) {
      const at = performance.now();
      for (const [index, walk] of next.entries()) {
        // As nodes without a clock are stamped: a few milliseconds late, and no two the same.
        const lateNs = BigInt(Math.floor(Math.random() * 20)) * 1_000_000n + BigInt(second * devices + index);
        const point: Point = {
          measurement: 'climate',
          tags: new Map(),
          fields: walk(),
          timeNs: BigInt(startMs + second * 1_000) * 1_000_000n + lateNs,
        };
        history.record([point], `node-${index}`);
      }
      recordMs += performance.now() - at;
      wallMs = startMs + second * 1_000;
      if (second % flushSeconds !== flushSeconds - 1) continue;
      const flushAt = performance.now();
      await history.flush();
      flushMs += performance.now() - flushAt;
      // What the kernel does by itself within half a minute.
      if (card !== undefined) await runCommand('sync', ['-f', card.mount]);
    }
    const cardBytes = (card?.written().bytes ?? 0) - written;
    const stats = history.stats();
    const points = devices * daySeconds;
    progress(`filled: ${stats.bytes.raw} bytes, ${stats.chunks.raw} chunks`);
    await history.close();
    history = await open(directory);

    const day = { fromNs: BigInt(startMs) * 1_000_000n, toNs: BigInt(startMs + 86_400_000) * 1_000_000n };
    const all: RangeQuery = { deviceId: 'node-7', ...day, limit: 100_000, order: 'oldest-first' };
    const range = async () => (await history.range(all)).rows.length;
    const aggregate = async () => {
      const functions = ['mean', 'min', 'max'] as const;
      const query = { deviceId: 'node-7', ...day, windowMs: 300_000, functions, limit: 10_000 };
      return (await history.aggregate(query)).windows.length;
    };
    const answers = [
      await timed('the day of one device, first after opening', range, 1),
      await timed('the day of one device', range),
      await timed('the day in windows of 5 min', aggregate),
      await timed('the newest 100', async () => {
        const { rows } = await history.range({ ...all, limit: 100, order: 'newest-first' });
        return rows.length;
      }),
      await timed('latest', async () => (await history.latest('node-7')).length),
    ];
    const memory = memoryOf(process.pid);
    const slowest = (answer: Answer | undefined) => Math.max(...(answer?.ms ?? [Number.NaN]));
    const longest = Math.max(...answers.map(({ blockedMs }) => blockedMs));
    return {
      title: 'Recent history: a day of 30 devices at one sample a second, three fields',
      header: ['question', 'rows', 'median ms', 'worst ms', 'event loop held, at most, ms'],
      rows: answers.map(({ what, rows, ms, blockedMs }) => [
        what,
        thousands(rows),
        milliseconds(median(ms)),
        milliseconds(Math.max(...ms)),
        milliseconds(blockedMs),
      ]),
      goals: [
        {
          name: 'the day of one device',
          measured: `${milliseconds(slowest(answers[1]))} ms`,
          wanted: `< ${wantedMs} ms`,
          met: slowest(answers[1]) < wantedMs,
        },
        {
          name: 'the day in windows of 5 min',
          measured: `${milliseconds(slowest(answers[2]))} ms`,
          wanted: `< ${wantedMs} ms`,
          met: slowest(answers[2]) < wantedMs,
        },
        {
          name: 'one question holds the event loop',
          measured: `${milliseconds(longest)} ms`,
          wanted: '≤ 20 ms',
          met: longest <= 20,
        },
      ],
      remarks: [
        `${thousands(points)} points: ${(stats.bytes.raw / points).toFixed(1)} bytes each in chunks, ` +
          `${thousands(stats.bytes.raw)} in all`,
        card === undefined
          ? `skipped: bytes written to the card (needs ${missing})`
          : `written to the card in the day: ${thousands(cardBytes)} bytes, ${(cardBytes / points).toFixed(1)} a point ` +
            '(a fresh ext4 on a loop device, synced after every flush)',
        `recording took ${((recordMs / points) * 1_000).toFixed(2)} µs a point with making the point, ` +
          `encoding and writing ${((flushMs / points) * 1_000).toFixed(2)} µs`,
        `after the questions the process has ${memory.anonymousMb.toFixed(0)} MB of anonymous memory, this bench in it`,
        'first after opening: the page cache of the machine is warm',
      ],
    };
  } finally {
    await history.close();
    card?.unmount();
  }
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureHistory()));
