// A named pipe in place of an input device, and the events that the kernel would write to it.

import { execFileSync } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { onTestFinished } from 'vitest';
import { commandPath } from './debian.ts';

const timeBytes = process.arch === 'arm' || process.arch === 'ia32' ? 8 : 16;

/** struct input_event of linux/input.h. */
function event(type: number, code: number, value: number): Buffer {
  const bytes = Buffer.alloc(timeBytes + 8);
  bytes.writeUInt16LE(type, timeBytes);
  bytes.writeUInt16LE(code, timeBytes + 2);
  bytes.writeInt32LE(value, timeBytes + 4);
  return bytes;
}

/** EV_KEY of KEY_ENTER, and EV_SYN behind it. */
function key(value: number): Buffer {
  return Buffer.concat([event(1, 28, value), event(0, 0, 0)]);
}

export const press = key(1);
export const repeat = key(2);
export const release = key(0);
/** SYN_DROPPED: events were lost. */
export const dropped = event(0, 3, 0);

export function makeButtonPipe(path: string): (...events: readonly Buffer[]) => void {
  execFileSync(commandPath('mkfifo') ?? 'mkfifo', [path]);
  // For reading as well: it opens at once, and the other end never sees the end.
  const fd = openSync(path, 'r+');
  onTestFinished(() => closeSync(fd));
  return (...events) => void writeSync(fd, Buffer.concat(events));
}
