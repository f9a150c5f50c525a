// One connection to an MQTT broker, for publishing alone. Promises: every publish ends as taken (PUBACK), refused (a
// reason code of MQTT 5) or lost (the connection ended, or nothing was acknowledged for too long); never more
// unacknowledged messages than the broker allows. Never sends anything again: the journal does.
//
// The session is clean: what a persistent one would keep for a publisher are its unacknowledged messages, and those
// are in the journal, which survives this process. The client id is the same every time, so that a broker drops what
// is left of the last connection. MQTT 5 where the broker knows it, else 3.1.1.

import { readFile } from 'node:fs/promises';
import { connect, ErrorWithReasonCode, type IClientOptions, type MqttClient } from 'mqtt';

export type PublishOutcome =
  | { readonly kind: 'taken' }
  | { readonly kind: 'refused'; readonly code: number; readonly reason: string }
  | { readonly kind: 'lost'; readonly reason: string };

export interface ConnectionOptions {
  readonly clientId: string;
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  /** PEM file of the CA to trust, for `mqtts://`; read with every connection, so that a renewed one holds. */
  readonly caPath?: string | undefined;
  /** Unacknowledged messages at once; fewer where the broker says so. */
  readonly inFlightMax: number;
  /** For the connection, and for the silence of a broker that owes an acknowledgement. */
  readonly timeoutMs: number;
}

/** The broker said no to the connection. */
export class ConnectionRefused extends Error {
  /** Of CONNACK, in the numbers of either version. */
  readonly code: number;

  constructor(code: number, message: string) {
    super(message);
    this.code = code;
  }
}

/** Unsupported protocol version, in CONNACK of 3.1.1 and of 5. */
const versionCodes: ReadonlySet<number> = new Set([1, 0x84]);
const packetTooLarge = 0x95;
const firstErrorCode = 0x80;
/** What a PUBLISH needs beside topic and payload, at most. */
const headerBytesMax = 16;

export class BridgeConnection {
  readonly #client: MqttClient;
  readonly #options: ConnectionOptions;
  readonly #inFlightMax: number;
  readonly #packetBytesMax: number;
  readonly #waiting: (() => void)[] = [];
  /** Ends every publish under way. */
  readonly #losses = new Set<(reason: string) => void>();
  #inFlight = 0;
  #lostBecause: string | undefined;
  #watch: NodeJS.Timeout | undefined;

  private constructor(
    client: MqttClient,
    options: ConnectionOptions,
    inFlightMax: number,
    packetBytesMax: number,
  ) {
    this.#client = client;
    this.#options = options;
    this.#inFlightMax = inFlightMax;
    this.#packetBytesMax = packetBytesMax;
  }

  /** @throws ConnectionRefused, or Error where there is no broker */
  static async open(url: string, options: ConnectionOptions): Promise<BridgeConnection> {
    try {
      return await BridgeConnection.#open(url, options, 5);
    } catch (error) {
      if (!(error instanceof ConnectionRefused) || !versionCodes.has(error.code)) throw error;
      return await BridgeConnection.#open(url, options, 4);
    }
  }

  static async #open(
    url: string,
    options: ConnectionOptions,
    protocolVersion: 4 | 5,
  ): Promise<BridgeConnection> {
    const { clientId, username, password, caPath, timeoutMs } = options;
    const settings: IClientOptions = {
      clientId,
      clean: true,
      keepalive: 30,
      reconnectPeriod: 0,
      connectTimeout: timeoutMs,
      protocolVersion,
      ...(username === undefined ? {} : { username }),
      ...(password === undefined ? {} : { password }),
      ...(caPath === undefined ? {} : { ca: await readFile(caPath) }),
    };
    const client = connect(url, settings);
    return await new Promise<BridgeConnection>((resolve, reject) => {
      let reason = 'closed before it was accepted';
      const fail = (error: Error): void => {
        client.on('error', () => undefined);
        client.end(true);
        reject(error);
      };
      client.once('close', () => fail(new Error(reason)));
      client.on('error', (error) => {
        reason = error.message;
        fail(error instanceof ErrorWithReasonCode ? new ConnectionRefused(error.code, error.message) : error);
      });
      client.once('connect', ({ properties }) => {
        client.removeAllListeners('error');
        const inFlightMax = Math.min(options.inFlightMax, properties?.receiveMaximum ?? 65_535);
        const bytesMax = properties?.maximumPacketSize ?? Number.POSITIVE_INFINITY;
        const connection = new BridgeConnection(client, options, inFlightMax, bytesMax);
        connection.#listen();
        resolve(connection);
      });
    });
  }

  #listen(): void {
    let reason = 'the broker closed the connection';
    this.#client.on('error', (error) => {
      reason = error.message;
    });
    this.#client.on('disconnect', ({ reasonCode }) => {
      reason = `the broker closed the connection (reason ${reasonCode ?? 0})`;
    });
    this.#client.once('close', () => this.#lose(reason));
  }

  get isOpen(): boolean {
    return this.#lostBecause === undefined;
  }

  get inFlight(): number {
    return this.#inFlight;
  }

  async publish(topic: string, payload: string): Promise<PublishOutcome> {
    if (Buffer.byteLength(topic) + Buffer.byteLength(payload) + headerBytesMax > this.#packetBytesMax) {
      const reason = `larger than the broker takes (${this.#packetBytesMax} bytes)`;
      return { kind: 'refused', code: packetTooLarge, reason };
    }
    while (this.isOpen && this.#inFlight >= this.#inFlightMax) {
      await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
    if (this.#lostBecause !== undefined) return { kind: 'lost', reason: this.#lostBecause };
    return await this.#send(topic, payload);
  }

  #send(topic: string, payload: string): Promise<PublishOutcome> {
    this.#inFlight += 1;
    this.#watch ??= this.#startWatch();
    return new Promise((resolve) => {
      const lose = (reason: string): void => end({ kind: 'lost', reason });
      const end = (outcome: PublishOutcome): void => {
        if (!this.#losses.delete(lose)) return;
        this.#inFlight -= 1;
        this.#restartWatch();
        this.#waiting.shift()?.();
        resolve(outcome);
      };
      this.#losses.add(lose);
      this.#client.publish(topic, payload, { qos: 1 }, (error) => {
        if (!error) return end({ kind: 'taken' });
        if (error instanceof ErrorWithReasonCode && error.code >= firstErrorCode) {
          return end({ kind: 'refused', code: error.code, reason: error.message });
        }
        end({ kind: 'lost', reason: error.message });
      });
    });
  }

  /** A broker that owes an acknowledgement and says nothing, though its pings come: gone. */
  #startWatch(): NodeJS.Timeout {
    return setTimeout(() => this.#lose('no acknowledgement in time'), this.#options.timeoutMs);
  }

  #restartWatch(): void {
    clearTimeout(this.#watch);
    this.#watch = this.#inFlight > 0 && this.isOpen ? this.#startWatch() : undefined;
  }

  #lose(reason: string): void {
    if (this.#lostBecause !== undefined) return;
    this.#lostBecause = reason;
    clearTimeout(this.#watch);
    this.#client.end(true);
    for (const lose of [...this.#losses]) lose(reason);
    for (const go of this.#waiting.splice(0)) go();
  }

  close(): void {
    // A DISCONNECT where it is idle; else the connection just ends.
    if (this.isOpen && this.#inFlight === 0) this.#client.end();
    this.#lose('closed');
  }
}
