// A load generator that is never the bottleneck: MQTT 3.1.1 packets are rendered once and patched in place
// (packet id, timestamp, sequence number), written to raw sockets in as few calls as the acknowledgements allow,
// and it runs in a process of its own. Promises: every point it sends is unique, every PUBACK is matched to its
// PUBLISH, and a broker that answers anything else fails the run. Not a client: no reconnect, no QoS 2.

import { spawn } from 'node:child_process';
import { connect, type Socket } from 'node:net';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { type Latencies, latenciesOf } from './figures.ts';

export interface Publisher {
  readonly clientId: string;
  readonly username?: string;
  readonly password?: string;
  readonly topic: string;
}

export interface Load {
  readonly port: number;
  readonly publishers: readonly Publisher[];
  /** Unacknowledged messages a publisher may have. */
  readonly window: number;
  /** Over all publishers. */
  readonly messages: number;
  /** Messages per second over all publishers, evenly spread in time; as fast as acknowledged when absent. */
  readonly rate?: number;
  /** How many of them come at once, from as many publishers; 1 by default. Only with `rate`. */
  readonly burst?: number;
  /** Telemetry as a node sends it (default), or line protocol with this many lines to fill a backlog fast. */
  readonly linesPerMessage?: number;
  /** The first point's time; later ones follow in steps, so that no two points of a series are the same. */
  readonly firstTimestampMs: number;
  /** Between two points of a publisher, ms; 1 by default. */
  readonly stepMs?: number;
  /** Without `boot` and `seq` there is nothing to de-duplicate by; with them by default. */
  readonly sequenced?: boolean;
  readonly timeoutMs: number;
}

export interface LoadReport {
  readonly acknowledged: number;
  readonly unacknowledged: number;
  /** From the first PUBLISH to the last PUBACK. */
  readonly seconds: number;
  readonly messagesPerSecond: number;
  readonly ackLatency: Latencies;
  /** Of the generator itself, as a share of one core: near 1 means that it was the bottleneck after all. */
  readonly generatorCpu: number;
  readonly payloadBytes: number;
}

/** Runs a load in a child process. Rejects when a publisher is refused, cut off, or answered wrongly. */
export function runLoad(load: Load): Promise<LoadReport> {
  return startLoad(load).report;
}

export interface RunningLoad {
  readonly report: Promise<LoadReport>;
  /** Sends no more; the report follows when what is out has been acknowledged, or after five seconds. */
  stop(): void;
}

export function startLoad(load: Load): RunningLoad {
  const child = spawn(process.execPath, [fileURLToPath(import.meta.url), '--generate'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const kill = (): void => {
    child.kill('SIGKILL');
  };
  process.once('exit', kill);
  const report = new Promise<LoadReport>((resolve, reject) => {
    let text = '';
    child.stdout.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
    child.on('error', reject);
    child.on('close', (code) => {
      process.off('exit', kill);
      if (code === 0) resolve(JSON.parse(text) as LoadReport);
      else reject(new Error(`load generator ended with ${code}`));
    });
  });
  child.stdin.on('error', () => undefined);
  child.stdin.write(`${JSON.stringify(load)}\n`);
  return { report, stop: () => child.stdin.end('stop\n') };
}

// ---------------------------------------------------------------------------------------------------------------
// In the child process.

const connackAccepted = 0;
const variants = 32;

/** A PUBLISH packet and where in it the parts lie that change from message to message. */
interface Template {
  readonly bytes: Buffer;
  readonly packetIdAt: number;
  /** Each is 13 digits of milliseconds. */
  readonly timestampsAt: readonly number[];
  /** 8 digits; undefined when there is none. */
  readonly sequenceAt: number | undefined;
  readonly payloadBytes: number;
}

const timestampMark = '1000000000000';
const sequenceMark = '10000000';

function remainingLength(length: number): Buffer {
  const bytes: number[] = [];
  let rest = length;
  do {
    const digit = rest % 128;
    rest = Math.floor(rest / 128);
    bytes.push(rest > 0 ? digit | 0x80 : digit);
  } while (rest > 0);
  return Buffer.from(bytes);
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  const length = Buffer.alloc(2);
  length.writeUInt16BE(bytes.length);
  return Buffer.concat([length, bytes]);
}

export function connectPacket(options: Omit<Publisher, 'topic'> & { cleanSession?: boolean }): Buffer {
  const { clientId, username, password, cleanSession = true } = options;
  const flags =
    (username === undefined ? 0 : 0x80) | (password === undefined ? 0 : 0x40) | (cleanSession ? 2 : 0);
  const body = Buffer.concat([
    text('MQTT'),
    Buffer.from([4, flags, 0, 0]),
    text(clientId),
    username === undefined ? Buffer.alloc(0) : text(username),
    password === undefined ? Buffer.alloc(0) : text(password),
  ]);
  return Buffer.concat([Buffer.from([0x10]), remainingLength(body.length), body]);
}

export function publishPacket(topic: string, payload: string, packetId: number): Buffer {
  const id = Buffer.alloc(2);
  id.writeUInt16BE(packetId);
  const body = Buffer.concat([text(topic), id, Buffer.from(payload)]);
  return Buffer.concat([Buffer.from([0x32]), remainingLength(body.length), body]);
}

export function subscribePacket(filter: string, packetId: number): Buffer {
  const id = Buffer.alloc(2);
  id.writeUInt16BE(packetId);
  const body = Buffer.concat([id, text(filter), Buffer.from([1])]);
  return Buffer.concat([Buffer.from([0x82]), remainingLength(body.length), body]);
}

/** What a water node measures, wandering a little from message to message; about 200 bytes. */
function telemetry(variant: number, boot: string | undefined): string {
  const sequence = boot === undefined ? '' : `,"boot":"${boot}","seq":${sequenceMark}`;
  const wander = Math.sin(variant / 5);
  return (
    `{"timestamp":${timestampMark}${sequence},"flow_rate":${(8 + 4 * wander).toFixed(3)},` +
    `"total_volume":${(18_234 + variant * 0.21).toFixed(2)},"pressure":${(3.1 + 0.2 * wander).toFixed(3)},` +
    `"temperature":${(14.5 + wander).toFixed(2)},"battery_voltage":${(3.74 - variant / 1000).toFixed(3)},` +
    `"rssi":${-58 - (variant % 9)},"valve_open":${variant % 7 !== 0}}`
  );
}

function lines(measurement: string, count: number, variant: number): string {
  let payload = '';
  for (let line = 0; line < count; line += 1) {
    const wander = Math.sin((variant * count + line) / 40);
    payload +=
      `${measurement} flow_rate=${(8 + 4 * wander).toFixed(3)},pressure=${(3.1 + 0.2 * wander).toFixed(3)} ` +
      `${timestampMark}000000\n`;
  }
  return payload;
}

function templatesOf(load: Load, publisher: Publisher): Template[] {
  const boot = (load.sequenced ?? true) ? Math.floor(Math.random() * 0xffffffff).toString(16) : undefined;
  const measurement = publisher.topic.slice(publisher.topic.lastIndexOf('/') + 1);
  return Array.from({ length: variants }, (_, variant) => {
    const payload =
      load.linesPerMessage === undefined
        ? telemetry(variant, boot)
        : lines(measurement, load.linesPerMessage, variant);
    const bytes = publishPacket(publisher.topic, payload, 1);
    const payloadAt = bytes.length - Buffer.byteLength(payload);
    const timestampsAt: number[] = [];
    for (
      let at = bytes.indexOf(timestampMark, payloadAt);
      at >= 0;
      at = bytes.indexOf(timestampMark, at + 13)
    ) {
      timestampsAt.push(at);
    }
    const mark = load.linesPerMessage === undefined ? bytes.indexOf(`"seq":${sequenceMark}`, payloadAt) : -1;
    return {
      bytes,
      packetIdAt: payloadAt - 2,
      timestampsAt,
      sequenceAt: mark < 0 ? undefined : mark + 6,
      payloadBytes: bytes.length - payloadAt,
    };
  });
}

function writeDigits(target: Buffer, lastDigitAt: number, digits: number, value: number): void {
  let rest = value;
  for (let place = 0; place < digits; place += 1) {
    const tenth = Math.floor(rest / 10);
    target[lastDigitAt - place] = 48 + rest - tenth * 10;
    rest = tenth;
  }
}

/** One connection: what it has out, and what it hears. */
class Connection {
  readonly #socket: Socket;
  readonly #templates: readonly Template[];
  readonly #load: Load;
  readonly #onAck: (latencyMs: number) => void;
  readonly #onFault: (reason: string) => void;
  /** When the message with this packet id was sent; 0 when none is out. */
  readonly #sentAt = new Float64Array(65_536);
  #rest: Buffer = Buffer.alloc(0);
  #nextId = 1;
  #sent = 0;
  #out = 0;

  constructor(
    socket: Socket,
    load: Load,
    publisher: Publisher,
    listeners: { ack: (latencyMs: number) => void; fault: (reason: string) => void },
  ) {
    this.#socket = socket;
    this.#load = load;
    this.#templates = templatesOf(load, publisher);
    this.#onAck = listeners.ack;
    this.#onFault = listeners.fault;
  }

  get out(): number {
    return this.#out;
  }

  get payloadBytes(): number {
    return this.#templates[0]?.payloadBytes ?? 0;
  }

  /** Takes `count` messages of the window and writes them in one call. */
  send(count: number): void {
    const parts: Buffer[] = [];
    const now = performance.now();
    for (let index = 0; index < count; index += 1) parts.push(this.#next(now));
    this.#out += count;
    this.#socket.write(parts.length === 1 && parts[0] !== undefined ? parts[0] : Buffer.concat(parts));
  }

  hear(chunk: Buffer): void {
    const bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    const now = performance.now();
    let at = 0;
    while (at + 4 <= bytes.length) {
      if (bytes[at] !== 0x40 || bytes[at + 1] !== 2) {
        this.#onFault(`expected a PUBACK, got 0x${bytes[at]?.toString(16)}`);
        return;
      }
      const id = bytes.readUInt16BE(at + 2);
      const sentAt = this.#sentAt[id] ?? 0;
      if (sentAt === 0) {
        this.#onFault(`a PUBACK for packet ${id}, which is not out`);
        return;
      }
      this.#sentAt[id] = 0;
      this.#out -= 1;
      this.#onAck(now - sentAt);
      at += 4;
    }
    this.#rest = bytes.subarray(at);
  }

  end(): void {
    this.#socket.end(Buffer.from([0xe0, 0]));
  }

  #next(now: number): Buffer {
    const template = this.#templates[this.#sent % variants];
    if (template === undefined) throw new Error('BUG: no template');
    const bytes = Buffer.from(template.bytes);
    const id = this.#nextId;
    this.#nextId = id === 65_535 ? 1 : id + 1;
    this.#sentAt[id] = now;
    bytes.writeUInt16BE(id, template.packetIdAt);
    const step = this.#load.stepMs ?? 1;
    let timestamp = this.#load.firstTimestampMs + this.#sent * step * template.timestampsAt.length;
    for (const at of template.timestampsAt) {
      writeDigits(bytes, at + 12, 13, timestamp);
      timestamp += step;
    }
    if (template.sequenceAt !== undefined) {
      writeDigits(bytes, template.sequenceAt + 7, 8, Number(sequenceMark) + this.#sent);
    }
    this.#sent += 1;
    return bytes;
  }
}

interface Deferred<T> {
  readonly promise: Promise<T>;
  resolve(value: T): void;
  reject(error: Error): void;
}

function deferred<T>(): Deferred<T> {
  let settle: Omit<Deferred<T>, 'promise'> | undefined;
  const promise = new Promise<T>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, resolve: (value) => settle?.resolve(value), reject: (error) => settle?.reject(error) };
}

/** Connects and resolves on an accepting CONNACK. */
export function openConnection(port: number, options: Parameters<typeof connectPacket>[0]): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: '127.0.0.1', port, noDelay: true });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error(`${options.clientId}: closed before CONNACK`)));
    socket.write(connectPacket(options));
    socket.once('data', (answer: Buffer) => {
      if (answer[0] === 0x20 && answer[3] === connackAccepted) {
        socket.removeAllListeners();
        resolve(socket);
        return;
      }
      socket.destroy();
      reject(new Error(`${options.clientId}: refused with ${answer[3]}`));
    });
  });
}

async function generate(load: Load, stopped: AbortSignal): Promise<LoadReport> {
  const latencies = new Float64Array(load.messages);
  let given = 0;
  let acknowledged = 0;
  let lastAckAt = 0;
  let total = load.messages;
  const connections: Connection[] = [];
  const finished = deferred<void>();
  // What may still be sent is shared, so that all publishers end together and the tail is not one of them alone.
  const fill = (connection: Connection): void => {
    const count = Math.min(load.window - connection.out, total - given);
    if (count <= 0) return;
    given += count;
    connection.send(count);
  };
  for (const publisher of load.publishers) {
    const socket = await openConnection(load.port, publisher);
    const fault = (reason: string): void => finished.reject(new Error(`${publisher.clientId}: ${reason}`));
    const connection = new Connection(socket, load, publisher, {
      ack: (latencyMs) => {
        latencies[acknowledged] = latencyMs;
        acknowledged += 1;
      },
      fault,
    });
    socket.on('data', (chunk: Buffer) => {
      connection.hear(chunk);
      lastAckAt = performance.now();
      if (acknowledged === total) finished.resolve();
      else if (load.rate === undefined) fill(connection);
    });
    socket.on('error', (error) => fault(error.message));
    socket.on('close', () => fault('the broker closed the connection'));
    connections.push(connection);
  }
  const deadline = setTimeout(() => finished.resolve(), load.timeoutMs);
  stopped.addEventListener('abort', () => {
    total = given;
    if (acknowledged === total) finished.resolve();
    setTimeout(() => finished.resolve(), 5_000).unref();
  });
  const cpuBefore = process.cpuUsage();
  const startedAt = performance.now();
  if (load.rate === undefined) for (const connection of connections) fill(connection);
  else pace(load.rate);

  function pace(rate: number): void {
    // Where the schedule stands, not when the timer came: a late timer sends what is due and nothing is left out.
    const burst = load.burst ?? 1;
    const bursts = Math.floor((((performance.now() - startedAt) / 1000) * rate) / burst) + 1;
    const due = Math.min(total, bursts * burst);
    while (given < due) {
      const connection = connections[given % connections.length];
      if (connection === undefined || connection.out >= load.window) break;
      given += 1;
      connection.send(1);
    }
    if (given < total)
      setTimeout(() => pace(rate), Math.max(1, (given / rate) * 1000 - (performance.now() - startedAt)));
  }

  await finished.promise;
  clearTimeout(deadline);
  const seconds = (lastAckAt - startedAt) / 1000;
  const cpu = process.cpuUsage(cpuBefore);
  for (const connection of connections) connection.end();
  return {
    acknowledged,
    unacknowledged: given - acknowledged,
    seconds,
    messagesPerSecond: acknowledged / seconds,
    ackLatency: latenciesOf(latencies.subarray(0, acknowledged)),
    generatorCpu: (cpu.user + cpu.system) / 1e6 / seconds,
    payloadBytes: connections[0]?.payloadBytes ?? 0,
  };
}

async function main(): Promise<void> {
  const stop = new AbortController();
  const order = deferred<Load>();
  let heard = '';
  process.stdin.on('data', (chunk: Buffer) => {
    heard += chunk.toString();
    const end = heard.indexOf('\n');
    if (end < 0) return;
    order.resolve(JSON.parse(heard.slice(0, end)) as Load);
    if (heard.slice(end + 1).startsWith('stop')) stop.abort();
  });
  process.stdin.on('end', () => stop.abort());
  const report = await generate(await order.promise, stop.signal);
  process.stdout.write(JSON.stringify(report), () => process.exit(0));
}

if (argv[1] === fileURLToPath(import.meta.url) && argv[2] === '--generate') {
  main().catch((error: unknown) => {
    process.stderr.write(`load generator: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exit(1);
  });
}
