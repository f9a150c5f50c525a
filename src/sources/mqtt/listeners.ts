// The three doors: plain TCP, TLS, WebSocket. Each hands on a byte stream and the key of its admission ticket.
// Plain doors open to the loopback unless the owner of the house says otherwise.

import { createServer as createHttpServer, type Server as HttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import type { Duplex } from 'node:stream';
import { createServer as createTlsServer } from 'node:tls';
import { createWebSocketStream, WebSocketServer } from 'ws';
import type { Certificates } from '../../platform/certificates.ts';
import { GatewayError } from '../../platform/errors.ts';
import { type Admission, isLoopback, ticketKey } from './admission.ts';
import type { MqttLimits } from './limits.ts';

export interface ListenerOptions {
  /** Address of the TLS door and, where it is a loopback address or `lanPlaintext`, of the plain ones. */
  readonly host: string;
  readonly lanPlaintext: boolean;
  /** Port 0 picks a free one; undefined leaves the door closed. */
  readonly port: number | undefined;
  readonly wsPort: number | undefined;
  readonly tls: { readonly port: number; readonly certificates: Certificates } | undefined;
}

export interface Ports {
  readonly mqtt: number | undefined;
  readonly mqtts: number | undefined;
  readonly ws: number | undefined;
}

export interface Listeners {
  readonly ports: Ports;
  /** Stops accepting; connections stay. */
  stop(): void;
  /** Ends what is still open. */
  close(): Promise<void>;
}

interface ListenerHooks {
  readonly limits: MqttLimits;
  readonly admission: Admission;
  connected(connection: Duplex, ticket: string): void;
}

/** @throws GatewayError `MQTT_LISTEN_FAILED` naming the port. */
export async function openListeners(options: ListenerOptions, hooks: ListenerHooks): Promise<Listeners> {
  const servers: (Server | HttpServer)[] = [];
  const plainHost = plainAddress(options);
  async function open(server: Server | HttpServer, port: number, host: string): Promise<number> {
    servers.push(server);
    // Ahead of Node's own listeners: who is not admitted costs no TLS handshake.
    server.prependListener('connection', (socket: Socket) => {
      // A socket may fail before anyone else listens to it.
      socket.on('error', () => socket.destroy());
      hooks.admission.admit(socket);
    });
    return await listen(server, port, host);
  }
  try {
    const mqtt =
      options.port === undefined ? undefined : await open(tcpServer(hooks), options.port, plainHost);
    const mqtts =
      options.tls === undefined
        ? undefined
        : await open(tlsServer(options.tls, hooks), options.tls.port, options.host);
    const ws =
      options.wsPort === undefined
        ? undefined
        : await open(webSocketServer(hooks), options.wsPort, plainHost);
    return {
      ports: { mqtt, mqtts, ws },
      stop: () => {
        for (const server of servers) server.close();
      },
      close: async () => {
        for (const server of servers) {
          server.close();
          if ('closeAllConnections' in server) server.closeAllConnections();
        }
      },
    };
  } catch (error) {
    for (const server of servers) server.close();
    throw error;
  }
}

function plainAddress({ host, lanPlaintext }: ListenerOptions): string {
  return lanPlaintext || isLoopback(host) || host === 'localhost' ? host : '127.0.0.1';
}

function listen(server: Server | HttpServer, port: number, host: string): Promise<number> {
  return new Promise((resolve, reject) => {
    server.once('error', (cause: NodeJS.ErrnoException) => {
      reject(
        new GatewayError('MQTT_LISTEN_FAILED', `cannot listen on port ${port}: ${cause.message}`, { cause }),
      );
    });
    server.listen({ port, host }, () => {
      server.removeAllListeners('error');
      // EMFILE and the like while accepting: the next accept may succeed.
      server.on('error', () => {});
      resolve((server.address() as AddressInfo).port);
    });
  });
}

function tcpServer(hooks: ListenerHooks): Server {
  // Without noDelay every small answer waits for the peer's delayed acknowledgement: 40 ms a round trip.
  const server = createServer({ noDelay: true });
  server.on('connection', (socket) => {
    if (!socket.destroyed) hooks.connected(socket, ticketKey(socket));
  });
  return server;
}

function tlsServer({ certificates }: NonNullable<ListenerOptions['tls']>, hooks: ListenerHooks): Server {
  const server = createTlsServer({
    ...certificates.serverOptions(),
    handshakeTimeout: hooks.limits.connectTimeoutMs,
    noDelay: true,
  });
  server.on('secureConnection', (socket) => {
    socket.on('error', () => socket.destroy());
    if (!socket.destroyed) hooks.connected(socket, ticketKey(socket));
  });
  server.on('tlsClientError', (_error, socket) => socket.destroy());
  certificates.follow(server);
  return server;
}

function webSocketServer(hooks: ListenerHooks): HttpServer {
  const server = createHttpServer({
    noDelay: true,
    maxHeaderSize: 8192,
    headersTimeout: hooks.limits.connectTimeoutMs,
    requestTimeout: hooks.limits.connectTimeoutMs,
    connectionsCheckingInterval: 1000,
  });
  server.on('request', (_request, response) => {
    response.writeHead(426, { Connection: 'close', Upgrade: 'websocket' }).end();
  });
  const sockets = new WebSocketServer({
    noServer: true,
    perMessageDeflate: false,
    // Clients put several packets into one frame.
    maxPayload: 2 * hooks.limits.packetBytes,
    // [MQTT-6.0.0-3, -4]
    handleProtocols: (offered) => (offered.has('mqtt') ? 'mqtt' : 'mqttv3.1'),
  });
  server.on('upgrade', (request, socket, head) => {
    const offered = (request.headers['sec-websocket-protocol'] ?? '').split(',').map((name) => name.trim());
    if (!offered.includes('mqtt') && !offered.includes('mqttv3.1')) {
      socket.end('HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n');
      return;
    }
    sockets.handleUpgrade(request, socket, head, (webSocket) => {
      webSocket.on('message', (_bytes, isBinary) => {
        // [MQTT-6.0.0-1]
        if (!isBinary) webSocket.terminate();
      });
      const stream = createWebSocketStream(webSocket);
      stream.on('error', () => stream.destroy());
      hooks.connected(stream, ticketKey(request.socket));
    });
  });
  return server;
}
