// Lines as InfluxDB keeps their fields, not as we wrote them: `50` becomes `50i` where a field is known to be an
// integer. Promises: without a known type nothing is touched, unpacked or copied; what was converted can be found
// again as it lies in the journal, since a type may differ from one week of data to the next (InfluxDB 1 and 2) and
// what is refused in one form is tried in the other before it is given up.

import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gunzip as gunzipCallback } from 'node:zlib';
import type { Batch, DeadLetter } from '../journal/contract.ts';
import { takeApart } from '../model/line-parts.ts';
import { splitLines } from '../model/line-protocol.ts';
import { lineWrittenAs, misfitReason, type ServerTypes, writtenAs } from '../model/server-type.ts';
import type { Refusal } from './answer.ts';
import type { RefusedLine, SetRefusal } from './isolation.ts';
import type { LearntTypes } from './server-types.ts';
import type { Uplink } from './uplink.ts';

const gunzip = promisify(gunzipCallback);

/** Lines between two turns of the event loop: a few milliseconds on a small machine. */
const linesPerTurn = 250;

/** How a batch goes on its way. */
export interface Form {
  readonly encoding: Batch['encoding'];
  readonly body: Buffer;
  /** What was sent, to what the journal holds: only lines that differ. */
  readonly originals: ReadonlyMap<string, string>;
}

/** Undefined for a stored block that cannot be unpacked. */
export async function readLines({
  encoding,
  body,
}: Pick<Form, 'encoding' | 'body'>): Promise<string[] | undefined> {
  if (encoding === 'identity') return splitLines(body.toString('utf8'));
  try {
    return splitLines((await gunzip(body)).toString('utf8'));
  } catch {
    return undefined;
  }
}

export async function formOf(batch: Batch, types: ServerTypes | undefined): Promise<Form> {
  const asStored: Form = { encoding: batch.encoding, body: batch.body, originals: new Map() };
  if (types === undefined || types.size === 0) return asStored;
  const lines = await readLines(batch);
  if (lines === undefined) return asStored;
  const originals = new Map<string, string>();
  const converted: string[] = [];
  for (const [index, line] of lines.entries()) {
    // An alarm may be waiting to be heard.
    if (index % linesPerTurn === linesPerTurn - 1) await turn();
    const sent = lineWrittenAs(line, types);
    if (sent !== line) originals.set(sent, line);
    converted.push(sent);
  }
  if (originals.size === 0) return asStored;
  return { encoding: 'identity', body: Buffer.from(`${converted.join('\n')}\n`), originals };
}

/** The line in its other form; undefined when it has but one. */
export function otherForm(sent: string, { originals }: Form, types: ServerTypes): string | undefined {
  const original = originals.get(sent);
  // Learnt meanwhile, a type may ask for a third form.
  const converted = lineWrittenAs(original ?? sent, types);
  if (converted !== sent) return converted;
  return original;
}

/** Takes in what the server says about its types. @param lines what was refused */
export function learnFrom(
  refusal: SetRefusal,
  lines: readonly string[],
  types: LearntTypes,
  isOld: boolean,
): void {
  if (refusal === 'too-large') return;
  const { conflict, columns = [] }: Refusal = refusal;
  if (conflict?.existing !== undefined) {
    const { measurement, field, existing } = conflict;
    types.learn({ measurement, field, type: existing }, isOld);
  }
  for (const { line, field, existing } of columns) {
    const measurement = takeApart(lines[line - 1] ?? '')?.measurement;
    if (measurement !== undefined) types.learn({ measurement, field, type: existing }, isOld);
  }
}

/** @param line as the journal holds it */
export function letterOf(
  { line, reason }: RefusedLine,
  batch: Batch,
  { name, stage }: Pick<Uplink, 'name' | 'stage'>,
  types?: ServerTypes,
): DeadLetter {
  const parts = takeApart(line);
  const deviceId = parts === undefined ? undefined : /,device_id=([\w-]+)/.exec(parts.series)?.[1];
  const misfit = types === undefined ? undefined : misfitOf(line, types);
  return {
    stage,
    code: misfit === undefined ? `${stage.toUpperCase()}_REJECTED` : 'FIELD_TYPE_CONFLICT',
    reason: misfit === undefined ? reason : `${misfit}; ${name} said: ${reason}`,
    bytes: Buffer.from(line),
    ...(batch.lane === 'urgent' && { class: 'event' as const }),
    ...(parts !== undefined && { origin: parts.measurement }),
    ...(deviceId !== undefined && { deviceId }),
  };
}

/** Which field cannot be what InfluxDB keeps it as. */
function misfitOf(line: string, types: ServerTypes): string | undefined {
  const parts = takeApart(line);
  if (parts === undefined) return undefined;
  const { measurement, fields } = parts;
  for (const { name, value } of fields) {
    const type = types.typeOf(measurement, name);
    if (type !== undefined && writtenAs(value, type) === undefined) {
      return misfitReason(measurement, name, type, value);
    }
  }
  return undefined;
}
