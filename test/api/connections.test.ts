import { EventEmitter } from 'node:events';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { expect, onTestFinished, test } from 'vitest';
import { Connections } from '../../src/api/connections.ts';
import { ask, openApi } from '../support/api.ts';
import { until } from '../support/until.ts';

function open(port: number, localAddress: string, text: string): Socket {
  const socket = connect({ port, host: '127.0.0.1', localAddress });
  socket.on('error', () => undefined);
  socket.resume();
  socket.write(text);
  onTestFinished(() => void socket.destroy());
  return socket;
}

test('who holds as many connections as there may be, and asks nothing, keeps nobody out', async () => {
  const api = await openApi();
  for (let index = 0; index < 250; index += 1)
    open(api.port ?? 0, '127.0.0.2', 'GET /health HTTP/1.1\r\nx: ');
  await until(() => api.stats().displacedConnections === 50);
  for (let times = 0; times < 10; times += 1) expect((await ask(api, '/health')).status).toBe(200);
  expect(api.stats().connections).toBeLessThanOrEqual(200);
});

test('where there is no room the longest silent one of the address that has most gives way, never one being answered', async () => {
  const connections = new Connections({ connectionsMax: 4, perAddressMax: 2 });
  const answer: (() => void)[] = [];
  const server = createServer((_request, response) => answer.push(() => response.end('late')));
  connections.watch(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  const { port } = server.address() as AddressInfo;
  const held: Socket[] = [];
  const hold = async (address: string, text: string) => {
    const before = connections.open + connections.displaced;
    held.push(open(port, address, text));
    await until(() => connections.open + connections.displaced > before);
  };
  const isClosed = () => held.map(({ destroyed }) => destroyed);
  await hold('127.0.0.1', '');
  await hold('127.0.0.2', 'GET / HTTP/1.1\r\nhost: x\r\n\r\n');
  await until(() => answer.length === 1);
  await hold('127.0.0.2', '');
  await hold('127.0.0.2', '');
  expect(isClosed()).toEqual([false, false, false, false]);
  await hold('127.0.0.3', '');
  await until(() => held[2]?.destroyed === true);
  await hold('127.0.0.4', '');
  await until(() => held[3]?.destroyed === true);
  expect(isClosed()).toEqual([false, false, true, true, false, false]);
  answer[0]?.();
  await hold('127.0.0.5', '');
  await until(() => held[0]?.destroyed === true);
  expect(held[1]?.destroyed).toBe(false);
  expect(connections.displaced).toBe(3);
});

test('another machine may have so many, and its newest takes the place of its oldest; this machine may have them all', () => {
  const connections = new Connections({ connectionsMax: 10, perAddressMax: 2 });
  const server = new EventEmitter();
  connections.watch(server as unknown as Parameters<Connections['watch']>[0]);
  const closed: string[] = [];
  const come = (remoteAddress: string, remotePort: number) => {
    const destroy = () => closed.push(`${remoteAddress} ${remotePort}`);
    server.emit('connection', Object.assign(new EventEmitter(), { remoteAddress, remotePort, destroy }));
  };
  for (const port of [1, 2, 3]) come('192.0.2.1', port);
  for (const port of [1, 2, 3, 4]) come('::ffff:127.0.0.1', port);
  come('192.0.2.9', 1);
  expect(closed).toEqual(['192.0.2.1 1']);
  expect(connections.open).toBe(7);
});
