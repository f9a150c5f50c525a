import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { Audit, type AuditOptions } from '../../src/users/audit.ts';
import { tempFolder } from '../support/temp.ts';
import { TestTime } from './test-time.ts';

const log = createLog('silent');

async function openAudit(options: Partial<AuditOptions> = {}, directory = join(tempFolder(), 'state')) {
  const level = await LevelStore.open(directory, { log });
  onTestFinished(() => level.close());
  const store = level.room('audit');
  const time = new TestTime();
  const open = (more: Partial<AuditOptions> = {}) =>
    Audit.open({ store, time, wallMs: () => time.wallMs(), log, ...options, ...more });
  return { audit: await open(), open, store, time, level };
}

const fact = { actor: 'user:anna', action: 'device.add', target: 'kitchen' };

describe('the audit log', () => {
  test('says who changed what, when and from where, the newest first, also after a restart', async () => {
    const { audit, open, time } = await openAudit();
    await audit.record({ ...fact, address: '192.0.2.7', detail: { service: true } });
    time.passMs(60_000);
    await audit.record({ actor: 'cli', action: 'device.revoke', target: 'kitchen' });
    const entries = await (await open()).list();
    expect(entries).toEqual([
      {
        id: 2,
        time: '2026-01-01T00:01:00.000Z',
        time_uncertain: false,
        actor: 'cli',
        action: 'device.revoke',
        target: 'kitchen',
      },
      {
        id: 1,
        time: '2026-01-01T00:00:00.000Z',
        time_uncertain: false,
        ...fact,
        detail: { service: true },
        address: '192.0.2.7',
      },
    ]);
    expect(await audit.list({ limit: 1, before: 2 })).toMatchObject([{ id: 1 }]);
  });

  test('says that a time is uncertain, and dates the entry once the clock is known', async () => {
    const { audit, time } = await openAudit();
    time.forgetDate();
    await audit.record(fact);
    expect(await audit.list()).toMatchObject([{ time_uncertain: true }]);
    time.passMs(5_000);
    time.learnDate(Date.UTC(2026, 5, 1, 0, 0, 5));
    expect(await audit.list()).toMatchObject([{ time_uncertain: false, time: '2026-06-01T00:00:00.000Z' }]);
  });

  test('drops the oldest when there are too many, and knows how many went', async () => {
    const { audit, open, store } = await openAudit({ entriesMax: 5 });
    for (let count = 1; count <= 12; count += 1) await audit.record({ ...fact, target: `d${count}` });
    const again = await open();
    expect(again.stats()).toMatchObject({ entries: 5, dropped: 7, damaged: 0 });
    expect((await again.list()).map(({ id }) => id)).toEqual([12, 11, 10, 9, 8]);
    const small = await open({ bytesMax: 400 });
    await small.record(fact);
    expect(small.stats().bytes).toBeLessThanOrEqual(400);
    let bytes = 0;
    for await (const [, value] of store.entries()) bytes += value.length;
    expect(small.stats().bytes).toBe(bytes);
  });

  test('cannot be flushed by a device that does the same thing without end, nor by logging in again and again', async () => {
    const { audit, time } = await openAudit({ entriesMax: 200 });
    await audit.record(fact);
    for (const actor of ['device:node', 'anyone@192.0.2.7']) {
      for (let count = 0; count < 500; count += 1)
        await audit.record({ ...fact, actor, action: 'device.report' });
    }
    // Others are heard all the same.
    await audit.record({ ...fact, actor: 'device:other', target: 'other' });
    expect((await audit.list({ limit: 500 })).map(({ actor }) => actor)).toContain('user:anna');
    expect(audit.stats()).toMatchObject({ entries: 102, dropped: 0, skipped: 900 });
    time.passMs(5 * 60_000);
    await audit.record({ ...fact, actor: 'device:node' });
    expect(await audit.list({ limit: 2 })).toMatchObject([
      { actor: 'device:node', detail: { left_out_before: 450 } },
      { actor: 'device:other' },
    ]);
  });

  test('strikes out what looks like a secret, line breaks, and more text than anybody reads', async () => {
    const { audit, store } = await openAudit();
    const secret = 'gw_0123456789_ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopq';
    await audit.record({
      actor: 'user:anna\nuser:eve',
      action: 'device.add',
      target: secret,
      detail: { password: 'correct horse', note: `key is ${secret}`, long: 'x'.repeat(10_000) },
    });
    const [entry] = await audit.list();
    expect(entry).toMatchObject({ actor: 'user:anna user:eve', target: '[secret]' });
    expect(entry?.detail).toEqual({ password: '[secret]', note: 'key is [secret]', long: 'x'.repeat(256) });
    for await (const [, bytes] of store.entries()) expect(bytes.toString()).not.toMatch(/ABCDEF|horse/);
  });

  test('notices entries that are damaged or missing, and shows the others', async () => {
    const { audit, open, store } = await openAudit();
    for (let count = 1; count <= 6; count += 1) await audit.record({ ...fact, target: `d${count}` });
    await store.write([
      { key: 'entry/000000000002', value: undefined },
      { key: 'entry/000000000004', value: Buffer.from('{"seq":4') },
      { key: 'entry/000000000005', value: Buffer.from('{"seq":9,"at":{"wallMs":1},"actor":"x"}') },
    ]);
    const again = await open();
    expect(again.stats()).toMatchObject({ damaged: 3 });
    expect((await again.list()).map(({ id }) => id)).toEqual([6, 3, 1]);
    await again.record(fact);
    expect((await again.list())[0]?.id).toBe(7);
  });

  test('records in order when many change something at once, and keeps nobody from it on a full disk', async () => {
    const { audit, open, store } = await openAudit();
    await Promise.all(
      Array.from({ length: 50 }, (_, index) => audit.record({ ...fact, target: `d${index}` })),
    );
    expect((await audit.list()).map(({ target }) => target)).toEqual(
      Array.from({ length: 50 }, (_, index) => `d${49 - index}`),
    );
    const broken = await open({
      store: { ...store, entries: store.entries, write: () => Promise.reject(new Error('full')) },
    });
    await broken.record(fact);
    expect(broken.stats().failed).toBe(1);
  });
});
