// A persistent QoS 1 subscriber that is away: it gives a broker a queue to put messages in, without which RabbitMQ
// and mosquitto would acknowledge and forget.

import { openConnection, subscribePacket } from '../mqtt-load.ts';

export async function leaveSubscriber(
  port: number,
  account: { username?: string; password?: string } = {},
): Promise<void> {
  const socket = await openConnection(port, { clientId: 'bench-away', cleanSession: false, ...account });
  await new Promise<void>((resolve, reject) => {
    socket.once('error', reject);
    socket.once('close', () => reject(new Error('closed before SUBACK')));
    socket.once('data', (answer: Buffer) => {
      if (answer[0] === 0x90 && answer[4] === 1) resolve();
      else reject(new Error(`the subscription was not granted at QoS 1: ${answer.toString('hex')}`));
    });
    socket.write(subscribePacket('iotflow/devices/#', 1));
  });
  await new Promise<void>((resolve) => {
    socket.removeAllListeners();
    socket.on('error', () => undefined);
    socket.once('close', () => resolve());
    socket.resume();
    socket.end(Buffer.from([0xe0, 0]));
  });
}
