// One line of line protocol as one MQTT message. Promises: the topic's levels are letters, digits, `-` and `_`, the
// rest percent-encoded, so that no name of a measurement can reach another topic and every broker takes it.

import { takeApart } from '../model/line-parts.ts';

export type BridgeFormat = 'line_protocol' | 'json';

export interface BridgeMessage {
  readonly topic: string;
  readonly payload: string;
}

function level(text: string): string {
  const encoded = text.replace(/[^\w-]/gu, (character) =>
    [...Buffer.from(character)].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join(''),
  );
  return encoded === '' ? '_' : encoded;
}

/** Tags of a series as written: `name,key=value,…`. */
function tagsOf(series: string): Map<string, string> {
  const tags = new Map<string, string>();
  for (const part of series.split(/(?<!\\),/).slice(1)) {
    const [key = '', value = ''] = part.split(/(?<!\\)=/);
    tags.set(key.replace(/\\([,= ])/g, '$1'), value.replace(/\\([,= ])/g, '$1'));
  }
  return tags;
}

function fieldValue(written: string): unknown {
  if (written.startsWith('"')) return written.slice(1, -1).replace(/\\(["\\])/g, '$1');
  if (/^[tf]/i.test(written)) return /^t/i.test(written);
  return Number(written.replace(/[iu]$/, ''));
}

/** `{prefix}/{gateway}/{device_id}/{measurement}`; undefined for what is no line. */
export function messageOf(line: string, prefix: string, format: BridgeFormat): BridgeMessage | undefined {
  const parts = takeApart(line);
  if (parts === undefined) return undefined;
  const tags = tagsOf(parts.series);
  const levels = [tags.get('gateway') ?? '', tags.get('device_id') ?? '', parts.measurement].map(level);
  const topic = `${prefix}/${levels.join('/')}`;
  if (format === 'line_protocol') return { topic, payload: line };
  const payload = {
    measurement: parts.measurement,
    tags: Object.fromEntries(tags),
    fields: Object.fromEntries(parts.fields.map(({ name, value }) => [name, fieldValue(value)])),
    // Nanoseconds are more than a JSON number holds.
    timestamp_ns: parts.tail.trim(),
  };
  return { topic, payload: JSON.stringify(payload) };
}
