// What one acknowledged message costs the card: bytes the kernel writes to the block device, for a gateway whose data
// lies on a fresh ext4 of its own (an image on a loop device). Counts everything the gateway writes meanwhile, and
// the file system's own journal; that is what wears a card out.

import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { runCommand, temporaryFolder } from './children.ts';
import { type Goal, progress, type Section, sectionText, thousands } from './figures.ts';
import { loopCardMissing, mountLoopCard } from './loop-card.ts';
import { runLoad } from './mqtt-load.ts';
import { deadUplink, gatewayMissing, startGateway } from './peers/iotflow.ts';

const imageBytes = 1_500_000_000;
// Longer than the kernel's writeback interval, so that what was left in the page cache is counted as well.
const settleMs = 6_000;

interface Pattern {
  readonly name: string;
  readonly rate: number;
  readonly burst: number;
  readonly messages: number;
  readonly goalBytes: number;
}

const patterns: readonly Pattern[] = [
  { name: 'one at a time (10 msg/s)', rate: 10, burst: 1, messages: 300, goalBytes: 4_300 },
  { name: '20 msg/s in bursts of five', rate: 20, burst: 5, messages: 600, goalBytes: 1_000 },
  { name: '25 at once (250 msg/s)', rate: 250, burst: 25, messages: 7_500, goalBytes: 200 },
];

interface Written {
  readonly pattern: Pattern;
  readonly bytesPerMessage: number;
  readonly writesPerMessage: number;
}

export async function measureDeviceBytes(): Promise<Section> {
  const missing = gatewayMissing() ?? loopCardMissing();
  if (missing !== undefined) return report([], 0, [`skipped: device bytes (needs ${missing})`]);
  const written: Written[] = [];
  const folder = temporaryFolder('device');
  const card = await mountLoopCard(folder, imageBytes);
  const gateway = await startGateway(folder, {
    dataDir: join(card.mount, 'data'),
    influxUrl: await deadUplink(),
  });
  let idleBytesPerSecond = 0;
  try {
    const publishers = await gateway.publishers(25);
    // The ring is laid out once; that is not the messages' doing.
    await settle();
    const idleBefore = card.written();
    await sleep(20_000);
    await settle();
    idleBytesPerSecond = (card.written().bytes - idleBefore.bytes) / (20 + settleMs / 1000);
    for (const [index, pattern] of patterns.entries()) {
      const before = card.written();
      const { unacknowledged } = await runLoad({
        port: gateway.port,
        publishers: publishers.slice(0, Math.max(5, pattern.burst)),
        window: 1_000,
        messages: pattern.messages,
        rate: pattern.rate,
        burst: pattern.burst,
        firstTimestampMs: Date.now() - 86_400_000 + index * 3_600_000,
        timeoutMs: 120_000,
      });
      if (unacknowledged > 0) throw new Error(`${unacknowledged} messages not acknowledged`);
      await settle();
      const after = card.written();
      const one = {
        pattern,
        bytesPerMessage: (after.bytes - before.bytes) / pattern.messages,
        writesPerMessage: (after.writes - before.writes) / pattern.messages,
      };
      written.push(one);
      progress(`${pattern.name}: ${thousands(one.bytesPerMessage)} B a message`);
    }
  } finally {
    await gateway.stop();
    card.unmount();
  }
  return report(written, idleBytesPerSecond, []);
}

async function settle(): Promise<void> {
  await sleep(settleMs);
  await runCommand('sync', []);
}

function report(
  written: readonly Written[],
  idleBytesPerSecond: number,
  remarks: readonly string[],
): Section {
  const goals: Goal[] = written.map(({ pattern, bytesPerMessage }) => ({
    name: pattern.name,
    measured: `${thousands(bytesPerMessage)} B`,
    wanted: `≤ ${thousands(pattern.goalBytes)} B`,
    met: bytesPerMessage <= pattern.goalBytes,
  }));
  return {
    title: 'Bytes written to the card for one message',
    header: ['how they come', 'bytes a message', 'writes a message'],
    rows: written.map(({ pattern, bytesPerMessage, writesPerMessage }) => [
      pattern.name,
      thousands(bytesPerMessage),
      writesPerMessage.toFixed(2),
    ]),
    goals,
    remarks: [
      `a fresh ext4 on a loop device, settled for ${settleMs / 1000} s and synced; the uplink is down; idle the ` +
        `gateway writes ${thousands(idleBytesPerSecond)} B/s, which is in the figures`,
      ...remarks,
    ],
  };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureDeviceBytes()));
