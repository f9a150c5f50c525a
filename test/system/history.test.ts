// Recent readings through the whole gateway: recorded when durable, answered by the command line running and stopped.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { runCli } from '../../src/tools/cli.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

async function iotflow(folder: string, ...argv: string[]) {
  const config = join(folder, 'config.yaml');
  writeFileSync(config, 'data_dir: data\n', { mode: 0o600 });
  let out = '';
  let err = '';
  const code = await runCli([...argv, '--config', config], {
    env: {},
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
    version: '0.0.0',
    commands: [],
  });
  return { code, out, err };
}

test('what a device was acknowledged can be asked for at once, after a restart, and beside a stopped gateway', async () => {
  const folder = tempFolder();
  const gateway = await openGateway(folder);
  const client = await connectDevice(gateway, 'probe-1');
  const topic = 'iotflow/devices/probe-1/telemetry/climate';
  for (const temperature of [20, 21, 22]) {
    await client.publishAsync(topic, JSON.stringify({ temperature, mode: 'eco' }), { qos: 1 });
  }
  const shows = async () => {
    const latest = await iotflow(folder, 'history', 'latest', 'probe-1');
    expect(latest).toMatchObject({ code: 0, err: '' });
    expect(latest.out).toMatch(/^MEASUREMENT +FIELD +VALUE +TIME\nclimate +temperature +22 /);
    const range = await iotflow(folder, 'history', 'range', 'probe-1', '--json', '--fields', 'temperature');
    expect(JSON.parse(range.out)).toMatchObject({
      device_id: 'probe-1',
      points: [
        { fields: { temperature: 20 } },
        { fields: { temperature: 21 } },
        { fields: { temperature: 22 } },
      ],
      count: 3,
      truncated: false,
    });
    const two = await iotflow(folder, 'history', 'range', 'probe-1', '--limit', '2', '--newest-first');
    expect(two.out).toMatch(
      /temperature=22 mode="eco"\n.*temperature=21 mode="eco"\nthere is more: --limit\n$/,
    );
    const aggregate = await iotflow(
      folder,
      'history',
      'aggregate',
      'probe-1',
      '--window',
      '1d',
      '--functions',
      'mean,count',
      '--from=-2d',
      '--fields=temperature',
    );
    expect(aggregate.out).toMatch(/climate +temperature +21 +3\n$/);
    const other = await iotflow(folder, 'history', 'latest', 'probe-2');
    expect(other).toMatchObject({ code: 0, out: 'nothing is known of this device\n' });
    const wrong = await iotflow(folder, 'history', 'range', 'probe-1', '--from', 'yesterday');
    expect(wrong.code).toBe(1);
    expect(wrong.err).toMatch(/^iotflow: from: expected now, a time before it/);
  };
  await shows();
  await client.endAsync();
  await gateway.close();
  await shows();
  const restarted = await openGateway(folder);
  await shows();
  expect(restarted.figures().history).toMatchObject({ failures: 0, paused: undefined });
});

test('the life of an alarm can be read in the history of its device', async () => {
  const folder = tempFolder();
  const gateway = await openGateway(folder);
  const client = await connectDevice(gateway, 'probe-1');
  await client.publishAsync('iotflow/devices/probe-1/telemetry/leak', '{"wet":true}', { qos: 1 });
  const alarms = async () => {
    const { out } = await iotflow(folder, 'history', 'range', 'probe-1', '--json');
    const { points } = JSON.parse(out) as { points: { measurement: string; fields: object }[] };
    return points.filter(({ measurement }) => measurement === 'alarm');
  };
  await expect.poll(alarms).toContainEqual(
    expect.objectContaining({
      fields: expect.objectContaining({ rule: 'wet', active: true }),
    }),
  );
});

test('history can be switched off', async () => {
  const folder = tempFolder();
  const gateway = await openGateway(folder, { history: { enabled: false } });
  expect(gateway.operations.has('history.latest')).toBe(false);
  expect(gateway.figures().history).toBeUndefined();
  const asked = await iotflow(folder, 'history', 'latest', 'probe-1');
  expect(asked.code).toBe(1);
});

test('what a device measured is deleted by command, while the gateway runs and when it is confirmed', async () => {
  const folder = tempFolder();
  const gateway = await openGateway(folder);
  const client = await connectDevice(gateway, 'probe-1');
  await client.publishAsync('iotflow/devices/probe-1/telemetry/climate', '{"temperature": 20}', { qos: 1 });
  const erase = ['history', 'erase', 'probe-1'];
  expect(await iotflow(folder, ...erase)).toMatchObject({ code: 1, err: expect.stringContaining('--yes') });
  const done = await iotflow(folder, ...erase, '--yes', '--json');
  expect(JSON.parse(done.out)).toMatchObject({
    device_id: 'probe-1',
    from: null,
    local: 'done',
    remote: 'none',
  });
  expect((await iotflow(folder, 'history', 'latest', 'probe-1')).out).toContain('nothing is known');
  expect((await iotflow(folder, 'history', 'erasures')).out).toMatch(
    /^ID +DEVICE.*\n1 +probe-1 +everything /,
  );
  expect(JSON.stringify(await gateway.operations.get('audit.list')?.({}))).toContain('history.erase');
  await gateway.close();
  expect((await iotflow(folder, ...erase, '--yes')).err).toContain('while the gateway runs');
});
