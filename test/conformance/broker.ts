// A broker under test and what a case needs to talk to it: this gateway's MQTT source, or a mosquitto process with
// the same accounts and packet limit. Every case has an account of its own, so that cases run side by side.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { IConnectPacket } from 'mqtt-packet';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { MqttSource } from '../../src/sources/mqtt/mqtt-source.ts';
import { commandPath } from '../support/debian.ts';
import { freePort } from '../support/free-port.ts';
import { TestCredentials } from '../support/mqtt-gateway.ts';
import { Wire, type WirePacket } from '../support/mqtt-wire.ts';
import { MemorySessionLog } from '../support/session-log.ts';

export interface Broker {
  readonly port: number;
  readonly wsPort: number;
  close(): Promise<void>;
}

export async function openGateway(): Promise<Broker> {
  const source = await MqttSource.open({
    root: 'iotflow',
    listen: { host: '127.0.0.1', lanPlaintext: false, port: 0, wsPort: 0 },
    credentials: new TestCredentials(),
    sink: async () => {},
    sessionLog: new MemorySessionLog(),
    clock: systemClock(),
    log: createLog('silent'),
    limits: { sockets: 2000, socketsPerLoopback: 2000, unauthenticatedLoopback: 1000, sessions: 1000 },
  });
  return { port: source.ports.mqtt ?? 0, wsPort: source.ports.ws ?? 0, close: () => source.close() };
}

export async function openMosquitto(accounts: readonly string[]): Promise<Broker> {
  const folder = mkdtempSync(join(tmpdir(), 'iotflow-conformance-'));
  const passwords = join(folder, 'passwords');
  writeFileSync(passwords, accounts.map((name) => `${name}:key-${name}\n`).join(''), { mode: 0o600 });
  execFileSync(commandPath('mosquitto_passwd') ?? 'missing', ['-U', passwords], { stdio: 'ignore' });
  const acl = join(folder, 'acl');
  writeFileSync(acl, 'pattern readwrite iotflow/devices/%u/#\n', { mode: 0o600 });
  const [port, wsPort] = [await freePort(), await freePort()];
  const settings = [
    `user ${process.env.USER ?? 'root'}`,
    `listener ${port} 127.0.0.1`,
    `listener ${wsPort} 127.0.0.1`,
    'protocol websockets',
    'allow_anonymous false',
    `password_file ${passwords}`,
    `acl_file ${acl}`,
    'max_packet_size 65536',
  ];
  writeFileSync(join(folder, 'mosquitto.conf'), `${settings.join('\n')}\n`);
  const child = spawn(commandPath('mosquitto') ?? 'mosquitto', ['-c', join(folder, 'mosquitto.conf')], {
    stdio: 'ignore',
  });
  while (!(await answers(port))) {
    if (child.exitCode !== null) throw new Error('mosquitto did not start');
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return {
    port,
    wsPort,
    close: async () => {
      child.kill();
      await once(child, 'exit');
      rmSync(folder, { recursive: true });
    },
  };
}

function answers(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => {
      socket.destroy();
      resolve(true);
    });
    socket.on('error', () => resolve(false));
  });
}

/** What a case works with: connections that are closed behind it. */
export class Bench {
  readonly broker: Broker;
  readonly account: string;
  readonly level: 4 | 5;
  readonly #wires: Wire[] = [];

  constructor(broker: Broker, account: string, level: 4 | 5) {
    this.broker = broker;
    this.account = account;
    this.level = level;
  }

  /** A topic of the account that may be retained. */
  topic(name: string): string {
    return `iotflow/devices/${this.account}/status/${name}`;
  }

  get filter(): string {
    return `iotflow/devices/${this.account}/status/#`;
  }

  async open(level: 4 | 5 = this.level): Promise<Wire> {
    const wire = await Wire.tcp(this.broker.port, level);
    this.#wires.push(wire);
    return wire;
  }

  /** Logged in as `{account}-{name}`. */
  async client(name: string, options: Partial<IConnectPacket> = {}): Promise<Wire> {
    const wire = await this.open();
    const connack = await wire.login(this.account, { clientId: `${this.account}-${name}`, ...options });
    const code = connack.reasonCode ?? connack.returnCode;
    if (code !== 0) throw new Error(`CONNACK ${code}`);
    return wire;
  }

  /** A session that outlives its connections. */
  async session(name: string, options: Partial<IConnectPacket> = {}): Promise<Wire> {
    const lasting = this.level === 5 ? { properties: { sessionExpiryInterval: 60 } } : {};
    return await this.client(name, { clean: false, ...lasting, ...options });
  }

  leave(wire: Wire): Promise<void> {
    wire.send({ cmd: 'disconnect' });
    return wire.ended();
  }

  close(): void {
    for (const wire of this.#wires) wire.destroy();
  }
}

/** Waits for the end of the connection; answers the reason code the server gave for it, if any. */
export async function endOf(wire: Wire): Promise<number | undefined> {
  await wire.ended();
  const said = wire.packets.findLast(({ cmd }) => cmd === 'disconnect' || cmd === 'connack');
  return said?.reasonCode ?? said?.returnCode;
}

/** What has arrived by now of this kind: a round trip first. */
export async function arrived(wire: Wire, cmd = 'publish'): Promise<WirePacket[]> {
  await wire.ping();
  await new Promise((resolve) => setTimeout(resolve, 30));
  await wire.ping();
  return wire.packets.filter((packet) => packet.cmd === cmd);
}
