// An MQTT client with no manners of its own: it sends the bytes it is told and shows every packet that comes back.

import { connect, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { generate, type IConnectPacket, type Packet, parser } from 'mqtt-packet';

/** Whatever fields its kind of packet has. */
export interface WirePacket {
  readonly cmd: string;
  readonly messageId?: number;
  readonly returnCode?: number;
  readonly reasonCode?: number;
  readonly sessionPresent?: boolean;
  readonly granted?: readonly number[];
  readonly topic?: string;
  readonly payload?: Buffer;
  readonly qos?: number;
  readonly retain?: boolean;
  readonly dup?: boolean;
  readonly properties?: Readonly<Record<string, unknown>>;
}

export class Wire {
  readonly stream: Duplex;
  readonly packets: WirePacket[] = [];
  version: 4 | 5;
  closed = false;
  readonly #waiting: (() => void)[] = [];

  constructor(stream: Duplex, version: 4 | 5 = 4) {
    this.stream = stream;
    this.version = version;
    const parse = parser({ protocolVersion: version });
    parse.on('packet', (packet) => {
      this.packets.push(packet as unknown as WirePacket);
      this.#wake();
    });
    parse.on('error', () => stream.destroy());
    stream.on('data', (bytes: Buffer) => parse.parse(bytes));
    stream.on('error', () => {});
    stream.on('close', () => {
      this.closed = true;
      this.#wake();
    });
    stream.on('end', () => stream.end());
  }

  static async tcp(port: number, version: 4 | 5 = 4): Promise<Wire> {
    const socket: Socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    return new Wire(socket, version);
  }

  send(packet: object): void {
    this.stream.write(generate(packet as Packet, { protocolVersion: this.version }));
  }

  raw(bytes: Buffer | number[]): void {
    this.stream.write(Buffer.from(bytes));
  }

  async login(userName: string, options: Partial<IConnectPacket> = {}): Promise<WirePacket> {
    this.send({
      cmd: 'connect',
      protocolId: 'MQTT',
      protocolVersion: this.version,
      clientId: userName,
      clean: true,
      keepalive: 60,
      username: userName,
      password: Buffer.from(`key-${userName}`),
      ...options,
    });
    return await this.next('connack');
  }

  publish(topic: string, payload: string | Buffer, more: Record<string, unknown> = {}): void {
    this.send({ cmd: 'publish', topic, payload, qos: 0, dup: false, retain: false, ...more });
  }

  async subscribe(topic: string, qos = 0): Promise<WirePacket> {
    this.send({
      cmd: 'subscribe',
      messageId: 7,
      subscriptions: [{ topic, qos, nl: false, rap: false, rh: 0 }],
    });
    return await this.next('suback');
  }

  /** Removes and returns the next packet of this kind; rejects when the connection ends first. */
  async next(cmd: string, timeoutMs = 10_000): Promise<WirePacket> {
    const deadline = Date.now() + timeoutMs;
    for (;;) {
      const at = this.packets.findIndex((packet) => packet.cmd === cmd);
      if (at >= 0) return this.packets.splice(at, 1)[0]!;
      if (this.closed) throw new Error(`connection closed before ${cmd}`);
      if (Date.now() > deadline) throw new Error(`no ${cmd}`);
      await this.#change(deadline - Date.now());
    }
  }

  async ended(timeoutMs = 10_000): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    while (!this.closed) {
      if (Date.now() > deadline) throw new Error('still connected');
      await this.#change(deadline - Date.now());
    }
  }

  /** A round trip: everything sent before was handled, everything it caused for us has arrived. */
  async ping(): Promise<void> {
    this.send({ cmd: 'pingreq' });
    await this.next('pingresp');
  }

  count(cmd: string): number {
    return this.packets.filter((packet) => packet.cmd === cmd).length;
  }

  destroy(): void {
    this.stream.destroy();
  }

  #change(timeoutMs: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, Math.max(timeoutMs, 1) + 5);
      this.#waiting.push(() => {
        clearTimeout(timer);
        resolve();
      });
    });
  }

  #wake(): void {
    for (const resolve of this.#waiting.splice(0)) resolve();
  }
}
