// The whole gateway on a machine that boots several times before anybody tells it the date.

import { expect, test } from 'vitest';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { FakeMachine } from '../support/fake-machine.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

test('readings and alarms of boots without a date arrive once it is known, the leak is heard at once', {
  timeout: 30_000,
}, async () => {
  const folder = tempFolder();
  const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
  const machine = new FakeMachine();
  const weekMs = 7 * 86_400_000;
  let boots = 0;
  let apiKey: string | undefined;
  const boot = async () => {
    boots += 1;
    const settings = { influx: { url: influx.url, token: 't', flush_interval_ms: 20 } };
    const gateway = await openGateway(folder, settings, {
      clock: {
        wallMs: () => machine.wallMs,
        monotonicMs: () => performance.now(),
        bootId: `boot-${boots}`,
      },
      bootNs: () => machine.bootNs,
      clockProbe: async () => machine.verdict,
    });
    const node = await connectDevice(gateway, 'sink', apiKey === undefined ? {} : { apiKey });
    apiKey = node.apiKey;
    return { gateway, node };
  };
  const sentAtMs: number[] = [];
  const topic = 'iotflow/devices/sink/telemetry';

  for (const offMs of [0, 60_000]) {
    machine.boot(-3 * weekMs, offMs);
    const { gateway, node } = await boot();
    for (let count = 0; count < 20; count += 1) {
      machine.pass(60_000);
      sentAtMs.push(machine.trueMs);
      await node.publishAsync(`${topic}/load`, JSON.stringify({ v: sentAtMs.length }), { qos: 1 });
    }
    await node.publishAsync(`${topic}/leak`, '{"wet":true}', { qos: 1 });
    const { list } = gateway.figures().alarms;
    expect(list).toMatchObject([{ id: 'wet/sink', state: 'unacknowledged' }]);
    // Nobody knows when that was, and nobody says so.
    expect(list[0]?.raisedMs).toBeUndefined();
    expect(gateway.health().reasons.map(({ code }) => code)).toContain('CLOCK_UNKNOWN');
    await node.endAsync(true);
    await gateway.close();
  }
  expect(influx.count).toBe(0);

  machine.boot(0, 60_000);
  machine.verdict = { kind: 'synchronized', source: 'a time server' };
  const { gateway } = await boot();
  const loads = () => [...influx.points()].filter(({ series }) => series.startsWith('load,'));
  const alarms = () => [...influx.points()].filter(({ series }) => series.startsWith('alarm,'));
  await until(() => loads().length === 40 && alarms().length >= 1);
  let beforeMs = 0;
  for (const { series, timeNs, fields } of loads()) {
    const trueMs = sentAtMs[Number(fields.get('v')) - 1] ?? 0;
    const ms = Number(timeNs / 1_000_000n);
    expect(series).toContain('clock=uncertain');
    expect(ms).toBeGreaterThanOrEqual(trueMs);
    expect(ms).toBeLessThanOrEqual(trueMs + 2 * 60_000);
    expect(ms).toBeGreaterThan(beforeMs);
    beforeMs = ms;
  }
  expect(gateway.health().reasons.map(({ code }) => code)).not.toContain('CLOCK_UNKNOWN');
  const [alarm] = gateway.figures().alarms.list;
  expect(alarm).toMatchObject({ id: 'wet/sink', isRaisedUncertain: true });
  await influx.close();
});
