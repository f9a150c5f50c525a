// kill -9 at a random moment of a deletion, again and again, with and without internet: what was told to be deleted never
// comes back, what came later is never missing. IOTFLOW_ERASURE_KILL_ROUNDS=50 is the long form.

import { expect, test } from 'vitest';
import { ask } from '../support/api.ts';
import { queryToken, startFluxInflux } from '../support/flux-influx.ts';
import { addDevice, iotflow, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const rounds = Number(process.env.IOTFLOW_ERASURE_KILL_ROUNDS ?? 2);

test(`after ${rounds} kills amid deletions nothing deleted is anywhere, and nothing else is missing`, {
  timeout: 60_000 + rounds * 40_000,
}, async () => {
  const server = await startFluxInflux();
  const folder = tempFolder();
  const configFile = writeConfig(folder, {
    influx: { url: server.url, token: queryToken, flush_interval_ms: 20 },
    host_health: { enabled: false },
  });
  const key = await addDevice(configFile, 'probe');
  let gateway = await startGateway(configFile);
  let sent = 0;
  /** Answered with 201 since the last deletion. */
  let kept: number[] = [];
  const send = async (count: number) => {
    for (let left = count; left > 0; left -= 1) {
      sent += 1;
      const body = JSON.stringify({ data: { number: sent } });
      const headers = { 'x-api-key': key, 'content-type': 'application/json' };
      const { status } = await ask(
        { port: gateway.ports.http },
        '/api/v1/devices/telemetry',
        'POST',
        headers,
        body,
      );
      expect(status).toBe(201);
      kept.push(sent);
    }
  };
  const command = async (...args: string[]) =>
    JSON.parse(await iotflow('history', ...args, '--json', '--config', configFile)) as Record<
      string,
      unknown
    >;
  const remote = () =>
    [...server.influx.points()].map(({ fields }) => Number(fields.get('number'))).sort((a, b) => a - b);
  const waiting = async () =>
    ((await command('erasures')).erasures as { remote: string; local: string }[]).filter(
      ({ remote: there, local }) => there === 'waiting' || local === 'waiting',
    ).length;

  let told = 0;
  for (let round = 0; round < rounds; round += 1) {
    server.influx.outage(false);
    await send(5);
    if (round % 2 === 0) await until(() => remote().length === kept.length);
    else server.influx.outage(true);
    await send(5);
    const asked = command('erase', 'probe', '--yes').then(
      () => true,
      () => false,
    );
    await new Promise((resolve) => setTimeout(resolve, 150 + Math.random() * 500));
    await gateway.kill();
    const wasTold = await asked;
    gateway = await startGateway(configFile);
    // Untold it may have become durable or not.
    const deletions = (await command('erasures')).count as number;
    if (wasTold) {
      expect(deletions).toBe(told + 1);
    }
    if (deletions > told) kept = [];
    told = deletions;
    await send(3);
    server.influx.outage(false);
    await until(async () => (await waiting()) === 0);
    await until(() => remote().length >= kept.length && remote().at(-1) === sent);
    expect(remote()).toEqual(kept);
    const headers = { 'x-api-key': key };
    const { body } = await ask({ port: gateway.ports.http }, '/api/v1/telemetry/probe', 'GET', headers);
    const here = (JSON.parse(body) as { data: { fields: { number: number } }[] }).data.map(
      ({ fields }) => fields.number,
    );
    // After a kill local history may have lost what was not flushed; never may it have more.
    expect(here.filter((number) => !kept.includes(number))).toEqual([]);
  }
  expect(await gateway.stop()).toBe(0);
});
