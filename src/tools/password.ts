// A user's password on the command line: asked for, or read from standard input. Never from the argument line, which
// every user of the machine can read, and never printed.

import { GatewayError } from '../platform/errors.ts';
import type { Call } from './command.ts';
import { typeHidden } from './passphrase.ts';

const inputBytesMax = 4096;

/** @throws GatewayError `PASSWORD_INVALID` */
export async function newPassword(call: Call): Promise<string> {
  if (!process.stdin.isTTY) return await readLine();
  const typed = await typeHidden(call, 'New password: ');
  if ((await typeHidden(call, 'The same again: ')) === typed) return typed;
  throw new GatewayError('PASSWORD_INVALID', 'the two passwords differ');
}

async function readLine(): Promise<string> {
  let text = '';
  for await (const chunk of process.stdin.setEncoding('utf8')) {
    text += String(chunk);
    if (text.includes('\n') || text.length > inputBytesMax) break;
  }
  const [line = ''] = text.split(/\r?\n/, 1);
  if (line !== '') return line;
  throw new GatewayError('PASSWORD_INVALID', 'expected the password on the first line of standard input');
}
