// A port on which the API is reached: HTTP, or HTTPS with the gateway's certificate. Promises: connections are bounded
// before a byte of them is read (connections.ts; a TLS handshake that never ends is as silent as any); what is no HTTP
// gets one answer and is cut; nothing waits for long.

import { createServer, type RequestListener, type Server } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import type { Certificates } from '../platform/certificates.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { Connections } from './connections.ts';
import { refusal } from './refusal.ts';

const limits = {
  /** A hundred nodes that keep theirs open, as over MQTT, and browsers, which open six. */
  connections: { connectionsMax: 200, perAddressMax: 20 },
  headerBytesMax: 8 * 1024,
  handshakeTimeoutMs: 5_000,
  headersTimeoutMs: 5_000,
  /** From the first byte of a request to its last. */
  requestTimeoutMs: 10_000,
  keepAliveTimeoutMs: 30_000,
};

export interface DoorOptions {
  readonly host: string;
  /** 0 picks a free one. */
  readonly port: number;
  /** Undefined: plain HTTP. */
  readonly certificates?: Certificates | undefined;
  readonly onRequest: RequestListener;
  /** Bytes that are no HTTP. */
  readonly onRefused: () => void;
}

export class Door {
  readonly connections = new Connections(limits.connections);
  readonly #server: Server;
  /** As they were accepted: also those still at their handshake, which the server's own list leaves out. */
  readonly #sockets = new Set<Socket>();
  failedHandshakes = 0;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws GatewayError `LISTEN_FAILED` when the port is taken or the address is not this machine's. */
  static async open(options: DoorOptions): Promise<Door> {
    const { certificates, host, port, onRequest, onRefused } = options;
    const http = {
      maxHeaderSize: limits.headerBytesMax,
      headersTimeout: limits.headersTimeoutMs,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      // Node looks at its time limits every 30 s unless told otherwise.
      connectionsCheckingInterval: limits.headersTimeoutMs,
      noDelay: true,
    };
    const secure = certificates && {
      ...certificates.serverOptions(),
      handshakeTimeout: limits.handshakeTimeoutMs,
    };
    const server = secure ? createTlsServer({ ...http, ...secure }) : createServer(http);
    const door = new Door(server);
    server.on('connection', (socket: Socket) => {
      // A socket may fail before anyone else listens to it.
      socket.on('error', () => socket.destroy());
      door.#sockets.add(socket);
      socket.once('close', () => door.#sockets.delete(socket));
    });
    door.connections.watch(server);
    server.on('request', onRequest);
    server.on('clientError', (error, socket) => {
      const isHttp = /^(HPE_|ERR_HTTP_)/.test(errorCode(error) ?? '');
      if (certificates !== undefined && !isHttp) {
        door.failedHandshakes += 1;
        socket.destroy();
        return;
      }
      onRefused();
      answerClientError(error, socket as Socket);
    });
    const name = certificates === undefined ? 'http' : 'https';
    await listen(server, { name, host, port });
    if (secure) certificates.follow(server as ReturnType<typeof createTlsServer>);
    return door;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo | null)?.port ?? 0;
  }

  /** Ends open connections too. */
  async close(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
      for (const socket of this.#sockets) socket.destroy();
    });
  }
}

function listen(
  server: Server,
  { name, host, port }: { readonly name: string; readonly host: string; readonly port: number },
): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause) => {
      const reason = errorCode(cause) === 'EADDRINUSE' ? 'it is in use' : String(errorCode(cause));
      const message = `cannot listen on ${name} port ${host}:${port}: ${reason}`;
      reject(new GatewayError('LISTEN_FAILED', message, { cause }));
    });
    server.listen({ port, host }, () => {
      server.removeAllListeners('error');
      // EMFILE and the like while accepting: the next accept may succeed.
      server.on('error', () => undefined);
      resolve();
    });
  });
}

/** Bytes that are no HTTP request, or one whose header never ends: answered on the bare socket. */
function answerClientError(error: Error, socket: Socket): void {
  if (!socket.writable || errorCode(error) === 'ECONNRESET') {
    socket.destroy();
    return;
  }
  const statuses: Readonly<Record<string, string>> = {
    HPE_HEADER_OVERFLOW: '431 Request Header Fields Too Large',
    ERR_HTTP_REQUEST_TIMEOUT: '408 Request Timeout',
  };
  const status = statuses[errorCode(error) ?? ''] ?? '400 Bad Request';
  const body = JSON.stringify(refusal('HTTP_INVALID', status.slice(4)).body);
  const head = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close`;
  socket.end(`HTTP/1.1 ${status}\r\n${head}\r\n\r\n${body}`, () => socket.destroy());
}
