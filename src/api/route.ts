// A route of the HTTP API as plain data: who may ask it, what it takes and what it answers. One description serves
// the server (api.ts checks access and the input before `handle` runs) and the OpenAPI document. Promises: a handler
// sees only input its schemas took, and only callers its access names. Examples are metadata of the schemas
// (`v.examples`), so that the document shows them and a test can try them.

import assert from 'node:assert/strict';
import type { IncomingHttpHeaders } from 'node:http';
import type * as v from 'valibot';

export type Role = 'device' | 'service' | 'viewer' | 'admin';

/** `admin` may do what a `viewer` may. A device asking about another than itself is the handler's to refuse. */
export type Access = 'anyone' | readonly Role[];

export type Caller =
  | { readonly kind: 'anyone' }
  /** The key of an active device. */
  | { readonly kind: 'device'; readonly deviceId: string }
  /** The key of an account of `devices add --service`: reads every device. */
  | { readonly kind: 'service'; readonly deviceId: string }
  /** A session, or an API token of the user. */
  | { readonly kind: 'user'; readonly name: string; readonly role: 'admin' | 'viewer' };

export interface RouteRequest<Params = unknown, Query = unknown, Body = unknown> {
  readonly params: Params;
  readonly query: Query;
  readonly body: Body;
  readonly caller: Caller;
  /** IP address of the other end. */
  readonly address: string;
  /** Over TLS. */
  readonly isSecure: boolean;
  readonly headers: IncomingHttpHeaders;
  /** Aborted when the client has gone before it was answered. */
  readonly signal: AbortSignal;
}

export interface Answer {
  readonly status: number;
  /** A value is sent as JSON; with a `content-type` of its own text and bytes are sent as they are; a stream as it comes. */
  readonly body?: unknown;
  /** Several of one name (`set-cookie`) as a list. */
  readonly headers?: Readonly<Record<string, string | readonly string[]>>;
  /** For the audit log of a route with `audit`: what was changed, when the path does not say it, and how. */
  readonly audited?:
    | { readonly target?: string; readonly detail?: Readonly<Record<string, unknown>> }
    | 'nothing';
}

export interface AnswerForm {
  readonly description: string;
  readonly schema?: v.GenericSchema;
  /** Default `application/json`. */
  readonly contentType?: string;
}

export type Method = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';

interface RouteForm {
  readonly method: Method;
  /** As OpenAPI writes it: `/api/v1/telemetry/{device_id}`. */
  readonly path: string;
  /** The heading in the document: `alarms`. */
  readonly tag: string;
  /** One line. */
  readonly summary: string;
  readonly description?: string;
  readonly access: Access;
  /** Also without TLS from other machines; for what any visitor of the house may see or do. */
  readonly isPlaintextAllowed?: boolean;
  /** From this machine also without a key; for what local programs read (Prometheus). */
  readonly isLoopbackOpen?: boolean;
  /** Default 64 KiB. */
  readonly bodyBytesMax?: number;
  /** `text`: the schema sees the body as it came. */
  readonly bodyFormat?: 'json' | 'text';
  /** The action an answer below 400 is audited as: `device.rotate`. Every route that changes something has one. */
  readonly audit?: string;
  /** Answers of the route itself; what the server may answer to any (400, 401, 403, 429 …) is added by it. */
  readonly answers: Readonly<Record<number, string | AnswerForm>>;
}

export interface Route extends RouteForm {
  readonly params?: v.GenericSchema;
  readonly query?: v.GenericSchema;
  readonly body?: v.GenericSchema;
  handle(request: RouteRequest): Answer | Promise<Answer>;
}

interface RouteDefinition<
  Params extends v.GenericSchema,
  Query extends v.GenericSchema,
  Body extends v.GenericSchema,
> extends RouteForm {
  /** An object schema with exactly the names of the path. */
  readonly params?: Params;
  /** An object schema; a parameter given twice is a list. */
  readonly query?: Query;
  readonly body?: Body;
  handle(
    request: RouteRequest<v.InferOutput<Params>, v.InferOutput<Query>, v.InferOutput<Body>>,
  ): Answer | Promise<Answer>;
}

type Nothing = v.UndefinedSchema<undefined>;

/** Input without a schema is not looked at: the handler sees undefined. */
export function route<
  Params extends v.GenericSchema = Nothing,
  Query extends v.GenericSchema = Nothing,
  Body extends v.GenericSchema = Nothing,
>(definition: RouteDefinition<Params, Query, Body>): Route {
  const { method, path, params, body, access } = definition;
  const named = [...path.matchAll(/\{([a-z_]+)\}/g)].map(([, name]) => name).sort();
  const taken = Object.keys((params as { entries?: object } | undefined)?.entries ?? {}).sort();
  assert.deepEqual(taken, named, `BUG: ${method} ${path} takes other parameters than its path names`);
  assert(body === undefined || method !== 'GET', `BUG: ${method} ${path} has a body`);
  assert(access === 'anyone' || access.length > 0, `BUG: nobody may ask ${method} ${path}`);
  return definition;
}

/** The caller as the audit log names it. */
export function actorOf({ caller, address }: Pick<RouteRequest, 'caller' | 'address'>): string {
  if (caller.kind === 'anyone') return `anyone@${address}`;
  return `${caller.kind}:${caller.kind === 'user' ? caller.name : caller.deviceId}`;
}
