// What a whole gateway listens on and whom it talks to, as its machine sees it. The ports are those docs/security.md
// states; a new listener must be stated there.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, onTestFinished, test } from 'vitest';
import { type GatewayProcess, iotflow, startGateway } from '../support/gateway-process.ts';
import {
  attemptsToReach,
  hasOwnNetworks,
  inNetworkOf,
  inOwnNetwork,
  type Listener,
  tcpListeners,
  udpSockets,
} from '../support/own-network.ts';
import { tempFolder } from '../support/temp.ts';

const page = readFileSync(join(import.meta.dirname, '..', '..', 'docs', 'security.md'), 'utf8');

/** The rows `| 8883 | 0.0.0.0 | …` of the page. */
const stated: readonly Listener[] = [...page.matchAll(/^\| (\d+) \| ([\d.]+) \|/gm)].map(
  ([, port = '', address = '']) => ({ address, port: Number(port) }),
);

async function start(settings: object, within: readonly string[]): Promise<GatewayProcess & { pid: number }> {
  const folder = tempFolder();
  const configFile = join(folder, 'config.yaml');
  writeFileSync(configFile, JSON.stringify({ version: 1, data_dir: join(folder, 'data'), ...settings }), {
    mode: 0o600,
  });
  const gateway = await startGateway(configFile, { within });
  // Through its socket file: so that nothing but the gateway opens a connection.
  await iotflow('status', '--config', configFile);
  return { ...gateway, pid: gateway.child.pid ?? 0 };
}

describe.skipIf(!hasOwnNetworks)('in a network of its own (root, iproute2)', () => {
  test('a gateway with nothing configured listens on the ports the documentation states, and on nothing else', async () => {
    expect(stated.map(({ port }) => port)).toContain(8883);
    const { pid } = await start({}, inOwnNetwork);
    expect(tcpListeners(pid)).toEqual(stated);
    expect(udpSockets(pid)).toBe(0);
  });

  const off = { enabled: false };
  const here = (listener: Listener) => ({ ...listener, address: '127.0.0.1' });
  const isHttp = ({ port }: Listener) => port === 8080 || port === 8443;

  test.each<[string, object, readonly Listener[]]>([
    ['HTTP and HTTPS switched off', { http: off, https: off }, stated.filter((given) => !isHttp(given))],
    ['HTTP switched off', { http: off }, stated.filter(({ port }) => port !== 8080)],
    [
      'HTTP and HTTPS for this machine alone',
      { http: { host: '127.0.0.1' } },
      stated.map((given) => (isHttp(given) ? here(given) : given)),
    ],
    [
      'MQTT opened to the LAN',
      { mqtt: { lan_plaintext: true } },
      stated.map(({ port }) => ({ address: '0.0.0.0', port })),
    ],
  ])('with %s it listens on what is left, and on nothing else', async (_what, settings, listeners) => {
    const { pid } = await start(settings, inOwnNetwork);
    expect(tcpListeners(pid)).toEqual(listeners);
  });

  test('a gateway with nothing configured tries to reach nobody', async () => {
    const { pid } = await start({ host_health: { interval_ms: 1000 } }, inOwnNetwork);
    await sleep(3_000);
    expect(attemptsToReach(pid)).toBe(0);
  });

  test('with an InfluxDB it talks to that one, and to nobody else', async () => {
    const influx = spawn(
      inOwnNetwork[0],
      [...inOwnNetwork.slice(1), process.execPath, '--input-type=module', '--eval', countingServer],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    onTestFinished(() => void influx.kill('SIGKILL'));
    let accepted = -1;
    influx.stdout.on('data', (chunk: Buffer) => {
      accepted = Number(chunk.toString().trim().split('\n').at(-1));
    });
    await once(influx.stdout, 'data');
    const { pid } = await start(
      {
        influx: { url: 'http://192.0.2.10:8086', token: 't', flush_interval_ms: 50 },
        host_health: { interval_ms: 1000 },
      },
      inNetworkOf(influx.pid ?? 0),
    );
    await expect.poll(() => accepted, { timeout: 20_000 }).toBeGreaterThan(0);
    await sleep(3_000);
    await expect.poll(() => attemptsToReach(pid) - accepted, { timeout: 20_000 }).toBe(0);
  });
});

/** Takes every write there is; prints how many connections it has been opened. */
const countingServer = `
import { createServer } from 'node:http';
let accepted = 0;
const server = createServer((request, response) => {
  request.resume();
  request.on('end', () => response.writeHead(204).end());
});
server.on('connection', () => console.log(++accepted));
server.listen(8086, '192.0.2.10', () => console.log(0));
`;
