// The routes as an OpenAPI 3.1 document, made of the same schemas that the input is held against: what it says is what
// is checked. What a schema checks in code alone (a sum, a relation of two fields) JSON Schema cannot say; there the
// document takes more than the server.

import { toJsonSchema } from '@valibot/to-json-schema';
import * as v from 'valibot';
import { type Route, route } from './route.ts';

type Tree = Readonly<Record<string, unknown>>;

const refusalSchema = v.object({
  error: v.object({
    code: v.pipe(v.string(), v.description('Stable, for machines'), v.examples(['BODY_INVALID'])),
    message: v.pipe(v.string(), v.description('One sentence for people')),
    field: v.optional(
      v.pipe(v.string(), v.description('What is wrong, as it was sent'), v.examples(['fields.t'])),
    ),
    expected: v.optional(v.string()),
  }),
});

function schemaOf(schema: v.GenericSchema, typeMode: 'input' | 'output'): Tree {
  const { $schema: _draft, ...rest } = toJsonSchema(schema, { typeMode, errorMode: 'ignore' });
  return rest as Tree;
}

/** Path and query: each entry of the object schema is a parameter. */
function parametersOf(schema: v.GenericSchema | undefined, place: 'path' | 'query'): Tree[] {
  if (schema === undefined) return [];
  const { properties = {}, required = [] } = schemaOf(schema, 'input') as {
    properties?: Readonly<Record<string, Tree>>;
    required?: readonly string[];
  };
  return Object.entries(properties).map(([name, form]) => {
    const { description, ...described } = form;
    return {
      name,
      in: place,
      required: place === 'path' || required.includes(name),
      ...(description !== undefined && { description }),
      schema: described,
    };
  });
}

/** What the server answers to any route, before or instead of its handler. */
function refusalsOf({ access, params, query, body, isPlaintextAllowed }: Route): Record<string, string> {
  return {
    ...((params ?? query ?? body) && { 400: 'What was sent is not as expected; `field` says where' }),
    ...(access !== 'anyone' && { 401: 'No valid key' }),
    ...((access !== 'anyone' || isPlaintextAllowed !== true) && {
      403: 'Not with this key, or not without TLS',
    }),
    ...(body && { 413: 'The body is too large', 415: 'The body is of another type' }),
    429: 'Too much from this caller or address; see Retry-After',
    500: 'A fault of the gateway; its log says more',
    503: 'Not now: the disk, or too much at once; see Retry-After',
  };
}

function answersOf(described: Route): Tree {
  const refusals = Object.entries(refusalsOf(described)).map(([status, description]) => [
    status,
    { description, content: { 'application/json': { schema: { $ref: '#/components/schemas/refusal' } } } },
  ]);
  const own = Object.entries(described.answers).map(([status, form]) => {
    const {
      description,
      schema,
      contentType = 'application/json',
    } = typeof form === 'string' ? { description: form } : form;
    const shown = schema === undefined ? {} : schemaOf(schema, 'output');
    const isRefusal = Number(status) >= 400 && schema === undefined;
    const content = isRefusal ? { $ref: '#/components/schemas/refusal' } : shown;
    if (Number(status) === 204) return [status, { description }];
    return [status, { description, content: { [contentType]: { schema: content } } }];
  });
  return Object.fromEntries([...refusals, ...own]) as Tree;
}

/** `POST /api/v1/alarms/{id}/acknowledge` → `post_alarms_id_acknowledge` */
function operationIdOf({ method, path }: Route): string {
  const words = path.replace('/api/v1', '').replaceAll(/[{}]/g, '').split(/\W+/).filter(Boolean);
  return [method.toLowerCase(), ...words].join('_');
}

function operationOf(described: Route): Tree {
  const { tag, summary, description, access, params, query, body, bodyFormat, isLoopbackOpen } = described;
  const parameters = [...parametersOf(params, 'path'), ...parametersOf(query, 'query')];
  const isOpen = access === 'anyone' || isLoopbackOpen === true;
  return {
    operationId: operationIdOf(described),
    tags: [tag],
    summary,
    ...(description !== undefined && { description }),
    ...(parameters.length > 0 && { parameters }),
    ...(body !== undefined && {
      requestBody: {
        required: !v.safeParse(body, undefined).success,
        content: {
          [bodyFormat === 'text' ? 'text/plain' : 'application/json']: { schema: schemaOf(body, 'input') },
        },
      },
    }),
    responses: answersOf(described),
    security: [...(isOpen ? [{}] : []), ...(access === 'anyone' ? [] : [{ key: [] }, { bearer: [] }])],
    'x-access': access,
  };
}

function openApiDocument(routes: readonly Route[], version: string): Tree {
  const paths: Record<string, Record<string, Tree>> = {};
  for (const described of routes) {
    const { path, method } = described;
    paths[path] = { ...paths[path], [method.toLowerCase()]: operationOf(described) };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'IoTFlow Edge', version, license: { name: 'MIT', identifier: 'MIT' } },
    servers: [{ url: '/' }],
    tags: [...new Set(routes.map(({ tag }) => tag))].map((name) => ({ name })),
    paths,
    components: {
      schemas: { refusal: schemaOf(refusalSchema, 'output') },
      securitySchemes: {
        key: { type: 'apiKey', in: 'header', name: 'X-API-Key' },
        bearer: { type: 'http', scheme: 'bearer' },
      },
    },
  };
}

/** Describes the others and itself; made when it is first asked for. */
export function openApiRoute(others: readonly Route[], version: string): Route {
  let made: Tree | undefined;
  const own = route({
    method: 'GET',
    path: '/api/v1/openapi.json',
    tag: 'gateway',
    summary: 'This document',
    access: 'anyone',
    isPlaintextAllowed: true,
    answers: { 200: 'OpenAPI 3.1' },
    handle: () => {
      made ??= openApiDocument([...others, own], version);
      return { status: 200, body: made };
    },
  });
  return own;
}
