import { describe, expect, test } from 'vitest';
import { Lockout } from '../../src/users/lockout.ts';

function open(entriesMax?: number) {
  const clock = { nowMs: 0 };
  const lockout = new Lockout({
    monotonicMs: () => clock.nowMs,
    ...(entriesMax !== undefined && { entriesMax }),
  });
  return { clock, lockout };
}

/** Tries again and again, as early as it may; answers when each try was let through. */
function triesWithin(ms: number, address = '192.0.2.1'): number[] {
  const { clock, lockout } = open();
  const times: number[] = [];
  while (clock.nowMs < ms) {
    const attempt = lockout.begin(address, 'anna');
    if (attempt.kind === 'wait') clock.nowMs += attempt.waitMs;
    else times.push(clock.nowMs);
  }
  return times;
}

describe('guessing passwords', () => {
  test('gets five tries, then waits 1, 2, 4 … 60 seconds: ten in the first minute, one a minute later', () => {
    expect(triesWithin(60_000)).toEqual([0, 0, 0, 0, 0, 1_000, 3_000, 7_000, 15_000, 31_000]);
    const hour = triesWithin(3_600_000);
    expect(hour.length).toBeLessThanOrEqual(70);
    expect(hour.at(-1)! - hour.at(-2)!).toBe(60_000);
  });

  test('is never shut out for good: the wait is a minute at most, and a quarter of an hour later all is forgotten', () => {
    const { clock, lockout } = open();
    for (let day = 0; day < 1_000; day += 1) {
      const attempt = lockout.begin('192.0.2.1', 'anna');
      if (attempt.kind === 'wait') {
        expect(attempt.waitMs).toBeLessThanOrEqual(60_000);
        clock.nowMs += attempt.waitMs;
      }
    }
    clock.nowMs += 15 * 60_000;
    for (let count = 0; count < 5; count += 1) expect(lockout.begin('192.0.2.1', 'anna').kind).toBe('try');
  });

  test('a hundred at once are five', () => {
    const { lockout } = open();
    const kinds = Array.from({ length: 100 }, () => lockout.begin('192.0.2.1', 'anna').kind);
    expect(kinds.filter((kind) => kind === 'try')).toHaveLength(5);
    expect(lockout.stats()).toMatchObject({ failures: 5, refused: 95 });
  });

  test('of one account from a hundred addresses: its owner gets in from another one within two seconds', () => {
    const { clock, lockout } = open();
    for (let host = 0; host < 100; host += 1) {
      for (let count = 0; count < 5; count += 1) lockout.begin(`192.0.2.${host}`, 'anna');
    }
    const owner = lockout.begin('198.51.100.1', 'anna');
    expect(owner).toMatchObject({ kind: 'wait' });
    clock.nowMs += owner.kind === 'wait' ? owner.waitMs : 0;
    expect(clock.nowMs).toBeLessThanOrEqual(2_000);
    expect(lockout.begin('198.51.100.1', 'anna').kind).toBe('try');
    // Whose address is known does not even wait.
    expect(lockout.begin('198.51.100.2', undefined).kind).toBe('try');
  });

  test('of one account, without a pause and from a hundred addresses, keeps nobody waiting where its owner has logged in', () => {
    const { clock, lockout } = open();
    const home = '198.51.100.1';
    const first = lockout.begin(home, 'anna');
    if (first.kind === 'try') first.succeeded();
    lockout.welcome(home, 'anna');
    let elsewhere = 0;
    for (let second = 0; second < 600; second += 1) {
      for (let host = 0; host < 100; host += 1) lockout.begin(`192.0.2.${host}`, 'anna');
      if (lockout.begin('203.0.113.7', 'anna').kind === 'wait') elsewhere += 1;
      const owner = lockout.begin(home, 'anna');
      expect(owner.kind).toBe('try');
      if (owner.kind === 'try') owner.succeeded();
      clock.nowMs += 1_000;
    }
    expect(elsewhere).toBeGreaterThan(500);
    // Nor does it spare anybody there the wait for guesses of their own, nor any other account.
    for (let host = 0; host < 100; host += 1) lockout.begin(`192.0.2.${host}`, 'otto');
    expect(lockout.begin(home, 'otto').kind).toBe('wait');
    for (let count = 0; count < 5; count += 1) lockout.begin(home, 'anna');
    expect(lockout.begin(home, 'anna').kind).toBe('wait');
  });

  test('an account of one’s own buys no further guesses at others', () => {
    const { clock, lockout } = open();
    const guesses: number[] = [];
    while (clock.nowMs < 60_000) {
      const own = lockout.begin('192.0.2.1', 'mallory');
      if (own.kind === 'try') own.succeeded();
      const guess = lockout.begin('192.0.2.1', 'anna');
      if (guess.kind === 'try') guesses.push(clock.nowMs);
      else clock.nowMs += guess.waitMs;
    }
    expect(guesses.length).toBeLessThanOrEqual(12);
  });

  test('a right password after some wrong ones clears the account, and is no wrong one itself', () => {
    const { lockout } = open();
    for (let count = 0; count < 4; count += 1) lockout.begin(`192.0.2.${count}`, 'anna');
    for (let count = 0; count < 20; count += 1) {
      const attempt = lockout.begin('192.0.2.9', 'anna');
      expect(attempt.kind).toBe('try');
      if (attempt.kind === 'try') attempt.succeeded();
    }
    expect(lockout.stats().failures).toBe(4);
  });

  test('from one IPv6 network, or from an IPv4 address in either form, counts as from one address', () => {
    const { lockout } = open();
    const addresses = [
      '2001:db8:1:2::1',
      '2001:db8:1:2:ffff::',
      '2001:0db8:0001:0002:1:2:3:4',
      '2001:DB8:1:2::9%eth0',
    ];
    for (const address of [...addresses, '2001:db8:1:2::5']) {
      expect(lockout.begin(address, undefined).kind).toBe('try');
    }
    expect(lockout.begin('2001:db8:1:2::77', undefined).kind).toBe('wait');
    expect(lockout.begin('2001:db8:1:3::1', undefined).kind).toBe('try');
    for (let count = 0; count < 5; count += 1)
      lockout.begin(count % 2 ? '192.0.2.1' : '::ffff:192.0.2.1', undefined);
    expect(lockout.begin('192.0.2.1', undefined).kind).toBe('wait');
    expect(lockout.begin('::ffff:192.0.2.2', undefined).kind).toBe('try');
    for (let count = 0; count < 5; count += 1) lockout.begin('::1', undefined);
    expect(lockout.begin('::1', undefined).kind).toBe('wait');
  });

  test('fills no more than its table, whatever names are tried', () => {
    const { lockout } = open(50);
    for (let count = 0; count < 10_000; count += 1) lockout.begin(`192.0.2.${count}`, `name${count}`);
    expect(lockout.stats().entries).toBe(50);
  });
});
