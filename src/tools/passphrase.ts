// The passphrase of a backup: from a file, from the environment, or typed. Never from the argument line, which every
// user of the machine can read, and never printed.

import { readFileSync } from 'node:fs';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Call, CommandOption } from './command.ts';

const variable = 'IOTFLOW_BACKUP_PASSPHRASE';
const charactersMin = 8;

export const passphraseOption: CommandOption = {
  type: 'string',
  value: 'FILE',
  help: `Its first line is the passphrase; else $${variable}, else it is asked for`,
};

/** The passphrase that was given beside the command; undefined for none. Throws GatewayError `PASSPHRASE_INVALID`. */
export function givenPassphrase(call: Call): string | undefined {
  const file = call.text('passphrase-file');
  if (file === undefined) return checked(call.env[variable] || undefined, variable);
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new GatewayError('PASSPHRASE_INVALID', `cannot read ${file}: ${errorCode(error)}`, {
      cause: error,
    });
  }
  return checked(text.split(/\r?\n/, 1)[0], file);
}

/** Asks for it on the terminal, without showing it. Throws GatewayError `PASSPHRASE_INVALID` where there is none. */
export async function askPassphrase(call: Call, options: { readonly isNew: boolean }): Promise<string> {
  if (!process.stdin.isTTY) {
    throw new GatewayError(
      'PASSPHRASE_INVALID',
      `a passphrase is needed: give --passphrase-file FILE or ${variable}`,
    );
  }
  const typed = checked(await typeHidden(call, 'Passphrase: '), 'the passphrase') ?? '';
  if (options.isNew && (await typeHidden(call, 'The same again: ')) !== typed) {
    throw new GatewayError('PASSPHRASE_INVALID', 'the two passphrases differ');
  }
  return typed;
}

function checked(passphrase: string | undefined, origin: string): string | undefined {
  if (passphrase === undefined || [...passphrase].length >= charactersMin) return passphrase;
  throw new GatewayError('PASSPHRASE_INVALID', `${origin}: expected at least ${charactersMin} characters`);
}

/** What is typed at the terminal, without showing it. Throws GatewayError `PASSPHRASE_INVALID` when given up. */
export async function typeHidden(call: Call, question: string): Promise<string> {
  const { stdin } = process;
  call.stderr.write(question);
  stdin.setRawMode(true);
  stdin.setEncoding('utf8');
  let typed = '';
  try {
    for await (const keys of stdin.iterator({ destroyOnReturn: false })) {
      for (const key of String(keys)) {
        if (key === '\r' || key === '\n') return typed;
        if (key === '\u0003' || key === '\u0004') throw new GatewayError('PASSPHRASE_INVALID', 'given up');
        typed = key === '\u007f' || key === '\b' ? [...typed].slice(0, -1).join('') : typed + key;
      }
    }
    throw new GatewayError('PASSPHRASE_INVALID', 'no passphrase was typed');
  } finally {
    stdin.setRawMode(false);
    stdin.pause();
    call.stderr.write('\n');
  }
}
