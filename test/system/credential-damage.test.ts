// A whole gateway whose store of credentials is damaged: it starts, and lets nobody in whom it would not have let in
// before. Whoever is kept out by the damage can see in its health that there is some.
// IOTFLOW_DAMAGED_CREDENTIALS for more cases, IOTFLOW_DAMAGED_SEED for where to begin.

import { cpSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { ask } from '../support/api.ts';
import { damage, filesBelow } from '../support/damage.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const runs = Number(process.env.IOTFLOW_DAMAGED_CREDENTIALS ?? 6);
const firstSeed = Number(process.env.IOTFLOW_DAMAGED_SEED ?? 1);
const password = 'long enough to be one';

type Answers = Readonly<Record<string, unknown>>;

async function operate(gateway: Gateway, name: string, args: Answers): Promise<Record<string, string>> {
  const operation = gateway.operations.get(name);
  if (operation === undefined) throw new Error(`there is no operation ${name}`);
  return (await operation(args)) as Record<string, string>;
}

/** Whether somebody gets in. */
type Try = (gateway: Gateway) => Promise<boolean>;

const overMqtt =
  (username: string, secret: string | undefined): Try =>
  async (gateway) => {
    const options = secret === undefined ? {} : { username, password: secret };
    try {
      const client = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
        ...options,
        reconnectPeriod: 0,
      });
      await client.endAsync();
      return true;
    } catch {
      return false;
    }
  };

const overHttp =
  (path: string, headers: Record<string, string>): Try =>
  async (gateway) =>
    (await ask({ port: gateway.ports.http }, path, 'GET', headers)).status === 200;

async function login(gateway: Gateway, name: string, secret: string) {
  const body = JSON.stringify({ name, password: secret });
  const headers = { 'content-type': 'application/json' };
  const { status, headers: told } = await ask(
    { port: gateway.ports.http },
    '/api/v1/auth/login',
    'POST',
    headers,
    body,
  );
  return { isIn: status === 200, cookie: String(told['set-cookie']).split(';')[0] ?? '' };
}

interface Household {
  readonly folder: string;
  readonly good: Readonly<Record<string, Try>>;
  readonly bad: Readonly<Record<string, Try>>;
}

async function household(): Promise<Household> {
  const folder = tempFolder();
  const first = await openGateway(folder);
  const added = async (id: string) => (await operate(first, 'devices.add', { device_id: id })).api_key ?? '';
  const [probe, meter, gone] = [await added('probe'), await added('meter'), await added('gone')];
  for (let index = 0; index < 20; index += 1) await added(`other-${index}`);
  for (const name of ['anna', 'otto']) await operate(first, 'users.add', { name, role: 'admin', password });
  const token = (await operate(first, 'users.token_add', { name: 'anna', label: 'a' })).token ?? '';
  const ended = await operate(first, 'users.token_add', { name: 'anna', label: 'b' });
  const { cookie } = await login(first, 'anna', password);
  const left = (await login(first, 'otto', password)).cookie;
  await first.close();

  // What ends, ends in a later life: a store that loses its last writes would have it again.
  const second = await openGateway(folder);
  await operate(second, 'devices.revoke', { device_id: 'gone' });
  const rotated = (await operate(second, 'devices.rotate', { device_id: 'meter' })).api_key ?? '';
  await operate(second, 'users.token_revoke', { name: 'anna', id: ended.id });
  await operate(second, 'users.disable', { name: 'otto' });
  await second.close();

  const session = '/api/v1/auth/session';
  return {
    folder,
    good: {
      'a key over MQTT': overMqtt('probe', probe),
      'a key over HTTP': overHttp('/api/v1/alarms', { 'x-api-key': probe }),
      'a rotated key': overMqtt('meter', rotated),
      'a token': overHttp(session, { 'x-api-key': token }),
      'a session': overHttp(session, { cookie }),
      'a password': async (gateway) => (await login(gateway, 'anna', password)).isIn,
    },
    bad: {
      nobody: overMqtt('', undefined),
      'an empty key': overMqtt('probe', ''),
      'a guess': overMqtt('probe', 'gw_0123456789_abcdefghijklmnopqrstuvwxyz'),
      'the key of another': overMqtt('probe', rotated),
      'a device that never was': overMqtt('stranger', probe),
      'a revoked key over MQTT': overMqtt('gone', gone),
      'a revoked key over HTTP': overHttp('/api/v1/gateway', { 'x-api-key': gone }),
      'a key before its rotation': overMqtt('meter', meter),
      'a token over MQTT': overMqtt('anna', token),
      'a revoked token': overHttp(session, { 'x-api-key': ended.token ?? '' }),
      'a session of who is disabled': overHttp(session, { cookie: left }),
      'no session': overHttp(session, { cookie: 'iotflow=' }),
      'the password of who is disabled': async (gateway) => (await login(gateway, 'otto', password)).isIn,
      'a wrong password': async (gateway) => (await login(gateway, 'anna', 'something else')).isIn,
      'an empty password': async (gateway) => (await login(gateway, 'anna', '')).isIn,
      'a claim without the code': async (gateway) => {
        const body = JSON.stringify({ code: '0000-0000-0000-0000', name: 'eve', password });
        const headers = { 'content-type': 'application/json' };
        const path = '/api/v1/auth/claim';
        return (await ask({ port: gateway.ports.http }, path, 'POST', headers, body)).status < 300;
      },
    },
  };
}

test(`on each of ${runs} damaged stores nobody gets in who did not before, and who is kept out is told of the damage`, async () => {
  const { folder: whole, good, bad } = await household();
  const failures: string[] = [];
  for (let seed = firstSeed; seed < firstSeed + runs; seed += 1) {
    const random = seededRandom(seed);
    const folder = tempFolder();
    cpSync(whole, folder, { recursive: true });
    const data = join(folder, 'data');
    const files = filesBelow(data).filter((name) => name.startsWith('state') && !name.endsWith('-revisions'));
    const done = [1, 2, 3].map(() => damage(data, files, random));
    const gateway = await openGateway(folder);
    const failed = (what: string) => failures.push(`seed ${seed}: ${what}: ${JSON.stringify(done)}`);
    for (const [name, isIn] of Object.entries(bad)) if (await isIn(gateway)) failed(`${name} is let in`);
    const isSaid = gateway.health().reasons.some(({ code }) => /DAMAGED/.test(code));
    for (const [name, isIn] of Object.entries(good)) {
      if (!(await isIn(gateway)) && !isSaid) failed(`${name} is kept out, and nothing is said`);
    }
    await gateway.close();
    rmSync(folder, { recursive: true, force: true });
  }
  expect(failures).toEqual([]);
}, 900_000);
