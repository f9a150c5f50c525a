// A password is typed into standard input, never an argument.

import { spawn } from 'node:child_process';
import { expect, test, vi } from 'vitest';
import { runCli } from '../../src/tools/cli.ts';
import { mainJs, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';

const password = 'three blind mice';

/** A process of its own where something is typed: that is what reads it. */
async function typing(config: string, argv: readonly string[], typed: string) {
  const child = spawn(process.execPath, [mainJs, ...argv, '--config', config]);
  let out = '';
  let err = '';
  child.stdout.on('data', (chunk) => (out += String(chunk)));
  child.stderr.on('data', (chunk) => (err += String(chunk)));
  child.stdin.on('error', () => undefined).end(typed);
  const code = await new Promise((resolve) => child.once('close', resolve));
  return { code, out, err };
}

async function iotflow(config: string, argv: readonly string[], typed?: string) {
  if (typed !== undefined) return await typing(config, argv, typed);
  let out = '';
  let err = '';
  const code = await runCli([...argv, '--config', config], {
    env: {},
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
    version: '1.2.3',
    commands: [],
  });
  return { code, out, err };
}

test('users are added, changed and removed with the gateway stopped and running, and it is all in the audit log', async () => {
  const config = writeConfig(tempFolder(), {});
  const add = ['users', 'add', 'anna', '--role', 'admin', '--json'];
  expect(await iotflow(config, ['users', 'list'])).toMatchObject({
    out: 'no users yet; iotflow users claim-code\n',
  });
  expect((await iotflow(config, ['users', 'claim-code'])).err).toMatch(/no gateway runs/);
  const added = await iotflow(config, add, `${password}\n`);
  expect(added).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(added.out)).toMatchObject({ name: 'anna', role: 'admin', disabled: false, tokens: 0 });

  const gateway = await startGateway(config);
  expect((await iotflow(config, ['users', 'claim-code'])).err).toMatch(/there is an administrator already/);
  expect((await iotflow(config, ['users', 'add', 'bert'], 'short\n')).err).toMatch(
    /password: expected at least 10/,
  );
  expect((await iotflow(config, ['users', 'add', 'bert'], '')).err).toMatch(
    /expected the password on the first line/,
  );
  expect(await iotflow(config, ['users', 'add', 'bert'], 'see how they run')).toMatchObject({
    code: 0,
    out: 'bert: added as viewer\n',
  });
  expect(await iotflow(config, ['users', 'remove', 'anna'])).toMatchObject({
    code: 1,
    err: expect.stringMatching(/only administrator/),
  });
  const token = await iotflow(config, [
    'users',
    'token',
    'add',
    'bert',
    'grafana',
    '--expires-in-days',
    '30',
    '--json',
  ]);
  expect(JSON.parse(token.out)).toMatchObject({ name: 'bert', token: expect.stringMatching(/^gu_/) });
  const tokens = await iotflow(config, ['users', 'token', 'list', 'bert']);
  const { id } = JSON.parse(token.out) as { id: string };
  expect(tokens.out).toMatch(new RegExp(`^ID .*\\n${id} +grafana +\\S+ +\\S+Z\\n$`));
  for (const argv of [
    ['users', 'token', 'revoke', 'bert', id],
    ['users', 'role', 'bert', 'admin'],
    ['users', 'disable', 'bert'],
    ['users', 'enable', 'bert'],
    ['users', 'remove', 'bert'],
  ]) {
    expect(await iotflow(config, argv), argv.join(' ')).toMatchObject({ code: 0, err: '' });
  }
  expect(await iotflow(config, ['users', 'passwd', 'anna'], 'farmer and his wife\n')).toMatchObject({
    code: 0,
  });
  expect(await gateway.stop()).toBe(0);

  const audit = JSON.parse((await iotflow(config, ['audit', '--json'])).out) as {
    entries: { action: string }[];
  };
  expect(audit.entries.map(({ action }) => action)).toEqual([
    'users.passwd',
    'users.remove',
    'users.enable',
    'users.disable',
    'users.role',
    'users.token_revoke',
    'users.token_add',
    'users.add',
    'users.add',
  ]);
  for (const secret of [password, 'farmer', 'see how', 'gu_']) {
    expect(gateway.output() + JSON.stringify(audit)).not.toContain(secret);
  }
});

test('a new gateway says how it is claimed, and its log does not hold the code', async () => {
  const config = writeConfig(tempFolder(), { log: { level: 'trace' } });
  const gateway = await startGateway(config);
  const shown = await iotflow(config, ['users', 'claim-code', '--json']);
  const { code, expires_in_s } = JSON.parse(shown.out) as { code: string; expires_in_s: number };
  expect(expires_in_s).toBe(900);
  // What the process has written comes through a pipe, in its own time.
  await vi.waitFor(() => expect(gateway.output()).toContain('iotflow users claim-code'), { timeout: 20_000 });
  expect(await gateway.stop()).toBe(0);
  expect(gateway.output()).not.toContain(code);
  expect(gateway.output()).not.toContain(code.replaceAll('-', ''));
});
