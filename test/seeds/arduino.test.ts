// The Arduino sketch of the document on InfluxDB: what PubSubClient 2.8 puts on the wire for it, byte by byte, and what
// the gateway answers. The sketch connects with a clean session, subscribes and publishes at QoS 0, and sends what
// ArduinoJson makes of its floats.

import { once } from 'node:events';
import { connect } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import type { Gateway } from '../../src/gateway.ts';
import { ask } from '../support/api.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const telemetryTopic = 'iotflow/devices/esp32_001/telemetry/environmental';
const commandTopics = 'iotflow/devices/esp32_001/commands/+';
const payload = '{"temperature":24.10000038,"humidity":60,"battery_level":85,"timestamp":1719930600}';

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 255]), bytes]);
}

function packet(header: number, ...parts: Buffer[]): Buffer {
  const body = Buffer.concat(parts);
  const length = body.length < 128 ? [body.length] : [(body.length & 127) | 128, body.length >> 7];
  return Buffer.concat([Buffer.from([header, ...length]), body]);
}

/** `client.connect("ESP32Client", user, password)`: MQTT 3.1.1, clean session, user and password, 15 seconds. */
const connectPacket = (user: string, password: string) =>
  packet(0x10, text('MQTT'), Buffer.from([4, 0xc2, 0, 15]), text('ESP32Client'), text(user), text(password));
/** `client.subscribe("…")`: the first packet id of PubSubClient is 2. */
const subscribePacket = packet(0x82, Buffer.from([0, 2]), text(commandTopics), Buffer.from([0]));
const publishPacket = packet(0x30, text(telemetryTopic), Buffer.from(payload));
const pingRequest = Buffer.from([0xc0, 0]);

async function board(gateway: Gateway) {
  const socket = connect(gateway.ports.mqtt ?? 0, '127.0.0.1');
  onTestFinished(() => void socket.destroy());
  let received = Buffer.alloc(0);
  socket.on('data', (bytes: Buffer) => {
    received = Buffer.concat([received, bytes]);
  });
  socket.on('error', () => undefined);
  await once(socket, 'connect');
  return {
    socket,
    send: (bytes: Buffer) => socket.write(bytes),
    /** The next bytes, exactly so many. */
    next: async (length: number) => {
      await until(() => received.length >= length || socket.destroyed);
      const some = received.subarray(0, length);
      received = received.subarray(length);
      return [...some];
    },
    all: () => received,
  };
}

async function deviceKey(gateway: Gateway, deviceId: string): Promise<string> {
  const made = await gateway.operations.get('devices.add')?.({ device_id: deviceId });
  return (made as { api_key: string }).api_key;
}

test('the sketch connects, hears commands and is heard, with its account named as its topics are', async () => {
  const gateway = await openGateway(tempFolder());
  const key = await deviceKey(gateway, 'esp32_001');
  const { send, next, all } = await board(gateway);
  send(connectPacket('esp32_001', key));
  expect(await next(4)).toEqual([0x20, 2, 0, 0]);
  send(subscribePacket);
  expect(await next(5)).toEqual([0x90, 3, 0, 2, 0]);
  send(publishPacket);
  send(pingRequest);
  expect(await next(2)).toEqual([0xd0, 0]);
  const latest = async () =>
    ask({ port: gateway.ports.http }, '/api/v1/telemetry/esp32_001/latest', 'GET', { 'x-api-key': key });
  await until(async () => (await latest()).status === 200);
  expect(JSON.parse((await latest()).body).latest_data).toEqual({
    timestamp: '2024-07-02T14:30:00Z',
    fields: { temperature: 24.10000038, humidity: 60, battery_level: 85 },
  });
  await gateway.operations.get('commands.send')?.({
    device_id: 'esp32_001',
    kind: 'led',
    payload: { on: true },
  });
  await until(() => all().includes('"on":true'));
  expect(all()[0]).toBe(0x30);
  expect(all().includes('iotflow/devices/esp32_001/commands/led')).toBe(true);
});

test('as printed, with the account device_001 on the topics of esp32_001, it hears and says nothing', async () => {
  const gateway = await openGateway(tempFolder());
  const owner = await deviceKey(gateway, 'esp32_001');
  const { send, next } = await board(gateway);
  send(connectPacket('device_001', await deviceKey(gateway, 'device_001')));
  expect(await next(4)).toEqual([0x20, 2, 0, 0]);
  send(subscribePacket);
  expect(await next(5)).toEqual([0x90, 3, 0, 2, 0x80]);
  send(publishPacket);
  send(pingRequest);
  // A publication it may not make ends the connection, or is dropped: either way it is over by now.
  await next(2);
  const latest = await ask({ port: gateway.ports.http }, '/api/v1/telemetry/esp32_001/latest', 'GET', {
    'x-api-key': owner,
  });
  expect(latest.status).toBe(404);
});

test('the password of the sketch is nobody’s: every account has its own', async () => {
  const gateway = await openGateway(tempFolder());
  await deviceKey(gateway, 'device_001');
  const { send, next } = await board(gateway);
  send(connectPacket('device_001', 'device_password'));
  const [, , , code] = await next(4);
  expect([4, 5]).toContain(code);
});
