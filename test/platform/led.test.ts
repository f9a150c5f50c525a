import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pino } from 'pino';
import { expect, onTestFinished, test } from 'vitest';
import { buzzer } from '../../src/alarms/buzzer.ts';
import { kernelPatternOf, Led } from '../../src/platform/led.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const log = pino({ level: 'silent' });
const beeps = [
  { onMs: 200, offMs: 200 },
  { onMs: 200, offMs: 1_400 },
];

/** A directory as the kernel's LED class makes one; only the first line of a file is its value. */
function fakeLed(triggers = '[none] timer pattern', maxBrightness = '1') {
  const directory = join(tempFolder(), 'gw-buzzer');
  mkdirSync(directory);
  writeFileSync(join(directory, 'max_brightness'), `${maxBrightness}\n`);
  writeFileSync(join(directory, 'brightness'), '0\n');
  writeFileSync(join(directory, 'trigger'), `${triggers}\n`);
  if (triggers.includes('pattern')) writeFileSync(join(directory, 'pattern'), '');
  const read = (name: string) => readFileSync(join(directory, name), 'utf8').split('\n', 1)[0];
  return { directory, read };
}

function opened(directory: string): Led {
  const led = Led.open({ directory, log, retryMs: 5 });
  onTestFinished(() => led.close());
  return led;
}

test('it sounds when beat returns, and the kernel keeps the beat', () => {
  const { directory, read } = fakeLed('[none] timer pattern', '255');
  const led = opened(directory);
  led.beat(beeps);
  expect(read('brightness')).toBe('255');
  expect(read('trigger')).toBe('pattern');
  expect(read('pattern')).toBe('255 200 255 0 0 200 0 0 255 200 255 0 0 1400 0 0');
  expect(led.stats()).toMatchObject({ healthy: true, kernelPattern: true, on: true });
});

test('off stops the kernel beat and the sound', () => {
  const { directory, read } = fakeLed();
  const led = opened(directory);
  led.beat(beeps);
  led.off();
  expect([read('trigger'), read('brightness')]).toEqual(['none', '0']);
});

test('a pattern has sharp edges: each step is held, then left in no time', () => {
  expect(kernelPatternOf([{ onMs: 500, offMs: 4_500 }], 1)).toBe('1 500 1 0 0 4500 0 0');
});

test('without the pattern trigger the process keeps the beat itself', async () => {
  const { directory, read } = fakeLed('[none] timer heartbeat');
  const led = opened(directory);
  led.beat([{ onMs: 5, offMs: 5 }]);
  expect(read('brightness')).toBe('1');
  expect(led.stats().kernelPattern).toBe(false);
  await until(() => read('brightness') === '0');
  await until(() => read('brightness') === '1');
  led.off();
  expect(read('brightness')).toBe('0');
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(read('brightness')).toBe('0');
});

test('a directory that is no LED is an error with a code, and the gateway can go on', () => {
  expect(() => Led.open({ directory: join(tempFolder(), 'missing'), log })).toThrow(
    expect.objectContaining({ code: 'LED_UNAVAILABLE', message: expect.stringContaining('ENOENT') }),
  );
});

test('an LED that may not be written is an error', () => {
  const { directory } = fakeLed();
  // A directory in its place, because root may write any file.
  rmSync(join(directory, 'brightness'));
  mkdirSync(join(directory, 'brightness'));
  expect(() => Led.open({ directory, log })).toThrow(expect.objectContaining({ code: 'LED_UNAVAILABLE' }));
});

test('an LED that went away is counted, and sounds again when it returns', async () => {
  const { directory, read } = fakeLed();
  const led = opened(directory);
  renameSync(join(directory, 'pattern'), join(directory, 'kept'));
  mkdirSync(join(directory, 'pattern'));
  led.beat(beeps);
  // The first write is the sound itself, so even now it is heard.
  expect(read('brightness')).toBe('1');
  expect(led.stats()).toMatchObject({ healthy: false });
  expect(led.stats().writeFailures).toBeGreaterThan(0);
  rmSync(join(directory, 'pattern'), { recursive: true });
  renameSync(join(directory, 'kept'), join(directory, 'pattern'));
  await until(() => led.stats().healthy);
  expect(read('pattern')).toContain('200');
});

test('each urgency has its own rhythm, and none is that of fire or gas', () => {
  const { directory, read } = fakeLed();
  const annunciator = buzzer(opened(directory));
  annunciator.sound('critical');
  expect(read('pattern')).toBe('1 200 1 0 0 200 0 0 1 200 1 0 0 1400 0 0');
  annunciator.sound('high');
  expect(read('pattern')).toBe('1 500 1 0 0 4500 0 0');
  annunciator.sound('trouble');
  expect(read('pattern')).toBe('1 80 1 0 0 59920 0 0');
  annunciator.sound('off');
  expect([read('trigger'), read('brightness')]).toEqual(['none', '0']);
});
