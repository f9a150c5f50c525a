// A user's entry and its form on disk. A record that is damaged in any way reads as no record: nobody comes in by it.

import { GatewayError } from '../platform/errors.ts';
import { isMoment, type Moment } from './moment.ts';
import { isPasswordHash, type PasswordHash } from './password.ts';

export type UserRole = 'admin' | 'viewer';

export const userRoles: readonly UserRole[] = ['admin', 'viewer'];

export interface UserToken {
  /** Public: part of the token's text. */
  readonly id: string;
  /** What it is for, in the user's words. */
  readonly label: string;
  /** SHA-256 of the whole text, in hexadecimal. */
  readonly sha256: string;
  readonly created: Moment;
  /** Undefined: until it is revoked. */
  readonly lifetimeMs?: number;
}

export interface User {
  readonly name: string;
  readonly role: UserRole;
  readonly isDisabled: boolean;
  readonly password: PasswordHash;
  /** Random; sessions hold it. A new one ends them all, in the same write as what ended them. */
  readonly stamp: string;
  readonly created: Moment;
  readonly passwordSet: Moment;
  readonly tokens: readonly UserToken[];
  /** One more with every change. */
  readonly revision: number;
}

const namePattern = /^[a-z0-9][a-z0-9._-]{0,31}$/;
/** Those who act without being users. */
const reservedNames: ReadonlySet<string> = new Set(['cli', 'gateway', 'anyone']);

/** Names differ in more than capitals: a telephone's keyboard begins with one. */
export function canonicalName(given: string): string {
  return given.slice(0, 64).trim().toLowerCase();
}

/** @throws GatewayError `USER_NAME_INVALID` */
export function checkName(name: string): void {
  if (namePattern.test(name) && !reservedNames.has(name)) return;
  const shown = JSON.stringify(name.slice(0, 40));
  throw new GatewayError(
    'USER_NAME_INVALID',
    reservedNames.has(name)
      ? `name: ${shown} is the gateway's own, choose another`
      : `name: expected 1 to 32 characters of a-z, 0-9, dot, - and _, the first a letter or digit, got ${shown}`,
  );
}

/** @throws GatewayError `USER_ROLE_INVALID` */
export function checkRole(role: string): asserts role is UserRole {
  if (userRoles.some((known) => known === role)) return;
  throw new GatewayError('USER_ROLE_INVALID', `role: expected ${userRoles.join(' or ')}`);
}

/** @throws GatewayError `TOKEN_LABEL_INVALID` */
export function checkTokenLabel(label: string): void {
  if (label.length >= 1 && label.length <= 64 && !/\p{Cc}/u.test(label)) return;
  throw new GatewayError('TOKEN_LABEL_INVALID', 'label: expected 1 to 64 characters, no control characters');
}

export function encodeUser(user: User): Buffer {
  return Buffer.from(JSON.stringify(user));
}

function isToken(value: unknown): value is UserToken {
  if (typeof value !== 'object' || value === null) return false;
  const { id, label, sha256, created, lifetimeMs } = value as Record<string, unknown>;
  if (typeof id !== 'string' || typeof label !== 'string' || !isMoment(created)) return false;
  if (typeof sha256 !== 'string' || !/^[0-9a-f]{64}$/.test(sha256)) return false;
  return lifetimeMs === undefined || typeof lifetimeMs === 'number';
}

/** The user stored under this name; undefined when the record is not exactly what `encodeUser` writes. */
export function decodeUser(storedName: string, bytes: Buffer): User | undefined {
  let value: unknown;
  try {
    value = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const given = value as Record<string, unknown>;
  const { name, role, isDisabled, password, stamp, created, passwordSet, tokens, revision } = given;
  // A record that moved to another key would let one user in as another.
  if (name !== storedName || !namePattern.test(storedName)) return undefined;
  if (role !== 'admin' && role !== 'viewer') return undefined;
  if (typeof isDisabled !== 'boolean' || !isPasswordHash(password)) return undefined;
  if (typeof stamp !== 'string' || !/^[0-9a-f]{32}$/.test(stamp)) return undefined;
  if (!isMoment(created) || !isMoment(passwordSet) || typeof revision !== 'number') return undefined;
  if (!Array.isArray(tokens) || !tokens.every(isToken)) return undefined;
  return { name: storedName, role, isDisabled, password, stamp, created, passwordSet, tokens, revision };
}
