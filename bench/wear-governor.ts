// What the wear governor saves the card and what it costs: twenty single messages a second against a gateway whose
// data lies on a card of its own, without a budget, with one it can keep and with one it cannot. Bytes are the
// kernel's count for the card; the wait for PUBACK and from a wet report to the buzzer are measured from outside.

import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type Alarm, enrolNodes, soundAlarms, WatchedLed } from './alarm-latency.ts';
import { runCommand, temporaryFolder } from './children.ts';
import {
  type Goal,
  type Latencies,
  latenciesOf,
  milliseconds,
  progress,
  type Section,
  sectionText,
  thousands,
} from './figures.ts';
import { loopCardMissing, mountLoopCard } from './loop-card.ts';
import { runLoad } from './mqtt-load.ts';
import { gatewayMissing, startGateway } from './peers/iotflow.ts';

const imageBytes = 1_500_000_000;
const rate = 20;
const publisherCount = 5;
/** A sample a second instead of a minute: after ten of them the governor acts. */
const warmUpSeconds = 30;
const measuredSeconds = 40;
const ackDelayMaxMs = 250;
const daySeconds = 86_400;

interface Case {
  readonly name: string;
  readonly budgetBytesPerDay: number;
  /** Whether lingering up to the maximum can keep it. */
  readonly canBeKept: boolean;
}

const cases: readonly Case[] = [
  { name: 'no budget to speak of', budgetBytesPerDay: 1e12, canBeKept: true },
  { name: 'a budget of 3 GB a day', budgetBytesPerDay: 3e9, canBeKept: true },
  { name: 'a budget of 0.5 GB a day', budgetBytesPerDay: 0.5e9, canBeKept: false },
];

interface Outcome {
  readonly case: Case;
  readonly bytesPerDay: number;
  readonly lingerMs: number;
  readonly ack: Latencies;
  readonly alarm: Latencies;
}

async function measure(one: Case): Promise<Outcome> {
  const folder = temporaryFolder('governor');
  const card = await mountLoopCard(folder, imageBytes);
  const led = new WatchedLed();
  const gateway = await startGateway(folder, {
    dataDir: join(card.mount, 'data'),
    buzzerLed: led.folder,
    further: [
      'journal:',
      `  ack_delay_max_ms: ${ackDelayMaxMs}`,
      'wear:',
      `  budget_bytes_per_day: ${one.budgetBytesPerDay}`,
      '  sample_interval_ms: 1000',
    ],
  });
  try {
    const publishers = await gateway.publishers(publisherCount);
    const nodes = await enrolNodes(gateway);
    await sleep(6_000);
    const load = (seconds: number, hour: number) =>
      runLoad({
        port: gateway.port,
        publishers,
        window: 1_000,
        messages: rate * seconds,
        rate,
        firstTimestampMs: Date.now() - (24 - hour) * 3_600_000,
        timeoutMs: (seconds + 30) * 1000,
      });
    await load(warmUpSeconds, 0);
    await runCommand('sync', []);
    const before = card.written().bytes;
    const { ackLatency, unacknowledged } = await load(measuredSeconds, 1);
    await runCommand('sync', []);
    const bytes = card.written().bytes - before;
    if (unacknowledged > 0) throw new Error(`${unacknowledged} messages not acknowledged`);
    const lingerMs = await lingerOf(gateway);
    const alongside = load(20, 2);
    const alarms: Alarm[] = await soundAlarms(gateway, led, nodes, {
      isStalled: () => false,
      isDraining: async () => false,
    });
    await alongside;
    const outcome = {
      case: one,
      bytesPerDay: (bytes / measuredSeconds) * daySeconds,
      lingerMs,
      ack: ackLatency,
      alarm: latenciesOf(Float64Array.from(alarms, ({ latencyMs }) => latencyMs)),
    };
    progress(`${one.name}: ${thousands(outcome.bytesPerDay / 1e6)} MB a day, lingering ${lingerMs} ms`);
    return outcome;
  } finally {
    led.close();
    await gateway.stop();
    card.unmount();
  }
}

async function lingerOf(gateway: { metrics(): Promise<string> }): Promise<number> {
  const match = /^iotflow_wear_linger_seconds (\S+)$/m.exec(await gateway.metrics());
  return Number(match?.[1]) * 1000;
}

export async function measureWearGovernor(): Promise<Section> {
  const title = 'What lingering saves the card';
  const header = [
    'budget',
    'MB written a day',
    'lingers, ms',
    'ack p50 ms',
    'ack p99 ms',
    'ack max ms',
    'wet → buzzer p50 ms',
    'p99 ms',
  ];
  const missing = gatewayMissing() ?? loopCardMissing();
  if (missing !== undefined) {
    return { title, header, rows: [], goals: [], remarks: [`skipped: wear governor (needs ${missing})`] };
  }
  const rows: string[][] = [];
  const goals: Goal[] = [];
  for (const one of cases) {
    const { bytesPerDay, lingerMs, ack, alarm } = await measure(one);
    rows.push([
      one.name,
      thousands(bytesPerDay / 1e6),
      thousands(lingerMs),
      milliseconds(ack.p50Ms),
      milliseconds(ack.p99Ms),
      milliseconds(ack.maxMs),
      milliseconds(alarm.p50Ms),
      milliseconds(alarm.p99Ms),
    ]);
    if (one.canBeKept) {
      goals.push({
        name: `${one.name}: is kept`,
        measured: `${thousands(bytesPerDay / 1e6)} MB`,
        wanted: `≤ ${thousands(one.budgetBytesPerDay / 1e6)} MB`,
        met: bytesPerDay <= one.budgetBytesPerDay,
      });
    }
    goals.push({
      name: `${one.name}: no acknowledgement is held back longer than configured`,
      measured: `${milliseconds(ack.maxMs)} ms`,
      wanted: `≤ ${ackDelayMaxMs} ms`,
      met: ack.maxMs <= ackDelayMaxMs,
    });
  }
  return {
    title,
    header,
    rows,
    goals,
    remarks: [
      `${rate} messages a second, one at a time, from ${publisherCount} nodes, for ${measuredSeconds} s after ` +
        `${warmUpSeconds} s; a sample a second instead of a minute; a fresh ext4 on a loop device, the whole gateway`,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url))
  process.stdout.write(sectionText(await measureWearGovernor()));
