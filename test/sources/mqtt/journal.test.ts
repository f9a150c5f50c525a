// The source over the real journal: what a killed process leaves on the disk is what the next one starts from.

import { cpSync } from 'node:fs';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Journal } from '../../../src/journal/journal.ts';
import { systemClock } from '../../../src/platform/clock.ts';
import { systemDisk } from '../../../src/platform/disk.ts';
import { LevelStore } from '../../../src/platform/level-store.ts';
import { createLog } from '../../../src/platform/log.ts';
import type { SessionLog } from '../../../src/sources/mqtt/session-log.ts';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { tempFolder } from '../../support/temp.ts';
import { until } from '../../support/until.ts';

async function startOver(folder: string): Promise<{ gateway: TestGateway; journal: Journal }> {
  const log = createLog('silent');
  const state = await LevelStore.open(join(folder, 'state'), { log });
  const journal = await Journal.open({
    directory: join(folder, 'journal'),
    store: state.room('hot'),
    disk: systemDisk(),
    clock: systemClock(),
    log,
    options: { segmentBytes: 64 * 1024 },
  });
  onTestFinished(async () => {
    await journal.close();
    await state.close();
  });
  // Registered later, so closed earlier.
  const gateway = await startGateway({
    sessionLog: journal satisfies SessionLog as never,
    sink: (message) =>
      journal.append({ class: 'telemetry', lines: `m v="${message.payload}" 1\n`, points: 1 }),
  });
  return { gateway, journal };
}

test('killed in the middle of traffic, the gateway still has every queued message it acknowledged', async () => {
  const folder = tempFolder();
  const { gateway, journal } = await startOver(folder);
  const commands = 'iotflow/devices/probe-1/commands';
  const device = await Wire.tcp(gateway.port);
  await device.login('probe-1', { clean: false });
  await device.subscribe(`${commands}/#`, 1);
  device.send({ cmd: 'disconnect' });
  await device.ended();
  const service = await Wire.tcp(gateway.port);
  await service.login('service-1');
  const noise = await Wire.tcp(gateway.port);
  await noise.login('probe-2');
  const acknowledged = 300;
  for (let messageId = 1; messageId <= acknowledged; messageId += 1) {
    service.publish(`${commands}/set`, `c${messageId}`, { qos: 1, messageId });
    noise.publish('iotflow/devices/probe-2/telemetry/x', '1', { qos: 1, messageId });
    // More in flight than acknowledged when the end comes.
    if (messageId % 50 === 0) await until(() => service.count('puback') >= messageId - 20);
  }
  await until(() => service.count('puback') === acknowledged && noise.count('puback') === acknowledged);
  const copy = join(tempFolder(), 'copy');
  cpSync(folder, copy, { recursive: true });
  const pending = journal.pending();
  expect(pending.fresh + pending.backlog).toBe(acknowledged);

  const second = await startOver(copy);
  const again = await Wire.tcp(second.gateway.port);
  expect((await again.login('probe-1', { clean: false })).sessionPresent).toBe(true);
  for (let index = 1; index <= acknowledged; index += 1) {
    const got = await again.next('publish');
    expect(got.payload?.toString()).toBe(`c${index}`);
    again.send({ cmd: 'puback', messageId: got.messageId });
  }
  await until(() => second.gateway.source.stats().queuedMessages === 0);
  expect(second.gateway.source.stats().damagedRecords).toBe(0);
});

test('killed, the gateway still has what was shared for a member that is away, and a will that waits', async () => {
  const folder = tempFolder();
  const { gateway } = await startOver(folder);
  const properties = { sessionExpiryInterval: 3600 };
  const shared = await Wire.tcp(gateway.port, 5);
  await shared.login('service-1', { clientId: 'worker', properties });
  await shared.subscribe('$share/workers/iotflow/devices/+/telemetry/#', 1);
  shared.destroy();
  const willTopic = 'iotflow/devices/probe-1/status/online';
  const will = {
    topic: willTopic,
    payload: Buffer.from('offline'),
    qos: 1,
    retain: true,
    properties: { willDelayInterval: 1 },
  } as const;
  const device = await Wire.tcp(gateway.port, 5);
  await device.login('probe-1', { properties, will });
  await until(() => gateway.source.stats().sockets === 1);
  device.publish('iotflow/devices/probe-1/telemetry/x', '1', { qos: 1, messageId: 1 });
  await device.next('puback');
  const copy = join(tempFolder(), 'copy');
  cpSync(folder, copy, { recursive: true });

  const second = await startOver(copy);
  const back = await Wire.tcp(second.gateway.port, 5);
  await back.login('service-1', { clientId: 'worker', clean: false, properties });
  expect(`${(await back.next('publish')).payload}`).toBe('1');
  const reader = await Wire.tcp(second.gateway.port, 5);
  await reader.login('service-2');
  await reader.subscribe(willTopic, 1);
  expect(`${(await reader.next('publish')).payload}`).toBe('offline');
  expect(second.gateway.source.stats().damagedRecords).toBe(0);
});
