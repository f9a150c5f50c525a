// Server-sent events: real sockets for what a page hears, the streams themselves for what bounds them.

import { once } from 'node:events';
import { type ClientRequest, type IncomingMessage, request } from 'node:http';
import type { Readable } from 'node:stream';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Events, type EventsOptions } from '../../src/api/events.ts';
import type { Health } from '../../src/api/health.ts';
import type { Caller } from '../../src/api/route.ts';
import { ask } from '../support/api.ts';
import { connectDevice, openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

interface Heard {
  readonly name: string;
  readonly id: string;
  readonly data: Record<string, unknown>;
}

function eventsIn(text: string): Heard[] {
  return text.split('\n\n').flatMap((block) => {
    const line = (name: string) => new RegExp(`^${name}: (.*)$`, 'm').exec(block)?.[1];
    const name = line('event');
    if (name === undefined) return [];
    return [{ name, id: line('id') ?? '', data: JSON.parse(line('data') ?? '') as Heard['data'] }];
  });
}

/** A browser's EventSource, as far as these tests go. */
async function hear(port: number | undefined, headers: Record<string, string> = {}) {
  const sent: ClientRequest = request({
    host: '127.0.0.1',
    port,
    path: '/api/v1/events',
    headers,
    agent: false,
  });
  sent.on('error', () => undefined);
  sent.end();
  onTestFinished(() => void sent.destroy());
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let text = '';
  let isEnded = false;
  response.setEncoding('utf8');
  response.on('data', (chunk: string) => {
    text += chunk;
  });
  response.on('error', () => undefined);
  response.on('close', () => {
    isEnded = true;
  });
  return {
    response,
    heard: () => eventsIn(text),
    last: (name: string) => eventsIn(text).findLast((event) => event.name === name)?.data,
    text: () => text,
    isEnded: () => isEnded,
    hangUp: () => sent.destroy(),
  };
}

describe('a page that listens', () => {
  test('hears the alarms and the health at once, then each change: raised, silenced, acknowledged', async () => {
    const gateway = await openGateway(tempFolder());
    const probe = await connectDevice(gateway, 'bath-probe');
    // Another machine, without TLS and without a key: what it may ask, it may hear.
    const page = await hear(gateway.ports.http, { 'x-forwarded-for': '192.168.1.9' });
    expect(page.response.headers['content-type']).toBe('text/event-stream');
    await until(() => page.heard().length === 2);
    expect(page.last('alarms')).toMatchObject({ count: 0, sound: 'off' });
    // In short: details are for this machine, and for who has a key.
    const reasonsTo = async (headers: Record<string, string>) => {
      const listener = await hear(gateway.ports.http, headers);
      await until(() => listener.last('health') !== undefined);
      return JSON.stringify(listener.last('health'));
    };
    expect(JSON.stringify(page.last('health'))).toContain('"No buzzer is configured"');
    expect(await reasonsTo({})).toContain('"No buzzer is configured (buzzer.led)."');
    const withKey = { 'x-forwarded-for': '192.168.1.9', 'x-api-key': probe.apiKey };
    expect(await reasonsTo(withKey)).toContain('(buzzer.led)');

    await probe.publishAsync('iotflow/devices/bath-probe/telemetry/leak', '{"wet": true}', { qos: 1 });
    await until(() => page.last('alarms')?.count === 1);
    const asked = JSON.parse((await ask({ port: gateway.ports.http }, '/api/v1/alarms')).body) as object;
    expect(page.last('alarms')).toEqual(asked);
    await until(() => JSON.stringify(page.last('health')).includes('"ALARM"'));

    await ask({ port: gateway.ports.http }, '/api/v1/alarms/silence', 'POST');
    await until(() => page.last('alarms')?.is_silenced === true);
    await gateway.operations.get('alarms.acknowledge')?.({});
    await until(() => JSON.stringify(page.last('alarms')).includes('"acknowledged":true'));
    expect(new Set(page.heard().map(({ id }) => id)).size).toBeGreaterThan(3);
  });

  test('comes back with the last id and is told again only what has changed since', async () => {
    const gateway = await openGateway(tempFolder());
    const probe = await connectDevice(gateway, 'bath-probe');
    const first = await hear(gateway.ports.http);
    await until(() => first.heard().length === 2);
    const id = first.heard().at(-1)?.id ?? '';
    first.hangUp();
    const unchanged = await hear(gateway.ports.http, { 'last-event-id': id });
    await until(() => unchanged.text().includes('retry:'));
    expect(unchanged.heard()).toEqual([]);
    unchanged.hangUp();
    await probe.publishAsync('iotflow/devices/bath-probe/telemetry/leak', '{"wet": true}', { qos: 1 });
    const changed = await hear(gateway.ports.http, { 'last-event-id': id });
    await until(() => changed.last('alarms')?.count === 1);
    const stranger = await hear(gateway.ports.http, { 'last-event-id': '00000000-2' });
    await until(() => stranger.heard().length === 2);
  });

  test('is let go when its key is revoked, its token, or its session ends; who has none stays', async () => {
    const gateway = await openGateway(tempFolder(), { time: { trust: 'always' } });
    const { port } = { port: gateway.ports.http };
    const call = async (name: string, args: Record<string, unknown>) =>
      (await gateway.operations.get(name)?.(args)) as Record<string, string>;
    const { apiKey = '' } = await connectDevice(gateway, 'tablet', { service: true });
    await call('users.add', { name: 'anna', role: 'viewer', password: 'correct horse battery' });
    const { id, token = '' } = await call('users.token_add', { name: 'anna', label: 'wall' });
    const body = JSON.stringify({ name: 'anna', password: 'correct horse battery' });
    const json = { 'content-type': 'application/json' };
    const login = await ask({ port }, '/api/v1/auth/login', 'POST', json, body);
    const cookie = String([login.headers['set-cookie']].flat()[0]).split(';')[0] ?? '';

    const nobody = await hear(port);
    const byKey = await hear(port, { 'x-api-key': apiKey });
    const byToken = await hear(port, { authorization: `Bearer ${token}` });
    const bySession = await hear(port, { cookie });
    await call('devices.revoke', { device_id: 'tablet' });
    await until(byKey.isEnded);
    expect([byToken, bySession, nobody].map((page) => page.isEnded())).toEqual([false, false, false]);
    await call('users.token_revoke', { name: 'anna', id });
    await until(byToken.isEnded);
    expect(bySession.isEnded()).toBe(false);
    await ask({ port }, '/api/v1/auth/logout', 'POST', { cookie });
    await until(bySession.isEnded);
    expect(nobody.isEnded()).toBe(false);
    expect(gateway.figures().events.listeners).toBe(1);
  });

  test('that has gone, or only asked for the head, is forgotten', async () => {
    const gateway = await openGateway(tempFolder());
    const page = await hear(gateway.ports.http);
    expect((await ask({ port: gateway.ports.http }, '/api/v1/events', 'HEAD')).status).toBe(200);
    page.hangUp();
    await until(() => gateway.figures().events.listeners === 0);
  });
});

describe('listeners', () => {
  const nobody: Caller = { kind: 'anyone' };
  const anna: Caller = { kind: 'user', name: 'anna', role: 'viewer' };

  function house(options: Partial<EventsOptions> = {}) {
    let health: Health = { ok: true, reasons: [] };
    const board = {
      shown: () => ({ alarms: [], count: 0, sound: 'off', is_silenced: false }) as const,
      onChange: () => () => undefined,
    };
    const events = new Events({
      board,
      health: () => health,
      stillHolds: () => true,
      run: 'test',
      lookMs: 5,
      ...options,
    });
    const listen = (caller = nobody, address = '192.168.1.9') => {
      const answer = events.listen({ caller, address, headers: {}, isSecure: true });
      if (answer.status === 200) onTestFinished(() => void (answer.body as Readable).destroy());
      return answer;
    };
    const say = (message: string) => {
      health = { ok: true, reasons: [{ code: 'TEST', message }] };
    };
    return { events, listen, say };
  }

  test('are so many, so many from one address, and so many without a key', () => {
    const { events, listen } = house({ listenersMax: 5, perAddressMax: 2, keylessMax: 3 });
    const statuses = [
      listen(nobody, '192.168.1.1'),
      listen(nobody, '192.168.1.1'),
      listen(anna, '192.168.1.1'),
      listen(nobody, '192.168.1.2'),
      listen(nobody, '192.168.1.3'),
      listen(anna, '192.168.1.3'),
      listen(anna, '127.0.0.1'),
      listen(anna, '192.168.1.4'),
    ].map(({ status }) => status);
    expect(statuses).toEqual([200, 200, 503, 200, 503, 200, 200, 503]);
    expect(listen().headers).toEqual({ 'retry-after': '10' });
    expect(events.stats()).toMatchObject({ listeners: 5, refused: 4 });
  });

  test('who do not read are cut, and the others hear everything', async () => {
    const { events, listen, say } = house({ unsentBytesMax: 10_000 });
    const stuck = listen().body as Readable;
    const reader = listen().body as Readable;
    let text = '';
    reader.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    for (let index = 0; index < 12; index += 1) {
      say(`${index}${'x'.repeat(1_000)}`);
      await until(() => text.includes(`"${index}xxx`));
    }
    expect(stuck.destroyed).toBe(true);
    expect(reader.destroyed).toBe(false);
    expect(events.stats()).toMatchObject({ listeners: 1, cut: 1 });
  });

  test('hear a comment now and then while nothing changes', async () => {
    const { listen } = house({ heartbeatMs: 10 });
    const stream = listen().body as Readable;
    let text = '';
    stream.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    await until(() => text.split('\n\n').filter((block) => block === ':').length >= 3);
    expect(eventsIn(text)).toHaveLength(2);
  });
});
