import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, onTestFinished, test } from 'vitest';
import type { Clock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Store } from '../../src/platform/store.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { decodeDevice } from '../../src/registry/device.ts';
import { openRegistry as openParts } from '../../src/registry/open.ts';
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

  test.each<[string, (registry: Registry) => Promise<unknown>]>([
    ['revoked', (registry) => registry.revoke('a')],
    ['made inactive', (registry) => registry.update('a', { status: 'inactive' })],
    ['revoked and let in again', (registry) => registry.revoke('a').then(() => registry.rotate('a'))],
    ['removed and made anew', (registry) => registry.remove('a').then(() => registry.add({ deviceId: 'a' }))],
  ])('that is %s while it asks for something does not come back by what it asked', async (_, shutOut) => {
    const { registry } = await openRegistry();
    const { device: asking } = await registry.add({ deviceId: 'a' });
    await shutOut(registry);
    const [{ status, keys } = asking] = registry.list();
    // Its request was let in before, and has its turn now.
    expect(await codeOf(registry.rotate('a', { graceMs: 60_000, asking }))).toBe('FORBIDDEN');
    expect(await codeOf(registry.update('a', { status: 'maintenance' }, asking))).toBe('FORBIDDEN');
    expect(registry.get('a')).toMatchObject({ status, keys });
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

async function openOperations() {
  const { level, store } = await openStore();
  const clock = new TestClock();
  const parts = await openParts({ store, clock, randomBytes, log });
  return { ...parts, clock, level, store, table: operations(parts) };
}

describe('an operator', () => {
  test('adds, lists, rotates and revokes devices and never sees a hash', async () => {
    const { registry, presence, table, clock } = await openOperations();
    const added = await table.get('devices.add')!({ device_id: 'a', name: 'A', service: true });
    expect(added).toEqual({ device_id: 'a', api_key: expect.stringMatching(/^gw_/) });
    presence.touch('a');
    clock.nowMs += 1_000;
    const list = await table.get('devices.list')!({});
    expect(list).toEqual({
      devices: [
        {
          id: 1,
          device_id: 'a',
          name: 'A',
          description: '',
          device_type: '',
          location: '',
          status: 'active',
          service: true,
          firmware_version: '',
          hardware_version: '',
          metadata: {},
          created_at: '2023-11-14T22:13:20.000Z',
          updated_at: '2023-11-14T22:13:20.000Z',
          last_seen: '2023-11-14T22:13:20.000Z',
          seen: true,
          online: false,
          online_since: null,
          offline_since: null,
          key_ids: [registry.get('a')!.keys[0]!.keyId],
        },
      ],
      count: 1,
    });
    expect(JSON.stringify(list)).not.toContain(registry.get('a')!.keys[0]!.sha256);
    const rotated = (await table.get('devices.rotate')!({ device_id: '1', grace_ms: 1_000 })) as {
      api_key: string;
    };
    expect(registry.verify('a', rotated.api_key)).toBeDefined();
    expect(await table.get('devices.revoke')!({ device_id: 'a' })).toMatchObject({ status: 'inactive' });
    expect(await table.get('devices.remove')!({ device_id: '1' })).toEqual({ device_id: 'a', removed: true });
    expect(await table.get('devices.list')!({})).toEqual({ devices: [], count: 0 });
  });

  test('changes what is known of a device, and only that', async () => {
    const { table } = await openOperations();
    await table.get('devices.add')!({ device_id: 'a', location: 'cellar' });
    const changed = await table.get('devices.update')!({
      device_id: 'a',
      name: 'Pump',
      location: '',
      firmware_version: '1.2.3',
      metadata: { phase: [1, 2] },
      status: 'maintenance',
    });
    expect(changed).toMatchObject({
      id: 1,
      name: 'Pump',
      location: '',
      firmware_version: '1.2.3',
      metadata: { phase: [1, 2] },
      status: 'maintenance',
    });
  });

  test('is told which argument is wrong', async () => {
    const { table } = await openOperations();
    const cases: [string, Record<string, unknown>, RegExp][] = [
      ['devices.add', {}, /^device_id: expected text/],
      ['devices.add', { device_id: 7 }, /^device_id: expected text/],
      ['devices.add', { device_id: 'a', service: 'yes' }, /^service: expected true or false/],
      [
        'devices.add',
        { device_id: 'a', nam: 'x' },
        /unknown argument "nam"; known are device_id, service, name/,
      ],
      ['devices.add', { device_id: 'a', metadata: [] }, /^metadata: expected a JSON object/],
      ['devices.add', { device_id: 'a', metadata: { x: 'x'.repeat(5_000) } }, /^metadata: .* 4096 bytes/],
      ['devices.add', { device_id: 'a', metadata: { a: { b: { c: { d: { e: {} } } } } } }, /5 levels/],
      ['devices.add', { device_id: 'a', name: ' ' }, /^name: expected at least one character/],
      ['devices.add', { device_id: 'a', description: 'a\u0000' }, /^description: expected at most 512/],
      ['devices.list', { all: true }, /unknown argument "all"/],
      ['devices.revoke', { device_id: 'none' }, /there is no device "none"/],
      ['devices.update', { device_id: 'none' }, /there is no device "none"/],
      ['devices.tokens.add', { life_ms: 1 }, /^life_ms: expected a whole number/],
    ];
    for (const [name, args, message] of cases) {
      await expect(table.get(name)!(args), name).rejects.toThrow(message);
    }
    await table.get('devices.add')!({ device_id: 'a' });
    const onDevice: [string, Record<string, unknown>, RegExp][] = [
      ['devices.rotate', { grace_ms: -1 }, /^grace_ms: expected a whole number/],
      ['devices.update', { status: 'pending' }, /^status: expected active, inactive, maintenance/],
      ['devices.approve', {}, /a is active; nothing to approve/],
    ];
    for (const [name, args, message] of onDevice) {
      await expect(table.get(name)!({ device_id: 'a', ...args }), name).rejects.toThrow(message);
    }
  });
});

describe('a number', () => {
  test('is given once, also when its device is gone and the gateway was restarted', async () => {
    const directory = join(tempFolder(), 'state');
    const clock = new TestClock();
    const witness = fileWitness(join(directory, 'registry-revisions'));
    const first = await openStore(directory);
    const before = await Registry.open({ store: first.store, clock, randomBytes, witness });
    expect((await before.add({ deviceId: 'a' })).device.id).toBe(1);
    expect((await before.add({ deviceId: '1' })).device.id).toBe(2);
    await before.remove('1');
    await first.level.close();
    const second = await openStore(directory);
    const after = await Registry.open({ store: second.store, clock, randomBytes, witness });
    expect((await after.add({ deviceId: '1' })).device.id).toBe(3);
    expect(after.find('1')?.id).toBe(3);
    expect(after.find('3')?.deviceId).toBe('1');
    await after.remove('1');
    expect(after.find('1')?.deviceId).toBe('a');
    for (const text of ['3', '0', '01', '-1', '1.0', '9'.repeat(40), '__proto__', '']) {
      expect(after.find(text), text).toBeUndefined();
    }
  });

  test('is given to devices from before there were numbers, the oldest first', async () => {
    const { store } = await openStore();
    const old = (deviceId: string, createdMs: number) => ({
      key: `device/${deviceId}`,
      value: Buffer.from(
        JSON.stringify({
          deviceId,
          name: 'same name',
          type: '',
          location: '',
          status: 'active',
          service: false,
          createdMs,
          updatedMs: createdMs,
          keys: [],
          revision: 4,
        }),
      ),
    });
    await store.write([old('a', 2_000), old('b', 1_000)]);
    for (let start = 0; start < 2; start += 1) {
      const registry = await Registry.open({ store, clock: new TestClock(), randomBytes });
      expect(registry.list().map(({ deviceId, id }) => [deviceId, id])).toEqual([
        ['a', 2],
        ['b', 1],
      ]);
      expect(registry.stats().damagedRecords).toBe(0);
    }
  });
});

describe('a name', () => {
  test('belongs to one device, however it is written', async () => {
    const { registry } = await openRegistry();
    await registry.add({ deviceId: 'a', name: 'Kitchen' });
    expect(await codeOf(registry.add({ deviceId: 'b', name: ' kitchen' }))).toBe('DEVICE_NAME_EXISTS');
    expect(await codeOf(registry.add({ deviceId: 'kitchen' }))).toBe('DEVICE_NAME_EXISTS');
    await registry.add({ deviceId: 'b' });
    expect(await codeOf(registry.update('b', { name: 'KITCHEN' }))).toBe('DEVICE_NAME_EXISTS');
    expect((await registry.update('a', { name: 'kitchen' })).name).toBe('kitchen');
  });
});

describe('a key alone', () => {
  test('tells whose it is, and ends like any other', async () => {
    const { registry } = await openRegistry();
    const { apiKey } = await registry.add({ deviceId: 'a' });
    expect(registry.verifyKey(apiKey)?.deviceId).toBe('a');
    for (const wrong of ['', 'gw_', apiKey.slice(0, 20), `${apiKey}x`, apiKey.replace('gw_', 'ge_')]) {
      expect(registry.verifyKey(wrong), wrong).toBeUndefined();
    }
    const next = await registry.rotate('a');
    expect(registry.verifyKey(apiKey)).toBeUndefined();
    await registry.update('a', { status: 'inactive' });
    expect(registry.verifyKey(next.apiKey)).toBeUndefined();
    expect(registry.isBarred('a', next.apiKey)).toBe(true);
    expect(registry.isBarred('a', apiKey)).toBe(false);
    await registry.update('a', { status: 'maintenance' });
    expect(registry.verifyKey(next.apiKey)?.deviceId).toBe('a');
    await registry.remove('a');
    expect(registry.verifyKey(next.apiKey)).toBeUndefined();
  });
});

describe('a store that lost its last writes', () => {
  async function openWitnessed() {
    const directory = join(tempFolder(), 'state');
    const { store } = await openStore(directory);
    const witness = fileWitness(join(directory, 'registry-revisions'));
    const open = () => Registry.open({ store, clock: new TestClock(), randomBytes, witness });
    const contents = async () => {
      const found: { key: string; value: Buffer }[] = [];
      for await (const [key, value] of store.entries()) found.push({ key, value });
      return found;
    };
    return { store, open, contents };
  }

  test('does not bring back a device that was removed', async () => {
    const { store, open, contents } = await openWitnessed();
    const registry = await open();
    const { apiKey } = await registry.add({ deviceId: 'a' });
    const lost = await contents();
    await registry.remove('a');
    await store.write(lost);
    const after = await open();
    expect(after.verify('a', apiKey)).toBeUndefined();
    expect(after.get('a')).toBeUndefined();
    expect((await after.add({ deviceId: 'a' })).device.id).toBe(2);
  });

  test('does not bring back the predecessor of a device that was made anew', async () => {
    const { store, open, contents } = await openWitnessed();
    const registry = await open();
    const { apiKey } = await registry.add({ deviceId: 'a' });
    await registry.rotate('a', { graceMs: 60_000 });
    const lost = await contents();
    await registry.remove('a');
    await registry.add({ deviceId: 'a' });
    await store.write(lost);
    const after = await open();
    expect(after.verify('a', apiKey)).toBeUndefined();
    expect(after.stats().damagedRecords).toBe(1);
  });

  test('is newer than its witness when power is cut between the two, and believed', async () => {
    const directory = join(tempFolder(), 'state');
    const { store } = await openStore(directory);
    const real = fileWitness(join(directory, 'registry-revisions'));
    let isCut = false;
    const witness = {
      ...real,
      write: (said: Parameters<typeof real.write>[0]) =>
        isCut ? Promise.reject(new Error('cut')) : real.write(said),
    };
    const open = () => Registry.open({ store, clock: new TestClock(), randomBytes, witness });
    const registry = await open();
    await registry.add({ deviceId: 'a' });
    await registry.add({ deviceId: 'b' });
    isCut = true;
    await registry.remove('a');
    expect(registry.stats().unwitnessedChanges).toBe(1);
    isCut = false;
    const { apiKey } = await registry.add({ deviceId: 'c' });
    expect(registry.stats().unwitnessedChanges).toBe(0);
    isCut = true;
    await registry.revoke('b');
    isCut = false;
    const after = await open();
    expect(after.list().map(({ deviceId, status }) => [deviceId, status])).toEqual([
      ['b', 'inactive'],
      ['c', 'active'],
    ]);
    expect(after.verify('c', apiKey)).toBeDefined();
    expect(after.stats().damagedRecords).toBe(0);
  });
});
