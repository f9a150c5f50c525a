import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { chownSync, existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ControlSocket } from '../../src/api/control-socket.ts';
import type { LoadedConfig } from '../../src/config/load.ts';
import { dataPaths } from '../../src/config/paths.ts';
import type { Config } from '../../src/config/schema.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Operation } from '../../src/platform/operations.ts';
import { openRegistry } from '../../src/registry/open.ts';
import { operations } from '../../src/registry/operations.ts';
import type { Registry } from '../../src/registry/registry.ts';
import { runCli } from '../../src/tools/cli.ts';
import { storedDevices } from '../../src/tools/devices.ts';
import { callOperation } from '../../src/tools/operator.ts';
import { runCommand } from '../../src/tools/run.ts';
import { tempFolder } from '../support/temp.ts';

const log = createLog('silent');

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
  /** What the gateway was started with, when it was. */
  readonly started: LoadedConfig | undefined;
}

async function iotflow(argv: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  let out = '';
  let err = '';
  let started: LoadedConfig | undefined;
  const code = await runCli(argv, {
    env,
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
    version: '1.2.3',
    commands: [
      runCommand(async (loaded) => {
        started = loaded;
        return 0;
      }),
    ],
  });
  return { code, out, err, started };
}

function home(): { config: string; dataDir: string } {
  const folder = tempFolder();
  const config = join(folder, 'config.yaml');
  writeFileSync(config, 'data_dir: data\n', { mode: 0o600 });
  return { config, dataDir: join(folder, 'data') };
}

/** The part of a gateway a command sees: the state and the control socket. */
async function runningGateway(dataDir: string, further: Record<string, Operation> = {}): Promise<Registry> {
  const paths = dataPaths(dataDir);
  const state = await LevelStore.open(paths.state, { log });
  onTestFinished(() => state.close());
  const parts = await openRegistry({ store: state.room('registry'), clock: systemClock(), randomBytes, log });
  const control = await ControlSocket.open({
    path: paths.controlSocket,
    operations: new Map([...operations(parts), ...Object.entries(further)]),
    log,
  });
  onTestFinished(() => control.close());
  return parts.registry;
}

describe('the command line', () => {
  test('lists its commands, and shows the options of each', async () => {
    const help = await iotflow(['--help']);
    expect(help.code).toBe(0);
    for (const name of ['run', 'check-config', 'devices add ID', 'alarms acknowledge', 'status']) {
      expect(help.out).toContain(`  ${name}`);
    }
    expect(await iotflow([])).toMatchObject({ code: 2, out: '', err: help.out });
    const group = await iotflow(['devices', '--help']);
    expect(group.out).toContain('devices rotate ID');
    expect(group.out).not.toContain('alarms');
    const add = await iotflow(['devices', 'add', '--help']);
    expect(add).toMatchObject({ code: 0, err: '' });
    expect(add.out).toMatch(/^Usage: iotflow devices add ID \[options\]\n/);
    expect(add.out).toContain('--location PLACE');
    expect(await iotflow(['--version'])).toMatchObject({ code: 0, out: '1.2.3\n' });
  });

  test('answers what it does not know in one line with the nearest it knows', async () => {
    const cases: [string[], string][] = [
      [['rnu'], 'unknown command "rnu"; did you mean "run"?'],
      [['devices', 'ad', 'x'], 'unknown command "devices ad"; did you mean "devices add"?'],
      [['device', 'add', 'x'], 'unknown command "device add"; did you mean "devices add"?'],
      [['check_config', '--json'], 'unknown command "check_config"; did you mean "check-config"?'],
      [['frobnicate'], 'unknown command "frobnicate"; iotflow --help lists them'],
      [['--config', 'x', 'run'], 'expected a command before --config; iotflow --help lists them'],
      [['devices', 'add', 'x', '--nmae', 'y'], 'unknown option "--nmae"; did you mean "--name"?'],
      [
        ['alarms', 'silence', '--minutes', '5'],
        'unknown option "--minutes"; see iotflow alarms silence --help',
      ],
      [['history', 'range', 'x', '--from', '-1h'], 'write --from=VALUE when the value begins with a minus'],
      [
        ['devices', 'add', 'x', '--name'],
        "Option '--name <value>' argument missing; see iotflow devices add --help",
      ],
      [['devices', 'add'], 'expected ID; usage: iotflow devices add ID [options]'],
      [['devices', 'add', 'a', 'b'], 'did not expect "b"; usage: iotflow devices add ID [options]'],
    ];
    for (const [argv, message] of cases) {
      expect(await iotflow(argv), argv.join(' ')).toMatchObject({
        code: 2,
        out: '',
        err: `iotflow: ${message}\n`,
      });
    }
    expect(await iotflow(['devices'])).toMatchObject({ code: 2, out: '' });
  });

  test('runs the gateway with the configuration that was named, and not with a faulty one', async () => {
    const { config, dataDir } = home();
    expect((await iotflow(['run', '--config', config])).started?.config.dataDir).toBe(dataDir);
    expect((await iotflow(['run'], { IOTFLOW_CONFIG: config })).started?.config.dataDir).toBe(dataDir);
    writeFileSync(config, 'mqtt: {port: abc, prot: 1}\n');
    const refused = await iotflow(['run', '--config', config]);
    expect(refused).toMatchObject({ code: 1, out: '', started: undefined });
    expect(refused.err.split('\n')).toEqual([
      'mqtt.prot: unknown key; did you mean "port"?',
      'mqtt.port: expected a whole number from 0 to 65535, got "abc"',
      `iotflow: ${config} has 2 faults`,
      '',
    ]);
  });
});

describe('check-config', () => {
  test('says that a good file is good', async () => {
    const { config } = home();
    expect(await iotflow(['check-config', config])).toMatchObject({
      code: 0,
      out: `${config}: good\n`,
      err: '',
    });
    expect(await iotflow(['check-config', '--config', config, '--json'])).toMatchObject({
      code: 0,
      out: '{"ok":true,"faults":[],"warnings":[]}\n',
    });
  });

  test('lists every fault of a bad one and fails', async () => {
    const { config } = home();
    writeFileSync(config, 'log: {level: loud}\ninflx: {}\n');
    const checked = await iotflow(['check-config', config], {
      IOTFLOW_HTTP_PORT: 'x',
      IOTFLOW_HTP_PORT: '1',
    });
    expect(checked.code).toBe(1);
    expect(checked.out.split('\n')).toEqual([
      'inflx: unknown key; did you mean "influx"?',
      'log.level: expected one of trace, debug, info, warn, error, silent, got "loud"',
      'IOTFLOW_HTTP_PORT (http.port): expected a whole number from 0 to 65535, got "x"',
      '',
    ]);
    const json = await iotflow(['check-config', config, '--json']);
    expect(json.code).toBe(1);
    expect(JSON.parse(json.out)).toMatchObject({
      ok: false,
      faults: [{ path: 'inflx' }, { path: 'log.level' }],
    });
    writeFileSync(config, 'log:\n  level: [\n');
    expect((await iotflow(['check-config', config])).out).toMatch(
      new RegExp(`^${config}:\\d+:\\d+: not YAML: `),
    );
    expect(await iotflow(['check-config', join(config, 'none')])).toMatchObject({ code: 1 });
  });

  test('warns of what is allowed and hardly meant', async () => {
    const { config } = home();
    expect(await iotflow(['check-config', config], { IOTFLOW_MQTT_PROT: '1' })).toMatchObject({
      code: 0,
      err: expect.stringMatching(/^warning: IOTFLOW_MQTT_PROT: .*IOTFLOW_MQTT_PORT\n$/),
    });
  });
});

describe.each(['beside a stopped gateway', 'in a running gateway'])('devices, %s,', (where) => {
  async function place(): Promise<{ config: string; dataDir: string; registry: Registry | undefined }> {
    const { config, dataDir } = home();
    const registry = where === 'in a running gateway' ? await runningGateway(dataDir) : undefined;
    return { config, dataDir, registry };
  }

  test('are added with a key that is shown once', async () => {
    const { config, registry } = await place();
    const args = ['--name', 'Kitchen', '--type', 'leak', '--location', 'sink', '--config', config];
    const added = await iotflow(['devices', 'add', 'kitchen', ...args, '--json']);
    expect(added).toMatchObject({ code: 0, err: '' });
    const issued = JSON.parse(added.out) as { device_id: string; api_key: string };
    expect(issued).toEqual({ device_id: 'kitchen', api_key: expect.stringMatching(/^gw_/) });
    if (registry !== undefined) expect(registry.verify('kitchen', issued.api_key)).toBeDefined();

    const again = await iotflow(['devices', 'add', 'kitchen', '--config', config]);
    expect(again).toMatchObject({
      code: 1,
      out: '',
      err: 'iotflow: there is a device kitchen already; rotate gives it a new key\n',
    });
    const ha = await iotflow(['devices', 'add', 'home-assistant', '--service', '--config', config]);
    expect(ha.out).toMatch(/MQTT user name {2}home-assistant\n {2}MQTT password {3}gw_/);

    const list = await iotflow(['devices', 'list', '--config', config]);
    expect(list.out.split('\n')).toEqual([
      'ID              NAME            TYPE  LOCATION  STATUS            LAST SEEN',
      'home-assistant  home-assistant                  active (service)  -',
      'kitchen         Kitchen         leak  sink      active            -',
      '',
    ]);
    const json = await iotflow(['devices', 'list', '--config', config, '--json']);
    expect(JSON.parse(json.out)).toMatchObject({ devices: [{ service: true }, { device_id: 'kitchen' }] });
    expect(json.out).not.toContain(issued.api_key);
  });

  test('get a new key, lose all, and get one again', async () => {
    const { config } = await place();
    const key = async (...argv: string[]) =>
      (JSON.parse((await iotflow([...argv, '--config', config, '--json'])).out) as { api_key: string })
        .api_key;
    const keys = [
      await key('devices', 'add', 'a'),
      await key('devices', 'rotate', 'a', '--grace-hours', '1'),
    ];
    expect(await iotflow(['devices', 'revoke', 'a', '--config', config])).toMatchObject({
      code: 0,
      out: 'a: revoked; iotflow devices rotate lets it in again\n',
    });
    expect((await iotflow(['devices', 'list', '--config', config])).out).toContain('inactive');
    keys.push(await key('devices', 'rotate', 'a'));
    expect(new Set(keys).size).toBe(3);
  });

  test('are described, cut off, and set to something', async () => {
    const { config } = await place();
    const json = async (...argv: string[]): Promise<unknown> =>
      JSON.parse((await iotflow(['devices', ...argv, '--config', config, '--json'])).out);
    await json('add', 'lamp');
    const facts = [
      '--name',
      'Lamp',
      '--firmware',
      '1.2',
      '--metadata',
      '{"watts": 9}',
      '--status',
      'inactive',
    ];
    const described = {
      id: 1,
      name: 'Lamp',
      firmware_version: '1.2',
      metadata: { watts: 9 },
      status: 'inactive',
    };
    expect(await json('update', '1', ...facts)).toMatchObject(described);
    expect(await json('show', 'lamp')).toMatchObject(described);
    const both = {
      desired: { version: 1, config: { level: 7 } },
      reported: { version: 0, desired_version: 0 },
    };
    expect(await json('config', 'lamp', '{"level": 7}')).toMatchObject({ ...both, command: null });
    expect(await json('config', '1')).toMatchObject(both);
    expect((await iotflow(['devices', 'config', '1', '--config', config])).out).toBe(
      '            VERSION  DOCUMENT\ndesired     1        {"level":7}\nreported    0        {}\ntaken over  0\n',
    );
  });

  test('that cannot be made or are not there are named in one line', async () => {
    const { config } = await place();
    await iotflow(['devices', 'add', 'lamp', '--config', config]);
    const cases: [string[], RegExp][] = [
      [['add', 'Küche'], /^iotflow: device id: expected 1 to 64 characters of a-z, .* got "Küche"\n$/],
      [
        ['add', 'a', '--name', 'x\ny'],
        /^iotflow: name: expected at most 128 characters without line breaks.*\n$/,
      ],
      [['revoke', 'none'], /^iotflow: there is no device "none"\n$/],
      [['config', 'lamp', '{level: 7}'], /^iotflow: config: expected a JSON object\n$/],
      [
        ['update', 'lamp', '--status', 'pending'],
        /^iotflow: status: expected active, inactive, maintenance\n$/,
      ],
      [
        ['rotate', 'none', '--grace-hours', 'two'],
        /^iotflow: grace_ms: expected a whole number from 0 to \d+\n$/,
      ],
    ];
    for (const [argv, message] of cases) {
      const outcome = await iotflow(['devices', ...argv, '--config', config]);
      expect(outcome, argv.join(' ')).toMatchObject({
        code: 1,
        out: '',
        err: expect.stringMatching(message),
      });
    }
  });
});

describe('a command', () => {
  test('makes the data directory for its own user alone', async () => {
    const { config, dataDir } = home();
    await iotflow(['devices', 'list', '--config', config]);
    expect(statSync(dataDir).mode & 0o777).toBe(0o700);
  });

  test('does not touch a state that another process holds, and takes it once it is free', async () => {
    const { config, dataDir } = home();
    const state = await LevelStore.open(dataPaths(dataDir).state, { log });
    onTestFinished(() => state.close());
    const short = { dataDir, registry: { devicesMax: 10 } } as Config;
    await expect(
      callOperation(short, 'devices.list', {}, storedDevices, { busyTimeoutMs: 0 }),
    ).rejects.toMatchObject({
      code: 'STATE_BUSY',
    });
    const waiting = iotflow(['devices', 'add', 'a', '--config', config]);
    await new Promise((resolve) => setTimeout(resolve, 50));
    await state.close();
    expect(await waiting).toMatchObject({ code: 0, err: '' });
  });

  test.skipIf(process.getuid?.() !== 0)(
    'leaves the data of another user alone (needs to run as root)',
    async () => {
      const { config, dataDir } = home();
      mkdirSync(dataDir);
      chownSync(dataDir, 4242, 4242);
      const outcome = await iotflow(['devices', 'add', 'a', '--config', config]);
      expect(outcome).toMatchObject({ code: 1, err: expect.stringContaining('belongs to user 4242') });
      expect(existsSync(dataPaths(dataDir).state)).toBe(false);
    },
  );

  test('that cannot make its data directory says why', async () => {
    const { config, dataDir } = home();
    writeFileSync(dataDir, 'a file');
    const outcome = await iotflow(['devices', 'list', '--config', config]);
    expect(outcome).toMatchObject({ code: 1, err: `iotflow: cannot use ${dataDir}: EEXIST\n` });
  });
});

describe('alarms and status', () => {
  test('need a running gateway and say so', async () => {
    const { config, dataDir } = home();
    for (const argv of [['alarms', 'list'], ['alarms', 'acknowledge'], ['alarms', 'silence'], ['status']]) {
      const outcome = await iotflow([...argv, '--config', config]);
      expect(outcome, argv.join(' ')).toMatchObject({
        code: 1,
        out: '',
        err: `iotflow: no gateway runs with the data in ${dataDir}; this command asks a running one (iotflow run)\n`,
      });
    }
  });

  test('are shown and quieted', async () => {
    const { config, dataDir } = home();
    const asked: unknown[] = [];
    const alarm = {
      id: 'wet/kitchen',
      state: 'unacknowledged',
      priority: 'critical',
      message: 'Water at kitchen',
      raised_at: '2026-01-01T00:00:00.000Z',
    };
    let ok = true;
    await runningGateway(dataDir, {
      'alarms.list': async () => ({ alarms: [alarm] }),
      'alarms.acknowledge': async (args) => {
        asked.push(args);
        return { acknowledged: args.id === undefined ? [] : [args.id] };
      },
      'alarms.silence': async () => ({ until: '2026-01-01T00:10:00.000Z' }),
      'gateway.status': async () => ({ health: { ok, reasons: [] }, ports: { mqtt: 1883 } }),
    });
    const run = (...argv: string[]) => iotflow([...argv, '--config', config]);
    expect((await run('alarms', 'list')).out).toContain(
      'wet/kitchen  unacknowledged  critical  2026-01-01T00:00:00.000Z  Water at kitchen',
    );
    expect(JSON.parse((await run('alarms', 'list', '--json')).out)).toEqual({ alarms: [alarm] });
    expect(await run('alarms', 'acknowledge', 'wet/kitchen')).toMatchObject({
      code: 0,
      out: 'acknowledged: wet/kitchen\n',
    });
    expect(await run('alarms', 'acknowledge')).toMatchObject({
      code: 0,
      out: 'nothing was waiting to be acknowledged\n',
    });
    expect(asked).toEqual([{ by: 'command line', id: 'wet/kitchen' }, { by: 'command line' }]);
    expect((await run('alarms', 'silence')).out).toBe('silent until 2026-01-01T00:10:00.000Z\n');
    expect(await run('status')).toMatchObject({ code: 0, out: expect.stringContaining('mqtt 1883') });
    ok = false;
    expect(await run('status')).toMatchObject({ code: 1 });
  });
});

const mainJs = join(import.meta.dirname, '..', '..', 'dist', 'main.js');

describe.skipIf(!existsSync(mainJs))('the installed binary (needs dist/main.js: npm run build)', () => {
  const run = promisify(execFile);

  test('adds a device that the next call lists', async () => {
    const { config } = home();
    const added = await run(process.execPath, [mainJs, 'devices', 'add', 'a', '--json', '--config', config]);
    expect(JSON.parse(added.stdout)).toMatchObject({ device_id: 'a' });
    const listed = await run(process.execPath, [mainJs, 'devices', 'list', '--json', '--config', config]);
    expect(JSON.parse(listed.stdout)).toMatchObject({ devices: [{ device_id: 'a', status: 'active' }] });
  });

  test('fails with exit code 1 and every fault of a bad configuration', async () => {
    const { config } = home();
    writeFileSync(config, 'mqtt: {prot: 1}\n');
    await expect(run(process.execPath, [mainJs, 'check-config', config])).rejects.toMatchObject({
      code: 1,
      stdout: 'mqtt.prot: unknown key; did you mean "port"?\n',
    });
  });
});

test('status says in a few lines how the gateway is, and in JSON everything', async () => {
  const { config, dataDir } = home();
  const result = {
    health: { ok: true, reasons: [{ code: 'UPLINK_DOWN', message: 'InfluxDB cannot be reached.' }] },
    ports: { mqtt: 1883 },
    figures: {
      version: '1.2.3',
      gateway_id: 'casa',
      uptime_ms: 7_200_000,
      journal: { undated: { alarm: 0, telemetry: 3 }, dead_letters: { letters: 2 }, appends: 77 },
      forwarder: { state: 'retrying', pending: { fresh: 40, backlog: 2 }, accepted_points: 9 },
      time: { is_known: false },
    },
  };
  await runningGateway(dataDir, { 'gateway.status': async () => result });
  const text = await iotflow(['status', '--config', config]);
  expect(text.code).toBe(0);
  expect(text.out).toContain('UPLINK_DOWN: InfluxDB cannot be reached.');
  expect(text.out).toContain('casa, version 1.2.3, runs for 2.0 hours');
  expect(text.out).toContain('42 points, and 3 for their dates');
  expect(text.out).toContain('not known yet');
  const json = await iotflow(['status', '--config', config, '--json']);
  expect(JSON.parse(json.out)).toEqual(result);
});

test('a dead letter that came while the date was not known shows none', async () => {
  const { config, dataDir } = home();
  const letter = { id: '0000000000000007', stage: 'ingest', code: 'NOT_DECODABLE', reason: 'junk', at: null };
  await runningGateway(dataDir, {
    'dead-letters.list': async () => ({ dead_letters: [letter], next: null }),
  });
  const list = await iotflow(['dead-letters', 'list', '--config', config]);
  expect(list.out).toContain('date unknown');
});
