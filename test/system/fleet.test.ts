// `iotflow simulate fleet` as an operator runs it: against the built gateway, and against a broker of somebody else.

import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { Daemon } from '../support/daemon.ts';
import { commandPath, hasCommand } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { iotflow, mainJs, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';

interface Summary {
  readonly devices: number;
  readonly sent: number;
  readonly acknowledged: number;
  readonly refused: number;
  readonly unacknowledged: number;
  readonly lost: number;
}

function simulate(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [mainJs, 'simulate', 'fleet', ...args],
      (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

test('a home registers by itself, its books balance, and a second run finds it again', async () => {
  const config = writeConfig(await tempFolder(), {});
  const gateway = await startGateway(config);
  const args = ['--preset', 'home', '--interval', '50', '--duration', '1.5', '--loss', '20%', '--json'];
  for (const run of ['first', 'second']) {
    const { code, stdout, stderr } = await simulate(...args, '--config', config);
    expect(stderr, run).toBe('');
    const summary = JSON.parse(stdout) as Summary;
    expect(summary, run).toMatchObject({ devices: 9, refused: 0, unacknowledged: 0 });
    expect(summary.acknowledged, run).toBe(summary.sent);
    expect(summary.lost, run).toBeGreaterThan(0);
    expect(code, run).toBe(0);
  }
  const listed = JSON.parse(await iotflow('devices', 'list', '--json', '--config', config)) as {
    devices: { device_id: string; device_type: string }[];
  };
  expect(listed.devices).toHaveLength(9);
  expect(listed.devices).toContainEqual(
    expect.objectContaining({ device_id: 'sim-home-front-door-lock', device_type: 'door_lock' }),
  );
  await gateway.stop();
});

test('over MQTT and HTTP, with a network that comes and goes, everything sent is acknowledged and stored once', async () => {
  const config = writeConfig(await tempFolder(), { host_health: { enabled: false } });
  const gateway = await startGateway(config);
  const { code, stdout, stderr } = await simulate(
    ...[
      '--preset',
      'home',
      '--devices',
      '20',
      '--transport',
      'mixed',
      '--interval',
      '100',
      '--duration',
      '4',
    ],
    ...['--outages', '50%', '--seed', '7', '--json', '--config', config],
  );
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const { by_transport: by, ...all } = JSON.parse(stdout) as Summary & {
    readonly by_transport: Record<'mqtt' | 'http', Summary & { readonly reconnects: number }>;
  };
  expect(all).toMatchObject({ devices: 20, refused: 0, unacknowledged: 0 });
  for (const one of [by.mqtt, by.http]) {
    expect(one).toMatchObject({ devices: 10, refused: 0, unacknowledged: 0 });
    expect(one.acknowledged).toBeGreaterThan(100);
  }
  expect(by.mqtt.reconnects).toBeGreaterThan(0);
  const lines = (await iotflow('journal', 'export', '--config', config)).split('\n');
  const readings = lines.filter((line) => /^(water|climate|leak|lock|camera),/.test(line));
  expect(readings).toHaveLength(all.acknowledged);
  expect(new Set(readings).size).toBe(all.acknowledged);
  await gateway.stop();
});

test('a fleet that registers over HTTP finds its keys again in the next run', async () => {
  const folder = await tempFolder();
  const config = writeConfig(folder, {});
  const gateway = await startGateway(config);
  await iotflow('devices', 'pair', '--config', config);
  const args = ['--enrol', '--keys', join(folder, 'keys.json'), '--transport', 'mixed', '--interval', '50'];
  for (const said of [/^9 devices registered/, /^$/]) {
    const { code, stdout, stderr } = await simulate(...args, '--duration', '1', '--json', '--config', config);
    expect(stderr).toMatch(said);
    expect(JSON.parse(stdout)).toMatchObject({ devices: 9, refused: 0, unacknowledged: 0 });
    expect(code).toBe(0);
  }
  await gateway.stop();
});

test('without a gateway and without a broker it says what to do', async () => {
  const config = writeConfig(await tempFolder(), {});
  const { code, stderr } = await simulate('--config', config);
  expect(code).toBe(1);
  expect(stderr).toMatch(/no gateway runs with data_dir .*: start one, or name a broker with --url/);
});

test.skipIf(!hasCommand('mosquitto'))(
  'against mosquitto, what an access list forbids is counted as refused and the exit code says it (needs mosquitto)',
  async () => {
    const folder = await tempFolder();
    const port = await freePort();
    const acl = join(folder, 'acl');
    writeFileSync(acl, 'topic readwrite iotflow/devices/+/status/#\ntopic read iotflow/#\n', { mode: 0o644 });
    const settings = join(folder, 'mosquitto.conf');
    writeFileSync(
      settings,
      `listener ${port} 127.0.0.1\nallow_anonymous true\nacl_file ${acl}\npersistence false\nuser root\n`,
    );
    const broker = await Daemon.start(commandPath('mosquitto') ?? '', ['-c', settings], async () => {
      const client = await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 });
      await client.endAsync();
      return true;
    });
    onTestFinished(() => broker.stop());
    const url = `mqtt://127.0.0.1:${port}`;
    const { code, stdout } = await simulate(
      ...['--url', url, '--anonymous', '--mqtt5', '--interval', '100', '--duration', '1', '--json'],
    );
    const summary = JSON.parse(stdout) as Summary;
    expect(summary).toMatchObject({ acknowledged: 0, unacknowledged: 0 });
    expect(summary.refused).toBeGreaterThan(9);
    expect(code).toBe(1);
  },
);
