// Where the answer of a real process goes: to a reader that has gone, to a disk that is full.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { formatTable } from '../../src/tools/command.ts';

const program = join(import.meta.dirname, '../../dist/main.js');

/** Runs a shell line in which "$@" is the program; answers what it wrote to standard error. */
function shell(line: string): Promise<{ code: number; err: string }> {
  return new Promise((resolve) => {
    execFile('sh', ['-c', line, 'sh', process.execPath, program], (error, _out, err) => {
      resolve({ code: typeof error?.code === 'number' ? error.code : 0, err });
    });
  });
}

test('a reader that has gone is no fault', async () => {
  expect(await shell('{ sleep 0.2; "$@" --help; echo "ended with $?" >&2; } | true')).toEqual({
    code: 0,
    err: 'ended with 0\n',
  });
});

test('an answer that a full disk did not take is told, in one line', async () => {
  expect(await shell('"$@" --help > /dev/full')).toEqual({
    code: 1,
    err: 'iotflow: cannot write the answer: the disk is full\n',
  });
});

test('a table may have any number of rows', () => {
  const rows = Array.from({ length: 300_000 }, (_, row) => [String(row), 'x']);
  expect(formatTable(['A', 'B'], rows).length).toBeGreaterThan(300_000 * 4);
});
