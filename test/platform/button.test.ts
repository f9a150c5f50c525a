// Button presses as the kernel writes them, through a named pipe in place of the input device.

import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { Button } from '../../src/platform/button.ts';
import { createLog } from '../../src/platform/log.ts';
import { dropped, makeButtonPipe, press, release, repeat } from '../support/button-pipe.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

function watch(path: string) {
  const now = { ms: 0 };
  const told: string[] = [];
  const button = Button.start({
    path,
    longPressMs: 3_000,
    clock: { monotonicMs: () => now.ms },
    log: createLog('silent'),
    onShortPress: () => told.push('short'),
    onLongPress: () => told.push('long'),
    pollMs: 2,
    retryMs: 1_000,
  });
  onTestFinished(() => button.close());
  return { now, told, button };
}

test('a short press is told when it is let go, a long one once while it is held', async () => {
  const path = join(tempFolder(), 'event0');
  const write = makeButtonPipe(path);
  const { now, told, button } = watch(path);
  write(press, release);
  await until(() => told.length === 1);
  write(press);
  // Seen before the time goes on: a short press behind it would be told in between.
  await until(() => button.stats().isHeld);
  now.ms = 2_999;
  write(repeat);
  now.ms = 3_000;
  await until(() => told.length === 2);
  now.ms = 20_000;
  write(release, press, release);
  await until(() => told.length === 3);
  expect(told).toEqual(['short', 'long', 'short']);
  expect(button.stats()).toMatchObject({ isThere: true, shortPresses: 2, longPresses: 1 });
});

test('after events were lost nobody is told of a press that may be over', async () => {
  const path = join(tempFolder(), 'event0');
  const write = makeButtonPipe(path);
  const { now, told } = watch(path);
  write(press, dropped, release);
  now.ms = 60_000;
  write(press, release);
  await until(() => told.length === 1);
  expect(told).toEqual(['short']);
});

test('a button that is not there is looked for until it is', async () => {
  const path = join(tempFolder(), 'event0');
  const { now, told, button } = watch(path);
  expect(button.stats().isThere).toBe(false);
  const write = makeButtonPipe(path);
  now.ms = 1_000;
  await until(() => button.stats().isThere);
  write(press, release);
  await until(() => told.length === 1);
});
