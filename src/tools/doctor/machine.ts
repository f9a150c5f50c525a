// The machine itself: Node, its clock, memory, temperature, power, and the buzzer.

import { constants } from 'node:fs';
import { access, readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Config } from '../../config/schema.ts';
import { errorCode } from '../../platform/errors.ts';
import { Led } from '../../platform/led.ts';
import { createLog } from '../../platform/log.ts';
import type { ClockVerdict } from '../../platform/time-base.ts';
import { takeSample } from '../../sources/host/sample.ts';
import { type Check, type Finding, fail, ok, skipped, warn } from './check.ts';
import { clockOffsetMs } from './cloud.ts';
import { megabytes, type RunningGateway } from './running-gateway.ts';

const nodeMin = [20, 19] as const;

/** @param version as in process.versions.node */
export function nodeCheck(version: string): Check {
  return {
    name: 'node',
    run: async () => {
      const [major = 0, minor = 0] = version.split('.').map(Number);
      const isOld = major < nodeMin[0] || (major === nodeMin[0] && minor < nodeMin[1]);
      return isOld
        ? [fail(`version ${version}`, `install Node.js ${nodeMin.join('.')} or later`)]
        : [ok(version)];
    },
  };
}

const offsetWarnMs = 5_000;
const offsetFailMs = 60_000;
/** Before this version was written no clock is right. */
const earliestMs = Date.UTC(2026, 0, 1);

export interface ClockOptions {
  readonly wallMs: () => number;
  /** What the machine knows of it. */
  readonly ask: () => Promise<ClockVerdict>;
  readonly sysDirectory: string;
}

export function clockCheck({ influx }: Config, clock: ClockOptions): Check {
  return {
    name: 'clock',
    run: async (signal) => {
      const now = clock.wallMs();
      const setIt = 'let it be set: timedatectl set-ntp true';
      if (now < earliestMs) return [fail(`it says ${new Date(now).toISOString()}`, setIt)];
      const findings: Finding[] = [];
      const offsetMs =
        influx.url === undefined ? undefined : await clockOffsetMs(influx.url, clock.wallMs, signal);
      if (offsetMs !== undefined && Math.abs(offsetMs) > offsetWarnMs) {
        const seconds = Math.round(Math.abs(offsetMs) / 1000);
        const text = `${seconds} s ${offsetMs > 0 ? 'ahead of' : 'behind'} InfluxDB's`;
        findings.push(Math.abs(offsetMs) > offsetFailMs ? fail(text, setIt) : warn(text, setIt));
      }
      const verdict = await clock.ask();
      if (verdict.kind === 'waiting') findings.push(warn('nobody has set it from the network yet', setIt));
      const clocks = await readdir(join(clock.sysDirectory, 'class', 'rtc')).catch(() => []);
      const rtc = clocks.length > 0 ? 'goes on without power' : 'stops without power, the network sets it';
      if (findings.length > 0) return findings;
      if (verdict.kind === 'silent' && offsetMs === undefined) {
        return [skipped('neither systemd nor InfluxDB can tell whether it is right')];
      }
      const by: string[] = [];
      if (verdict.kind === 'synchronized') by.push(`set by ${verdict.source}`);
      if (verdict.kind === 'battery') by.push('set from the battery clock');
      if (offsetMs !== undefined) by.push("as InfluxDB's");
      return [ok(`${by.join(', ')}; ${rtc}`)];
    },
  };
}

const memoryBytesMin = 64 * 1024 * 1024;
/** A Raspberry Pi slows itself down from 80 °C on, hard at 85. */
const hotC = 80;

export function machineCheck({ dataDir }: Config, procDirectory: string, sysDirectory: string): Check {
  return {
    name: 'machine',
    run: async () => {
      const { sample } = await takeSample({ dataDirectory: dataDir, procDirectory, sysDirectory }, undefined);
      const findings: Finding[] = [];
      const told: string[] = [];
      const memory = Number(sample.get('memory_available_bytes'));
      if (memory < memoryBytesMin)
        findings.push(warn(`${megabytes(memory)} of memory free`, 'stop what needs it'));
      else told.push(`${megabytes(memory)} of memory free`);
      const temperature = sample.get('cpu_temperature_c');
      if (typeof temperature === 'number') {
        if (temperature >= hotC) findings.push(warn(`${Math.round(temperature)} °C`, 'give it air'));
        else told.push(`${Math.round(temperature)} °C`);
      }
      if (sample.get('under_voltage') === true || (await isVoltageLow(sysDirectory))) {
        findings.push(
          warn('the supply voltage is too low now: cards get damaged', 'use the official power supply'),
        );
      } else if (sample.get('under_voltage_since_boot') === true) {
        findings.push(
          warn('the supply voltage was too low since the start', 'use the official power supply'),
        );
      }
      if (sample.get('throttled') === true)
        findings.push(warn('the processor is slowed down', 'mind heat and power'));
      return [...(told.length > 0 ? [ok(told.join(', '))] : []), ...findings];
    },
  };
}

/** The kernel's own sensor, for kernels without the firmware's file. */
async function isVoltageLow(sysDirectory: string): Promise<boolean> {
  const folder = join(sysDirectory, 'class', 'hwmon');
  for (const entry of await readdir(folder).catch(() => [])) {
    const name = await readFile(join(folder, entry, 'name'), 'utf8').catch(() => '');
    if (name.trim() !== 'rpi_volt') continue;
    return (await readFile(join(folder, entry, 'in0_lcrit_alarm'), 'utf8').catch(() => '0')).trim() === '1';
  }
  return false;
}

const beepMs = 300;

export function buzzerCheck(
  { buzzer }: Config,
  gateway: RunningGateway | undefined,
  isBeepWanted: boolean,
): Check {
  return {
    name: 'buzzer',
    run: async () => {
      const { led } = buzzer;
      if (led === undefined) {
        return [
          warn(
            'none is configured: an alarm makes no sound here',
            'set buzzer.led to a folder of /sys/class/leds',
          ),
        ];
      }
      const fault = await ledFault(led);
      if (fault !== undefined) return [fault];
      const triggers = await readFile(join(led, 'trigger'), 'utf8');
      const isKept = /(^|[\s[])pattern([\]\s]|$)/.test(triggers);
      const findings = [
        isKept
          ? ok(`${led} may be written; the kernel keeps its beat`)
          : warn(`${led} works, but its beat ends with the gateway`, 'modprobe ledtrig-pattern'),
      ];
      if (!isBeepWanted) return findings;
      if ((gateway?.figures?.alarms?.sound ?? 'off') !== 'off') {
        return [...findings, skipped('no beep: an alarm is sounding')];
      }
      const opened = Led.open({ directory: led, log: createLog('silent') });
      opened.beat([{ onMs: beepMs, offMs: beepMs }]);
      await sleep(beepMs);
      opened.close();
      return [
        ...findings,
        opened.stats().healthy ? ok('beeped: was it heard?') : fail('could not beep', 'see dmesg'),
      ];
    },
  };
}

async function ledFault(led: string): Promise<Finding | undefined> {
  const files = [
    ['max_brightness', constants.R_OK],
    ['brightness', constants.R_OK | constants.W_OK],
    ['trigger', constants.R_OK | constants.W_OK],
  ] as const;
  for (const [name, mode] of files) {
    try {
      await access(join(led, name), mode);
    } catch (error) {
      const code = errorCode(error) ?? '';
      const todo =
        code === 'ENOENT'
          ? 'look at buzzer.led; the kernel needs an overlay for it (dtoverlay=gpio-led)'
          : 'give the user of the gateway the right to write it (a udev rule)';
      return fail(`${join(led, name)} cannot be used: ${code}`, todo);
    }
  }
  return undefined;
}
