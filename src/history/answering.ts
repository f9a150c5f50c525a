// Who answers questions about readings: local history alone, or together with what lies behind it. One contract for
// both, so that the command line and the HTTP API ask without knowing.

import type { LatestAnswer } from './history.ts';
import type { AggregateAnswer, AggregateQuery, RangeAnswer, RangeQuery } from './query.ts';

/** Where an answer comes from; `local` when it is not said. */
export type Source = 'local' | 'remote' | 'both';

/** What the answer may lack, because who has it could not be asked. */
export interface Missing {
  readonly fromNs: bigint;
  readonly toNs: bigint;
  /** For machines: `REMOTE_UNREACHABLE`. */
  readonly code: string;
  readonly reason: string;
}

export interface Told {
  readonly source?: Source;
  readonly missing?: Missing;
}

export interface Answering {
  latest(deviceId: string, measurement?: string, signal?: AbortSignal): Promise<readonly LatestAnswer[]>;
  range(query: RangeQuery, signal?: AbortSignal): Promise<RangeAnswer & Told>;
  aggregate(query: AggregateQuery, signal?: AbortSignal): Promise<AggregateAnswer & Told>;
}
