// How many connections there may be, in all and from one address. Promises: whoever holds connections open without
// asking anything keeps nobody out: where there is no room, a newcomer takes the place of the one silent for longest, of
// its own address if that has as many as it may, else of the address that has most. One that is being answered stays.
// This machine's own programs share one address, and may have them all.

import type { Server } from 'node:http';
import type { Socket } from 'node:net';
import { isLoopback } from './access.ts';

export interface ConnectionLimits {
  readonly connectionsMax: number;
  readonly perAddressMax: number;
}

interface Connection {
  readonly socket: Socket;
  readonly address: string;
  /** Requests being answered. */
  answering: number;
}

/** The same for the socket of TLS as for the one below it. */
function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}

export class Connections {
  readonly #limits: ConnectionLimits;
  /** The one silent for longest first. */
  readonly #open = new Map<string, Connection>();
  /** Closed for want of room, newcomers among them. */
  displaced = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  watch(server: Pick<Server, 'on'>): void {
    server.on('connection', (socket) => this.#admit(socket));
    server.on('request', ({ socket }, response) => {
      const key = keyOf(socket);
      this.#answering(key, 1);
      response.once('close', () => this.#answering(key, -1));
    });
  }

  get open(): number {
    return this.#open.size;
  }

  #admit(socket: Socket): void {
    const { remoteAddress: address } = socket;
    if (address === undefined) {
      socket.destroy();
      return;
    }
    const { connectionsMax, perAddressMax } = this.#limits;
    const held = this.#perAddress();
    if ((held.get(address) ?? 0) >= (isLoopback(address) ? connectionsMax : perAddressMax)) {
      if (!this.#displace((connection) => connection.address === address)) return void this.#refuse(socket);
    } else if (this.#open.size >= connectionsMax) {
      const most = Math.max(...held.values());
      const isOfMost = ({ address: holder }: Connection) => held.get(holder) === most;
      if (!this.#displace(isOfMost) && !this.#displace(() => true)) return void this.#refuse(socket);
    }
    const key = keyOf(socket);
    this.#open.set(key, { socket, address, answering: 0 });
    socket.once('close', () => {
      if (this.#open.get(key)?.socket === socket) this.#open.delete(key);
    });
  }

  #perAddress(): Map<string, number> {
    const held = new Map<string, number>();
    for (const { address } of this.#open.values()) held.set(address, (held.get(address) ?? 0) + 1);
    return held;
  }

  #refuse(socket: Socket): void {
    this.displaced += 1;
    socket.destroy();
  }

  /** False when all of them are being answered. */
  #displace(isOne: (connection: Connection) => boolean): boolean {
    for (const [key, connection] of this.#open) {
      if (connection.answering > 0 || !isOne(connection)) continue;
      this.#open.delete(key);
      this.#refuse(connection.socket);
      return true;
    }
    return false;
  }

  #answering(key: string, change: 1 | -1): void {
    const connection = this.#open.get(key);
    if (connection === undefined) return;
    connection.answering += change;
    this.#open.delete(key);
    this.#open.set(key, connection);
  }
}
