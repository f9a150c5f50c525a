import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Level } from 'level';
import { expect, onTestFinished, test, vi } from 'vitest';
import { LevelStore, type LevelStoreOptions } from '../../src/platform/level-store.ts';
import { checkTable, disarmTable } from '../../src/platform/level-tables.ts';
import { createLog } from '../../src/platform/log.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');
const { repair } = Level as unknown as { repair(directory: string): Promise<void> };

/** A store whose entries lie in so many tables; the first block is not compressed, others are. */
async function makeStore(directory: string, tables = 1): Promise<void> {
  const random = seededRandom(7);
  const noise = () => Buffer.from(Array.from({ length: 300 }, () => Math.floor(random() * 256)));
  for (let table = 0; table < tables; table += 1) {
    const store = await LevelStore.open(directory, { log, spareBytes: 0 });
    const entries = Array.from({ length: 200 }, (_, index) => ({
      key: `${table}/${String(index).padStart(4, '0')}`,
      value: index < 40 || index % 2 === 0 ? noise() : Buffer.alloc(300, 'a'),
    }));
    await store.room('r').write(entries);
    await store.close();
  }
  // What was in the log is in a table once it was opened again.
  await (await LevelStore.open(directory, { log, spareBytes: 0 })).close();
}

function tablesIn(directory: string): string[] {
  return readdirSync(directory)
    .filter((name) => name.endsWith('.ldb'))
    .sort()
    .map((name) => join(directory, name));
}

function firstTable(directory: string): string {
  return tablesIn(directory)[0] ?? 'none';
}

async function keysOf(directory: string, options: Partial<LevelStoreOptions> = {}): Promise<string[]> {
  const store = await LevelStore.open(directory, { log, spareBytes: 0, ...options });
  const keys: string[] = [];
  for await (const [key] of store.room('r').entries()) keys.push(key);
  await store.close();
  return keys;
}

function edit(path: string, change: (bytes: Buffer) => void): void {
  const bytes = readFileSync(path);
  change(bytes);
  writeFileSync(path, bytes);
}

/** The first key of the first block is three bytes long: the entry's second number is the length of its key. */
function shortenKey(path: string): void {
  edit(path, (bytes) => {
    bytes[1] = 3;
  });
}

test('every changed bit of a table that LevelDB wrote is found, and what is left can be repaired', async () => {
  const directory = join(tempFolder(), 'store');
  await makeStore(directory);
  const table = firstTable(directory);
  const whole = readFileSync(table);
  expect((await checkTable(table))?.damages).toEqual([]);
  const random = seededRandom(3);
  for (let count = 0; count < 200; count += 1) {
    // Half of them in the last 400 bytes, where filter, index and footer are; the last 48 have a gap of zeros.
    const span = count % 2 === 0 ? whole.length : 400;
    const at = whole.length - 1 - Math.floor(random() * span);
    const bytes = Buffer.from(whole);
    bytes[at] = (bytes[at] ?? 0) ^ (1 << Math.floor(random() * 8));
    writeFileSync(table, bytes);
    const damages = (await checkTable(table))?.damages ?? [];
    const isGap = at >= whole.length - 48 && at < whole.length - 8 && whole[at] === 0;
    if (!isGap) expect(damages, `bit at ${at} of ${whole.length}`).toHaveLength(1);
    await disarmTable(table, damages);
    for (const { disarm } of (await checkTable(table))?.damages ?? []) expect(disarm).toBeUndefined();
    if (count % 8 > 0) continue;
    const copy = join(tempFolder(), 'copy');
    cpSync(directory, copy, { recursive: true });
    await repair(copy);
    const keys = await keysOf(copy);
    expect(keys.length).toBeGreaterThanOrEqual(damages[0]?.part === 'data' ? 150 : 0);
  }
});

test('a key too short ends a process that reads it with LevelDB alone, and costs us one block', async () => {
  const directory = join(tempFolder(), 'store');
  await makeStore(directory);
  shortenKey(firstTable(directory));
  const copy = join(tempFolder(), 'copy');
  cpSync(directory, copy, { recursive: true });
  const level = pathToFileURL(join(import.meta.dirname, '../../node_modules/level/index.js'));
  const script = `import {Level} from '${level}'; const one = new Level(process.argv[1]); await one.open();
    for await (const entry of one.iterator({ gte: 'r/0/0001' }));`;
  const run = () =>
    execFileSync(process.execPath, ['--input-type=module', '-e', script, copy], { stdio: 'pipe' });
  expect(run).toThrow(/ExtractUserKey|Assertion/);
  const store = await LevelStore.open(directory, { log, spareBytes: 0 });
  expect(store.stats()).toMatchObject({ repairs: 1, damagedTableBlocks: 1, startedEmpty: 0 });
  await store.close();
  const keys = await keysOf(directory);
  expect(keys.length).toBeGreaterThan(170);
  expect(keys.length).toBeLessThan(200);
});

test('tables that a start has no time for are looked at soon after it, and mended', async () => {
  const directory = join(tempFolder(), 'store');
  await makeStore(directory, 3);
  shortenKey(firstTable(directory));
  const checkedBytesMax = { clean: 1, unclean: 1 };
  const store = await LevelStore.open(directory, { log, spareBytes: 0, checkedBytesMax, checkDelayMs: 0 });
  expect(store.stats().repairs).toBe(0);
  await vi.waitUntil(() => store.stats().repairs === 1 && !store.stats().failed, 10_000);
  expect(store.stats()).toMatchObject({ uncheckedTableBytes: 0, damagedTableBlocks: 1 });
  await store.close();
  expect((await keysOf(directory)).length).toBeGreaterThan(570);
});

test('after two ends that were no stop, all tables are looked at before LevelDB sees one', async () => {
  let directory = join(tempFolder(), 'store');
  await makeStore(directory, 3);
  shortenKey(firstTable(directory));
  const options = { log, spareBytes: 0, checkedBytesMax: { clean: 1, unclean: 1 }, checkDelayMs: 60_000 };
  for (const uncleanEnds of [0, 1, 2]) {
    const store = await LevelStore.open(directory, options);
    expect(store.stats()).toMatchObject({ uncleanEnds, repairs: uncleanEnds === 2 ? 1 : 0 });
    // Its files as they are now are what a process that ends leaves.
    const left = join(tempFolder(), 'store');
    cpSync(directory, left, { recursive: true });
    await store.close();
    directory = left;
  }
});

test('a table that a compaction had not finished is no damage', async () => {
  const directory = join(tempFolder(), 'store');
  await makeStore(directory);
  const unfinished = join(directory, '000099.ldb');
  cpSync(firstTable(directory), unfinished);
  shortenKey(unfinished);
  const store = await LevelStore.open(directory, { log, spareBytes: 0 });
  onTestFinished(() => store.close());
  expect(store.stats().repairs).toBe(0);
  expect(existsSync(unfinished)).toBe(false);
});

test('bytes behind the end of a table cost nothing, also when the store is repaired', async () => {
  const directory = join(tempFolder(), 'store');
  await makeStore(directory, 2);
  const [first = '', second = ''] = tablesIn(directory);
  truncateSync(first, readFileSync(first).length + 5000);
  shortenKey(second);
  const keys = await keysOf(directory);
  expect(keys.filter((key) => key.startsWith('0/'))).toHaveLength(200);
  expect(keys.length).toBeGreaterThan(370);
});
