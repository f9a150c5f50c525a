// The HTTP side of the gateway; so far /health and /metrics. Promises: only requests meant for this machine are
// answered, nothing a client sends grows beyond its limit, and every answer that is not one of the pages is JSON
// with a code. Listens on loopback unless told otherwise.

import assert from 'node:assert/strict';
import type { Socket } from 'node:net';
import { hostname } from 'node:os';
import { type FastifyInstance, type FastifyReply, fastify } from 'fastify';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { answerHealth, type Health } from './health.ts';
import { isOwnHost } from './host-header.ts';
import { type MetricFamily, metricsContentType, renderMetrics } from './metrics.ts';

const limits = {
  bodyBytesMax: 64 * 1024,
  headerBytesMax: 8 * 1024,
  /** Sockets at once; browsers open six. */
  connectionsMax: 100,
  headersTimeoutMs: 5_000,
  /** From the first byte of a request to its last. */
  requestTimeoutMs: 10_000,
  keepAliveTimeoutMs: 30_000,
  pathCharactersMax: 256,
};

export interface ApiOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly health: () => Health;
  readonly metrics: () => readonly MetricFamily[];
  /** Further names this machine is reached by, besides its host name, `{host name}.local` and addresses. */
  readonly hostNames?: readonly string[];
  readonly log: Log;
}

interface Counts {
  requests: number;
  /** Answered with 4xx, or not even that. */
  refused: number;
  /** Answered with 500. */
  failed: number;
}

export type ApiStats = Readonly<Counts>;

function errorBody(code: string, message: string) {
  return { error: { code, message } };
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
  const body = JSON.stringify(errorBody('HTTP_INVALID', status.slice(4)));
  const head = `content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nconnection: close`;
  socket.end(`HTTP/1.1 ${status}\r\n${head}\r\n\r\n${body}`, () => socket.destroy());
}

function noSchema(): never {
  assert.fail('BUG: a page has a schema, and the API was told that none has');
}

export class Api {
  readonly #app: FastifyInstance;
  readonly #options: ApiOptions;
  readonly #names: ReadonlySet<string>;
  readonly #counts: Counts;
  #closing: Promise<void> | undefined;

  private constructor(app: FastifyInstance, options: ApiOptions, counts: Counts) {
    const own = hostname().toLowerCase();
    const further = options.hostNames ?? [];
    this.#app = app;
    this.#counts = counts;
    this.#options = options;
    this.#names = new Set([own, `${own}.local`, ...further.map((name) => name.toLowerCase())]);
  }

  /** @throws GatewayError `LISTEN_FAILED` when the port is taken or the address is not this machine's. */
  static async open(options: ApiOptions): Promise<Api> {
    const counts: Counts = { requests: 0, refused: 0, failed: 0 };
    const app = fastify({
      logger: false,
      bodyLimit: limits.bodyBytesMax,
      requestTimeout: limits.requestTimeoutMs,
      keepAliveTimeout: limits.keepAliveTimeoutMs,
      forceCloseConnections: true,
      http: {
        maxHeaderSize: limits.headerBytesMax,
        headersTimeout: limits.headersTimeoutMs,
        // Node looks at its time limits every 30 s unless told otherwise.
        connectionsCheckingInterval: limits.headersTimeoutMs,
      },
      clientErrorHandler(error, socket) {
        counts.refused += 1;
        answerClientError(error, socket);
      },
      // No page has a schema yet; naming compilers keeps fastify from loading its own, ajv among them: some 6 MB.
      schemaController: { compilersFactory: { buildValidator: noSchema, buildSerializer: noSchema } },
      routerOptions: { maxParamLength: limits.pathCharactersMax },
      // Else a path that cannot be decoded is answered in fastify's own form.
      frameworkErrors: (_error, _request, reply: FastifyReply) => {
        counts.refused += 1;
        void reply.code(400).send(errorBody('PATH_INVALID', 'the path cannot be decoded'));
      },
    });
    app.server.maxConnections = limits.connectionsMax;
    const api = new Api(app, options, counts);
    api.#guard();
    api.#page('/health', () => answerHealth(options.health()));
    api.#page('/metrics', () => ({
      statusCode: 200,
      type: metricsContentType,
      body: renderMetrics(options.metrics()),
    }));
    const host = options.host ?? '127.0.0.1';
    try {
      await app.listen({ host, port: options.port });
    } catch (error) {
      await app.close();
      const reason = errorCode(error) === 'EADDRINUSE' ? 'it is in use' : String(errorCode(error));
      throw new GatewayError(
        'LISTEN_FAILED',
        `cannot listen on http port ${host}:${options.port}: ${reason}`,
        {
          cause: error,
        },
      );
    }
    return api;
  }

  /** The port in use. */
  get port(): number {
    const address = this.#app.server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  stats(): ApiStats {
    return { ...this.#counts };
  }

  /** Ends open connections too. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#app.close();
    return this.#closing;
  }

  #guard(): void {
    this.#app.addHook('onRequest', async (request, reply) => {
      this.#counts.requests += 1;
      reply.header('x-content-type-options', 'nosniff').header('cache-control', 'no-store');
      if (isOwnHost(request.headers.host, this.#names)) return;
      // 421: this server is not the one the name stands for (RFC 9110 §15.5.20).
      await reply.code(421).send(errorBody('HOST_UNKNOWN', 'the Host header names another machine'));
    });
    this.#app.addHook('onResponse', async (_request, reply) => {
      if (reply.statusCode >= 400 && reply.statusCode < 500) this.#counts.refused += 1;
    });
    this.#app.setNotFoundHandler(async (request, reply) => {
      const [path = ''] = request.url.split('?');
      await reply.code(404).send(errorBody('NOT_FOUND', `there is nothing at ${path.slice(0, 100)}`));
    });
    this.#app.setErrorHandler(async (error, _request, reply) => {
      const status = (error as { statusCode?: unknown }).statusCode;
      if (typeof status === 'number' && status >= 400 && status < 500) {
        await reply.code(status).send(errorBody(errorCode(error) ?? 'REQUEST_INVALID', String(error)));
        return;
      }
      this.#counts.failed += 1;
      this.#options.log.error({ event: 'api-request-failed', err: error }, 'a page could not be made');
      await reply.code(500).send(errorBody('INTERNAL', 'the gateway could not answer; its log says why'));
    });
  }

  /** A page to read: GET and HEAD; every other method is told so. */
  #page(url: string, make: () => { statusCode: number; type?: string; body: unknown }): void {
    this.#app.get(url, async (_request, reply) => {
      const { statusCode, type, body } = make();
      if (type !== undefined) reply.type(type);
      return reply.code(statusCode).send(body);
    });
    const others = this.#app.supportedMethods.filter((method) => method !== 'GET' && method !== 'HEAD');
    this.#app.route({
      method: others,
      url,
      // Before the body is looked at: what it holds does not matter.
      onRequest: async (_request, reply) => {
        reply.header('allow', 'GET, HEAD');
        await reply.code(405).send(errorBody('METHOD_NOT_ALLOWED', 'this page can only be read: GET, HEAD'));
      },
      handler: async () => undefined,
    });
  }
}
