// The built gateway with a bridge, killed while it forwards: what it acknowledged reaches the broker all the same.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { connectAsync } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { Daemon } from '../support/daemon.ts';
import { commandPath, hasCommand } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { addDevice, startGateway, writeConfig } from '../support/gateway-process.ts';
import { tempFolder } from '../support/temp.ts';

const patient = { timeout: 60_000, interval: 100 };

test.skipIf(!hasCommand('mosquitto'))(
  'kill -9 while it forwards to a broker: every acknowledged reading arrives there (needs mosquitto)',
  { timeout: 120_000 },
  async () => {
    const folder = await tempFolder();
    const port = await freePort();
    const settings = join(folder, 'mosquitto.conf');
    writeFileSync(
      settings,
      `listener ${port} 127.0.0.1\nallow_anonymous true\npersistence false\nuser root\n`,
    );
    const broker = await Daemon.start(commandPath('mosquitto') ?? '', ['-c', settings], async () => {
      await (await connectAsync(`mqtt://127.0.0.1:${port}`, { reconnectPeriod: 0 })).endAsync();
      return true;
    });
    onTestFinished(() => broker.stop());
    const arrived = new Set<number>();
    const consumer = await connectAsync(`mqtt://127.0.0.1:${port}`);
    onTestFinished(() => void consumer.end(true));
    consumer.on('message', (_topic, payload) =>
      arrived.add(Number(/ n=(\d+)/.exec(payload.toString())?.[1])),
    );
    await consumer.subscribeAsync('iotflow/points/+/meter/count', { qos: 1 });

    const config = writeConfig(folder, {
      // Few at once, so that it is in the middle of it when it ends.
      bridge: { url: `mqtt://127.0.0.1:${port}`, in_flight_max: 5 },
      influx: { flush_interval_ms: 20 },
    });
    const apiKey = await addDevice(config, 'meter');
    const acknowledged: number[] = [];
    let made = 0;
    for (let life = 0; life < 3; life += 1) {
      const gateway = await startGateway(config);
      const device = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
        username: 'meter',
        password: apiKey,
        reconnectPeriod: 0,
      });
      device.on('error', () => undefined);
      const before = arrived.size;
      const sending = setInterval(() => {
        for (let count = 0; count < 20; count += 1) {
          made += 1;
          const n = made;
          const reading = JSON.stringify({ n, timestamp: 1_700_000_000_000 + n });
          device.publish('iotflow/devices/meter/telemetry/count', reading, { qos: 1 }, (error) => {
            if (!error) acknowledged.push(n);
          });
        }
      }, 20);
      await expect.poll(() => arrived.size, patient).toBeGreaterThan(before + 200);
      await gateway.kill();
      clearInterval(sending);
      device.end(true);
    }
    const gateway = await startGateway(config);
    const missing = () => acknowledged.filter((n) => !arrived.has(n)).length;
    await expect.poll(missing, patient).toBe(0);
    expect(acknowledged.length).toBeGreaterThan(600);
    expect(await gateway.stop()).toBe(0);
  },
);
