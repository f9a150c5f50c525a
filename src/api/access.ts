// Who may ask what: pure judgements on a request, made before its body is read.
//
// Without TLS a key can be read by whoever listens, so from other machines only routes that need none are answered
// in plain text. This machine talks to itself unheard; but what comes through a proxy on this machine comes from
// elsewhere, and is told by the headers a proxy adds.

import type { IncomingHttpHeaders } from 'node:http';
import { BlockList, isIPv4 } from 'node:net';
import type { Registry } from '../registry/registry.ts';
import type { People } from '../users/people.ts';
import type { User } from '../users/user.ts';
import { refusal } from './refusal.ts';
import type { Answer, Caller, Role, Route, RouteRequest } from './route.ts';
import { sessionCookie } from './session-cookie.ts';

export interface Authenticate {
  /** Whose key this is; undefined for anything else. */
  readonly key: (text: string) => Caller | undefined | Promise<Caller | undefined>;
  /** Whose session the cookie is. */
  readonly session?: (cookie: string) => Caller | undefined;
}

/** Keys of devices and of service accounts. */
export function deviceKeys(registry: Pick<Registry, 'verifyKey'>): Authenticate {
  return {
    key: (text) => {
      const device = registry.verifyKey(text);
      if (device === undefined) return undefined;
      return { kind: device.service ? 'service' : 'device', deviceId: device.deviceId };
    },
  };
}

function userCaller(user: User | undefined): Caller | undefined {
  return user && { kind: 'user', name: user.name, role: user.role };
}

/** Keys of devices, API tokens of users, and sessions. */
export function everyCaller(
  registry: Pick<Registry, 'verifyKey'>,
  { users, sessions }: Pick<People, 'users' | 'sessions'>,
): Authenticate {
  const devices = deviceKeys(registry);
  return {
    key: (text) => (text.startsWith('gu_') ? userCaller(users.verifyToken(text)) : devices.key(text)),
    session: (cookie) => userCaller(sessions.verify(cookie)),
  };
}

/** Whether what a caller was let in with still holds. To ask is no use of it: nobody stays logged in by listening. */
export function stillHolds(
  registry: Pick<Registry, 'verifyKey'>,
  { users, sessions }: Pick<People, 'users' | 'sessions'>,
): (asked: Pick<RouteRequest, 'caller' | 'headers' | 'isSecure'>) => boolean {
  return ({ caller, headers, isSecure }) => {
    if (caller.kind === 'anyone') return true;
    const key = keyOf(headers);
    if (key?.startsWith('gu_')) return users.verifyToken(key) !== undefined;
    if (key !== undefined) return registry.verifyKey(key) !== undefined;
    const cookie = sessionCookie(headers, isSecure);
    return cookie !== undefined && sessions.holds(cookie);
  };
}

/** The key of a request: `X-API-Key`, or `Authorization: Bearer`. */
export function keyOf(headers: IncomingHttpHeaders): string | undefined {
  const key = headers['x-api-key'];
  if (typeof key === 'string') return key;
  return /^Bearer +(\S+)$/i.exec(headers.authorization ?? '')?.[1];
}

const loopback = new BlockList();
loopback.addSubnet('127.0.0.0', 8, 'ipv4');
loopback.addAddress('::1', 'ipv6');

export function isLoopback(address: string): boolean {
  return loopback.check(address, isIPv4(address) ? 'ipv4' : 'ipv6');
}

/** What proxies add of themselves: RFC 9110 §7.6.3, RFC 7239, and what was usual before. */
const proxyHeaders = ['via', 'forwarded', 'x-forwarded-for', 'x-forwarded-host', 'x-real-ip'];

/** Whether the program that asks runs on this machine. */
export function isLocal(address: string, headers: IncomingHttpHeaders): boolean {
  return proxyHeaders.every((name) => headers[name] === undefined) && isLoopback(address);
}

/** Whoever asks from another machine without a key. */
export function isStranger({
  caller,
  address,
  headers,
}: Pick<RouteRequest, 'caller' | 'address' | 'headers'>): boolean {
  return caller.kind === 'anyone' && !isLocal(address, headers);
}

/**
 * A page of another origin makes the visitor's browser ask. Reading the answer it cannot; but what changes something
 * is done by then. Browsers say where a request comes from; programs that are none say nothing.
 */
export function isCrossSite(method: string, headers: IncomingHttpHeaders): boolean {
  if (method === 'GET' || method === 'HEAD') return false;
  const site = headers['sec-fetch-site'];
  if (site !== undefined) return site !== 'same-origin' && site !== 'none';
  const { origin, host } = headers;
  if (origin === undefined) return false;
  return !URL.canParse(origin) || new URL(origin).host !== host?.toLowerCase();
}

function hasRole(caller: Caller, roles: readonly Role[]): boolean {
  if (caller.kind === 'anyone') return false;
  if (caller.kind !== 'user') return roles.includes(caller.kind);
  return roles.includes(caller.role) || (caller.role === 'admin' && roles.includes('viewer'));
}

/** What is answered instead of the route; undefined when the caller may ask it. */
export function denial(
  { access, isLoopbackOpen = false }: Route,
  caller: Caller,
  isLocalRequest: boolean,
): Answer | undefined {
  if (access === 'anyone' || (isLoopbackOpen && isLocalRequest) || hasRole(caller, access)) return undefined;
  if (caller.kind !== 'anyone') {
    return refusal('FORBIDDEN', `this is for ${access.join(', ')}; the key is that of a ${kindOf(caller)}`);
  }
  const { headers, ...refused } = refusal(
    'UNAUTHENTICATED',
    'a valid key is needed in the header X-API-Key, or as Authorization: Bearer',
  );
  return { ...refused, headers: { ...headers, 'www-authenticate': 'Bearer' } };
}

function kindOf(caller: Caller): string {
  return caller.kind === 'user' ? caller.role : caller.kind;
}
