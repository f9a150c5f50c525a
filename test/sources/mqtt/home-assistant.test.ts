import { connectAsync } from 'mqtt';
import { expect, onTestFinished, test } from 'vitest';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { until } from '../../support/until.ts';

async function open(gateway: TestGateway, account: string) {
  const client = await connectAsync(`mqtt://127.0.0.1:${gateway.port}`, {
    username: account,
    password: `key-${account}`,
    reconnectPeriod: 0,
  });
  onTestFinished(() => client.endAsync(true));
  return client;
}

test('Home Assistant finds retained discovery messages, and its birth reaches who announces devices', async () => {
  const gateway = await startGateway();
  const bridge = await open(gateway, 'service-bridge');
  const births: string[] = [];
  bridge.on('message', (_topic, payload) => births.push(payload.toString()));
  await bridge.subscribeAsync('homeassistant/status', { qos: 1 });
  await bridge.publishAsync('homeassistant/sensor/probe-1/moisture/config', '{"name":"Kitchen"}', {
    qos: 1,
    retain: true,
  });
  const homeAssistant = await open(gateway, 'service-ha');
  const found: string[] = [];
  homeAssistant.on('message', (topic, _payload, packet) => {
    if (packet.retain) found.push(topic);
  });
  await homeAssistant.subscribeAsync('homeassistant/#', { qos: 1 });
  await homeAssistant.publishAsync('homeassistant/status', 'online', { qos: 1 });
  await until(() => births.length > 0 && found.length > 0);
  expect(births).toEqual(['online']);
  expect(found).toEqual(['homeassistant/sensor/probe-1/moisture/config']);
  // None of it is telemetry.
  expect(gateway.messages).toEqual([]);
});

test('a device neither reads nor writes Home Assistant’s topics', async () => {
  const gateway = await startGateway();
  const device = await open(gateway, 'probe-1');
  const [grant] = await device.subscribeAsync('homeassistant/#', { qos: 1 }).catch(() => [undefined]);
  expect(grant?.qos ?? 128).toBe(128);
  device.publish('homeassistant/status', 'offline', { qos: 1 });
  await until(() => !device.connected);
  expect(gateway.source.stats().refusedPublishes).toBe(1);
});

test('however much is discovered, devices keep room for their retained status', async () => {
  const gateway = await startGateway({ limits: { retainedHomeAssistant: 3, retainedPerDevice: 2 } });
  const bridge = await open(gateway, 'service-bridge');
  for (let index = 0; index < 5; index += 1) {
    // A level named like a device's must not count as that device's.
    const topic = `homeassistant/devices/probe-1/${index}/config`;
    await bridge.publishAsync(topic, '{}', { qos: 1, retain: true });
  }
  expect(gateway.source.stats()).toMatchObject({ retained: 3, refusedRetained: 2 });
  const device = await open(gateway, 'probe-1');
  await device.publishAsync('iotflow/devices/probe-1/status/online', '1', { qos: 1, retain: true });
  expect(gateway.source.stats()).toMatchObject({ retained: 4, refusedRetained: 2 });
});
