// How long after its start the gateway has acknowledged the first message: with an empty store, and with a backlog
// of ten million points, after a clean stop and after a kill. The publisher tries from the first moment on, as the
// nodes of a house do after a power cut.

import { readFileSync, rmSync } from 'node:fs';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { emptyBacklog, fillBacklog } from './backlog.ts';
import { temporaryFolder } from './children.ts';
import { type Goal, median, progress, type Section, sectionText, thousands } from './figures.ts';
import { openConnection, type Publisher, publishPacket } from './mqtt-load.ts';
import {
  configure,
  deadUplink,
  gatewayMissing,
  portsPath,
  spawnGateway,
  startGateway,
} from './peers/iotflow.ts';

const points = Number(process.env.BENCH_START_POINTS ?? 10_000_000);
const starts = 5;

type End = 'SIGTERM' | 'SIGKILL';

export async function measureStartTime(): Promise<Section> {
  const missing = gatewayMissing();
  if (missing !== undefined) return report([], [`skipped: start time (needs ${missing})`]);
  const rows: { readonly state: string; readonly seconds: readonly number[] }[] = [];
  const settings = { influxUrl: await deadUplink() };
  const folder = temporaryFolder('start');
  const dataDir = `${folder}/data`;
  const configPath = configure(folder, settings);

  const setUp = await startGateway(folder, settings);
  const publishers = await setUp.publishers(10);
  const publisher = publishers[0];
  if (publisher === undefined) throw new Error('BUG: no publisher');
  await setUp.stop();
  const time = async (state: string, end: End): Promise<void> => {
    const seconds: number[] = [];
    for (let start = 0; start < starts; start += 1) {
      seconds.push(await timeStart(configPath, dataDir, publisher, end));
    }
    rows.push({ state, seconds });
    progress(`${state}: ${seconds.map((value) => value.toFixed(2)).join(' ')} s`);
  };
  await time('empty store', 'SIGTERM');
  const gateway = await startGateway(folder, settings);
  await fillBacklog(gateway.port, publishers, emptyBacklog(), points);
  await gateway.stop();
  await time(`${thousands(points)} points, after a clean stop`, 'SIGTERM');
  // The first start of these still follows a clean stop; its message makes the difference for the next.
  await timeStart(configPath, dataDir, publisher, 'SIGKILL');
  await time(`${thousands(points)} points, after a kill`, 'SIGKILL');
  return report(rows, []);
}

let sent = 0;

/** Seconds from spawn to PUBACK. Ends the gateway afterwards, as the next start shall find it. */
async function timeStart(
  configPath: string,
  dataDir: string,
  publisher: Publisher,
  end: End,
): Promise<number> {
  // A killed gateway could not remove it, and its port would be believed.
  rmSync(portsPath(dataDir), { force: true });
  const startedAt = performance.now();
  const child = spawnGateway(configPath);
  const deadline = startedAt + 120_000;
  try {
    while (performance.now() < deadline) {
      if (child.process.exitCode !== null) throw new Error(`the gateway ended: ${child.lastOutput()}`);
      if (await publishOnce(dataDir, publisher)) return (performance.now() - startedAt) / 1000;
      await sleep(5);
    }
    throw new Error(`no message accepted within 120 s: ${child.lastOutput()}`);
  } finally {
    child.process.kill(end);
    await child.ended;
  }
}

async function publishOnce(dataDir: string, publisher: Publisher): Promise<boolean> {
  let port: number;
  try {
    port = (JSON.parse(readFileSync(portsPath(dataDir), 'utf8')) as { mqtt: number }).mqtt;
  } catch {
    return false;
  }
  const socket = await openConnection(port, publisher).catch(() => undefined);
  if (socket === undefined) return false;
  sent += 1;
  const payload = JSON.stringify({ timestamp: Date.now(), flow_rate: sent });
  return new Promise((resolve) => {
    socket.on('error', () => resolve(false));
    socket.once('close', () => resolve(false));
    socket.once('data', (answer: Buffer) => {
      resolve(answer[0] === 0x40);
      socket.destroy();
    });
    socket.write(publishPacket(publisher.topic, payload, 1));
  });
}

function report(
  rows: readonly { readonly state: string; readonly seconds: readonly number[] }[],
  remarks: readonly string[],
): Section {
  const goals: Goal[] = rows
    .filter(({ state }) => state.includes('points'))
    .map(({ state, seconds }) => ({
      name: `first accepted message, ${state}`,
      measured: `${median(seconds).toFixed(2)} s`,
      wanted: '< 1 s',
      met: median(seconds) < 1,
    }));
  return {
    title: 'From start to the first accepted message',
    header: ['store', 'median s', 'worst s', 'starts'],
    rows: rows.map(({ state, seconds }) => [
      state,
      median(seconds).toFixed(2),
      Math.max(...seconds).toFixed(2),
      String(seconds.length),
    ]),
    goals,
    remarks: [
      'from the spawn of the process to the PUBACK of a QoS 1 message; the uplink is down',
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureStartTime()));
