// The gateway's topic tree (docs: the outside contract) and MQTT topic matching [MQTT-4.7]. Pure.

import type { Channel } from './message.ts';

/** Device ids are user names, topic levels, file names and tag values: one grammar that is safe in all four. */
export const deviceIdPattern = /^[a-z0-9][a-z0-9_-]{0,63}$/;

export function isDeviceId(text: string): boolean {
  return deviceIdPattern.test(text);
}

export interface DeviceTopic {
  readonly deviceId: string;
  readonly channel: Channel | 'commands';
  /** Measurement or kind: everything below the channel, at least one level. */
  readonly name: string;
}

/** Parses `{root}/devices/{id}/{channel}/{name…}`; undefined for any other topic. */
export function parseDeviceTopic(root: string, topic: string): DeviceTopic | undefined {
  const prefix = `${root}/devices/`;
  if (!topic.startsWith(prefix)) return undefined;
  const idEnd = topic.indexOf('/', prefix.length);
  if (idEnd < 0) return undefined;
  const deviceId = topic.slice(prefix.length, idEnd);
  const channelEnd = topic.indexOf('/', idEnd + 1);
  if (channelEnd < 0 || channelEnd === topic.length - 1) return undefined;
  const channel = topic.slice(idEnd + 1, channelEnd);
  const name = topic.slice(channelEnd + 1);
  switch (channel) {
    case 'telemetry':
    case 'status':
    case 'alarms':
      return { deviceId, channel, name };
    case 'commands':
      if (name.endsWith('/ack') && name.length > 4) {
        return { deviceId, channel: 'command-ack', name: name.slice(0, -4) };
      }
      return { deviceId, channel, name };
    default:
      return undefined;
  }
}

/** A topic filter's form: `+` and `#` fill a whole level, `#` only the last one [MQTT-4.7.1-2, -3]. */
export function isTopicFilter(filter: string): boolean {
  if (filter.length === 0 || filter.includes('\u0000')) return false;
  const levels = filter.split('/');
  return levels.every((level, index) => {
    if (level === '#') return index === levels.length - 1;
    return level === '+' || (!level.includes('#') && !level.includes('+'));
  });
}

/** Whether `topic` matches `filter` [MQTT-4.7]; wildcards at the front never match `$` topics [MQTT-4.7.2-1]. */
export function matchesFilter(filter: string, topic: string): boolean {
  if (topic.startsWith('$') && (filter.startsWith('+') || filter.startsWith('#'))) return false;
  const wanted = filter.split('/');
  const given = topic.split('/');
  for (let index = 0; index < wanted.length; index += 1) {
    const level = wanted[index];
    if (level === '#') return true;
    if (index >= given.length) return false;
    if (level !== '+' && level !== given[index]) return false;
  }
  return wanted.length === given.length;
}

/**
 * Whether every topic that `filter` can match is matched by `allowed` as well. This, and not a comparison of
 * prefixes, decides what a device may subscribe to.
 */
export function filterCovers(allowed: string, filter: string): boolean {
  const outer = allowed.split('/');
  const inner = filter.split('/');
  if (filter.startsWith('$') !== allowed.startsWith('$')) return false;
  for (let index = 0; index < outer.length; index += 1) {
    const level = outer[index];
    if (level === '#') return true;
    const given = inner[index];
    if (given === undefined || given === '#') return false;
    if (level !== '+' && level !== given) return false;
  }
  return inner.length === outer.length;
}
