// What the page hears without asking: the alarms and the gateway's health, as server-sent events (WHATWG HTML §9.2).
// Each event is the whole of what it is about, so that nothing is missed by who was away: a new listener gets both
// at once, one that comes back with `Last-Event-ID` only what is not what it has. Promises: listeners are bounded, in
// all, from one address and without a key; one that does not read is cut; one that came with a key or a session is
// let go when that ends. Nothing is computed while nobody listens.

import { Readable } from 'node:stream';
import type { AlarmBoard } from '../alarms/board.ts';
import { isLoopback, isStranger } from './access.ts';
import { answerHealth, type Health } from './health.ts';
import { refusal } from './refusal.ts';
import type { Answer, RouteRequest } from './route.ts';

const defaults = {
  listenersMax: 32,
  /** From another machine; a page in each of its windows. */
  perAddressMax: 8,
  /** The others are for who has a key or is logged in. */
  keylessMax: 16,
  /** For one listener; a thousand alarms are some 300 kB. */
  unsentBytesMax: 1024 * 1024,
  /** Alarms that come together are told together. */
  gatherMs: 50,
  /** What nobody announces (health, the end of a silence) and who may still listen. */
  lookMs: 1_000,
  /** Proxies end what is silent for a minute. */
  heartbeatMs: 15_000,
};

/** How long a browser waits before it comes back. */
const retryMs = 3_000;

type Asked = Pick<RouteRequest, 'caller' | 'headers' | 'isSecure' | 'address'>;

export interface EventsOptions extends Partial<typeof defaults> {
  readonly board: Pick<AlarmBoard, 'shown' | 'onChange'>;
  readonly health: () => Health;
  /** Whether what a listener was let in with still holds. */
  readonly stillHolds: (asked: Asked) => boolean;
  /** Different at each start: ids of another run mean nothing. */
  readonly run: string;
}

export interface EventsStats {
  readonly listeners: number;
  readonly sent: number;
  /** For want of room. */
  readonly refused: number;
  /** Did not read. */
  readonly cut: number;
}

interface Listener {
  readonly stream: Readable;
  readonly asked: Asked;
}

interface Kept {
  readonly read: (isForStranger: boolean) => unknown;
  /** What the last event of this name told. */
  text: string;
  /** And whoever has no key. */
  textForStrangers: string;
  /** The same without what changes by itself. */
  essence: string;
}

/** An alarm's age grows from one look to the next. */
function essenceOf(value: unknown): string {
  return JSON.stringify(value, (key, inner: unknown) => (key === 'raised_ago_ms' ? undefined : inner));
}

export class Events {
  readonly #options: EventsOptions & typeof defaults;
  readonly #listeners = new Set<Listener>();
  readonly #kept: ReadonlyMap<string, Kept>;
  readonly #counts = { sent: 0, refused: 0, cut: 0 };
  /** Counts changes. */
  #number = 0;
  #looks = 0;
  #gathering: NodeJS.Timeout | undefined;
  #looking: NodeJS.Timeout | undefined;
  #forgetBoard: (() => void) | undefined;

  constructor(options: EventsOptions) {
    this.#options = { ...defaults, ...options };
    const { board, health } = options;
    this.#kept = new Map<string, Kept>([
      ['alarms', { read: () => board.shown(), text: '', textForStrangers: '', essence: '' }],
      [
        'health',
        {
          read: (isForStranger) => answerHealth(health(), isForStranger).body,
          ...{ text: '', textForStrangers: '', essence: '' },
        },
      ],
    ]);
  }

  stats(): EventsStats {
    return { listeners: this.#listeners.size, ...this.#counts };
  }

  /** A stream of events, or why there is none. */
  listen(asked: Asked): Answer {
    if (!this.#hasRoom(asked)) {
      this.#counts.refused += 1;
      return refusal('OVERLOADED', 'there are as many listeners as there may be', { retryAfterS: 10 });
    }
    this.#look();
    const stream = new Readable({ read: () => undefined });
    const listener: Listener = { stream, asked };
    this.#listeners.add(listener);
    stream.once('close', () => this.#leave(listener));
    if (this.#listeners.size === 1) this.#begin();
    const isUpToDate = asked.headers['last-event-id'] === this.#id;
    const first = isUpToDate ? [] : [...this.#kept].map(([name, kept]) => this.#eventOf(name, kept, asked));
    stream.push(`retry: ${retryMs}\n\n${first.join('')}`);
    const headers = { 'content-type': 'text/event-stream', 'x-accel-buffering': 'no' };
    return { status: 200, headers, body: stream };
  }

  get #id(): string {
    return `${this.#options.run}-${this.#number}`;
  }

  #eventOf(name: string, { text, textForStrangers }: Kept, asked: Asked): string {
    return `event: ${name}\nid: ${this.#id}\ndata: ${isStranger(asked) ? textForStrangers : text}\n\n`;
  }

  #hasRoom({ caller, address }: Asked): boolean {
    const { listenersMax, perAddressMax, keylessMax } = this.#options;
    const others = [...this.#listeners].map(({ asked }) => asked);
    if (others.length >= listenersMax) return false;
    if (
      caller.kind === 'anyone' &&
      others.filter((one) => one.caller.kind === 'anyone').length >= keylessMax
    ) {
      return false;
    }
    return isLoopback(address) || others.filter((one) => one.address === address).length < perAddressMax;
  }

  #begin(): void {
    const { board, gatherMs, lookMs } = this.#options;
    this.#forgetBoard = board.onChange(() => {
      this.#gathering ??= setTimeout(() => {
        this.#gathering = undefined;
        this.#look();
      }, gatherMs);
    });
    this.#looking = setInterval(() => this.#lookAround(), lookMs);
  }

  #leave(listener: Listener): void {
    this.#listeners.delete(listener);
    if (this.#listeners.size > 0) return;
    this.#forgetBoard?.();
    clearTimeout(this.#gathering);
    this.#gathering = undefined;
    clearInterval(this.#looking);
  }

  #lookAround(): void {
    const { stillHolds, lookMs, heartbeatMs } = this.#options;
    for (const listener of this.#listeners) {
      if (stillHolds(listener.asked)) continue;
      this.#leave(listener);
      listener.stream.push(null);
    }
    this.#look();
    this.#looks += 1;
    if (this.#looks % Math.ceil(heartbeatMs / lookMs) === 0) this.#send(() => ':\n\n');
  }

  #look(): void {
    for (const [name, kept] of this.#kept) {
      const value = kept.read(false);
      const essence = essenceOf(value);
      if (essence === kept.essence) continue;
      kept.essence = essence;
      kept.text = JSON.stringify(value);
      kept.textForStrangers = JSON.stringify(kept.read(true));
      this.#number += 1;
      this.#send((asked) => this.#eventOf(name, kept, asked));
      this.#counts.sent += 1;
    }
  }

  #send(textFor: (asked: Asked) => string): void {
    const { unsentBytesMax, stillHolds } = this.#options;
    for (const { stream, asked } of this.#listeners) {
      if (stream.destroyed || !stillHolds(asked)) continue;
      const bytes = Buffer.from(textFor(asked));
      if (stream.readableLength + bytes.length > unsentBytesMax) {
        this.#counts.cut += 1;
        stream.destroy();
      } else stream.push(bytes);
    }
  }
}
