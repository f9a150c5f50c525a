// `iotflow journal verify`: looks at everything the journal holds and says what is damaged and where. Promises: each
// frame of the ring has its checksum checked in the file itself, before anything is opened, and every line of ring
// and blocks is read and understood; nothing is taken, dropped or sent. A tail that was being written when the power
// went is no damage. Does not look into hot state beside what a read of it reports.

import { existsSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { JournalStats } from '../journal/journal.ts';
import { type Scan, scanSegment } from '../journal/segment.ts';
import { LineProtocolError, parseStored } from '../model/line-protocol.ts';
import { errorCode } from '../platform/errors.ts';
import { camelCased } from '../platform/outside-names.ts';
import type { CallOperation } from './operator.ts';

export interface Damage {
  /** A file and a position in it, or what else says where. */
  readonly where: string;
  readonly what: string;
}

export interface RingVerdict {
  readonly segments: number;
  readonly frames: number;
  readonly damage: readonly Damage[];
}

export interface LinesVerdict {
  readonly lines: number;
  readonly damage: readonly Damage[];
}

interface ScannedFile {
  readonly name: string;
  readonly scan: Scan;
}

/** Beyond so many, more of the same kind only scroll past. */
const damageMax = 1000;
/** Beside a running gateway a file may change under the reading of it: damage is what is there twice. */
const readings = 2;

async function scanFile(path: string): Promise<Scan | string> {
  try {
    return scanSegment(await readFile(path));
  } catch (error) {
    return `cannot be read: ${errorCode(error) ?? String(error)}`;
  }
}

function looksDamaged(scan: Scan | string): boolean {
  return typeof scan === 'string' || scan.isAlien || scan.gaps.length > 0;
}

/** The files of the ring, one after the other. `onRead` hears of the bytes of each. */
export async function verifyRing(directory: string, onRead: (bytes: number) => void): Promise<RingVerdict> {
  const folder = join(directory, 'ring');
  if (!existsSync(folder)) return { segments: 0, frames: 0, damage: [] };
  const damage: Damage[] = [];
  const files: ScannedFile[] = [];
  for (const name of (await readdir(folder)).sort()) {
    if (!/^ring-\d{3,}$/.test(name)) continue;
    const path = join(folder, name);
    let scan = await scanFile(path);
    for (let again = 1; again < readings && looksDamaged(scan); again += 1) scan = await scanFile(path);
    if (typeof scan === 'string') damage.push({ where: name, what: scan });
    else if (scan.isAlien) damage.push({ where: name, what: 'is nothing this version writes' });
    else files.push({ name, scan });
    onRead(typeof scan === 'string' ? 0 : scan.frames.reduce((sum, { header }) => sum + header.length, 0));
  }
  const headers = files.flatMap(({ scan }) => scan.frames.map(({ header }) => header));
  const newest = headers.reduce((best, header) => (header.sequence > best.sequence ? header : best), {
    sequence: 0,
    floor: 0,
  });
  // What lies in segments below the floor has left the ring.
  const live = files.filter(({ scan }) => scan.id > 0 && scan.id >= newest.floor);
  for (const { name, scan } of live) {
    for (const gap of scan.gaps) {
      if (gap.position === 0 && scan.isOverwritten) continue;
      const where = `${name} at ${gap.position}`;
      damage.push({ where, what: `${gap.bytes} bytes are no frame, and a good one follows` });
    }
  }
  const frames = live.reduce((sum, { scan }) => sum + scan.frames.length, 0);
  return { segments: live.length, frames, damage: damage.slice(0, damageMax) };
}

/** All lines in ring and blocks, through the operations of the journal. */
export async function verifyLines(
  call: CallOperation,
  onRead: (bytes: number) => void,
): Promise<LinesVerdict> {
  const damage: Damage[] = [];
  let lines = 0;
  let after: string | undefined;
  do {
    const page = (await call('journal.read', after === undefined ? {} : { after })) as {
      lines: string;
      next: string | null;
    };
    for (const line of page.lines.split('\n')) {
      if (line === '') continue;
      lines += 1;
      const what = faultOf(line);
      if (what !== undefined && damage.length < damageMax) damage.push({ where: `line ${lines}`, what });
    }
    onRead(page.lines.length);
    after = page.next ?? undefined;
  } while (after !== undefined);
  const stats = camelCased(await call('journal.stat', {})) as JournalStats;
  return { lines, damage: [...damage, ...reported(stats)] };
}

function faultOf(line: string): string | undefined {
  try {
    parseStored(line);
    return undefined;
  } catch (error) {
    if (!(error instanceof LineProtocolError)) throw error;
    return `${error.message}: ${JSON.stringify(line.slice(0, 80))}`;
  }
}

/** What the journal has found itself, now or when it was opened. */
function reported({ quarantined, lostBlocks, lostBlockPoints, blockStore }: JournalStats): Damage[] {
  const found: Damage[] = [];
  if (quarantined.points > 0) {
    found.push({ where: 'ring', what: `${quarantined.points} points are lost since the journal was opened` });
  }
  if (lostBlocks > 0) found.push({ where: 'blocks', what: `${lostBlocks} lost, ${lostBlockPoints} points` });
  if (blockStore.damagedValues > 0) {
    found.push({ where: 'blocks', what: `${blockStore.damagedValues} values with a wrong checksum` });
  }
  return found;
}
