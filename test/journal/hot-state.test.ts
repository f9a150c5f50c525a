import { expect, test } from 'vitest';
import type { HotState } from '../../src/journal/contract.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
import { collectGarbage } from '../support/garbage.ts';
import { append, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

async function all(state: HotState, prefix: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for await (const [key, value] of state.entries(prefix)) {
    // What the journal notes of itself is beside the point here.
    if (!key.startsWith('journal/')) found[key] = value.toString();
  }
  return found;
}

const put = (key: string, text: string) => ({ key, value: Buffer.from(text) });
const remove = (key: string) => ({ key, value: undefined });

test('state written survives a restart, and deletes do too', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await first.journal.write([put('a/1', 'one'), put('a/2', 'two'), put('b/1', 'other')]);
  await first.journal.write([remove('a/1'), put('a/3', 'three')]);
  expect(await all(first.journal, 'a/')).toEqual({ 'a/2': 'two', 'a/3': 'three' });
  await first.close();
  const second = await openJournal(folder);
  expect(await all(second.journal, 'a/')).toEqual({ 'a/2': 'two', 'a/3': 'three' });
  await second.journal.write([remove('a/2')]);
  expect(await second.journal.get('a/2')).toBeUndefined();
  await second.close();
  const third = await openJournal(folder);
  expect(await all(third.journal, '')).toEqual({ 'a/3': 'three', 'b/1': 'other' });
  await third.close();
});

test('state outlives the recycling of the segments it was written in', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await first.journal.write([put('k/old', 'kept'), put('k/changed', 'before'), put('k/gone', 'x')]);
  for (const from of range(0, 20))
    await append(first.journal, range(from * 25, from * 25 + 25), 'event', 1000);
  await spilled(first.journal);
  // With the journal's own.
  expect(first.journal.stats().hotState.storedEntries).toBe(4);
  await first.journal.write([put('k/changed', 'after'), remove('k/gone'), put('k/new', 'n')]);
  const expected = { 'k/changed': 'after', 'k/new': 'n', 'k/old': 'kept' };
  expect(await all(first.journal, 'k/')).toEqual(expected);
  await first.close();
  const second = await openJournal(folder);
  expect(await all(second.journal, 'k/')).toEqual(expected);
  await second.close();
});

test('what came and went between two checkpoints leaves nothing in memory', async () => {
  const { journal, close } = await openJournal(tempFolder(), { options: { segmentBytes: 2 * 1024 * 1024 } });
  for (const id of range(0, 200)) {
    await journal.write([put(`s/${id}`, 'x'.repeat(100))]);
    await journal.write([remove(`s/${id}`)]);
  }
  // What the journal notes of itself is one entry.
  expect(journal.stats().hotState.dirtyEntries).toBe(1);
  expect(journal.stats().hotState.dirtyBytes).toBeLessThan(300);
  await close();
});

test('entries merge the store and what is newer, in the order of their bytes', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await first.journal.write([put('k/b', '1'), put('k/é', '1'), put('k/\u{1f4a7}', '1')]);
  await first.close();
  const { journal, close } = await openJournal(folder);
  await journal.write([
    put('k/a', '2'),
    put('k/c', '2'),
    put('k/\uffee', '2'),
    put('k/b', '2'),
    put('l', '2'),
  ]);
  expect(Object.entries(await all(journal, 'k/'))).toEqual([
    ['k/a', '2'],
    ['k/b', '2'],
    ['k/c', '2'],
    ['k/é', '1'],
    ['k/\uffee', '2'],
    ['k/\u{1f4a7}', '1'],
  ]);
  await close();
});

test('a lazy write is seen at once and waits for the next commit', async () => {
  const disk = faultyDisk();
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder, { disk, options: { lazyMs: 60_000 } });
  journal.writeLazily([put('q/1', 'a')]);
  journal.writeLazily([put('q/1', 'b'), put('q/2', 'c')]);
  expect(await all(journal, 'q/')).toEqual({ 'q/1': 'b', 'q/2': 'c' });
  expect(disk.datasyncs).toBe(0);
  await append(journal, [1]);
  expect(disk.datasyncs).toBe(1);
  journal.writeLazily([remove('q/2')]);
  await close();
  const second = await openJournal(folder);
  expect(await all(second.journal, 'q/')).toEqual({ 'q/1': 'b' });
  await second.close();
});

test('a lazy write is committed by itself when nothing else comes', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk, options: { lazyMs: 10 } });
  journal.writeLazily([put('q/1', 'a')]);
  await expect.poll(() => journal.stats().commits).toBe(1);
  expect(await journal.get('q/1')).toEqual(Buffer.from('a'));
  await close();
});

test('lazy and eager writes of one key keep the order of the calls', async () => {
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder, { options: { lazyMs: 60_000 } });
  journal.writeLazily([put('k/1', 'lazy'), put('k/2', 'lazy')]);
  const written = journal.write([put('k/1', 'eager')]);
  journal.writeLazily([put('k/2', 'lazier')]);
  expect(await all(journal, 'k/')).toEqual({ 'k/1': 'eager', 'k/2': 'lazier' });
  await written;
  await close();
  const second = await openJournal(folder);
  expect(await all(second.journal, 'k/')).toEqual({ 'k/1': 'eager', 'k/2': 'lazier' });
  await second.close();
});

test('a lazy write outlives a failing disk; an eager one that failed is not seen', async () => {
  const disk = faultyDisk();
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder, { disk, options: { lazyMs: 5, retryMs: 5 } });
  await append(journal, [1]);
  disk.faults.datasync = 'EIO';
  journal.writeLazily([put('k/lazy', 'x')]);
  await expect(journal.write([put('k/eager', 'x')])).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
  expect(await all(journal, 'k/')).toEqual({ 'k/lazy': 'x' });
  disk.faults.datasync = undefined;
  await expect.poll(() => journal.stats().hotState.dirtyEntries).toBe(1);
  await close();
  const second = await openJournal(folder);
  expect(await second.journal.get('k/lazy')).toEqual(Buffer.from('x'));
  await second.close();
});

test('a lazy write is seen although a later eager one of its key was refused', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), {
    disk,
    options: { lazyMs: 60_000, retryMs: 60_000 },
  });
  disk.faults.datasync = 'EIO';
  journal.writeLazily([put('k/1', 'lazy')]);
  await expect(journal.write([put('k/1', 'eager')])).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
  expect(await journal.get('k/1')).toEqual(Buffer.from('lazy'));
  disk.faults.datasync = undefined;
  await close();
});

test('lazy writes on a disk that fails for long are as many as there are keys, and the newest counts', async () => {
  const disk = faultyDisk();
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder, { disk, options: { lazyMs: 1, retryMs: 1 } });
  disk.faults.datasync = 'EIO';
  const heap = () => {
    collectGarbage();
    return process.memoryUsage().arrayBuffers;
  };
  const before = heap();
  for (const round of range(0, 3000)) {
    journal.writeLazily([
      { key: `q/${round % 3}`, value: Buffer.alloc(10_000, round % 251) },
      // Comes and goes, as a session's messages do.
      { key: `m/${round}`, value: Buffer.alloc(1000) },
      remove(`m/${round - 2}`),
    ]);
    if (round % 50 === 0) await journal.write([put('x', 'y')]).catch(() => undefined);
  }
  // What a collection freed is given back a little later. Kept, it would be 33 MB.
  await expect.poll(() => heap() - before).toBeLessThan(10_000_000);
  disk.faults.datasync = undefined;
  const isBack = () =>
    journal.write([put('x', 'y')]).then(
      () => true,
      () => false,
    );
  await expect.poll(isBack).toBe(true);
  await close();
  const second = await openJournal(folder);
  expect(await second.journal.get('q/2')).toEqual(Buffer.alloc(10_000, 2999 % 251));
  expect(Object.keys(await all(second.journal, 'm/'))).toEqual(['m/2998', 'm/2999']);
  await second.close();
});

test('more lazy writes than fit one append are taken', async () => {
  const { journal, close } = await openJournal(tempFolder());
  journal.writeLazily(range(0, 200).map((id) => put(`k/${id}`, 'x'.repeat(1000))));
  await append(journal, [1]);
  expect(Object.keys(await all(journal, 'k/')).length).toBe(200);
  await close();
});
