// The witness of the tests about loss is itself put to the test: a broker that dies while the client is still sending
// again what the last one did not acknowledge.

import { createServer, type Socket } from 'node:net';
import { generate, type Packet, parser } from 'mqtt-packet';
import { expect, onTestFinished, test } from 'vitest';
import { startWitness } from '../support/publisher.ts';

test('a message the client gave back unsent, because the connection closed during a resend, is published again', async () => {
  let connections = 0;
  const seen: number[][] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    connections += 1;
    const connection = connections;
    const numbers: number[] = [];
    seen.push(numbers);
    sockets.add(socket);
    socket.on('error', () => undefined);
    const parse = parser();
    const send = (packet: object) => socket.write(generate(packet as Packet));
    parse.on('packet', (packet) => {
      if (packet.cmd === 'connect') send({ cmd: 'connack', returnCode: 0, sessionPresent: connection > 1 });
      if (packet.cmd !== 'publish') return;
      numbers.push((JSON.parse(packet.payload.toString()) as { n: number }).n);
      // The first acknowledges nothing and dies; the second so after one of the three, while the witness goes on.
      if (connection === 1 && numbers.length === 3) socket.destroy();
      if (connection === 2 && numbers.length === 2) setTimeout(() => socket.destroy(), 50);
      if (connection > 2 || (connection === 2 && numbers.length === 1)) {
        send({ cmd: 'puback', messageId: packet.messageId });
      }
    });
    socket.on('data', (bytes) => parse.parse(bytes));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  if (typeof address !== 'object' || address === null) throw new Error('no port');
  const witness = startWitness({
    port: address.port,
    deviceId: 'load',
    apiKey: 'key',
    window: 3,
    startMs: 0,
    pauseMs: 1,
  });
  onTestFinished(async () => {
    await witness.stop();
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  await expect.poll(() => connections, { timeout: 10_000 }).toBeGreaterThan(2);
  await expect.poll(() => witness.acknowledged.size, { timeout: 10_000 }).toBeGreaterThan(5);
  await witness.settled(10_000);
  expect(seen[1]).toEqual([1, 2]);
  expect([...witness.acknowledged].sort((a, b) => a - b)).toEqual(
    Array.from({ length: witness.sent() }, (_, index) => index + 1),
  );
});
