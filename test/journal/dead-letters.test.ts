import { expect, test } from 'vitest';
import { faultyDisk } from '../support/faulty-disk.ts';
import { append, drain, openJournal, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const letter = (text: string) => ({
  stage: 'influx',
  code: 'FIELD_TYPE_CONFLICT',
  reason: 'field v is a float',
  deviceId: 'kitchen',
  bytes: Buffer.from(text),
});

test('a buried batch leaves its letters behind, with the reason, across a restart', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await append(first.journal, range(0, 10));
  const batch = await first.journal.take('fresh', 100);
  await first.journal.bury(batch!, [letter('line 3'), letter('line 7')]);
  expect(await first.journal.take('fresh', 100)).toBeUndefined();
  await first.close();

  const { journal, close } = await openJournal(folder);
  expect(await drain(journal)).toEqual([]);
  const [one, two] = await journal.listDeadLetters({ limit: 10 });
  expect(one).toMatchObject({ ...letter('line 3'), isCut: false });
  expect(one!.wallMs).toBeGreaterThan(1_600_000_000_000);
  expect(two!.bytes.toString()).toBe('line 7');
  expect(await journal.listDeadLetters({ limit: 10, after: one!.id })).toEqual([two]);
  expect(await journal.getDeadLetter(one!.id)).toEqual(one);
  expect(await journal.dropDeadLetters([one!.id])).toEqual([one!.id]);
  expect(await journal.dropDeadLetters([one!.id])).toEqual([]);
  expect(await journal.getDeadLetter(one!.id)).toBeUndefined();
  await journal.add(letter('third'));
  const ids = (await journal.listDeadLetters({ limit: 10 })).map(({ bytes }) => bytes.toString());
  expect(ids).toEqual(['line 7', 'third']);
  await close();
});

test('at the cap the oldest letters go, and are counted', async () => {
  const { journal, close } = await openJournal(tempFolder(), { options: { deadLettersMax: 5 } });
  await Promise.all(range(0, 8).map((id) => journal.add(letter(String(id)))));
  const left = (await journal.listDeadLetters({ limit: 10 })).map(({ bytes }) => bytes.toString());
  expect(left).toEqual(['3', '4', '5', '6', '7']);
  expect(journal.stats().deadLetters).toMatchObject({ letters: 5, added: 8, dropped: 3 });
  await close();
});

test('letters are bounded in bytes too, and a long one is cut', async () => {
  const options = { deadLetterBytesMax: 40_000 };
  const { journal, close } = await openJournal(tempFolder(), { options });
  for (const id of range(0, 5)) await journal.add(letter(String(id).repeat(20_000)));
  const { letters, bytes, dropped } = journal.stats().deadLetters;
  expect(bytes).toBeLessThanOrEqual(40_000);
  expect(letters + dropped).toBe(5);
  const [oldest] = await journal.listDeadLetters({ limit: 1 });
  expect(oldest).toMatchObject({ isCut: true });
  expect(oldest!.bytes.length).toBe(16_384);
  await close();
});

test('a batch of which InfluxDB refuses more lines than one append may carry is buried all the same', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await append(journal, range(0, 10));
  const batch = await journal.take('fresh', 100);
  const letters = range(0, 400).map((id) => letter(`${id} ${'x'.repeat(300)}`));
  await journal.bury(batch!, letters);
  expect(journal.stats().deadLetters).toMatchObject({ letters: 400, added: 400 });
  expect(journal.pending().fresh).toBe(0);
  await close();
});

test('when a letter cannot be written the batch is still held and no letter goes', async () => {
  const disk = faultyDisk();
  const options = { deadLettersMax: 2, retryMs: 5 };
  const { journal, close } = await openJournal(tempFolder(), { disk, options });
  await journal.add(letter('one'));
  await journal.add(letter('two'));
  await append(journal, [7]);
  const batch = await journal.take('fresh', 100);
  disk.faults.datasync = 'EIO';
  await expect(journal.bury(batch!, [letter('three')])).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
  disk.faults.datasync = undefined;
  const texts = async () =>
    (await journal.listDeadLetters({ limit: 10 })).map(({ bytes }) => bytes.toString());
  expect(await texts()).toEqual(['one', 'two']);
  journal.release(batch!);
  await expect
    .poll(() =>
      journal.add(letter('four')).then(
        () => true,
        () => false,
      ),
    )
    .toBe(true);
  expect(await texts()).toEqual(['two', 'four']);
  expect(await drain(journal)).toEqual([7]);
  await close();
});
