// A backup of a running gateway with a million and with ten million points waiting: how long it takes, how large it
// is, what memory both processes need, and what publishers notice of it meanwhile. Then the restore of it. What an
// alarm waits for, the event loop, is in the acknowledgements' latency too, with the disk on top.

import { statSync } from 'node:fs';
import { join } from 'node:path';
import { argv, execPath } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { emptyBacklog, fillBacklog } from './backlog.ts';
import { type Child, memoryOf, repositoryRoot, startChild, temporaryFolder } from './children.ts';
import { milliseconds, progress, type Section, sectionText, thousands } from './figures.ts';
import { type LoadReport, type Publisher, startLoad } from './mqtt-load.ts';
import { configure, enrol, type Gateway, gatewayMissing, startGateway } from './peers/iotflow.ts';

const backlogs = (process.env.BENCH_BACKUP_BACKLOGS ?? '1000000,10000000').split(',').map(Number);
const liveRate = 500;
const restMs = 15_000;
const program = join(repositoryRoot(), 'dist', 'main.js');

interface Run {
  readonly seconds: number;
  readonly peakMb: number;
  readonly gatewayPeakMb: number;
}

/** Runs a command of the gateway to its end and watches the memory of both. */
async function run(gateway: Gateway | undefined, ...args: readonly string[]): Promise<Run> {
  const startMs = performance.now();
  const child: Child = startChild(execPath, [program, ...args]);
  let peakMb = 0;
  let gatewayPeakMb = 0;
  while (child.process.exitCode === null) {
    try {
      peakMb = Math.max(peakMb, memoryOf(child.pid).anonymousMb || 0);
      if (gateway !== undefined) {
        gatewayPeakMb = Math.max(gatewayPeakMb, memoryOf(gateway.pid).anonymousMb);
      }
    } catch {
      break;
    }
    await sleep(20);
  }
  await child.ended;
  if (child.process.exitCode !== 0) throw new Error(`iotflow ${args.join(' ')}: ${child.lastOutput()}`);
  return { seconds: (performance.now() - startMs) / 1000, peakMb, gatewayPeakMb };
}

async function underLoad(
  gateway: Gateway,
  publishers: readonly Publisher[],
  firstTimestampMs: number,
  meanwhile: () => Promise<void>,
): Promise<LoadReport> {
  const load = startLoad({
    port: gateway.port,
    publishers,
    window: 20,
    messages: 10_000_000,
    rate: liveRate,
    firstTimestampMs,
    timeoutMs: 900_000,
  });
  await meanwhile();
  load.stop();
  return await load.report;
}

export async function measureBackup(): Promise<Section> {
  const missing = gatewayMissing();
  const header = [
    'points waiting',
    'form',
    'backup s',
    'file MB',
    'MB gateway before',
    'MB gateway, most',
    'MB backup, most',
    'ack p50, p99, max ms at rest',
    'ack p50, p99, max ms meanwhile',
    'restore s',
    'MB restore, most',
  ];
  const title = 'Backup of a running gateway';
  if (missing !== undefined)
    return { title, header, rows: [], goals: [], remarks: [`skipped: needs ${missing}`] };
  const folder = temporaryFolder('backup');
  const gateway = await startGateway(folder);
  const configFile = join(folder, 'config.yaml');
  const publishers = await enrol(configFile, 10);
  const backlog = emptyBacklog();
  const rows: string[][] = [];
  let liveMs = Date.now();
  const shown = ({ ackLatency: { p50Ms, p99Ms, maxMs } }: LoadReport) =>
    [p50Ms, p99Ms, maxMs].map(milliseconds).join(', ');
  for (const points of backlogs) {
    await fillBacklog(gateway.port, publishers, backlog, points);
    await sleep(restMs);
    const before = memoryOf(gateway.pid).anonymousMb;
    for (const form of ['plain', 'encrypted']) {
      const file = join(folder, `${form}.backup`);
      if (form === 'encrypted') process.env.IOTFLOW_BACKUP_PASSPHRASE = 'correct horse battery staple';
      const rest = await underLoad(gateway, publishers, liveMs, () => sleep(restMs));
      liveMs += 10_000_000;
      let made: Run | undefined;
      const meanwhile = await underLoad(gateway, publishers, liveMs, async () => {
        await sleep(1000);
        made = await run(gateway, 'backup', file, '--config', configFile);
      });
      liveMs += 10_000_000;
      const target = temporaryFolder('restore');
      const restored = await run(undefined, 'restore', file, '--config', configure(target));
      delete process.env.IOTFLOW_BACKUP_PASSPHRASE;
      const mega = (bytes: number) => (bytes / 1_000_000).toFixed(1);
      rows.push([
        thousands(backlog.points),
        form,
        (made?.seconds ?? Number.NaN).toFixed(1),
        mega(statSync(file).size),
        before.toFixed(0),
        (made?.gatewayPeakMb ?? Number.NaN).toFixed(0),
        (made?.peakMb ?? Number.NaN).toFixed(0),
        shown(rest),
        shown(meanwhile),
        restored.seconds.toFixed(1),
        restored.peakMb.toFixed(0),
      ]);
      progress(rows[rows.length - 1]?.join(' | ') ?? '');
    }
  }
  await gateway.stop();
  return {
    title,
    header,
    rows,
    goals: [],
    remarks: [
      `memory is anonymous (RssAnon); ${liveRate} messages a second before and meanwhile; the time is that of the ` +
        'whole command: start, reading, writing, syncing, reading back',
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureBackup()));
