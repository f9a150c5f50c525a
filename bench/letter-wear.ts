// What it costs the card when InfluxDB, or ingest, refuses everything: 20 points a second, each its own commit, and a
// dead letter for each, far beyond the cap. Bytes the kernel writes to a fresh ext4 of its own. Beside it the same
// points accepted: what they cost anyway.

import { join } from 'node:path';
import { argv } from 'node:process';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { DeadLetter } from '../src/journal/contract.ts';
import { Journal } from '../src/journal/journal.ts';
import { systemClock } from '../src/platform/clock.ts';
import { systemDisk } from '../src/platform/disk.ts';
import { LevelStore } from '../src/platform/level-store.ts';
import { createLog } from '../src/platform/log.ts';
import { runCommand, temporaryFolder } from './children.ts';
import { progress, ratio, type Section, sectionText, thousands } from './figures.ts';
import { loopCardMissing, mountLoopCard } from './loop-card.ts';

const imageBytes = 600_000_000;
const settleMs = 12_000;
/** Seconds of it: with 20 letters each the cap is passed five times over. */
const seconds = 2_500;
const perSecond = 20;

type Fate = 'accepted' | 'refused by InfluxDB' | 'refused at ingest';

function line(index: number): string {
  const time = 1_700_000_000_000_000_000n + BigInt(index) * 1_000_000n;
  return `water,device_id=kitchen-${index % 16},device_name=Kitchen,gateway=home,location=home flow=${(Math.random() * 40).toFixed(3)} ${time}\n`;
}

function letter(stage: string, text: string): DeadLetter {
  const reason =
    'failure writing points to database: partial write: points beyond retention policy dropped=20';
  return {
    stage,
    code: 'INFLUX_REJECTED',
    reason,
    deviceId: 'kitchen-1',
    origin: 'water',
    bytes: Buffer.from(text),
  };
}

async function live(journal: Journal, fate: Fate): Promise<void> {
  for (let second = 0; second < seconds; second += 1) {
    const lines = Array.from({ length: perSecond }, (_, at) => line(second * perSecond + at));
    for (const text of lines) {
      if (fate === 'refused at ingest') await journal.add(letter('ingest', text));
      else await journal.append({ class: 'telemetry', lines: text, points: 1 });
    }
    const batch = await journal.take('fresh', 5000);
    if (batch === undefined) continue;
    if (fate === 'accepted') await journal.accept(batch);
    else
      await journal.bury(
        batch,
        lines.map((text) => letter('influx', text)),
      );
  }
}

/** Device bytes a point. */
async function measure(fate: Fate): Promise<{ bytes: number; kept: number }> {
  const card = await mountLoopCard(temporaryFolder('letters'), imageBytes);
  try {
    const log = createLog('silent');
    const store = await LevelStore.open(join(card.mount, 'state'), { log });
    const journal = await Journal.open({
      directory: join(card.mount, 'journal'),
      store: store.room('journal'),
      disk: systemDisk(),
      clock: systemClock(),
      log,
    });
    while (journal.stats().ring.missing > 0) await sleep(50);
    // The ring's zeros and the stores' spare files are written once in the life of a card.
    await sleep(settleMs);
    await runCommand('sync', ['--file-system', card.mount]);
    const before = card.written().bytes;
    await live(journal, fate);
    await runCommand('sync', ['--file-system', card.mount]);
    const bytes = (card.written().bytes - before) / (seconds * perSecond);
    const kept = journal.stats().deadLetters.bytes;
    await journal.close();
    await store.close();
    return { bytes, kept };
  } finally {
    card.unmount();
  }
}

export async function measureLetterWear(): Promise<Section> {
  const title = 'Bytes written to the card for one point when everything is refused';
  const header = ['fate of 20 points a second', 'bytes a point', 'to accepted', 'a day', 'letters kept'];
  const missing = loopCardMissing();
  if (missing !== undefined) {
    return { title, header, rows: [], goals: [], remarks: [`skipped: letter wear (needs ${missing})`] };
  }
  const rows: string[][] = [];
  let accepted = Number.NaN;
  let worst = 0;
  for (const fate of ['accepted', 'refused by InfluxDB', 'refused at ingest'] as const) {
    const { bytes, kept } = await measure(fate);
    if (fate === 'accepted') accepted = bytes;
    worst = Math.max(worst, bytes / accepted);
    progress(`${fate}: ${thousands(bytes)} B a point`);
    const perDayGb = (bytes * perSecond * 86_400) / 1e9;
    rows.push([
      fate,
      thousands(bytes),
      ratio(bytes / accepted),
      `${perDayGb.toFixed(1)} GB`,
      `${(kept / 1e6).toFixed(1)} MB`,
    ]);
  }
  const goals = [
    {
      name: 'a refused point to an accepted one',
      measured: ratio(worst),
      wanted: '≤ 1.5×',
      met: worst <= 1.5,
    },
  ];
  const remarks = [
    `${thousands(seconds * perSecond)} points, each its own commit; the cap is 10,000 letters`,
    'a fresh ext4 (noatime) on a loop device for each figure',
  ];
  return { title, header, rows, goals, remarks };
}

if (argv[1] === fileURLToPath(import.meta.url)) process.stdout.write(sectionText(await measureLetterWear()));
