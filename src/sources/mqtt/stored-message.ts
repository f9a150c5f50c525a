// The bytes of a queued or retained message in the log. Versioned; decoding trusts nothing and answers undefined
// for what it cannot read, so that a damaged record costs itself and no more.
//
// [version u8][flags u8: qos 0-1, retain 2, extra 3][topic length u16][topic][extra length u32][extra JSON][payload]

export interface StoredMessage {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
  /** MQTT 5 properties that travel with the message. */
  readonly properties?: Record<string, unknown> | undefined;
  /** On the log's running time, milliseconds. */
  readonly messageExpiry?: number | undefined;
  /** Of the subscriptions it was queued for [MQTT-3.3.4-3, -4]. */
  readonly identifiers?: readonly number[] | undefined;
  /** The shared subscription it was given for. */
  readonly share?: string | undefined;
}

const version = 1;

export function encodeStoredMessage(message: StoredMessage): Buffer {
  const topic = Buffer.from(message.topic);
  const extra = encodeExtra(message);
  const extraBytes = extra === undefined ? 0 : 4 + extra.length;
  const bytes = Buffer.allocUnsafeSlow(4 + topic.length + extraBytes + message.payload.length);
  bytes[0] = version;
  bytes[1] = message.qos | (message.retain ? 4 : 0) | (extra === undefined ? 0 : 8);
  bytes.writeUInt16BE(topic.length, 2);
  topic.copy(bytes, 4);
  let at = 4 + topic.length;
  if (extra !== undefined) {
    bytes.writeUInt32BE(extra.length, at);
    extra.copy(bytes, at + 4);
    at += extraBytes;
  }
  message.payload.copy(bytes, at);
  return bytes;
}

/** The payload is a view into `bytes`. */
export function decodeStoredMessage(bytes: Buffer): StoredMessage | undefined {
  if (bytes.length < 4 || bytes[0] !== version) return undefined;
  const flags = bytes[1] as number;
  const qos = flags & 3;
  const topicEnd = 4 + bytes.readUInt16BE(2);
  if (qos === 3 || flags > 15 || topicEnd === 4 || topicEnd > bytes.length) return undefined;
  const message = {
    topic: bytes.toString('utf8', 4, topicEnd),
    qos: qos as 0 | 1 | 2,
    retain: (flags & 4) !== 0,
  };
  if ((flags & 8) === 0) return { ...message, payload: bytes.subarray(topicEnd) };
  if (topicEnd + 4 > bytes.length) return undefined;
  const extraEnd = topicEnd + 4 + bytes.readUInt32BE(topicEnd);
  if (extraEnd > bytes.length) return undefined;
  const extra = decodeExtra(bytes.toString('utf8', topicEnd + 4, extraEnd));
  return extra === undefined ? undefined : { ...message, ...extra, payload: bytes.subarray(extraEnd) };
}

function encodeExtra(message: StoredMessage): Buffer | undefined {
  const { properties, messageExpiry, share } = message;
  const identifiers = message.identifiers?.length === 0 ? undefined : message.identifiers;
  const extra = { properties, messageExpiry, identifiers, share };
  if (Object.values(extra).every((value) => value === undefined)) return undefined;
  // Correlation data is a buffer, which JSON knows.
  return Buffer.from(JSON.stringify(extra));
}

type Extra = Pick<StoredMessage, 'properties' | 'messageExpiry' | 'identifiers' | 'share'>;

function decodeExtra(text: string): Extra | undefined {
  const extra = parseRecord(text);
  if (extra === undefined) return undefined;
  const { properties, messageExpiry, share } = extra;
  if (messageExpiry !== undefined && typeof messageExpiry !== 'number') return undefined;
  if (share !== undefined && typeof share !== 'string') return undefined;
  const identifiers = extra.identifiers === undefined ? {} : identifiersOf(extra.identifiers);
  if (identifiers === undefined) return undefined;
  if (properties === undefined) return { messageExpiry, share, ...identifiers };
  if (!isRecord(properties)) return undefined;
  const revived: Record<string, unknown> = { ...properties };
  const correlation = properties.correlationData;
  if (isRecord(correlation) && Array.isArray(correlation.data)) {
    revived.correlationData = Buffer.from(correlation.data as number[]);
  }
  return { properties: revived, messageExpiry, share, ...identifiers };
}

function identifiersOf(value: unknown): { identifiers: number[] } | undefined {
  if (!Array.isArray(value)) return undefined;
  const isIdentifier = (item: unknown) => Number.isInteger(item) && (item as number) > 0;
  return value.every(isIdentifier) ? { identifiers: value as number[] } : undefined;
}

export function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** A JSON object, undefined for anything else. */
export function parseRecord(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
