// Many virtual nodes as one: found by a part of their name, cut off from the network by chance, counted together,
// stopped together.

import type { NodeFigures, SimulatedNode } from './node.ts';
import type { FleetDevice } from './presets.ts';
import type { Random } from './random.ts';

export const transports = ['mqtt', 'http'] as const;

export type Transport = (typeof transports)[number];

export interface Member {
  readonly device: FleetDevice;
  readonly node: SimulatedNode;
  readonly transport: Transport;
}

export type FleetFigures = Omit<NodeFigures, 'connected' | 'lastError'> & {
  readonly devices: number;
  readonly connected: number;
  readonly failed: number;
  /** The trouble of one of them. */
  readonly lastError: string | undefined;
};

/** How long a device is cut off, on average. */
const outageMs = 5_000;
const outageTickMs = 500;

export class Fleet {
  readonly members: readonly Member[];
  #outages: NodeJS.Timeout | undefined;

  constructor(members: readonly Member[]) {
    this.members = members;
  }

  /** By its id, or by a part of it that no other has: several or none when it is not that clear. */
  find(name: string): readonly Member[] {
    const exact = this.members.filter(({ device }) => device.deviceId === name);
    return exact.length > 0 ? exact : this.members.filter(({ device }) => device.deviceId.includes(name));
  }

  /** From now on each device is without a network for this share of the time, seconds on end. */
  cutOffByChance(share: number, random: Random): void {
    const ends = outageTickMs / outageMs;
    const begins = share < 1 ? (ends * share) / (1 - share) : 1;
    const cutOff = new Set<SimulatedNode>();
    this.#outages = setInterval(() => {
      for (const { node } of this.members) {
        const isOut = cutOff.has(node);
        if (random() >= (isOut ? ends : begins)) continue;
        node.setCutOff(!isOut);
        if (isOut) cutOff.delete(node);
        else cutOff.add(node);
      }
    }, outageTickMs);
  }

  figures(members: readonly Member[] = this.members): FleetFigures {
    const all = members.map(({ node }) => node.figures());
    const sum = (count: (figures: NodeFigures) => number) =>
      all.reduce((total, one) => total + count(one), 0);
    return {
      devices: all.length,
      connected: sum(({ connected }) => (connected ? 1 : 0)),
      failed: members.filter(({ node }) => node.isFailed).length,
      sent: sum(({ sent }) => sent),
      acknowledged: sum(({ acknowledged }) => acknowledged),
      refused: sum(({ refused }) => refused),
      lost: sum(({ lost }) => lost),
      overflowed: sum(({ overflowed }) => overflowed),
      heartbeats: sum(({ heartbeats }) => heartbeats),
      commands: sum(({ commands }) => commands),
      reconnects: sum(({ reconnects }) => reconnects),
      lastError: all.find(({ lastError }) => lastError !== undefined)?.lastError,
    };
  }

  ackLatenciesMs(members: readonly Member[] = this.members): number[] {
    return members.flatMap(({ node }) => node.ackLatenciesMs());
  }

  /** What is still unacknowledged then gets so long. */
  async stop(drainMs: number): Promise<void> {
    if (this.#outages !== undefined) {
      clearInterval(this.#outages);
      for (const { node } of this.members) node.setCutOff(false);
    }
    await Promise.all(this.members.map(({ node }) => node.stop(drainMs)));
  }
}
