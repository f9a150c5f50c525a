// A network of its own for a process: its default ports are free, and whatever it sends to anybody is counted by the
// kernel. Every address there is answered by the process's own machine, so that nothing gets out and no attempt fails
// before it is counted. Needs root and iproute2.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { hasCommand } from './debian.ts';

const script = [
  'ip link set lo up',
  'ip route add local default dev lo',
  '(ip -6 route add local default dev lo 2>/dev/null || true)',
  'exec "$@"',
].join(' && ');

/** What to put before a command line so that the process has it. */
export const inOwnNetwork = ['unshare', '--net', 'sh', '-c', script, 'sh'] as const;

/** The same, in the network of another process. */
export function inNetworkOf(pid: number): string[] {
  return ['nsenter', `--net=/proc/${pid}/ns/net`];
}

export const hasOwnNetworks =
  hasCommand('ip') &&
  spawnSync(inOwnNetwork[0], [...inOwnNetwork.slice(1), 'true'], { stdio: 'ignore' }).status === 0;

export interface Listener {
  readonly address: string;
  readonly port: number;
}

const listening = '0A';

/** `0100007F` is 127.0.0.1: words of four bytes, each in the byte order of this machine. */
function addressOf(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  for (let at = 0; at < bytes.length; at += 4) bytes.subarray(at, at + 4).reverse();
  return bytes.length === 4 ? [...bytes].join('.') : `[${bytes.toString('hex')}]`;
}

function rows(pid: number, table: string): string[][] {
  const lines = readFileSync(`/proc/${pid}/net/${table}`, 'utf8').trim().split('\n').slice(1);
  return lines.map((line) => line.trim().split(/\s+/));
}

/** Where anybody in the network of this process listens with TCP. */
export function tcpListeners(pid: number): Listener[] {
  return ['tcp', 'tcp6']
    .flatMap((table) => rows(pid, table))
    .filter(([, , , state]) => state === listening)
    .map(([, local = '']) => {
      const [address = '', port = ''] = local.split(':');
      return { address: addressOf(address), port: Number.parseInt(port, 16) };
    })
    .toSorted((a, b) => a.port - b.port);
}

/** How many UDP sockets there are. */
export function udpSockets(pid: number): number {
  return ['udp', 'udp6'].flatMap((table) => rows(pid, table)).length;
}

/** TCP connections begun and UDP datagrams sent from this network since it was made. */
export function attemptsToReach(pid: number): number {
  const text = (file: string) => readFileSync(`/proc/${pid}/net/${file}`, 'utf8');
  const figure = (protocol: string, name: string) => {
    const [names, values] = text('snmp')
      .split('\n')
      .filter((line) => line.startsWith(`${protocol}:`))
      .map((line) => line.split(' '));
    return Number(values?.[names?.indexOf(name) ?? -1]);
  };
  const udp6 = Number(/^Udp6OutDatagrams\s+(\d+)/m.exec(text('snmp6'))?.[1] ?? 0);
  return figure('Tcp', 'ActiveOpens') + figure('Udp', 'OutDatagrams') + udp6;
}
