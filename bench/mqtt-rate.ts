// QoS 1 messages a second and the latency of their PUBACK, ours beside the brokers a user would otherwise run, in
// one run: every round starts each of them afresh, so that what the machine does meanwhile hits all of them.

import { rmSync } from 'node:fs';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { isMemoryDisk, memoryOfTree, temporaryFolder } from './children.ts';
import {
  type Goal,
  median,
  milliseconds,
  progress,
  ratio,
  type Section,
  sectionText,
  thousands,
} from './figures.ts';
import { type LoadReport, runLoad } from './mqtt-load.ts';
import { forgettingAedesPeer, queueingAedesPeer } from './peers/aedes.ts';
import { iotflowForwardingPeer, iotflowPeer } from './peers/iotflow.ts';
import { mosquittoPeer } from './peers/mosquitto.ts';
import type { Peer } from './peers/peer.ts';
import { rabbitmqPeer } from './peers/rabbitmq.ts';

const rounds = Number(process.env.BENCH_ROUNDS ?? 3);
const publisherCount = 10;
const window = 20;
const pacedPublisherCount = 5;
const pacedRate = 20;
const pacedSeconds = Number(process.env.BENCH_PACED_SECONDS ?? 30);

const contenders: readonly { readonly peer: Peer; readonly messages: number }[] = [
  { peer: forgettingAedesPeer, messages: 200_000 },
  { peer: queueingAedesPeer, messages: 200_000 },
  { peer: iotflowPeer, messages: 200_000 },
  { peer: iotflowForwardingPeer, messages: 200_000 },
  { peer: mosquittoPeer, messages: 200_000 },
  { peer: rabbitmqPeer, messages: 20_000 },
];

interface Outcome {
  readonly full: LoadReport[];
  readonly memoryMb: number[];
  paced?: LoadReport;
}

export async function measureMqttRate(): Promise<Section> {
  const only = process.env.BENCH_PEERS?.split(',');
  const chosen = contenders.filter(({ peer }) => only?.some((part) => peer.name.includes(part)) ?? true);
  const remarks: string[] = [];
  const able = chosen.filter(({ peer }) => {
    const missing = peer.missing();
    if (missing !== undefined) remarks.push(`skipped: ${peer.name} (needs ${missing})`);
    return missing === undefined;
  });
  const outcomes = new Map<Peer, Outcome>(able.map(({ peer }) => [peer, { full: [], memoryMb: [] }]));
  for (let round = 0; round < rounds; round += 1) {
    for (const { peer, messages } of able) await measureRound(peer, messages, round, outcomes);
  }
  if (isMemoryDisk(temporaryFolder('probe'))) {
    remarks.push('the temporary folder is in memory: fsync was free, set BENCH_DIR to a real disk');
  }
  return report(outcomes, remarks);
}

async function measureRound(
  peer: Peer,
  messages: number,
  round: number,
  outcomes: ReadonlyMap<Peer, Outcome>,
): Promise<void> {
  const outcome = outcomes.get(peer);
  if (outcome === undefined) return;
  const folder = temporaryFolder('peer');
  const running = await peer.start(folder);
  try {
    const publishers = await running.publishers(publisherCount);
    const firstTimestampMs = Date.now() - 86_400_000;
    const load = { port: running.port, publishers, window, timeoutMs: 120_000 };
    // Both a JIT and a page cache need a first part that does not count.
    await runLoad({ ...load, messages: messages / 10, firstTimestampMs: firstTimestampMs - 3_600_000 });
    const full = await runLoad({ ...load, messages, firstTimestampMs });
    if (full.unacknowledged > 0)
      throw new Error(`${peer.name}: ${full.unacknowledged} messages not acknowledged`);
    outcome.full.push(full);
    outcome.memoryMb.push(memoryOfTree(running.pid).totalMb);
    progress(
      `${peer.name}: ${thousands(full.messagesPerSecond)}/s, p50 ${milliseconds(full.ackLatency.p50Ms)} ms, ` +
        `p99 ${milliseconds(full.ackLatency.p99Ms)} ms, generator ${ratio(full.generatorCpu)} of a core`,
    );
    if (round === 0 && pacedSeconds > 0) {
      outcome.paced = await runLoad({
        ...load,
        publishers: publishers.slice(0, pacedPublisherCount),
        messages: pacedRate * pacedSeconds,
        rate: pacedRate,
        firstTimestampMs: firstTimestampMs + 3_600_000,
        timeoutMs: (pacedSeconds + 30) * 1000,
      });
      const { p50Ms, p99Ms, maxMs } = outcome.paced.ackLatency;
      progress(
        `  at 20/s: p50 ${milliseconds(p50Ms)}, p99 ${milliseconds(p99Ms)}, max ${milliseconds(maxMs)} ms`,
      );
    }
  } finally {
    await running.stop();
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
  }
}

function report(outcomes: ReadonlyMap<Peer, Outcome>, remarks: string[]): Section {
  const rateOf = (peer: Peer): number =>
    median((outcomes.get(peer)?.full ?? []).map((full) => full.messagesPerSecond));
  const rows = [...outcomes].map(([peer, { full, memoryMb, paced }]) => [
    peer.name,
    peer.ackMeans,
    thousands(rateOf(peer)),
    full.map(({ messagesPerSecond }) => thousands(messagesPerSecond)).join(' '),
    ratio(rateOf(peer) / rateOf(forgettingAedesPeer)),
    milliseconds(median(full.map(({ ackLatency }) => ackLatency.p50Ms))),
    milliseconds(median(full.map(({ ackLatency }) => ackLatency.p99Ms))),
    paced === undefined ? '–' : milliseconds(paced.ackLatency.p50Ms),
    paced === undefined ? '–' : milliseconds(paced.ackLatency.p99Ms),
    thousands(median(memoryMb)),
    ratio(median(full.map(({ generatorCpu }) => generatorCpu))),
  ]);
  const goals: Goal[] = [];
  const judge = (ours: Peer, theirs: Peer, atLeast: number, wish: number): void => {
    const measured = rateOf(ours) / rateOf(theirs);
    if (!Number.isFinite(measured)) return;
    goals.push({
      name: `${ours.name} / ${theirs.name}`,
      measured: ratio(measured),
      wanted: `≥ ${atLeast}, goal ${wish}`,
      met: measured >= atLeast,
    });
  };
  for (const ours of [iotflowPeer, iotflowForwardingPeer]) {
    judge(ours, forgettingAedesPeer, 0.6, 0.75);
    judge(ours, queueingAedesPeer, 0.6, 0.75);
    judge(ours, rabbitmqPeer, 3, 4);
  }
  const payloadBytes = [...outcomes.values()][0]?.full[0]?.payloadBytes ?? 0;
  return {
    title: 'Durable QoS 1 rate and acknowledgement latency',
    header: [
      'broker',
      'what its PUBACK means',
      'msg/s (median)',
      'rounds',
      '× aedes',
      'ack p50 ms',
      'ack p99 ms',
      'p50 ms at 20/s',
      'p99 ms at 20/s',
      'RSS MB after',
      'generator',
    ],
    rows,
    goals,
    remarks: [
      `${publisherCount} publishers × window ${window}, payload ${payloadBytes} B, ${rounds} interleaved rounds, ` +
        'each on a fresh broker with fresh data after a warm-up of a tenth; ' +
        `latency at ${pacedRate} msg/s from ${pacedPublisherCount} publishers over ${pacedSeconds} s`,
      'generator: the share of a core it used; near 1 it was the limit, and the rate is a lower bound',
      'queueing: for one persistent QoS 1 subscriber that is away, as mosquitto and RabbitMQ do here too',
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureMqttRate()));
