import { expect, test } from 'vitest';
import { mayRead, mayRetain, publishTarget } from '../../../src/sources/mqtt/access.ts';

const device = { deviceId: 'probe-1', service: false };
const service = { deviceId: 'home-assistant', service: true };

const own = 'iotflow/devices/probe-1';
const publishes: [topic: string, device: boolean, service: boolean][] = [
  [`${own}/telemetry/leak`, true, false],
  [`${own}/status/online`, true, false],
  [`${own}/alarms/leak`, true, false],
  [`${own}/commands/open/ack`, true, false],
  [`${own}/commands/open`, false, true],
  [`${own}/commands/`, false, false],
  [`${own}/telemetry/`, false, false],
  [`${own}/telemetry`, false, false],
  [`${own}/other/x`, false, false],
  [own, false, false],
  ['iotflow/devices/probe-2/telemetry/leak', false, false],
  ['iotflow/devices/probe-2/commands/open', false, true],
  ['iotflow/devices/probe-2/commands/open/ack', false, false],
  ['iotflow/devices/probe-10/telemetry/leak', false, false],
  ['iotflow/devices/PROBE-1/telemetry/leak', false, false],
  ['iotflow/devices/probe-1%2f/telemetry/leak', false, false],
  ['iotflow/devices/../devices/probe-1/telemetry/leak', false, false],
  ['/iotflow/devices/probe-1/telemetry/leak', false, false],
  ['iotflow//devices/probe-1/telemetry/leak', false, false],
  ['iotflowx/devices/probe-1/telemetry/leak', false, false],
  ['iotflow/devices/home-assistant/status/online', false, true],
  ['iotflow/gateway/commands/silence', false, true],
  ['iotflow/gateway/commands/', false, false],
  ['iotflow/gateway/alarms', false, false],
  ['$SYS/broker/uptime', false, false],
  ['$share/g/iotflow/devices/probe-1/telemetry/leak', false, false],
  ['homeassistant/status', false, true],
  ['homeassistant/sensor/probe-1/moisture/config', false, true],
  ['homeassistant/', false, false],
  ['homeassistant', false, false],
  ['homeassistantx/status', false, false],
];

test.each(publishes)('publishing to %s: a device %s, a service account %s', (topic, byDevice, byService) => {
  expect(publishTarget('iotflow', device, topic) !== undefined).toBe(byDevice);
  expect(publishTarget('iotflow', service, topic) !== undefined).toBe(byService);
});

const reads: [filter: string, device: boolean, service: boolean][] = [
  [`${own}/#`, true, true],
  [`${own}/commands/#`, true, true],
  [`${own}/commands/+`, true, true],
  [`${own}/+/+`, true, true],
  [own, true, true],
  [`${own}/commands/open`, true, true],
  ['iotflow/devices/probe-2/commands/#', false, true],
  ['iotflow/devices/probe-10/#', false, true],
  ['iotflow/devices/+/telemetry/leak', false, true],
  ['iotflow/devices/#', false, true],
  ['iotflow/devices/+', false, true],
  ['iotflow/gateway/#', false, true],
  ['iotflow/gateway/alarms', false, true],
  ['homeassistant/#', false, true],
  ['homeassistant/status', false, true],
  ['homeassistant/+/probe-1/#', false, true],
  ['+/status', false, false],
  ['iotflow/#', false, false],
  ['iotflow/+/probe-1/#', false, false],
  ['+/devices/probe-1/#', false, false],
  ['#', false, false],
  ['+', false, false],
  ['$SYS/#', false, false],
  [`$share/group/${own}/#`, false, false],
  ['', false, false],
  [`${own}/#/x`, false, false],
];

test.each(reads)('reading %s: a device %s, a service account %s', (filter, byDevice, byService) => {
  expect(mayRead('iotflow', device, filter)).toBe(byDevice);
  expect(mayRead('iotflow', service, filter)).toBe(byService);
});

test.each([
  [`${own}/status/online`, true],
  [`${own}/alarms/leak`, true],
  [`${own}/telemetry/leak`, false],
  [`${own}/commands/open/ack`, false],
])('retaining %s: %s', (topic, allowed) => {
  const target = publishTarget('iotflow', device, topic);
  expect(target !== undefined && mayRetain(target)).toBe(allowed);
});

test('Home Assistant may keep what it discovers, but not the commands it gives', () => {
  const retained = (topic: string) => {
    const target = publishTarget('iotflow', service, topic);
    return target !== undefined && mayRetain(target);
  };
  expect(retained('homeassistant/sensor/probe-1/moisture/config')).toBe(true);
  expect(retained(`${own}/commands/open`)).toBe(false);
  expect(retained('iotflow/gateway/commands/silence')).toBe(false);
});

test('a topic root named homeassistant does not open the gateway’s own topics', () => {
  expect(publishTarget('homeassistant', service, 'homeassistant/gateway/alarms')).toBeUndefined();
  expect(
    publishTarget('homeassistant', service, 'homeassistant/devices/probe-1/telemetry/x'),
  ).toBeUndefined();
});

test('a topic root of two levels keeps devices apart as well', () => {
  expect(publishTarget('site/a', device, 'site/a/devices/probe-1/telemetry/x')).toBeDefined();
  expect(publishTarget('site/a', device, 'site/b/devices/probe-1/telemetry/x')).toBeUndefined();
  expect(mayRead('site/a', device, 'site/+/devices/probe-1/#')).toBe(false);
});
