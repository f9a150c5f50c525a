import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { Presence } from '../../src/registry/presence.ts';
import { tempFolder } from '../support/temp.ts';

const startMs = Date.UTC(2026, 0, 1);

async function house() {
  const level = await LevelStore.open(join(tempFolder(), 'state'), { log: createLog('silent') });
  onTestFinished(() => level.close());
  const now = { ms: 0, isTimeKnown: true };
  const clock = { bootId: 'boot', wallMs: () => startMs + now.ms, monotonicMs: () => now.ms };
  const open = () =>
    Presence.open({
      store: level.room('registry'),
      clock,
      isTimeKnown: () => now.isTimeKnown,
      isKnown: (deviceId) => deviceId !== 'stranger',
    });
  return { now, open, store: level.room('registry') };
}

test('a device was last seen when something came from it, also after a restart', async () => {
  const { now, open } = await house();
  const before = await open();
  expect(before.of('a').lastSeen).toBeUndefined();
  before.touch('a');
  before.touch('stranger');
  now.ms = 5_000;
  expect(before.of('a').lastSeen).toEqual({ wallMs: startMs });
  await before.close();
  const after = await open();
  expect(after.of('a').lastSeen).toEqual({ wallMs: startMs });
  expect(after.of('stranger').lastSeen).toBeUndefined();
});

test('what was seen while the time was not known gets its date when it is, and no date before', async () => {
  const { now, open } = await house();
  now.isTimeKnown = false;
  const presence = await open();
  presence.touch('a');
  now.ms = 5_000;
  expect(presence.of('a').lastSeen).toEqual({ wallMs: undefined });
  await presence.save();
  expect((await open()).of('a').lastSeen).toEqual({ wallMs: undefined });
  now.isTimeKnown = true;
  expect(presence.of('a').lastSeen).toEqual({ wallMs: startMs });
});

test('a device is online while it is connected or says so, and offline since it is not', async () => {
  const { now, open } = await house();
  const presence = await open();
  presence.connected('a');
  presence.connected('a');
  presence.disconnected('a');
  presence.said('a', 'offline');
  expect(presence.of('a')).toMatchObject({ isOnline: true, since: { wallMs: startMs } });
  now.ms = 1_000;
  presence.disconnected('a');
  presence.disconnected('a');
  expect(presence.of('a')).toMatchObject({ isOnline: false, since: { wallMs: startMs + 1_000 } });
  presence.touch('a');
  presence.said('a', 'heartbeat');
  expect(presence.online).toBe(1);
  // Nobody tells when it is gone: silence does.
  now.ms += 300_000;
  expect(presence.of('a')).toMatchObject({ isOnline: false, since: { wallMs: startMs + 1_000 } });
  presence.touch('a');
  expect(presence.online).toBe(1);
  presence.said('a', 'offline');
  expect(presence.online).toBe(0);
  presence.connected('a');
  await presence.close();
  // Nobody can say that it is there while nothing runs.
  expect((await open()).of('a').isOnline).toBe(false);
});

test('a record that is damaged says nothing and keeps nothing from starting', async () => {
  const { open, store } = await house();
  for (const text of ['', '{', 'null', '[1,["a"],["b","x",null],[{},1,2]]']) {
    await store.write([{ key: 'presence', value: Buffer.from(text) }]);
    expect((await open()).of('b'), text).toMatchObject({ isOnline: false, lastSeen: undefined });
  }
});
