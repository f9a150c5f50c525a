// What InfluxDB refuses, on the whole gateway: found, kept, explained, and given another chance by the commands a
// person types, beside a running gateway and a stopped one.

import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { FakeInflux, type FakeInfluxOptions } from '../../src/simulator/influx.ts';
import { runCli } from '../../src/tools/cli.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

interface Letter {
  readonly id: string;
  readonly stage: string;
  readonly code: string;
  readonly reason: string;
  readonly attempts: number;
}

async function home(options: FakeInfluxOptions = {}, flushIntervalMs = 20) {
  const folder = tempFolder();
  const influx = await FakeInflux.start({ token: 'very-secret', ...options });
  onTestFinished(() => influx.close());
  const settings = {
    influx: {
      url: influx.url,
      token: 'very-secret',
      org: 'home',
      bucket: 'water',
      flush_interval_ms: flushIntervalMs,
    },
    journal: { ring_segments: 4 },
  };
  const start = () => openGateway(folder, settings);
  /** Runs a command; answers what it printed, as JSON unless it is asked for text. */
  const iotflow = async (...argv: string[]) => {
    const chunks: Buffer[] = [];
    let complaint = '';
    const code = await runCli(argv, {
      env: {
        IOTFLOW_DATA_DIR: join(folder, 'data'),
        IOTFLOW_INFLUX_URL: influx.url,
        IOTFLOW_INFLUX_BUCKET: 'water',
        IOTFLOW_INFLUX_ORG: 'home',
      },
      stdout: { write: (text) => chunks.push(Buffer.from(text as string)) },
      stderr: { write: (text) => (complaint += text) },
      version: '0',
      commands: [],
    });
    return { code, bytes: Buffer.concat(chunks), text: Buffer.concat(chunks).toString(), complaint };
  };
  const list = async (...more: string[]) => {
    const { text } = await iotflow('dead-letters', 'list', '--json', ...more);
    return (JSON.parse(text) as { dead_letters: Letter[] }).dead_letters;
  };
  const values = () => [...influx.points()].map(({ fields }) => fields.get('value'));
  return { folder, influx, start, iotflow, list, values };
}

test.each(['v1', 'v2', 'v3'] as const)(
  'a bucket whose field is an integer gets whole numbers as such; the others are explained, nothing waits (%s)',
  async (dialect) => {
    const types = { 'level value': 'integer' } as const;
    // Long enough that the first three share a request.
    const { influx, start, list, values } = await home({ dialect, types }, 300);
    const gateway = await start();
    const device = await connectDevice(gateway, 'tank');
    const publish = (payload: string) =>
      device.publishAsync('iotflow/devices/tank/telemetry/level', payload, { qos: 1 });
    await Promise.all([publish('50'), publish('50.5'), publish('51')]);
    await until(() => influx.count === 2);
    await until(async () => influx.count === 2 && (await list()).length === 1);
    expect((await list())[0]).toMatchObject({
      stage: 'influx',
      code: 'FIELD_TYPE_CONFLICT',
      reason: expect.stringContaining(
        'field "value" of level: InfluxDB keeps it as integer, and 50.5 is not a whole number',
      ),
    });
    // From now on it costs no question: what fits goes as it should be, what does not stays here.
    const before = influx.requests;
    await publish('52');
    await until(() => influx.count === 3);
    expect(influx.requests - before).toBe(1);
    await publish('52.5');
    const letters = await list();
    expect(letters[1]).toMatchObject({ stage: 'ingest', code: 'FIELD_TYPE_CONFLICT' });
    expect(letters).toHaveLength(2);
    expect(values().sort()).toEqual([50, 51, 52]);
    expect(influx.requests - before).toBe(1);
  },
);

test('a first value that was a typing error: forget the type, replay, and every reading has its own time', async () => {
  const { influx, start, iotflow, list, values } = await home();
  const gateway = await start();
  const device = await connectDevice(gateway, 'tank');
  const publish = (payload: string) =>
    device.publishAsync('iotflow/devices/tank/telemetry/level', payload, { qos: 1 });
  await publish('{"value":"n/a"}');
  await until(() => influx.count === 1);
  const startedMs = Date.now();
  for (const value of [1, 2, 3]) await publish(String(value));
  const endedMs = Date.now();
  expect(await list('--code', 'FIELD_TYPE_CONFLICT', '--device', 'tank')).toHaveLength(3);
  expect((await iotflow('dead-letters', 'list', '--code', 'FIELD_TYPE_CONFLICT')).text).toContain(
    'field "value" of level: expected string, got float',
  );

  // Too early: the type is still what it was. They are letters again, once, and it is counted.
  const early = await iotflow('dead-letters', 'replay', '--all', '--json');
  expect(early.code).toBe(1);
  expect(JSON.parse(early.text)).toMatchObject({ replayed: 0, refused: 3 });
  expect((await list()).map(({ attempts }) => attempts)).toEqual([1, 1, 1]);

  expect((await iotflow('field-types', 'list')).text).toMatch(/level +value +string/);
  expect((await iotflow('field-types', 'forget', 'level', 'value')).code).toBe(0);
  expect(await iotflow('field-types', 'forget', 'level', 'value')).toMatchObject({
    code: 1,
    complaint: 'iotflow: no type is known of field "value" of level\n',
  });
  await new Promise((resolve) => setTimeout(resolve, 30));
  influx.setType('level value', undefined);
  const replayed = await iotflow('dead-letters', 'replay', '--all', '--code', 'FIELD_TYPE_CONFLICT');
  expect(replayed).toMatchObject({ code: 0, text: '3 replayed\n' });
  await until(() => influx.count === 4);
  expect(values()).toEqual(['n/a', 1, 2, 3]);
  for (const { timeNs, fields } of influx.points()) {
    if (fields.get('value') === 'n/a') continue;
    expect(Number(timeNs / 1_000_000n)).toBeGreaterThanOrEqual(startedMs);
    expect(Number(timeNs / 1_000_000n)).toBeLessThanOrEqual(endedMs);
  }
  expect(await list()).toEqual([]);
});

test('what InfluxDB refuses again after a replay is a letter again and says how often, and is not tried by itself', async () => {
  let isStrict = true;
  const { influx, start, iotflow, list } = await home({
    refuse: (line) => (isStrict && line.includes('value=13') ? 'points beyond retention policy' : undefined),
  });
  const gateway = await start();
  const device = await connectDevice(gateway, 'tank');
  for (const value of [12, 13, 14]) {
    await device.publishAsync('iotflow/devices/tank/telemetry/level', String(value), { qos: 1 });
  }
  await until(async () => influx.count === 2 && (await list()).length === 1);
  for (const attempts of [1, 2]) {
    const [letter] = await list();
    expect((await iotflow('dead-letters', 'replay', letter?.id ?? '')).text).toBe('1 replayed\n');
    await until(async () => (await list())[0]?.attempts === attempts);
  }
  const requests = influx.requests;
  await new Promise((resolve) => setTimeout(resolve, 100));
  expect(influx.requests).toBe(requests);
  isStrict = false;
  await iotflow('dead-letters', 'replay', '--all', '--stage', 'influx');
  await until(() => influx.count === 3);
  expect(await list()).toEqual([]);
});

test('a payload nobody can read is shown byte by byte, dropped only when confirmed, also beside a stopped gateway', async () => {
  const { start, iotflow, list } = await home();
  const gateway = await start();
  const device = await connectDevice(gateway, 'tank');
  const odd = Buffer.from([0xff, 0x00, 0x1b, 0x41]);
  for (const payload of [odd, Buffer.from('{"level":'), Buffer.from('{"level":')]) {
    await device.publishAsync('iotflow/devices/tank/telemetry/level', payload, { qos: 1 });
  }
  await gateway.close();
  expect((await list()).map(({ code }) => code)).toEqual(['NOT_UTF8', 'NOT_JSON', 'NOT_JSON']);
  const shown = await iotflow('dead-letters', 'show', '1');
  expect(shown.text).toContain('refused by  ingest\ncode        NOT_UTF8\n');
  expect(shown.text).toContain('000000  ff 00 1b 41                                      ...A\n');
  expect((await iotflow('dead-letters', 'show', '2')).text).toContain('\n{"level":\n');
  expect((await iotflow('dead-letters', 'show', '1', '--raw')).bytes).toEqual(odd);
  expect(await iotflow('dead-letters', 'show', '9')).toMatchObject({
    code: 1,
    complaint: 'iotflow: no dead letter 9\n',
  });
  expect((await iotflow('dead-letters', 'replay', '2')).text).toContain('1 refused again');
  expect(await iotflow('dead-letters', 'drop', '--all')).toMatchObject({
    code: 1,
    complaint: 'iotflow: dropping with --all cannot be undone: add --yes\n',
  });
  for (const argv of [['list', '--limit', 'x'], ['replay'], ['replay', '2', '--all'], ['drop', 'two']]) {
    expect((await iotflow('dead-letters', ...argv)).code, argv.join(' ')).toBe(1);
  }
  expect(await list()).toHaveLength(3);
  expect((await iotflow('dead-letters', 'drop', '1')).text).toBe('1 dropped\n');
  expect((await iotflow('dead-letters', 'drop', '--all', '--yes', '--code', 'NOT_JSON')).text).toBe(
    '2 dropped\n',
  );
  expect((await iotflow('dead-letters', 'list')).text).toBe('no dead letters\n');
});

test('a replay beside a stopped gateway arrives when it runs again', async () => {
  const { influx, start, iotflow, values } = await home();
  const first = await start();
  const device = await connectDevice(first, 'tank');
  const publish = (payload: string) =>
    device.publishAsync('iotflow/devices/tank/telemetry/level', payload, { qos: 1 });
  await publish('{"value":"n/a"}');
  await publish('7');
  await until(() => influx.count === 1);
  await first.close();
  await iotflow('field-types', 'forget', 'level', 'value');
  influx.setType('level value', undefined);
  expect((await iotflow('dead-letters', 'replay', '--all')).text).toBe('1 replayed\n');
  await start();
  await until(() => influx.count === 2);
  expect(values()).toEqual(['n/a', 7]);
});

test('a thousand letters are replayed piece by piece', async () => {
  const { influx, start, iotflow, list } = await home();
  const gateway = await start();
  const device = await connectDevice(gateway, 'tank');
  const publish = (payload: string) =>
    device.publishAsync('iotflow/devices/tank/telemetry/level', payload, { qos: 1 });
  await publish('{"value":"n/a"}');
  await Promise.all(Array.from({ length: 1000 }, (_, index) => publish(String(index))));
  await until(() => influx.count === 1);
  await iotflow('field-types', 'forget', 'level', 'value');
  influx.setType('level value', undefined);
  const before = gateway.figures().journal.commits;
  const { text, complaint } = await iotflow('dead-letters', 'replay', '--all');
  expect(text).toBe('1000 replayed\n');
  expect(complaint).toContain('500 replayed\n');
  expect(gateway.figures().journal.commits - before).toBeLessThan(100);
  await until(() => influx.count === 1001);
  expect(await list()).toEqual([]);
});
