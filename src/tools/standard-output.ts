// Where the answer of a command goes when the process has a real standard output. Promises: a reader that has gone
// (`| head`) ends nothing with a stack trace, and an answer that the disk did not take whole is told, with exit code 1.

import { fstatSync, writeSync } from 'node:fs';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Output } from './command.ts';

function failure(error: unknown): GatewayError {
  const code = errorCode(error) ?? String(error);
  const why = code === 'ENOSPC' ? 'the disk is full' : code;
  return new GatewayError('OUTPUT_FAILED', `cannot write the answer: ${why}`, { cause: error });
}

/** Writes all of it: a disk that is nearly full takes a part, and says so only the next time. */
function writeWhole(descriptor: number, text: string | Uint8Array): void {
  const bytes = typeof text === 'string' ? Buffer.from(text) : text;
  try {
    for (let at = 0; at < bytes.length; ) at += writeSync(descriptor, bytes, at);
  } catch (error) {
    throw failure(error);
  }
}

function isFile(descriptor: number): boolean {
  try {
    return fstatSync(descriptor).isFile();
  } catch {
    return false;
  }
}

/** Of this process; a file is written at once, and throws GatewayError `OUTPUT_FAILED`. */
export function standardOutput(): Output {
  // Nobody is left to tell.
  process.stderr.on('error', () => undefined);
  process.stdout.on('error', (error) => {
    if (errorCode(error) === 'EPIPE') return;
    if (process.exitCode !== 1) process.stderr.write(`iotflow: ${failure(error).message}\n`);
    process.exitCode = 1;
  });
  const { fd } = process.stdout;
  return isFile(fd) ? { write: (text) => writeWhole(fd, text) } : process.stdout;
}
