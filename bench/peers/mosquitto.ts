// mosquitto with persistence, as Debian ships it and as most people run it: one file, written every half hour.
// It queues for an away subscriber; its PUBACK does not wait for the disk.

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commandPath } from '../../test/support/debian.ts';
import { freePort } from '../../test/support/free-port.ts';
import { startChild, waitForPort } from '../children.ts';
import { leaveSubscriber } from './offline-subscriber.ts';
import { openPublishers, type Peer } from './peer.ts';

export const mosquittoPeer: Peer = {
  name: 'mosquitto (persistence)',
  ackMeans: 'queued in memory, on disk within half an hour',
  missing: () => (commandPath('mosquitto') === undefined ? 'Debian package mosquitto' : undefined),
  start: async (folder) => {
    const port = await freePort();
    const config = join(folder, 'mosquitto.conf');
    writeFileSync(
      config,
      [
        `listener ${port} 127.0.0.1`,
        'allow_anonymous true',
        'persistence true',
        `persistence_location ${folder}/`,
        'set_tcp_nodelay true',
        // Its default of 1,000 drops what does not fit, silently: that would be measuring a dustbin.
        'max_queued_messages 0',
        'log_type error',
        ...(process.getuid?.() === 0 ? ['user root'] : []),
      ].join('\n'),
    );
    const child = startChild(commandPath('mosquitto') ?? 'mosquitto', ['-c', config]);
    await waitForPort(port, child);
    await leaveSubscriber(port);
    return {
      port,
      pid: child.pid,
      publishers: async (count) => openPublishers(count),
      stop: () => child.stop(),
    };
  },
};
