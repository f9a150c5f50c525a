// What draining costs: the same points into one VictoriaMetrics by a bare HTTP client from ready-made gzip bodies,
// by the forwarder from the same bodies in memory, and by the forwarder from a journal on disk; in turns, as many
// requests at a time. The whole gateway, in a process of its own and with its load, is drain.ts.

import { Agent, request } from 'node:http';
import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { Forwarder } from '../src/forwarder/forwarder.ts';
import type { Spool } from '../src/journal/contract.ts';
import { Journal } from '../src/journal/journal.ts';
import { systemClock } from '../src/platform/clock.ts';
import { systemDisk } from '../src/platform/disk.ts';
import { LevelStore } from '../src/platform/level-store.ts';
import { createLog } from '../src/platform/log.ts';
import { MemorySpool } from '../test/support/memory-spool.ts';
import { temporaryFolder } from './children.ts';
import { type Goal, median, progress, ratio, type Section, sectionText, thousands } from './figures.ts';
import { startVictoriaMetrics, victoriaMetricsMissing } from './peers/victoria-metrics.ts';

const points = Number(process.env.BENCH_DRAIN_POINTS ?? 1_000_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const linesPerBody = 5_000;
const inFlight = 2;

interface Rates {
  readonly bare: number[];
  readonly memory: number[];
  readonly journal: number[];
}

export async function measureForwarder(): Promise<Section> {
  const rates: Rates = { bare: [], memory: [], journal: [] };
  const missing = victoriaMetricsMissing();
  if (missing !== undefined) return report(rates, [`skipped: forwarder (needs ${missing})`]);
  const sink = await startVictoriaMetrics(temporaryFolder('sink'));
  try {
    const texts = makeTexts();
    const bodies = texts.map((text) => gzipSync(text, { level: 1 }));
    // The first round warms both programs and the database's series index, and is not counted.
    for (let round = 0; round <= rounds; round += 1) {
      const bare = await postBare(sink.url, bodies);
      const memory = await drainMemory(sink.url, bodies);
      const journal = await drainJournal(sink.url, texts);
      progress(
        `forwarder: bare ${thousands(bare)}, memory ${thousands(memory)}, journal ${thousands(journal)}`,
      );
      if (round === 0) continue;
      rates.bare.push(bare);
      rates.memory.push(memory);
      rates.journal.push(journal);
    }
  } finally {
    await sink.stop();
  }
  return report(rates, []);
}

function makeTexts(): string[] {
  const texts: string[] = [];
  const beginMs = Date.now() - 30 * 86_400_000;
  for (let first = 0; first < points; first += linesPerBody) {
    let text = '';
    for (let line = first; line < first + linesPerBody; line += 1) {
      const wander = Math.sin(line / 40);
      text +=
        `water_flow,device_id=node-${line % 10},gateway=bench flow_rate=${(8 + 4 * wander).toFixed(3)},` +
        `pressure=${(3.1 + 0.2 * wander).toFixed(3)} ${beginMs + line * 100}000000\n`;
    }
    texts.push(text);
  }
  return texts;
}

async function drainMemory(url: string, bodies: readonly Buffer[]): Promise<number> {
  const spool = new MemorySpool();
  for (const body of bodies) spool.addBlock(body, linesPerBody);
  return drain(url, spool);
}

async function drainJournal(url: string, texts: readonly string[]): Promise<number> {
  const folder = temporaryFolder('journal');
  const log = createLog('silent');
  const store = await LevelStore.open(join(folder, 'state'), { log });
  const journal = await Journal.open({
    directory: join(folder, 'journal'),
    store: store.room('journal'),
    disk: systemDisk(),
    clock: systemClock(),
    log,
    // A small ring, so that nearly all of it is blocks, as after a long outage.
    options: { ringSegments: 4, freeSegmentsMin: 3 },
  });
  for (const lines of texts) await journal.append({ class: 'telemetry', lines, points: linesPerBody });
  // What it does of its own accord after filling shall not count against it.
  await sleep(500);
  journal.uplinkReturned();
  const rate = await drain(url, journal);
  await journal.close();
  await store.close();
  return rate;
}

async function drain(url: string, spool: Spool): Promise<number> {
  const startMs = performance.now();
  const forwarder = Forwarder.start({
    spool,
    target: { url, org: 'bench', bucket: 'bench' },
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    options: { batchPoints: linesPerBody, backlogInFlightMax: inFlight },
  });
  while (spool.pending().backlog > 0) await sleep(1);
  const elapsedMs = performance.now() - startMs;
  await forwarder.close({ deadlineMs: 1000 });
  return (points / elapsedMs) * 1000;
}

async function postBare(url: string, bodies: readonly Buffer[]): Promise<number> {
  const agent = new Agent({ keepAlive: true, maxSockets: inFlight });
  let next = 0;
  const startMs = performance.now();
  const work = async (): Promise<void> => {
    for (let body = bodies[next]; body !== undefined; body = bodies[next]) {
      next += 1;
      await post(agent, url, body);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, work));
  const elapsedMs = performance.now() - startMs;
  agent.destroy();
  return (points / elapsedMs) * 1000;
}

function post(agent: Agent, url: string, body: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-encoding': 'gzip', 'content-length': body.length };
    const path = `${url}/api/v2/write?org=bench&bucket=bench&precision=ns`;
    const asked = request(path, { agent, method: 'POST', headers }, (answer) => {
      answer.resume();
      answer.on('end', () => {
        if (answer.statusCode === 204) resolve();
        else reject(new Error(`the sink answered ${answer.statusCode}`));
      });
    });
    asked.on('error', reject);
    asked.end(body);
  });
}

function report({ bare, memory, journal }: Rates, remarks: readonly string[]): Section {
  // Round by round: what else the machine does meanwhile hits neighbours alike.
  const timesBare = (of: readonly number[]): number =>
    median(of.map((rate, round) => rate / (bare[round] ?? 0)));
  const row = (who: string, of: readonly number[]): string[] => [
    who,
    thousands(median(of)),
    of.map(thousands).join(' '),
    ratio(timesBare(of)),
  ];
  const goal = (name: string, of: readonly number[]): Goal => {
    const measured = timesBare(of);
    return { name, measured: ratio(measured), wanted: '≥ 0.9', met: measured >= 0.9 };
  };
  return {
    title: 'The forwarder alone, into VictoriaMetrics',
    header: ['who', 'points/s (median)', 'rounds', '× bare client (median of rounds)'],
    rows: [
      row('bare HTTP client, ready-made gzip bodies', bare),
      row('forwarder, the same bodies in memory', memory),
      row('forwarder, journal on disk', journal),
    ],
    goals:
      bare.length === 0
        ? []
        : [goal('from memory / bare client', memory), goal('from journal / bare client', journal)],
    remarks: [
      `${thousands(points)} points, ${thousands(linesPerBody)} a body, ${inFlight} requests at a time`,
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureForwarder()));
