import { expect, test } from 'vitest';
import { append, drain, idsOf, openJournal, range, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

async function exported(
  journal: Awaited<ReturnType<typeof openJournal>>['journal'],
  of?: 'alarm' | 'telemetry',
) {
  const ids: number[] = [];
  let pages = 0;
  let after: string | undefined;
  do {
    const { lines, next } = await journal.read(of && [of], after);
    ids.push(...idsOf({ lane: 'fresh', points: 0, encoding: 'identity', body: lines }));
    pages += 1;
    after = next;
  } while (after !== undefined);
  return { ids, pages };
}

test('all that waits is exported in pages, blocks before the ring, and nothing is taken by that', async () => {
  const { journal, close } = await openJournal(tempFolder());
  for (const from of range(0, 100)) {
    await append(journal, range(from * 20, from * 20 + 20), 'telemetry', 1000);
  }
  await append(journal, [9000], 'alarm');
  await spilled(journal);
  const { ids, pages } = await exported(journal);
  expect(pages).toBeGreaterThan(2);
  expect(ids.filter((id) => id < 9000)).toEqual(range(0, 2000));
  expect(ids).toContain(9000);
  expect((await exported(journal, 'alarm')).ids).toEqual([9000]);
  expect(new Set(await drain(journal)).size).toBe(2001);
  expect((await exported(journal)).ids).toEqual([]);
  await expect(journal.read(undefined, 'nonsense')).rejects.toMatchObject({ code: 'ARGUMENT_INVALID' });
  await close();
});
