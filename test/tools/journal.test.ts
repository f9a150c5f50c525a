import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCli } from '../../src/tools/cli.ts';
import { openHome } from '../support/damaged-homes.ts';
import { openGateway } from '../support/gateway.ts';
import { append, line, range } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

async function iotflow(argv: readonly string[]) {
  let out = '';
  let err = '';
  const code = await runCli(argv, {
    env: {},
    stdout: { write: (text) => (out += text.toString()) },
    stderr: { write: (text) => (err += text.toString()) },
    version: '1.2.3',
    commands: [],
  });
  return { code, out, err };
}

test('what waits is shown and exported the same beside a stopped gateway and a running one', async () => {
  const folder = tempFolder();
  const config = join(folder, 'config.yaml');
  writeFileSync(config, 'data_dir: data\n', { mode: 0o600 });
  const home = await openHome(join(folder, 'data'));
  await append(home.journal, range(0, 50));
  const undated = 'm,device_id=e v=1 b3+1000\n';
  await home.journal.append({ class: 'telemetry', lines: undated, points: 1, undated: true });
  await home.close();
  const all = `${range(0, 50)
    .map((id) => line(id))
    .join('')}# no date yet: ${undated}`;
  expect(await iotflow(['journal', 'export', '--config', config])).toEqual({ code: 0, out: all, err: '' });
  const one = await iotflow(['journal', 'export', '--device', 'e', '--config', config]);
  expect(one.out).toBe(`# no date yet: ${undated}`);
  const later = await iotflow([
    'journal',
    'export',
    '--since',
    '2024-01-01T00:00:00Z',
    '--device',
    'd',
    '--config',
    config,
  ]);
  expect(later.out).toBe('');
  const stat = await iotflow(['journal', 'stat', '--json', '--config', config]);
  expect(JSON.parse(stat.out)).toMatchObject({ ring: { points: { telemetry: 51 } }, lost_blocks: 0 });

  await openGateway(folder);
  const running = await iotflow(['journal', 'export', '--device', 'd', '--config', config]);
  expect(running.out.split('\n').filter((text) => text.includes(',pad=')).length).toBe(50);
  expect((await iotflow(['journal', 'stat', '--config', config])).out).toMatch(/^CLASS .*\nalarm /);
});

test('verify reads everything, beside a stopped gateway and a running one, and says where a frame is damaged', async () => {
  const folder = tempFolder();
  const config = join(folder, 'config.yaml');
  writeFileSync(config, 'data_dir: data\n', { mode: 0o600 });
  const home = await openHome(join(folder, 'data'));
  for (let id = 0; id < 5; id += 1) await append(home.journal, [id]);
  await home.close();
  const good = await iotflow(['journal', 'verify', '--json', '--config', config]);
  expect(good.code).toBe(0);
  expect(JSON.parse(good.out)).toMatchObject({ lines: 5, damage: [] });

  const gateway = await openGateway(folder);
  const running = await iotflow(['journal', 'verify', '--config', config]);
  expect(running.out).toMatch(/nothing is damaged/);
  expect(running.code).toBe(0);
  await gateway.close();

  // A bit of the third frame, with good ones behind it.
  const ring = join(folder, 'data', 'journal', 'ring');
  const damaged =
    readdirSync(ring).find((name) => readFileSync(join(ring, name)).includes(line(2).trim())) ?? '';
  const content = readFileSync(join(ring, damaged));
  const at = content.indexOf(line(2).trim());
  content.writeUInt8(content.readUInt8(at) ^ 1, at);
  writeFileSync(join(ring, damaged), content);
  const bad = await iotflow(['journal', 'verify', '--json', '--config', config]);
  expect(bad.code).toBe(1);
  const { damage } = JSON.parse(bad.out) as { damage: { where: string }[] };
  expect(damage[0]?.where).toBe(`${damaged} at ${Math.floor(at / 4096) * 4096}`);
});
