// The HTTP side of the gateway: the routes it is handed. Promises: only requests meant for this machine are answered;
// who may not ask a route is told so before the body is read; a handler sees only input its schemas took; nothing a
// client sends grows beyond its limit; every refusal is JSON with a code. The same routes over HTTP and HTTPS; what is
// answered without TLS depends on the route and on where it is asked from (access.ts).

import assert from 'node:assert/strict';
import { hostname } from 'node:os';
import { Readable } from 'node:stream';
import type { TLSSocket } from 'node:tls';
import { type FastifyInstance, type FastifyReply, type FastifyRequest, fastify } from 'fastify';
import type { Certificates } from '../platform/certificates.ts';
import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import type { AuditTrail } from '../users/audit.ts';
import { type Authenticate, denial, isCrossSite, isLocal, keyOf } from './access.ts';
import { Door } from './door.ts';
import type { Health } from './health.ts';
import { isOwnHost } from './host-header.ts';
import { checkInput } from './input.ts';
import { parseJson, parseText } from './json-body.ts';
import type { MetricFamily } from './metrics.ts';
import { openApiRoute } from './openapi.ts';
import { RateLimits } from './rate-limits.ts';
import { isForClient, refusal } from './refusal.ts';
import { type Answer, actorOf, type Caller, type Route, type RouteRequest } from './route.ts';
import { pageRoutes } from './routes/pages.ts';
import { sessionCookie } from './session-cookie.ts';

const limits = {
  bodyBytesMax: 64 * 1024,
  pathCharactersMax: 256,
};

export interface ApiOptions {
  /** Default 127.0.0.1. */
  readonly host?: string;
  /** Of plain HTTP; 0 picks a free one, undefined leaves it out. */
  readonly port?: number | undefined;
  readonly https?: { readonly port: number; readonly certificates: Certificates } | undefined;
  readonly health: () => Health;
  readonly metrics: () => readonly MetricFamily[];
  /** PEM of the authority to trust. */
  readonly ca?: () => string | undefined;
  /** Whether it is reached by this name, too, besides its host name, `{host name}.local` and addresses. Lower-case. */
  readonly isHostName?: (name: string) => boolean;
  readonly routes?: readonly Route[];
  /** For the OpenAPI document. */
  readonly version?: string;
  /** Without, nobody has a key. */
  readonly authenticate?: Authenticate;
  /** Other machines may ask every route without TLS. Default: only those that need no key. */
  readonly lanPlaintext?: boolean;
  /** Told of what was changed, by the routes that have `audit`. */
  readonly audit?: AuditTrail;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  readonly log: Log;
}

interface Counts {
  requests: number;
  /** Answered with 4xx, or not even that. */
  refused: number;
  /** Answered with 500. */
  failed: number;
  /** Answered with 429. */
  limited: number;
}

export interface ApiStats extends Readonly<Counts> {
  /** Callers and addresses whose rate is kept. */
  readonly buckets: number;
  readonly connections: number;
  /** Closed for want of room. */
  readonly displacedConnections: number;
  /** TLS that did not come about. */
  readonly failedHandshakes: number;
}

type DoorName = 'http' | 'https';

function noSchema(): never {
  assert.fail('BUG: fastify has a schema, and was told that there is none');
}

export class Api {
  readonly #app: FastifyInstance;
  readonly #options: ApiOptions;
  readonly #isOwnName: (name: string) => boolean;
  readonly #counts: Counts;
  readonly #rates: RateLimits;
  readonly #doors = new Map<DoorName, Door>();
  #closing: Promise<void> | undefined;

  private constructor(app: FastifyInstance, options: ApiOptions, counts: Counts) {
    const own = hostname().toLowerCase();
    this.#app = app;
    this.#counts = counts;
    this.#options = options;
    this.#rates = new RateLimits({ clock: options.clock });
    this.#isOwnName = (name) =>
      name === own || name === `${own}.local` || options.isHostName?.(name) === true;
  }

  /** @throws GatewayError `LISTEN_FAILED` when the port is taken or the address is not this machine's. */
  static async open(options: ApiOptions): Promise<Api> {
    const counts: Counts = { requests: 0, refused: 0, failed: 0, limited: 0 };
    const app = fastify({
      logger: false,
      bodyLimit: limits.bodyBytesMax,
      // Schemas are held against the input in input.ts; naming compilers keeps fastify from loading its own, ajv among
      // them: some 6 MB.
      schemaController: { compilersFactory: { buildValidator: noSchema, buildSerializer: noSchema } },
      routerOptions: { maxParamLength: limits.pathCharactersMax },
      // Else a path that cannot be decoded is answered in fastify's own form.
      frameworkErrors: (_error, _request, reply: FastifyReply) => {
        counts.refused += 1;
        void send(reply, refusal('PATH_INVALID', 'the path cannot be decoded, or a name in it is too long'));
      },
    });
    const api = new Api(app, options, counts);
    api.#guard();
    const routes = [...pageRoutes(options), ...(options.routes ?? [])];
    api.#register([...routes, openApiRoute(routes, options.version ?? '0.0.0')]);
    await app.ready();
    try {
      const { port, https } = options;
      if (port !== undefined) await api.#openDoor('http', port);
      if (https !== undefined) await api.#openDoor('https', https.port, https.certificates);
    } catch (error) {
      await api.close();
      throw error;
    }
    return api;
  }

  /** In use, of plain HTTP; undefined when it was left out. */
  get port(): number | undefined {
    return this.#doors.get('http')?.port;
  }

  get tlsPort(): number | undefined {
    return this.#doors.get('https')?.port;
  }

  stats(): ApiStats {
    const doors = [...this.#doors.values()];
    const sum = (pick: (door: Door) => number) => doors.reduce((total, door) => total + pick(door), 0);
    return {
      ...this.#counts,
      buckets: this.#rates.buckets,
      connections: sum(({ connections }) => connections.open),
      displacedConnections: sum(({ connections }) => connections.displaced),
      failedHandshakes: sum(({ failedHandshakes }) => failedHandshakes),
    };
  }

  /** Ends open connections too. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= Promise.all([...this.#doors.values()].map((door) => door.close())).then(() =>
      this.#app.close(),
    );
    return this.#closing;
  }

  async #openDoor(name: DoorName, port: number, certificates?: Certificates): Promise<void> {
    const { host = '127.0.0.1' } = this.#options;
    const door = await Door.open({
      host,
      port,
      certificates,
      onRequest: (request, response) => this.#app.routing(request, response),
      onRefused: () => {
        this.#counts.refused += 1;
      },
    });
    this.#doors.set(name, door);
  }

  #guard(): void {
    // Bodies are parsed by what their route takes; until then they are bytes.
    this.#app.removeAllContentTypeParsers();
    this.#app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
    this.#app.addHook('onRequest', async (request, reply) => {
      this.#counts.requests += 1;
      reply.header('x-content-type-options', 'nosniff').header('cache-control', 'no-store');
      if (isOwnHost(request.headers.host, this.#isOwnName)) return;
      // 421: this server is not the one the name stands for (RFC 9110 §15.5.20).
      await send(reply, refusal('HOST_UNKNOWN', 'the Host header names another machine'));
    });
    this.#app.addHook('onResponse', async (_request, reply) => {
      if (reply.statusCode >= 400 && reply.statusCode < 500) this.#counts.refused += 1;
    });
    this.#app.setNotFoundHandler(async (request, reply) => {
      const [path = ''] = request.url.split('?');
      if (!this.#app.supportedMethods.includes(request.method)) {
        await send(reply, refusal('METHOD_UNSUPPORTED', `nothing here knows ${request.method}`));
        return;
      }
      await send(reply, refusal('NOT_FOUND', `there is nothing at ${path.slice(0, 100)}`));
    });
    this.#app.setErrorHandler(async (error, request, reply) => {
      await send(reply, this.#refusalOf(error, request));
    });
  }

  #refusalOf(error: unknown, request: FastifyRequest): Answer {
    if (error instanceof GatewayError && isForClient(error.code)) return refusal(error.code, error.message);
    const status = (error as { statusCode?: unknown }).statusCode;
    if (status === 413) return refusal('BODY_TOO_LARGE', 'the body is larger than this route takes');
    if (typeof status === 'number' && status >= 400 && status < 500) {
      return { ...refusal('REQUEST_INVALID', String(error)), status };
    }
    this.#counts.failed += 1;
    const { method, routeOptions } = request;
    this.#options.log.error(
      { event: 'api-request-failed', err: error, method, path: routeOptions.url },
      'A request could not be answered',
    );
    return refusal('INTERNAL', 'the gateway could not answer; its log says why');
  }

  #register(routes: readonly Route[]): void {
    const methodsOf = new Map<string, string[]>();
    for (const route of routes) {
      const url = route.path.replaceAll(/\{([a-z_]+)\}/g, ':$1');
      methodsOf.set(url, [...(methodsOf.get(url) ?? []), route.method]);
      this.#serve(url, route);
    }
    for (const [url, methods] of methodsOf) {
      const allowed = methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
      this.#app.route({
        method: this.#app.supportedMethods.filter((method) => !allowed.split(', ').includes(method)),
        url,
        // Before the body is looked at: what it holds does not matter.
        onRequest: async (_request, reply) => {
          const { headers, ...refused } = refusal('METHOD_NOT_ALLOWED', `this takes ${allowed}`);
          await send(reply, { ...refused, headers: { ...headers, allow: allowed } });
        },
        handler: async () => undefined,
      });
    }
  }

  #serve(url: string, route: Route): void {
    this.#app.route({
      method: route.method,
      url,
      bodyLimit: route.bodyBytesMax ?? limits.bodyBytesMax,
      onRequest: async (request, reply) => {
        const refused = await this.#refusedAtTheDoor(route, request);
        if (refused !== undefined) await send(reply, refused);
      },
      handler: async (request, reply) => {
        // Once more: who sends a body slowly may have been shut out before its end.
        const caller = await this.#callerOf(request);
        const refused = denial(route, caller, isLocal(addressOf(request), request.headers));
        if (refused !== undefined) {
          await send(reply, refused);
          return reply;
        }
        const gone = new AbortController();
        const onClose = () => gone.abort();
        reply.raw.on('close', onClose);
        const answer = await this.#answer(route, request, caller, gone.signal);
        // The end of an answer is no end of the question.
        reply.raw.off('close', onClose);
        await send(reply, answer);
        return reply;
      },
    });
  }

  /** Before the body is read. */
  async #refusedAtTheDoor(route: Route, request: FastifyRequest): Promise<Answer | undefined> {
    const { headers, method } = request;
    const address = addressOf(request);
    const isLocalRequest = isLocal(address, headers);
    const isHeard = !isLocalRequest && !isSecure(request) && this.#options.lanPlaintext !== true;
    if (isHeard && route.isPlaintextAllowed !== true) {
      return refusal('TLS_REQUIRED', tlsRequired(this.tlsPort));
    }
    if (isCrossSite(method, headers)) {
      return refusal('CROSS_SITE', 'pages of other sites may not ask this');
    }
    const caller = await this.#callerOf(request);
    const waitMs = this.#rates.take(caller, address);
    if (waitMs !== undefined) {
      this.#counts.limited += 1;
      const notes = { retryAfterS: waitMs / 1000 };
      return refusal('RATE_LIMITED', 'too many requests; see Retry-After', notes);
    }
    return denial(route, caller, isLocalRequest);
  }

  async #callerOf(request: FastifyRequest): Promise<Caller> {
    const { headers } = request;
    const { authenticate } = this.#options;
    const key = keyOf(headers);
    // A key that does not hold is no reason to look at the cookie: whoever sends one means it.
    if (key !== undefined) return (await authenticate?.key(key)) ?? nobody;
    const cookie = sessionCookie(headers, isSecure(request));
    return (cookie && authenticate?.session?.(cookie)) || nobody;
  }

  async #answer(route: Route, request: FastifyRequest, caller: Caller, signal: AbortSignal): Promise<Answer> {
    const input: Record<'params' | 'query' | 'body', unknown> = {
      params: request.params,
      query: request.query,
      body: undefined,
    };
    // `/alarms//acknowledge` has the form of the path, and names nothing.
    if (Object.values(request.params as object).includes('')) {
      return refusal('NOT_FOUND', 'a name in the path is empty');
    }
    const bytes = request.body as Buffer | undefined;
    if (route.body !== undefined && bytes !== undefined && bytes.length > 0) {
      const refused = refusedContent(route, request);
      if (refused !== undefined) return refused;
      input.body = route.bodyFormat === 'text' ? parseText(bytes) : parseJson(bytes);
    }
    for (const part of ['params', 'query', 'body'] as const) {
      const schema = route[part];
      const checked = schema === undefined ? { value: undefined } : checkInput(schema, part, input[part]);
      if ('refused' in checked) return checked.refused;
      input[part] = checked.value;
    }
    const { headers } = request;
    const address = addressOf(request);
    const asked: RouteRequest = { ...input, caller, address, isSecure: isSecure(request), headers, signal };
    const answer = await route.handle(asked);
    const { audited = {} } = answer;
    if (route.audit !== undefined && answer.status < 400 && audited !== 'nothing') {
      const { target = Object.values(request.params as object).join('/'), detail } = audited;
      const fact = { actor: actorOf(asked), action: route.audit, target, address };
      await this.#options.audit?.record(detail === undefined ? fact : { ...fact, detail });
    }
    return answer;
  }
}

const nobody: Caller = { kind: 'anyone' };

/** An IPv4 address as such, also where it reached a socket that takes IPv6 as well. */
function addressOf({ ip }: FastifyRequest): string {
  return ip.replace(/^::ffff:(?=[\d.]+$)/, '');
}

function tlsRequired(httpsPort: number | undefined): string {
  const instead = httpsPort === undefined ? '' : `; ask https on port ${httpsPort}`;
  return `without TLS this is answered to this machine alone${instead}`;
}

function isSecure({ raw }: FastifyRequest): boolean {
  return (raw.socket as Partial<TLSSocket>).encrypted === true;
}

/** A body that is not what the route reads: told by its headers. */
function refusedContent({ bodyFormat = 'json' }: Route, { headers }: FastifyRequest): Answer | undefined {
  const encoding = headers['content-encoding'] ?? 'identity';
  if (encoding.toLowerCase() !== 'identity') {
    return refusal('CONTENT_TYPE_INVALID', 'content-encoding: expected none', { expected: 'identity' });
  }
  const expected = bodyFormat === 'json' ? 'application/json' : 'text/plain';
  const [type = ''] = (headers['content-type'] ?? '').split(';');
  if (type.trim().toLowerCase() === expected) return undefined;
  return refusal('CONTENT_TYPE_INVALID', `content-type: expected ${expected}`, { expected });
}

async function send(reply: FastifyReply, { status, body, headers = {} }: Answer): Promise<void> {
  // A stream ends with its connection, also one that nobody reads (HEAD).
  if (body instanceof Readable) reply.raw.once('close', () => body.destroy());
  for (const [name, value] of Object.entries(headers)) reply.header(name, value);
  await reply.code(status).send(body);
}
