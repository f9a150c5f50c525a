// The bytes of a PUBLISH to a client. The broker library can neither tell a packet's size before it is written nor
// send several subscription identifiers or a topic alias.
//
// User properties are pairs in their order [MQTT-3.3.2-18], or an object as the library's parser makes it.

type Properties = Record<string, unknown>;
type UserProperties = readonly (readonly [name: string, value: string])[];

interface OutgoingPublish {
  readonly topic: string;
  readonly payload: Buffer;
  readonly qos: 0 | 1 | 2;
  readonly retain: boolean;
  readonly dup: boolean;
  readonly messageId: number;
  readonly properties: Properties | undefined;
  readonly identifiers: readonly number[];
  /** Remaining lifetime in seconds. */
  readonly expiryS: number | undefined;
  readonly topicAlias: number | undefined;
}

/** The packet up to its payload, which follows unchanged. */
export function encodePublishHead(publish: OutgoingPublish, version: number): Buffer {
  const { topic, qos } = publish;
  const topicBytes = Buffer.byteLength(topic);
  const properties = version === 5 ? encodeProperties(publish) : undefined;
  const propertyBytes = properties === undefined ? 0 : varintBytes(properties.length) + properties.length;
  const remaining = 2 + topicBytes + (qos > 0 ? 2 : 0) + propertyBytes + publish.payload.length;
  const head = Buffer.allocUnsafe(1 + varintBytes(remaining) + remaining - publish.payload.length);
  head[0] = 0x30 | (publish.dup ? 8 : 0) | (qos << 1) | (publish.retain ? 1 : 0);
  let at = writeVarint(head, 1, remaining);
  at = head.writeUInt16BE(topicBytes, at);
  at += head.write(topic, at);
  if (qos > 0) at = head.writeUInt16BE(publish.messageId, at);
  if (properties !== undefined) {
    at = writeVarint(head, at, properties.length);
    properties.copy(head, at);
  }
  return head;
}

const none = Buffer.alloc(0);

function encodeProperties({ properties, identifiers, expiryS, topicAlias }: OutgoingPublish): Buffer {
  if (
    properties === undefined &&
    identifiers.length === 0 &&
    expiryS === undefined &&
    topicAlias === undefined
  )
    return none;
  const parts: Buffer[] = [];
  const { payloadFormatIndicator, contentType, responseTopic, correlationData, userProperties } =
    properties ?? {};
  if (typeof payloadFormatIndicator === 'boolean')
    parts.push(Buffer.from([0x01, payloadFormatIndicator ? 1 : 0]));
  if (expiryS !== undefined) {
    const expiry = Buffer.from([0x02, 0, 0, 0, 0]);
    expiry.writeUInt32BE(expiryS, 1);
    parts.push(expiry);
  }
  if (topicAlias !== undefined) parts.push(Buffer.from([0x23, topicAlias >> 8, topicAlias & 0xff]));
  if (typeof contentType === 'string') parts.push(Buffer.from([0x03]), prefixed(contentType));
  if (typeof responseTopic === 'string') parts.push(Buffer.from([0x08]), prefixed(responseTopic));
  if (Buffer.isBuffer(correlationData)) parts.push(Buffer.from([0x09]), prefixed(correlationData));
  for (const [name, value] of pairsOf(userProperties))
    parts.push(Buffer.from([0x26]), prefixed(name), prefixed(value));
  for (const identifier of identifiers) {
    const bytes = Buffer.alloc(1 + varintBytes(identifier));
    bytes[0] = 0x0b;
    writeVarint(bytes, 1, identifier);
    parts.push(bytes);
  }
  return Buffer.concat(parts);
}

/** Pairs as they are kept, or names with one or more values as earlier versions stored them. */
function pairsOf(userProperties: unknown): UserProperties {
  if (Array.isArray(userProperties))
    return userProperties.filter(
      (pair): pair is [string, string] =>
        Array.isArray(pair) && typeof pair[0] === 'string' && typeof pair[1] === 'string',
    );
  if (typeof userProperties !== 'object' || userProperties === null) return [];
  return Object.entries(userProperties).flatMap(([name, values]) =>
    [values].flat().map((value): [string, string] => [name, String(value)]),
  );
}

function prefixed(content: string | Buffer): Buffer {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content;
  const length = Buffer.from([bytes.length >> 8, bytes.length & 0xff]);
  return Buffer.concat([length, bytes]);
}

function varintBytes(value: number): number {
  if (value < 128) return 1;
  if (value < 16_384) return 2;
  return value < 2_097_152 ? 3 : 4;
}

function writeVarint(bytes: Buffer, start: number, value: number): number {
  let rest = value;
  let at = start;
  while (rest >= 128) {
    bytes[at] = (rest & 0x7f) | 0x80;
    rest >>>= 7;
    at += 1;
  }
  bytes[at] = rest;
  return at + 1;
}
