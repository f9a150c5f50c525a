// How a virtual node reaches the gateway, whichever transport it speaks. Promises of every link: what is sent is sent
// again until it was acknowledged or refused for good, in order, and each of these happens to it once. Does not bound
// what waits: the node counts that.

import type { Reading } from './readings.ts';

/** `refused` for good: sending it again would change nothing. */
export type Delivery =
  | { readonly kind: 'acknowledged' }
  | { readonly kind: 'refused'; readonly reason: string };

/** A command as the gateway sends it, and what the node says to it. */
export interface NodeCommand {
  readonly kind: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

export interface CommandAnswer {
  readonly status: 'ok' | 'failed';
  readonly message?: string;
}

export type CommandListener = (command: NodeCommand) => CommandAnswer;

export interface LinkFigures {
  readonly isConnected: boolean;
  /** Connections after the first, or requests that had to be made again. */
  readonly reconnects: number;
  /** Why the gateway last refused or dropped the connection. */
  readonly lastError: string | undefined;
}

export interface Link {
  /** @param extra `timestamp`, `boot`, `seq`: what the gateway tells doubles by. */
  sendReading(reading: Reading, extra: Readonly<Record<string, number>>): Promise<Delivery>;
  sendHeartbeat(): Promise<Delivery>;
  /** False: as if the node had lost its power, without a goodbye. True: it is back. */
  setReach(isReachable: boolean): void;
  figures(): LinkFigures;
  /** Says goodbye; what is still unacknowledged stays so. */
  close(): Promise<void>;
}

/** How long to wait before connecting again, after so many failures in a row, the first being 1. */
export type ReconnectWait = (failures: number) => number;
