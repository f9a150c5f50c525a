// kill -9 while dead letters are being replayed, again and again: each is either still a letter or on its way, and at
// the end every reading is in InfluxDB once, at the time it came. IOTFLOW_REPLAY_KILLS=20 is the long form.

import { connectAsync } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import type { Config } from '../../src/config/schema.ts';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { callOperation } from '../../src/tools/operator.ts';
import { addDevice, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const kills = Number(process.env.IOTFLOW_REPLAY_KILLS ?? 4);
const readings = kills * 60;

function configOf(file: string): Config {
  const loaded = loadConfig({ file, env: {} });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  return loaded.config;
}

test(`killed ${kills} times during a replay, no reading is lost and none is there twice`, {
  timeout: 60_000 + kills * 6_000,
}, async () => {
  const influx = await FakeInflux.start({ token: 'very-secret' });
  onTestFinished(() => influx.close());
  const configFile = writeConfig(tempFolder(), {
    influx: { url: influx.url, token: 'very-secret', org: 'home', bucket: 'water', flush_interval_ms: 20 },
    journal: { ring_segments: 4 },
    host_health: { enabled: false },
  });
  const config = configOf(configFile);
  const call = async (operation: string, args = {}) =>
    (await callOperation(config, `${operation}`, args)) as Record<string, unknown>;
  const apiKey = await addDevice(configFile, 'tank');
  let gateway = await startGateway(configFile);
  const device = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
    username: 'tank',
    password: apiKey,
    reconnectPeriod: 0,
  });
  device.on('error', () => undefined);
  const publish = (payload: string) =>
    device.publishAsync('iotflow/devices/tank/telemetry/level', payload, { qos: 1 });
  await publish('{"value":"n/a"}');
  await Promise.all(Array.from({ length: readings }, (_, index) => publish(String(index))));
  const endMs = Date.now();
  device.end(true);
  await call('field-types.forget', { measurement: 'level', field: 'value' });
  await until(() => influx.count === 1);
  influx.setType('level value', undefined);

  for (let round = 0; round < kills; round += 1) {
    const killed = new Promise((resolve) => setTimeout(resolve, Math.random() * 40)).then(() =>
      gateway.kill(),
    );
    // Page after page until the gateway is gone.
    for (let more = true; more; ) {
      const page = await call('dead-letters.replay', { limit: 10 }).catch(() => undefined);
      more = page !== undefined && page.next !== null;
    }
    await killed;
    gateway = await startGateway(configFile);
  }
  for (let more = true; more; ) more = (await call('dead-letters.replay', {})).next !== null;
  await until(() => influx.count >= readings + 1);
  expect(influx.count).toBe(readings + 1);
  expect((await call('dead-letters.list')).dead_letters).toEqual([]);
  const found = new Set([...influx.points()].map(({ fields }) => fields.get('value')));
  expect(found.size).toBe(readings + 1);
  for (const { timeNs } of influx.points()) expect(Number(timeNs / 1_000_000n)).toBeLessThanOrEqual(endMs);
  expect(await gateway.stop()).toBe(0);
});
