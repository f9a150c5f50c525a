// The guard against DNS rebinding: a page from the internet may point its own name at this machine and then read
// what it likes with the visitor's browser. Such a request carries that name in its Host header; ours carry an IP
// address, localhost, or a name of this machine, such as one its certificate is for.

import { isIP } from 'node:net';

/** The host part of a Host header, without port and brackets, lower-case; undefined when it is malformed. */
function hostOf(header: string): string | undefined {
  const match = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9._-]+))(?::\d{1,5})?$/i.exec(header);
  return (match?.[1] ?? match?.[2])?.toLowerCase().replace(/\.$/, '');
}

/** Whether a request with this Host header was meant for this machine. Names are asked about in lower case. */
export function isOwnHost(header: string | undefined, isOwnName: (name: string) => boolean): boolean {
  const host = header === undefined ? undefined : hostOf(header);
  if (host === undefined) return false;
  return isIP(host) !== 0 || host === 'localhost' || isOwnName(host);
}
