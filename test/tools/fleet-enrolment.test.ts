// A simulated fleet registers with the real gateway, as new devices do.

import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { fleetDevices } from '../../src/simulator/presets.ts';
import { enrolFleet } from '../../src/tools/fleet-enrolment.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const home = fleetDevices('home');

async function start() {
  const folder = await tempFolder();
  const gateway = await openGateway(folder);
  const url = `http://127.0.0.1:${gateway.ports.http}`;
  const keysFile = join(folder, 'keys.json');
  const operate = async (operation: string, args: Record<string, unknown> = {}) =>
    (await gateway.operations.get(operation)?.(args)) as Record<string, unknown>;
  const enrol = async (count: number, tokens?: readonly string[]) => {
    const said: string[] = [];
    await enrolFleet(home.slice(0, count), {
      api: { url },
      keysFile,
      tokens,
      tell: (line) => said.push(line),
    });
    return said;
  };
  const keys = () => JSON.parse(readFileSync(keysFile, 'utf8')) as Record<string, string>;
  const statusWith = async (key: string | undefined) => {
    const answer = await fetch(`${url}/api/v1/devices/status`, { headers: { 'x-api-key': key ?? '' } });
    return answer.status;
  };
  return { operate, enrol, keys, keysFile, statusWith };
}

test('while a window is open everyone is let in, and the keys are kept for the next run', async () => {
  const { operate, enrol, keys, keysFile, statusWith } = await start();
  await operate('devices.pair', {});
  expect(await enrol(9)).toEqual([`9 devices registered, their keys are in ${keysFile}`]);
  expect(Object.keys(keys())).toEqual(home.map(({ deviceId }) => deviceId));
  expect(statSync(keysFile).mode & 0o777).toBe(0o600);
  expect(await statusWith(keys()['sim-home-porch-camera'])).toBe(200);
  const before = keys();
  expect(await enrol(9)).toEqual([]);
  expect(keys()).toEqual(before);
});

test('each token lets in one device, and too few of them register nobody', async () => {
  const { operate, enrol, keys, statusWith } = await start();
  const made = [await operate('devices.tokens.add'), await operate('devices.tokens.add')];
  const tokens = made.map(({ enrolment_token }) => String(enrolment_token));
  await expect(enrol(3, tokens)).rejects.toThrow('--tokens: expected one for each of 3 devices, got 2');
  expect((await operate('devices.list')).devices).toEqual([]);
  await enrol(2, tokens);
  for (const key of Object.values(keys())) expect(await statusWith(key)).toBe(200);
  await expect(enrol(4, tokens)).rejects.toThrow(/cannot register: /);
});

test('without either they wait for approval, and it says so', async () => {
  const { operate, enrol, keys, statusWith } = await start();
  const [, waiting] = await enrol(1);
  expect(waiting).toBe('1 of them wait for approval: iotflow devices approve ID');
  const [[id, key] = []] = Object.entries(keys());
  expect(await statusWith(key)).toBe(401);
  await operate('devices.approve', { device_id: id });
  expect(await statusWith(key)).toBe(200);
});
