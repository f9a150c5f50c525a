// Getting in as the IoTFlow documents show it, with the clients they show it with, against the built gateway; and what
// is left when the gateway is killed, or its disk is full, in the middle of it: a device and its key, or nothing.

import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { systemClock } from '../../src/platform/clock.ts';
import { LevelStore } from '../../src/platform/level-store.ts';
import { createLog } from '../../src/platform/log.ts';
import { fileWitness } from '../../src/platform/witness.ts';
import { openRegistry } from '../../src/registry/open.ts';
import type { RegistryParts } from '../../src/registry/operations.ts';
import { ask } from '../support/api.ts';
import { makeButtonPipe, press } from '../support/button-pipe.ts';
import { hasCommand } from '../support/debian.ts';
import { openGateway } from '../support/gateway.ts';
import { iotflow, startGateway, writeConfig } from '../support/gateway-process.ts';
import { canMount, fillDisk, smallDisk } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const rounds = Number(process.env.IOTFLOW_ENROLMENT_KILLS ?? 5);

/** What an operator does beside a stopped gateway. */
async function beside<Result>(
  dataDir: string,
  use: (parts: RegistryParts) => Promise<Result>,
): Promise<Result> {
  const log = createLog('silent');
  const path = join(dataDir, 'state');
  const state = await LevelStore.open(path, { log });
  try {
    const witness = fileWitness(join(path, 'registry-revisions'));
    const store = state.room('registry');
    return await use(await openRegistry({ store, clock: systemClock(), randomBytes, witness, log }));
  } finally {
    await state.close();
  }
}

const run = promisify(execFile);

/** The standard output of a line of shell, or of its failure. */
async function shell(line: string): Promise<{ readonly output: string; readonly ok: boolean }> {
  return await run('bash', ['-c', line]).then(
    ({ stdout }) => ({ output: stdout, ok: true }),
    (error: { stdout: string; stderr: string }) => ({ output: error.stdout + error.stderr, ok: false }),
  );
}

test.skipIf(!hasCommand('curl') || !hasCommand('mosquitto_pub'))(
  'curl registers a device with the line of the documents, and its one credential is good for both protocols until it ends (needs Debian packages curl, mosquitto-clients)',
  { timeout: 60_000 },
  async () => {
    const configFile = writeConfig(tempFolder(), { host_health: { enabled: false } });
    const gateway = await startGateway(configFile);
    const { http, mqtt } = gateway.ports;
    const local = (line: string) => line.replaceAll('http://localhost:5000', `http://localhost:${http}`);
    const register = local(`curl -sS -X POST http://localhost:5000/api/v1/devices/register \\
  -H "Content-Type: application/json" \\
  -d '{
    "name": "Smart Temperature Sensor 001",
    "description": "Living room environmental sensor",
    "device_type": "temperature_sensor",
    "location": "Living Room",
    "firmware_version": "1.2.3",
    "hardware_version": "v2.1"
  }'`);
    await iotflow('devices', 'pair', '--minutes', '1', '--config', configFile);
    const answer = JSON.parse((await shell(register)).output) as {
      device: { api_key: string; device_id: string; status: string };
    };
    expect(answer.device.status).toBe('active');
    const { device_id: id, api_key: key } = answer.device;

    const heartbeat = (with_: string) =>
      shell(
        local(`curl -sS -X POST http://localhost:5000/api/v1/devices/heartbeat \\
  -H "X-API-Key: ${with_}"`),
      );
    const publish = (with_: string) =>
      shell(`mosquitto_pub -h localhost -p ${mqtt} -q 1 -u ${id} -P ${with_} \\
  -t "iotflow/devices/${id}/telemetry/temperature" -m '{"temperature": 25.5, "humidity": 60.0}'`);
    const isGood = async (with_: string) => [
      (await heartbeat(with_)).output.includes('Heartbeat received'),
      (await publish(with_)).ok,
    ];
    expect(await isGood(key)).toEqual([true, true]);

    const rotated = await shell(
      local(`curl -sS -X POST http://localhost:5000/api/v1/devices/rotate-key -H "X-API-Key: ${key}" \\
  -H "Content-Type: application/json" -d '{"grace_seconds": 600}'`),
    );
    const next = (JSON.parse(rotated.output) as { api_key: string }).api_key;
    expect(await isGood(key)).toEqual([true, true]);
    expect(await isGood(next)).toEqual([true, true]);
    await iotflow('devices', 'revoke', id, '--config', configFile);
    expect(await isGood(key)).toEqual([false, false]);
    expect(await isGood(next)).toEqual([false, false]);
    expect(await gateway.stop()).toBe(0);
    for (const secret of [key, next]) expect(gateway.output()).not.toContain(secret);
  },
);

test('a token lets in one device, also when the gateway is killed while it does', {
  timeout: 30_000 + rounds * 5_000,
}, async () => {
  const folder = tempFolder();
  const dataDir = join(folder, 'data');
  const configFile = writeConfig(folder, { host_health: { enabled: false } });
  await (await startGateway(configFile)).stop();
  const tokens = await beside(dataDir, async ({ enrolment }) => {
    const made: string[] = [];
    for (let at = 0; at < rounds; at += 1) made.push((await enrolment.addToken(3_600_000)).text);
    return made;
  });
  const told: { readonly deviceId: string; readonly apiKey: string }[] = [];
  for (const [round, token] of tokens.entries()) {
    const gateway = await startGateway(configFile);
    const register = async (name: string): Promise<void> => {
      const body = JSON.stringify({ name, enrolment_token: token });
      const headers = { 'content-type': 'application/json' };
      const reply = await ask(
        { port: gateway.ports.http },
        '/api/v1/devices/register',
        'POST',
        headers,
        body,
      );
      if (reply.status !== 201) return;
      const { device } = JSON.parse(reply.body) as { device: { device_id: string; api_key: string } };
      told.push({ deviceId: device.device_id, apiKey: device.api_key });
    };
    // Two that want the same token, and a kill that comes before, while or after one gets it.
    const both = ['first', 'second'].map((name) => register(`${name} ${round}`).catch(() => undefined));
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 40));
    await gateway.kill();
    await Promise.all(both);
  }
  await beside(dataDir, async ({ registry, enrolment }) => {
    const devices = registry.list();
    expect(devices.length + enrolment.tokens().length).toBe(rounds);
    for (const { deviceId, apiKey } of told) expect(registry.verify(deviceId, apiKey)?.status).toBe('active');
    expect(new Set(devices.map(({ id }) => id)).size).toBe(devices.length);
    // What nobody was told of is there whole, or not at all.
    const used = tokens.filter((token) => !enrolment.tokens().some(({ tokenId }) => token.includes(tokenId)));
    for (const [at, token] of used.entries()) {
      await expect(enrolment.register({ name: `late ${at}` }, token)).rejects.toThrow('enrolment_token');
    }
  });
});

test('a long press of the button lets devices register, and is on record', async () => {
  const folder = tempFolder();
  const device = join(folder, 'event0');
  const write = makeButtonPipe(device);
  const gateway = await openGateway(folder, { button: { device, long_press_ms: 1_000 } });
  write(press);
  await until(() => gateway.figures().enrolment.isPairing);
  const headers = { 'content-type': 'application/json' };
  const api = { port: gateway.ports.http };
  const reply = await ask(api, '/api/v1/devices/register', 'POST', headers, '{"name":"Probe"}');
  expect(reply.status).toBe(201);
  expect(JSON.parse(reply.body)).toMatchObject({ device: { status: 'active' } });
  const audited = JSON.stringify(await gateway.operations.get('audit.list')?.({}));
  expect(audited).toContain('"actor":"button","action":"pairing.open"');
});

test.skipIf(!canMount())(
  'on a full disk a device that registers is there with its key, or told 503 and not there at all (needs root)',
  { timeout: 60_000 },
  async () => {
    const disk = smallDisk(64);
    const gateway = await openGateway(disk, { journal: { ring_segments: 4 } });
    const call = (operation: string, args = {}) => gateway.operations.get(operation)?.(args);
    const list = async () => (await call('devices.list')) as { devices: { device_id: string }[] };
    const { enrolment_token: token } = (await call('devices.tokens.add')) as { enrolment_token: string };
    const headers = { 'content-type': 'application/json' };
    const register = async (body: Record<string, unknown>) => {
      const reply = await ask(
        { port: gateway.ports.http },
        '/api/v1/devices/register',
        'POST',
        headers,
        JSON.stringify(body),
      );
      const parsed = JSON.parse(reply.body) as {
        device?: { api_key: string; device_id: string };
        error?: { code: string };
      };
      return { status: reply.status, retryAfter: reply.headers['retry-after'], ...parsed };
    };
    await call('devices.pair', { for_ms: 3_600_000, devices_max: 100 });
    const makeRoom = fillDisk(disk);
    let refusals = 0;
    for (let at = 0; at < 30; at += 1) {
      const name = `device ${at}`;
      const { status, device, error, retryAfter } = await register({ name });
      const ids = (await list()).devices.map(({ device_id }) => device_id);
      if (status === 201 && device !== undefined) {
        const key = { 'x-api-key': device.api_key };
        const reply = await ask({ port: gateway.ports.http }, '/api/v1/devices/status', 'GET', key);
        expect(reply.status).toBe(200);
        continue;
      }
      refusals += 1;
      expect([status, error?.code, retryAfter]).toEqual([503, 'STORE_FAILED', '10']);
      expect(ids).not.toContain(`device-${at}`);
    }
    const withToken = await register({ name: 'with a token', enrolment_token: token });
    makeRoom();
    const again = await register({ name: 'with a token', enrolment_token: token });
    expect([withToken.status, again.status].sort()).toEqual(
      withToken.status === 201 ? [201, 400] : [201, 503],
    );
    expect(refusals).toBeGreaterThan(0);
  },
);
