// Who may open a socket at all: limits in total, per address, and for those who have not logged in yet. Refusing
// costs one accept; nothing is read. A flood of silent strangers cannot lock out a device: the stranger that has
// been silent longest makes room.

import type { Socket } from 'node:net';
import type { Clock } from '../../platform/clock.ts';
import type { MqttLimits } from './limits.ts';

interface Ticket {
  readonly socket: Socket;
  readonly address: string;
  readonly sinceMs: number;
  authenticated: boolean;
}

/** A real device sends its CONNECT within this time of connecting. */
const graceMs = 500;

export class Admission {
  readonly #limits: MqttLimits;
  readonly #clock: Clock;
  /** By `address port`, which TLS and WebSocket wrappers of a socket still know. */
  readonly #tickets = new Map<string, Ticket>();
  readonly #perAddress = new Map<string, number>();
  #unauthenticated = 0;
  #unauthenticatedLoopback = 0;
  refusedSockets = 0;

  constructor(limits: MqttLimits, clock: Clock) {
    this.#limits = limits;
    this.#clock = clock;
  }

  get sockets(): number {
    return this.#tickets.size;
  }

  get unauthenticated(): number {
    return this.#unauthenticated + this.#unauthenticatedLoopback;
  }

  /** For every accepted socket, before a byte of it is read; destroys the ones there is no room for. */
  admit(socket: Socket): boolean {
    const address = socket.remoteAddress;
    const key = ticketKey(socket);
    if (address === undefined || !this.#hasRoom(address)) {
      this.refusedSockets += 1;
      socket.destroy();
      return false;
    }
    const ticket = { socket, address, sinceMs: this.#clock.monotonicMs(), authenticated: false };
    this.#tickets.set(key, ticket);
    this.#perAddress.set(address, (this.#perAddress.get(address) ?? 0) + 1);
    this.#countUnauthenticated(address, 1);
    socket.once('close', () => this.#release(key, ticket));
    return true;
  }

  authenticated(key: string): void {
    const ticket = this.#tickets.get(key);
    if (ticket === undefined || ticket.authenticated) return;
    ticket.authenticated = true;
    this.#countUnauthenticated(ticket.address, -1);
  }

  #hasRoom(address: string): boolean {
    const limits = this.#limits;
    const loopback = isLoopback(address);
    if (this.#tickets.size >= limits.sockets) return false;
    const perAddress = loopback ? limits.socketsPerLoopback : limits.socketsPerAddress;
    if ((this.#perAddress.get(address) ?? 0) >= perAddress) return false;
    const strangers = loopback ? this.#unauthenticatedLoopback : this.#unauthenticated;
    if (strangers < (loopback ? limits.unauthenticatedLoopback : limits.unauthenticated)) return true;
    return this.#displace(loopback);
  }

  /** Tickets are in order of arrival: the first stranger has been silent longest. */
  #displace(loopback: boolean): boolean {
    for (const [key, ticket] of this.#tickets) {
      if (ticket.authenticated || isLoopback(ticket.address) !== loopback) continue;
      if (this.#clock.monotonicMs() - ticket.sinceMs < graceMs) return false;
      this.refusedSockets += 1;
      ticket.socket.destroy();
      this.#release(key, ticket);
      return true;
    }
    return false;
  }

  #release(key: string, ticket: Ticket): void {
    if (this.#tickets.get(key) !== ticket) return;
    this.#tickets.delete(key);
    const left = (this.#perAddress.get(ticket.address) ?? 1) - 1;
    if (left > 0) this.#perAddress.set(ticket.address, left);
    else this.#perAddress.delete(ticket.address);
    if (!ticket.authenticated) this.#countUnauthenticated(ticket.address, -1);
  }

  #countUnauthenticated(address: string, change: number): void {
    if (isLoopback(address)) this.#unauthenticatedLoopback += change;
    else this.#unauthenticated += change;
  }
}

export function ticketKey(socket: Pick<Socket, 'remoteAddress' | 'remotePort' | 'localPort'>): string {
  return `${socket.remoteAddress} ${socket.remotePort} ${socket.localPort}`;
}

export function isLoopback(address: string): boolean {
  return address === '::1' || address.startsWith('127.') || address.startsWith('::ffff:127.');
}
