// Backup and restore on the built gateway: under load, and killed in the midst.
// IOTFLOW_RESTORE_KILLS=200 is the long form.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync } from 'node:zlib';
import { expect, test } from 'vitest';
import type { Journal } from '../../src/journal/journal.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { freePort } from '../support/free-port.ts';
import { addDevice, iotflow, mainJs, startGateway, writeConfig } from '../support/gateway-process.ts';
import { openJournal } from '../support/journal.ts';
import { startWitness } from '../support/publisher.ts';
import { tempFolder } from '../support/temp.ts';

const kills = Number(process.env.IOTFLOW_RESTORE_KILLS ?? 4);
const startMs = 1_700_000_000_000;
const ours = { segmentBytes: 4 * 1024 * 1024, ringSegments: 16, freeSegmentsMin: 3, retryMs: 1000 };

/** By device, every `n` that waits in the journal of these data. */
async function waitingIn(dataDir: string): Promise<Map<string, Set<number>>> {
  const opened = await openJournal(dataDir, { options: ours });
  const found = new Map<string, Set<number>>();
  for (const lane of ['urgent', 'backlog', 'fresh'] as const) await collect(opened.journal, lane, found);
  await opened.close();
  return found;
}

async function collect(
  journal: Journal,
  lane: 'urgent' | 'backlog' | 'fresh',
  found: Map<string, Set<number>>,
) {
  for (let batch = await journal.take(lane, 5000); batch; batch = await journal.take(lane, 5000)) {
    const lines = (batch.encoding === 'gzip' ? gunzipSync(batch.body) : batch.body).toString();
    for (const [, device = '', n] of lines.matchAll(/^load,[^ ]*device_id=([^, ]+)[^ ]* .*?\bn=(\d+)/gm)) {
      found.set(device, (found.get(device) ?? new Set()).add(Number(n)));
    }
  }
}

test('a backup under load holds every reading acknowledged before it was started', async () => {
  const folder = tempFolder();
  const port = await freePort();
  const configFile = writeConfig(folder, { mqtt: { port }, host_health: { enabled: false } });
  const devices = ['load-0', 'load-1', 'load-2'];
  const keys = new Map<string, string>();
  for (const device of devices) keys.set(device, await addDevice(configFile, device));
  const gateway = await startGateway(configFile);
  const witnesses = devices.map((deviceId) =>
    startWitness({ port, deviceId, apiKey: keys.get(deviceId) ?? '', window: 20, startMs }),
  );
  const file = join(folder, 'house.backup');
  await sleep(1000);
  const acknowledged = witnesses.map((witness) => new Set(witness.acknowledged));
  const answer = await iotflow('backup', file, '--json', '--config', configFile);
  expect(JSON.parse(answer)).toMatchObject({ devices: 3, verified: true });
  const piped = join(folder, 'piped.backup');
  execFileSync(
    'sh',
    ['-c', '"$0" "$1" backup - --config "$2" > "$3"', process.execPath, mainJs, configFile, piped],
    {
      stdio: 'pipe',
    },
  );
  expect(await iotflow('restore', piped, '--check', '--config', configFile)).toContain('whole');
  for (const witness of witnesses) await witness.stop();
  const target = tempFolder();
  await iotflow('restore', file, '--json', '--config', writeConfig(target, {}));
  const found = await waitingIn(join(target, 'data'));
  const missing = devices.flatMap((device, index) =>
    [...(acknowledged[index] ?? [])].filter((n) => !found.get(device)?.has(n)),
  );
  expect(missing).toEqual([]);
  expect(acknowledged.reduce((sum, { size }) => sum + size, 0)).toBeGreaterThan(100);
  expect(statSync(file).mode & 0o777).toBe(0o600);
  const key = readFileSync(join(folder, 'data', 'tls', 'ca.key'), 'utf8').split('\n')[1] ?? '';
  for (const secret of [...keys.values(), key]) expect(gateway.output()).not.toContain(secret);
  expect(await gateway.stop()).toBe(0);
}, 60_000);

test(
  `after each of ${kills} kills of a restore one complete set of data is there`,
  async () => {
    const random = seededRandom(5);
    const folder = tempFolder();
    const port = await freePort();
    const configFile = writeConfig(folder, { mqtt: { port }, host_health: { enabled: false } });
    const dataDir = join(folder, 'data');
    const file = join(folder, 'house.backup');
    const apiKey = await addDevice(configFile, 'kitchen');
    const gateway = await startGateway(configFile);
    const witness = startWitness({ port, deviceId: 'kitchen', apiKey, window: 20, startMs });
    await sleep(300);
    await witness.settled(10_000);
    await iotflow('backup', file, '--config', configFile);
    await witness.stop();
    await gateway.kill();
    const restored = (await waitingInBackup(file)).size;
    await addDevice(configFile, 'bathroom');
    const outcomes = { old: 0, new: 0 };
    for (let round = 0; round < kills; round += 1) {
      const child = spawn(process.execPath, [mainJs, 'restore', file, '--config', configFile]);
      const exited = new Promise<number | null>((resolve) => child.once('exit', resolve));
      const building = join(dataDir, 'restore', 'building');
      while (!existsSync(building) && child.exitCode === null) await sleep(1);
      await sleep(random() * 250);
      child.kill('SIGKILL');
      await exited;
      // Any command settles what was left before it opens anything.
      const { devices } = JSON.parse(await iotflow('devices', 'list', '--json', '--config', configFile)) as {
        devices: readonly { device_id: string }[];
      };
      const isOld = devices.length === 2;
      outcomes[isOld ? 'old' : 'new'] += 1;
      expect(devices.map(({ device_id }) => device_id).sort()).toEqual(
        isOld ? ['bathroom', 'kitchen'] : ['kitchen'],
      );
      expect(
        readdirSync(join(dataDir, 'restore')).filter((name) => /building|proven|moving/.test(name)),
      ).toEqual([]);
      expect((await waitingIn(dataDir)).get('kitchen')?.size ?? 0).toBeGreaterThanOrEqual(restored);
      if (!isOld) await addDevice(configFile, 'bathroom');
    }
    console.log(
      `${kills} kills of a restore: ${outcomes.old} times the old data, ${outcomes.new} times the new`,
    );
  },
  60_000 + kills * 5000,
);

/** Every `n` of the one device in a backup. */
async function waitingInBackup(file: string): Promise<Set<number>> {
  const folder = tempFolder();
  await iotflow('restore', file, '--config', writeConfig(folder, {}));
  return (await waitingIn(join(folder, 'data'))).get('kitchen') ?? new Set();
}
