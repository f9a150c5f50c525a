import { describe, expect, test } from 'vitest';
import { goodPassword, household, otherPassword } from './household.ts';

const hour = 3_600_000;
const day = 24 * hour;
const address = '192.0.2.1';

/** Somebody is logged in. */
async function loggedIn() {
  const home = await household();
  const people = await home.open();
  const anna = await people.users.add({ name: 'anna', role: 'admin', password: goodPassword });
  const cookie = await people.sessions.begin(anna, address);
  return { ...people, ...home, anna, cookie };
}

describe('a session', () => {
  test('is known by its cookie, also after a restart, and stored as a hash alone', async () => {
    const { sessions, open, cookie, store } = await loggedIn();
    expect(cookie).toMatch(/^[\w-]{43}$/);
    for (const reopened of [sessions, (await open()).sessions]) {
      expect(reopened.verify(cookie)).toMatchObject({ name: 'anna', role: 'admin' });
      for (const wrong of [
        '',
        `${cookie}x`,
        cookie.slice(1),
        cookie.toLowerCase(),
        'x'.repeat(43),
        '../../etc',
      ]) {
        expect(reopened.verify(wrong), wrong).toBeUndefined();
      }
    }
    for await (const [key, bytes] of store.entries()) expect(key + bytes.toString()).not.toContain(cookie);
  });

  test('ends when it is ended, and stays ended after a restart', async () => {
    const { sessions, open, cookie } = await loggedIn();
    await sessions.end(cookie);
    await sessions.end(cookie);
    expect(sessions.verify(cookie)).toBeUndefined();
    expect((await open()).sessions.verify(cookie)).toBeUndefined();
  });

  test('ends with everything that ends its user’s rights, with no moment in between', async () => {
    const { users, sessions, anna, open } = await loggedIn();
    await users.add({ name: 'bert', role: 'admin', password: otherPassword });
    const changes = [
      () => users.setPassword('anna', goodPassword),
      () => users.setRole('anna', 'viewer'),
      () => users.endSessions('anna'),
      () => users.setDisabled('anna', true),
    ];
    for (const change of changes) {
      const cookie = await sessions.begin(users.get('anna') ?? anna, address);
      expect(sessions.verify(cookie)).toBeDefined();
      await change();
      expect(sessions.verify(cookie)).toBeUndefined();
    }
    await users.setDisabled('anna', false);
    const cookie = await sessions.begin(users.get('anna') ?? anna, address);
    await users.remove('anna');
    await users.add({ name: 'anna', role: 'viewer', password: goodPassword });
    // Another of the same name.
    expect(sessions.verify(cookie)).toBeUndefined();
    expect((await open()).sessions.stats().sessions).toBe(0);
  });

  test('ends a day after it was last used, and two weeks after it began', async () => {
    const { sessions, cookie, time, users } = await loggedIn();
    for (let hours = 0; hours < 14 * 24; hours += 23) {
      expect(sessions.verify(cookie), `${hours} h`).toBeDefined();
      time.passMs(23 * hour);
    }
    expect(sessions.verify(cookie)).toBeUndefined();
    const anna = users.get('anna');
    const idle = anna && (await sessions.begin(anna, address));
    time.passMs(day - 1);
    expect(sessions.verify(idle ?? '')).toBeDefined();
    time.passMs(day);
    expect(sessions.verify(idle ?? '')).toBeUndefined();
  });

  test('outlives a wall clock that jumps, and is not prolonged by one that goes back', async () => {
    const { sessions, cookie, time } = await loggedIn();
    for (const jumpMs of [365 * day, -1000 * day, 10_000 * day, -20 * 365 * day]) {
      time.learnDate(time.wallMs() + jumpMs);
      expect(sessions.verify(cookie), `${jumpMs}`).toBeDefined();
    }
    time.passMs(day);
    time.learnDate(time.wallMs() - 30 * day);
    expect(sessions.verify(cookie)).toBeUndefined();
  });

  test('holds over a restart into an unknown time, and ends once the date says that its day is over', async () => {
    const { sessions, cookie, time, open } = await loggedIn();
    expect(sessions.verify(cookie)).toBeDefined();
    const offMs = time.wallMs();
    await sessions.close();
    time.restart();
    const later = (await open()).sessions;
    expect(later.verify(cookie)).toBeDefined();
    // Used just now, and begun three days ago: it goes on.
    time.learnDate(offMs + 3 * day);
    expect(later.verify(cookie)).toBeDefined();
    time.restart();
    const unused = (await open()).sessions;
    time.learnDate(offMs + 15 * day);
    expect(unused.verify(cookie)).toBeUndefined();
  });

  test('writes to the card when it begins and every quarter of an hour, not with every use', async () => {
    const home = await household();
    let writes = 0;
    const counting = {
      get: home.store.get,
      entries: home.store.entries,
      write: (given: Parameters<typeof home.store.write>[0]) => {
        writes += 1;
        return home.store.write(given);
      },
    };
    const { users, sessions } = await home.open({ store: counting });
    const anna = await users.add({ name: 'anna', role: 'admin', password: goodPassword });
    const cookie = await sessions.begin(anna, address);
    writes = 0;
    for (let minute = 0; minute < 60; minute += 1) {
      home.time.passMs(60_000);
      expect(sessions.verify(cookie)).toBeDefined();
    }
    await sessions.close();
    expect(writes).toBe(4);
  });

  test('is one of ten per user: the one unused for longest gives way', async () => {
    const { sessions, anna, cookie, time, open, store } = await loggedIn();
    const cookies = [cookie];
    for (let count = 1; count < 10; count += 1) {
      time.passMs(1_000);
      cookies.push(await sessions.begin(anna, address));
    }
    time.passMs(1_000);
    expect(sessions.verify(cookie)).toBeDefined();
    cookies.push(await sessions.begin(anna, address));
    expect(cookies.map((one) => sessions.verify(one) !== undefined)).toEqual([
      true,
      false,
      ...Array.from({ length: 9 }, () => true),
    ]);
    expect((await open()).sessions.stats().sessions).toBe(10);
    let records = 0;
    for await (const [key] of store.entries()) records += key.startsWith('session/') ? 1 : 0;
    expect(records).toBe(10);
  });

  test('that is damaged on the disk is none', async () => {
    const { store, open, cookie, sessions } = await loggedIn();
    await sessions.close();
    for await (const [key] of store.entries({ gte: 'session/', lt: 'session0' })) {
      await store.write([{ key, value: Buffer.from('{"name":"anna"}') }]);
    }
    expect((await open()).sessions.verify(cookie)).toBeUndefined();
  });
});
