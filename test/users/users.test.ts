import { readFileSync, writeFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import type { Store, StoreWrite } from '../../src/platform/store.ts';
import { decodeUser } from '../../src/users/user.ts';
import { codeOf, goodPassword, household, otherPassword } from './household.ts';

const anna = { name: 'anna', role: 'admin', password: goodPassword };
const bert = { name: 'bert', role: 'viewer', password: otherPassword };

describe('a user', () => {
  test('comes in with name and password, and with nothing else, also after a restart', async () => {
    const { open, store } = await household();
    const { users } = await open();
    await users.add(anna);
    for (const reopened of [users, (await open()).users]) {
      expect(await reopened.verifyPassword('anna', goodPassword)).toMatchObject({
        name: 'anna',
        role: 'admin',
      });
      expect(await reopened.verifyPassword(' Anna', goodPassword)).toMatchObject({ name: 'anna' });
      expect(await reopened.verifyPassword('anna', otherPassword)).toBeUndefined();
      expect(await reopened.verifyPassword('bert', goodPassword)).toBeUndefined();
      expect(await reopened.verifyPassword('__proto__', goodPassword)).toBeUndefined();
    }
    for await (const [, bytes] of store.entries()) expect(bytes.toString()).not.toContain(goodPassword);
  });

  test('has a name of its own, a role there is, and a password that is not the first to be tried', async () => {
    const { open } = await household();
    const { users } = await open();
    await users.add(anna);
    expect(await codeOf(users.add({ ...anna, name: 'ANNA' }))).toBe('USER_EXISTS');
    for (const name of [
      '',
      'a b',
      '../anna',
      '__proto__',
      '-x',
      'x'.repeat(33),
      'cli',
      'gateway',
      'a\u0000',
    ]) {
      expect(await codeOf(users.add({ ...bert, name })), name).toBe('USER_NAME_INVALID');
    }
    expect(await codeOf(users.add({ ...bert, role: 'root' }))).toBe('USER_ROLE_INVALID');
    expect(await codeOf(users.add({ ...bert, password: 'password123' }))).toBe('PASSWORD_INVALID');
    const twice = await Promise.allSettled([users.add(bert), users.add(bert)]);
    expect(twice.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(users.stats()).toMatchObject({ users: 2, admins: 1 });
  });

  test('who is the only administrator stays one', async () => {
    const { open } = await household();
    const { users } = await open();
    await users.add(anna);
    await users.add(bert);
    for (const change of [
      users.remove('anna'),
      users.setDisabled('anna', true),
      users.setRole('anna', 'viewer'),
    ]) {
      expect(await codeOf(change)).toBe('LAST_ADMIN_CONFLICT');
    }
    await users.setRole('bert', 'admin');
    // Both at once: one of the two must stay.
    const both = await Promise.allSettled([users.setDisabled('anna', true), users.remove('bert')]);
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    expect(users.stats().admins).toBe(1);
  });

  test('who is disabled or removed does not come in, by password or token', async () => {
    const { open } = await household();
    const { users } = await open();
    await users.add(anna);
    await users.add(bert);
    const { token } = await users.issueToken('bert', { label: 'script' });
    await users.setDisabled('bert', true);
    expect(await users.verifyPassword('bert', otherPassword)).toBeUndefined();
    expect(users.verifyToken(token)).toBeUndefined();
    await users.setDisabled('bert', false);
    expect(users.verifyToken(token)).toMatchObject({ name: 'bert' });
    await users.remove('bert');
    expect(await users.verifyPassword('bert', otherPassword)).toBeUndefined();
    expect(users.verifyToken(token)).toBeUndefined();
    await users.add(bert);
    expect(users.verifyToken(token)).toBeUndefined();
  });

  test('of whom there are as many as there may be is not added', async () => {
    const { open, store } = await household();
    const { users } = await open();
    await users.add(anna);
    const record = JSON.parse(String(await store.get('user/anna'))) as object;
    const writes = Array.from({ length: 49 }, (_, index): StoreWrite => {
      const name = `user${index}`;
      return { key: `user/${name}`, value: Buffer.from(JSON.stringify({ ...record, name })) };
    });
    await store.write(writes);
    expect(await codeOf((await open()).users.add(bert))).toBe('USERS_FULL');
  });
});

describe('an API token', () => {
  test('speaks for its user until it is revoked, and is stored as a hash alone', async () => {
    const { open, store } = await household();
    const { users } = await open();
    await users.add(anna);
    const { token, stored } = await users.issueToken('anna', { label: 'grafana' });
    expect(token).toMatch(/^gu_[0-9a-f]{10}_[\w-]{43}$/);
    for (const reopened of [users, (await open()).users]) {
      expect(reopened.verifyToken(token)).toMatchObject({ name: 'anna' });
      for (const wrong of ['', `${token}x`, token.slice(0, -1), token.replace('gu_', 'gw_'), stored.sha256]) {
        expect(reopened.verifyToken(wrong)).toBeUndefined();
      }
    }
    for await (const [, bytes] of store.entries()) expect(bytes.toString()).not.toContain(token.slice(-43));
    await users.revokeToken('anna', stored.id);
    expect(users.verifyToken(token)).toBeUndefined();
    expect(await codeOf(users.revokeToken('anna', stored.id))).toBe('TOKEN_UNKNOWN');
  });

  test('expires by the time that really passed: not when the clock is set, not while nobody knows the date', async () => {
    const { open, time } = await household();
    const day = 86_400_000;
    const { users } = await open();
    await users.add(anna);
    const { token } = await users.issueToken('anna', { label: 'a week', lifetimeMs: 7 * day });
    time.learnDate(time.wallMs() + 365 * day);
    expect(users.verifyToken(token)).toBeDefined();
    time.learnDate(time.wallMs() - 365 * day);
    time.passMs(6 * day);
    expect(users.verifyToken(token)).toBeDefined();
    const beforeMs = time.wallMs();
    time.restart();
    const after = (await open()).users;
    expect(after.verifyToken(token)).toBeDefined();
    time.learnDate(beforeMs + 2 * day);
    expect(after.verifyToken(token)).toBeUndefined();
    const long = await after.issueToken('anna', { label: 'an hour', lifetimeMs: 3_600_000 });
    time.passMs(3_599_000);
    expect(after.verifyToken(long.token)).toBeDefined();
    time.passMs(1_000);
    expect(after.verifyToken(long.token)).toBeUndefined();
  });

  test('is one of ten at most', async () => {
    const { open } = await household();
    const { users } = await open();
    await users.add(anna);
    for (let count = 0; count < 10; count += 1) await users.issueToken('anna', { label: `token ${count}` });
    expect(await codeOf(users.issueToken('anna', { label: 'one more' }))).toBe('TOKENS_FULL');
    expect(await codeOf(users.issueToken('anna', { label: '' }))).toBe('TOKEN_LABEL_INVALID');
  });
});

describe('a damaged store', () => {
  test('lets nobody in: every damaged record denies, and the others work', async () => {
    const { open, store } = await household();
    const { users } = await open();
    await users.add(anna);
    await users.add(bert);
    const good = (await store.get('user/anna')) as Buffer;
    const record = JSON.parse(good.toString()) as Record<string, unknown>;
    const damages: unknown[] = [
      ...Object.keys(record).map((key) => ({ ...record, [key]: undefined })),
      ...Object.keys(record).map((key) => ({ ...record, [key]: {} })),
      { ...record, name: 'bert' },
      { ...record, role: 'root' },
      { ...record, tokens: [{}] },
      { ...record, revision: 0 },
      [],
      null,
      'x',
    ];
    for (const damage of damages) {
      await store.write([{ key: 'user/anna', value: Buffer.from(JSON.stringify(damage)) }]);
      const { users: after } = await open();
      const what = JSON.stringify(damage).slice(0, 60);
      expect(after.get('anna'), what).toBeUndefined();
      expect(after.stats(), what).toMatchObject({ users: 1, damagedRecords: 1 });
    }
    for (let at = 0; at < good.length; at += 7) {
      const cut = decodeUser('anna', good.subarray(0, at));
      expect(cut, `cut at ${at}`).toBeUndefined();
    }
  });

  test('that shows an old password, or a removed user again, is not believed', async () => {
    const { open, store } = await household();
    const { users } = await open();
    await users.add(anna);
    await users.add(bert);
    const old = await store.get('user/anna');
    const removed = await store.get('user/bert');
    await users.setPassword('anna', otherPassword);
    await users.remove('bert');
    await store.write([
      { key: 'user/anna', value: old },
      { key: 'user/bert', value: removed },
    ]);
    const { users: after } = await open();
    expect(await after.verifyPassword('anna', goodPassword)).toBeUndefined();
    expect(await after.verifyPassword('bert', otherPassword)).toBeUndefined();
    expect(after.stats()).toMatchObject({ users: 0, damagedRecords: 2 });
    // And the command line mends it.
    await after.add(anna);
    expect(await (await open()).users.verifyPassword('anna', goodPassword)).toBeDefined();
  });

  test('without its witness, or with a damaged one, works as before', async () => {
    const { open, witnessPath } = await household();
    await (await open()).users.add(anna);
    expect(readFileSync(witnessPath, 'utf8')).toContain('"anna":1');
    writeFileSync(witnessPath, 'garbage');
    expect(await (await open()).users.verifyPassword('anna', goodPassword)).toBeDefined();
  });

  test('on a disk that fails leaves everything as it was', async () => {
    const { open, store } = await household();
    await (await open()).users.add(anna);
    const failing: Store = {
      get: (key) => store.get(key),
      entries: (range) => store.entries(range),
      write: () => Promise.reject(Object.assign(new Error('full'), { code: 'STORE_FAILED' })),
    };
    const { users, signIn } = await open({ store: failing });
    expect(await codeOf(users.setPassword('anna', otherPassword))).toBe('STORE_FAILED');
    expect(await codeOf(users.add(bert))).toBe('STORE_FAILED');
    expect(await users.verifyPassword('anna', goodPassword)).toBeDefined();
    expect(await codeOf(signIn.login({ name: 'anna', password: goodPassword, address: '192.0.2.1' }))).toBe(
      'STORE_FAILED',
    );
  });
});

test('a kill between any two writes leaves the user as before or as after', async () => {
  const { open, store, witnessPath } = await household();
  const { users } = await open();
  await users.add(anna);
  const before = await store.get('user/anna');
  const witnessBefore = readFileSync(witnessPath);
  await users.setPassword('anna', otherPassword);
  const witnessAfter = readFileSync(witnessPath);
  // The record was written, its witness was not.
  writeFileSync(witnessPath, witnessBefore);
  expect(await (await open()).users.verifyPassword('anna', otherPassword)).toBeDefined();
  // Neither was.
  await store.write([{ key: 'user/anna', value: before }]);
  expect(await (await open()).users.verifyPassword('anna', goodPassword)).toBeDefined();
  writeFileSync(witnessPath, witnessAfter);
  expect(await (await open()).users.verifyPassword('anna', goodPassword)).toBeUndefined();
});
