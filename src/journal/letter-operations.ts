// What an operator may do with dead letters, by name: for the control socket of a running gateway and for the command
// line beside a stopped one. Promises: a call does a bounded piece and answers where to go on, so that thousands of
// letters neither fill the memory nor hold up what devices send.

import { isUtf8 } from 'node:buffer';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Operation, Operations } from '../platform/operations.ts';
import type { StoredLetter } from './contract.ts';
import type { LetterFilter } from './dead-letters.ts';
import type { Journal } from './journal.ts';

type Args = Parameters<Operation>[0];

/** What became of one letter; `kind` other than `replayed` and `gone` leaves a letter. */
export interface ReplayedLetter {
  readonly kind: 'replayed' | 'refused' | 'gone' | 'impossible';
  readonly code?: string;
  readonly reason?: string;
}

export interface LetterOperationParts {
  readonly journal: Pick<
    Journal,
    'listDeadLetters' | 'getDeadLetter' | 'dropDeadLetters' | 'newestDeadLetter'
  >;
  readonly replay: (letter: StoredLetter) => Promise<ReplayedLetter>;
}

/** A letter as it is shown. */
export interface ShownLetter {
  readonly id: string;
  readonly stage: string;
  readonly code: string;
  readonly reason: string;
  readonly device_id: string | null;
  readonly origin: string | null;
  readonly class: string;
  readonly transport: string | null;
  /** When it became a letter; null where the date was not known. */
  readonly at: string | null;
  /** How often it was replayed and refused again. */
  readonly attempts: number;
  readonly bytes: number;
  /** Whether the rest of a longer one was not kept: it cannot be replayed. */
  readonly cut: boolean;
}

const defaults = {
  listMax: 1000,
  /** Letters of one call; those of a replay share a few commits. */
  pageMax: 100,
  /** Of a page's letters in memory, unless it is a single one. */
  pageBytesMax: 1024 * 1024,
};

function invalid(message: string): GatewayError {
  return new GatewayError('ARGUMENT_INVALID', message);
}

function optionalText(args: Args, name: string): string | undefined {
  const value = args[name];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'string' && value !== '' && value.length <= 256) return value;
  throw invalid(`${name}: expected text of 1 to 256 characters`);
}

/** Ids may be given without their leading zeros. */
function idOf(text: string): string {
  if (!/^\d{1,16}$/.test(text)) throw invalid(`${text.slice(0, 80)}: expected the number of a dead letter`);
  return text.padStart(16, '0');
}

function idsOf(args: Args): string[] | undefined {
  const { ids } = args;
  if (ids === undefined) return undefined;
  if (!Array.isArray(ids) || ids.length === 0 || ids.length > defaults.pageMax) {
    throw invalid(`ids: expected 1 to ${defaults.pageMax} of them`);
  }
  return ids.map((id) => idOf(String(id)));
}

function limitOf(args: Args, most: number): number {
  const limit = args.limit === undefined ? most : args.limit;
  if (typeof limit === 'number' && Number.isInteger(limit) && limit >= 1 && limit <= most) return limit;
  throw invalid(`limit: expected a whole number from 1 to ${most}`);
}

function filterOf(args: Args): LetterFilter {
  const after = optionalText(args, 'after');
  const until = optionalText(args, 'until');
  const found = {
    stage: optionalText(args, 'stage'),
    code: optionalText(args, 'code'),
    deviceId: optionalText(args, 'device'),
    after: after === undefined ? undefined : idOf(after),
    until: until === undefined ? undefined : idOf(until),
  };
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined));
}

function shown(letter: StoredLetter): ShownLetter {
  return {
    id: letter.id,
    stage: letter.stage,
    code: letter.code,
    reason: letter.reason,
    device_id: letter.deviceId ?? null,
    origin: letter.origin ?? null,
    class: letter.class ?? 'telemetry',
    transport: letter.transport ?? null,
    at: letter.time?.boot === undefined ? new Date(letter.wallMs).toISOString() : null,
    attempts: letter.attempts ?? 0,
    bytes: letter.bytes.length,
    cut: letter.isCut,
  };
}

/** `dead-letters.list`, `.show`, `.replay`, `.drop`. */
export function letterOperations({ journal, replay }: LetterOperationParts): Operations {
  /** The letters of one call: those named, or the next of those that match. */
  async function page(args: Args): Promise<StoredLetter[]> {
    const ids = idsOf(args);
    const letters: StoredLetter[] = [];
    if (ids === undefined) {
      letters.push(
        ...(await journal.listDeadLetters({ ...filterOf(args), limit: limitOf(args, defaults.pageMax) })),
      );
    } else {
      for (const id of ids) {
        const letter = await journal.getDeadLetter(id);
        if (letter === undefined) throw new GatewayError('LETTER_UNKNOWN', `no dead letter ${Number(id)}`);
        letters.push(letter);
      }
    }
    return letters;
  }

  const list: Operation = async (args) => {
    const letters = await journal.listDeadLetters({
      ...filterOf(args),
      limit: limitOf(args, defaults.listMax),
    });
    return {
      dead_letters: letters.map(shown),
      next: letters.at(-1)?.id ?? null,
      newest: journal.newestDeadLetter ?? null,
    };
  };

  const show: Operation = async (args) => {
    const id = idOf(optionalText(args, 'id') ?? '');
    const letter = await journal.getDeadLetter(id);
    if (letter === undefined) throw new GatewayError('LETTER_UNKNOWN', `no dead letter ${Number(id)}`);
    const { bytes } = letter;
    const text = isUtf8(bytes) ? bytes.toString('utf8') : null;
    return { ...shown(letter), text, base64: bytes.toString('base64') };
  };

  const replayPage: Operation = async (args) => {
    const letters = await page(args);
    const counts = { replayed: 0, refused: 0, impossible: 0, gone: 0, failed: 0 };
    const reasons: Record<string, string> = {};
    let failure: unknown;
    let done = 0;
    while (done < letters.length && failure === undefined) {
      const some: StoredLetter[] = [];
      let bytes = 0;
      for (const letter of letters.slice(done)) {
        bytes += letter.bytes.length;
        if (some.length > 0 && bytes > defaults.pageBytesMax) break;
        some.push(letter);
      }
      // Together: they share a commit.
      const outcomes = await Promise.allSettled(some.map(replay));
      for (const [index, outcome] of outcomes.entries()) {
        const id = some[index]?.id ?? '';
        if (outcome.status === 'rejected') {
          counts.failed += 1;
          failure = outcome.reason;
          if (errorCode(failure) === undefined) throw failure;
          continue;
        }
        const { kind, reason } = outcome.value;
        counts[kind] += 1;
        if (reason !== undefined) reasons[id] = reason;
      }
      done += some.length;
    }
    return {
      ...counts,
      reasons,
      // Letters that could not be written stay; going on would only fail again.
      error: failure instanceof Error ? failure.message : null,
      next: failure === undefined ? (letters.at(-1)?.id ?? null) : null,
    };
  };

  const drop: Operation = async (args) => {
    const letters = await page(args);
    const dropped = await journal.dropDeadLetters(letters.map(({ id }) => id));
    return { dropped: dropped.length, next: letters.at(-1)?.id ?? null };
  };

  return new Map([
    ['dead-letters.list', list],
    ['dead-letters.show', show],
    ['dead-letters.replay', replayPage],
    ['dead-letters.drop', drop],
  ]);
}
