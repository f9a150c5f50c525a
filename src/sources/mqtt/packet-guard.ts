// Stands in front of the broker's parser. Promises that the parser sees only whole packets that are well formed by
// the specification's syntax and within our limits; the first offence ends the stream. Bytes held back are bounded
// by the packet limit, and by the CONNECT limit for strangers. Zero-copy while packets do not straddle chunks.
// It does not look at meaning (who may do what): that is the broker's and the access rules' part.

import { isTopicFilter } from '../../model/topic.ts';
import { isFreeText, isIdentifierText } from './utf8.ts';

export type Offence =
  | 'malformed'
  | 'protocol-error'
  | 'protocol-version'
  | 'client-id'
  | 'topic-invalid'
  | 'packet-too-large';

/** Reason codes of MQTT 5 [2.4] for a DISCONNECT, or a CONNACK, that names the offence. */
export const offenceReasonCodes: Readonly<Record<Offence, number>> = {
  malformed: 0x81,
  'protocol-error': 0x82,
  'protocol-version': 0x84,
  'client-id': 0x85,
  'topic-invalid': 0x90,
  'packet-too-large': 0x95,
};

export interface GuardLimits {
  readonly connectBytes: number;
  readonly packetBytes: number;
  readonly topicBytes: number;
  readonly topicLevels: number;
  readonly clientIdBytes: number;
}

const firstAllocation = 512;

export class PacketGuard {
  readonly #limits: GuardLimits;
  #offence: Offence | undefined;
  /** Protocol level of the CONNECT; 0 until it came. */
  #version = 0;
  #announcedVersion = 0;
  #ended = false;
  #held: Buffer | undefined;
  #heldBytes = 0;
  #need = 0;

  constructor(limits: GuardLimits) {
    this.#limits = limits;
  }

  get offence(): Offence | undefined {
    return this.#offence;
  }

  /** 3, 4 or 5 once a CONNECT passed, 0 before. */
  get version(): number {
    return this.#version;
  }

  /** What a CONNECT said of its level, also one that was refused; tells in which form to answer. */
  get announcedVersion(): number {
    return this.#announcedVersion;
  }

  get heldBytes(): number {
    return this.#heldBytes;
  }

  /** Takes a chunk; returns the whole, good packets it completes. Afterwards look at `offence`. */
  push(chunk: Buffer): Buffer | undefined {
    if (this.#offence !== undefined || this.#ended) return undefined;
    let completed: Buffer | undefined;
    let start = 0;
    if (this.#heldBytes > 0) {
      start = this.#extendHeld(chunk);
      if (this.#offence !== undefined || this.#held === undefined) return undefined;
      if (this.#need === 0 || this.#heldBytes < this.#need) return undefined;
      const packet = this.#held.subarray(0, this.#need);
      this.#held = undefined;
      this.#heldBytes = 0;
      this.#offence = this.#check(packet, 0, packet.length);
      if (this.#offence !== undefined) return undefined;
      completed = packet;
    }
    const end = this.#scan(chunk, start);
    if (end === start) return completed;
    const rest = start === 0 && end === chunk.length ? chunk : chunk.subarray(start, end);
    return completed === undefined ? rest : Buffer.concat([completed, rest]);
  }

  /** Checks packet after packet; returns where the last good one ends and holds back what is incomplete. */
  #scan(chunk: Buffer, from: number): number {
    let at = from;
    while (at < chunk.length && !this.#ended) {
      const size = this.#packetSize(chunk, at, chunk.length);
      if (this.#offence !== undefined) return at;
      if (size === 0 || at + size > chunk.length) {
        this.#hold(chunk, at, size);
        return at;
      }
      this.#offence = this.#check(chunk, at, at + size);
      if (this.#offence !== undefined) return at;
      at += size;
    }
    return at;
  }

  /** Size on the wire from the fixed header at `at`; 0 when the header is not complete. Sets the offence. */
  #packetSize(bytes: Buffer, at: number, end: number): number {
    const first = bytes[at] as number;
    const type = first >> 4;
    // The cheapest refusals come first: neither the length nor the body of these is of interest.
    if (this.#version === 0 && type !== 1) {
      this.#offence = 'protocol-error';
      return 0;
    }
    let remaining = 0;
    let scale = 1;
    for (let index = 1; index <= 4; index += 1) {
      if (at + index >= end) return 0;
      const byte = bytes[at + index] as number;
      remaining += (byte & 0x7f) * scale;
      if (byte < 0x80) {
        const size = 1 + index + remaining;
        const limit = this.#version === 0 ? this.#limits.connectBytes : this.#limits.packetBytes;
        if (size > limit) this.#offence = 'packet-too-large';
        return size;
      }
      scale *= 128;
    }
    this.#offence = 'malformed';
    return 0;
  }

  #hold(chunk: Buffer, at: number, size: number): void {
    const bytes = chunk.length - at;
    // Grows with what arrived, not with what was announced.
    this.#held = Buffer.allocUnsafeSlow(Math.max(firstAllocation, bytes));
    chunk.copy(this.#held, 0, at);
    this.#heldBytes = bytes;
    this.#need = size;
  }

  /** Moves bytes of the chunk into the held packet; returns how many it took. */
  #extendHeld(chunk: Buffer): number {
    let taken = 0;
    while (this.#need === 0 && taken < chunk.length) {
      this.#append(chunk, taken, taken + 1);
      taken += 1;
      this.#need = this.#packetSize(this.#held as Buffer, 0, this.#heldBytes);
      if (this.#offence !== undefined) return taken;
    }
    if (this.#need === 0) return taken;
    const wanted = Math.min(this.#need - this.#heldBytes, chunk.length - taken);
    this.#append(chunk, taken, taken + wanted);
    return taken + wanted;
  }

  #append(chunk: Buffer, start: number, end: number): void {
    const held = this.#held as Buffer;
    const bytes = this.#heldBytes + end - start;
    if (bytes > held.length) {
      const larger = Buffer.allocUnsafeSlow(Math.max(bytes, Math.min(held.length * 2, this.#need)));
      held.copy(larger, 0, 0, this.#heldBytes);
      this.#held = larger;
    }
    chunk.copy(this.#held as Buffer, this.#heldBytes, start, end);
    this.#heldBytes = bytes;
  }

  #check(bytes: Buffer, start: number, end: number): Offence | undefined {
    const first = bytes[start] as number;
    const type = first >> 4;
    const flags = first & 0x0f;
    let at = start + 1;
    while ((bytes[at] as number) >= 0x80) at += 1;
    at += 1;
    if (type === 3) return checkPublish(bytes, at, end, flags, this.#version, this.#limits);
    // [MQTT-2.2.2-2]: PUBREL, SUBSCRIBE and UNSUBSCRIBE carry 0010, all others 0000.
    if (flags !== (type === 6 || type === 8 || type === 10 ? 2 : 0)) return 'malformed';
    switch (type) {
      case 1: {
        if (this.#version !== 0) return 'protocol-error';
        this.#announcedVersion = announcedVersion(bytes, at, end);
        const result = checkConnect(bytes, at, end, this.#limits);
        if (typeof result === 'string') return result;
        this.#version = result;
        return undefined;
      }
      case 4:
      case 5:
      case 6:
      case 7:
        return checkAcknowledgement(bytes, at, end, type, this.#version);
      case 8:
      case 10:
        return checkFilters(bytes, at, end, type === 8, this.#version, this.#limits);
      case 12:
        return at === end ? undefined : 'malformed';
      case 14: {
        const offence = checkDisconnect(bytes, at, end, this.#version);
        // Nothing may follow [MQTT-3.14.4-2]; and the parser would read a bare DISCONNECT's reason code from it.
        this.#ended = offence === undefined;
        return offence;
      }
      default:
        // Reserved, for clients only (CONNACK, SUBACK …), or AUTH, which no accepted CONNECT asked for.
        return 'protocol-error';
    }
  }
}

function checkTopicName(bytes: Buffer, start: number, end: number, limits: GuardLimits): Offence | undefined {
  if (end - start > limits.topicBytes) return 'topic-invalid';
  let levels = 1;
  for (let at = start; at < end; at += 1) {
    const byte = bytes[at] as number;
    if (byte === 0x2f) levels += 1;
    else if (byte === 0x23 || byte === 0x2b) return 'topic-invalid';
    else if (byte >= 0x80) {
      if (!isIdentifierText(bytes, start, end)) return 'malformed';
    } else if (byte < 0x20 || byte === 0x7f) return 'malformed';
  }
  return levels > limits.topicLevels ? 'topic-invalid' : undefined;
}

/** Where a length-prefixed field ends, or -1 when it does not fit. */
function fieldEnd(bytes: Buffer, at: number, end: number): number {
  if (at + 2 > end) return -1;
  const fieldEnds = at + 2 + (((bytes[at] as number) << 8) | (bytes[at + 1] as number));
  return fieldEnds > end ? -1 : fieldEnds;
}

function checkPublish(
  bytes: Buffer,
  start: number,
  end: number,
  flags: number,
  version: number,
  limits: GuardLimits,
): Offence | undefined {
  const qos = (flags >> 1) & 3;
  if (qos === 3 || (qos === 0 && flags >= 8)) return 'malformed';
  let at = fieldEnd(bytes, start, end);
  if (at < 0) return 'malformed';
  // An empty topic stands for a topic alias in version 5; the broker sees to that.
  if (at === start + 2 && version !== 5) return 'malformed';
  const offence = checkTopicName(bytes, start + 2, at, limits);
  if (offence !== undefined) return offence;
  if (qos > 0) {
    if (!hasPacketId(bytes, at, end)) return 'malformed';
    at += 2;
  }
  if (version !== 5) return undefined;
  return checkProperties(bytes, at, end, inPublish, false);
}

function hasPacketId(bytes: Buffer, at: number, end: number): boolean {
  return at + 2 <= end && ((bytes[at] as number) | (bytes[at + 1] as number)) !== 0;
}

function announcedVersion(bytes: Buffer, start: number, end: number): number {
  const nameEnd = fieldEnd(bytes, start, end);
  return nameEnd < 0 || nameEnd >= end ? 0 : (bytes[nameEnd] as number);
}

function checkConnect(bytes: Buffer, start: number, end: number, limits: GuardLimits): Offence | number {
  const nameEnd = fieldEnd(bytes, start, end);
  if (nameEnd < 0 || nameEnd + 4 > end) return 'malformed';
  const name = bytes.toString('latin1', start + 2, nameEnd);
  if (name !== 'MQTT' && name !== 'MQIsdp') return 'malformed';
  const version = bytes[nameEnd] as number;
  if (name === 'MQTT' ? version !== 4 && version !== 5 : version !== 3) return 'protocol-version';
  const flags = bytes[nameEnd + 1] as number;
  const hasWill = (flags & 0x04) !== 0;
  const hasUserName = (flags & 0x80) !== 0;
  const hasPassword = (flags & 0x40) !== 0;
  // [MQTT-3.1.2-3, -11 to -15, -22]
  if ((flags & 0x01) !== 0 || (flags & 0x18) === 0x18) return 'malformed';
  if (!hasWill && (flags & 0x38) !== 0) return 'malformed';
  if (hasPassword && !hasUserName && version !== 5) return 'malformed';
  let at = nameEnd + 4;
  if (version === 5) {
    const offence = checkProperties(bytes, at, end, inConnect, false);
    if (offence !== undefined) return offence;
    at = propertiesEnd(bytes, at, end);
  }
  const idStart = at + 2;
  at = fieldEnd(bytes, at, end);
  if (at < 0 || !isIdentifierText(bytes, idStart, at)) return 'malformed';
  if (at - idStart > limits.clientIdBytes) return 'client-id';
  if (hasWill) {
    if (version === 5) {
      const offence = checkProperties(bytes, at, end, inWill, false);
      if (offence !== undefined) return offence;
      at = propertiesEnd(bytes, at, end);
    }
    const topicEnd = fieldEnd(bytes, at, end);
    if (topicEnd < 0 || topicEnd === at + 2) return 'malformed';
    const offence = checkTopicName(bytes, at + 2, topicEnd, limits);
    if (offence !== undefined) return offence;
    at = fieldEnd(bytes, topicEnd, end);
    if (at < 0) return 'malformed';
  }
  if (hasUserName) {
    const nameStart = at + 2;
    at = fieldEnd(bytes, at, end);
    if (at < 0 || !isIdentifierText(bytes, nameStart, at)) return 'malformed';
  }
  if (hasPassword) at = fieldEnd(bytes, at, end);
  return at === end ? version : 'malformed';
}

const acknowledgementCodes = new Set([0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99]);
const releaseCodes = new Set([0x00, 0x92]);
const disconnectCodes = new Set([
  0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99,
]);

function checkAcknowledgement(
  bytes: Buffer,
  start: number,
  end: number,
  type: number,
  version: number,
): Offence | undefined {
  if (!hasPacketId(bytes, start, end)) return 'malformed';
  if (end === start + 2) return undefined;
  if (version !== 5) return 'malformed';
  const codes = type < 6 ? acknowledgementCodes : releaseCodes;
  if (!codes.has(bytes[start + 2] as number)) return 'protocol-error';
  return end === start + 3 ? undefined : checkProperties(bytes, start + 3, end, inAcknowledgement, true);
}

function checkDisconnect(bytes: Buffer, start: number, end: number, version: number): Offence | undefined {
  if (start === end) return undefined;
  if (version !== 5) return 'malformed';
  if (!disconnectCodes.has(bytes[start] as number)) return 'protocol-error';
  return end === start + 1 ? undefined : checkProperties(bytes, start + 1, end, inDisconnect, true);
}

function checkFilters(
  bytes: Buffer,
  start: number,
  end: number,
  subscribing: boolean,
  version: number,
  limits: GuardLimits,
): Offence | undefined {
  if (!hasPacketId(bytes, start, end)) return 'malformed';
  let at = start + 2;
  if (version === 5) {
    const offence = checkProperties(bytes, at, end, subscribing ? inSubscribe : inUnsubscribe, false);
    if (offence !== undefined) return offence;
    at = propertiesEnd(bytes, at, end);
  }
  // [MQTT-3.8.3-3, MQTT-3.10.3-2]
  if (at === end) return 'protocol-error';
  while (at < end) {
    const filterStart = at + 2;
    at = fieldEnd(bytes, at, end);
    if (at < 0 || !isIdentifierText(bytes, filterStart, at)) return 'malformed';
    if (at - filterStart > limits.topicBytes) return 'topic-invalid';
    const filter = bytes.toString('utf8', filterStart, at);
    if (!isTopicFilter(filter) || filter.split('/').length > limits.topicLevels) return 'topic-invalid';
    // The broker collects a SUBSCRIBE's filters in a plain object; this one would become its prototype.
    if (filter === '__proto__') return 'topic-invalid';
    const isShared = version === 5 && filter.startsWith('$share/');
    // [MQTT-4.8.2-1, -2]
    if (isShared && !/^\$share\/[^/+#]+\/./su.test(filter)) return 'topic-invalid';
    if (!subscribing) continue;
    if (at >= end) return 'malformed';
    const options = bytes[at] as number;
    at += 1;
    if ((options & 3) === 3 || (options & (version === 5 ? 0xc0 : 0xfc)) !== 0) return 'malformed';
    if ((options & 0x30) === 0x30) return 'protocol-error';
    // [MQTT-3.8.3-4]
    if (isShared && (options & 4) !== 0) return 'protocol-error';
  }
  return undefined;
}

// Where a property may appear [MQTT 5, 2.2.2.2], sent by a client.
const inConnect = 1;
const inWill = 2;
const inPublish = 4;
const inSubscribe = 8;
const inUnsubscribe = 16;
const inAcknowledgement = 32;
const inDisconnect = 64;
const anywhere = 127;

type PropertyKind =
  | 'flag'
  | 'u16'
  | 'positive-u16'
  | 'u32'
  | 'positive-u32'
  | 'varint'
  | 'text'
  | 'topic'
  | 'bytes'
  | 'pair';

interface Property {
  readonly kind: PropertyKind;
  readonly places: number;
}

const properties: (Property | undefined)[] = [];
properties[0x01] = { kind: 'flag', places: inPublish | inWill };
properties[0x02] = { kind: 'u32', places: inPublish | inWill };
properties[0x03] = { kind: 'text', places: inPublish | inWill };
properties[0x08] = { kind: 'topic', places: inPublish | inWill };
properties[0x09] = { kind: 'bytes', places: inPublish | inWill };
properties[0x0b] = { kind: 'varint', places: inSubscribe };
properties[0x11] = { kind: 'u32', places: inConnect | inDisconnect };
properties[0x15] = { kind: 'text', places: inConnect };
properties[0x16] = { kind: 'bytes', places: inConnect };
properties[0x17] = { kind: 'flag', places: inConnect };
properties[0x18] = { kind: 'u32', places: inWill };
properties[0x19] = { kind: 'flag', places: inConnect };
properties[0x1f] = { kind: 'text', places: inAcknowledgement | inDisconnect };
properties[0x21] = { kind: 'positive-u16', places: inConnect };
properties[0x22] = { kind: 'u16', places: inConnect };
properties[0x23] = { kind: 'positive-u16', places: inPublish };
properties[0x26] = { kind: 'pair', places: anywhere };
properties[0x27] = { kind: 'positive-u32', places: inConnect };

/** Thousands of user properties in one packet only burn time. */
const userPropertiesMax = 32;

/** 0 when it does not fit, or has more bytes than its value needs [MQTT-1.5.5-1]. */
function varintBytes(bytes: Buffer, at: number, end: number): number {
  for (let index = 0; index < 4; index += 1) {
    if (at + index >= end) return 0;
    const byte = bytes[at + index] as number;
    if (byte < 0x80) return byte === 0 && index > 0 ? 0 : index + 1;
  }
  return 0;
}

function varintValue(bytes: Buffer, at: number, size: number): number {
  let value = 0;
  for (let index = size - 1; index >= 0; index -= 1)
    value = value * 128 + ((bytes[at + index] as number) & 0x7f);
  return value;
}

/** Where the property list at `at` ends; only for a list that was checked. */
function propertiesEnd(bytes: Buffer, at: number, end: number): number {
  const size = varintBytes(bytes, at, end);
  return at + size + varintValue(bytes, at, size);
}

function checkProperties(
  bytes: Buffer,
  start: number,
  packetEnd: number,
  place: number,
  fillsPacket: boolean,
): Offence | undefined {
  const size = varintBytes(bytes, start, packetEnd);
  if (size === 0) return 'malformed';
  const length = varintValue(bytes, start, size);
  let at = start + size;
  const end = at + length;
  if (end > packetEnd || (fillsPacket && end !== packetEnd)) return 'malformed';
  let seenLow = 0;
  let seenHigh = 0;
  let userProperties = 0;
  while (at < end) {
    const id = bytes[at] as number;
    const property = properties[id];
    if (property === undefined) return 'malformed';
    if ((property.places & place) === 0) return 'protocol-error';
    if (property.kind === 'pair') {
      userProperties += 1;
      if (userProperties > userPropertiesMax) return 'protocol-error';
    } else {
      const bit = 1 << (id & 31);
      const seen = id < 32 ? seenLow : seenHigh;
      if ((seen & bit) !== 0) return 'protocol-error';
      if (id < 32) seenLow |= bit;
      else seenHigh |= bit;
    }
    const next = propertyEnd(bytes, at + 1, end, property.kind);
    if (typeof next === 'string') return next;
    at = next;
  }
  return undefined;
}

function propertyEnd(bytes: Buffer, at: number, end: number, kind: PropertyKind): number | Offence {
  switch (kind) {
    case 'flag':
      if (at + 1 > end) return 'malformed';
      return (bytes[at] as number) > 1 ? 'protocol-error' : at + 1;
    case 'u16':
      return at + 2 > end ? 'malformed' : at + 2;
    case 'positive-u16':
      if (at + 2 > end) return 'malformed';
      return bytes.readUInt16BE(at) === 0 ? 'protocol-error' : at + 2;
    case 'u32':
      return at + 4 > end ? 'malformed' : at + 4;
    case 'positive-u32':
      if (at + 4 > end) return 'malformed';
      return bytes.readUInt32BE(at) === 0 ? 'protocol-error' : at + 4;
    case 'varint': {
      const size = varintBytes(bytes, at, end);
      if (size === 0) return 'malformed';
      return varintValue(bytes, at, size) === 0 ? 'protocol-error' : at + size;
    }
    case 'bytes': {
      const after = fieldEnd(bytes, at, end);
      return after < 0 ? 'malformed' : after;
    }
    case 'text':
    case 'topic': {
      const after = fieldEnd(bytes, at, end);
      if (after < 0 || !isFreeText(bytes, at + 2, after)) return 'malformed';
      if (kind === 'text') return after;
      for (let index = at + 2; index < after; index += 1) {
        if (bytes[index] === 0x23 || bytes[index] === 0x2b) return 'protocol-error';
      }
      return after;
    }
    case 'pair': {
      const nameEnd = fieldEnd(bytes, at, end);
      if (nameEnd < 0 || !isFreeText(bytes, at + 2, nameEnd)) return 'malformed';
      const valueEnd = fieldEnd(bytes, nameEnd, end);
      return valueEnd < 0 || !isFreeText(bytes, nameEnd + 2, valueEnd) ? 'malformed' : valueEnd;
    }
  }
}
