import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { errorCode } from '../../src/platform/errors.ts';
import { Exchange, settleExchange } from '../../src/platform/exchange.ts';
import { createLog } from '../../src/platform/log.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');
const data = ['state', 'journal', 'tls'];

function options(directory: string) {
  return { directory, isData: (name: string) => data.includes(name), log };
}

/** A set of data that says which one it is. */
function make(folder: string, name: string, entries = data): void {
  for (const entry of entries) {
    mkdirSync(join(folder, entry), { recursive: true });
    writeFileSync(join(folder, entry, 'name'), name);
  }
}

function find(folder: string): Record<string, string> {
  const found: Record<string, string> = {};
  for (const entry of readdirSync(folder)) {
    if (entry === 'restore' || entry === 'mine') continue;
    found[entry] = readFileSync(join(folder, entry, 'name'), 'utf8');
  }
  return found;
}

const old = { state: 'old', journal: 'old', tls: 'old' };
const fresh = { state: 'new', journal: 'new', tls: 'new' };

test('what was built takes the place of the old data, which are kept; what belongs to others stays', async () => {
  const folder = tempFolder();
  make(folder, 'old');
  writeFileSync(join(folder, 'mine'), '');
  const exchange = await Exchange.open(options(folder));
  make(await exchange.build(), 'new');
  expect(await exchange.commit()).toBe(join(folder, 'restore', 'before-1'));
  expect(find(folder)).toEqual(fresh);
  expect(find(join(folder, 'restore', 'before-1'))).toEqual(old);
  expect(await exchange.undo()).toBe(join(folder, 'restore', 'before-1'));
  expect(find(folder)).toEqual(old);
  expect(readdirSync(folder)).toContain('mine');
  await exchange.close();
});

// Where the power can go: after so many of the entries were moved, in each of the steps.
test.each(
  [
    ...[1, 2, 3].map((moved) => ['building', moved, old] as const),
    ...['proven-1', 'moving-1'].flatMap((step) => [0, 1, 2, 3].map((moved) => [step, moved, fresh] as const)),
  ].map(([step, moved, expected]) => ({ step, moved, expected })),
)('a cut in $step after $moved entries leaves one complete set', async ({ step, moved, expected }) => {
  const folder = tempFolder();
  const restore = join(folder, 'restore');
  if (step !== 'moving-1') make(folder, 'old');
  else make(join(restore, 'before-1'), 'old');
  make(join(restore, step), 'new', step === 'building' ? data.slice(0, moved) : data);
  for (const entry of data.slice(0, moved)) {
    if (step === 'proven-1') {
      mkdirSync(join(restore, 'before-1'), { recursive: true });
      renameSync(join(folder, entry), join(restore, 'before-1', entry));
    }
    if (step === 'moving-1') renameSync(join(restore, step, entry), join(folder, entry));
  }
  const done = await settleExchange(options(folder));
  expect(find(folder)).toEqual(expected);
  const left = readdirSync(restore).filter((name) => name !== 'lock');
  expect(left).toEqual(expected === old ? [] : ['before-1']);
  if (expected !== old) expect(find(join(restore, 'before-1'))).toEqual(old);
  await done();
});

test('where nothing was ever restored nothing is made', async () => {
  const folder = tempFolder();
  await (await settleExchange(options(folder)))();
  expect(readdirSync(folder)).toEqual([]);
});

test('one at a time', async () => {
  const folder = tempFolder();
  const exchange = await Exchange.open(options(folder));
  expect(await settleExchange(options(folder)).catch(errorCode)).toBe('RESTORE_BUSY');
  await exchange.close();
  await (await settleExchange(options(folder)))();
  rmSync(join(folder, 'restore'), { recursive: true });
});
