// Finds the lines InfluxDB refuses among many it takes. Promises: every line ends either in a request that was
// accepted, or refused by an answer of the server about that line alone, or about a set in which the server counts
// every line as refused. Hints only decide the order of the questions. One bad line among n without any hint costs
// at most log2(n) + 2 requests.

import { takeApart } from '../model/line-parts.ts';
import { typeOfValue } from '../model/server-type.ts';
import type { Refusal, WriteOutcome } from './answer.ts';

export interface RefusedLine {
  readonly line: string;
  readonly reason: string;
}

export type Isolation =
  | { readonly kind: 'resolved'; readonly refused: readonly RefusedLine[] }
  /** The server cannot be asked now; what was found so far is to be found again. */
  | { readonly kind: 'interrupted'; readonly outcome: WriteOutcome };

/** Why a set of lines did not pass: refused, or larger than the server takes in one request. */
export type SetRefusal = Refusal | 'too-large';

interface Suspect {
  readonly lines: readonly string[];
  readonly refusal: SetRefusal;
  /** False when only inferred: the other half of a refused set was accepted. */
  readonly isConfirmed: boolean;
}

// Up to here bad lines are looked for one after the other, everything else being sent together at the end
// (log2(n) requests each); with more of them, asking about both halves at once is cheaper.
const loneLinesMax = 2;

/**
 * @param lines the request that was refused
 * @param first how it was refused
 * @param send asks the server about some of the lines
 */
export async function isolate(
  lines: readonly string[],
  first: SetRefusal,
  send: (lines: readonly string[]) => Promise<WriteOutcome>,
): Promise<Isolation> {
  const refused: RefusedLine[] = [];
  const suspects: Suspect[] = [{ lines, refusal: first, isConfirmed: true }];
  let postponed: string[] = [];
  let trustsHints = true;
  let interruption: WriteOutcome | undefined;

  /** Whether the server took them; if not they become suspects, unless it cannot be asked. */
  async function ask(some: readonly string[]): Promise<boolean> {
    const outcome = await send(some);
    if (outcome.kind === 'accepted') return true;
    if (outcome.kind === 'rejected')
      suspects.push({ lines: some, refusal: outcome.refusal, isConfirmed: true });
    else if (outcome.kind === 'too-large')
      suspects.push({ lines: some, refusal: 'too-large', isConfirmed: true });
    else interruption = outcome;
    return false;
  }

  async function divide(suspect: Suspect): Promise<void> {
    const half = Math.ceil(suspect.lines.length / 2);
    const left = suspect.lines.slice(0, half);
    const right = suspect.lines.slice(half);
    const isLeftTaken = await ask(left);
    if (interruption !== undefined) return;
    // Halves of a set that was only too large tell nothing about each other.
    if (suspect.refusal === 'too-large') await ask(right);
    else if (isLeftTaken) suspects.push({ lines: right, refusal: suspect.refusal, isConfirmed: false });
    else if (refused.length < loneLinesMax) postponed.push(...right);
    else await ask(right);
  }

  while (interruption === undefined) {
    const suspect = suspects.pop();
    if (suspect === undefined) {
      if (postponed.length === 0) return { kind: 'resolved', refused };
      const rest = postponed;
      postponed = [];
      await ask(rest);
      continue;
    }
    if (suspect.lines.length === 1 && !suspect.isConfirmed) {
      await ask(suspect.lines);
      continue;
    }
    if (suspect.isConfirmed && isWhollyRefused(suspect)) {
      for (const [index, line] of suspect.lines.entries())
        refused.push({ line, reason: reasonOf(suspect, index) });
      continue;
    }
    const named = trustsHints && suspect.isConfirmed ? linesNamed(suspect) : undefined;
    if (named === undefined) {
      await divide(suspect);
      continue;
    }
    const isNamedTaken = await ask(named.lines);
    // A server whose words mislead is not asked to explain itself again.
    if (isNamedTaken) trustsHints = false;
    if (interruption === undefined) await ask(named.others);
  }
  return { kind: 'interrupted', outcome: interruption };
}

function isWhollyRefused({ lines, refusal }: Suspect): boolean {
  if (lines.length === 1) return true;
  if (refusal === 'too-large') return false;
  // Servers that quote unparsable lines do not count them.
  if (refusal.quoted.length === 0 && refusal.dropped === lines.length) return true;
  return lines.every((_line, index) => refusal.numbered.has(index + 1));
}

function reasonOf({ refusal }: Suspect, index: number): string {
  if (refusal === 'too-large') return 'larger than InfluxDB takes in one request';
  return refusal.numbered.get(index + 1) ?? refusal.message;
}

/** The lines the server seems to mean, if they are some but not all. */
function linesNamed({ lines, refusal }: Suspect): { lines: string[]; others: string[] } | undefined {
  if (refusal === 'too-large') return undefined;
  const isNamed = hintOf(refusal);
  if (isNamed === undefined) return undefined;
  const named: string[] = [];
  const others: string[] = [];
  for (const [index, line] of lines.entries()) (isNamed(line, index) ? named : others).push(line);
  return named.length > 0 && others.length > 0 ? { lines: named, others } : undefined;
}

function hintOf(refusal: Refusal): ((line: string, index: number) => boolean) | undefined {
  if (refusal.numbered.size > 0) return (_line, index) => refusal.numbered.has(index + 1);
  if (refusal.quoted.length > 0) {
    const quoted = new Set(refusal.quoted);
    return (line) => quoted.has(line);
  }
  const { conflict } = refusal;
  if (conflict === undefined) return undefined;
  return (line) => isOfType(line, conflict);
}

function isOfType(line: string, { measurement, field, type }: NonNullable<Refusal['conflict']>): boolean {
  const parts = takeApart(line);
  if (parts?.measurement !== measurement) return false;
  // Older versions say float64, int64.
  const sent = type.replace(/\d+$/, '').replace(/^int$/, 'integer');
  return parts.fields.some(({ name, value }) => name === field && typeOfValue(value) === sent);
}
