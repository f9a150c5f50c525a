// The forwarder's way to an MQTT broker, or a cluster of them, instead of InfluxDB: each point a message of QoS 1.
// Promises: `accepted` only after a PUBACK for every point of the batch; a message the broker refuses is named, so
// that it ends in the dead letters and not in the way; always one connection, to the next broker in turn when one is
// lost. Does not promise that a point is sent once, nor order between batches. Retries, waits and isolation are the
// forwarder's.

import { promisify } from 'node:util';
import { gunzip as gunzipCallback } from 'node:zlib';
import type { WriteOutcome } from '../forwarder/answer.ts';
import type { Uplink } from '../forwarder/uplink.ts';
import { splitLines } from '../model/line-protocol.ts';
import {
  BridgeConnection,
  type ConnectionOptions,
  ConnectionRefused,
  type PublishOutcome,
} from './connection.ts';
import { type BridgeFormat, messageOf } from './message.ts';

const gunzip = promisify(gunzipCallback);

export interface BridgeOptions extends ConnectionOptions {
  /** `mqtt://` or `mqtts://`, tried in turn. At least one. */
  readonly urls: readonly string[];
  /** First levels of the topics. */
  readonly topic: string;
  readonly format: BridgeFormat;
}

export interface BridgeStats {
  /** The broker it is connected to. */
  readonly url: string | undefined;
  readonly inFlight: number;
  /** Since the start. */
  readonly connections: number;
}

/** Codes of CONNACK, of MQTT 3.1.1 and 5. */
const loginCodes: ReadonlySet<number> = new Set([4, 5, 0x86, 0x87, 0x8a, 0x8c]);
const clientIdCodes: ReadonlySet<number> = new Set([2, 0x85]);
/** Quota exceeded: there will be room again. */
const quotaExceeded = 0x97;
/** Topic name invalid, packet too large, payload format invalid: about the message, whatever the broker's mood. */
const messageCodes: ReadonlySet<number> = new Set([0x90, 0x95, 0x99]);

export class Bridge implements Uplink {
  readonly name = 'The MQTT broker';
  readonly stage = 'bridge';
  readonly #options: BridgeOptions;
  #at = 0;
  #connection: BridgeConnection | undefined;
  #opening: Promise<BridgeConnection> | undefined;
  #connections = 0;
  #sentBytes = 0;

  constructor(options: BridgeOptions) {
    this.#options = options;
  }

  get sentBytes(): number {
    return this.#sentBytes;
  }

  stats(): BridgeStats {
    const isOpen = this.#connection?.isOpen === true;
    return {
      url: isOpen ? this.#url : undefined,
      inFlight: this.#connection?.inFlight ?? 0,
      connections: this.#connections,
    };
  }

  close(): void {
    this.#connection?.close();
  }

  get #url(): string {
    return this.#options.urls[this.#at % this.#options.urls.length] ?? '';
  }

  async write(body: Buffer, encoding: 'identity' | 'gzip', signal: AbortSignal): Promise<WriteOutcome> {
    const bytes = encoding === 'gzip' ? await gunzip(body).catch(() => undefined) : body;
    // As of a server that finds no line in it: the forwarder looks at the block itself.
    if (bytes === undefined) return { kind: 'too-large', message: 'the block cannot be unpacked' };
    let connection: BridgeConnection;
    try {
      connection = await this.#connected();
    } catch (error) {
      return refusalOf(error);
    }
    const cut = (): void => connection.close();
    signal.addEventListener('abort', cut);
    try {
      return await this.#publishAll(connection, splitLines(bytes.toString('utf8')));
    } finally {
      signal.removeEventListener('abort', cut);
    }
  }

  async #connected(): Promise<BridgeConnection> {
    if (this.#connection?.isOpen) return this.#connection;
    // It was open once: the next of the brokers may be better off.
    if (this.#connection !== undefined && this.#opening === undefined) this.#at += 1;
    this.#connection = undefined;
    this.#opening ??= this.#open().finally(() => {
      this.#opening = undefined;
    });
    this.#connection = await this.#opening;
    return this.#connection;
  }

  async #open(): Promise<BridgeConnection> {
    try {
      const connection = await BridgeConnection.open(this.#url, this.#options);
      this.#connections += 1;
      return connection;
    } catch (error) {
      this.#at += 1;
      throw error;
    }
  }

  async #publishAll(connection: BridgeConnection, lines: readonly string[]): Promise<WriteOutcome> {
    const refused = new Map<number, string>();
    let isAboutPoints = true;
    let retry: string | undefined;
    const note = (outcome: PublishOutcome, index: number): void => {
      if (outcome.kind === 'lost') retry ??= outcome.reason;
      if (outcome.kind !== 'refused') return;
      if (outcome.code === quotaExceeded) retry ??= outcome.reason;
      else refused.set(index + 1, outcome.reason);
      if (!messageCodes.has(outcome.code)) isAboutPoints = false;
    };
    await Promise.all(
      lines.map(async (line, index) => {
        const message = messageOf(line, this.#options.topic, this.#options.format);
        if (message === undefined) {
          refused.set(index + 1, 'not a line of line protocol');
          return;
        }
        this.#sentBytes += message.payload.length;
        note(await connection.publish(message.topic, message.payload), index);
      }),
    );
    // Those that were refused are found again with the next try.
    if (retry !== undefined) return { kind: 'retry', reason: retry };
    if (refused.size === 0) return { kind: 'accepted' };
    const [message = ''] = refused.values();
    return {
      kind: 'rejected',
      refusal: { message, aboutPoints: isAboutPoints, numbered: refused, quoted: [] },
    };
  }
}

function refusalOf(error: unknown): WriteOutcome {
  const message = error instanceof Error ? error.message : String(error);
  if (!(error instanceof ConnectionRefused)) return { kind: 'retry', reason: message };
  if (loginCodes.has(error.code)) return { kind: 'unauthorised', message };
  if (clientIdCodes.has(error.code)) return { kind: 'unexpected', message };
  return { kind: 'retry', reason: message };
}
