// A buzzer that nobody hears: files as in the kernel's LED class, and a way to see whether they would sound.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** A folder like the kernel's LED class; without `hasPattern` like a kernel that lacks the pattern trigger. */
export function makeLed(folder: string, hasPattern = true): string {
  const directory = join(folder, 'led');
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, 'max_brightness'), '255\n');
  writeFileSync(join(directory, 'brightness'), '0\n');
  writeFileSync(join(directory, 'trigger'), hasPattern ? '[none] timer pattern\n' : '[none] timer\n');
  if (hasPattern) writeFileSync(join(directory, 'pattern'), '');
  return directory;
}

/** Whether the buzzer sounds: a constant brightness or a kernel pattern. */
export function isSounding(led: string): boolean {
  const trigger = readFileSync(join(led, 'trigger'), 'utf8');
  return /^pattern/.test(trigger) || Number.parseInt(readFileSync(join(led, 'brightness'), 'utf8'), 10) > 0;
}
