// What a request that is not granted is answered: one form of body, and the one table from codes to HTTP statuses.
// A handler throws GatewayError or returns `refusal(…)`; both end here.

import type { Answer } from './route.ts';

export interface RefusalNotes {
  /** The name of what is wrong, as the client wrote it: `fields.temperature`. */
  readonly field?: string;
  readonly expected?: string;
  readonly retryAfterS?: number;
}

/** For people and machines; the same in lists of refused parts of a batch. */
export interface RefusalBody {
  readonly error: {
    readonly code: string;
    readonly message: string;
    readonly field?: string;
    readonly expected?: string;
  };
}

/** Code, or how it ends → status, and the seconds after which it is worth to try again. The first that fits. */
const table: readonly (readonly [RegExp, number, number?])[] = [
  [/^UNAUTHENTICATED$/, 401],
  [/^(FORBIDDEN|TLS_REQUIRED|CROSS_SITE)$/, 403],
  [/^NOT_FOUND$/, 404],
  [/^METHOD_NOT_ALLOWED$/, 405],
  [/^(REQUEST|BODY)_TOO_LARGE$/, 413],
  [/^CONTENT_TYPE_INVALID$/, 415],
  [/^HOST_UNKNOWN$/, 421],
  [/^METHOD_UNSUPPORTED$/, 501],
  [/^RATE_LIMITED$/, 429, 1],
  // Cancelled: by a client that has gone, which is no fault, or by a gateway that stops.
  [/^(OVERLOADED|.*_BUSY|.*_UNAVAILABLE|.*_CANCELLED)$/, 503, 1],
  // The disk: what is refused now may be taken once there is room, or the card is back.
  [/^(JOURNAL_.*|STORE_FAILED|DATA_UNWRITABLE|DISK_.*)$/, 503, 10],
  [/_INVALID$/, 400],
  [/_UNKNOWN$/, 404],
  [/_(EXISTS|CONFLICT)$/, 409],
  [/_FULL$/, 507],
];

export function refusal(code: string, message: string, notes: RefusalNotes = {}): Answer {
  const { field, expected, retryAfterS } = notes;
  const [, status = 500, waitS] = table.find(([form]) => form.test(code)) ?? [];
  const afterS = retryAfterS ?? waitS;
  const body: RefusalBody = {
    error: {
      code,
      message,
      ...(field !== undefined && { field }),
      ...(expected !== undefined && { expected }),
    },
  };
  if (afterS === undefined) return { status, body };
  return { status, body, headers: { 'retry-after': String(Math.ceil(afterS)) } };
}

/** Whether a thrown error of this code is for the client to know; anything else is a fault of ours. */
export function isForClient(code: string): boolean {
  return table.some(([form]) => form.test(code));
}
