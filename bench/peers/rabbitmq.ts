// RabbitMQ with its MQTT plugin: besides ours the one broker here whose PUBACK waits for the disk, given a durable
// queue. All of it (Erlang's port mapper, node name, database, cookie) stays on loopback and in the bench's folder.

import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { commandPath } from '../../test/support/debian.ts';
import { freePort } from '../../test/support/free-port.ts';
import { type Child, startChild, waitForPort } from '../children.ts';
import { leaveSubscriber } from './offline-subscriber.ts';
import { openPublishers, type Peer } from './peer.ts';

// Debian's wrapper in /usr/sbin changes to a user of its own; this is what it calls.
const server = '/usr/lib/rabbitmq/bin/rabbitmq-server';
export const rabbitmqAccount = { username: 'guest', password: 'guest' };

export function rabbitmqMissing(): string | undefined {
  if (!existsSync(server)) return 'Debian package rabbitmq-server';
  return commandPath('epmd') === undefined ? 'Debian package erlang-base' : undefined;
}

/** The broker, and the port mapper without which it does not start; its database lies in `databaseFolder`. */
export async function spawnRabbitmq(
  folder: string,
  databaseFolder: string,
): Promise<{ port: number; child: Child; mapper: Child }> {
  const [port, amqpPort, distributionPort, mapperPort] = [
    await freePort(),
    await freePort(),
    await freePort(),
    await freePort(),
  ];
  const home = join(folder, 'home');
  mkdirSync(home, { recursive: true });
  const plugins = join(folder, 'enabled_plugins');
  writeFileSync(plugins, '[rabbitmq_mqtt].\n');
  const config = join(folder, 'rabbitmq.conf');
  writeFileSync(
    config,
    [
      `listeners.tcp.default = 127.0.0.1:${amqpPort}`,
      `mqtt.listeners.tcp.default = 127.0.0.1:${port}`,
      'mqtt.tcp_listen_options.nodelay = true',
      'mqtt.allow_anonymous = false',
    ].join('\n'),
  );
  const environment = {
    ...process.env,
    // In the foreground without a shell around it: what is measured and killed is the broker.
    RUNNING_UNDER_SYSTEMD: 'true',
    HOME: home,
    ERL_EPMD_ADDRESS: '127.0.0.1',
    ERL_EPMD_PORT: String(mapperPort),
    RABBITMQ_NODENAME: `bench${process.pid}@localhost`,
    RABBITMQ_DIST_PORT: String(distributionPort),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: '-kernel inet_dist_use_interface {127,0,0,1}',
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
    RABBITMQ_MNESIA_BASE: databaseFolder,
    RABBITMQ_LOG_BASE: join(folder, 'log'),
    RABBITMQ_PID_FILE: join(folder, 'pid'),
    RABBITMQ_CONF_ENV_FILE: join(folder, 'none'),
  };
  // In the foreground and ours to end: started by the node it would become a daemon that stays.
  const mapper = startChild(commandPath('epmd') ?? 'epmd', [
    '-port',
    String(mapperPort),
    '-address',
    '127.0.0.1',
  ]);
  await waitForPort(mapperPort, mapper);
  const child = startChild(server, [], { env: environment, cwd: folder });
  try {
    await waitForPort(port, child, 120_000);
  } catch (error) {
    await child.stop(2_000);
    await mapper.stop(2_000);
    throw error;
  }
  return { port, child, mapper };
}

export const rabbitmqPeer: Peer = {
  name: 'RabbitMQ (MQTT plugin, durable queue)',
  ackMeans: 'on disk',
  missing: rabbitmqMissing,
  start: async (folder) => {
    const { port, child, mapper } = await spawnRabbitmq(folder, join(folder, 'mnesia'));
    await leaveSubscriber(port, rabbitmqAccount);
    return {
      port,
      pid: child.pid,
      publishers: async (count) => openPublishers(count, rabbitmqAccount),
      stop: async () => {
        await child.stop(30_000);
        await mapper.stop(2_000);
      },
    };
  },
};
