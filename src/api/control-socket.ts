// How the command line reaches a running gateway: a Unix socket only its own user may open (0600 in a 0700
// folder), one JSON request per line, one JSON answer per line. Access to the socket is the authorisation.
// Promises: a socket file left by a dead process is no obstacle, one of a living process is never taken.

import { chmod, mkdir, unlink } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { Operations } from '../platform/operations.ts';

const defaults = {
  connectionsMax: 16,
  requestBytesMax: 64 * 1024,
  /** For a request to arrive whole, and between two requests. */
  idleTimeoutMs: 30_000,
  operationTimeoutMs: 60_000,
};

/** `sun_path` of Linux holds 108 bytes with its NUL; longer paths would be cut silently. */
const socketPathBytesMax = 107;

export interface ControlSocketOptions {
  readonly path: string;
  readonly operations: Operations;
  readonly log: Log;
  readonly requestBytesMax?: number;
  readonly idleTimeoutMs?: number;
  readonly operationTimeoutMs?: number;
}

export interface ControlSocketStats {
  readonly connections: number;
  readonly requests: number;
  readonly failed: number;
}

function refusalLine(code: string, message: string): string {
  return JSON.stringify({ ok: false, error: { code, message } });
}

/** Whether somebody answers at this socket. */
function isAlive(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    // EAGAIN is a living server with a full queue.
    socket.once('error', (error) => resolve(errorCode(error) === 'EAGAIN'));
  });
}

function parseRequest(
  line: string,
): { operation: string; args: Readonly<Record<string, unknown>> } | undefined {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || !('operation' in value)) return undefined;
  const { operation } = value;
  const args = 'args' in value ? value.args : {};
  if (typeof operation !== 'string') return undefined;
  if (typeof args !== 'object' || args === null || Array.isArray(args)) return undefined;
  return { operation, args: args as Record<string, unknown> };
}

export class ControlSocket {
  readonly #server: Server;
  readonly #options: ControlSocketOptions;
  readonly #requestBytesMax: number;
  readonly #idleTimeoutMs: number;
  readonly #operationTimeoutMs: number;
  readonly #sockets = new Set<Socket>();
  #closing: Promise<void> | undefined;
  #requests = 0;
  #failed = 0;

  private constructor(server: Server, options: ControlSocketOptions) {
    this.#server = server;
    this.#options = options;
    this.#requestBytesMax = options.requestBytesMax ?? defaults.requestBytesMax;
    this.#idleTimeoutMs = options.idleTimeoutMs ?? defaults.idleTimeoutMs;
    this.#operationTimeoutMs = options.operationTimeoutMs ?? defaults.operationTimeoutMs;
  }

  /**
   * @throws GatewayError `CONTROL_SOCKET_IN_USE` when another gateway listens there, `CONTROL_SOCKET_FAILED` when
   * it cannot be made (path too long, no permission).
   */
  static async open(options: ControlSocketOptions): Promise<ControlSocket> {
    const { path } = options;
    if (Buffer.byteLength(path) > socketPathBytesMax) {
      throw new GatewayError(
        'CONTROL_SOCKET_FAILED',
        `the path of the control socket is longer than ${socketPathBytesMax} bytes: ${path}; choose a shorter data_dir`,
      );
    }
    const server = createServer({ allowHalfOpen: true });
    server.maxConnections = defaults.connectionsMax;
    const control = new ControlSocket(server, options);
    server.on('connection', (socket) => control.#serve(socket));
    try {
      // The folder keeps others out in the moment between listen and chmod.
      await mkdir(dirname(path), { recursive: true, mode: 0o700 });
      await chmod(dirname(path), 0o700);
      if (await isAlive(path)) {
        throw new GatewayError('CONTROL_SOCKET_IN_USE', `another gateway runs with this data: ${path}`);
      }
      await unlink(path).catch((error: unknown) => {
        if (errorCode(error) !== 'ENOENT') throw error;
      });
      await control.#listen();
      await chmod(path, 0o600);
    } catch (error) {
      server.close();
      if (error instanceof GatewayError) throw error;
      throw new GatewayError('CONTROL_SOCKET_FAILED', `cannot make ${path}: ${String(error)}`, {
        cause: error,
      });
    }
    return control;
  }

  stats(): ControlSocketStats {
    return { connections: this.#sockets.size, requests: this.#requests, failed: this.#failed };
  }

  /** Ends open connections; the socket file is gone afterwards. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= new Promise((resolve) => {
      // Node removes the file of a listening Unix socket itself.
      this.#server.close(() => resolve());
      for (const socket of this.#sockets) socket.destroy();
    });
    return this.#closing;
  }

  #listen(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.path, () => {
        this.#server.off('error', reject);
        this.#server.on('error', (error) =>
          this.#options.log.error({ event: 'control-socket-failed', err: error }, 'control socket'),
        );
        resolve();
      });
    });
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    let waiting: Buffer[] = [];
    let waitingBytes = 0;
    // Requests of one connection are answered in their order, one at a time.
    let answering = Promise.resolve();
    socket.setTimeout(this.#idleTimeoutMs, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    socket.on('close', () => this.#sockets.delete(socket));
    socket.on('end', () => {
      answering = answering.then(() => {
        socket.end();
      });
    });
    let unanswered = 0;
    const answer = (line: string): void => {
      // Nothing more is read until all of these are answered: that bounds what can pile up. The operations have
      // a time limit of their own.
      unanswered += 1;
      socket.pause();
      socket.setTimeout(0);
      answering = answering.then(async () => {
        const answered = await this.#answer(line);
        unanswered -= 1;
        if (socket.destroyed) return;
        socket.write(`${answered}\n`);
        if (unanswered > 0) return;
        socket.setTimeout(this.#idleTimeoutMs);
        socket.resume();
      });
    };
    let isRefused = false;
    socket.on('data', (chunk) => {
      if (isRefused) return;
      let rest: Buffer = chunk;
      for (let end = rest.indexOf(10); end >= 0; end = rest.indexOf(10)) {
        const line = Buffer.concat([...waiting, rest.subarray(0, end)]);
        waiting = [];
        waitingBytes = 0;
        rest = rest.subarray(end + 1);
        if (line.length <= this.#requestBytesMax) answer(line.toString('utf8'));
        else waitingBytes = line.length;
      }
      if (rest.length > 0) waiting.push(rest);
      waitingBytes += rest.length;
      if (waitingBytes <= this.#requestBytesMax) return;
      isRefused = true;
      waiting = [];
      const text = `a request has at most ${this.#requestBytesMax} bytes`;
      socket.end(`${refusalLine('REQUEST_TOO_LARGE', text)}\n`, () => socket.destroy());
    });
  }

  /** One line of JSON without its line break. Never rejects. */
  async #answer(line: string): Promise<string> {
    this.#requests += 1;
    const request = parseRequest(line);
    if (request === undefined) {
      this.#failed += 1;
      return refusalLine('REQUEST_INVALID', 'expected one line of JSON: {"operation": …, "args": {…}}');
    }
    const operation = this.#options.operations.get(request.operation);
    if (operation === undefined) {
      this.#failed += 1;
      const name = JSON.stringify(request.operation.slice(0, 80));
      return refusalLine('OPERATION_UNKNOWN', `this gateway knows no operation ${name}`);
    }
    let timer: NodeJS.Timeout | undefined;
    try {
      const late = new Promise<never>((_, reject) => {
        timer = setTimeout(() => {
          reject(new GatewayError('OPERATION_TIMEOUT', `${request.operation} took too long to answer`));
        }, this.#operationTimeoutMs);
      });
      const result = await Promise.race([operation(request.args), late]);
      return JSON.stringify({ ok: true, result: result ?? null });
    } catch (error) {
      this.#failed += 1;
      if (error instanceof GatewayError) return refusalLine(error.code, error.message);
      this.#options.log.error({ event: 'operation-failed', operation: request.operation, err: error }, 'BUG');
      return refusalLine('INTERNAL', 'the gateway could not do it; its log says why');
    } finally {
      clearTimeout(timer);
    }
  }
}
