// Many blocks into one of fewer points. Promises: one block is unpacked at a time, the event loop gets its turn every
// few hundred lines, and a line that cannot be understood is kept as it is. Changes nothing: who calls puts the
// result in place of the blocks.

import { setImmediate as turn } from 'node:timers/promises';
import { promisify } from 'node:util';
import { gunzip, gzip } from 'node:zlib';
import { encodeLine, LineProtocolError, parseStored, splitLines } from '../model/line-protocol.ts';
import { Thinner } from '../model/thinning.ts';
import type { Block, BlockHeader, BlockRef } from './blocks.ts';

/** Lines between two turns of the event loop: a few milliseconds on a small machine. */
const linesPerTurn = 100;
/** A source more costs a delete in the same batch. */
const sourcesMax = 1024;
const nsPerMs = 1_000_000n;
const linesBytesMax = 2 * 1024 * 1024;
/** No block of ours is larger; what claims to be must not fill the memory. */
const unpackedBytesMax = 64 * 1024 * 1024;

const compress = promisify(gzip) as (lines: Buffer, options: { level: number }) => Promise<Buffer>;
const unpack = promisify(gunzip) as (body: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>;

export interface Span {
  /** Milliseconds since the Unix epoch, of the oldest and the newest point; undefined when unknown. */
  readonly fromMs: number | undefined;
  readonly toMs: number | undefined;
}

export interface ThinnedBlock extends Span {
  readonly header: BlockHeader;
  readonly body: Buffer;
  readonly sources: readonly BlockRef[];
  readonly sourcePoints: number;
  readonly sourceBytes: number;
}

export interface ThinningOptions {
  readonly windowNs: bigint;
  /** Ends the block when so many points are in it. */
  readonly pointsMax: number;
  /** Takes sources up to so many stored bytes, but at least one. */
  readonly sourceBytesMax: number;
  readonly gzipLevel: number;
  /** The block to thin next; they end up in `sources`. */
  readonly next: (behind: number | undefined) => Promise<Block | undefined>;
  /** A block that cannot be unpacked: it is none of the sources, and the caller's to give up. */
  readonly onDamaged: (block: BlockRef) => Promise<void>;
  readonly isStopping: () => boolean;
}

/** Undefined when there was none. When it throws, or was stopped, the caller still has the blocks it handed out. */
export async function thinBlocks(options: ThinningOptions): Promise<ThinnedBlock | undefined> {
  const thinned: string[] = [];
  let linesBytes = 0;
  const keep = (line: string) => {
    thinned.push(line);
    linesBytes += line.length + 1;
  };
  const thinner = new Thinner({
    windowNs: options.windowNs,
    emit: (key, fields, timeNs) => {
      const [series = '', boot] = key.split('\n');
      keep(encodeLine(series, fields, boot === undefined ? { timeNs } : { timeNs, boot: Number(boot) }));
    },
  });
  const sources: BlockRef[] = [];
  let fromMs: number | undefined;
  let toMs: number | undefined;
  let sourcePoints = 0;
  let sourceBytes = 0;
  let kept = 0;
  let first: Block | undefined;
  let last: Block | undefined;
  while (
    (sources.length === 0 || sourceBytes < options.sourceBytesMax) &&
    sources.length < sourcesMax &&
    thinner.points + kept < options.pointsMax &&
    linesBytes < linesBytesMax
  ) {
    const block = await options.next(last?.number);
    if (block === undefined) break;
    const lines = await unpacked(block);
    if (lines === undefined) {
      await options.onDamaged(block);
      continue;
    }
    first ??= block;
    last = block;
    sources.push(refOf(block));
    sourcePoints += block.points;
    sourceBytes += block.storedBytes;
    let untilTurn = linesPerTurn;
    for (const line of lines) {
      untilTurn -= 1;
      if (untilTurn === 0) {
        await turn();
        if (options.isStopping()) return undefined;
        untilTurn = linesPerTurn;
      }
      try {
        const { series, fields, time } = parseStored(line);
        if (time.boot === undefined) {
          const timeMs = Number(time.timeNs / nsPerMs);
          fromMs = Math.min(fromMs ?? timeMs, timeMs);
          toMs = Math.max(toMs ?? timeMs, timeMs);
        }
        // What has no date yet is thinned within its boot.
        thinner.add(time.boot === undefined ? series : `${series}\n${time.boot}`, fields, time.timeNs);
      } catch (error) {
        if (!(error instanceof LineProtocolError)) throw error;
        keep(line);
        kept += 1;
      }
    }
  }
  if (first === undefined || last === undefined) return undefined;
  while (!options.isStopping() && !thinner.finish(linesPerTurn)) await turn();
  if (options.isStopping()) return undefined;
  const plain = Buffer.from(`${thinned.join('\n')}\n`);
  const body = await compress(plain, { level: options.gzipLevel });
  const header: BlockHeader = {
    isUndated: sources.some(({ isUndated }) => isUndated),
    points: thinned.length,
    linesBytes: plain.length,
    toSequence: last.toSequence,
    oldestMs: first.oldestMs,
    newestMs: last.newestMs,
  };
  return { header, body, sources, sourcePoints, sourceBytes, fromMs, toMs };
}

/** From when to when the points of a block are, as far as its first and last line tell. */
export async function spanOf(block: Block): Promise<Span> {
  const lines = (await unpacked(block)) ?? [];
  const times = [lines[0], lines[lines.length - 1]].map((line) => {
    const digits = line === undefined ? undefined : / (\d{1,19})$/.exec(line)?.[1];
    return digits === undefined ? undefined : Number(BigInt(digits) / nsPerMs);
  });
  return { fromMs: times[0], toMs: times[1] };
}

async function unpacked(block: Block): Promise<string[] | undefined> {
  try {
    return splitLines((await unpack(block.body, { maxOutputLength: unpackedBytesMax })).toString());
  } catch {
    return undefined;
  }
}

/** Without the body, which must not stay in memory. */
export function refOf({ row, number, points, isUndated, storedBytes, newestMs }: Block): BlockRef {
  return { row, number, points, isUndated, storedBytes, newestMs };
}
