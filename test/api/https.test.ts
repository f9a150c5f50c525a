// The same routes over TLS: real sockets, real certificates.

import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { Agent, request } from 'node:https';
import { connect as connectTcp, type Socket } from 'node:net';
import { join } from 'node:path';
import { connect } from 'node:tls';
import { connectAsync } from 'mqtt';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Certificates } from '../../src/platform/certificates.ts';
import { createLog } from '../../src/platform/log.ts';
import { ask, openApi, type Reply } from '../support/api.ts';
import { openGateway } from '../support/gateway.ts';
import { openCertificates, startGateway } from '../support/mqtt-gateway.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

interface Question {
  readonly method?: string;
  readonly headers?: Record<string, string>;
  readonly body?: string;
  readonly agent?: Agent;
}

/** As a browser with this authority among those it trusts. */
function askTls(port: number | undefined, ca: string, path: string, asked: Question = {}): Promise<Reply> {
  const { body = '', agent = new Agent({ maxCachedSessions: 0 }), ...rest } = asked;
  return new Promise((resolve, reject) => {
    const sent = request({ host: 'localhost', port, ca, path, agent, ...rest }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
      });
      response.on('end', () =>
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text }),
      );
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

async function openHttps() {
  const certificates = await openCertificates(tempFolder());
  const api = await openApi({ https: { port: 0, certificates }, ca: () => certificates.ca });
  return { api, certificates, ca: certificates.ca ?? '' };
}

describe('a gateway over HTTPS', () => {
  test('shows a certificate that its /ca.crt vouches for, which anyone may fetch', async () => {
    const folder = tempFolder();
    const gateway = await openGateway(folder);
    const fetched = await ask({ port: gateway.ports.http }, '/ca.crt');
    expect(fetched.status).toBe(200);
    expect(fetched.headers['content-type']).toBe('application/x-x509-ca-cert');
    expect(fetched.body).toBe(readFileSync(join(folder, 'data', 'tls', 'ca.crt'), 'utf8'));
    const health = await askTls(gateway.ports.https, fetched.body, '/health');
    expect(health.status).toBe(200);
    // Neither the buzzer's button over HTTP nor other programs of this machine are to be taken away.
    expect(health.headers['strict-transport-security']).toBeUndefined();
    const stranger = (await openHttps()).ca;
    await expect(askTls(gateway.ports.https, stranger, '/health')).rejects.toMatchObject({
      code: expect.stringMatching(/SELF_SIGNED|SIGNATURE/),
    });
    const told = await gateway.operations.get('tls.show')?.({});
    expect(told).toMatchObject({
      source: 'local',
      fault: null,
      names: expect.arrayContaining(['localhost']),
    });
  });

  test('logs people in with a cookie for this host and for TLS alone', async () => {
    const folder = tempFolder();
    const gateway = await openGateway(folder);
    const add = { name: 'anna', role: 'admin', password: 'correct horse battery' };
    await gateway.operations.get('users.add')?.(add);
    const ca = readFileSync(join(folder, 'data', 'tls', 'ca.crt'), 'utf8');
    const headers = { 'content-type': 'application/json' };
    const body = JSON.stringify({ name: 'anna', password: 'correct horse battery' });
    const login = await askTls(gateway.ports.https, ca, '/api/v1/auth/login', {
      method: 'POST',
      headers,
      body,
    });
    expect(login.status).toBe(200);
    const [cookie = ''] = [login.headers['set-cookie']].flat();
    expect(cookie).toMatch(
      /^__Host-iotflow=[\w-]{43}; Path=\/; Max-Age=\d+; HttpOnly; SameSite=Strict; Secure$/,
    );
    const session = { headers: { cookie: cookie.split(';')[0] ?? '' } };
    expect((await askTls(gateway.ports.https, ca, '/api/v1/users', session)).status).toBe(200);
    // Without TLS nobody is to have it; were it sent all the same, it would not count.
    const plain = await ask({ port: gateway.ports.http }, '/api/v1/users', 'GET', session.headers);
    expect(plain.status).toBe(401);
  });

  test('is pointed to where a route is not answered without TLS', async () => {
    const { api, ca } = await openHttps();
    const headers = { 'x-forwarded-for': '192.168.1.9' };
    const refused = await ask(api, '/metrics', 'GET', headers);
    expect(refused.status).toBe(403);
    expect(refused.body).toContain(`https on port ${api.tlsPort}`);
    expect((await askTls(api.tlsPort, ca, '/metrics', { headers })).status).toBe(401);
  });

  test('closes with connections still open, also in the middle of a handshake', async () => {
    const { api, ca } = await openHttps();
    const agent = new Agent({ keepAlive: true });
    onTestFinished(() => agent.destroy());
    await askTls(api.tlsPort, ca, '/health', { agent });
    const silent = connectTcp(api.tlsPort ?? 0, '127.0.0.1');
    await once(silent, 'connect');
    const ended = once(silent, 'close');
    silent.resume();
    await api.close();
    await ended;
  });
});

describe('strangers at the TLS port', () => {
  function knock(port: number | undefined): Socket {
    const socket = connectTcp(port ?? 0, '127.0.0.1');
    socket.on('error', () => undefined);
    socket.resume();
    onTestFinished(() => void socket.destroy());
    return socket;
  }

  test('who never begin their handshake do not keep others out, and are cut', async () => {
    const { api, ca } = await openHttps();
    const silent = Array.from({ length: 300 }, () => knock(api.tlsPort));
    const cut = silent.map((socket) => once(socket, 'close'));
    await until(() => api.stats().displacedConnections > 0);
    expect((await askTls(api.tlsPort, ca, '/health')).status).toBe(200);
    await Promise.all(cut);
    await until(() => api.stats().connections === 0);
  });

  test('who speak plain HTTP, or bytes, are cut and counted', async () => {
    const { api, ca } = await openHttps();
    for (const bytes of [
      'GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n',
      '\x16\x03\x01\xff\xff',
      '\0\0\0\0\0\0',
    ]) {
      const socket = knock(api.tlsPort);
      socket.end(bytes);
      await once(socket, 'close');
    }
    expect(api.stats().failedHandshakes).toBe(3);
    expect((await askTls(api.tlsPort, ca, '/health')).status).toBe(200);
  });

  test('who have come through their handshake and send no HTTP are answered once', async () => {
    const { api, ca } = await openHttps();
    const socket = connect({ host: '127.0.0.1', port: api.tlsPort ?? 0, ca, servername: 'localhost' });
    await once(socket, 'secureConnect');
    socket.write('\x10\x20\x00\x04MQTT\r\n\r\n');
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    expect(chunk.toString()).toMatch(/^HTTP\/1\.1 400 .*"code":"HTTP_INVALID"/s);
    socket.resume();
    await once(socket, 'close');
  });
});

test('a renewed certificate is shown over MQTT and HTTPS alike, and nobody who is connected notices', async () => {
  const names = ['localhost', '127.0.0.1'];
  const certificates = await Certificates.open({
    folder: join(tempFolder(), 'tls'),
    clock: { wallMs: Date.now, monotonicMs: () => 0 },
    names: () => names,
    log: createLog('silent'),
  });
  onTestFinished(() => certificates.close());
  const ca = certificates.ca ?? '';
  const api = await openApi({ https: { port: 0, certificates } });
  const { source, messages } = await startGateway({
    certificates,
    listen: { host: '127.0.0.1', lanPlaintext: false, tlsPort: 0 },
  });
  const mqttUrl = `mqtts://localhost:${source.ports.mqtts}`;
  const login = { ca, username: 'probe', password: 'key-probe', reconnectPeriod: 0 };
  const before = await connectAsync(mqttUrl, { ...login, clientId: 'probe-1' });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  onTestFinished(() => agent.destroy());
  await askTls(api.tlsPort, ca, '/health', { agent });
  const [kept] = Object.values(agent.freeSockets).flat();

  names.push('attic.local');
  await certificates.check();
  expect(certificates.stats().renewals).toBe(1);

  await before.publishAsync('iotflow/devices/probe/telemetry/leak', '{"wet":false}', { qos: 1 });
  expect(messages).toHaveLength(1);
  expect((await askTls(api.tlsPort, ca, '/health', { agent })).status).toBe(200);
  expect(Object.values(agent.freeSockets).flat()).toEqual([kept]);
  const after = await connectAsync(mqttUrl, { ...login, clientId: 'probe-2' });
  for (const port of [api.tlsPort, source.ports.mqtts]) {
    const socket = connect({ host: '127.0.0.1', port: port ?? 0, ca, servername: 'attic.local' });
    await once(socket, 'secureConnect');
    expect(socket.getPeerCertificate().subjectaltname).toContain('attic.local');
    socket.destroy();
  }
  for (const client of [before, after]) await client.endAsync();
});
