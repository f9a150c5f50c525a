// Stock aedes in memory, in a process of its own: the ceiling of what a broker in Node does here, and durable in
// nothing. Its PUBACK is written before a message is stored or passed on.

import { createServer } from 'node:net';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { Aedes } from 'aedes';
import { freePort } from '../../test/support/free-port.ts';
import { startChild, waitForPort } from '../children.ts';
import { leaveSubscriber } from './offline-subscriber.ts';
import { openPublishers, type Peer, type RunningPeer } from './peer.ts';

const path = fileURLToPath(import.meta.url);

async function startAedes(): Promise<RunningPeer> {
  const port = await freePort();
  const child = startChild(process.execPath, [path, '--broker', String(port)]);
  await waitForPort(port, child);
  return {
    port,
    pid: child.pid,
    publishers: async (count) => openPublishers(count),
    stop: () => child.stop(),
  };
}

/** The least a broker can have to do: nobody subscribes, a message is acknowledged and forgotten. */
export const forgettingAedesPeer: Peer = {
  name: 'aedes (stock, in memory, no subscriber)',
  ackMeans: 'nothing: forgotten',
  missing: () => undefined,
  start: startAedes,
};

/** The work the other peers have: a queue in memory for one subscriber that is away. */
export const queueingAedesPeer: Peer = {
  name: 'aedes (stock, in memory, queueing)',
  ackMeans: 'about to be queued in memory',
  missing: () => undefined,
  start: async () => {
    const peer = await startAedes();
    await leaveSubscriber(peer.port);
    return peer;
  },
};

async function main(): Promise<void> {
  const broker = await Aedes.createBroker();
  // With Nagle's delay a peer would look 40 ms slower than it is.
  createServer({ noDelay: true }, broker.handle).listen(Number(argv[3]), '127.0.0.1');
  process.on('SIGTERM', () => process.exit(0));
}

if (argv[1] === path && argv[2] === '--broker') await main();
