import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  filterCovers,
  isDeviceId,
  isTopicFilter,
  matchesFilter,
  parseDeviceTopic,
} from '../../src/model/topic.ts';

describe('topics of a device', () => {
  test.each([
    [
      'iotflow/devices/esp32_001/telemetry/leak',
      { deviceId: 'esp32_001', channel: 'telemetry', name: 'leak' },
    ],
    ['iotflow/devices/a/status/online', { deviceId: 'a', channel: 'status', name: 'online' }],
    ['iotflow/devices/a/alarms/leak', { deviceId: 'a', channel: 'alarms', name: 'leak' }],
    ['iotflow/devices/a/commands/open', { deviceId: 'a', channel: 'commands', name: 'open' }],
    ['iotflow/devices/a/commands/open/ack', { deviceId: 'a', channel: 'command-ack', name: 'open' }],
    ['iotflow/devices/a/telemetry/room/air', { deviceId: 'a', channel: 'telemetry', name: 'room/air' }],
  ])('%s is understood', (topic, expected) => {
    expect(parseDeviceTopic('iotflow', topic)).toEqual(expected);
  });

  test.each([
    'iotflow/devices/a/telemetry',
    'iotflow/devices/a/telemetry/',
    'iotflow/devices/a/other/x',
    'iotflow/gateway/state',
    'other/devices/a/telemetry/x',
    'iotflow/devices',
    '',
  ])('%j is no topic of a device', (topic) => {
    expect(parseDeviceTopic('iotflow', topic)).toBeUndefined();
  });

  test.each(['', 'A', '-a', '__proto__', 'a/b', 'a+', '../a', 'ä', 'a'.repeat(65)])(
    '%j is no device id',
    (id) => {
      expect(isDeviceId(id)).toBe(false);
    },
  );
});

describe('topic filters [MQTT-4.7]', () => {
  test.each([
    ['sport/tennis/player1/#', 'sport/tennis/player1', true],
    ['sport/tennis/player1/#', 'sport/tennis/player1/score/wimbledon', true],
    ['sport/#', 'sport', true],
    ['#', 'a/b', true],
    ['#', '$SYS/x', false],
    ['+/x', '$SYS/x', false],
    ['$SYS/#', '$SYS/x', true],
    ['sport/tennis/+', 'sport/tennis/player1', true],
    ['sport/tennis/+', 'sport/tennis/player1/ranking', false],
    ['sport/+', 'sport', false],
    ['sport/+', 'sport/', true],
    ['+/+', '/finance', true],
    ['/+', '/finance', true],
    ['+', '/finance', false],
  ])('%s and %s: %s', (filter, topic, expected) => {
    expect(matchesFilter(filter, topic)).toBe(expected);
  });

  test.each(['', 'a#', 'a/#/b', 'a+/b', '+a', 'a\u0000'])('%j is no filter', (filter) => {
    expect(isTopicFilter(filter)).toBe(false);
  });

  const level = fc.constantFrom('a', 'b', '$x', '');
  const topic = fc.array(level, { minLength: 1, maxLength: 4 }).map((levels) => levels.join('/'));
  const filter = fc
    .tuple(fc.array(fc.constantFrom('a', 'b', '$x', '', '+'), { minLength: 1, maxLength: 4 }), fc.boolean())
    .map(([levels, multi]) => [...levels, ...(multi ? ['#'] : [])].join('/'));

  test('a filter inside an allowed one never matches a topic outside it', () => {
    fc.assert(
      fc.property(filter, filter, topic, (allowed, asked, given) => {
        if (filterCovers(allowed, asked) && matchesFilter(asked, given)) {
          expect(matchesFilter(allowed, given)).toBe(true);
        }
      }),
      { numRuns: 20_000 },
    );
  });

  test.each([
    ['iotflow/devices/a/#', 'iotflow/devices/a/#', true],
    ['iotflow/devices/a/#', 'iotflow/devices/a/commands/+', true],
    ['iotflow/devices/a/#', 'iotflow/devices/+/commands', false],
    ['iotflow/devices/a/#', 'iotflow/devices/#', false],
    ['iotflow/devices/a/#', '#', false],
    ['iotflow/devices/a/#', 'iotflow/devices/ab/x', false],
  ])('allowed %s, asked %s: %s', (allowed, asked, expected) => {
    expect(filterCovers(allowed, asked)).toBe(expected);
  });
});
