// The doctor against real things that are ill: taken ports, expired certificates, servers that refuse, full disks.

import { execFile } from 'node:child_process';
import {
  appendFileSync,
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  watch,
  writeFileSync,
} from 'node:fs';
import { createServer as createHttpServer, type RequestListener } from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { generate, type Packet } from 'mqtt-packet';
import { describe, expect, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/schema.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { issueLeaf, openLocalCa } from '../../src/platform/local-ca.ts';
import { createLog } from '../../src/platform/log.ts';
import type { ClockVerdict } from '../../src/platform/time-base.ts';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { runCli } from '../../src/tools/cli.ts';
import { findingLine, ok, runChecks } from '../../src/tools/doctor/check.ts';
import { clockCheck, machineCheck, nodeCheck } from '../../src/tools/doctor/machine.ts';
import { dnsCheck, ownCertificateCheck } from '../../src/tools/doctor/network.ts';
import { holderOf } from '../../src/tools/doctor/ports.ts';
import { wearCheck } from '../../src/tools/doctor/running-gateway.ts';
import { fileSystemCheck, mountOf } from '../../src/tools/doctor/storage.ts';
import { hasCommand } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { openGateway } from '../support/gateway.ts';
import { startInfluxDb1 } from '../support/influxdb-1.ts';
import { makeLed } from '../support/led.ts';
import { canMount, smallDisk, turnReadOnly } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';
import { writeTree } from '../support/tree.ts';
import { until } from '../support/until.ts';
import { startVictoriaMetrics } from '../support/victoria-metrics.ts';

const program = join(import.meta.dirname, '..', '..', 'dist', 'main.js');
const secret = 'a-token-nobody-may-see';
const dayMs = 86_400_000;

interface Line {
  readonly check: string;
  readonly status: string;
  readonly message: string;
  readonly do?: string;
}

interface Report {
  readonly code: number;
  readonly out: string;
  /** Of one check, in order. */
  of(check: string): Line[];
}

function reportOf(code: number, out: string): Report {
  const { checks } = JSON.parse(out) as { checks: Line[] };
  return { code, out, of: (name) => checks.filter(({ check }) => check === name) };
}

/** A configuration file that fits into this machine; ports are picked. */
function configFile(folder: string, settings: Record<string, unknown> = {}): string {
  const file = join(folder, 'config.yaml');
  const { mqtt, ...rest } = settings as { mqtt?: Record<string, unknown> };
  const tree = {
    data_dir: join(folder, 'data'),
    mqtt: { port: 0, tls: { port: 0 }, ws: { port: 0 }, ...mqtt },
    http: { port: 0 },
    https: { port: 0 },
    journal: { max_bytes: 1_048_576 },
    ...rest,
  };
  writeFileSync(file, JSON.stringify(tree), { mode: 0o600 });
  return file;
}

async function run(argv: readonly string[]): Promise<{ code: number; out: string }> {
  let out = '';
  const write = (text: string) => {
    out += text;
  };
  const code = await runCli(argv, {
    env: {},
    stdout: { write },
    stderr: { write },
    version: '1.2.3',
    commands: [],
  });
  return { code, out };
}

async function doctor(file: string, ...further: string[]): Promise<Report> {
  const { code, out } = await run(['doctor', '--json', '--config', file, ...further]);
  return reportOf(code, out);
}

async function examine(settings: Record<string, unknown> = {}): Promise<Report> {
  return await doctor(configFile(tempFolder(), settings));
}

function configOf(settings: Record<string, unknown>): Config {
  const loaded = loadConfig({ text: JSON.stringify(settings), env: {} });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  return loaded.config;
}

async function listening(server: Server): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => void server.close());
  return (server.address() as AddressInfo).port;
}

async function answering(listener: RequestListener): Promise<string> {
  const server = createHttpServer(listener);
  onTestFinished(() => server.closeAllConnections());
  return `http://127.0.0.1:${await listening(server)}`;
}

/** A server whose answer to a write is given. */
function influxThatSays(status: number, body: string, type = 'application/json'): Promise<string> {
  return answering((request, response) => {
    if (request.method === 'GET') return void response.end('{"name":"influxdb","version":"v2.7.11"}');
    response.writeHead(status, { 'content-type': type }).end(body);
  });
}

const influxWith = (url: string) => ({ influx: { url, token: secret, org: 'home', bucket: 'water' } });

describe('a machine in order', () => {
  test('has no failure, and is left as it was', async () => {
    const influx = await FakeInflux.start({ token: secret });
    onTestFinished(() => influx.close());
    const folder = tempFolder();
    mkdirSync(join(folder, 'data'), { mode: 0o700 });
    const report = await doctor(configFile(folder, influxWith(influx.url)));
    expect(report.code).toBe(0);
    expect(report.of('influxdb').map(({ status }) => status)).toEqual(['ok', 'ok']);
    expect(report.of('data_dir')).toMatchObject([{ status: 'ok' }]);
    expect(report.of('flush')).toMatchObject([{ status: 'ok' }]);
    expect(report.of('gateway')).toMatchObject([{ status: 'skipped' }]);
    expect(influx.count).toBe(0);
    expect(readdirSync(join(folder, 'data'))).toEqual([]);
    expect(report.out).not.toContain(secret);
  });

  test('has a line for each thing that people can read', async () => {
    const { out, code } = await run(['doctor', '--config', configFile(tempFolder())]);
    expect(code).toBe(0);
    expect(out).toMatch(/^ok {3}node: \d+\.\d+\.\d+$/m);
    expect(out).toMatch(/^skip flume: not configured$/m);
    expect(out).toMatch(/^warn buzzer: none is configured: .+\. Do: set buzzer\.led .+$/m);
  });

  test('is examined beside its running gateway, whose own view is in the report', async () => {
    const folder = tempFolder();
    const led = makeLed(folder);
    const influx = { url: `http://127.0.0.1:${await freePort()}` };
    const settings = { buzzer: { led }, influx, host_health: { enabled: true } };
    const gateway = await openGateway(folder, settings);
    await until(() => gateway.health().reasons.some(({ code }) => code === 'UPLINK_DOWN'));
    const report = await doctor(configFile(folder, settings));
    expect(report.of('gateway')).toMatchObject([
      { status: 'ok' },
      { status: 'warn', message: expect.stringContaining('UPLINK_DOWN') },
    ]);
    expect(report.of('journal')).toMatchObject([{ status: 'ok' }]);
    expect(report.of('dead letters')).toMatchObject([{ status: 'ok', message: 'none' }]);
    expect(report.of('tls')).toMatchObject([{ status: 'ok' }]);
    expect(report.of('buzzer')).toMatchObject([{ status: 'ok' }]);
    const [ports] = report.of('ports');
    expect(ports).toMatchObject({
      status: 'ok',
      message: expect.stringContaining(`mqtt ${gateway.ports.mqtt}`),
    });
  }, 30_000);
});

describe('the configuration', () => {
  test('with faults is told by path, and the rest waits', async () => {
    const report = await doctor(configFile(tempFolder(), { influx: { batch_points: 'many' } }));
    expect(report.code).toBe(1);
    expect(report.of('configuration')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('influx.batch_points') },
    ]);
    expect(report.of('influxdb')).toEqual([]);
  });

  test('that others may read is warned of', async () => {
    const file = configFile(tempFolder(), influxWith(`http://127.0.0.1:${await freePort()}`));
    chmodSync(file, 0o644);
    const report = await doctor(file);
    expect(report.of('configuration')[1]).toMatchObject({ status: 'warn' });
    expect(report.out).not.toContain(secret);
  });
});

describe('the data directory', () => {
  test('that is a file, or open to everybody, is told', async () => {
    const folder = tempFolder();
    writeFileSync(join(folder, 'data'), '');
    expect((await doctor(configFile(folder))).of('data_dir')).toMatchObject([{ status: 'fail' }]);
    const other = tempFolder();
    mkdirSync(join(other, 'data'));
    chmodSync(join(other, 'data'), 0o755);
    expect((await doctor(configFile(other))).of('data_dir')).toMatchObject([
      { status: 'warn', do: expect.stringContaining('chmod 700') },
    ]);
  });

  test.skipIf(!canMount())('on a full disk in memory: no room, no write, no place for data', async () => {
    const disk = smallDisk(2);
    mkdirSync(join(disk, 'data'), { mode: 0o700 });
    expect(() => {
      for (;;) appendFileSync(join(disk, 'full'), Buffer.alloc(65_536));
    }).toThrow('ENOSPC');
    const report = await doctor(configFile(tempFolder(), { data_dir: join(disk, 'data') }));
    expect(report.code).toBe(1);
    expect(report.of('disk space')).toMatchObject([{ status: 'fail' }]);
    expect(report.of('flush')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('ENOSPC') },
    ]);
    expect(report.of('file system')).toMatchObject([
      { status: 'warn', message: expect.stringContaining('memory') },
    ]);
  });

  test.skipIf(!canMount())('on a disk that turned read-only fails, and says why that happens', async () => {
    const disk = smallDisk(2);
    mkdirSync(join(disk, 'data'), { mode: 0o700 });
    turnReadOnly(disk);
    const report = await doctor(configFile(tempFolder(), { data_dir: join(disk, 'data') }));
    expect(report.of('flush')).toMatchObject([{ status: 'fail', message: expect.stringContaining('EROFS') }]);
    expect(report.of('file system')).toMatchObject([{ status: 'fail', do: expect.stringContaining('card') }]);
  });

  test('lies on the mount that is nearest to it', () => {
    const mounts = [
      '21 1 254:0 / / rw,relatime shared:1 - ext4 /dev/root rw',
      '30 21 0:30 / /var/lib rw - vfat /dev/mmcblk0p1 rw',
      '31 21 0:31 / /var/lib/with\\040space ro,noatime - ext4 /dev/sda1 ro',
      '',
    ].join('\n');
    expect(mountOf(mounts, '/var/libre')).toMatchObject({ kind: 'ext4', isReadOnly: false });
    expect(mountOf(mounts, '/var/lib/iotflow')).toMatchObject({ kind: 'vfat' });
    expect(mountOf(mounts, '/var/lib/with space/x')).toMatchObject({ kind: 'ext4', isReadOnly: true });
    expect(mountOf('', '/')).toBeUndefined();
  });

  test('in a layer of a container is warned of', async () => {
    const folder = tempFolder();
    writeTree(folder, { 'self/mountinfo': '21 1 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/x\n' });
    const [finding] = await runChecks([fileSystemCheck(configOf({ data_dir: folder }), folder)], 5_000);
    expect(finding).toMatchObject({ status: 'warn', todo: 'mount a volume there' });
  });

  test('whose stores another process holds, or from which damage was set aside, is told', async () => {
    const folder = tempFolder();
    const store = await LevelStore.open(join(folder, 'data', 'state'), { log: createLog('silent') });
    onTestFinished(() => store.close());
    chmodSync(join(folder, 'data'), 0o700);
    writeTree(join(folder, 'data'), { 'journal/quarantine/ring-003': 'nonsense' });
    const report = await doctor(configFile(folder));
    const [locked, aside] = report.of('journal');
    expect(locked).toMatchObject({ status: 'fail', message: expect.stringContaining('another process') });
    expect(aside).toMatchObject({ status: 'warn', message: expect.stringContaining('1 damaged files') });
  });
});

describe('ports', () => {
  test('that others hold are told with who it is', async () => {
    const port = await listening(createServer());
    const report = await examine({ mqtt: { port } });
    expect(report.code).toBe(1);
    expect(report.of('ports').find(({ status }) => status === 'fail')).toMatchObject({
      message: expect.stringMatching(new RegExp(`mqtt ${port} is taken by .+\\(process ${process.pid}\\)`)),
      do: expect.stringContaining('mqtt.port'),
    });
    expect(await holderOf(await freePort(), '/proc')).toBe('another process');
  });

  test('readable through the network are warned of, and so is a gateway that needs a restart', async () => {
    const folder = tempFolder();
    await openGateway(folder);
    const report = await doctor(
      configFile(folder, { mqtt: { port: await freePort(), lan_plaintext: true } }),
    );
    const messages = report.of('ports').map(({ message, do: todo }) => `${message}. ${todo}`);
    expect(messages.some((text) => /lan_plaintext/.test(text))).toBe(true);
    expect(messages.some((text) => /restart the gateway/.test(text))).toBe(true);
  });
});

describe('InfluxDB', () => {
  test.each([
    ['takes a write of nothing', 204, '', 'ok'],
    ['is 2.x and wants points', 400, '{"code":"invalid","message":"writing requires points"}', 'ok'],
    ['is 3 and calls the write empty', 400, '{"error":"incoming write was empty"}', 'ok'],
    ['does not know the token', 401, '{"code":"unauthorized","message":"unauthorized access"}', 'fail'],
    [
      'lets the token only read',
      403,
      '{"code":"forbidden","message":"insufficient permissions for write"}',
      'fail',
    ],
    ['has no such bucket', 404, '{"code":"not found","message":"bucket \\"water\\" not found"}', 'fail'],
    ['is overloaded', 503, '{"code":"unavailable","message":"busy"}', 'fail'],
  ])('that %s', async (_, status, body, expected) => {
    const report = await examine(influxWith(await influxThatSays(status, body)));
    const [server, write] = report.of('influxdb');
    expect(server).toMatchObject({ status: 'ok', message: expect.stringContaining('version v2.7.11') });
    expect(write).toMatchObject({ status: expected });
    if (expected === 'fail') expect(write?.do).toMatch(/token|bucket|log/);
    expect(report.out).not.toContain(secret);
  });

  test.each([
    ['3 that says so in plain text', 400, 'incoming write was empty', 'ok'],
    ['the login page of a hotel', 200, '<html>Welcome! Please log in.</html>', 'fail'],
  ])('%s', async (_, status, body, expected) => {
    const url = await answering((_request, response) => {
      response.writeHead(status, { 'content-type': 'text/html' }).end(body);
    });
    expect((await examine(influxWith(url))).of('influxdb')[1]).toMatchObject({ status: expected });
  });

  test('that echoes the token does not get it into the report', async () => {
    const report = await examine(influxWith(await influxThatSays(401, `{"message":"no ${secret} here"}`)));
    expect(report.of('influxdb')[1]).toMatchObject({ status: 'fail' });
    expect(report.out).not.toContain(secret);
  });

  test('that nobody runs, or that hangs, is told within the time of a check', async () => {
    const refused = await examine(influxWith(`http://127.0.0.1:${await freePort()}`));
    expect(refused.of('influxdb')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('ECONNREFUSED') },
    ]);
    const hangs = await examine(influxWith(await answering(() => undefined)));
    expect(hangs.of('influxdb')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('no answer') },
    ]);
  }, 20_000);

  test.skipIf(!hasCommand('victoria-metrics'))('that is VictoriaMetrics stores nothing of it', async () => {
    const server = await startVictoriaMetrics();
    const report = await examine(influxWith(server.url));
    expect(report.of('influxdb').map(({ status }) => status)).toEqual(['ok', 'ok']);
    expect(
      await (await fetch(`${server.url}/api/v1/series?match[]={__name__!=""}&start=0`)).json(),
    ).toMatchObject({
      data: [],
    });
  });

  test.skipIf(!hasCommand('influxd'))('that is a real 1.x stores nothing of it', async () => {
    const server = await startInfluxDb1('water');
    const report = await examine(influxWith(server.url));
    expect(report.of('influxdb')[1]).toMatchObject({ status: 'ok' });
    const gone = { influx: { url: server.url, bucket: 'nowhere' } };
    expect((await examine(gone)).of('influxdb')[1]).toMatchObject({ status: 'fail' });
  });
});

describe('certificates', () => {
  /** A TLS server whose certificate was made so long ago, and its authority. */
  async function tlsServer(options: { ageDays?: number; names?: string[] }) {
    const folder = tempFolder();
    const names = options.names ?? ['localhost'];
    const identity = await openLocalCa({ folder, clock: systemClock(), log: createLog('silent'), names });
    const ca = {
      key: readFileSync(join(folder, 'ca.key'), 'utf8'),
      certificate: readFileSync(identity.caPath, 'utf8'),
    };
    const leaf = await issueLeaf(ca, names, Date.now() - (options.ageDays ?? 0) * dayMs);
    const server = createHttpsServer(
      { key: leaf.key, cert: leaf.certificate + ca.certificate },
      (request, response) => {
        response.writeHead(request.method === 'POST' ? 204 : 200).end();
      },
    );
    onTestFinished(() => server.closeAllConnections());
    return { url: `https://localhost:${await listening(server)}`, caPath: identity.caPath };
  }

  /** In a process of its own, because what it trusts is settled when it starts. */
  async function processReport(url: string, caPath?: string): Promise<Report> {
    const file = configFile(tempFolder(), influxWith(url));
    return await new Promise((resolve) => {
      const env = {
        PATH: process.env.PATH,
        ...(caPath === undefined ? {} : { NODE_EXTRA_CA_CERTS: caPath }),
      };
      const args = [program, 'doctor', '--json', '--config', file];
      execFile(process.execPath, args, { env }, (error, stdout) => {
        resolve(reportOf(typeof error?.code === 'number' ? error.code : 0, stdout));
      });
    });
  }

  test('of InfluxDB that are good, end soon, are over, have another name or an unknown authority', async () => {
    const good = await tlsServer({});
    const fine = await processReport(good.url, good.caPath);
    expect(fine.of('influxdb tls')).toMatchObject([{ status: 'ok' }]);
    expect(fine.code).toBe(0);
    const unknown = await processReport(good.url);
    expect(unknown.of('influxdb tls')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('SELF_SIGNED_CERT_IN_CHAIN') },
    ]);
    expect(unknown.code).toBe(1);
    const soon = await tlsServer({ ageDays: 390 });
    expect((await processReport(soon.url, soon.caPath)).of('influxdb tls')).toMatchObject([
      { status: 'warn' },
    ]);
    const over = await tlsServer({ ageDays: 500 });
    expect((await processReport(over.url, over.caPath)).of('influxdb tls')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('CERT_HAS_EXPIRED'), do: 'renew it on the server' },
    ]);
    const other = await tlsServer({ names: ['elsewhere'] });
    expect((await processReport(other.url, other.caPath)).of('influxdb tls')).toMatchObject([
      { status: 'fail', message: expect.stringContaining('ALTNAME') },
    ]);
  }, 30_000);

  test('of the gateway itself that are over, from the future, or damaged', async () => {
    const folder = tempFolder();
    await openLocalCa({ folder: join(folder, 'tls'), clock: systemClock(), log: createLog('silent') });
    const config = configOf({ data_dir: folder });
    const at = async (wallMs: number) => (await runChecks([ownCertificateCheck(config, wallMs)], 5_000))[0];
    expect(await at(Date.now())).toMatchObject({ status: 'ok' });
    expect(await at(Date.now() + 380 * dayMs)).toMatchObject({ status: 'warn' });
    expect(await at(Date.now() + 500 * dayMs)).toMatchObject({
      status: 'fail',
      todo: expect.stringContaining('restart'),
    });
    expect(await at(Date.now() - 500 * dayMs)).toMatchObject({ status: 'fail' });
    writeFileSync(join(folder, 'tls', 'server.crt'), 'torn');
    expect(await at(Date.now())).toMatchObject({
      status: 'fail',
      message: expect.stringContaining('damaged'),
    });
  });
});

test('a name that cannot be found is told, and one that can with its address', async () => {
  const config = configOf({ influx: { url: 'https://influx.example' }, voicemonkey: { token: secret } });
  const findings = await runChecks(
    [
      dnsCheck(config, async (host) => {
        if (host === 'influx.example') return { address: '192.0.2.7' };
        throw Object.assign(new Error('not found'), { code: 'ENOTFOUND' });
      }),
    ],
    5_000,
  );
  expect(findings).toMatchObject([
    { status: 'ok', message: 'influx.example is 192.0.2.7' },
    { status: 'fail', message: expect.stringContaining('api-v3.voicemonkey.io cannot be found: ENOTFOUND') },
  ]);
});

test('a broker of the bridge that lets nobody in, or is not there, is told with what to do', async () => {
  const report = (url: string) => examine({ bridge: { url, username: 'gateway', password: secret } });
  const answers: Record<string, object> = {
    taken: { cmd: 'connack', reasonCode: 0, sessionPresent: false },
    refused: { cmd: 'connack', reasonCode: 0x86, sessionPresent: false },
  };
  for (const [name, connack] of Object.entries(answers)) {
    const server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => socket.write(generate(connack as Packet, { protocolVersion: 5 })));
    });
    const { of, code, out } = await report(`mqtt://127.0.0.1:${await listening(server)}`);
    const isGood = name === 'taken';
    expect(code, name).toBe(isGood ? 0 : 1);
    expect(of('bridge'), name).toMatchObject([{ status: isGood ? 'ok' : 'fail' }]);
    expect(of('bridge')[0]?.do ?? '', name).toMatch(isGood ? /^$/ : /bridge\.password/);
    expect(out, name).not.toContain(secret);
  }
  const { of } = await report(`mqtt://127.0.0.1:${await freePort()}`);
  expect(of('bridge')).toMatchObject([
    { status: 'fail', message: expect.stringContaining('ECONNREFUSED'), do: expect.any(String) },
  ]);
  expect((await examine()).of('bridge')).toMatchObject([{ status: 'skipped' }]);
});

describe('the clock', () => {
  const probe = {
    wallMs: Date.now,
    ask: async (): Promise<ClockVerdict> => ({ kind: 'synchronized', source: 'chrony' }),
    sysDirectory: '/sys',
  };
  const check = async (influxUrl: string | undefined, overrides: Partial<typeof probe> = {}) =>
    (
      await runChecks(
        [clockCheck(configOf({ influx: { url: influxUrl } }), { ...probe, ...overrides })],
        5_000,
      )
    )[0];

  test('is compared with that of InfluxDB', async () => {
    let offsetMs = 0;
    const url = await answering((_request, response) => {
      response.writeHead(204, { date: new Date(Date.now() - offsetMs).toUTCString() }).end();
    });
    expect(await check(url)).toMatchObject({ status: 'ok' });
    offsetMs = 30_000;
    expect(await check(url)).toMatchObject({ status: 'warn', message: expect.stringContaining('ahead') });
    offsetMs = -3_600_000;
    expect(await check(url)).toMatchObject({ status: 'fail', message: expect.stringContaining('behind') });
  });

  test('that was never set, or is set by nobody, is told', async () => {
    expect(await check(undefined, { wallMs: () => 1_000_000 })).toMatchObject({ status: 'fail' });
    expect(await check(undefined, { ask: async () => ({ kind: 'waiting' }) })).toMatchObject({
      status: 'warn',
    });
  });
});

describe('Flume', () => {
  const flume = { client_id: 'id', client_secret: secret, username: 'me@example.com', password: secret };
  const login = async (status: number, body: string) => {
    const bodies: string[] = [];
    const url = await answering((request, response) => {
      request.on('data', (chunk: Buffer) => bodies.push(chunk.toString()));
      request.on('end', () => response.writeHead(status, { 'content-type': 'application/json' }).end(body));
    });
    const report = await examine({ flume: { ...flume, base_url: url } });
    expect(report.out).not.toContain(secret);
    return { finding: report.of('flume')[0], asked: bodies };
  };

  test('is asked once for a login', async () => {
    const { finding, asked } = await login(200, '{"success":true,"data":[{"access_token":"x"}]}');
    expect(finding).toMatchObject({ status: 'ok' });
    expect(asked.map((body) => JSON.parse(body) as unknown)).toEqual([{ grant_type: 'password', ...flume }]);
  });

  test.each([
    [400, `{"detailed":["Client credentials are invalid"]}`, 'fail', /client id or secret/],
    [400, `{"detailed":["User credentials are invalid: ${secret}"]}`, 'fail', /user name or password/],
    [403, `{"message":"unverified_user","data":[{"verified":false}]}`, 'fail', /not verified/],
    [429, '{"message":"Too many requests, please try again later."}', 'warn', /too many/],
    [502, '<html>Bad gateway</html>', 'warn', /trouble/],
    [200, '<html>Please log in</html>', 'fail', /not Flume/],
  ])(
    'that answers %i is told with what to do, and never with what was sent',
    async (status, body, is, message) => {
      const { finding } = await login(status, body);
      expect(finding).toMatchObject({ status: is, message: expect.stringMatching(message) });
    },
  );

  test('half configured is a failure that names what is missing', async () => {
    const report = await examine({
      flume: { client_id: 'id', username: 'me' },
      voicemonkey: { token: secret },
    });
    expect(report.of('flume')[0]).toMatchObject({
      status: 'fail',
      message: 'flume.client_secret, flume.password not set',
    });
    expect(report.of('voicemonkey')[0]).toMatchObject({ status: 'fail' });
  });
});

describe('the buzzer', () => {
  test('beeps when asked, and only then', async () => {
    const led = makeLed(tempFolder());
    let beeps = 0;
    const watcher = watch(led, () => {
      if (readFileSync(join(led, 'brightness'), 'utf8').startsWith('255')) beeps += 1;
    });
    onTestFinished(() => watcher.close());
    const file = configFile(tempFolder(), { buzzer: { led } });
    expect((await doctor(file)).of('buzzer')).toMatchObject([{ status: 'ok' }]);
    expect(beeps).toBe(0);
    expect((await doctor(file, '--sound')).of('buzzer')).toMatchObject([{ status: 'ok' }, { status: 'ok' }]);
    expect(beeps).toBeGreaterThan(0);
    expect(readFileSync(join(led, 'brightness'), 'utf8')).toMatch(/^0\n/);
  });

  test('that is not there, or loses its beat with the gateway, is told', async () => {
    const missing = await examine({ buzzer: { led: '/sys/class/leds/no-such-buzzer' } });
    expect(missing.of('buzzer')).toMatchObject([{ status: 'fail', do: expect.stringContaining('overlay') }]);
    const plain = await examine({ buzzer: { led: makeLed(tempFolder(), false) } });
    expect(plain.of('buzzer')).toMatchObject([{ status: 'warn' }]);
  });
});

describe('the machine', () => {
  test('that is hot, slowed down and badly supplied says so', async () => {
    const folder = tempFolder();
    writeTree(folder, {
      'sys/class/thermal/thermal_zone0/temp': '84200\n',
      'sys/devices/platform/soc/soc:firmware/get_throttled': '50005\n',
    });
    const config = configOf({ data_dir: folder });
    const [, hot, volts, slow] = await runChecks([machineCheck(config, '/proc', join(folder, 'sys'))], 5_000);
    expect(hot).toMatchObject({ status: 'warn', message: '84 °C' });
    expect(volts).toMatchObject({ status: 'warn', todo: 'use the official power supply' });
    expect(slow).toMatchObject({ status: 'warn' });
  });

  test('with a supply that only the kernel sees to be low says so', async () => {
    const folder = tempFolder();
    writeTree(folder, {
      'sys/class/hwmon/hwmon1/name': 'rpi_volt\n',
      'sys/class/hwmon/hwmon1/in0_lcrit_alarm': '1\n',
    });
    const config = configOf({ data_dir: folder });
    const findings = await runChecks([machineCheck(config, '/proc', join(folder, 'sys'))], 5_000);
    expect(findings.at(-1)?.message).toMatch(/voltage is too low now/);
  });

  test('with an old Node is told which one it takes', async () => {
    expect(await runChecks([nodeCheck('20.18.3'), nodeCheck('22.0.0')], 5_000)).toMatchObject([
      { status: 'fail', todo: 'install Node.js 20.19 or later' },
      { status: 'ok' },
    ]);
  });

  test('whose card will not last is told to get a better one', async () => {
    const wear = { device: 'mmcblk0', bytesPerDay: 9e9, measuredMs: dayMs, lingerMs: 250 };
    const line = async (lifeYears: number) => {
      const [finding] = await runChecks([wearCheck({ figures: { wear: { ...wear, lifeYears } } })], 5_000);
      return findingLine(finding!);
    };
    expect(await line(1.2)).toBe(
      'warn card wear: 9.0 GB a day on mmcblk0 (of 24 h): the card lasts 1.2 years. ' +
        'Do: use a larger or better card, or send less often',
    );
    expect(await line(8)).toContain('lasts 8.0 years; acknowledgements wait up to 250 ms to spare it');
  });
});

test('a check that hangs is a failure of its own, and the others answer', async () => {
  const findings = await runChecks(
    [
      { name: 'hangs', run: () => new Promise(() => undefined) },
      { name: 'breaks', run: () => Promise.reject(new Error('a slip')) },
      { name: 'answers', run: async () => [ok('fine')] },
    ],
    50,
  );
  expect(findings).toMatchObject([
    { check: 'hangs', status: 'fail', message: expect.stringContaining('no answer') },
    { check: 'breaks', status: 'fail', message: expect.stringContaining('a slip') },
    { check: 'answers', status: 'ok' },
  ]);
});
