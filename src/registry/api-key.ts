// API keys: 32 random bytes as text, `gw_<key id>_<base64url>`, stored as a SHA-256; enrolment tokens are made alike.
// No slow hash: 256 random bits cannot be guessed, so scrypt would only turn a reconnecting fleet into an overload of a
// small machine. The prefix lets secret scanners find keys that leaked into a repository.

import { createHash, timingSafeEqual } from 'node:crypto';
import type { DeviceKey } from './device.ts';

const secretBytes = 32;
const keyIdBytes = 5;
const textCharactersMax = 128;

/** Random bytes from the operating system (`node:crypto` randomBytes); tests pass their own. */
export type RandomBytes = (bytes: number) => Buffer;

function sha256(text: string): Buffer {
  return createHash('sha256').update(text, 'utf8').digest();
}

/** A new key: its text, which is told once and stored nowhere, and what is stored. */
export function createApiKey(
  randomBytes: RandomBytes,
  createdMs: number,
  prefix: 'gw' | 'ge' = 'gw',
): { apiKey: string; key: DeviceKey } {
  const keyId = randomBytes(keyIdBytes).toString('hex');
  const apiKey = `${prefix}_${keyId}_${randomBytes(secretBytes).toString('base64url')}`;
  return { apiKey, key: { keyId, sha256: sha256(apiKey).toString('hex'), createdMs } };
}

/** The public part of a key's text; undefined where it has none. */
export function keyIdOf(text: string): string | undefined {
  return /^g[we]_([0-9a-f]{10})_/.exec(text)?.[1];
}

/** Whether the text is one of the keys and has not expired. Takes as long for a wrong text as for a right one. */
export function matchesKey(
  text: string,
  keys: readonly Pick<DeviceKey, 'sha256' | 'expiresMs'>[],
  wallMs: number,
): boolean {
  if (text.length > textCharactersMax) return false;
  const given = sha256(text);
  let matches = false;
  for (const key of keys) {
    const isLive = key.expiresMs === undefined || wallMs < key.expiresMs;
    if (timingSafeEqual(given, Buffer.from(key.sha256, 'hex')) && isLive) matches = true;
  }
  return matches;
}
