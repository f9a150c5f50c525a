// A Pi without a clock: the built gateway on a wall clock that is weeks wrong, by Debian's faketime.

import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync, type MqttClient } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { FakeInflux, type FakePoint } from '../../src/simulator/influx.ts';
import { commandPath, hasCommand } from '../support/debian.ts';
import { addDevice, type GatewayProcess, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';

/** A wall clock for child processes that is set by writing the file: `-21d`, `+0`. */
function fakeWall(folder: string) {
  const file = join(folder, 'faketime');
  const preload = execFileSync(commandPath('faketime') ?? '', ['-f', '+0', 'sh', '-c', 'echo $LD_PRELOAD'])
    .toString()
    .trim();
  return {
    set: (offset: string) => writeFileSync(file, offset),
    env: {
      LD_PRELOAD: preload,
      FAKETIME_TIMESTAMP_FILE: file,
      FAKETIME_NO_CACHE: '1',
      FAKETIME_DONT_FAKE_MONOTONIC: '1',
    },
  };
}

const dayNs = 86_400_000_000_000n;

test.skipIf(!hasCommand('faketime'))(
  'no point has a wrong day after the clock was weeks behind, through kills, and none is lost (needs Debian package faketime)',
  { timeout: 60_000 },
  async () => {
    const folder = tempFolder();
    const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
    onTestFinished(() => influx.close());
    const synchronizedPath = join(folder, 'synchronized');
    const configFile = writeConfig(folder, {
      influx: { url: influx.url, token: 't', flush_interval_ms: 20 },
      time: { trust: 'synchronized', synchronized_path: synchronizedPath },
      host_health: { enabled: false },
    });
    const apiKey = await addDevice(configFile, 'meter');
    const wall = fakeWall(folder);
    wall.set('-21d');

    let sent = 0;
    let node: MqttClient | undefined;
    const sentAtMs = new Map<number, number>();
    const start = async (): Promise<GatewayProcess> => {
      const gateway = await startGateway(configFile, { env: wall.env });
      node = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
        username: 'meter',
        password: apiKey,
        reconnectPeriod: 0,
      });
      node.on('error', () => undefined);
      return gateway;
    };
    const publish = async (count: number) => {
      for (let more = 0; more < count; more += 1) {
        sent += 1;
        sentAtMs.set(sent, Date.now());
        // Every tenth comes from a node that knows the time.
        const payload = sent % 10 === 0 ? { v: sent, timestamp: Date.now() } : { v: sent };
        const topic = 'iotflow/devices/meter/telemetry/load';
        await node?.publishAsync(topic, JSON.stringify(payload), { qos: 1 });
      }
    };
    const health = async (gateway: GatewayProcess) => {
      const response = await fetch(`http://127.0.0.1:${gateway.ports.http}/health`);
      return ((await response.json()) as { reasons: { code: string; message: string }[] }).reasons;
    };
    const arrived = () => {
      const found = new Map<number, FakePoint>();
      for (const point of influx.points()) {
        const id = point.fields.get('v');
        if (typeof id !== 'number') continue;
        expect(found.has(id)).toBe(false);
        found.set(id, point);
      }
      return found;
    };

    let gateway = await start();
    await publish(50);
    await gateway.kill();
    gateway = await start();
    await publish(50);
    expect(await health(gateway)).toContainEqual(
      expect.objectContaining({ code: 'CLOCK_UNKNOWN', message: expect.stringMatching(/ \d+ points wait/) }),
    );
    await gateway.kill();
    gateway = await start();
    expect([...arrived().keys()].every((id) => id % 10 === 0)).toBe(true);

    wall.set('+0');
    writeFileSync(synchronizedPath, '');
    await publish(50);
    await expect.poll(() => arrived().size, { timeout: 20_000 }).toBe(sent);
    expect((await health(gateway)).map(({ code }) => code)).not.toContain('CLOCK_UNKNOWN');
    await publish(20);
    await expect.poll(() => arrived().size, { timeout: 20_000 }).toBe(sent);
    let beforeNs = 0n;
    for (const [id, { timeNs, series }] of [...arrived()].sort(([a], [b]) => a - b)) {
      // The machine is the same all the time: every date is exact, but for how long a message takes.
      expect(series).not.toContain('uncertain');
      expect(Math.abs(Number(timeNs / 1_000_000n) - (sentAtMs.get(id) ?? 0)), `${id}`).toBeLessThan(3000);
      if (id % 10 === 0) continue;
      expect(timeNs > beforeNs, `${id}`).toBe(true);
      beforeNs = timeNs;
    }

    // Somebody sets the clock back by two days, and right again.
    wall.set('-2d');
    await expect.poll(() => gateway.output(), { timeout: 10_000 }).toContain('clock_step');
    await publish(10);
    wall.set('+0');
    const steps = () => [...influx.points()].filter(({ series }) => series.includes('kind=clock_step'));
    await expect.poll(() => steps().length, { timeout: 20_000 }).toBe(2);
    await publish(10);
    await expect.poll(() => arrived().size, { timeout: 20_000 }).toBe(sent);
    expect(steps().map(({ fields }) => Math.round(Number(fields.get('step_ms')) / 86_400_000))).toEqual([
      -2, 2,
    ]);
    const daysAgo = (id: number) =>
      (BigInt(Date.now()) * 1_000_000n - (arrived().get(id)?.timeNs ?? 0n) + dayNs / 2n) / dayNs;
    expect([daysAgo(sent - 15), daysAgo(sent - 5)]).toEqual([2n, 0n]);
    expect(await gateway.stop()).toBe(0);
  },
);
