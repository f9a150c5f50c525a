// What one acknowledged message costs the card: bytes the kernel writes to the block device, for a gateway whose data
// lies on a fresh ext4 of its own (an image on a loop device). Counts everything the gateway writes meanwhile, and
// the file system's own journal; that is what wears a card out.

import { closeSync, ftruncateSync, mkdirSync, openSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { commandPath } from '../test/support/debian.ts';
import { atExit, runCommand, succeeds, temporaryFolder } from './children.ts';
import { type Goal, progress, type Section, sectionText, thousands } from './figures.ts';
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

function deviceMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'root, to mount an image';
  for (const [command, debianPackage] of [
    ['losetup', 'mount'],
    ['mkfs.ext4', 'e2fsprogs'],
  ] as const) {
    if (commandPath(command) === undefined) return `Debian package ${debianPackage}`;
  }
  return succeeds('losetup', '--find') ? undefined : 'a free loop device';
}

export async function measureDeviceBytes(): Promise<Section> {
  const missing = gatewayMissing() ?? deviceMissing();
  if (missing !== undefined) return report([], 0, [`skipped: device bytes (needs ${missing})`]);
  const written: Written[] = [];
  const folder = temporaryFolder('device');
  const { mount, device, unmount } = await mountImage(folder);
  const gateway = await startGateway(folder, { dataDir: join(mount, 'data'), influxUrl: await deadUplink() });
  let idleBytesPerSecond = 0;
  try {
    const publishers = await gateway.publishers(25);
    // The ring is laid out once; that is not the messages' doing.
    await settle();
    const idleBefore = statOf(device);
    await sleep(20_000);
    await settle();
    idleBytesPerSecond = (statOf(device).bytes - idleBefore.bytes) / (20 + settleMs / 1000);
    for (const [index, pattern] of patterns.entries()) {
      const before = statOf(device);
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
      const after = statOf(device);
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
    unmount();
  }
  return report(written, idleBytesPerSecond, []);
}

async function settle(): Promise<void> {
  await sleep(settleMs);
  await runCommand('sync', []);
}

/** The block layer's own counters: sectors are 512 bytes whatever the device. */
function statOf(device: string): { readonly bytes: number; readonly writes: number } {
  const fields = readFileSync(`/sys/block/${basename(device)}/stat`, 'utf8')
    .trim()
    .split(/\s+/)
    .map(Number);
  return { writes: fields[4] ?? 0, bytes: (fields[6] ?? 0) * 512 };
}

async function mountImage(folder: string): Promise<{ mount: string; device: string; unmount: () => void }> {
  const image = join(folder, 'card.img');
  const file = openSync(image, 'w');
  ftruncateSync(file, imageBytes);
  closeSync(file);
  // Without lazy initialisation: else the kernel writes inode tables in the background and we would count them.
  await runCommand('mkfs.ext4', ['-q', '-E', 'lazy_itable_init=0,lazy_journal_init=0', image]);
  const device = (await runCommand('losetup', ['--find', '--show', image])).trim();
  const detach = atExit(() => void succeeds('losetup', '--detach', device));
  const mount = join(folder, 'card');
  mkdirSync(mount);
  await runCommand('mount', ['-o', 'noatime', device, mount]);
  const umount = atExit(() => void succeeds('umount', mount));
  return {
    mount,
    device,
    unmount: () => {
      umount();
      detach();
    },
  };
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
