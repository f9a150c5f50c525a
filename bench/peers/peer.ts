// What the benches know of a broker: how to start it, whom to publish as, and what its PUBACK means.

import type { Publisher } from '../mqtt-load.ts';

export interface Peer {
  readonly name: string;
  /** What the broker has done with a message before it acknowledges it. */
  readonly ackMeans: string;
  /** Why it cannot run here (a missing package, by name); undefined when it can. */
  missing(): string | undefined;
  /** Starts it on a loopback port with data of its own under `folder`. */
  start(folder: string): Promise<RunningPeer>;
}

export interface RunningPeer {
  readonly port: number;
  readonly pid: number;
  /** Accounts that may publish telemetry, created where the peer wants that. */
  publishers(count: number): Promise<Publisher[]>;
  stop(): Promise<void>;
}

/** For brokers that let anybody publish. */
export function openPublishers(
  count: number,
  account: { username?: string; password?: string } = {},
): Publisher[] {
  return Array.from({ length: count }, (_, index) => ({
    clientId: `bench-${index}`,
    ...account,
    topic: telemetryTopic(`bench-${index}`),
  }));
}

export function telemetryTopic(deviceId: string): string {
  return `iotflow/devices/${deviceId}/telemetry/water_flow`;
}
