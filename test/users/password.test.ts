import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { checkPassword, isPasswordHash, PasswordHasher } from '../../src/users/password.ts';

function isTaken(password: string, name = 'anna'): boolean {
  try {
    checkPassword(password, name);
    return true;
  } catch (error) {
    expect(error).toMatchObject({ code: 'PASSWORD_INVALID', message: /^password: expected / });
    return false;
  }
}

describe('a password', () => {
  test('needs ten characters and nothing else: no capitals, no digits, any language', () => {
    for (const good of [
      'three blind mice',
      'kartoffelsalat',
      'пароль-на-стене',
      '猫が窓の外を見ている夜',
      'a b c d e f',
    ]) {
      expect(isTaken(good), good).toBe(true);
    }
    for (const short of ['', 'Xk9!z', 'kartoffel', '猫猫犬']) expect(isTaken(short), short).toBe(false);
  });

  test('of more than 256 bytes is refused before it is hashed', () => {
    expect(isTaken('kartoffel'.repeat(28))).toBe(true);
    expect(isTaken('kartoffel'.repeat(29))).toBe(false);
  });

  test('is refused when it is one of the first that are tried, a pattern, or the name and little else', () => {
    const bad = [
      'password123',
      'Password123',
      'qwertyuiop',
      'iloveyou123',
      'administrator',
      'homeassistant',
      'raspberrypi',
      'aaaaaaaaaaaa',
      'abcabcabcabc',
      '1234567890',
      '9876543210',
      'abcdefghijk',
      '12345678901234567890',
      'annaannaanna',
      'iotflowanna1',
      'iotflow-gateway',
      'gateway123',
      'anna123password',
    ];
    for (const password of bad) expect(isTaken(password), password).toBe(false);
    expect(isTaken('annas green bicycle')).toBe(true);
  });
});

describe('hashing', () => {
  test('tells the right password from others, also when its letters came as other code points', async () => {
    const hasher = new PasswordHasher(randomBytes);
    const stored = await hasher.hash('crème brûlée');
    expect(isPasswordHash(stored)).toBe(true);
    expect(JSON.stringify(stored)).not.toContain('brûlée');
    expect(await hasher.matches('crème brûlée'.normalize('NFD'), stored)).toBe(true);
    for (const wrong of ['', 'creme brulee', 'crème brûlée ', 'x'.repeat(100_000)]) {
      expect(await hasher.matches(wrong, stored), wrong.slice(0, 20)).toBe(false);
    }
    const again = await hasher.hash('crème brûlée');
    expect(again.salt).not.toBe(stored.salt);
    expect(again.hash).not.toBe(stored.hash);
  });

  test('does the same work when there is nothing to compare with', async () => {
    const hasher = new PasswordHasher(randomBytes);
    expect(await hasher.matches('three blind mice', undefined)).toBe(false);
    expect(hasher.stats().hashes).toBe(1);
  });

  test('does two at once, lets eight wait and turns the others away', async () => {
    const hasher = new PasswordHasher(randomBytes);
    const asked = Array.from({ length: 14 }, () => hasher.matches('three blind mice', undefined));
    expect(hasher.stats()).toMatchObject({ waiting: 8, turnedAway: 4 });
    const ends = await Promise.allSettled(asked);
    const refused = ends.filter(({ status }) => status === 'rejected');
    expect(refused).toHaveLength(4);
    expect(refused[0]).toMatchObject({ reason: { code: 'LOGIN_BUSY' } });
    expect(hasher.stats()).toMatchObject({ hashes: 10, waiting: 0 });
    // And goes on afterwards.
    expect(await hasher.matches('three blind mice', undefined)).toBe(false);
  });

  test('takes no cost from a damaged record that would stop the machine', () => {
    const good = { n: 2 ** 15, r: 8, p: 1, salt: '00'.repeat(16), hash: '00'.repeat(32) };
    expect(isPasswordHash(good)).toBe(true);
    const damaged = [
      { n: 2 ** 30 },
      { n: 0 },
      { n: 1000 },
      { r: 1 },
      { p: 1e9 },
      { salt: '' },
      { hash: 'zz' },
      { hash: 1 },
    ];
    for (const change of damaged) expect(isPasswordHash({ ...good, ...change })).toBe(false);
    for (const other of [undefined, null, 'x', []]) expect(isPasswordHash(other)).toBe(false);
  });
});
