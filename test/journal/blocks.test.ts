import { join } from 'node:path';
import { expect, test } from 'vitest';
import { type BlockHeader, Blocks, minuteRow, rawRow } from '../../src/journal/blocks.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');

function header(sequence: number, points: number): BlockHeader {
  return { points, linesBytes: 1, isUndated: false, toSequence: sequence, oldestMs: 0, newestMs: 0 };
}

test('a block delivered while those before it are being thinned does not come back after a restart', async () => {
  const store = await LevelStore.open(join(tempFolder(), 'blocks'), { log, spareBytes: 0 });
  const blocks = await Blocks.open(store.room('blocks'), log);
  for (const number of range(0, 3)) await blocks.put(rawRow, header(number, 10), Buffer.from('lines'));
  const first = await blocks.takeRun(rawRow, undefined);
  const second = await blocks.takeRun(rawRow, first!.number);
  const third = await blocks.take(rawRow);
  const thinned = blocks.replace([first!, second!], minuteRow, header(1, 2), Buffer.from('fewer'));
  await blocks.finish(third!);
  await thinned;
  expect(blocks.points).toBe(2);

  const reopened = await Blocks.open(store.room('blocks'), log);
  expect(reopened.stats(rawRow)).toMatchObject({ blocks: 0, points: 0 });
  expect(reopened.stats(minuteRow)).toMatchObject({ blocks: 1, points: 2 });
  expect(reopened.lost).toBe(0);
  await store.close();
});
