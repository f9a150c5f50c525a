import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished, test } from 'vitest';
import { Backups } from '../../src/backup/backups.ts';
import { RecordReader } from '../../src/backup/record.ts';
import { errorCode } from '../../src/platform/errors.ts';
import { append, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

async function openBackups(leaseMs?: number) {
  const { journal, store, close } = await openJournal(tempFolder());
  const backups = new Backups({
    journal,
    state: store,
    header: () => ({ createdAt: '2026-01-01T00:00:00Z', gatewayId: 'test', version: '0', devices: 0 }),
    ...(leaseMs === undefined ? {} : { leaseMs }),
  });
  onTestFinished(async () => {
    await backups.close();
    await close();
  });
  const ask = async (operation: string, id?: string) =>
    (await backups.operations.get(operation)?.(id === undefined ? {} : { id })) as Record<string, unknown>;
  const begin = async () => String((await ask('backup.begin')).id);
  return { backups, journal, ask, begin };
}

test('a backup is read page by page to its end', async () => {
  const { backups, journal, ask, begin } = await openBackups();
  await append(journal, range(0, 300), 'telemetry', 3000);
  await spilled(journal);
  const id = await begin();
  expect(backups.stats().open).toBe(1);
  const reader = new RecordReader();
  const kinds = new Map<string, number>();
  for (let isEnd = false; !isEnd; ) {
    const page = await ask('backup.read', id);
    for (const { record } of reader.push(Buffer.from(String(page.data), 'base64'))) {
      kinds.set(record.kind, (kinds.get(record.kind) ?? 0) + 1);
    }
    isEnd = page.isEnd === true;
  }
  expect(reader.isEmpty).toBe(true);
  expect([...kinds.keys()].filter((kind) => kind !== 'state')).toEqual(['header', 'ring', 'block']);
  await ask('backup.end', id);
  expect(backups.stats()).toEqual({ open: 0, finished: 1, abandoned: 0, heldBytes: 0 });
});

test('there is one at a time, and a reader that went away is forgotten', async () => {
  const { backups, ask, begin } = await openBackups(50);
  const first = await begin();
  expect(await begin().catch(errorCode)).toBe('BACKUP_BUSY');
  await ask('backup.read', first);
  while (backups.stats().open > 0) await sleep(10);
  expect(backups.stats().abandoned).toBe(1);
  expect(await ask('backup.read', first).catch(errorCode)).toBe('BACKUP_LOST');
  const second = await begin();
  await ask('backup.end', second);
  expect(backups.stats()).toMatchObject({ open: 0, finished: 0, abandoned: 2 });
});

test('a gateway that stops ends the backup that is being read, and begins none', async () => {
  const { backups, ask, begin } = await openBackups();
  const id = await begin();
  await backups.close();
  expect(await ask('backup.read', id).catch(errorCode)).toBe('BACKUP_LOST');
  expect(await begin().catch(errorCode)).toBe('BACKUP_CLOSED');
});
