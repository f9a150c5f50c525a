import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { clockProbe, type MachineOptions } from '../../src/platform/clock-trust.ts';
import { tempFolder } from '../support/temp.ts';

const wallMs = Date.UTC(2026, 10, 21);

function machine(files: Readonly<Record<string, string>>, answer = 'no') {
  const root = tempFolder();
  for (const [path, content] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), content);
  }
  const timedatectl = join(root, 'timedatectl');
  const asked = join(root, 'asked');
  const script = `#!/bin/sh\necho x >> ${asked}\n[ "$*" = "show --property=NTPSynchronized --value" ] && ${answer}\n`;
  writeFileSync(timedatectl, script);
  chmodSync(timedatectl, 0o755);
  let monotonicMs = 0;
  const options: MachineOptions = { root, timedatectl, wallMs: () => wallMs, monotonicMs: () => monotonicMs };
  return { root, options, asked, pass: (ms: number) => (monotonicMs += ms) };
}

const systemd = { 'run/systemd/system/x': '' };

test('the file of systemd-timesyncd says that the clock was set', async () => {
  const { options } = machine({ ...systemd, 'run/systemd/timesync/synchronized': '' }, 'echo no');
  expect(await clockProbe(options)()).toEqual({ kind: 'synchronized', source: 'systemd-timesyncd' });
});

test('the kernel is asked by way of timedatectl, but not every second', async () => {
  const yes = machine(systemd, 'echo yes');
  expect(await clockProbe(yes.options)()).toEqual({ kind: 'synchronized', source: 'the kernel' });
  for (const answer of ['echo no', 'exit 1', 'echo; exit 0']) {
    expect(await clockProbe(machine(systemd, answer).options)()).toEqual({ kind: 'waiting' });
  }
  const { options, asked, pass } = machine(systemd, 'echo no');
  const probe = clockProbe(options);
  for (let second = 0; second < 60; second += 1) {
    await probe();
    pass(1000);
  }
  expect(readFileSync(asked, 'utf8').split('\n').length - 1).toBeLessThan(7);
});

test('a missing timedatectl is no reason to believe the clock, where systemd runs', async () => {
  const { options } = machine(systemd);
  expect(await clockProbe({ ...options, timedatectl: '/nonexistent' })()).toEqual({ kind: 'waiting' });
});

test('a battery clock counts where the kernel has set the clock from it, and it does not say another time now', async () => {
  const rtc = (hctosys: string, seconds: number) => ({
    ...systemd,
    'sys/class/rtc/rtc0/hctosys': `${hctosys}\n`,
    'sys/class/rtc/rtc0/since_epoch': `${seconds}\n`,
  });
  const probe = (files: Record<string, string>) => clockProbe(machine(files, 'echo no').options)();
  expect(await probe(rtc('1', wallMs / 1000 + 2))).toEqual({ kind: 'battery' });
  expect(await probe(rtc('0', wallMs / 1000))).toEqual({ kind: 'waiting' });
  // A Pi 5 without its battery: the system has moved the clock on from 1970 by what it remembered.
  expect(await probe(rtc('1', 30))).toEqual({ kind: 'waiting' });
});

test('without systemd nothing will ever tell', async () => {
  expect(await clockProbe(machine({}, 'echo yes').options)()).toEqual({ kind: 'silent' });
});

test('a file that was named is the only judge', async () => {
  const { root, options } = machine({ 'run/systemd/timesync/synchronized': '' });
  const synchronizedPath = join(root, 'own');
  const probe = clockProbe({ ...options, synchronizedPath });
  expect(await probe()).toEqual({ kind: 'waiting' });
  writeFileSync(synchronizedPath, '');
  expect(await probe()).toEqual({ kind: 'synchronized', source: synchronizedPath });
});
