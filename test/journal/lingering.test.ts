// The group commit when it was told to linger: what waits, what does not, and for how long.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import type { Journal } from '../../src/journal/journal.ts';
import { append, drain, line, openJournal, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

// Longer than any test runs: what does not wait for company comes back, what does would not.
const forEver = { ackDelayMaxMs: 3_600_000 };

async function opened(options: Parameters<typeof openJournal>[1] = {}): Promise<Journal> {
  const opening = await openJournal(tempFolder(), options);
  onTestFinished(() => opening.close());
  return opening.journal;
}

function commits(journal: Journal): number {
  return journal.stats().commits;
}

test('messages that come one by one share a commit', async () => {
  const journal = await opened();
  await append(journal, [0]);
  const before = commits(journal);
  journal.linger(200);
  const sent: Promise<void>[] = [];
  for (const id of range(1, 11)) {
    sent.push(append(journal, [id]));
    await sleep(5);
  }
  await Promise.all(sent);
  expect(commits(journal) - before).toBeLessThan(10);
  expect(await drain(journal)).toEqual(range(0, 11));
});

test('an alarm waits for nobody, and takes along what waits', async () => {
  const journal = await opened({ options: forEver });
  journal.linger(3_600_000);
  const waiting = append(journal, range(0, 5));
  await sleep(20);
  expect(journal.stats().pendingBytes).toBeGreaterThan(0);
  await append(journal, [5], 'alarm');
  await waiting;
  expect(commits(journal)).toBe(1);
  const later = append(journal, [6]);
  await append(journal, [7], 'event');
  await later;
  expect(commits(journal)).toBe(2);
});

test('state alone does linger: it comes with every message of a session', async () => {
  const journal = await opened({ options: forEver });
  journal.linger(3_600_000);
  let isDurable = false;
  const written = journal.write([{ key: 'a/b', value: Buffer.from('1') }]).then(() => {
    isDurable = true;
  });
  await sleep(30);
  expect(isDurable).toBe(false);
  journal.linger(0);
  await written;
});

test('when there is enough for whole blocks nobody waits for more', async () => {
  const journal = await opened({ options: { ...forEver, segmentBytes: 1024 * 1024 } });
  journal.linger(3_600_000);
  const lines = line(1, 4000);
  await Promise.all(range(0, 9).map(() => journal.append({ class: 'telemetry', lines, points: 1 })));
  expect(commits(journal)).toBe(1);
});

test('an acknowledgement is held back no longer than configured, however long lingering is asked for', async () => {
  const journal = await opened({ options: { ackDelayMaxMs: 40 } });
  journal.linger(3_600_000);
  // Would not come back at all.
  for (const id of range(0, 5)) await append(journal, [id]);
  expect(commits(journal)).toBe(5);
});

test('on a disk slower than that nobody lingers besides', async () => {
  let nowMs = 0;
  // Each look at the clock takes 30 ms: so does a write, and more.
  const journal = await opened({ options: { ackDelayMaxMs: 40 }, monotonicMs: () => (nowMs += 30) });
  await append(journal, [0]);
  journal.linger(40);
  await append(journal, [1]);
  expect(commits(journal)).toBe(2);
});

test('less lingering takes effect at once', async () => {
  const journal = await opened({ options: forEver });
  journal.linger(3_600_000);
  const waiting = append(journal, [0]);
  await sleep(10);
  journal.linger(1);
  await waiting;
});

test('closing does not linger, and loses nothing', async () => {
  const folder = tempFolder();
  const opening = await openJournal(folder, { options: forEver });
  opening.journal.linger(3_600_000);
  const waiting = append(opening.journal, range(0, 3));
  await opening.close();
  await waiting;
  const again = await openJournal(folder);
  expect(await drain(again.journal)).toEqual([0, 1, 2]);
  await again.close();
});

test('refused for lack of room is refused at once when its turn comes, also while lingering', async () => {
  const journal = await opened({ options: { pendingBytesMax: 2000, ...forEver } });
  journal.linger(3_600_000);
  const waiting = append(journal, [0], 'telemetry', 1500);
  await expect(append(journal, [1], 'telemetry', 1500)).rejects.toMatchObject({ code: 'JOURNAL_STALLED' });
  journal.linger(0);
  await waiting;
});
