import { expect, test } from 'vitest';
import { letterOperations } from '../../src/journal/letter-operations.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
import { append, drain, line, openJournal, range } from '../support/journal.ts';
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

test('a letter that is replayed ends with the points it became, and what is refused again counts the attempts', async () => {
  const folder = tempFolder();
  const first = await openJournal(folder);
  await first.journal.add(letter('one'));
  await first.journal.add(letter('two'));
  const [one, two] = await first.journal.listDeadLetters({ limit: 10 });
  const made = { class: 'telemetry', lines: line(7), points: 1 } as const;
  expect(await first.journal.replace(one!.id, made, [])).toBe(true);
  expect(await first.journal.replace(one!.id, made, [])).toBe(false);
  expect(await first.journal.replace(two!.id, { ...made, lines: '', points: 0 }, [letter('two again')])).toBe(
    true,
  );
  await first.close();

  const { journal, close } = await openJournal(folder);
  expect(journal.pending().fresh).toBe(1);
  const batch = await journal.take('fresh', 10);
  await journal.bury(batch!, [letter(line(7).trimEnd())]);
  const left = await journal.listDeadLetters({ limit: 10 });
  expect(left.map(({ bytes, attempts }) => [bytes.toString().slice(0, 9), attempts])).toEqual([
    ['two again', 1],
    ['m,device_', 1],
  ]);
  // Replayed and refused once more, it has been tried twice; another line with the same fate has not.
  expect(await journal.replace(left[1]!.id, made, [])).toBe(true);
  await append(journal, [8]);
  const again = await journal.take('fresh', 10);
  await journal.bury(again!, [letter(line(7).trimEnd()), letter(line(8).trimEnd())]);
  expect((await journal.listDeadLetters({ limit: 10 })).map(({ attempts }) => attempts)).toEqual([
    1,
    2,
    undefined,
  ]);
  expect(journal.stats().deadLetters).toMatchObject({ letters: 3, dropped: 0 });
  await close();
});

test('when a replay cannot be written the letter is still there', async () => {
  const disk = faultyDisk();
  const { journal, close } = await openJournal(tempFolder(), { disk, options: { retryMs: 5 } });
  await journal.add(letter('one'));
  const [one] = await journal.listDeadLetters({ limit: 1 });
  disk.faults.write = 'EIO';
  const made = { class: 'telemetry', lines: line(7), points: 1 } as const;
  await expect(journal.replace(one!.id, made, [])).rejects.toMatchObject({ code: 'JOURNAL_FAILED' });
  disk.faults.write = undefined;
  expect(await journal.getDeadLetter(one!.id)).toEqual(one);
  expect(await journal.replace(one!.id, made, [])).toBe(true);
  await close();
});

test('letters of a version that wrote down less can be read', async () => {
  const folder = tempFolder();
  const { journal, close } = await openJournal(folder);
  const head = Buffer.from('{"stage":"ingest","code":"NOT_JSON","reason":"x","wallMs":5,"isCut":false}');
  const length = Buffer.alloc(4);
  length.writeUInt32LE(head.length);
  const value = Buffer.concat([length, head, Buffer.from('old')]);
  await journal.write([{ key: 'dead/0000000000000003', value }]);
  await close();
  const second = await openJournal(folder);
  expect(await second.journal.listDeadLetters({ limit: 10 })).toEqual([
    {
      id: '0000000000000003',
      stage: 'ingest',
      code: 'NOT_JSON',
      reason: 'x',
      wallMs: 5,
      isCut: false,
      bytes: Buffer.from('old'),
    },
  ]);
  await second.close();
});

test('a letter tells when it came, or that the date was not known then', async () => {
  const { journal, close } = await openJournal(tempFolder());
  await journal.add({ ...letter(''), time: { timeNs: 5n } });
  await journal.add({ ...letter(''), time: { timeNs: 5n, boot: 3 } });
  const list = letterOperations({ journal, replay: () => Promise.reject(new Error('not asked')) }).get(
    'dead-letters.list',
  );
  expect(await list?.({})).toMatchObject({
    dead_letters: [{ at: expect.stringContaining('T') }, { at: null }],
  });
  await close();
});

test('letters are found by stage, code and device, and between two ids', async () => {
  const { journal, close } = await openJournal(tempFolder());
  for (const [stage, code, deviceId] of [
    ['ingest', 'A', 'x'],
    ['influx', 'A', 'y'],
    ['influx', 'B', 'y'],
  ] as const) {
    await journal.add({ ...letter(''), stage, code, deviceId });
  }
  const ids = async (
    filter: Parameters<typeof journal.listDeadLetters>[0] extends infer F ? Omit<F, 'limit'> : never,
  ) => (await journal.listDeadLetters({ limit: 10, ...filter })).map(({ id }) => Number(id));
  expect(await ids({ stage: 'influx' })).toEqual([2, 3]);
  expect(await ids({ code: 'A' })).toEqual([1, 2]);
  expect(await ids({ deviceId: 'y', code: 'B' })).toEqual([3]);
  expect(await ids({ after: '0000000000000001', until: '0000000000000002' })).toEqual([2]);
  await close();
});

test('however many readings are refused, the room kept for alarms stays free of their letters', async () => {
  const { journal, store, close } = await openJournal(tempFolder());
  // The store of the checkpoints fails, so no segment can be freed.
  await store.close();
  await append(journal, [1]);
  const batch = await journal.take('fresh', 10);
  let refused: unknown;
  for (let n = 0; refused === undefined && n < 1000; n += 1) {
    await journal.add(letter('x'.repeat(3000))).catch((error: unknown) => {
      refused = error;
    });
  }
  expect(refused).toMatchObject({ code: 'JOURNAL_FULL' });
  await expect(journal.bury(batch!, [letter('y')])).rejects.toMatchObject({ code: 'JOURNAL_FULL' });
  await append(journal, [2], 'alarm');
  // Of alarms InfluxDB refuses some; no other alarm waits behind them.
  const urgent = await journal.take('urgent', 10);
  await journal.bury(urgent!, [letter('z')]);
  await append(journal, [3], 'alarm');
  await close();
});
