// Local history and what lies behind it, as one. A stretch of time is answered by one of the two: since local history
// covers it (coverage.ts) by that, before by the remote one. Promises: what local history can answer alone waits for
// nobody; when the remote one cannot be asked the answer is what is here, and says what may be missing and why; an
// answer is bounded, `next` leads on. Does not promise that the remote one has everything: a backlog may be on its way.

import { GatewayError } from '../platform/errors.ts';
import type { Answering, Missing, Source, Told } from './answering.ts';
import type { History, LatestAnswer } from './history.ts';
import {
  type AggregateAnswer,
  type AggregateQuery,
  behindCursor,
  compareRows,
  cursorOf,
  type Order,
  type RangeAnswer,
  type RangeQuery,
  type Row,
  resumed,
  type Selection,
  type WindowRow,
} from './query.ts';

/** Rows or windows of the remote part of an answer: `next` leads on. */
const remoteMax = 2_000;

export interface RemoteRangeQuery extends Selection {
  readonly order: Order;
  /** Different times of rows, at most. */
  readonly momentsMax: number;
}

/** What lies behind local history. Rejects with `REMOTE_…` when it cannot be asked. */
export interface RemoteHistory {
  latest(deviceId: string, measurement: string | undefined, signal?: AbortSignal): Promise<LatestAnswer[]>;
  /** The rows of the first moments, complete; `isCut`: there may be more. */
  range(query: RemoteRangeQuery, signal?: AbortSignal): Promise<{ rows: Row[]; isCut: boolean }>;
  /** All windows of the range: the caller bounds it. */
  aggregate(query: Omit<AggregateQuery, 'limit'>, signal?: AbortSignal): Promise<WindowRow[]>;
}

type LocalHistory = Pick<History, 'latest' | 'range' | 'aggregate' | 'coveredFromNs'>;

export interface WholeHistoryParts {
  /** Undefined where there is none: everything is asked behind it. */
  readonly local: LocalHistory | undefined;
  readonly remote: RemoteHistory;
  readonly wallMs: () => number;
}

function earlier(aNs: bigint, bNs: bigint): bigint {
  return bNs < aNs ? bNs : aNs;
}

export function wholeHistory({ local, remote, wallMs }: WholeHistoryParts): Answering {
  /** Before it the remote one answers. */
  const boundary = (): bigint =>
    local === undefined ? BigInt(Math.ceil(wallMs())) * 1_000_000n + 1n : local.coveredFromNs;

  /** What is here, when the other cannot be asked. */
  async function alone<Answer>(
    error: unknown,
    { fromNs, toNs }: Pick<Missing, 'fromNs' | 'toNs'>,
    ask: (local: LocalHistory) => Promise<Answer>,
  ): Promise<Answer & Told> {
    if (!(error instanceof GatewayError) || !error.code.startsWith('REMOTE_')) throw error;
    // Nobody is there to be told, or there is nothing to tell.
    if (error.code === 'REMOTE_CANCELLED' || local === undefined) throw error;
    const missing = { fromNs, toNs, code: error.code, reason: error.message };
    return { ...(await ask(local)), source: 'local', missing };
  }

  async function range(query: RangeQuery, signal?: AbortSignal): Promise<RangeAnswer & Told> {
    const boundaryNs = boundary();
    const { fromNs, toNs } = resumed(query);
    if (local !== undefined && fromNs >= boundaryNs) return await local.range(query);
    const endNs = earlier(boundaryNs, toNs);
    const isNewestFirst = query.order === 'newest-first';
    const recent =
      local === undefined || endNs === toNs
        ? undefined
        : (limit: number) => local.range({ ...query, fromNs: boundaryNs, limit });
    let rows: readonly Row[] = [];
    if (isNewestFirst && recent !== undefined) {
      const first = await recent(query.limit);
      if (first.next !== undefined) return first;
      rows = first.rows;
    }
    const last = rows.at(-1);
    if (last !== undefined && rows.length === query.limit) return { rows, next: cursorOf(last) };
    try {
      const older = await olderRows({ ...query, toNs: endNs, limit: query.limit - rows.length }, signal);
      rows = [...rows, ...older.rows];
      const source: Source = recent === undefined ? 'remote' : 'both';
      if (older.next !== undefined) return { ...older, rows, source: isNewestFirst ? source : 'remote' };
      if (isNewestFirst || recent === undefined) return { rows, next: undefined, source };
      const end = rows.at(-1);
      if (end !== undefined && rows.length === query.limit) {
        return { rows, next: cursorOf(end), source: 'remote' };
      }
      const newer = await recent(query.limit - rows.length);
      return { rows: [...rows, ...newer.rows], next: newer.next, source };
    } catch (error) {
      return await alone(error, { fromNs, toNs: endNs }, (own) => own.range(query));
    }
  }

  async function olderRows(query: RangeQuery, signal?: AbortSignal): Promise<RangeAnswer> {
    const { fromNs, toNs, order, deviceId, measurement, fields } = resumed(query);
    if (fromNs >= toNs) return { rows: [], next: undefined };
    const limit = Math.min(query.limit, remoteMax);
    const asked: RemoteRangeQuery = {
      deviceId,
      fromNs,
      toNs,
      order,
      // The rows of one of them may have been shown before.
      momentsMax: limit + 1,
      ...(measurement !== undefined && { measurement }),
      ...(fields !== undefined && { fields }),
    };
    const { rows, isCut } = await remote.range(asked, signal);
    const isBehindUs = behindCursor(query);
    const left = rows.filter((row) => !isBehindUs(row)).sort((a, b) => compareRows(a, b, order));
    const shown = left.slice(0, limit);
    const last = shown.at(-1);
    const hasMore = left.length > limit || isCut;
    return { rows: shown, next: hasMore && last !== undefined ? cursorOf(last) : undefined };
  }

  async function aggregate(query: AggregateQuery, signal?: AbortSignal): Promise<AggregateAnswer & Told> {
    const { fromNs, toNs } = query;
    const windowNs = BigInt(query.windowMs) * 1_000_000n;
    const boundaryNs = boundary();
    if (local !== undefined && fromNs >= boundaryNs) return await local.aggregate(query);
    // A window is summed up in one place.
    const aligned = ((boundaryNs + windowNs - 1n) / windowNs) * windowNs;
    const endNs = earlier(aligned, toNs);
    const windowsMax = BigInt(Math.min(query.limit, remoteMax));
    const pageEndNs = (fromNs / windowNs + windowsMax) * windowNs;
    try {
      const { limit, ...asked } = { ...query, toNs: earlier(pageEndNs, endNs) };
      const windows = await remote.aggregate(asked, signal);
      if (pageEndNs < endNs) return { windows, nextFromNs: pageEndNs, source: 'remote' };
      if (local === undefined || endNs === toNs) return { windows, nextFromNs: undefined, source: 'remote' };
      const left = limit - new Set(windows.map(({ timeNs }) => timeNs)).size;
      if (left <= 0) return { windows, nextFromNs: endNs, source: 'remote' };
      const newer = await local.aggregate({ ...query, fromNs: endNs, limit: left });
      return { windows: [...windows, ...newer.windows], nextFromNs: newer.nextFromNs, source: 'both' };
    } catch (error) {
      return await alone(error, { fromNs, toNs: endNs }, (own) => own.aggregate(query));
    }
  }

  async function latest(deviceId: string, measurement?: string, signal?: AbortSignal) {
    const found = (await local?.latest(deviceId, measurement)) ?? [];
    if (found.length > 0) return found;
    try {
      return await remote.latest(deviceId, measurement, signal);
    } catch (error) {
      return (await alone(error, { fromNs: 0n, toNs: 0n }, async () => ({ found }))).found;
    }
  }

  return { latest, range, aggregate };
}
