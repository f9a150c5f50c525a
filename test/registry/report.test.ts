// What devices say of themselves, and how often that may cost the card a write.

import { randomBytes } from 'node:crypto';
import { expect, onTestFinished, test } from 'vitest';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Store } from '../../src/platform/store.ts';
import { openRegistry } from '../../src/registry/open.ts';
import type { DeviceReport } from '../../src/registry/report.ts';
import { tempFolder } from '../support/temp.ts';

async function house() {
  const log = createLog('silent');
  const level = await LevelStore.open(tempFolder(), { log });
  onTestFinished(() => level.close());
  const now = { ms: 0 };
  const clock = { bootId: 'boot', wallMs: () => 1_000 + now.ms, monotonicMs: () => now.ms };
  const room = level.room('registry');
  const writes = { count: 0 };
  const store: Store = {
    get: (key) => room.get(key),
    entries: (range) => room.entries(range),
    write: (changes) => {
      writes.count += 1;
      return room.write(changes);
    },
  };
  const parts = await openRegistry({ store, clock, randomBytes, log });
  const { device } = await parts.registry.add({ deviceId: 'lamp' });
  const report = (said: Partial<DeviceReport>) =>
    parts
      .report(parts.registry.get('lamp') ?? device, {
        facts: {},
        config: undefined,
        desiredVersion: undefined,
        ...said,
      })
      .then(
        () => 'taken',
        (error: { code?: unknown }) => error.code,
      );
  writes.count = 0;
  return { ...parts, now, writes, report, device };
}

test('what is no news is no write, however often it is said', async () => {
  const { report, writes } = await house();
  const said = { facts: { firmwareVersion: '1.2' }, config: { level: 7 }, desiredVersion: 0 };
  for (let time = 0; time < 200; time += 1) expect(await report(said)).toBe('taken');
  expect(writes.count).toBe(2);
});

test('what changes again and again is taken once in a minute', async () => {
  const { report, writes, now } = await house();
  const outcomes: unknown[] = [];
  for (let level = 0; level < 100; level += 1) outcomes.push(await report({ config: { level } }));
  expect(outcomes).toEqual([...Array(60).fill('taken'), ...Array(40).fill('RATE_LIMITED')]);
  expect(writes.count).toBe(60);
  now.ms += 60_000;
  expect(await report({ facts: { firmwareVersion: '1.2' } })).toBe('taken');
  expect(await report({ config: { level: 0 } })).toBe('RATE_LIMITED');
});

test('a report of which one part cannot be taken changes nothing', async () => {
  const { report, writes, configs, device } = await house();
  const good = { facts: { firmwareVersion: '1.2' }, config: { level: 7 } };
  expect(await report({ ...good, config: { text: 'x'.repeat(20_000) } })).toBe('DEVICE_CONFIG_INVALID');
  expect(await report({ ...good, facts: { firmwareVersion: 'x'.repeat(200) } })).toBe('DEVICE_FIELD_INVALID');
  expect(writes.count).toBe(0);
  expect((await configs.of(device)).reported.version).toBe(0);
});
