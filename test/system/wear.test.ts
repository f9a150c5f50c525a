// The whole gateway on a card that is to be spared.

import { expect, test } from 'vitest';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { isSounding, makeLed } from '../support/led.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

test('over its budget readings share commits; a wet probe is heard and recorded at once all the same', {
  timeout: 60_000,
}, async () => {
  const folder = tempFolder();
  const led = makeLed(folder);
  const gateway = await openGateway(folder, {
    buzzer: { led },
    // Nothing keeps this budget, so the governor goes as far as it may.
    wear: { sample_interval_ms: 1_000, budget_bytes_per_day: 1_048_576 },
  });
  const node = await connectDevice(gateway, 'meter');
  const probe = await connectDevice(gateway, 'kitchen-probe');
  let sent = 0;
  const publish = () => {
    sent += 1;
    return node.publishAsync('iotflow/devices/meter/telemetry/water', `{"flow": ${sent}}`, { qos: 1 });
  };
  await until(async () => {
    await publish();
    return gateway.figures().wear.lingerMs > 0;
  });
  const before = gateway.figures().journal;
  await Promise.all(
    Array.from({ length: 10 }, async (_, index) => {
      await new Promise((resolve) => setTimeout(resolve, index * 10));
      await publish();
    }),
  );
  const after = gateway.figures().journal;
  expect(after.appends - before.appends).toBeGreaterThanOrEqual(10);
  expect(after.commits - before.commits).toBeLessThan(10);
  await probe.publishAsync('iotflow/devices/kitchen-probe/telemetry/leak', '{"wet": true}', { qos: 1 });
  expect(isSounding(led)).toBe(true);
  expect(gateway.figures().alarms.latency.count).toBe(1);
});
