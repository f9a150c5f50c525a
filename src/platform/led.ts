// A buzzer, siren or lamp driven through the kernel's LED class (`dtoverlay=gpio-led`): plain file writes, the
// same on every Raspberry Pi, no native module. Promises that the output is on when `beat` returns, and, where
// the kernel has the `pattern` trigger, that it keeps its beat if this process hangs or dies. Does not promise
// that a wire is connected. Writes are synchronous on purpose: sysfs stores into memory and a GPIO register
// within microseconds, and an asynchronous write would queue behind fsyncs in libuv's four threads, which is
// exactly what an alarm must not wait for.

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { errorCode, GatewayError } from './errors.ts';
import type { Log } from './log.ts';

export interface Beat {
  readonly onMs: number;
  readonly offMs: number;
}

/** Repeats for ever: the first beat starts at once. */
export type BeatPattern = readonly Beat[];

export interface LedOptions {
  /** The LED's directory, for instance `/sys/class/leds/gw-buzzer`. */
  readonly directory: string;
  readonly log: Log;
  /** How soon a failed write is tried again. */
  readonly retryMs?: number;
}

const defaults = {
  // A loose USB adapter comes back within seconds; a beep that starts a second late is still an alarm.
  retryMs: 1_000,
} as const;

export interface LedStats {
  /** Whether the last write worked. */
  readonly healthy: boolean;
  readonly writeFailures: number;
  /** True when the kernel keeps the beat, false when timers of this process do. */
  readonly kernelPattern: boolean;
  readonly on: boolean;
}

/**
 * The text ledtrig-pattern wants. A tuple of zero length between two others makes the step sharp instead of a
 * fade (Documentation/ABI/testing/sysfs-class-led-trigger-pattern).
 */
export function kernelPatternOf(pattern: BeatPattern, brightness: number): string {
  return pattern.flatMap(({ onMs, offMs }) => [brightness, onMs, brightness, 0, 0, offMs, 0, 0]).join(' ');
}

export class Led {
  readonly #directory: string;
  readonly #log: Log;
  readonly #retryMs: number;
  readonly #maxBrightness: number;
  readonly #kernelPattern: boolean;
  #brightnessFd: number | undefined;
  #triggerFd: number | undefined;
  #pattern: BeatPattern | undefined;
  #timer: NodeJS.Timeout | undefined;
  #retryTimer: NodeJS.Timeout | undefined;
  #healthy = true;
  #writeFailures = 0;

  private constructor(options: LedOptions, maxBrightness: number, kernelPattern: boolean) {
    this.#directory = options.directory;
    this.#log = options.log;
    this.#retryMs = options.retryMs ?? defaults.retryMs;
    this.#maxBrightness = maxBrightness;
    this.#kernelPattern = kernelPattern;
  }

  /**
   * @throws GatewayError `LED_UNAVAILABLE` when the directory is not an LED or may not be written. The gateway
   * then goes on without it and says so.
   */
  static open(options: LedOptions): Led {
    try {
      const maxText = readFileSync(join(options.directory, 'max_brightness'), 'utf8');
      const maxBrightness = Number.parseInt(maxText, 10);
      const triggers = readFileSync(join(options.directory, 'trigger'), 'utf8');
      const kernelPattern = /(^|[\s[])pattern([\]\s]|$)/.test(triggers);
      const led = new Led(options, maxBrightness > 0 ? maxBrightness : 255, kernelPattern);
      led.#openFiles();
      return led;
    } catch (error) {
      throw new GatewayError(
        'LED_UNAVAILABLE',
        `No usable LED at ${options.directory}: ${errorCode(error) ?? 'unknown error'}`,
        { cause: error },
      );
    }
  }

  /** Starts the beat, or changes to another. The output is on when this returns. Never throws. */
  beat(pattern: BeatPattern): void {
    if (this.#pattern === pattern) return;
    this.#pattern = pattern;
    this.#apply();
  }

  /** Never throws. */
  off(): void {
    this.#pattern = undefined;
    this.#apply();
  }

  stats(): LedStats {
    return {
      healthy: this.#healthy,
      writeFailures: this.#writeFailures,
      kernelPattern: this.#kernelPattern,
      on: this.#pattern !== undefined,
    };
  }

  /** Turns it off and lets go of the files. */
  close(): void {
    this.off();
    clearTimeout(this.#retryTimer);
    this.#closeFiles();
  }

  #apply(): void {
    clearTimeout(this.#timer);
    clearTimeout(this.#retryTimer);
    const pattern = this.#pattern;
    try {
      if (pattern === undefined) this.#stop();
      else this.#start(pattern);
      if (!this.#healthy) this.#log.info({ event: 'led_recovered' }, 'The LED can be written again');
      this.#healthy = true;
    } catch (error) {
      this.#failed(error);
    }
  }

  #start(pattern: BeatPattern): void {
    // Sound first: all else may fail and the alarm is still heard.
    this.#writeBrightness(this.#maxBrightness);
    if (!this.#kernelPattern) {
      this.#scheduleStep(pattern, 0, true);
      return;
    }
    this.#triggerFd = this.#write('trigger', this.#triggerFd, 'pattern');
    // The kernel creates this file when the trigger is set, so it cannot be kept open.
    const fd = openSync(join(this.#directory, 'pattern'), 'w');
    try {
      writeSync(fd, `${kernelPatternOf(pattern, this.#maxBrightness)}\n`);
    } finally {
      closeSync(fd);
    }
  }

  #stop(): void {
    if (this.#kernelPattern) this.#triggerFd = this.#write('trigger', this.#triggerFd, 'none');
    this.#writeBrightness(0);
  }

  #scheduleStep(pattern: BeatPattern, index: number, isOn: boolean): void {
    const beat = pattern[index % pattern.length];
    if (beat === undefined) return;
    this.#timer = setTimeout(
      () => {
        try {
          this.#writeBrightness(isOn ? 0 : this.#maxBrightness);
        } catch (error) {
          this.#failed(error);
          return;
        }
        this.#scheduleStep(pattern, isOn ? index : index + 1, !isOn);
      },
      isOn ? beat.onMs : beat.offMs,
    );
    this.#timer.unref();
  }

  #writeBrightness(value: number): void {
    this.#brightnessFd = this.#write('brightness', this.#brightnessFd, String(value));
  }

  /** Writes from the file's start, as sysfs wants it; a device that went and came back is opened once more. */
  #write(name: string, fd: number | undefined, text: string): number {
    // The line break ends the value for the kernel, whatever an earlier, longer value left behind it.
    const line = `${text}\n`;
    if (fd !== undefined) {
      try {
        writeSync(fd, line, 0);
        return fd;
      } catch {
        this.#closeFiles();
      }
    }
    this.#openFiles();
    const opened = name === 'brightness' ? this.#brightnessFd : this.#triggerFd;
    if (opened === undefined) throw new GatewayError('LED_UNAVAILABLE', `Cannot open ${name}`);
    writeSync(opened, line, 0);
    return opened;
  }

  #openFiles(): void {
    this.#brightnessFd ??= openSync(join(this.#directory, 'brightness'), 'r+');
    this.#triggerFd ??= openSync(join(this.#directory, 'trigger'), 'r+');
  }

  #closeFiles(): void {
    for (const fd of [this.#brightnessFd, this.#triggerFd]) {
      if (fd === undefined) continue;
      try {
        closeSync(fd);
      } catch {
        // The device is gone and its descriptor with it.
      }
    }
    this.#brightnessFd = undefined;
    this.#triggerFd = undefined;
  }

  #failed(error: unknown): void {
    this.#writeFailures += 1;
    if (this.#healthy) {
      this.#log.error({ event: 'led_failed', err: error }, 'The LED cannot be written; trying again');
    }
    this.#healthy = false;
    this.#retryTimer = setTimeout(() => this.#apply(), this.#retryMs);
    this.#retryTimer.unref();
  }
}
