// The cookie of a session. Over TLS its name begins with `__Host-`: browsers then take it from this host alone, with
// `Secure` and for every path, so that no neighbour in the network can plant one. Scripts cannot read it (HttpOnly),
// pages of other sites do not send it (SameSite).

import type { IncomingHttpHeaders } from 'node:http';

function nameOf(isSecure: boolean): string {
  return isSecure ? '__Host-iotflow' : 'iotflow';
}

/** Undefined where there is none, or more than one: which would it be? */
export function sessionCookie(headers: IncomingHttpHeaders, isSecure: boolean): string | undefined {
  const start = `${nameOf(isSecure)}=`;
  const found = (headers.cookie ?? '')
    .split(';')
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(start));
  return found.length === 1 ? found[0]?.slice(start.length) : undefined;
}

/** Undefined: the browser forgets the one it has. */
export function setSessionCookie(
  cookie: string | undefined,
  { isSecure, lifetimeMs }: { readonly isSecure: boolean; readonly lifetimeMs: number },
): string {
  const maxAgeS = cookie === undefined ? 0 : Math.floor(lifetimeMs / 1000);
  const secure = isSecure ? '; Secure' : '';
  return `${nameOf(isSecure)}=${cookie ?? ''}; Path=/; Max-Age=${maxAgeS}; HttpOnly; SameSite=Strict${secure}`;
}
