// Backup and restore as an operator types them, around real gateways.

import { randomBytes } from 'node:crypto';
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, test } from 'vitest';
import { isBackedUp } from '../../src/config/paths.ts';
import type { Gateway } from '../../src/gateway.ts';
import { runCli } from '../../src/tools/cli.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { canMount, smallDisk } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';

const passphrase = 'correct horse battery staple';

interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

async function iotflow(argv: readonly string[], env: Record<string, string> = {}): Promise<Outcome> {
  let out = '';
  let err = '';
  const code = await runCli(argv, {
    env,
    stdout: { write: (text) => (out += text) },
    stderr: { write: (text) => (err += text) },
    version: '1.2.3',
    commands: [],
  });
  return { code, out, err };
}

/** A folder with the configuration of a gateway whose data lie in `data` below it. */
function home(folder = tempFolder()): { folder: string; dataDir: string; configFile: string } {
  const configFile = join(folder, 'config.yaml');
  const dataDir = join(folder, 'data');
  writeFileSync(configFile, `data_dir: ${dataDir}\ninflux:\n  token: very-secret-token\n`, { mode: 0o600 });
  return { folder, dataDir, configFile };
}

async function publish(gateway: Gateway, deviceId: string, from: number, to: number, apiKey?: string) {
  const client = await connectDevice(gateway, deviceId, apiKey === undefined ? {} : { apiKey });
  const topic = `iotflow/devices/${deviceId}/telemetry/load`;
  for (let n = from; n < to; n += 1) await client.publishAsync(topic, JSON.stringify({ n }), { qos: 1 });
  await client.endAsync();
  return client.apiKey;
}

/** Every file below the folder, by path, with its content. */
function contentOf(folder: string): Record<string, string> {
  const content: Record<string, string> = {};
  for (const path of readdirSync(folder, { recursive: true, encoding: 'utf8' })) {
    const full = join(folder, path);
    if (statSync(full).isFile()) content[path] = readFileSync(full).toString('base64');
  }
  return content;
}

function waiting(gateway: Gateway): number {
  const { urgent, fresh, backlog } = gateway.figures().journal.pending;
  return urgent + fresh + backlog;
}

test.each([
  ['a running gateway', true],
  ['a stopped gateway', false],
])('a backup of %s becomes the same gateway on another machine', async (_, isRunning) => {
  const from = home();
  const file = join(from.folder, 'house.backup');
  const gateway = await openGateway(from.folder);
  const apiKey = await publish(gateway, 'kitchen', 0, 50);
  const ca = readFileSync(join(from.dataDir, 'tls', 'ca.crt'), 'utf8');
  if (!isRunning) await gateway.close();
  const backup = await iotflow(['backup', file, '--json', '--config', from.configFile]);
  expect(backup).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(backup.out)).toMatchObject({ devices: 1, points: 50, encrypted: false, verified: true });
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(existsSync(`${file}.part`)).toBe(false);

  const to = home();
  const restore = await iotflow(['restore', file, '--json', '--config', to.configFile]);
  expect(restore).toMatchObject({ code: 0, err: '' });
  expect(JSON.parse(restore.out)).toMatchObject({ restored: true, points: 50, before: null });
  const restored = await openGateway(to.folder);
  expect(waiting(restored)).toBe(50);
  expect(readFileSync(join(to.dataDir, 'tls', 'ca.crt'), 'utf8')).toBe(ca);
  expect(statSync(join(to.dataDir, 'tls', 'ca.key')).mode & 0o777).toBe(0o600);
  await publish(restored, 'kitchen', 50, 51, apiKey);
  expect(waiting(restored)).toBe(51);
  const overTls = await connectAsync(`mqtts://localhost:${restored.ports.mqtts}`, {
    username: 'kitchen',
    password: apiKey,
    ca,
    reconnectPeriod: 0,
  });
  await overTls.endAsync();
});

test('an encrypted backup needs its passphrase, and brings the configuration along', async () => {
  const from = home();
  const file = join(from.folder, 'house.backup');
  const gateway = await openGateway(from.folder);
  await publish(gateway, 'kitchen', 0, 5);
  const secret = join(from.folder, 'passphrase');
  writeFileSync(secret, `${passphrase}\n`, { mode: 0o600 });
  const given = ['--passphrase-file', secret];
  const backup = await iotflow(['backup', file, ...given, '--config', from.configFile]);
  expect(backup).toMatchObject({ code: 0, err: '' });
  expect(backup.out).not.toContain('Not encrypted');
  const bytes = readFileSync(file);
  for (const text of ['kitchen', 'very-secret-token', 'BEGIN']) expect(bytes.includes(text)).toBe(false);

  const to = home();
  const config = ['--config', to.configFile];
  const wrong = await iotflow(['restore', file, ...config], { IOTFLOW_BACKUP_PASSPHRASE: 'another one' });
  expect(wrong).toMatchObject({ code: 1, out: '' });
  expect(wrong.err).toContain('passphrase is wrong');
  const none = await iotflow(['restore', file, ...config]);
  expect(none).toMatchObject({ code: 1, out: '' });
  expect(none.err).toContain('a passphrase is needed');
  expect(existsSync(to.dataDir)).toBe(false);
  const short = await iotflow(['restore', file, ...config], { IOTFLOW_BACKUP_PASSPHRASE: 'short' });
  expect(short.err).toContain('at least 8 characters');
  for (const { err, out } of [wrong, none, short, backup]) expect(err + out).not.toContain(passphrase);

  const right = await iotflow(['restore', file, ...config], { IOTFLOW_BACKUP_PASSPHRASE: passphrase });
  expect(right).toMatchObject({ code: 0, err: '' });
  const copy = join(to.dataDir, 'config.from-backup.yaml');
  expect(readFileSync(copy, 'utf8')).toBe(readFileSync(from.configFile, 'utf8'));
  expect(statSync(copy).mode & 0o777).toBe(0o600);
  expect(waiting(await openGateway(to.folder))).toBe(5);
});

test('a restore keeps the old data, and undo brings them back', async () => {
  const { folder, dataDir, configFile } = home();
  const config = ['--config', configFile];
  const file = join(folder, 'house.backup');
  const gateway = await openGateway(folder);
  const apiKey = await publish(gateway, 'kitchen', 0, 10);
  expect((await iotflow(['backup', file, ...config])).code).toBe(0);
  await publish(gateway, 'kitchen', 10, 30, apiKey);
  const running = await iotflow(['restore', file, ...config]);
  expect(running).toMatchObject({ code: 1, out: '' });
  expect(running.err).toContain('stop it first');
  await gateway.close();

  const restore = await iotflow(['restore', file, ...config]);
  expect(restore).toMatchObject({ code: 0, err: '' });
  expect(restore.out).toContain(join(dataDir, 'restore', 'before-1'));
  const old = await openGateway(folder);
  expect(waiting(old)).toBe(10);
  await old.close();

  expect(await iotflow(['restore', '--undo', ...config])).toMatchObject({ code: 0, err: '' });
  const back = await openGateway(folder);
  expect(waiting(back)).toBe(30);
  await back.close();
  // The newest two of what was replaced stay.
  for (let round = 0; round < 3; round += 1) await iotflow(['restore', file, ...config]);
  expect(readdirSync(join(dataDir, 'restore')).sort()).toEqual(['before-4', 'before-5', 'lock']);
});

test('every file a gateway keeps is in a backup, or known not to be', async () => {
  const { folder, dataDir } = home();
  const gateway = await openGateway(folder);
  await publish(gateway, 'kitchen', 0, 3);
  // What is added to the data directory must be put on one of these lists: who restores wants the same gateway.
  const notBackedUp = ['run', 'restore', 'history'];
  expect(readdirSync(dataDir).filter((name) => !isBackedUp(name) && !notBackedUp.includes(name))).toEqual([]);
});

test('what is no whole backup leaves the old data as they are, byte for byte', async () => {
  const { folder, dataDir, configFile } = home();
  const file = join(folder, 'house.backup');
  const gateway = await openGateway(folder);
  await publish(gateway, 'kitchen', 0, 10);
  await iotflow(['backup', file, '--config', configFile]);
  await gateway.close();
  const whole = readFileSync(file);
  const before = contentOf(dataDir);
  const flipped = Buffer.from(whole);
  flipped.writeUInt8(flipped.readUInt8(whole.length >> 1) ^ 1, whole.length >> 1);
  for (const bad of [
    whole.subarray(0, whole.length - 1),
    whole.subarray(0, 1000),
    flipped,
    randomBytes(5000),
  ]) {
    writeFileSync(file, bad);
    for (const more of [[], ['--check']]) {
      const restore = await iotflow(['restore', file, ...more, '--config', configFile]);
      expect(restore).toMatchObject({ code: 1, out: '' });
      expect(restore.err.trim().split('\n')).toHaveLength(1);
    }
    expect(contentOf(dataDir)).toEqual(before);
  }
  writeFileSync(file, whole);
  expect((await iotflow(['restore', file, '--check', '--config', configFile])).out).toContain('whole');
  expect(contentOf(dataDir)).toEqual(before);
});

test('what cannot be backed up, and where it cannot go, is said in one line', async () => {
  const { folder, configFile } = home();
  const config = ['--config', configFile];
  const empty = await iotflow(['backup', join(folder, 'a'), ...config]);
  expect(empty).toMatchObject({ code: 1 });
  expect(empty.err).toContain('nothing to back up');
  await openGateway(folder);
  for (const target of [folder, join(folder, 'none', 'a')]) {
    const refused = await iotflow(['backup', target, ...config]);
    expect(refused).toMatchObject({ code: 1, out: '' });
    expect(refused.err.trim().split('\n')).toHaveLength(1);
  }
  expect((await iotflow(['restore', join(folder, 'none'), ...config])).err).toContain('ENOENT');
  expect((await iotflow(['restore', ...config])).err).toContain('expected FILE');
});

test.skipIf(!canMount())('a full disk leaves no half backup, and no half restore (needs root)', async () => {
  const from = home();
  const gateway = await openGateway(from.folder);
  const client = await connectDevice(gateway, 'kitchen');
  const topic = 'iotflow/devices/kitchen/telemetry/load';
  await Promise.all(
    Array.from({ length: 200 }, () =>
      client.publishAsync(topic, JSON.stringify({ text: randomBytes(8000).toString('hex') }), { qos: 1 }),
    ),
  );
  const disk = smallDisk(1);
  const refused = await iotflow(['backup', join(disk, 'a'), '--config', from.configFile]);
  expect(refused).toMatchObject({ code: 1, out: '' });
  expect(refused.err).toContain('the disk is full');
  expect(readdirSync(disk)).toEqual([]);

  const file = join(from.folder, 'house.backup');
  expect((await iotflow(['backup', file, '--config', from.configFile])).code).toBe(0);
  const to = home(smallDisk(8));
  const restore = await iotflow(['restore', file, '--config', to.configFile]);
  expect(restore).toMatchObject({ code: 1, out: '' });
  expect(restore.err).toContain('are needed');
  expect(readdirSync(join(to.dataDir, 'restore'))).toEqual(['lock']);
});

test.skipIf(!canMount())(
  'data that are a file system of their own are restored in place (needs root)',
  async () => {
    const from = home();
    const file = join(from.folder, 'house.backup');
    const gateway = await openGateway(from.folder);
    await publish(gateway, 'kitchen', 0, 10);
    await iotflow(['backup', file, '--config', from.configFile]);
    // The data directory is the mount point itself, and what is not the gateway's stays in it.
    const dataDir = smallDisk(200);
    chmodSync(dataDir, 0o700);
    const configFile = join(from.folder, 'other.yaml');
    writeFileSync(configFile, `data_dir: ${dataDir}\n`, { mode: 0o600 });
    writeFileSync(join(dataDir, 'lost-and-found'), 'mine');
    for (let round = 0; round < 2; round += 1) {
      expect(await iotflow(['restore', file, '--config', configFile])).toMatchObject({ code: 0, err: '' });
    }
    expect(readFileSync(join(dataDir, 'lost-and-found'), 'utf8')).toBe('mine');
    expect(readdirSync(dataDir).sort()).toEqual(['journal', 'lost-and-found', 'restore', 'state', 'tls']);
  },
);
