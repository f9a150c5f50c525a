import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Level } from 'level';
import { expect, onTestFinished, test } from 'vitest';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Store } from '../../src/platform/store.ts';
import { canMount, smallDisk } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');

async function openAt(directory: string): Promise<LevelStore> {
  const store = await LevelStore.open(directory, { log });
  onTestFinished(() => store.close());
  return store;
}

async function all(room: Store, range = {}): Promise<string[]> {
  const found: string[] = [];
  for await (const [key, value] of room.entries(range)) found.push(`${key}=${value.toString()}`);
  return found;
}

const value = (text: string) => Buffer.from(text);

test('what one room writes comes back after reopening, and the other room does not see it', async () => {
  const directory = join(tempFolder(), 'state');
  const first = await LevelStore.open(directory, { log });
  await first.room('alarms').write([
    { key: 'a/1', value: value('one') },
    { key: 'a/2', value: value('') },
  ]);
  await first.room('alarms-old').write([{ key: 'x', value: value('other') }]);
  await first.close();
  await first.close();

  const second = await openAt(directory);
  expect(await second.room('alarms').get('a/1')).toEqual(value('one'));
  expect(await second.room('alarms').get('a/2')).toEqual(value(''));
  expect(await second.room('alarms').get('x')).toBeUndefined();
  expect(await all(second.room('alarms'))).toEqual(['a/1=one', 'a/2=']);
  expect(await all(second.room('alarms-old'))).toEqual(['x=other']);
});

test('a batch puts and deletes at once', async () => {
  const room = (await openAt(join(tempFolder(), 'state'))).room('registry');
  await room.write([
    { key: 'a', value: value('1') },
    { key: 'b', value: value('2') },
  ]);
  await room.write([
    { key: 'a', value: undefined },
    { key: 'c', value: value('3') },
  ]);
  expect(await all(room)).toEqual(['b=2', 'c=3']);
  await room.forget(['b']);
  expect(await all(room)).toEqual(['c=3']);
});

test('a range is cleared without its neighbours, and what is written unsynced is there at once', async () => {
  const store = await openAt(join(tempFolder(), 'state'));
  const room = store.room('history');
  await store.room('other').write([{ key: 'a/2', value: value('other') }]);
  await room.writeUnsynced(['a/1', 'a/2', 'a0', 'b'].map((key) => ({ key, value: value(key) })));
  await room.clear('a/', 'a0');
  expect(await all(room)).toEqual(['a0=a0', 'b=b']);
  expect(await all(store.room('other'))).toEqual(['a/2=other']);
});

test('ranges, limits and reverse order stay inside the room', async () => {
  const store = await openAt(join(tempFolder(), 'state'));
  const room = store.room('b');
  await store.room('a').write([{ key: 'z', value: value('') }]);
  await store.room('c').write([{ key: 'a', value: value('') }]);
  await room.write(['1', '2', '3', '4'].map((key) => ({ key, value: value(key) })));
  expect(await all(room, { gte: '2', lt: '4' })).toEqual(['2=2', '3=3']);
  expect(await all(room, { limit: 1 })).toEqual(['1=1']);
  expect(await all(room, { reverse: true })).toEqual(['4=4', '3=3', '2=2', '1=1']);
  expect(await all(room, { reverse: true, limit: 2, lt: '4' })).toEqual(['3=3', '2=2']);
  expect(await all(room, { limit: 0 })).toEqual([]);
});

test('a value that was changed on disk is left out and counted, never returned wrong', async () => {
  const directory = join(tempFolder(), 'state');
  const first = await LevelStore.open(directory, { log });
  await first.room('r').write(['a', 'b', 'c'].map((key) => ({ key, value: value(`value-${key}`) })));
  await first.close();
  const raw = new Level<string, Buffer>(directory, { valueEncoding: 'buffer' });
  const bytes = (await raw.get('r/b')) as Buffer;
  bytes[5] = (bytes[5] as number) ^ 1;
  await raw.put('r/b', bytes);
  await raw.put('r/c', Buffer.from([1, 2]));
  await raw.close();

  const store = await openAt(directory);
  expect(await all(store.room('r'))).toEqual(['a=value-a']);
  expect(await store.room('r').get('b')).toBeUndefined();
  expect(store.stats().damagedValues).toBe(2);
  const aside = readFileSync(`${directory}.damaged-values`, 'utf8').trim().split('\n');
  expect(aside.map((line) => (JSON.parse(line) as { key: string }).key)).toEqual(['r/b', 'r/c']);
});

async function filled(directory: string): Promise<void> {
  const store = await LevelStore.open(directory, { log });
  for (let index = 0; index < 20; index += 1) {
    await store.room('r').write(
      Array.from({ length: 50 }, (_, at) => ({
        key: String(index * 50 + at).padStart(6, '0'),
        // Not compressible, so that tables really have this size.
        value: Buffer.from(
          Array.from({ length: 200 }, (_unused, byte) => (byte * 31 + at * 7 + index) & 255),
        ),
      })),
    );
  }
  await store.compact();
  await store.close();
}

test.each(['zeros', 'cut', 'missing'])('opens with a manifest that is %s, and keeps a copy', async (how) => {
  const directory = join(tempFolder(), 'state');
  await filled(directory);
  for (const name of readdirSync(directory).filter((file) => file.startsWith('MANIFEST'))) {
    const path = join(directory, name);
    if (how === 'missing') rmSync(path);
    else if (how === 'cut') writeFileSync(path, readFileSync(path).subarray(0, 3));
    else writeFileSync(path, Buffer.alloc(readFileSync(path).length));
  }
  const store = await openAt(directory);
  await store.room('r').write([{ key: 'new', value: value('works') }]);
  expect(await store.room('r').get('new')).toEqual(value('works'));
  let count = 0;
  for await (const _ of store.room('r').entries({ lt: 'new' })) count += 1;
  expect(count).toBe(1000);
  expect(store.stats()).toMatchObject({ repairs: 1, startedEmpty: 0, failed: false });
  expect(readdirSync(join(directory, '..')).sort()).toEqual(['state', 'state.damaged-1']);
});

test('a damaged table costs its own entries, not those behind it', async () => {
  const directory = join(tempFolder(), 'state');
  await filled(directory);
  const table = readdirSync(directory).find((file) => file.endsWith('.ldb')) as string;
  const bytes = readFileSync(join(directory, table));
  bytes.fill(0xa5, 20_000, 20_016);
  writeFileSync(join(directory, table), bytes);
  const store = await openAt(directory);
  const keys: string[] = [];
  for await (const [key] of store.room('r').entries()) keys.push(key);
  expect(keys.length).toBeGreaterThan(900);
  expect(keys.length).toBeLessThan(1000);
  expect(keys).toContain('000000');
  expect(keys).toContain('000999');
  expect(new Set(keys).size).toBe(keys.length);
  expect(store.stats().repairs).toBe(1);
});

test('opens over rubbish and over a file in its place, keeping at most two copies', async () => {
  const folder = tempFolder();
  const directory = join(folder, 'state');
  for (let round = 0; round < 3; round += 1) {
    rmSync(directory, { recursive: true, force: true });
    if (round === 0) writeFileSync(directory, 'not a directory');
    else {
      mkdirSync(directory);
      writeFileSync(join(directory, 'CURRENT'), `rubbish ${round}`);
    }
    const store = await LevelStore.open(directory, { log });
    await store.room('r').write([{ key: 'k', value: value('v') }]);
    expect(await all(store.room('r'))).toEqual(['k=v']);
    await store.close();
  }
  expect(readdirSync(folder).sort()).toEqual(['state', 'state.damaged-1', 'state.damaged-2']);
  expect(readFileSync(join(directory, '..', 'state.damaged-2', 'CURRENT'), 'utf8')).toBe('rubbish 2');
});

test('a store another process has open is refused as locked, not repaired', async () => {
  const directory = join(tempFolder(), 'state');
  const store = await openAt(directory);
  await store.room('r').write([{ key: 'k', value: value('v') }]);
  await expect(LevelStore.open(directory, { log })).rejects.toMatchObject({ code: 'STORE_LOCKED' });
  expect(await store.room('r').get('k')).toEqual(value('v'));
});

test('a closed store says so', async () => {
  const store = await LevelStore.open(join(tempFolder(), 'state'), { log });
  const room = store.room('r');
  await store.close();
  await expect(room.write([{ key: 'k', value: value('v') }])).rejects.toMatchObject({ code: 'STORE_CLOSED' });
  await expect(room.get('k')).rejects.toMatchObject({ code: 'STORE_CLOSED' });
});

test.skipIf(!canMount())(
  'writes fail while the disk is full and succeed again once there is space (needs root, to mount)',
  async () => {
    const disk = smallDisk(1);
    const store = await LevelStore.open(join(disk, 'state'), { log });
    const room = store.room('r');
    await room.write([{ key: 'kept', value: value('v') }]);
    writeFileSync(join(disk, 'ballast'), Buffer.alloc(700_000));
    let failure: unknown;
    for (let index = 0; index < 100 && failure === undefined; index += 1) {
      await room.write([{ key: `k${index}`, value: Buffer.alloc(10_000, index) }]).catch((error: unknown) => {
        failure = error;
      });
    }
    expect(failure).toMatchObject({ code: 'STORE_FAILED' });
    rmSync(join(disk, 'ballast'));
    await room.write([{ key: 'after', value: value('space') }]);
    expect(await room.get('kept')).toEqual(value('v'));
    expect(await room.get('after')).toEqual(value('space'));
    expect(store.stats().writeErrors).toBeGreaterThan(0);
    expect(store.stats()).toMatchObject({ repairs: 0, startedEmpty: 0, failed: false });
    await store.close();
  },
);

test.skipIf(!canMount())(
  'a store opens on a full disk because its spare gives way (needs root, to mount)',
  async () => {
    const disk = smallDisk(8);
    const options = { log, spareBytes: 256 * 1024, spareDelayMs: 0 };
    const first = await LevelStore.open(join(disk, 'state'), options);
    await first.room('r').write([{ key: 'kept', value: Buffer.alloc(50_000, 7) }]);
    await expect.poll(() => readdirSync(disk)).toContain('state.spare');
    await first.close();
    for (const bytes of [100_000, 4096]) {
      try {
        for (let index = 0; ; index += 1) writeFileSync(join(disk, `${bytes}-${index}`), Buffer.alloc(bytes));
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' });
      }
    }
    const second = await LevelStore.open(join(disk, 'state'), options);
    expect(await second.room('r').get('kept')).toEqual(Buffer.alloc(50_000, 7));
    expect(second.stats()).toMatchObject({ sparesUsed: 1, repairs: 0, startedEmpty: 0, failed: false });
    expect(readdirSync(disk)).not.toContain('state.spare');
    await second.close();
  },
);
