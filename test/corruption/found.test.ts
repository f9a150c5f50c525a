// Damages that random runs found to do harm, each by itself.

import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { scanSegment } from '../../src/journal/segment.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { filesBelow } from '../support/damage.ts';
import { openHome } from '../support/damaged-homes.ts';
import { append, drain, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');

async function filled(directory: string): Promise<void> {
  const store = await LevelStore.open(directory, { log });
  await store.room('r').write([{ key: 'a', value: Buffer.from('kept') }]);
  await store.close();
}

/** The one file whose name fits. */
function fileIn(directory: string, name: RegExp): string {
  return join(directory, readdirSync(directory).find((one) => name.test(one)) ?? 'none');
}

test("a manifest in place of LevelDB's log does not end the process, and the rest is kept", async () => {
  const directory = join(tempFolder(), 'store');
  await filled(directory);
  // Opened once more, what was in the log is in a table.
  await (await LevelStore.open(directory, { log })).close();
  copyFileSync(fileIn(directory, /^MANIFEST/), fileIn(directory, /\.log$/));
  const store = await LevelStore.open(directory, { log });
  expect((await store.room('r').get('a'))?.toString()).toBe('kept');
  await store.room('r').write([{ key: 'b', value: Buffer.from('new') }]);
  expect(store.stats().repairs).toBe(1);
  expect(readdirSync(directory).filter((name) => name.endsWith('.log.damaged'))).toHaveLength(1);
  await store.close();
});

test("a folder in place of LevelDB's lock costs nothing of the store", async () => {
  const directory = join(tempFolder(), 'store');
  await filled(directory);
  rmSync(join(directory, 'LOCK'));
  mkdirSync(join(directory, 'LOCK', 'inner'), { recursive: true });
  const store = await LevelStore.open(directory, { log });
  expect((await store.room('r').get('a'))?.toString()).toBe('kept');
  expect(store.stats()).toMatchObject({ repairs: 1, startedEmpty: 0 });
  await store.close();
});

test('a key that was revoked does not hold again when LevelDB loses its last writes', async () => {
  const folder = tempFolder();
  const first = await openHome(folder);
  const { apiKey } = await first.registry.add({ deviceId: 'probe' });
  await first.close();
  const second = await openHome(folder);
  await second.registry.revoke('probe');
  await second.close();
  rmSync(fileIn(join(folder, 'state'), /\.log$/));
  const { registry, close } = await openHome(folder);
  expect(registry.verify('probe', apiKey)).toBeUndefined();
  expect(registry.stats().damagedRecords).toBe(1);
  const rotated = await registry.rotate('probe');
  expect(registry.verify('probe', rotated.apiKey)).toBeDefined();
  await close();
});

test('points in blocks that LevelDB lost at the end are counted at the start, and once', async () => {
  const folder = tempFolder();
  const first = await openHome(folder);
  for (const from of range(0, 20)) {
    await append(first.journal, range(from * 20, from * 20 + 20), 'telemetry', 1000);
  }
  await first.close();
  rmSync(fileIn(join(folder, 'journal', 'blocks'), /\.log$/));
  const second = await openHome(folder);
  const { lostBlockPoints } = second.journal.stats();
  const left = await drain(second.journal);
  expect(lostBlockPoints).toBeGreaterThan(0);
  expect(lostBlockPoints).toBeLessThanOrEqual(400);
  expect(left.length + lostBlockPoints).toBeGreaterThanOrEqual(400);
  await second.close();
  const third = await openHome(folder);
  expect(third.journal.stats().lostBlockPoints).toBe(0);
  await third.close();
});

test('points of the newest segment that was lost are counted from the checkpoint, though older segments know less', async () => {
  const folder = tempFolder();
  const first = await openHome(folder);
  for (const from of range(0, 12)) {
    await append(first.journal, range(from * 20, from * 20 + 20), 'telemetry', 1000);
  }
  await first.close();
  const segments = filesBelow(join(folder, 'journal', 'ring')).map((name) => {
    const file = join(folder, 'journal', 'ring', name);
    return { file, id: scanSegment(readFileSync(file)).id };
  });
  const newest = segments.reduce((one, other) => (other.id > one.id ? other : one));
  const { frames } = scanSegment(readFileSync(newest.file));
  const points = frames.reduce((sum, { header }) => sum + header.points[2], 0);
  expect(points).toBeGreaterThan(0);
  rmSync(newest.file);
  const second = await openHome(folder);
  expect(second.journal.stats().quarantined.points).toBe(points);
  await second.close();
});
