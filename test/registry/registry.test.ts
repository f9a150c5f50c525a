import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Clock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Store } from '../../src/platform/store.ts';
import { decodeDevice } from '../../src/registry/device.ts';
import { operations } from '../../src/registry/operations.ts';
import { Registry } from '../../src/registry/registry.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');

class TestClock implements Clock {
  readonly bootId = 'boot';
  nowMs = 1_700_000_000_000;
  wallMs(): number {
    return this.nowMs;
  }
  monotonicMs(): number {
    return this.nowMs - 1_600_000_000_000;
  }
}

async function openStore(
  directory = join(tempFolder(), 'state'),
): Promise<{ level: LevelStore; store: Store }> {
  const level = await LevelStore.open(directory, { log });
  onTestFinished(() => level.close());
  return { level, store: level.room('registry') };
}

async function openRegistry(devicesMax = 1_000) {
  const { level, store } = await openStore();
  const clock = new TestClock();
  const registry = await Registry.open({ store, clock, randomBytes, devicesMax });
  return { registry, clock, level, store };
}

async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  try {
    await promise;
  } catch (error) {
    return (error as { code?: unknown }).code;
  }
  return 'nothing was thrown';
}

describe('a device', () => {
  test('is found by its key alone, as long as the key holds', async () => {
    const { registry } = await openRegistry();
    const { apiKey } = await registry.add({ deviceId: 'kitchen' });
    const other = await registry.add({ deviceId: 'cellar' });
    expect(registry.verifyKey(apiKey)?.deviceId).toBe('kitchen');
    expect(registry.verifyKey(other.apiKey)?.deviceId).toBe('cellar');
    // The public part of one key, the secret of another.
    const mixed = apiKey.slice(0, 14) + other.apiKey.slice(14);
    for (const wrong of ['', 'gw_', apiKey.slice(0, -1), mixed, `${apiKey} `, 'x'.repeat(1_000_000)]) {
      expect(registry.verifyKey(wrong)).toBeUndefined();
    }
    const { apiKey: next } = await registry.rotate('kitchen');
    expect([registry.verifyKey(apiKey), registry.verifyKey(next)?.deviceId]).toEqual([undefined, 'kitchen']);
    await registry.revoke('kitchen');
    expect(registry.verifyKey(next)).toBeUndefined();
  });

  test('is let in with the key it was given, and with nothing else', async () => {
    const { registry } = await openRegistry();
    const { device, apiKey } = await registry.add({ deviceId: 'kitchen', location: 'under the sink' });
    const other = await registry.add({ deviceId: 'cellar' });
    expect(apiKey).toMatch(/^gw_[0-9a-f]{10}_[A-Za-z0-9_-]{43}$/);
    expect(device).toMatchObject({ name: 'kitchen', type: '', location: 'under the sink', status: 'active' });
    expect(registry.verify('kitchen', apiKey)?.deviceId).toBe('kitchen');
    const wrong = ['', apiKey.slice(0, -1), `${apiKey}x`, ` ${apiKey}`, other.apiKey, device.keys[0]!.sha256];
    for (const secret of [...wrong, apiKey.toUpperCase(), 'x'.repeat(1_000_000)]) {
      expect(registry.verify('kitchen', secret), secret.slice(0, 100)).toBeUndefined();
    }
    for (const id of ['Kitchen', 'kitchen ', '', '__proto__', 'constructor', 'toString']) {
      expect(registry.verify(id, apiKey), id).toBeUndefined();
    }
    expect(registry.stats()).toMatchObject({ devices: 2, verified: 1, refused: wrong.length + 8 });
  });

  test('is there again after a restart, its key stored as a hash alone', async () => {
    const directory = join(tempFolder(), 'state');
    const clock = new TestClock();
    const first = await openStore(directory);
    const before = await Registry.open({ store: first.store, clock, randomBytes });
    const { apiKey } = await before.add({ deviceId: 'kitchen', service: true });
    for await (const [, bytes] of first.store.entries()) {
      expect(bytes.toString()).not.toContain(apiKey.slice(-43));
    }
    await first.level.close();
    const second = await openStore(directory);
    const after = await Registry.open({ store: second.store, clock, randomBytes });
    expect(after.verify('kitchen', apiKey)).toMatchObject({ service: true });
    expect(after.list()).toEqual(before.list());
  });

  test('can be added once, also when asked for twice at the same moment', async () => {
    const { registry } = await openRegistry();
    const [first, second] = await Promise.allSettled([
      registry.add({ deviceId: 'kitchen' }),
      registry.add({ deviceId: 'kitchen' }),
    ]);
    expect(first.status).toBe('fulfilled');
    expect(second).toMatchObject({ status: 'rejected', reason: { code: 'DEVICE_EXISTS' } });
  });

  test('needs an id that is safe as user name, topic level and tag', async () => {
    const { registry } = await openRegistry();
    for (const deviceId of [
      '',
      'A',
      'a/b',
      '+',
      '#',
      '-a',
      'a b',
      '../a',
      'a'.repeat(65),
      'ä',
      '__proto__',
    ]) {
      expect(await codeOf(registry.add({ deviceId })), deviceId).toBe('DEVICE_ID_INVALID');
    }
    await registry.add({ deviceId: 'constructor' });
    expect(registry.get('constructor')?.deviceId).toBe('constructor');
    expect(registry.get('toString')).toBeUndefined();
    expect(await codeOf(registry.add({ deviceId: 'a', name: 'a\nb' }))).toBe('DEVICE_FIELD_INVALID');
    expect(await codeOf(registry.add({ deviceId: 'a', location: 'x'.repeat(129) }))).toBe(
      'DEVICE_FIELD_INVALID',
    );
  });

  test('is refused when there are as many as allowed', async () => {
    const { registry } = await openRegistry(1);
    await registry.add({ deviceId: 'a' });
    expect(await codeOf(registry.add({ deviceId: 'b' }))).toBe('DEVICES_FULL');
  });

  test('is not added when the disk refuses it, and can be once the disk is back', async () => {
    const { store } = await openStore();
    let isBroken = true;
    const flaky: Store = {
      ...store,
      write: (writes) => (isBroken ? Promise.reject(new Error('disk')) : store.write(writes)),
    };
    const registry = await Registry.open({ store: flaky, clock: new TestClock(), randomBytes });
    await expect(registry.add({ deviceId: 'a' })).rejects.toThrow('disk');
    expect(registry.get('a')).toBeUndefined();
    isBroken = false;
    expect((await registry.add({ deviceId: 'a' })).device.deviceId).toBe('a');
  });

  test('was last seen when something came from it', async () => {
    const { registry } = await openRegistry();
    await registry.add({ deviceId: 'a' });
    expect(registry.lastSeen('a')).toBeUndefined();
    registry.touch('a', 1_000, 10);
    registry.touch('a', 2_000, 20);
    registry.touch('stranger', 2_000, 20);
    expect(registry.lastSeen('a')).toEqual({ wallMs: 2_000, monotonicMs: 20 });
    expect(registry.lastSeen('stranger')).toBeUndefined();
  });
});

describe('a key', () => {
  test('that was rotated ends at once, and whoever is connected with it is told of', async () => {
    const { registry } = await openRegistry();
    const revoked: string[] = [];
    registry.onRevoked((device) => revoked.push(device.deviceId));
    const first = await registry.add({ deviceId: 'a' });
    expect(revoked).toEqual([]);
    const second = await registry.rotate('a');
    expect(registry.verify('a', first.apiKey)).toBeUndefined();
    expect(registry.verify('a', second.apiKey)).toBeDefined();
    expect(revoked).toEqual(['a']);
  });

  test('that was rotated with a grace holds until the grace is over, and no longer', async () => {
    const { registry, clock } = await openRegistry();
    const keys = [(await registry.add({ deviceId: 'a' })).apiKey];
    keys.push((await registry.rotate('a', { graceMs: 60_000 })).apiKey);
    expect(keys.map((key) => registry.verify('a', key) !== undefined)).toEqual([true, true]);
    clock.nowMs += 60_000;
    expect(keys.map((key) => registry.verify('a', key) !== undefined)).toEqual([false, true]);
    for (let turn = 0; turn < 10; turn += 1) await registry.rotate('a', { graceMs: 60_000 });
    expect(registry.get('a')?.keys).toHaveLength(4);
  });

  test('that was revoked lets nobody in until a new one is issued', async () => {
    const { registry } = await openRegistry();
    const changes: string[] = [];
    const revoked: string[] = [];
    registry.onChange((device) => changes.push(device.status));
    registry.onRevoked((device) => revoked.push(device.deviceId));
    const { apiKey } = await registry.add({ deviceId: 'a' });
    await registry.revoke('a');
    expect(registry.verify('a', apiKey)).toBeUndefined();
    expect(registry.get('a')).toMatchObject({ status: 'inactive', keys: [] });
    const renewed = await registry.rotate('a');
    expect(registry.verify('a', renewed.apiKey)).toBeDefined();
    expect(changes).toEqual(['active', 'inactive', 'active']);
    expect(revoked).toEqual(['a']);
    expect(await codeOf(registry.revoke('b'))).toBe('DEVICE_UNKNOWN');
    expect(await codeOf(registry.rotate('b'))).toBe('DEVICE_UNKNOWN');
  });
});

describe('a damaged record', () => {
  test('lets nobody in, is counted, and hides no other device', async () => {
    const { registry, store, clock } = await openRegistry();
    const { apiKey } = await registry.add({ deviceId: 'a' });
    const good = await registry.add({ deviceId: 'b' });
    const stolen = await store.get('device/b');
    await store.write([{ key: 'device/a', value: Buffer.from('{"deviceId":"a","keys":[]') }]);
    await store.write([{ key: 'device/c', value: stolen }]);
    const reopened = await Registry.open({ store, clock, randomBytes });
    expect(reopened.verify('a', apiKey)).toBeUndefined();
    expect(reopened.verify('c', good.apiKey)).toBeUndefined();
    expect(reopened.verify('b', good.apiKey)).toBeDefined();
    expect(reopened.stats()).toMatchObject({ devices: 1, damagedRecords: 2 });
  });

  test('never reads as a device, whichever bytes it is made of', async () => {
    const { registry, store } = await openRegistry();
    await registry.add({ deviceId: 'a' });
    const text = (await store.get('device/a'))!.toString();
    expect(decodeDevice('a', Buffer.from(text))).toEqual(registry.get('a'));
    const record = JSON.parse(text) as Record<string, unknown>;
    fc.assert(
      fc.property(fc.constantFrom(...Object.keys(record)), fc.jsonValue(), (field, value) => {
        const decoded = decodeDevice('a', Buffer.from(JSON.stringify({ ...record, [field]: value })));
        if (decoded !== undefined) expect(JSON.parse(JSON.stringify(decoded))[field]).toEqual(value);
      }),
    );
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        expect(decodeDevice('a', Buffer.from(bytes))).toBeUndefined();
      }),
    );
    const keyless = { ...record, keys: [{ keyId: 'x', sha256: '', createdMs: 1 }] };
    expect(decodeDevice('a', Buffer.from(JSON.stringify(keyless)))).toBeUndefined();
  });
});

describe('an operator', () => {
  test('adds, lists, rotates and revokes devices and never sees a hash', async () => {
    const { registry } = await openRegistry();
    const table = operations(registry);
    const added = await table.get('devices.add')!({ device_id: 'a', name: 'A', service: true });
    expect(added).toEqual({ device_id: 'a', api_key: expect.stringMatching(/^gw_/) });
    registry.touch('a', Date.UTC(2026, 0, 1), 1);
    const list = await table.get('devices.list')!({});
    expect(list).toEqual({
      devices: [
        {
          device_id: 'a',
          name: 'A',
          type: '',
          location: '',
          status: 'active',
          service: true,
          created_at: '2023-11-14T22:13:20.000Z',
          last_seen: '2026-01-01T00:00:00.000Z',
          key_ids: [registry.get('a')!.keys[0]!.keyId],
        },
      ],
    });
    expect(JSON.stringify(list)).not.toContain(registry.get('a')!.keys[0]!.sha256);
    const rotated = (await table.get('devices.rotate')!({ device_id: 'a', grace_ms: 1_000 })) as {
      api_key: string;
    };
    expect(registry.verify('a', rotated.api_key)).toBeDefined();
    expect(await table.get('devices.revoke')!({ device_id: 'a' })).toMatchObject({ status: 'inactive' });
  });

  test('is told which argument is wrong', async () => {
    const table = operations((await openRegistry()).registry);
    const cases: [string, Record<string, unknown>, RegExp][] = [
      ['devices.add', {}, /^device_id: expected text/],
      ['devices.add', { device_id: 7 }, /^device_id: expected text/],
      ['devices.add', { device_id: 'a', service: 'yes' }, /^service: expected true or false/],
      ['devices.add', { device_id: 'a', nam: 'x' }, /unknown argument "nam"; known are device_id, name/],
      ['devices.list', { all: true }, /unknown argument "all"/],
      ['devices.rotate', { device_id: 'a', grace_ms: -1 }, /^grace_ms: expected a whole number/],
      ['devices.revoke', { device_id: 'none' }, /there is no device "none"/],
    ];
    for (const [name, args, message] of cases) {
      await expect(table.get(name)!(args), name).rejects.toThrow(message);
    }
  });
});
