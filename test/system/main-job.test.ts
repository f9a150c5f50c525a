// The main job end to end: readings of a node, through an outage and a kill, into a real time-series database.

import { describe, expect, test } from 'vitest';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { hasCommand } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { addDevice, startGateway, writeConfig } from '../support/gateway-process.ts';
import { startWitness } from '../support/publisher.ts';
import { tempFolder } from '../support/temp.ts';
import { startVictoriaMetrics } from '../support/victoria-metrics.ts';

describe('readings', () => {
  test.skipIf(!hasCommand('victoria-metrics'))(
    'arrive with their values and times, also those of an outage and around a kill (needs Debian package victoria-metrics)',
    { timeout: 60_000 },
    async () => {
      const folder = tempFolder();
      const database = await startVictoriaMetrics();
      const port = await freePort();
      const configFile = writeConfig(folder, {
        mqtt: { port },
        influx: { url: database.url, token: 't', flush_interval_ms: 50 },
        host_health: { enabled: false },
      });
      const apiKey = await addDevice(configFile, 'meter', '--location', 'Basement');
      let gateway = await startGateway(configFile);
      const startMs = Date.now() - 600_000;
      const witness = startWitness({ port, deviceId: 'meter', apiKey, window: 5, startMs, pauseMs: 2 });
      await expect.poll(() => witness.acknowledged.size).toBeGreaterThan(100);
      await database.shutDown();
      const before = witness.acknowledged.size;
      await expect.poll(() => witness.acknowledged.size).toBeGreaterThan(before + 200);
      await gateway.kill();
      gateway = await startGateway(configFile);
      await expect.poll(() => witness.acknowledged.size).toBeGreaterThan(before + 300);
      await database.restart();
      await witness.settled(10_000);
      await witness.stop();
      const readings = async () => {
        const found = new Map<number, number>();
        for (const series of await database.exportAll('{__name__="load_value"}')) {
          expect(series.metric).toMatchObject({
            device_id: 'meter',
            device_name: 'meter',
            location: 'Basement',
          });
          series.timestamps.forEach((timeMs, index) => {
            found.set(timeMs - startMs, series.values[index] ?? Number.NaN);
          });
        }
        return found;
      };
      await expect
        .poll(async () => (await readings()).size, { timeout: 20_000, interval: 300 })
        .toBe(witness.sent());
      for (const [n, value] of await readings()) expect(value).toBeCloseTo(n / 7, 9);
      expect(await gateway.stop()).toBe(0);
    },
  );

  test('that InfluxDB or the decoder refuses are set aside with their reason, and the rest goes on', async () => {
    const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
    const gateway = await openGateway(tempFolder(), {
      influx: { url: influx.url, token: 't', flush_interval_ms: 20 },
    });
    const node = await connectDevice(gateway, 'esp32_001');
    const publish = (payload: string) =>
      node.publishAsync('iotflow/devices/esp32_001/telemetry/environmental', payload, { qos: 1 });
    await publish('{"humidity": 50}');
    await publish('{"humidity": 50.0, "temperature": 21.5}');
    // Each of these is acknowledged: it can never succeed, so the node must not send it for ever.
    await publish('{"humidity": "high", "temperature": 22}');
    await publish('{"temperature": ');
    await publish('not a reading');
    const { ingest } = gateway.figures();
    expect(ingest.deadLetters).toEqual({ FIELD_TYPE_CONFLICT: 1, NOT_JSON: 1, NOT_DECODABLE: 1 });
    await expect.poll(() => influx.count).toBe(3);
    expect(gateway.health()).toMatchObject({ ok: true });
    expect(gateway.health().reasons.map(({ code }) => code)).toContain('DEAD_LETTERS');
    await gateway.close();
    await influx.close();
  });

  test('stay in the journal when no InfluxDB is configured, and are sent when one is', async () => {
    const folder = tempFolder();
    const first = await openGateway(folder);
    const node = await connectDevice(first, 'esp32_001');
    for (let n = 0; n < 50; n += 1) {
      await node.publishAsync(
        'iotflow/devices/esp32_001/telemetry/t',
        `{"n": ${n}, "boot": 7, "seq": ${n}}`,
        {
          qos: 1,
        },
      );
    }
    const { pending } = first.figures().journal;
    expect(pending.fresh + pending.backlog).toBe(50);
    await first.close();
    const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
    const second = await openGateway(folder, {
      influx: { url: influx.url, token: 't', flush_interval_ms: 20 },
    });
    await expect.poll(() => influx.count).toBe(50);
    // Sent again after the restart, as a node does that lost the acknowledgement: stored once.
    const again = await connectDevice(second, 'esp32_001', { apiKey: node.apiKey });
    await again.publishAsync('iotflow/devices/esp32_001/telemetry/t', '{"n": 49, "boot": 7, "seq": 49}', {
      qos: 1,
    });
    expect(second.figures().ingest.duplicates).toBe(1);
    await second.close();
    await influx.close();
  });

  test('with one sequence for each measurement are not taken for copies of each other', async () => {
    const gateway = await openGateway(tempFolder());
    const node = await connectDevice(gateway, 'esp32_001');
    for (const measurement of ['water', 'climate', 'battery']) {
      await node.publishAsync(
        `iotflow/devices/esp32_001/telemetry/${measurement}`,
        '{"v": 1, "boot": 1, "seq": 1}',
        { qos: 1 },
      );
    }
    expect(gateway.figures().ingest).toMatchObject({ points: 3, duplicates: 0 });
  });
});
