// Several gateways, one InfluxDB.

import { expect, onTestFinished, test } from 'vitest';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

test('devices of the same name behind two gateways stay apart in one InfluxDB', async () => {
  const influx = await FakeInflux.start({ token: 'shared', org: 'iotflow', bucket: 'telemetry' });
  onTestFinished(() => influx.close());
  for (const [gatewayId, value] of [
    ['raspberrypi-3f9a1c', 1],
    ['raspberrypi-81d02e', 2],
  ] as const) {
    const gateway = await openGateway(await tempFolder(), {
      gateway_id: gatewayId,
      influx: { url: influx.url, token: 'shared', flush_interval_ms: 10 },
    });
    const device = await connectDevice(gateway, 'cellar');
    const reading = JSON.stringify({ value, timestamp: 1_700_000_000_000 });
    await device.publishAsync('iotflow/devices/cellar/telemetry/level', reading, { qos: 1 });
  }
  await expect.poll(() => influx.count, { timeout: 10_000 }).toBe(2);
  const gateways = [...influx.points()].map(({ series }) => /,gateway=([^,]+)/.exec(series)?.[1]);
  expect(gateways.sort()).toEqual(['raspberrypi-3f9a1c', 'raspberrypi-81d02e']);
});
