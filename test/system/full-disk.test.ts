// A card that fills up: readings are refused unacknowledged and kept by their publisher, alarms still fit, and
// when there is room again everything goes on without a restart.

import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, test } from 'vitest';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { freePort } from '../support/free-port.ts';
import { addDevice, startGateway, writeConfig } from '../support/gateway-process.ts';
import { isSounding, makeLed } from '../support/led.ts';
import { startWitness } from '../support/publisher.ts';
import { canMount, smallDisk } from '../support/small-disk.ts';
import { tempFolder } from '../support/temp.ts';

test.skipIf(!canMount())(
  'on a full disk readings wait with their publisher, a leak still sounds and is stored, and nothing is lost in the end (needs root)',
  { timeout: 90_000 },
  async () => {
    const disk = smallDisk(64);
    const folder = tempFolder();
    const led = makeLed(folder);
    const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
    influx.outage(true);
    const port = await freePort();
    const configFile = writeConfig(folder, {
      data_dir: join(disk, 'data'),
      mqtt: { port, ack_timeout_ms: 1000 },
      influx: { url: influx.url, token: 't', flush_interval_ms: 50 },
      buzzer: { led },
      journal: { ring_segments: 4 },
      host_health: { enabled: false },
    });
    const meterKey = await addDevice(configFile, 'meter');
    const probeKey = await addDevice(configFile, 'probe');
    const gateway = await startGateway(configFile);
    const health = async () =>
      (await (await fetch(`http://127.0.0.1:${gateway.ports.http}/health`)).json()) as {
        status: string;
        reasons: { code: string }[];
      };

    const startMs = Date.now() - 3_600_000;
    const witness = startWitness({ port, deviceId: 'meter', apiKey: meterKey, window: 50, startMs });
    await expect.poll(() => witness.acknowledged.size).toBeGreaterThan(500);
    // Whatever else lives on the card fills it to the last byte.
    const ballast = join(disk, 'ballast');
    try {
      for (let at = 0; ; at += 1) writeFileSync(`${ballast}-${at}`, Buffer.alloc(256 * 1024, 1));
    } catch (error) {
      expect((error as NodeJS.ErrnoException).code).toBe('ENOSPC');
    }
    await expect
      .poll(async () => (await health()).reasons.map(({ code }) => code), { timeout: 40_000 })
      .toContain('JOURNAL_FULL');
    const stuckAt = witness.acknowledged.size;

    const probe = await connectAsync(`mqtt://127.0.0.1:${port}`, {
      username: 'probe',
      password: probeKey,
      reconnectPeriod: 0,
    });
    await probe.publishAsync('iotflow/devices/probe/telemetry/leak', '{"wet": true}', { qos: 0 });
    await expect.poll(() => isSounding(led)).toBe(true);
    // Durable, through the reserve: an event and the alarm's own acknowledgement.
    await probe.publishAsync('iotflow/devices/probe/alarms/acknowledge', '{"button": 1}', { qos: 1 });
    expect(isSounding(led)).toBe(false);
    await probe.endAsync();

    for (let at = 0; at < 400; at += 1) rmSync(`${ballast}-${at}`, { force: true });
    influx.outage(false);
    await expect.poll(() => witness.acknowledged.size, { timeout: 30_000 }).toBeGreaterThan(stuckAt + 500);
    await witness.settled(30_000);
    await witness.stop();
    const arrived = () => {
      const numbers = new Set<number>();
      for (const { series, timeNs } of influx.points()) {
        if (series.startsWith('load,')) numbers.add(Number(timeNs / 1_000_000n) - startMs);
      }
      return numbers;
    };
    const missing = () => {
      const found = arrived();
      return [...witness.acknowledged].filter((n) => !found.has(n)).length;
    };
    await expect.poll(missing, { timeout: 30_000, interval: 500 }).toBe(0);
    expect((await health()).reasons.map(({ code }) => code)).not.toContain('JOURNAL_FULL');
    expect(await gateway.stop()).toBe(0);
    await influx.close();
  },
);
