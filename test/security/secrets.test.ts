// Secrets one would recognise, in a whole gateway at its most talkative, through all that is done with them and all
// that goes wrong: then everything it wrote, answered and kept is searched for them.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { dirname, join } from 'node:path';
import { Level } from 'level';
import { connectAsync } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { runCli } from '../../src/tools/cli.ts';
import { ask, type Reply } from '../support/api.ts';
import { type GatewayProcess, mainJs, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';

/** What must not be found, and what was searched for it. */
class Canaries {
  readonly #secrets = new Map<string, string>();
  readonly #seen: { readonly where: string; readonly bytes: Buffer }[] = [];

  /** A secret, named for the report. */
  keep(name: string, secret: string): string {
    expect(secret.length, name).toBeGreaterThan(7);
    this.#secrets.set(name, secret);
    return secret;
  }

  saw(where: string, text: string | Buffer): void {
    this.#seen.push({ where, bytes: Buffer.from(text) });
  }

  get searched(): number {
    return this.#seen.length;
  }

  /** `influx token in log`; as they are, and as headers and URLs would carry them. */
  found(): string[] {
    const found: string[] = [];
    for (const [name, secret] of this.#secrets) {
      const forms = [
        secret,
        encodeURIComponent(secret),
        Buffer.from(secret).toString('base64').replace(/=+$/, ''),
        Buffer.from(secret).toString('hex'),
      ];
      for (const { where, bytes } of this.#seen) {
        if (forms.some((form) => bytes.includes(form))) found.push(`${name} in ${where}`);
      }
    }
    return [...new Set(found)];
  }
}

/** An InfluxDB that goes through everything it can do wrong, and tells whoever asks what it was sent. */
async function troubledInflux(
  token: string,
): Promise<{ readonly url: string; readonly asked: () => number }> {
  let asked = 0;
  const server = createServer((request, response) => {
    request.resume();
    request.on('end', () => {
      asked += 1;
      const echo = `no: authorization was Token ${token}`;
      const answers: readonly (() => unknown)[] = [
        () => response.writeHead(401).end(JSON.stringify({ code: 'unauthorized', message: echo })),
        () => response.writeHead(500, { 'x-influx-error': echo }).end(echo),
        () => response.writeHead(302, { location: `http://127.0.0.1:1/?t=${token}` }).end(),
        () => request.socket.destroy(),
        () => response.writeHead(400).end(JSON.stringify({ code: 'invalid', message: echo })),
      ];
      (answers[asked % answers.length] as () => unknown)();
    });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, asked: () => asked };
}

interface Said {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Where something is typed, in a process of its own: that is what reads it. */
async function command(args: readonly string[], typed?: string): Promise<Said> {
  const said = { code: null as number | null, stdout: '', stderr: '' };
  const keep = (stream: 'stdout' | 'stderr') => (text: string | Uint8Array) => {
    said[stream] += Buffer.from(text as string).toString();
  };
  if (typed === undefined) {
    const [stdout, stderr] = [{ write: keep('stdout') }, { write: keep('stderr') }];
    said.code = await runCli(args, { env: {}, stdout, stderr, version: '0.0.0', commands: [] });
    return said;
  }
  const child = spawn(process.execPath, [mainJs, ...args]);
  child.stdout.on('data', keep('stdout'));
  child.stderr.on('data', keep('stderr'));
  child.stdin.end(typed);
  [said.code] = (await once(child, 'close')) as [number | null];
  return said;
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => join(folder, name))
    .filter((path) => statSync(path).isFile());
}

/** Files as they lie there, and what LevelDB has compressed. */
async function searchFolder(folder: string, canaries: Canaries): Promise<void> {
  const files = filesBelow(folder);
  for (const path of files) canaries.saw(path.slice(folder.length), readFileSync(path));
  for (const path of files) {
    if (!path.endsWith('/CURRENT')) continue;
    const encodings = { keyEncoding: 'buffer', valueEncoding: 'buffer' };
    const store = new Level<Buffer, Buffer>(dirname(path), encodings);
    for await (const [key, value] of store.iterator()) {
      canaries.saw(`${path.slice(folder.length)}: ${key.toString('latin1')}`, Buffer.concat([key, value]));
    }
    await store.close();
  }
}

test('no key, password, token, cookie, code or passphrase is in a log, an answer, a metric, the audit log or a file', async () => {
  const canaries = new Canaries();
  const folder = tempFolder();
  const influxToken = canaries.keep('influx token', 'canary-influx-Zq81xT0k');
  const influx = await troubledInflux(influxToken);
  const configFile = writeConfig(folder, {
    log: { level: 'trace' },
    influx: { url: influx.url, token: influxToken, flush_interval_ms: 10 },
    bridge: { password: canaries.keep('bridge password', 'canary-bridge-Vw72mN5p') },
    flume: {
      client_secret: canaries.keep('flume client secret', 'canary-flume-Hd93kQ2s'),
      password: canaries.keep('flume password', 'canary-flume-Jy64cR8t'),
    },
    voicemonkey: { token: canaries.keep('voicemonkey token', 'canary-monkey-Lp05bG7v') },
  });
  const logFile = join(folder, 'gateway.log');
  const log = openSync(logFile, 'w');
  onTestFinished(() => closeSync(log));
  const gateway: GatewayProcess = await startGateway(configFile, { outputFd: log });
  const config = ['--config', configFile];

  /** Runs a command; the secrets it was made to show, once, are struck out of what is searched. */
  const run = async (args: readonly string[], typed?: string, shown = (_: Said): string[] => []) => {
    const said = await command([...args, ...config], typed);
    const own = shown(said);
    const searched = own.reduce((text, secret) => text.replace(secret, ''), said.stdout);
    canaries.saw(`iotflow ${args.join(' ')}`, searched + said.stderr);
    return said;
  };
  const runForSecret = async (name: string, args: readonly string[], member: string) => {
    const said = await run([...args, '--json'], undefined, ({ stdout }) => [
      String((JSON.parse(stdout) as Record<string, unknown>)[member]),
    ]);
    return canaries.keep(name, String((JSON.parse(said.stdout) as Record<string, unknown>)[member]));
  };
  const port = { port: gateway.ports.http };
  /** Asks the API; the secrets an answer is there for are struck out of what is searched. */
  const request = async (
    method: string,
    path: string,
    { headers = {}, body = '', shown = [] as readonly RegExp[] } = {} as {
      headers?: Record<string, string>;
      body?: string | object;
      shown?: readonly RegExp[];
    },
  ): Promise<Reply> => {
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    const json: Record<string, string> = text === '' ? {} : { 'content-type': 'application/json' };
    const reply = await ask(port, path, method, { ...json, ...headers }, text);
    const all = JSON.stringify(reply.headers) + reply.body;
    canaries.saw(
      `${method} ${path.replace(/[=].*/, '=…')} ${reply.status}`,
      shown.reduce<string>((searched, secret) => searched.replace(secret, ''), all),
    );
    return reply;
  };

  // Devices: made, connected, refused, rotated, revoked.
  const meterKey = await runForSecret('device key', ['devices', 'add', 'meter'], 'api_key');
  const firstKey = await runForSecret('key rotated away', ['devices', 'add', 'probe'], 'api_key');
  const probeKey = await runForSecret('rotated key', ['devices', 'rotate', 'probe'], 'api_key');
  const homeKey = await runForSecret('service key', ['devices', 'add', 'home', '--service'], 'api_key');
  const wrongMqtt = canaries.keep('wrong MQTT password', 'canary-wrong-mqtt-Tf48');
  const url = `mqtt://127.0.0.1:${gateway.ports.mqtt}`;
  const meter = await connectAsync(url, { username: 'meter', password: meterKey });
  await meter.publishAsync('iotflow/devices/meter/telemetry/water', '{"litres": 3}', { qos: 1 });
  await meter.publishAsync('iotflow/devices/meter/telemetry/water', '{"litres": "no number"}', { qos: 1 });
  await meter.endAsync();
  for (const [username, password] of [
    ['meter', wrongMqtt],
    ['meter', firstKey],
    [probeKey, 'x'],
    ['', probeKey],
  ] as const) {
    const options = { username, password, reconnectPeriod: 0 };
    await expect(connectAsync(url, options)).rejects.toThrow();
  }
  await run(['devices', 'revoke', 'probe']);
  await run(['devices', 'add', 'Not An Id']);

  // People: claimed, logged in, refused, their tokens and passwords changed.
  const code = await runForSecret('claim code', ['users', 'claim-code'], 'code');
  const annas = canaries.keep('password', 'canary-password-anna-Gx37');
  const annasNext = canaries.keep('new password', 'canary-password-anna-Ub92');
  const bens = canaries.keep('password given to the command line', 'canary-password-ben-Yk55');
  const setCookie = /(iotflow=)[^;"]+/;
  const claimed = await request('POST', '/api/v1/auth/claim', {
    body: { code, name: 'anna', password: annas },
    shown: [setCookie],
  });
  expect(claimed.status).toBe(201);
  const cookieOf = (reply: Reply) => /iotflow=([^;]+)/.exec(String(reply.headers['set-cookie']))?.[1] ?? '';
  canaries.keep('first cookie', cookieOf(claimed));
  await run(['users', 'add', 'ben', '--role', 'viewer'], `${bens}\n`);
  const loggedIn = await request('POST', '/api/v1/auth/login', {
    body: { name: 'anna', password: annas },
    shown: [setCookie],
  });
  const cookie = canaries.keep('cookie', cookieOf(loggedIn));
  const annaIn = { cookie: `iotflow=${cookie}` };
  const made = await request('POST', '/api/v1/auth/tokens', {
    headers: annaIn,
    body: { label: 'grafana', password: annas },
    shown: [/gu_[\w-]+/],
  });
  const token = canaries.keep('API token', (JSON.parse(made.body) as { token: string }).token);
  await runForSecret('API token of the command line', ['users', 'token', 'add', 'ben', 'phone'], 'token');
  const wrong = canaries.keep('wrong password', 'canary-wrong-password-Ow18');
  const asName = canaries.keep('password typed as name', 'canary-as-name-ei29');
  for (let count = 0; count < 6; count += 1) {
    const { status } = await request('POST', '/api/v1/auth/login', {
      body: { name: asName, password: wrong },
    });
    expect([401, 429]).toContain(status);
  }
  const login = '/api/v1/auth/login';
  await request('POST', login, { body: `{"name": "anna", "password": "${annas}"` });
  await request('POST', login, { body: `{"name": "anna", "password": ${annas}}` });
  await request('POST', login, { body: { name: 'anna', password: { text: annas } } });
  await request('POST', login, {
    body: { name: 'anna', password: annas },
    headers: { 'content-type': 'text/plain' },
  });
  await request('POST', login, { body: `name=anna&password=${annas}` });
  await request('GET', `${login}?name=anna&password=${annas}`);
  await request('POST', '/api/v1/auth/claim', { body: { code, name: 'eve', password: wrong } });
  await request('POST', '/api/v1/auth/password', {
    headers: annaIn,
    body: { current_password: wrong, new_password: annasNext },
  });

  // The API, with every credential in every place where it belongs and where it does not.
  for (const key of [meterKey, homeKey, token, firstKey]) {
    await request('GET', '/api/v1/gateway', { headers: { 'x-api-key': key } });
    await request('GET', '/api/v1/gateway', { headers: { authorization: `Bearer ${key}` } });
    await request('GET', '/api/v1/gateway', { headers: { authorization: `Basic ${key}` } });
    await request('GET', `/api/v1/gateway?api_key=${key}`);
    await request('GET', `/api/v1/telemetry/meter?limit=${key}`, { headers: { 'x-api-key': meterKey } });
    await request('POST', '/api/v1/devices/telemetry', {
      headers: { 'x-api-key': key },
      body: { data: { litres: 4 } },
    });
  }
  await request('POST', '/api/v1/devices/telemetry', { headers: { 'x-api-key': meterKey }, body: '{"data"' });
  const openApi = await request('GET', '/api/v1/openapi.json');
  const { paths } = JSON.parse(openApi.body) as { paths: Record<string, Record<string, unknown>> };
  const readable = Object.keys(paths).filter((path) => 'get' in (paths[path] ?? {}));
  expect(readable.length).toBeGreaterThan(10);
  for (const path of readable) {
    if (path.includes('events') || path.includes('stream')) continue;
    const filled = path.replaceAll(/\{[^}]+\}/g, 'meter');
    for (const headers of [annaIn, { 'x-api-key': homeKey }]) await request('GET', filled, { headers });
  }

  await request('DELETE', '/api/v1/telemetry/meter', { headers: annaIn });
  const enrolment = await request('POST', '/api/v1/admin/enrolment/tokens', {
    headers: annaIn,
    body: {},
    shown: [/ge_[\w-]+/],
  });
  const { enrolment_token } = JSON.parse(enrolment.body) as { enrolment_token: string };
  canaries.keep('enrolment token', enrolment_token);
  const enrolled = await request('POST', '/api/v1/devices/register', {
    body: { name: 'Attic', enrolment_token },
    shown: [/gw_[\w-]+/],
  });
  const { device } = JSON.parse(enrolled.body) as { device: { api_key: string } };
  canaries.keep('key of an enrolled device', device.api_key);
  await request('POST', '/api/v1/devices/register', { body: { name: 'Again', enrolment_token } });

  // Operators, also with a backup and its passphrase.
  const passphrase = canaries.keep('passphrase', 'canary-passphrase-Ms63');
  const wrongPassphrase = canaries.keep('wrong passphrase', 'canary-passphrase-Ix71');
  const passphraseFile = join(folder, 'passphrase');
  writeFileSync(passphraseFile, `${passphrase}\n`, { mode: 0o600 });
  const backups = [join(folder, 'encrypted'), join(folder, 'plain')] as const;
  await run(['backup', backups[0], '--passphrase-file', passphraseFile]);
  await run(['backup', backups[1]]);
  for (const file of backups) {
    canaries.saw(`backup ${file}`, readFileSync(file));
    expect(statSync(file).mode & 0o077, file).toBe(0);
  }
  writeFileSync(passphraseFile, `${wrongPassphrase}\n`);
  expect((await run(['restore', backups[0], '--check', '--passphrase-file', passphraseFile])).code).toBe(1);
  for (const words of [
    ['status', '--json'],
    ['audit', '--json'],
    ['doctor', '--json'],
    ['devices', 'list', '--json'],
    ['users', 'list', '--json'],
    ['users', 'token', 'list', 'anna', '--json'],
    ['users', 'token', 'revoke', 'anna', 'nothing'],
    ['dead-letters', 'list', '--json'],
    ['journal', 'stat', '--json'],
  ]) {
    await run(words);
  }
  canaries.saw('check-config', JSON.stringify(await command(['check-config', configFile])));
  await expect.poll(influx.asked, { timeout: 20_000 }).toBeGreaterThan(5);
  await run(['dead-letters', 'list', '--json']);
  await request('GET', '/api/v1/telemetry/status', { headers: annaIn });
  await request('GET', '/health');
  await request('GET', '/metrics');

  canaries.saw('command line', readFileSync(`/proc/${gateway.child.pid}/cmdline`));
  await request('POST', '/api/v1/auth/password', {
    headers: annaIn,
    body: { current_password: annas, new_password: annasNext },
    shown: [setCookie],
  });
  await request('POST', '/api/v1/auth/logout', { headers: annaIn });
  expect(await gateway.stop()).toBe(0);
  await run(['users', 'passwd', 'anna'], `${annas}\n`);
  await run(['audit', '--json']);
  await searchFolder(gateway.dataDir, canaries);
  canaries.saw('log', readFileSync(logFile));
  expect(readFileSync(logFile, 'utf8')).toContain('[secret]');

  expect(canaries.searched).toBeGreaterThan(100);
  expect(canaries.found()).toEqual([]);
  // The search is not blind.
  canaries.saw('a note on the fridge', Buffer.from(`wifi: ${meterKey}`));
  expect(canaries.found()).toEqual(['device key in a note on the fridge']);
}, 120_000);

test('the password of the bridge is told to its broker alone, also when that one refuses it', async () => {
  const canaries = new Canaries();
  const folder = tempFolder();
  const password = canaries.keep('bridge password', 'canary-bridge-Cq40nD7j');
  let told = 0;
  const broker = createTcpServer((socket) => {
    socket.on('error', () => undefined);
    socket.on('data', (bytes) => {
      if (bytes.includes(password)) told += 1;
      // CONNACK: not authorised, MQTT 3.1.1.
      socket.end(Buffer.from([0x20, 2, 0, 5]));
    });
  });
  broker.listen(0, '127.0.0.1');
  await once(broker, 'listening');
  onTestFinished(() => void broker.close());
  const { port } = broker.address() as AddressInfo;
  const configFile = writeConfig(folder, {
    log: { level: 'trace' },
    bridge: { url: `mqtt://127.0.0.1:${port}`, username: 'gateway', password },
    host_health: { interval_ms: 1000 },
  });
  const gateway = await startGateway(configFile);
  await expect.poll(() => told, { timeout: 20_000 }).toBeGreaterThan(0);
  await expect.poll(() => gateway.output(), { timeout: 20_000 }).toContain('uplink-paused');
  for (const path of ['/health', '/metrics']) {
    canaries.saw(path, (await ask({ port: gateway.ports.http }, path)).body);
  }
  canaries.saw('iotflow status', JSON.stringify(await command(['status', '--json', '--config', configFile])));
  expect(await gateway.stop()).toBe(0);
  await searchFolder(gateway.dataDir, canaries);
  canaries.saw('log', gateway.output());
  expect(canaries.found()).toEqual([]);
});

test('nobody but its owner can read what a gateway keeps, wherever its folder comes from', async () => {
  const folder = tempFolder();
  const configFile = writeConfig(folder, {});
  const gateway = await startGateway(configFile);
  await command(['devices', 'add', 'meter', '--config', configFile]);
  await gateway.stop();
  const open = readdirSync(gateway.dataDir, { recursive: true, encoding: 'utf8' }).filter(
    (name) => statSync(join(gateway.dataDir, name)).mode & 0o077,
  );
  expect(open).toEqual([]);
});
