import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCli } from '../../src/tools/cli.ts';
import type { ShownAudit } from '../../src/users/audit.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

async function iotflow(folder: string, ...argv: string[]): Promise<string> {
  const config = join(folder, 'config.yaml');
  writeFileSync(config, 'data_dir: data\n', { mode: 0o600 });
  let out = '';
  let err = '';
  const code = await runCli([...argv, '--config', config], {
    env: {},
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
    version: '1.2.3',
    commands: [],
  });
  expect({ code, err }).toEqual({ code: 0, err: '' });
  return out;
}

async function entries(folder: string) {
  return (JSON.parse(await iotflow(folder, 'audit', '--json')) as ShownAudit).entries;
}

test('changes on the command line are in the audit log, beside a stopped and a running gateway', async () => {
  const folder = tempFolder();
  expect(await iotflow(folder, 'audit')).toBe('nothing was changed yet\n');
  const added = await iotflow(folder, 'devices', 'add', 'kitchen', '--json');
  await iotflow(folder, 'devices', 'list');
  expect(await entries(folder)).toMatchObject([
    { id: 1, actor: 'cli', action: 'devices.add', target: 'kitchen', time_uncertain: true },
  ]);
  const gateway = await openGateway(folder, { time: { trust: 'always' } });
  await iotflow(folder, 'devices', 'revoke', 'kitchen');
  await iotflow(folder, 'alarms', 'silence');
  const shown = await entries(folder);
  expect(shown).toMatchObject([
    { id: 3, actor: 'cli', action: 'alarms.silence', target: 'all', time_uncertain: false },
    { id: 2, actor: 'cli', action: 'devices.revoke', target: 'kitchen', time_uncertain: false },
    { id: 1 },
  ]);
  expect(JSON.stringify(shown)).not.toContain(JSON.parse(added).api_key);
  expect(await iotflow(folder, 'audit', '--limit', '1')).toMatch(/^TIME +WHO +WHAT[^\n]*\n\S+ +cli +alarms/);
  await gateway.close();
  expect(await entries(folder)).toHaveLength(3);
});
