// Last wills: kept in the log from CONNECT on, so that they are published after a crash too, and with MQTT 5 as late
// as their client asked for.
//
// Promises: a delay that began goes on after a restart; one that a crash began starts with the gateway. The will of a
// session that is resumed in time is not published [MQTT-3.1.3-9], that of a session which ended (expired, started
// anew, evicted) is published at once. Time is the log's running time: a clock that jumps publishes nothing.
// It does not publish by itself: `publish` does, after which the will is forgotten.
//
// mqtt/will/{n}: [head length u16][head JSON][message]; n in base 36.

import { type Account, isSameAccount } from './access.ts';
import type { BrokerPacket } from './broker-internals.ts';
import type { SessionLog } from './session-log.ts';
import type { Session, Sessions } from './sessions.ts';
import { decodeStoredMessage, encodeStoredMessage, parseRecord } from './stored-message.ts';

export interface Will {
  readonly number: number;
  readonly clientId: string;
  readonly account: Account;
  readonly packet: BrokerPacket;
  /** With its end the will is due. */
  readonly session: Session | undefined;
  /** On the log's running time; undefined while the client is connected. */
  dueMs: number | undefined;
}

export interface WillsOptions {
  readonly log: SessionLog;
  readonly sessions: Sessions;
  /** Resolves when it was published or cannot be. */
  readonly publish: (will: Will) => Promise<void>;
}

const prefix = 'mqtt/will/';

export class Wills {
  readonly #options: WillsOptions;
  readonly #byPacket = new WeakMap<BrokerPacket, Will>();
  /** Those that wait for their delay, by client id; each has a session, which bounds them. */
  readonly #delayed = new Map<string, Will>();
  #restored: Will[] = [];
  #nextNumber = 1;
  #damaged = 0;

  private constructor(options: WillsOptions) {
    this.#options = options;
  }

  /** Reads what an earlier run left. */
  static async open(options: WillsOptions): Promise<Wills> {
    const wills = new Wills(options);
    for await (const [key, value] of options.log.entries(prefix)) {
      const will = wills.#restore(key.slice(prefix.length), value);
      if (will !== undefined) {
        wills.#restored.push(will);
        continue;
      }
      wills.#damaged += 1;
      options.log.writeLazily([{ key, value: undefined }]);
    }
    return wills;
  }

  stats() {
    return { delayedWills: this.#delayed.size, damagedRecords: this.#damaged };
  }

  of(packet: BrokerPacket): Will | undefined {
    return this.#byPacket.get(packet);
  }

  /** A client left it at CONNECT. */
  keep(packet: BrokerPacket, client: Pick<Will, 'clientId' | 'account' | 'session'>): Will {
    const will: Will = { number: this.#nextNumber++, packet, ...client, dueMs: undefined };
    this.#byPacket.set(packet, will);
    this.#write(will);
    return will;
  }

  forget(will: Will): void {
    if (this.#delayed.get(will.clientId) === will) this.#delayed.delete(will.clientId);
    this.#options.log.writeLazily([{ key: keyOf(will), value: undefined }]);
  }

  /** Forgets what accounts left that were shut out, or are gone, since. */
  endStrangers(accountOf: (deviceId: string) => Account | undefined): void {
    const [own, strange] = [[] as Will[], [] as Will[]];
    for (const will of this.#restored) {
      const { deviceId, epoch = 0 } = will.account;
      (isSameAccount({ epoch }, accountOf(deviceId)) ? own : strange).push(will);
    }
    this.#restored = own;
    for (const will of strange) this.forget(will);
  }

  /** Nothing more is said in the name of the account. */
  endOf(deviceId: string): void {
    for (const will of this.#delayed.values()) if (will.account.deviceId === deviceId) this.forget(will);
  }

  /** Publishes what an earlier run left and is due; the rest waits on. To be awaited before anyone can connect. */
  async resume(): Promise<void> {
    const due: Promise<void>[] = [];
    for (const will of this.#restored.splice(0)) {
      if (will.session === undefined) due.push(this.#publish(will));
      else if (will.dueMs === undefined) this.#wait(will, delayOf(will));
      else this.#delayed.set(will.clientId, will);
    }
    this.sweep(due);
    await Promise.all(due);
  }

  /** Its connection ended without a goodbye, and the will is to wait. */
  delay(packet: BrokerPacket, delayS: number): void {
    const will = this.#byPacket.get(packet);
    if (will === undefined) return;
    this.#wait(will, delayS);
    // Taken over by a connection that starts anew.
    if (!this.#isSessionThere(will)) void this.#publish(will);
  }

  /** The client is back. */
  resumed(clientId: string): void {
    const will = this.#delayed.get(clientId);
    if (will === undefined) return;
    if (this.#isSessionThere(will)) this.forget(will);
    else void this.#publish(will);
  }

  /** Publishes what has become due. */
  sweep(published: Promise<void>[] = []): void {
    const now = this.#options.log.runningMs;
    for (const will of this.#delayed.values()) {
      if ((will.dueMs ?? 0) > now && this.#isSessionThere(will)) continue;
      published.push(this.#publish(will));
    }
  }

  async #publish(will: Will): Promise<void> {
    this.#delayed.delete(will.clientId);
    await this.#options.publish(will);
    this.forget(will);
  }

  #wait(will: Will, delayS: number): void {
    will.dueMs = this.#options.log.runningMs + delayS * 1000;
    this.#delayed.set(will.clientId, will);
    this.#write(will);
  }

  #isSessionThere({ clientId, session }: Will): boolean {
    return session !== undefined && this.#options.sessions.find(clientId) === session;
  }

  #write(will: Will): void {
    const { clientId: id, account, dueMs: due, packet } = will;
    const { deviceId, service, epoch } = account;
    const head = Buffer.from(JSON.stringify({ v: 1, id, account: deviceId, service, epoch, due }));
    const length = Buffer.alloc(2);
    length.writeUInt16BE(head.length);
    const { topic, payload, qos, retain, properties } = packet;
    const message = encodeStoredMessage({ topic, payload, qos, retain, properties });
    this.#options.log.writeLazily([{ key: keyOf(will), value: Buffer.concat([length, head, message]) }]);
  }

  #restore(text: string, value: Buffer): Will | undefined {
    const number = Number.parseInt(text, 36);
    if (!Number.isSafeInteger(number) || number.toString(36) !== text || value.length < 2) return undefined;
    const headEnd = 2 + value.readUInt16BE(0);
    if (headEnd > value.length) return undefined;
    const head = parseRecord(value.toString('utf8', 2, headEnd));
    const message = decodeStoredMessage(value.subarray(headEnd));
    if (head?.v !== 1 || message === undefined) return undefined;
    const { id, account, service, epoch = 0, due } = head;
    if (typeof id !== 'string' || typeof account !== 'string' || typeof epoch !== 'number') return undefined;
    if (due !== undefined && typeof due !== 'number') return undefined;
    this.#nextNumber = Math.max(this.#nextNumber, number + 1);
    const { topic, payload, qos, retain, properties } = message;
    const session = this.#options.sessions.find(id);
    return {
      number,
      clientId: id,
      account: { deviceId: account, service: service === true, epoch },
      packet: {
        ...{ cmd: 'publish', topic, payload: Buffer.from(payload), qos, retain },
        ...(properties === undefined ? {} : { properties }),
      },
      session: session?.account === account ? session : undefined,
      dueMs: due,
    };
  }
}

function keyOf({ number }: Will): string {
  return `${prefix}${number.toString(36)}`;
}

/** Seconds; the will waits no longer than its session [MQTT 5, 3.1.3.2.2]. */
function delayOf({ packet, session }: Will): number {
  const asked = packet.properties?.willDelayInterval;
  return typeof asked === 'number' ? Math.min(asked, session?.expiryS ?? 0) : 0;
}
