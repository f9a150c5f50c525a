import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

test('a gateway that can write neither its ports nor its control socket takes readings all the same', async () => {
  const folder = tempFolder();
  mkdirSync(join(folder, 'data'));
  // In the way of the folder both would be in.
  writeFileSync(join(folder, 'data', 'run'), '');
  const gateway = await openGateway(folder);
  const client = await connectDevice(gateway, 'meter');
  await client.publishAsync('iotflow/devices/meter/telemetry/load', '{"n": 1}', { qos: 1 });
  expect(gateway.figures().journal.points).toBeGreaterThan(0);
  expect(gateway.health().ok).toBe(true);
});
