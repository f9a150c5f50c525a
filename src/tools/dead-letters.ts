// `iotflow dead-letters …`: what could not be stored, why, and how to give it another chance. Works with the gateway
// running and stopped.

import type { ShownLetter } from '../journal/letter-operations.ts';
import { GatewayError } from '../platform/errors.ts';
import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { type CallOperation, withOperations } from './operator.ts';
import { storedLetters } from './stored-letters.ts';

const dateUnknown = 'date unknown';
const common = { config: configOption, json: jsonOption };
const filters = {
  stage: { type: 'string', value: 'STAGE', help: 'Only those refused by: ingest, influx, bridge' },
  code: { type: 'string', value: 'CODE', help: 'Only those with this code, such as FIELD_TYPE_CONFLICT' },
  device: { type: 'string', value: 'ID', help: 'Only those of this device' },
} as const;

/** Letters of one request; the gateway takes no more at once. */
const pageMax = 100;
const listDefault = 50;
const listMax = 1000;

function use<Result>(given: Call, run: (call: CallOperation) => Promise<Result>): Promise<Result> {
  return withOperations(requireConfig(given).config, storedLetters, run);
}

function filterOf(given: Call): Record<string, string> {
  const found = Object.keys(filters).map((name) => [name, given.text(name)] as const);
  return Object.fromEntries(found.filter((pair): pair is [string, string] => pair[1] !== undefined));
}

function numberOf(id: string): string {
  return String(Number(id));
}

const listCommand: Command = {
  name: 'dead-letters list',
  summary: 'List what could not be stored, and why',
  options: {
    limit: {
      type: 'string',
      value: 'N',
      help: `How many, 1 to ${listMax}; default ${listDefault}, the oldest first`,
    },
    after: { type: 'string', value: 'ID', help: 'Only those behind this one' },
    ...filters,
    ...common,
  },
  run: async (given) => {
    const after = given.text('after');
    const limit = Number(given.text('limit') ?? listDefault);
    const args = { ...filterOf(given), limit, ...(after !== undefined && { after }) };
    const result = (await use(given, (call) => call('dead-letters.list', args))) as {
      dead_letters: readonly ShownLetter[];
      next: string | null;
    };
    const letters = result.dead_letters;
    const rows = letters.map((letter) => [
      numberOf(letter.id),
      letter.at ?? dateUnknown,
      letter.stage,
      letter.code,
      letter.device_id ?? '-',
      String(letter.attempts),
      letter.reason.slice(0, 100),
    ]);
    const table = formatTable(['ID', 'SINCE', 'STAGE', 'CODE', 'DEVICE', 'TRIED', 'REASON'], rows);
    const more =
      letters.length === limit && result.next !== null
        ? `\nfor those behind them: --after ${numberOf(result.next)}`
        : '';
    answer(given, result, rows.length === 0 ? 'no dead letters' : table + more);
    return 0;
  },
};

const showCommand: Command = {
  name: 'dead-letters show',
  summary: 'Show one with its reason and its original bytes',
  positionals: ['ID'],
  options: {
    raw: { type: 'boolean', help: 'Write the exact bytes to standard output, and nothing else' },
    ...common,
  },
  run: async (given) => {
    const [id] = given.positionals;
    const letter = (await use(given, (call) => call('dead-letters.show', { id }))) as ShownLetter & {
      text: string | null;
      base64: string;
    };
    const bytes = Buffer.from(letter.base64, 'base64');
    if (given.flag('raw')) {
      given.stdout.write(bytes);
      return 0;
    }
    const facts: [string, string][] = [
      ['id', numberOf(letter.id)],
      ['since', letter.at ?? dateUnknown],
      ['refused by', letter.stage],
      ['code', letter.code],
      ['reason', letter.reason],
      ['device', letter.device_id ?? '-'],
      ['origin', letter.origin ?? '-'],
      ['class', letter.class],
      ['tried again', String(letter.attempts)],
      ['bytes', letter.cut ? `${letter.bytes}, the rest was not kept` : String(letter.bytes)],
    ];
    const lines = facts.map(([name, value]) => `${name.padEnd(12)}${value}`);
    answer(given, letter, [...lines, '', shownBytes(bytes, letter.text)].join('\n'));
    return 0;
  },
};

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what is looked for
const unprintable = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/;

/** Text as it is; anything that a terminal would act on, or that is no text, as a hex dump. */
function shownBytes(bytes: Buffer, text: string | null): string {
  if (text !== null && !unprintable.test(text)) return text;
  const rows: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    const row = bytes.subarray(at, at + 16);
    const hex = [...row].map((byte) => byte.toString(16).padStart(2, '0')).join(' ');
    const plain = row.toString('latin1').replace(/[^ -~]/g, '.');
    rows.push(`${at.toString(16).padStart(6, '0')}  ${hex.padEnd(47)}  ${plain}`);
  }
  return rows.join('\n');
}

const replayCommand: Command = {
  name: 'dead-letters replay',
  summary: 'Try dead letters again, at the time they came',
  positionals: ['[ID…]'],
  options: { all: { type: 'boolean', help: 'All of them, or all that match' }, ...filters, ...common },
  details:
    'What is refused again stays a dead letter, under a new number, and is not tried by itself. Exit code 1 when any was.',
  run: async (given) => {
    const counts = { replayed: 0, refused: 0, impossible: 0, gone: 0 };
    const reasons: Record<string, string> = {};
    await use(given, (call) =>
      pages(given, call, 'dead-letters.replay', (page) => {
        for (const name of Object.keys(counts) as (keyof typeof counts)[]) counts[name] += Number(page[name]);
        Object.assign(reasons, page.reasons);
        return `${counts.replayed} replayed`;
      }),
    );
    const failed = Object.entries(reasons).map(([id, reason]) => `${numberOf(id)}: ${reason}`);
    const shown = failed.slice(0, 20);
    if (failed.length > shown.length) shown.push(`… and ${failed.length - shown.length} more`);
    const parts = [`${counts.replayed} replayed`];
    if (counts.refused > 0) parts.push(`${counts.refused} refused again`);
    if (counts.impossible > 0) parts.push(`${counts.impossible} cannot be replayed`);
    if (counts.gone > 0) parts.push(`${counts.gone} no longer there`);
    answer(given, { ...counts, reasons }, [...shown, parts.join(', ')].join('\n'));
    return counts.refused + counts.impossible > 0 ? 1 : 0;
  },
};

const dropCommand: Command = {
  name: 'dead-letters drop',
  summary: 'Drop dead letters for good',
  positionals: ['[ID…]'],
  options: {
    all: { type: 'boolean', help: 'All of them, or all that match; needs --yes' },
    yes: { type: 'boolean', help: 'Yes, drop them' },
    ...filters,
    ...common,
  },
  run: async (given) => {
    if (given.flag('all') && !given.flag('yes')) {
      throw new GatewayError('NOT_CONFIRMED', 'dropping with --all cannot be undone: add --yes');
    }
    let dropped = 0;
    await use(given, (call) =>
      pages(given, call, 'dead-letters.drop', (page) => {
        dropped += Number(page.dropped);
        return `${dropped} dropped`;
      }),
    );
    answer(given, { dropped }, `${dropped} dropped`);
    return 0;
  },
};

type Page = Readonly<Record<string, unknown>>;

/** Calls the operation for the letters named, or for all that match, piece by piece. */
async function pages(
  given: Call,
  call: CallOperation,
  operation: string,
  /** Takes in a page and answers how far things are. */
  note: (page: Page) => string,
): Promise<void> {
  const one = async (args: Page): Promise<Page> => {
    const page = (await call(operation, args)) as Page;
    const progress = note(page);
    if (given.flag('all')) given.stderr.write(`${progress}\n`);
    if (typeof page.error === 'string') {
      throw new GatewayError('DEAD_LETTERS_FAILED', `${progress}, then: ${page.error}; the others are kept`);
    }
    return page;
  };
  const ids = given.positionals;
  const isAll = given.flag('all');
  if (isAll === ids.length > 0) {
    throw new GatewayError('ARGUMENT_INVALID', 'expected either numbers of dead letters or --all');
  }
  for (let at = 0; at < ids.length; at += pageMax) await one({ ids: ids.slice(at, at + pageMax) });
  if (!isAll) return;
  // What is refused again gets a number behind the last one there is now: it is not met once more.
  const { newest } = (await call('dead-letters.list', { limit: 1 })) as Page;
  let next: unknown = newest === null ? null : undefined;
  while (next !== null) {
    const page = await one({
      ...filterOf(given),
      limit: pageMax,
      until: newest,
      ...(next !== undefined && { after: next }),
    });
    next = page.next ?? null;
  }
}

export const deadLetterCommands: readonly Command[] = [listCommand, showCommand, replayCommand, dropCommand];
