// What the forwarder itself costs: the same ready-made gzip bodies into one VictoriaMetrics, through the forwarder
// (spool in memory) and by a bare HTTP client with as many requests at a time, in turns. The whole gateway with its
// journal is drain.ts. `npx vite-node bench/forwarder.ts`, or compiled like the other benches.

import { Agent, request } from 'node:http';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';
import { Forwarder } from '../src/forwarder/forwarder.ts';
import { systemClock } from '../src/platform/clock.ts';
import { createLog } from '../src/platform/log.ts';
import { MemorySpool } from '../test/support/memory-spool.ts';
import { temporaryFolder } from './children.ts';
import { type Goal, median, progress, ratio, type Section, sectionText, thousands } from './figures.ts';
import { startVictoriaMetrics, victoriaMetricsMissing } from './peers/victoria-metrics.ts';

const points = Number(process.env.BENCH_DRAIN_POINTS ?? 1_000_000);
const rounds = Number(process.env.BENCH_ROUNDS ?? 5);
const linesPerBody = 2_000;
const inFlight = 2;

export async function measureForwarder(): Promise<Section> {
  const missing = victoriaMetricsMissing();
  if (missing !== undefined) return report([], [], [`skipped: forwarder (needs ${missing})`]);
  const sink = await startVictoriaMetrics(temporaryFolder('sink'));
  const ours: number[] = [];
  const bare: number[] = [];
  try {
    const ready = makeBodies();
    // The first round warms both programs and the database's series index, and is not counted.
    for (let round = 0; round <= rounds; round += 1) {
      const ofBare = await postBare(sink.url, ready);
      const ofOurs = await drain(sink.url, ready);
      progress(`forwarder: ours ${thousands(ofOurs)}, bare ${thousands(ofBare)} points/s`);
      if (round === 0) continue;
      bare.push(ofBare);
      ours.push(ofOurs);
    }
  } finally {
    await sink.stop();
  }
  return report(ours, bare, []);
}

function makeBodies(): Buffer[] {
  const bodies: Buffer[] = [];
  const beginMs = Date.now() - 30 * 86_400_000;
  for (let first = 0; first < points; first += linesPerBody) {
    let text = '';
    for (let line = first; line < first + linesPerBody; line += 1) {
      const wander = Math.sin(line / 40);
      text +=
        `water_flow,device_id=node-${line % 10},gateway=bench flow_rate=${(8 + 4 * wander).toFixed(3)},` +
        `pressure=${(3.1 + 0.2 * wander).toFixed(3)} ${beginMs + line * 100}000000\n`;
    }
    bodies.push(gzipSync(text, { level: 1 }));
  }
  return bodies;
}

async function drain(url: string, bodies: readonly Buffer[]): Promise<number> {
  const spool = new MemorySpool();
  for (const body of bodies) spool.addBlock(body, linesPerBody);
  const startMs = performance.now();
  const forwarder = Forwarder.start({
    spool,
    target: { url, org: 'bench', bucket: 'bench' },
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    // One body a request, as the bare client sends them.
    options: { batchPoints: linesPerBody, backlogInFlightMax: inFlight },
  });
  while (spool.total > 0) await sleep(1);
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

function report(ours: readonly number[], bare: readonly number[], remarks: readonly string[]): Section {
  const measured = median(ours) / median(bare);
  const goals: Goal[] = Number.isFinite(measured)
    ? [
        {
          name: 'forwarder / bare HTTP client',
          measured: ratio(measured),
          wanted: '≥ 0.9',
          met: measured >= 0.9,
        },
      ]
    : [];
  return {
    title: 'The forwarder alone, into VictoriaMetrics',
    header: ['who', 'points/s (median)', 'rounds', '× bare client'],
    rows: [
      ['bare HTTP client, two at a time', thousands(median(bare)), bare.map(thousands).join(' '), '1.00'],
      ['forwarder, spool in memory', thousands(median(ours)), ours.map(thousands).join(' '), ratio(measured)],
    ],
    goals,
    remarks: [
      `${thousands(points)} points in ready-made gzip bodies of ${thousands(linesPerBody)}`,
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureForwarder()));
