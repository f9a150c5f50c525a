import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import type { Message } from '../../../src/model/message.ts';
import { systemClock } from '../../../src/platform/clock.ts';
import { HostHealth, type HostHealthOptions } from '../../../src/sources/host/host-health.ts';
import { parseCpuTimes, parseDiskWritten, parseNetworkBytes } from '../../../src/sources/host/sample.ts';
import { tempFolder } from '../../support/temp.ts';

const log = pino({ level: 'silent' });

function started(overrides: Partial<HostHealthOptions> = {}) {
  const messages: Message[] = [];
  const health = HostHealth.start({
    sink: async (message) => void messages.push(message),
    gatewayDeviceId: 'gateway',
    dataDirectory: tempFolder(),
    clock: systemClock(),
    log,
    intervalMs: 3_600_000,
    ...overrides,
  });
  onTestFinished(() => health.stop());
  return { health, messages };
}

function files(tree: Readonly<Record<string, string>>): string {
  const folder = tempFolder();
  for (const [path, text] of Object.entries(tree)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
  return folder;
}

test('the gateway reports on itself as one message of host_health', async () => {
  const { health, messages } = started();
  await health.look();
  expect(messages).toHaveLength(1);
  expect(messages[0]).toMatchObject({
    transport: 'host',
    deviceId: 'gateway',
    channel: 'telemetry',
    name: 'host_health',
  });
  const fields = JSON.parse(messages[0]!.payload.toString()) as Record<string, unknown>;
  expect(fields).toMatchObject({
    memory_available_bytes: expect.any(Number),
    disk_available_bytes: expect.any(Number),
  });
  expect(health.stats()).toMatchObject({ samples: 1, missed: 0, gauges: fields });
});

test('a Raspberry Pi tells its temperature, its throttling and what it writes', async () => {
  const procDirectory = files({
    stat: 'cpu  100 0 100 800 0 0 0 0 0 0\n',
    loadavg: '0.42 0.1 0.1 1/100 1\n',
    'self/status': 'Name:\tnode\nVmRSS:\t   81920 kB\nRssAnon:\t   40960 kB\n',
    'self/io': 'rchar: 1\nwrite_bytes: 4096\n',
    'net/dev':
      'Inter-| Receive\n face |bytes\n lo: 9 0 0 0 0 0 0 0 9 0\n eth0: 100 1 0 0 0 0 0 0 50 1 0\nwlan0:7 0 0 0 0 0 0 0 3 0\n',
  });
  const sysDirectory = files({
    'class/thermal/thermal_zone0/temp': '61835\n',
    'devices/platform/soc/soc:firmware/get_throttled': '10004\n',
  });
  const { health } = started({ procDirectory, sysDirectory });
  await health.look();
  writeFileSync(join(procDirectory, 'stat'), 'cpu  150 0 100 850 0 0 0 0 0 0\n');
  await health.look();
  expect(health.stats().gauges).toMatchObject({
    cpu_load_percent: 50,
    load_1m: 0.42,
    cpu_temperature_c: 61.835,
    throttled: true,
    under_voltage: false,
    under_voltage_since_boot: true,
    process_rss_bytes: 81_920 * 1_024,
    process_anon_bytes: 40_960 * 1_024,
    process_written_bytes: 4_096,
    network_received_bytes: 107,
    network_sent_bytes: 53,
  });
});

test('the wear of the card is among the fields, as far as it is known', async () => {
  const { health } = started({
    card: () => ({
      bytesPerDay: 864_000,
      ownBytesPerPoint: undefined,
      lifeYears: 12.5,
      budgetBytesPerDay: 1_000_000,
      lingerMs: 20,
    }),
  });
  await health.look();
  expect(health.stats().gauges).toMatchObject({
    card_written_bytes_per_day: 864_000,
    card_life_years: 12.5,
    card_budget_bytes_per_day: 1_000_000,
    card_linger_ms: 20,
  });
  expect(health.stats().gauges).not.toHaveProperty('card_own_bytes_per_point');
});

test('what the machine does not have is left out', async () => {
  const nothing = tempFolder();
  const { health } = started({
    procDirectory: nothing,
    sysDirectory: nothing,
    dataDirectory: join(nothing, 'no'),
  });
  await health.look();
  const names = Object.keys(health.stats().gauges);
  expect(names).toContain('memory_available_bytes');
  for (const name of ['cpu_temperature_c', 'throttled', 'disk_used_bytes', 'network_sent_bytes']) {
    expect(names).not.toContain(name);
  }
});

test('a sample the journal refuses is counted and the next one is taken', async () => {
  let isFull = true;
  const { health } = started({
    sink: async () => {
      if (isFull) throw new Error('full');
    },
  });
  await health.look();
  expect(health.stats()).toMatchObject({ samples: 0, missed: 1 });
  isFull = false;
  await health.look();
  expect(health.stats().samples).toBe(1);
});

test('while a look hangs no other is begun, and what was missed is counted', async () => {
  let release = () => {};
  let begun = 0;
  const { health } = started({
    intervalMs: 5,
    sink: () => {
      begun += 1;
      return new Promise((resolve) => {
        release = resolve;
      });
    },
  });
  // From then on it hangs; what was missed before was missed for the machine being busy.
  await expect.poll(() => begun).toBe(1);
  const { missed } = health.stats();
  while (health.stats().missed < missed + 3) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(begun).toBe(1);
  const last = health.stop();
  release();
  await last;
  expect(health.stats().samples).toBe(1);
});

test('counters of the kernel are read as it writes them', () => {
  expect(parseCpuTimes('cpu  10 1 5 100 4 0 2 1 0 0\ncpu0 1 1 1 1\n')).toEqual({ busy: 19, total: 123 });
  expect(parseCpuTimes('nonsense')).toBeUndefined();
  expect(parseNetworkBytes('')).toEqual({ receivedBytes: 0, sentBytes: 0 });
  const diskstats = ' 179 0 mmcblk0 1 2 3 4 5 6 7 8 0 0 0\n 179 2 mmcblk0p2 1 2 3 4 5 6 100 8 0 0 0\n';
  expect(parseDiskWritten(diskstats, 179, 2)).toBe(51_200);
  expect(parseDiskWritten(diskstats, 8, 0)).toBeUndefined();
});
