// Whether the gateway can listen where it should, and who is in its place.

import { readdir, readFile, readlink } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import type { Config } from '../../config/schema.ts';
import { errorCode } from '../../platform/errors.ts';
import { type Check, type Finding, fail, ok, skipped, warn } from './check.ts';
import type { RunningGateway } from './running-gateway.ts';

interface Listener {
  /** As in ports.json. */
  readonly name: string;
  readonly key: string;
  readonly host: string;
  readonly port: number;
}

function listenersOf({ mqtt, http, https }: Config): Listener[] {
  const plainHost = mqtt.lanPlaintext ? mqtt.host : '127.0.0.1';
  return [
    { name: 'mqtt', key: 'mqtt.port', host: plainHost, port: mqtt.port },
    { name: 'mqtts', key: 'mqtt.tls.port', host: mqtt.host, port: mqtt.tls.port },
    { name: 'ws', key: 'mqtt.ws.port', host: plainHost, port: mqtt.ws.port },
    ...(http.enabled ? [{ name: 'http', key: 'http.port', host: http.host, port: http.port }] : []),
    ...(https.enabled ? [{ name: 'https', key: 'https.port', host: http.host, port: https.port }] : []),
  ];
}

export function portsCheck(
  config: Config,
  gateway: RunningGateway | undefined,
  procDirectory: string,
): Check {
  return {
    name: 'ports',
    run: async () => {
      const found = await Promise.all(
        listenersOf(config).map((listener) =>
          gateway === undefined ? whetherFree(listener, procDirectory) : whetherOpen(listener, gateway),
        ),
      );
      const good = found.filter(({ status }) => status === 'ok').map(({ message }) => message);
      const other = found.filter(({ status }) => status !== 'ok');
      const state = gateway === undefined ? 'free' : 'open';
      return [
        ...(good.length > 0 ? [ok(`${good.join(', ')}: ${state}`)] : []),
        ...other,
        ...(config.http.lanPlaintext
          ? [
              warn(
                'http.lan_plaintext is on: keys and passwords travel readable through your network',
                'use https, and switch it off',
              ),
            ]
          : []),
        ...(config.mqtt.lanPlaintext
          ? [
              warn(
                'mqtt.lan_plaintext is on: passwords travel readable through your network',
                'let devices use TLS (port 8883) and switch it off',
              ),
            ]
          : []),
      ];
    },
  };
}

async function whetherOpen({ name, key, host, port }: Listener, gateway: RunningGateway): Promise<Finding> {
  const actual = gateway.ports?.[name];
  if (actual === undefined) return fail(`${name} is not open in the running gateway`, 'see its log');
  if (port !== 0 && actual !== port) {
    return warn(`${name} is on ${actual}, ${key} says ${port}`, 'restart the gateway to have it so');
  }
  const reachable = ['0.0.0.0', '::'].includes(host) ? '127.0.0.1' : host;
  const isOpen = await new Promise<boolean>((resolve) => {
    const socket = connect({ host: reachable, port: actual });
    socket.on('connect', () => resolve(true));
    socket.on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
  return isOpen
    ? ok(`${name} ${actual}`)
    : fail(`nobody answers on ${reachable}:${actual} (${name})`, 'see its log');
}

async function whetherFree({ name, key, host, port }: Listener, procDirectory: string): Promise<Finding> {
  if (port === 0) return skipped(`${name} picks a free one`);
  const code = await new Promise<string | undefined>((resolve) => {
    const server = createServer();
    server.on('error', (error) => resolve(errorCode(error) ?? error.message));
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(undefined)));
  });
  if (code === undefined) return ok(`${name} ${port}`);
  if (code === 'EADDRINUSE') {
    const holder = await holderOf(port, procDirectory);
    return fail(`${name} ${port} is taken by ${holder}`, `stop it, or set ${key} to another port`);
  }
  if (code === 'EACCES') return fail(`this user may not open ${name} ${port}`, `set ${key} to 1024 or more`);
  if (code === 'EADDRNOTAVAIL')
    return fail(`${name}: this machine has no address ${host}`, 'mend the host setting');
  return fail(`${name} ${host}:${port} cannot be opened: ${code}`, `mend ${key}`);
}

const listening = '0A';

/** `mosquitto (process 812)`, from /proc; other users' processes show only to root. */
export async function holderOf(port: number, procDirectory: string): Promise<string> {
  const inodes = new Set<string>();
  for (const table of ['tcp', 'tcp6']) {
    const text = await readFile(join(procDirectory, 'net', table), 'utf8').catch(() => '');
    for (const line of text.split('\n').slice(1)) {
      const columns = line.trim().split(/\s+/);
      const localPort = Number.parseInt(columns[1]?.split(':').at(-1) ?? '', 16);
      if (localPort === port && columns[3] === listening && columns[9] !== undefined) inodes.add(columns[9]);
    }
  }
  const unknown = 'another process';
  for (const pid of (await readdir(procDirectory).catch(() => [])).filter((name) => /^\d+$/.test(name))) {
    const folder = join(procDirectory, pid, 'fd');
    for (const fd of await readdir(folder).catch(() => [])) {
      const target = await readlink(join(folder, fd)).catch(() => '');
      const inode = /^socket:\[(\d+)\]$/.exec(target)?.[1];
      if (inode === undefined || !inodes.has(inode)) continue;
      const name = (await readFile(join(procDirectory, pid, 'comm'), 'utf8').catch(() => unknown)).trim();
      return `${name} (process ${pid})`;
    }
  }
  return inodes.size === 0 ? unknown : `${unknown} (root sees which)`;
}
