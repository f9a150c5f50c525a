// Shared subscriptions [MQTT 5, 4.8.2] on a real broker; the numbered statements are in test/conformance as well.

import { expect, test } from 'vitest';
import { startGateway, type TestGateway } from '../../support/mqtt-gateway.ts';
import { Wire } from '../../support/mqtt-wire.ts';
import { until } from '../../support/until.ts';

const own = 'iotflow/devices/probe-1';
const shared = '$share/workers/iotflow/devices/+/telemetry/#';

interface Options {
  readonly version?: 4 | 5;
  readonly topic?: string;
  readonly qos?: 0 | 1 | 2;
  readonly properties?: Record<string, unknown>;
  readonly clean?: boolean;
}

/** A client of a service account that shares the work. */
async function worker(gateway: TestGateway, name: string, options: Options = {}): Promise<Wire> {
  const { version = 5, topic = shared, qos = 1, properties = {}, clean = true } = options;
  const wire = await Wire.tcp(gateway.port, version);
  await wire.login('service-1', { clientId: name, clean, ...(version === 5 ? { properties } : {}) });
  expect((await wire.subscribe(topic, qos)).granted).toEqual([qos]);
  return wire;
}

async function device(gateway: TestGateway): Promise<(payload: string) => Promise<void>> {
  const wire = await Wire.tcp(gateway.port, 5);
  await wire.login('probe-1');
  let messageId = 0;
  return async (payload) => {
    messageId += 1;
    wire.publish(`${own}/telemetry/x`, payload, { qos: 1, messageId });
    await wire.next('puback');
  };
}

/** Acknowledges and returns what has come so far. */
async function taken(wire: Wire): Promise<string[]> {
  await wire.ping();
  const got: string[] = [];
  while (wire.count('publish') > 0) {
    const { messageId, payload, qos } = await wire.next('publish');
    if (qos === 1) wire.send({ cmd: 'puback', messageId });
    got.push(`${payload}`);
  }
  return got;
}

test.each([4, 5] as const)(
  'members take turns, and who subscribed alone gets everything (level %i)',
  async (version) => {
    const gateway = await startGateway();
    const workers = [await worker(gateway, 'a', { version }), await worker(gateway, 'b', { version })];
    const alone = await worker(gateway, 'alone', { version, topic: 'iotflow/devices/+/telemetry/#' });
    const publish = await device(gateway);
    for (const payload of ['1', '2', '3', '4']) await publish(payload);
    await until(() => alone.count('publish') === 4);
    const got = await Promise.all(workers.map(taken));
    expect(got.map(({ length }) => length)).toEqual([2, 2]);
    expect(got.flat().sort()).toEqual(['1', '2', '3', '4']);
  },
);

test('each group gets every message, and an own subscription of a member its own copy', async () => {
  const gateway = await startGateway();
  const wire = await worker(gateway, 'a');
  const other = await worker(gateway, 'b', { topic: '$share/others/iotflow/devices/#', qos: 0 });
  await wire.subscribe('iotflow/devices/#', 0);
  const publish = await device(gateway);
  await publish('x');
  expect(await taken(wire)).toEqual(['x', 'x']);
  expect(await taken(other)).toEqual(['x']);
});

test('a client that may send no more is passed over', async () => {
  const gateway = await startGateway();
  const busy = await worker(gateway, 'busy', { properties: { receiveMaximum: 1 } });
  const free = await worker(gateway, 'free');
  const publish = await device(gateway);
  for (const payload of ['1', '2', '3', '4', '5']) await publish(payload);
  await busy.ping();
  expect(busy.count('publish')).toBe(1);
  expect(await taken(free)).toHaveLength(4);
});

test('CONNACK does not deny shared subscriptions, and nothing retained comes with one', async () => {
  const gateway = await startGateway();
  const wire = await Wire.tcp(gateway.port, 5);
  const connack = await wire.login('service-1', { keepalive: 0 });
  expect(connack.properties?.sharedSubscriptionAvailable).toBeUndefined();
  expect(connack.properties?.serverKeepAlive).toBe(600);
  await gateway.source.publish('iotflow/gateway/alarms', Buffer.from('all'), { qos: 1, retain: true });
  await wire.subscribe('$share/workers/iotflow/gateway/#', 1);
  await wire.ping();
  expect(wire.count('publish')).toBe(0);
  await wire.subscribe('iotflow/gateway/#', 1);
  expect(`${(await wire.next('publish')).payload}`).toBe('all');
});

test('a share gives nobody what it may not read, and an ill-formed one nothing', async () => {
  const gateway = await startGateway();
  for (const version of [4, 5] as const) {
    const wire = await Wire.tcp(gateway.port, version);
    await wire.login('probe-1', { clientId: `client-${version}` });
    const refused = version === 5 ? 0x87 : 0x80;
    for (const topic of ['$share/g/#', '$share/g/iotflow/devices/probe-2/#', '$share/g/$SYS/#'])
      expect((await wire.subscribe(topic, 1)).granted).toEqual([refused]);
    expect((await wire.subscribe(`$share/g/${own}/commands/#`, 1)).granted).toEqual([1]);
  }
  const wire = await Wire.tcp(gateway.port, 4);
  await wire.login('service-1');
  for (const topic of ['$share', '$share/g', '$share//iotflow/devices/#'])
    expect((await wire.subscribe(topic, 1)).granted).toEqual([0x80]);
});

test('what nobody connected can take waits for a member with a session, durably, also over a restart', async () => {
  const before = await startGateway();
  const away = await worker(before, 'away', { properties: { sessionExpiryInterval: 60 } });
  const here = await worker(before, 'here');
  away.destroy();
  await until(() => before.source.stats().sockets === 1);
  const publish = await device(before);
  await publish('for who is here');
  expect(await taken(here)).toEqual(['for who is here']);
  here.destroy();
  await until(() => before.source.stats().sockets === 1);
  await publish('for who comes back');
  const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
  expect(after.source.stats().queuedMessages).toBe(1);
  const back = await Wire.tcp(after.port, 5);
  await back.login('service-1', {
    clientId: 'away',
    clean: false,
    properties: { sessionExpiryInterval: 60 },
  });
  expect(`${(await back.next('publish')).payload}`).toBe('for who comes back');
});

test.each([0, 60])(
  'QoS 1 that a member had not acknowledged when it left for good goes to another one, sent or not (session expiry %i)',
  async (sessionExpiryInterval) => {
    const gateway = await startGateway();
    const properties = { receiveMaximum: 1, sessionExpiryInterval };
    const leaving = await worker(gateway, 'leaving', { properties });
    const publish = await device(gateway);
    await publish('sent');
    await publish('waiting');
    await leaving.next('publish');
    const staying = await worker(gateway, 'staying');
    leaving.send({ cmd: 'disconnect', reasonCode: 0, properties: { sessionExpiryInterval: 0 } });
    await until(() => staying.count('publish') === 2);
    expect((await taken(staying)).sort()).toEqual(['sent', 'waiting']);
    expect(gateway.source.stats().queuedMessages).toBe(0);
  },
);

test('a command for a device reaches it through a shared subscription as well', async () => {
  const gateway = await startGateway();
  const wire = await Wire.tcp(gateway.port, 5);
  await wire.login('probe-1');
  await wire.subscribe(`$share/parts/${own}/commands/#`, 1);
  const sent = gateway.source.downlink.deliver('probe-1', {
    id: '1',
    kind: 'blink',
    payload: Buffer.from('{}'),
  });
  const { topic, messageId } = await wire.next('publish');
  expect(topic).toBe(`${own}/commands/blink`);
  wire.send({ cmd: 'puback', messageId });
  expect(await sent).toEqual({ kind: 'taken' });
});

test('who unsubscribed, or is revoked, gets no more', async () => {
  const gateway = await startGateway();
  const [first, second] = [await worker(gateway, 'a'), await worker(gateway, 'b')];
  const third = await Wire.tcp(gateway.port, 5);
  await third.login('service-2');
  await third.subscribe(shared, 1);
  first.send({ cmd: 'unsubscribe', messageId: 9, unsubscriptions: [shared, shared] });
  expect((await first.next('unsuback')).granted).toEqual([0, 0x11]);
  gateway.credentials.revoke('service-2');
  await third.ended();
  const publish = await device(gateway);
  for (const payload of ['1', '2', '3']) await publish(payload);
  expect(await taken(second)).toEqual(['1', '2', '3']);
  expect(await taken(first)).toEqual([]);
});
