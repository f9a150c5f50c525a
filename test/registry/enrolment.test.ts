import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Store } from '../../src/platform/store.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { openRegistry } from '../../src/registry/open.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');
const hourMs = 3_600_000;

/** A registry whose store can be cut off before any write, and opened again. */
async function house(options: { readonly pendingMax?: number } = {}) {
  const folder = join(tempFolder(), 'state');
  const level = await LevelStore.open(folder, { log });
  onTestFinished(() => level.close());
  const real = level.room('registry');
  const now = { ms: 0 };
  const disk = { isCut: false };
  const store: Store = {
    get: (key) => real.get(key),
    entries: (range) => real.entries(range),
    write: (writes) => (disk.isCut ? Promise.reject(new Error('power cut')) : real.write(writes)),
  };
  const clock = { bootId: 'boot', wallMs: () => 1_700_000_000_000 + now.ms, monotonicMs: () => now.ms };
  const witness = fileWitness(join(folder, 'registry-revisions'));
  const open = async (running = true) => {
    const further = running ? { runningMs: () => now.ms } : {};
    const parts = await openRegistry({ store, clock, randomBytes, witness, log, ...further, ...options });
    onTestFinished(() => parts.enrolment.close());
    return parts;
  };
  const contents = async () => {
    const found: { key: string; value: Buffer }[] = [];
    for await (const [key, value] of real.entries()) found.push({ key, value });
    return found;
  };
  return { now, disk, open, store, contents };
}

async function codeOf(promise: Promise<unknown>): Promise<unknown> {
  return await promise.then(
    () => 'nothing was thrown',
    (error: { code?: unknown }) => error.code,
  );
}

test('a stranger waits for an administrator, and its key works from then on', async () => {
  const { open } = await house();
  const { registry, enrolment } = await open();
  const { device, apiKey } = await enrolment.register({ name: 'Küche, links!', type: 'leak' });
  expect(device).toMatchObject({ deviceId: 'kuche-links', id: 1, status: 'pending', type: 'leak' });
  expect(registry.verify(device.deviceId, apiKey)).toBeUndefined();
  expect(registry.verifyKey(apiKey)).toBeUndefined();
  expect(registry.isBarred(device.deviceId, apiKey)).toBe(true);
  expect(await codeOf(registry.update(device.deviceId, { status: 'active' }))).toBe('DEVICE_STATUS_CONFLICT');
  await registry.approve(device.deviceId);
  expect(registry.verifyKey(apiKey)?.deviceId).toBe('kuche-links');
});

test('device ids made of names are safe, and never one that is taken', async () => {
  const { open } = await house();
  const { enrolment, registry } = await open();
  enrolment.openPairing({ forMs: hourMs, devicesMax: 50 });
  const ids: string[] = [];
  for (const name of [
    'Sensor',
    'sensor!',
    '../../etc',
    '__proto__',
    '42',
    'gateway',
    '😀',
    'x'.repeat(128),
  ]) {
    ids.push((await enrolment.register({ name })).device.deviceId);
  }
  expect(ids).toEqual([
    'sensor',
    'sensor-2',
    'etc',
    'proto',
    'device-42',
    'device-gateway',
    'device',
    'x'.repeat(48),
  ]);
  expect(await codeOf(enrolment.register({ name: 'Y', deviceId: 'sensor' }))).toBe('DEVICE_EXISTS');
  expect(await codeOf(enrolment.register({ name: 'Y', deviceId: '../x' }))).toBe('DEVICE_ID_INVALID');
  // It would be taken for the first device, in the routes that take either.
  expect(await codeOf(enrolment.register({ name: 'Y', deviceId: '1' }))).toBe('DEVICE_ID_INVALID');
  expect(await codeOf(enrolment.register({ name: 'SENSOR' }))).toBe('DEVICE_NAME_EXISTS');
  expect(registry.list()).toHaveLength(8);
});

test('a pairing window closes after its time, and after its number of devices', async () => {
  const { open, now } = await house();
  const { enrolment } = await open();
  enrolment.openPairing({ forMs: 60_000, devicesMax: 2 });
  const both = await Promise.all(['a', 'b', 'c'].map((name) => enrolment.register({ name })));
  expect(both.map(({ device }) => device.status)).toEqual(['active', 'active', 'pending']);
  enrolment.openPairing({ forMs: 60_000 });
  expect(await codeOf(enrolment.register({ name: 'a' }))).toBe('DEVICE_NAME_EXISTS');
  // Who is refused takes no place.
  expect(enrolment.pairing()).toEqual({ isOpen: true, leftMs: 60_000, leftDevices: 10 });
  now.ms = 60_000;
  expect(enrolment.pairing().isOpen).toBe(false);
  expect((await enrolment.register({ name: 'd' })).device.status).toBe('pending');
  enrolment.openPairing({ forMs: 60_000 });
  enrolment.closePairing();
  expect(enrolment.pairing().isOpen).toBe(false);
});

test('those who wait are few, come slowly, and not for ever', async () => {
  const { open, now } = await house({ pendingMax: 2 });
  const { enrolment, registry } = await open();
  await enrolment.register({ name: 'a' });
  await enrolment.register({ name: 'b' });
  expect(await codeOf(enrolment.register({ name: 'c' }))).toBe('ENROLMENT_FULL');
  for (let turn = 0; turn < 7; turn += 1) await codeOf(enrolment.register({ name: 'c' }));
  expect(await codeOf(enrolment.register({ name: 'c' }))).toBe('RATE_LIMITED');
  now.ms = 25 * hourMs;
  await enrolment.tick();
  expect(registry.list()).toEqual([]);
  expect(enrolment.stats()).toMatchObject({ asked: 2, expired: 2, refused: 9 });
  expect((await enrolment.register({ name: 'c' })).device.status).toBe('pending');
});

test('where nobody may wait, only a window or a token lets in', async () => {
  const { open } = await house({ pendingMax: 0 });
  const { enrolment } = await open();
  expect(await codeOf(enrolment.register({ name: 'a' }))).toBe('FORBIDDEN');
});

test('a token lets one device in, as its maker decided, and is stored as a hash alone', async () => {
  const { open, contents } = await house();
  const { enrolment, registry } = await open();
  const { text } = await enrolment.addToken(hourMs, { name: 'Boiler', location: 'cellar' });
  for (const { value } of await contents()) expect(value.toString()).not.toContain(text.slice(-43));
  const application = { name: 'whatever', type: 'leak', location: 'attic' };
  const both = await Promise.allSettled([
    enrolment.register(application, text),
    enrolment.register({ name: 'other' }, text),
  ]);
  expect(both.map(({ status }) => status)).toEqual(['fulfilled', 'rejected']);
  expect(registry.list()).toMatchObject([
    { deviceId: 'boiler', name: 'Boiler', type: 'leak', location: 'cellar', status: 'active' },
  ]);
  for (const wrong of [text, '', 'ge_', `${text}x`, 'gw_0000000000_x']) {
    expect(await codeOf(enrolment.register({ name: 'again' }, wrong)), wrong).toBe('ENROLMENT_TOKEN_INVALID');
  }
});

test('of two devices that come with one token at the same time one gets in', async () => {
  const { enrolment, registry } = await (await house()).open();
  const { text } = await enrolment.addToken(hourMs);
  const names = ['one', 'two', 'three'];
  const outcomes = await Promise.all(names.map((name) => codeOf(enrolment.register({ name }, text))));
  expect(outcomes).toEqual(['nothing was thrown', 'ENROLMENT_TOKEN_INVALID', 'ENROLMENT_TOKEN_INVALID']);
  expect(registry.list()).toMatchObject([{ deviceId: 'one' }]);
});

test('a token ends by the running time of the gateway, whatever the clock says and however often it restarts', async () => {
  const { open, now } = await house();
  const beside = await open(false);
  // Beside a stopped gateway nobody knows its running time: the life begins with the next start.
  const { text, token } = await beside.enrolment.addToken(hourMs);
  now.ms = 5 * hourMs;
  const first = await open();
  expect(first.enrolment.lifeLeftMs(first.enrolment.tokens()[0]!)).toBe(hourMs);
  now.ms += hourMs / 2;
  const second = await open();
  expect(second.enrolment.lifeLeftMs(second.enrolment.tokens()[0]!)).toBe(hourMs / 2);
  now.ms += hourMs / 2;
  expect(await codeOf(second.enrolment.register({ name: 'late' }, text))).toBe('ENROLMENT_TOKEN_INVALID');
  await second.enrolment.revokeToken(token.tokenId);
  expect(second.enrolment.tokens()).toEqual([]);
  expect(await codeOf(second.enrolment.revokeToken(token.tokenId))).toBe('TOKEN_UNKNOWN');
});

test('a power cut while a token is used leaves it usable and no device behind', async () => {
  const { open, disk } = await house();
  const { enrolment, registry } = await open();
  const { text } = await enrolment.addToken(hourMs);
  disk.isCut = true;
  await expect(enrolment.register({ name: 'a' }, text)).rejects.toThrow('power cut');
  expect(registry.list()).toEqual([]);
  disk.isCut = false;
  const after = await open();
  expect(after.registry.list()).toEqual([]);
  expect((await after.enrolment.register({ name: 'a' }, text)).device.status).toBe('active');
});

test('a store that lost its last writes does not let a token be used twice', async () => {
  const { open, store, contents } = await house();
  const { enrolment } = await open();
  const { text } = await enrolment.addToken(hourMs);
  const lost = await contents();
  await enrolment.register({ name: 'a' }, text);
  await store.write([...lost, { key: 'device/a', value: undefined }]);
  const after = await open();
  expect(await codeOf(after.enrolment.register({ name: 'b' }, text))).toBe('ENROLMENT_TOKEN_INVALID');
  // Whoever comes for the name of the lost device is told so, and an administrator can clear it away.
  expect(after.registry.stats().damagedRecords).toBe(1);
  expect(await codeOf(after.enrolment.register({ name: 'a', deviceId: 'a' }))).toBe('DEVICE_EXISTS');
  await after.registry.remove('a');
  expect(after.registry.stats().damagedRecords).toBe(0);
});

test('tokens are bounded, and those that ended make room', async () => {
  const { open, now } = await house();
  const { enrolment } = await open();
  for (let made = 0; made < 100; made += 1) await enrolment.addToken(hourMs);
  expect(await codeOf(enrolment.addToken(hourMs))).toBe('TOKENS_FULL');
  now.ms = 2 * hourMs;
  await enrolment.addToken(hourMs);
  expect(enrolment.tokens()).toHaveLength(1);
});
