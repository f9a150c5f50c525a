// What a source received, before decoding, and the contract by which it hands it on.

export type Transport = 'mqtt' | 'serial' | 'http' | 'flume' | 'host';

/**
 * Which branch of a device's topic tree the message belongs to, on any transport:
 * `telemetry/{measurement}`, `status/{kind}`, `alarms/{kind}`, `commands/{kind}/ack`.
 */
export type Channel = 'telemetry' | 'status' | 'alarms' | 'command-ack';

export interface Message {
  readonly transport: Transport;
  /** The authenticated sender; never taken from the payload. */
  readonly deviceId: string;
  readonly channel: Channel;
  /** The measurement of telemetry, or the kind of the other channels. */
  readonly name: string;
  readonly payload: Buffer;
  /** Monotonic milliseconds when its last byte was read: the start of every latency we publish. */
  readonly receivedMonotonicMs: number;
}

/**
 * Hands a message to the gateway. Resolves when everything in it is durable: the source may then answer
 * PUBACK, PUBREC, HTTP 2xx or a serial ACK. A message that can never be taken is dead-lettered and resolves as
 * well. Rejects with a `GatewayError` when it may succeed later (`JOURNAL_FULL`, `JOURNAL_STALLED`,
 * `JOURNAL_FAILED`); the source then answers in its own protocol: no PUBACK, HTTP 503, serial NAK.
 */
export type Sink = (message: Message) => Promise<void>;
