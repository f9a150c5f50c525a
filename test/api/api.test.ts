import { connect } from 'node:net';
import { hostname } from 'node:os';
import { describe, expect, test } from 'vitest';
import type { Health } from '../../src/api/health.ts';
import { ask, askRaw, openApi } from '../support/api.ts';

const fine: Health = { ok: true, reasons: [] };

describe('/health', () => {
  test('says ok, degraded with what is worth knowing, or failing with 503', async () => {
    let health = fine;
    const api = await openApi({ health: () => health });
    expect(await ask(api, '/health')).toMatchObject({ status: 200, body: '{"status":"ok","reasons":[]}' });
    const reasons = [{ code: 'UPLINK_DOWN', message: 'InfluxDB cannot be reached; 12 points wait.' }];
    health = { ok: true, reasons };
    const degraded = await ask(api, '/health');
    expect([degraded.status, JSON.parse(degraded.body)]).toEqual([200, { status: 'degraded', reasons }]);
    health = { ok: false, reasons };
    const failing = await ask(api, '/health');
    expect([failing.status, JSON.parse(failing.body)]).toEqual([503, { status: 'failing', reasons }]);
    expect(failing.headers['content-type']).toMatch(/^application\/json/);
  });
});

test('/health tells strangers in the network what is wrong, and not what others said of it', async () => {
  const message = 'InfluxDB cannot be reached: ECONNREFUSED 203.0.113.9:8086. Nothing is lost, points wait.';
  const reasons = [
    { code: 'UPLINK_DOWN', message },
    { code: 'BUZZER_NOT_CONFIGURED', message: 'No buzzer is configured (buzzer.led).' },
  ];
  const api = await openApi({ health: () => ({ ok: true, reasons }) });
  const told = async (headers: Record<string, string>) =>
    (JSON.parse((await ask(api, '/health', 'GET', headers)).body) as Health).reasons;
  expect(await told({})).toEqual(reasons);
  expect(await told({ 'x-forwarded-for': '192.168.1.9' })).toEqual([
    { code: 'UPLINK_DOWN', message: 'InfluxDB cannot be reached' },
    { code: 'BUZZER_NOT_CONFIGURED', message: 'No buzzer is configured' },
  ]);
});

describe('/metrics', () => {
  test('is a page Prometheus reads', async () => {
    const reply = await ask(await openApi(), '/metrics');
    expect(reply.status).toBe(200);
    expect(reply.headers['content-type']).toBe('text/plain; version=0.0.4; charset=utf-8');
    expect(reply.body).toContain('\niotflow_up 1\n');
  });

  test('that cannot be made is answered with 500, and the gateway goes on', async () => {
    const api = await openApi({
      metrics: () => {
        throw new Error('geheim');
      },
    });
    const reply = await ask(api, '/metrics');
    expect(reply.status).toBe(500);
    expect(JSON.parse(reply.body)).toMatchObject({ error: { code: 'INTERNAL' } });
    expect(reply.body).not.toContain('geheim');
    expect((await ask(api, '/health')).status).toBe(200);
    expect(api.stats().failed).toBe(1);
  });
});

describe('every other request', () => {
  test('is answered with JSON that says what is wrong', async () => {
    const api = await openApi();
    const missing = await ask(api, '/nothing?token=abc');
    expect([missing.status, JSON.parse(missing.body)]).toEqual([
      404,
      { error: { code: 'NOT_FOUND', message: 'there is nothing at /nothing' } },
    ]);
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS']) {
      const reply = await ask(
        api,
        '/health',
        method,
        { 'content-type': 'text/xml', 'content-length': '4' },
        '<a/>',
      );
      expect([method, reply.status, reply.headers.allow]).toEqual([method, 405, 'GET, HEAD']);
      expect(JSON.parse(reply.body)).toMatchObject({ error: { code: 'METHOD_NOT_ALLOWED' } });
    }
    const odd = await ask(api, '/%zz');
    expect([odd.status, JSON.parse(odd.body)]).toMatchObject([400, { error: { code: 'PATH_INVALID' } }]);
    expect((await ask(api, '/health', 'HEAD')).status).toBe(200);
    expect(api.stats()).toMatchObject({ failed: 0, refused: 7 });
  });

  test('with a Host header that is not ours is refused, so that no web page reads through a rebound name', async () => {
    const api = await openApi({ isHostName: (name) => name === 'gateway.home' });
    const own = hostname().toLowerCase();
    const good = [
      '127.0.0.1',
      'localhost:8080',
      '[::1]:8080',
      '192.168.1.7',
      own,
      `${own}.local`,
      'Gateway.Home',
    ];
    for (const host of good)
      expect([host, (await ask(api, '/health', 'GET', { host })).status]).toEqual([host, 200]);
    const bad = [
      'evil.example',
      '127.0.0.1.evil.example',
      'localhost.evil.example',
      'a b',
      '[::1',
      'localhost:x',
    ];
    for (const host of bad) {
      const reply = await ask(api, '/health', 'GET', { host });
      expect([host, reply.status]).toEqual([host, 421]);
      expect(JSON.parse(reply.body)).toMatchObject({ error: { code: 'HOST_UNKNOWN' } });
    }
    expect(await askRaw(api, 'GET /health HTTP/1.1\r\nhost:\r\nconnection: close\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 421 /,
    );
  });

  test('that is too large or no HTTP at all is refused and its connection ended', async () => {
    const api = await openApi();
    expect(
      (await ask(api, '/nothing', 'POST', { 'content-type': 'application/json' }, 'x'.repeat(70_000))).status,
    ).toBe(413);
    expect(
      await askRaw(api, `GET /health HTTP/1.1\r\nhost: localhost\r\nx: ${'a'.repeat(20_000)}\r\n\r\n`),
    ).toMatch(/^HTTP\/1\.1 431 .*"code":"HTTP_INVALID"/s);
    expect(await askRaw(api, '\x10\x20\x00\x04MQTT\r\n\r\n')).toMatch(/^HTTP\/1\.1 400 /);
    expect((await ask(api, '/health')).status).toBe(200);
  });
});

test('a port in use is an error that names it', async () => {
  const api = await openApi();
  await expect(openApi({ port: api.port })).rejects.toMatchObject({
    code: 'LISTEN_FAILED',
    message: `cannot listen on http port 127.0.0.1:${api.port}: it is in use`,
  });
});

test('closing ends connections that are still open', async () => {
  const api = await openApi();
  const socket = connect(api.port ?? 0, '127.0.0.1');
  await new Promise((resolve) => socket.once('connect', resolve));
  const ended = new Promise((resolve) => socket.once('close', resolve));
  socket.on('error', () => undefined);
  socket.write('GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n');
  await new Promise((resolve) => socket.once('data', resolve));
  socket.resume();
  await api.close();
  await ended;
});
