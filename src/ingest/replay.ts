// What a dead letter was: a line that would have been appended, or the message a device sent. Pure. Knows letters of
// all versions: what older ones did not write down is told from the rest.

import type { StoredLetter } from '../journal/contract.ts';
import type { Channel, Message } from '../model/message.ts';
import type { PointTime } from '../model/point.ts';

/** Refusals of a field of a message that was understood: its line is complete, with tags and time. */
const lineCodes: ReadonlySet<string> = new Set(['FIELD_TYPE_CONFLICT', 'FIELD_LIMIT']);

const channels: ReadonlySet<string> = new Set<Channel>(['telemetry', 'status', 'alarms', 'command-ack']);

function isChannel(text: string): text is Channel {
  return channels.has(text);
}

/** Undefined for a letter that is a message. */
export function lineIn({ stage, code, bytes }: StoredLetter): string | undefined {
  const isLine = stage === 'influx' || stage === 'bridge' ? code !== 'BLOCK_UNREADABLE' : lineCodes.has(code);
  return isLine ? bytes.toString('utf8') : undefined;
}

/** Undefined for a letter that is none. */
export function messageIn({ stage, origin, deviceId, transport, bytes }: StoredLetter): Message | undefined {
  const slash = origin?.indexOf('/') ?? -1;
  const channel = origin?.slice(0, slash) ?? '';
  if (stage !== 'ingest' || deviceId === undefined || !isChannel(channel)) return undefined;
  return {
    transport: transport ?? 'mqtt',
    deviceId,
    channel,
    name: origin?.slice(slash + 1) ?? '',
    payload: bytes,
    receivedMonotonicMs: 0,
  };
}

/** When the sample of this number came: each has its own nanosecond, or two of them could be one point. */
export function arrivalOf({ time, wallMs }: StoredLetter, index: number): PointTime {
  // A letter is written the moment it comes.
  const came = time ?? { timeNs: BigInt(Math.floor(wallMs)) * 1_000_000n };
  return { ...came, timeNs: came.timeNs + BigInt(index) };
}

/** Whether one of the lines has no date yet. */
export function isUndated(lines: string): boolean {
  return / b\d+\+\d+$/m.test(lines);
}

/** A value of a line as ingest knows it. */
export function valueIn(written: string): number | boolean | string {
  if (written.startsWith('"')) return written.slice(1, -1).replace(/\\(["\\])/g, '$1');
  if (/^[tTfF]/.test(written)) return /^[tT]/.test(written);
  return Number(written.replace(/[iu]$/, ''));
}

/** The time of a line, as its tail has it; undefined where there is none. */
export function timeIn(tail: string): PointTime | undefined {
  const match = /^ (?:b(\d+)\+)?(\d{1,19})$/.exec(tail);
  if (match === null) return undefined;
  const timeNs = BigInt(match[2] ?? '0');
  return match[1] === undefined ? { timeNs } : { timeNs, boot: Number(match[1]) };
}
