// The code with which the first administrator is made: whoever can ask the gateway's own machine for it owns the
// gateway. Promises: 80 random bits, in memory alone, for a quarter of an hour, for one use; a new one ends the old.
// It is told to the command line and to nobody else: logs are read by more people than may own the gateway.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { RandomBytes } from './password.ts';

const lifetimeMs = 15 * 60_000;
const characters = 16;
/** Crockford's: without I, L, O and U, which look like others. */
const alphabet = '0123456789ABCDEFGHJKMNPQRSTVWXYZ';

function sha256(text: string): Buffer {
  return createHash('sha256').update(text).digest();
}

/** As it was meant, however it was typed. */
function plain(text: string): string {
  return text
    .slice(0, 64)
    .toUpperCase()
    .replace(/[^0-9A-Z]/g, '')
    .replaceAll('O', '0')
    .replace(/[IL]/g, '1');
}

export class ClaimCode {
  readonly #monotonicMs: () => number;
  readonly #randomBytes: RandomBytes;
  #current: { readonly sha256: Buffer; readonly untilMs: number } | undefined;

  constructor(options: { readonly monotonicMs: () => number; readonly randomBytes: RandomBytes }) {
    this.#monotonicMs = options.monotonicMs;
    this.#randomBytes = options.randomBytes;
  }

  /** `7Q4F-…`, in four groups. */
  issue(): { readonly code: string; readonly lifetimeMs: number } {
    const code = [...this.#randomBytes(characters)].map((byte) => alphabet[byte % 32]).join('');
    this.#current = { sha256: sha256(code), untilMs: this.#monotonicMs() + lifetimeMs };
    return { code: code.replace(/(.{4})(?=.)/g, '$1-'), lifetimeMs };
  }

  /** Whether this is the code. It remains one until `end`: a claim that fails for another reason may be tried again. */
  matches(text: string): boolean {
    const current = this.#current;
    const given = sha256(plain(text));
    if (current === undefined || this.#monotonicMs() >= current.untilMs) return false;
    return timingSafeEqual(given, current.sha256);
  }

  end(): void {
    this.#current = undefined;
  }
}
