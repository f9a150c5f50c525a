import { expect, test } from 'vitest';
import { startGateway, until } from '../../support/mqtt-gateway.ts';
import { Wire, type WirePacket } from '../../support/mqtt-wire.ts';

const own = 'iotflow/devices/probe-1';

async function login(
  port: number,
  account: string,
  options: Parameters<Wire['login']>[1] = {},
): Promise<{ wire: Wire; connack: WirePacket }> {
  const wire = await Wire.tcp(port, 5);
  const connack = await wire.login(account, options);
  expect(connack.reasonCode).toBe(0);
  return { wire, connack };
}

test('a topic alias stands for its topic on the connection that set it, and is not sent on', async () => {
  const { port, messages } = await startGateway();
  const { wire: reader } = await login(port, 'service-1');
  await reader.subscribe('iotflow/devices/#', 1);
  const { wire, connack } = await login(port, 'probe-1');
  expect(connack.properties?.topicAliasMaximum).toBe(32);
  const properties = { topicAlias: 3 };
  wire.publish(`${own}/telemetry/a`, '1', { qos: 1, messageId: 1, properties });
  wire.publish('', '2', { qos: 1, messageId: 2, properties });
  wire.publish(`${own}/telemetry/b`, '3', { qos: 0, properties });
  wire.publish('', '4', { qos: 2, messageId: 3, properties });
  await wire.next('pubrec');
  expect(messages.map(({ name, payload }) => `${name} ${payload}`)).toEqual(['a 1', 'a 2', 'b 3', 'b 4']);
  for (let index = 0; index < 4; index += 1) {
    const got = await reader.next('publish');
    expect(got.topic).toContain(own);
    expect(got.properties?.topicAlias).toBeUndefined();
  }
  const { wire: other } = await login(port, 'probe-1', { clientId: 'other' });
  other.publish('', '5', { qos: 1, messageId: 1, properties });
  expect((await other.next('disconnect')).reasonCode).toBe(0x94);
  await other.ended();
});

test('a topic alias beyond the announced maximum ends the connection: 0x94', async () => {
  const { port, messages } = await startGateway();
  const { wire } = await login(port, 'probe-1');
  wire.publish(`${own}/telemetry/a`, '1', { qos: 1, messageId: 1, properties: { topicAlias: 33 } });
  expect((await wire.next('disconnect')).reasonCode).toBe(0x94);
  await wire.ended();
  expect(messages).toEqual([]);
});

test('a DISCONNECT may change how long the session is kept, also over a restart', async () => {
  const before = await startGateway();
  const properties = { sessionExpiryInterval: 3600 };
  const { wire } = await login(before.port, 'probe-1', { properties });
  wire.send({ cmd: 'disconnect', reasonCode: 0, properties: { sessionExpiryInterval: 1 } });
  await wire.ended();
  await until(() => before.sessionLog.keys('mqtt/session/').length === 1);
  const after = await startGateway({ sessionLog: before.sessionLog.afterKill() });
  expect(after.source.stats().sessions).toBe(1);
  await until(() => before.source.stats().sessions === 0 && after.source.stats().sessions === 0);
  expect(after.sessionLog.keys('mqtt/session/')).toEqual([]);
});

test('a revoked account hears that an administrator ended its connection: 0x98', async () => {
  const { port, credentials } = await startGateway();
  const { wire } = await login(port, 'probe-1');
  await wire.ping();
  credentials.revoke('probe-1');
  expect((await wire.next('disconnect')).reasonCode).toBe(0x98);
  await wire.ended();
});

test('a client that falls silent hears that its keep-alive ran out: 0x8D', async () => {
  const { port } = await startGateway();
  const { wire } = await login(port, 'probe-1', { keepalive: 1 });
  expect((await wire.next('disconnect')).reasonCode).toBe(0x8d);
  await wire.ended();
});

test('the connection a session is taken from hears so: 0x8E', async () => {
  const { port } = await startGateway();
  const { wire } = await login(port, 'probe-1');
  await login(port, 'probe-1');
  expect((await wire.next('disconnect')).reasonCode).toBe(0x8e);
  await wire.ended();
});

test('a login by AUTH packets is refused: 0x8C', async () => {
  const { port } = await startGateway();
  const wire = await Wire.tcp(port, 5);
  const connack = await wire.login('probe-1', { properties: { authenticationMethod: 'SCRAM-SHA-1' } });
  expect(connack.reasonCode).toBe(0x8c);
  await wire.ended();
});

test('a client without an id is told the one it was given', async () => {
  const { port } = await startGateway();
  const { connack } = await login(port, 'probe-1', { clientId: '' });
  expect(connack.properties?.assignedClientIdentifier).toMatch(/^.{8,}$/);
});
