import { describe, expect, test } from 'vitest';
import { codeOf, goodPassword, household, otherPassword } from './household.ts';

const address = '192.0.2.1';

describe('logging in', () => {
  test('with the right name and password begins a session; with anything else it does the same work and says the same', async () => {
    const { open } = await household();
    const { users, sessions, signIn } = await open();
    await users.add({ name: 'anna', role: 'admin', password: goodPassword });
    await users.add({ name: 'bert', role: 'viewer', password: otherPassword });
    await users.setDisabled('bert', true);
    const good = await signIn.login({ name: 'Anna', password: goodPassword, address });
    expect(good).toMatchObject({ kind: 'in', user: { name: 'anna' } });
    expect(good.kind === 'in' && sessions.verify(good.cookie)?.name).toBe('anna');
    const wrong = [
      { name: 'anna', password: otherPassword },
      { name: 'nobody', password: goodPassword },
      { name: 'bert', password: otherPassword },
      { name: 'constructor', password: goodPassword },
    ];
    for (const given of wrong) {
      const { hashes } = signIn.stats().passwords;
      expect(await signIn.login({ ...given, address }), given.name).toEqual({ kind: 'wrong' });
      expect(signIn.stats().passwords.hashes - hashes, given.name).toBe(1);
    }
  });

  test('after five wrong passwords is not even looked at, and right again after the wait', async () => {
    const { open, time } = await household();
    const { users, signIn } = await open();
    await users.add({ name: 'anna', role: 'admin', password: goodPassword });
    const guess = () => signIn.login({ name: 'anna', password: otherPassword, address });
    for (let count = 0; count < 5; count += 1) expect(await guess()).toEqual({ kind: 'wrong' });
    const { hashes } = signIn.stats().passwords;
    const right = { name: 'anna', password: goodPassword, address };
    expect(await signIn.login(right)).toEqual({ kind: 'wait', waitMs: 1_000 });
    expect(signIn.stats().passwords.hashes).toBe(hashes);
    // Its owner elsewhere waits two seconds at most, and not at all where the gateway knows the place.
    const home = { ...right, address: '198.51.100.7' };
    expect(await signIn.login(home)).toMatchObject({ kind: 'wait', waitMs: 1_000 });
    time.passMs(1_000);
    expect(await signIn.login(home)).toMatchObject({ kind: 'in' });
    expect(await guess()).toEqual({ kind: 'wrong' });
    time.passMs(2_000);
    for (let count = 0; count < 4; count += 1)
      await signIn.login({ ...right, password: otherPassword, address: `10.0.0.${count}` });
    expect(await signIn.login(home)).toMatchObject({ kind: 'in' });
  });

  test('guessed in earnest is in the audit log once, without the name where it may be a password', async () => {
    const { open, time, audit } = await household();
    const { users, signIn } = await open();
    await users.add({ name: 'anna', role: 'admin', password: goodPassword });
    for (let count = 0; count < 20; count += 1) {
      await signIn.login({ name: count < 6 ? goodPassword : 'anna', password: 'x', address });
      time.passMs(1_500);
    }
    const entries = await audit.list();
    expect(entries).toMatchObject([
      { actor: 'anyone@192.0.2.1', action: 'login.guessed', target: 'unknown', detail: { tries: 5 } },
    ]);
    expect(JSON.stringify(entries)).not.toContain(goodPassword);
  });

  test('changing the password needs the old one, ends every session and begins one', async () => {
    const { open } = await household();
    const { users, sessions, signIn } = await open();
    const anna = await users.add({ name: 'anna', role: 'admin', password: goodPassword });
    const elsewhere = await sessions.begin(anna, '198.51.100.7');
    const change = (password: string, wanted: string) =>
      signIn.changePassword('anna', { password, address }, wanted);
    expect(await change(otherPassword, otherPassword)).toEqual({ kind: 'wrong' });
    expect(await codeOf(change(goodPassword, 'short'))).toBe('PASSWORD_INVALID');
    expect(sessions.verify(elsewhere)).toBeDefined();
    const changed = await change(goodPassword, otherPassword);
    expect(sessions.verify(elsewhere)).toBeUndefined();
    expect(changed.kind === 'in' && sessions.verify(changed.cookie)).toMatchObject({ name: 'anna' });
    expect(await signIn.login({ name: 'anna', password: goodPassword, address })).toEqual({ kind: 'wrong' });
  });
});

describe('claiming a new gateway', () => {
  const claim = { name: 'anna', password: goodPassword, address };

  test('needs the code that its own machine shows, once, within a quarter of an hour', async () => {
    const { open, time } = await household();
    const { users, sessions, signIn } = await open();
    expect(await signIn.claim({ ...claim, code: '' })).toEqual({ kind: 'wrong' });
    const first = signIn.issueClaimCode()?.code ?? '';
    expect(first).toMatch(/^([0-9A-HJKMNP-TV-Z]{4}-){3}[0-9A-HJKMNP-TV-Z]{4}$/);
    const second = signIn.issueClaimCode()?.code ?? '';
    expect(await signIn.claim({ ...claim, code: first })).toEqual({ kind: 'wrong' });
    time.passMs(15 * 60_000);
    expect(await signIn.claim({ ...claim, code: second })).toEqual({ kind: 'wrong' });
    const third = signIn.issueClaimCode()?.code ?? '';
    expect(await codeOf(signIn.claim({ ...claim, code: third, password: 'password123' }))).toBe(
      'PASSWORD_INVALID',
    );
    const typed = ` ${third.toLowerCase().replaceAll('-', ' ').replaceAll('0', 'o').replaceAll('1', 'l')} `;
    const claimed = await signIn.claim({ ...claim, code: typed });
    expect(claimed).toMatchObject({ kind: 'in', user: { name: 'anna', role: 'admin' } });
    expect(claimed.kind === 'in' && sessions.verify(claimed.cookie)).toBeTruthy();
    expect(await signIn.claim({ ...claim, name: 'eve', code: third })).toEqual({ kind: 'wrong' });
    expect(signIn.issueClaimCode()).toBeUndefined();
    expect(users.list()).toHaveLength(1);
  });

  test('twice at the same moment makes one administrator', async () => {
    const { open } = await household();
    const { users, signIn } = await open();
    const code = signIn.issueClaimCode()?.code ?? '';
    const both = await Promise.allSettled([
      signIn.claim({ ...claim, code }),
      signIn.claim({ ...claim, name: 'eve', code }),
    ]);
    expect(both.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    expect(both.find(({ status }) => status === 'rejected')).toMatchObject({
      reason: { code: 'CLAIM_CONFLICT' },
    });
    expect(users.stats().admins).toBe(1);
  });

  test('by guessing slows down as passwords do', async () => {
    const { open } = await household();
    const { signIn } = await open();
    signIn.issueClaimCode();
    for (let count = 0; count < 5; count += 1) {
      expect(await signIn.claim({ ...claim, code: '0000-0000-0000-0000' })).toEqual({ kind: 'wrong' });
    }
    expect(await signIn.claim({ ...claim, code: '0000' })).toEqual({ kind: 'wait', waitMs: 1_000 });
  });

  test('does not survive a restart half done: no code holds, and a new one makes the administrator', async () => {
    const { open } = await household();
    const { code } = (await open()).signIn.issueClaimCode() ?? { code: '' };
    const { signIn, users } = await open();
    expect(await signIn.claim({ ...claim, code })).toEqual({ kind: 'wrong' });
    expect(users.hasAdmin).toBe(false);
    const fresh = signIn.issueClaimCode()?.code ?? '';
    expect(await signIn.claim({ ...claim, code: fresh })).toMatchObject({ kind: 'in' });
  });
});
