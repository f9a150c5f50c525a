// An InfluxDB that takes everything and looks at nothing but the readings of this suite: their points are large and
// many, and reading every field of them would be most of the work. The strict one is src/simulator/influx.ts.

import { createServer, type IncomingMessage, type Server } from 'node:http';
import type { AddressInfo, Socket } from 'node:net';
import { promisify } from 'node:util';
import { gunzip } from 'node:zlib';

const unpack = promisify(gunzip);

/** One line of measurement `load`. */
export interface Reading {
  readonly deviceId: string;
  readonly n: number;
  readonly value: number;
  readonly timeNs: bigint;
  /** Several readings thinned to one. */
  readonly isThinned: boolean;
}

export class Uplink {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #onReading: (reading: Reading) => void;
  readonly #onBroken: (line: string) => void;
  #isOut = false;
  #readings = 0;

  private constructor(
    server: Server,
    onReading: (reading: Reading) => void,
    onBroken: (line: string) => void,
  ) {
    this.#server = server;
    this.#onReading = onReading;
    this.#onBroken = onBroken;
  }

  /** `onBroken`: a line of ours that is none. */
  static async start(
    onReading: (reading: Reading) => void,
    onBroken: (line: string) => void = () => undefined,
  ): Promise<Uplink> {
    const server = createServer();
    const uplink = new Uplink(server, onReading, onBroken);
    server.on('connection', (socket: Socket) => {
      if (uplink.#isOut) return void socket.resetAndDestroy();
      uplink.#sockets.add(socket);
      socket.on('close', () => uplink.#sockets.delete(socket));
      socket.on('error', () => socket.destroy());
    });
    server.on('request', (request: IncomingMessage, response) => {
      uplink.#take(request).then(
        () => response.writeHead(204).end(),
        () => request.socket.destroy(),
      );
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    return uplink;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  get readings(): number {
    return this.#readings;
  }

  /** While true every connection is reset. */
  outage(isOut: boolean): void {
    this.#isOut = isOut;
    if (isOut) for (const socket of this.#sockets) socket.resetAndDestroy();
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    for (const socket of this.#sockets) socket.destroy();
    await closed;
  }

  async #take(request: IncomingMessage): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const sent = Buffer.concat(chunks);
    const body = request.headers['content-encoding'] === 'gzip' ? await unpack(sent) : sent;
    // Each byte one character: nothing of a reading is beyond ASCII, and it is twice as fast.
    for (const line of body.toString('latin1').split('\n')) {
      if (line.startsWith('load,')) this.#note(line);
    }
  }

  #note(line: string): void {
    const deviceId = /device_id=([^, ]+)/.exec(line)?.[1];
    const n = /[ ,]n=([0-9.e+]+)/.exec(line)?.[1];
    const value = /[ ,]value=([0-9.e+-]+)/.exec(line)?.[1];
    const timeNs = line.slice(line.lastIndexOf(' ') + 1);
    if (deviceId === undefined || n === undefined || value === undefined || !/^\d+$/.test(timeNs)) {
      this.#onBroken(line.slice(0, 200));
      return;
    }
    this.#readings += 1;
    this.#onReading({
      deviceId,
      n: Number(n),
      value: Number(value),
      timeNs: BigInt(timeNs),
      isThinned: line.includes(',n_min='),
    });
  }
}
