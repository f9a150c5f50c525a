// Lines that were written before anybody knew the date get it: ` b<boot>+<nanoseconds>` at the end of a line becomes a
// timestamp, and where the date can only be bounded the point gets the tag `clock=uncertain`. All other lines stay as
// they are. Pure: asked again with the same dates it answers the same lines.

import { promisify } from 'node:util';
import { constants, gunzip, gzip } from 'node:zlib';
import type { Dating } from './contract.ts';

// Longer than any boot lasts and any number of one; what a string value holds is never at the end of a line.
const undatedTime = /^b(\d{1,15})\+(\d{1,19})$/;

const decompress = promisify(gunzip);
const compress = promisify(gzip) as (lines: Buffer, options: { level: number }) => Promise<Buffer>;

/** The same for lines as a block has them. @throws Error when it is no gzip. */
export async function dateGzip(body: Buffer, dating: Dating): Promise<Buffer> {
  return await mapGzip(body, (lines) => dateLines(lines, dating));
}

/** The same body when the lines are the same buffer, an empty one for no lines. @throws Error when it is no gzip. */
export async function mapGzip(body: Buffer, change: (lines: Buffer) => Buffer): Promise<Buffer> {
  const lines = await decompress(body);
  const changed = change(lines);
  if (changed === lines) return body;
  return changed.length === 0 ? changed : await compress(changed, { level: constants.Z_BEST_SPEED });
}

/** Lines that each end in a line break. */
export function dateLines(lines: Buffer, dating: Dating): Buffer {
  const text = lines.toString();
  let dated = '';
  for (let start = 0; start < text.length; ) {
    const found = text.indexOf('\n', start);
    const end = found === -1 ? text.length : found;
    dated += `${dateLine(text.slice(start, end), dating)}\n`;
    start = end + 1;
  }
  return Buffer.from(dated);
}

/** When the point was; undefined while its date is not known, or for a line without a time. */
export function timeOfLine(line: string, dating: Dating | undefined): bigint | undefined {
  const time = line.slice(line.lastIndexOf(' ') + 1);
  if (/^-?\d{1,19}$/.test(time)) return BigInt(time);
  const match = undatedTime.exec(time);
  return match === null ? undefined : dating?.(Number(match[1]), BigInt(match[2] ?? 0)).timeNs;
}

function dateLine(line: string, dating: Dating): string {
  const timeAt = line.lastIndexOf(' ') + 1;
  const match = undatedTime.exec(line.slice(timeAt));
  if (match === null) return line;
  const { timeNs, isCertain } = dating(Number(match[1]), BigInt(match[2] ?? 0));
  const rest = line.slice(0, timeAt);
  return `${isCertain ? rest : withTag(rest, ',clock=uncertain')}${timeNs}`;
}

/** Behind the measurement, where the keys of our tags want it: they are in order, and theirs come later. */
function withTag(line: string, tag: string): string {
  let at = 0;
  while (at < line.length && line[at] !== ',' && line[at] !== ' ') at += line[at] === '\\' ? 2 : 1;
  return line.slice(0, at) + tag + line.slice(at);
}
