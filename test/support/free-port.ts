// Ports for processes that cannot be told to pick one themselves, or that must come back on the same one.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';

const firstPort = 10_000;

/** Where the kernel begins with the ports it gives to whoever asks for any. */
function ephemeralPort(): number {
  const [first] = readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8').split(/\s/);
  return Number(first);
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

/**
 * A port nobody listens on. Not one the kernel gives to others by itself: while a process that is to have it again
 * restarts, a connection of a test beside it would take it.
 */
export async function freePort(): Promise<number> {
  const span = Math.max(1_000, ephemeralPort() - firstPort);
  for (;;) {
    const port = firstPort + Math.floor(Math.random() * span);
    if (await isFree(port)) return port;
  }
}
