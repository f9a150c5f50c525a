// The whole gateway inside the test's process, for what cannot be had from outside: a disk that hangs on demand.

import { join } from 'node:path';
import { connectAsync, type MqttClient } from 'mqtt';
import { onTestFinished } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { Gateway, type GatewayParts } from '../../src/gateway.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';

/** A gateway on free loopback ports with its data below `folder`, closed after the test. */
export async function openGateway(
  folder: string,
  settings: Record<string, unknown> = {},
  parts: Partial<GatewayParts> = {},
): Promise<Gateway> {
  const { mqtt, ...rest } = settings as { mqtt?: Record<string, unknown> };
  const loaded = loadConfig({
    text: JSON.stringify({
      version: 1,
      gateway_id: 'test',
      data_dir: join(folder, 'data'),
      mqtt: { port: 0, tls: { port: 0 }, ws: { port: 0 }, ...mqtt },
      http: { port: 0 },
      https: { port: 0 },
      host_health: { enabled: false },
      ...rest,
    }),
    env: {},
  });
  if ('faults' in loaded) throw new Error(JSON.stringify(loaded.faults));
  const gateway = await Gateway.open({
    config: loaded.config,
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    version: '0.0.0',
    ...parts,
  });
  onTestFinished(() => gateway.close());
  return gateway;
}

/** Makes the device (unless its key is given) and connects as it. */
export async function connectDevice(
  gateway: Gateway,
  deviceId: string,
  options: { readonly service?: boolean; readonly apiKey?: string } = {},
): Promise<MqttClient & { readonly apiKey: string }> {
  const add = gateway.operations.get('devices.add');
  if (add === undefined) throw new Error('the gateway has no operation devices.add');
  const apiKey =
    options.apiKey ??
    ((await add({ device_id: deviceId, service: options.service ?? false })) as { api_key: string }).api_key;
  const client = await connectAsync(`mqtt://127.0.0.1:${gateway.ports.mqtt}`, {
    username: deviceId,
    password: apiKey,
    reconnectPeriod: 0,
  });
  client.on('error', () => undefined);
  onTestFinished(() => void client.end(true));
  return Object.assign(client, { apiKey });
}
