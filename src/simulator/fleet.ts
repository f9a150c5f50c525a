// Many virtual nodes as one: found by a part of their name, counted together, stopped together.

import type { NodeFigures, SimulatedNode } from './node.ts';
import type { FleetDevice } from './presets.ts';

export interface Member {
  readonly device: FleetDevice;
  readonly node: SimulatedNode;
}

export type FleetFigures = Omit<NodeFigures, 'connected' | 'lastError'> & {
  readonly devices: number;
  readonly connected: number;
  readonly failed: number;
  /** The trouble of one of them. */
  readonly lastError: string | undefined;
};

export class Fleet {
  readonly members: readonly Member[];

  constructor(members: readonly Member[]) {
    this.members = members;
  }

  /** By its id, or by a part of it that no other has: several or none when it is not that clear. */
  find(name: string): readonly Member[] {
    const exact = this.members.filter(({ device }) => device.deviceId === name);
    return exact.length > 0 ? exact : this.members.filter(({ device }) => device.deviceId.includes(name));
  }

  figures(): FleetFigures {
    const all = this.members.map(({ node }) => node.figures());
    const sum = (count: (figures: NodeFigures) => number) =>
      all.reduce((total, one) => total + count(one), 0);
    return {
      devices: all.length,
      connected: sum(({ connected }) => (connected ? 1 : 0)),
      failed: this.members.filter(({ node }) => node.isFailed).length,
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

  ackLatenciesMs(): number[] {
    return this.members.flatMap(({ node }) => node.ackLatenciesMs());
  }

  /** What is still unacknowledged then gets so long. */
  async stop(drainMs: number): Promise<void> {
    await Promise.all(this.members.map(({ node }) => node.stop(drainMs)));
  }
}
