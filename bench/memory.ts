// What the gateway needs of the memory: idle, at a steady thousand messages a second, and with a backlog of one and
// of ten million points, its uplink down. Anonymous memory is judged; mapped files are the kernel's to take back.

import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { emptyBacklog, fillBacklog } from './backlog.ts';
import { type Memory, memoryOf, temporaryFolder } from './children.ts';
import { type Goal, progress, type Section, sectionText, thousands } from './figures.ts';
import { runLoad } from './mqtt-load.ts';
import { deadUplink, type Gateway, gatewayMissing, startGateway } from './peers/iotflow.ts';

const settleMs = Number(process.env.BENCH_SETTLE_MS ?? 30_000);
const loadSeconds = 30;
const loadRate = 1_000;
const backlogs = (process.env.BENCH_BACKLOGS ?? '1000000,10000000').split(',').map(Number);

interface Sample {
  readonly state: string;
  readonly memory: Memory;
}

export async function measureMemory(): Promise<Section> {
  const missing = gatewayMissing();
  if (missing !== undefined) return report([], [`skipped: memory (needs ${missing})`]);
  const samples: Sample[] = [];
  const folder = temporaryFolder('memory');
  const settings = { influxUrl: await deadUplink() };
  const take = (state: string, gateway: Gateway): void => {
    const memory = memoryOf(gateway.pid);
    samples.push({ state, memory });
    progress(`${state}: anonymous ${memory.anonymousMb.toFixed(1)}, files ${memory.fileMb.toFixed(1)} MB`);
  };

  let gateway = await startGateway(folder, settings);
  const publishers = await gateway.publishers(10);
  try {
    await sleep(settleMs);
    take('idle', gateway);
    await loadWhile(gateway, publishers, (state) => take(`${state}, empty store`, gateway));
    const backlog = emptyBacklog();
    for (const points of backlogs) {
      await fillBacklog(gateway.port, publishers, backlog, points);
      await sleep(settleMs);
      take(`${thousands(points)} points: after filling`, gateway);
      // The heap keeps what filling it needed; a gateway that was restarted shows what the backlog itself needs.
      await gateway.stop();
      gateway = await startGateway(folder, settings);
      await sleep(settleMs);
      take(`${thousands(points)} points: restarted, idle`, gateway);
      await loadWhile(gateway, publishers, (state) => take(`${thousands(points)} points: ${state}`, gateway));
    }
  } finally {
    await gateway.stop();
  }
  return report(samples, []);
}

async function loadWhile(
  gateway: Gateway,
  publishers: Awaited<ReturnType<Gateway['publishers']>>,
  take: (state: string) => void,
): Promise<void> {
  const running = runLoad({
    port: gateway.port,
    publishers,
    window: 1_000,
    messages: loadRate * loadSeconds,
    rate: loadRate,
    firstTimestampMs: Date.now() - loadSeconds * loadRate,
    timeoutMs: (loadSeconds + 30) * 1_000,
  });
  await Promise.race([running, sleep((loadSeconds - 1) * 1_000)]);
  take(`at ${thousands(loadRate)} msg/s`);
  const { unacknowledged } = await running;
  if (unacknowledged > 0) throw new Error(`${unacknowledged} messages not acknowledged`);
}

function report(samples: readonly Sample[], remarks: readonly string[]): Section {
  const anonymousOf = (state: string): number | undefined =>
    samples.find((sample) => sample.state === state)?.memory.anonymousMb;
  const goals: Goal[] = [];
  const idle = anonymousOf('idle');
  if (idle !== undefined) {
    goals.push({
      name: 'idle, anonymous',
      measured: `${idle.toFixed(1)} MB`,
      wanted: '≤ 80 MB',
      met: idle <= 80,
    });
  }
  const judge = (name: string, matches: (state: string) => boolean): void => {
    const those = samples.filter(({ state }) => state.includes('points: ') && matches(state));
    if (those.length === 0) return;
    const most = Math.max(...those.map(({ memory }) => memory.anonymousMb));
    goals.push({ name, measured: `${most.toFixed(1)} MB`, wanted: '≤ 110 MB', met: most <= 110 });
  };
  judge('with a backlog, idle, anonymous, the most', (state) => state.endsWith('idle'));
  judge(`with a backlog, at ${thousands(loadRate)} msg/s, the most`, (state) => state.endsWith('msg/s'));
  judge('with a backlog, right after filling it at full speed, the most', (state) =>
    state.endsWith('filling'),
  );
  const [small, large] = [backlogs[0], backlogs.at(-1)].map((points) =>
    anonymousOf(`${thousands(points ?? 0)} points: restarted, idle`),
  );
  if (small !== undefined && large !== undefined && backlogs.length > 1) {
    const growth = large - small;
    goals.push({
      name: `growth from ${thousands(backlogs[0] ?? 0)} to ${thousands(backlogs.at(-1) ?? 0)} points`,
      measured: `${growth.toFixed(1)} MB`,
      wanted: 'flat (≤ 10 MB)',
      met: growth <= 10,
    });
  }
  return {
    title: 'Memory of the gateway',
    header: ['state', 'anonymous MB', 'mapped files MB', 'RSS MB'],
    rows: samples.map(({ state, memory }) => [
      state,
      memory.anonymousMb.toFixed(1),
      memory.fileMb.toFixed(1),
      memory.totalMb.toFixed(1),
    ]),
    goals,
    remarks: [
      `RssAnon, RssFile and VmRSS of /proc/{pid}/status; idle means ${settleMs / 1000} s after start; ` +
        'the uplink is configured and down',
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureMemory()));
