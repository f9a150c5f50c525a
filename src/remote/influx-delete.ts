// Deletes what one device of this gateway wrote to InfluxDB in a stretch of time. Doing it again is harmless.

import { timestampText } from '../model/timestamp.ts';
import type { QueryTarget } from './influx-query.ts';
import { requestInflux } from './influx-request.ts';

export interface Deletion {
  readonly deviceId: string;
  /** Inclusive. */
  readonly fromNs: bigint;
  /** Exclusive. */
  readonly toNs: bigint;
}

export type DeleteOutcome =
  | { readonly kind: 'done' }
  /** Worth to try again; `isForPeople`: it will not mend itself, such as a token without the right. */
  | { readonly kind: 'retry'; readonly reason: string; readonly isForPeople: boolean }
  /** InfluxDB said that it never will. */
  | { readonly kind: 'refused'; readonly reason: string };

export type Deleter = (deletion: Deletion, signal: AbortSignal) => Promise<DeleteOutcome>;

const reasonCharactersMax = 300;
/** A deletion of years takes its time, and would begin anew. */
const deleteTimeoutMs = 600_000;

export function influxDeleter(
  target: QueryTarget,
  gatewayId: string,
  timeoutMs: number = deleteTimeoutMs,
): Deleter {
  const { org, bucket } = target;
  const path = `/api/v2/delete?${new URLSearchParams({ org, bucket })}`;
  return async ({ deviceId, fromNs, toNs }, signal) => {
    const body = {
      start: timestampText(fromNs),
      // For InfluxDB both ends belong to it.
      stop: timestampText(toNs - 1n),
      // Ids need no escapes. Another gateway may have a device of the same id.
      predicate: `device_id="${deviceId}" AND gateway="${gatewayId}"`,
    };
    const { status, text } = await requestInflux(target, { method: 'POST', path, body, timeoutMs, signal });
    if (status === 204) return { kind: 'done' };
    const flat = text.replace(/\s+/g, ' ').trim().slice(0, reasonCharactersMax);
    const reason = status === 0 ? flat : `${status}: ${flat}`;
    const isFinal = status >= 400 && status < 500 && ![401, 403, 408, 429].includes(status);
    // A proxy or a captive portal knows nothing of it.
    if (isFinal && isOfInflux(text)) return { kind: 'refused', reason };
    return { kind: 'retry', reason, isForPeople: isFinal || status === 401 || status === 403 };
  };
}

function isOfInflux(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && ('message' in value || 'error' in value);
  } catch {
    return false;
  }
}
