// The second promise, on the whole gateway: sound first.

import { connectAsync } from 'mqtt';
import { describe, expect, test } from 'vitest';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { faultyDisk } from '../support/faulty-disk.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { addDevice, iotflow, startGateway, writeConfig } from '../support/gateway-process.ts';
import { isSounding, makeLed } from '../support/led.ts';
import { tempFolder } from '../support/temp.ts';

const wet = '{"wet": true}';

describe('a wet probe', () => {
  test('sounds the buzzer while the disk hangs and there is no internet, and is acknowledged only when stored', async () => {
    const folder = tempFolder();
    const led = makeLed(folder);
    const disk = faultyDisk();
    const gateway = await openGateway(
      folder,
      { buzzer: { led }, influx: { url: 'http://127.0.0.1:9', token: 't' } },
      { disk },
    );
    const probe = await connectDevice(gateway, 'kitchen-probe');
    expect(isSounding(led)).toBe(false);
    const release = disk.holdDatasync();
    let isAcknowledged = false;
    const published = probe
      .publishAsync('iotflow/devices/kitchen-probe/telemetry/leak', wet, { qos: 1 })
      .then(() => {
        isAcknowledged = true;
      });
    await expect.poll(() => isSounding(led)).toBe(true);
    // The sync of this very message has begun and hangs.
    await expect.poll(() => disk.datasyncs).toBeGreaterThan(0);
    expect(isAcknowledged).toBe(false);
    release();
    await published;
    expect(gateway.figures().alarms.latency.count).toBe(1);
  });

  test('is acknowledged by a button on a node, over MQTT, and the point of it reaches InfluxDB', async () => {
    const folder = tempFolder();
    const led = makeLed(folder);
    const influx = await FakeInflux.start({ token: 't', org: 'iotflow', bucket: 'telemetry' });
    const gateway = await openGateway(folder, {
      buzzer: { led },
      influx: { url: influx.url, token: 't', flush_interval_ms: 20 },
    });
    const probe = await connectDevice(gateway, 'kitchen-probe');
    const topic = 'iotflow/devices/kitchen-probe';
    await probe.publishAsync(`${topic}/telemetry/leak`, wet, { qos: 1 });
    expect(isSounding(led)).toBe(true);
    await probe.publishAsync(`${topic}/alarms/acknowledge`, '{"button": 1}', { qos: 1 });
    expect(isSounding(led)).toBe(false);
    expect(gateway.figures().alarms.list).toMatchObject([
      { id: 'wet/kitchen-probe', state: 'acknowledged', active: true },
    ]);
    await expect
      .poll(() => [...influx.points()].filter(({ series }) => series.startsWith('alarm,')).length)
      .toBe(2);
    await gateway.close();
    await influx.close();
  });

  test('is shown to a service account as a retained message, which can acknowledge it', async () => {
    const folder = tempFolder();
    const led = makeLed(folder, false);
    const gateway = await openGateway(folder, { buzzer: { led } });
    const probe = await connectDevice(gateway, 'kitchen-probe');
    await probe.publishAsync('iotflow/devices/kitchen-probe/telemetry/leak', wet, { qos: 1 });
    const home = await connectDevice(gateway, 'home-assistant', { service: true });
    const seen: string[] = [];
    home.on('message', (_topic, payload) => seen.push(payload.toString()));
    await home.subscribeAsync('iotflow/gateway/#', { qos: 1 });
    await expect.poll(() => seen.some((text) => text.includes('wet/kitchen-probe'))).toBe(true);
    await home.publishAsync('iotflow/gateway/commands/acknowledge', '{"id": "wet/kitchen-probe"}', {
      qos: 1,
    });
    expect(isSounding(led)).toBe(false);
    // The command itself is read there as well, ahead of what comes of it or behind.
    const shown = () => seen.findLast((text) => text.includes('"alarms"'));
    await expect.poll(shown).toContain('"acknowledged":true');
  });

  test('sounds again at the next start when the gateway was killed in the middle, until the operator acknowledges', async () => {
    const folder = tempFolder();
    const led = makeLed(folder);
    const configFile = writeConfig(folder, { buzzer: { led }, host_health: { enabled: false } });
    const apiKey = await addDevice(configFile, 'kitchen-probe');
    let gateway = await startGateway(configFile);
    const probe = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
      username: 'kitchen-probe',
      password: apiKey,
      reconnectPeriod: 0,
    });
    await probe.publishAsync('iotflow/devices/kitchen-probe/telemetry/leak', wet, { qos: 1 });
    await expect
      .poll(async () => await iotflow('alarms', 'list', '--json', '--config', configFile))
      .toContain('wet/kitchen-probe');
    await gateway.kill();
    // The kernel keeps the beat; a new boot would have begun silent.
    makeLed(folder);
    gateway = await startGateway(configFile);
    expect(isSounding(led)).toBe(true);
    await iotflow('alarms', 'acknowledge', '--config', configFile);
    expect(isSounding(led)).toBe(false);
    await gateway.kill();
    gateway = await startGateway(configFile);
    expect(isSounding(led)).toBe(false);
    expect(await iotflow('alarms', 'list', '--json', '--config', configFile)).toContain('acknowledged');
    expect(await gateway.stop()).toBe(0);
  });

  test('of a device that is revoked no longer haunts the board', async () => {
    const folder = tempFolder();
    const led = makeLed(folder);
    const gateway = await openGateway(folder, { buzzer: { led } });
    const probe = await connectDevice(gateway, 'kitchen-probe');
    await probe.publishAsync('iotflow/devices/kitchen-probe/telemetry/leak', wet, { qos: 1 });
    await gateway.operations.get('devices.revoke')?.({ device_id: 'kitchen-probe' });
    await gateway.operations.get('alarms.acknowledge')?.({});
    expect(gateway.figures().alarms.list).toEqual([]);
  });
});
