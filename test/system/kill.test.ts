// The first promise, on the whole gateway: kill -9 at random moments under load, again and again, and every
// message whose PUBACK a client saw is in a real time-series database at the end.
// IOTFLOW_KILL_ROUNDS=200 is the long form; its latest figures are in docs/benchmarks.md.

import { expect, test } from 'vitest';
import { hasCommand } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { addDevice, startGateway, writeConfig } from '../support/gateway-process.ts';
import { startWitness } from '../support/publisher.ts';
import { tempFolder } from '../support/temp.ts';
import { startVictoriaMetrics } from '../support/victoria-metrics.ts';

const rounds = Number(process.env.IOTFLOW_KILL_ROUNDS ?? 10);
const publishers = 4;

test.skipIf(!hasCommand('victoria-metrics'))(
  `after ${rounds} kills under load every acknowledged reading is in the database (needs Debian package victoria-metrics)`,
  { timeout: 150_000 + rounds * 6_000 },
  async () => {
    const folder = tempFolder();
    const database = await startVictoriaMetrics();
    const port = await freePort();
    const configFile = writeConfig(folder, {
      mqtt: { port },
      influx: { url: database.url, token: 't', org: 'o', bucket: 'b', flush_interval_ms: 100 },
      host_health: { enabled: false },
    });
    const devices = Array.from({ length: publishers }, (_, index) => `load-${index}`);
    const keys = new Map<string, string>();
    for (const device of devices) keys.set(device, await addDevice(configFile, device));

    let gateway = await startGateway(configFile);
    const startMs = Date.now() - 3_600_000;
    const witnesses = devices.map((deviceId) =>
      startWitness({ port, deviceId, apiKey: keys.get(deviceId) ?? '', window: 20, startMs, pauseMs: 1 }),
    );
    for (let round = 0; round < rounds; round += 1) {
      await new Promise((resolve) => setTimeout(resolve, 200 + Math.random() * 800));
      await gateway.kill();
      gateway = await startGateway(configFile);
    }
    for (const witness of witnesses) await witness.settled(60_000);
    for (const witness of witnesses) await witness.stop();
    const acknowledged = witnesses.reduce((sum, witness) => sum + witness.acknowledged.size, 0);
    expect(acknowledged).toBeGreaterThan(rounds * publishers);

    const readBack = async () => {
      const found = new Map<string, Set<number>>();
      for (const series of await database.exportAll('{__name__="load_n"}')) {
        const device = series.metric.device_id ?? '';
        const numbers = found.get(device) ?? new Set<number>();
        series.timestamps.forEach((timestampMs, index) => {
          expect(series.values[index]).toBe(timestampMs - startMs);
          numbers.add(timestampMs - startMs);
        });
        found.set(device, numbers);
      }
      return found;
    };
    const missing = async () => {
      const found = await readBack();
      return devices.flatMap((device, index) =>
        [...(witnesses[index]?.acknowledged ?? [])]
          .filter((n) => !found.get(device)?.has(n))
          .map((n) => `${device}/${n}`),
      );
    };
    // Acknowledged means durable here, not delivered yet: the forwarder gets time to drain.
    await expect.poll(async () => (await missing()).length, { timeout: 60_000, interval: 500 }).toBe(0);
    expect(await gateway.stop()).toBe(0);
    console.log(`${rounds} kills, ${acknowledged} acknowledged, 0 lost`);
  },
);
