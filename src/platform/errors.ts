// Operating errors: things that go wrong in a healthy program. Thrown up to the stage that owns the policy
// (retry, refuse, raise an alarm) and logged once, there. Programmer errors assert with `BUG:` instead.

export interface GatewayErrorOptions {
  readonly cause?: unknown;
}

export class GatewayError extends Error {
  override readonly name = 'GatewayError';
  /** Stable, upper-case, for machines: `JOURNAL_FULL`, `CONFIG_INVALID`. */
  readonly code: string;

  constructor(code: string, message: string, options: GatewayErrorOptions = {}) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.code = code;
  }
}

/** The code of an operating error of ours or of Node (`ENOSPC`, `ECONNREFUSED`), if it has one. */
export function errorCode(error: unknown): string | undefined {
  if (typeof error !== 'object' || error === null || !('code' in error)) return undefined;
  return typeof error.code === 'string' ? error.code : undefined;
}
