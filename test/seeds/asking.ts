// Sends the documents' requests to a gateway of the test: the real curl in a real shell, or the bytes of a request.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import * as v from 'valibot';
import { influxdbRoutes } from '../../src/api/routes/influxdb.ts';
import { telemetryRoutes } from '../../src/api/routes/telemetry.ts';
import { telemetryStatusRoutes } from '../../src/api/routes/telemetry-status.ts';
import type { Gateway } from '../../src/gateway.ts';
import { askRaw } from '../support/api.ts';

const run = promisify(execFile);

// biome-ignore lint/suspicious/noExplicitAny: an answer's body is looked into
export type Told = { readonly status: number; readonly body: any };

const parts = {} as Parameters<typeof telemetryRoutes>[0];
/** Literal paths first, as the server has it. */
const described = [
  ...telemetryStatusRoutes({} as Parameters<typeof telemetryStatusRoutes>[0]),
  ...telemetryRoutes(parts),
  ...influxdbRoutes(parts),
];

/** The answer, if it is as the OpenAPI document says. */
function asDescribed(method: string, path: string, told: Told): Told {
  const found = described.find(
    (route) =>
      route.method === method && new RegExp(`^${route.path.replaceAll(/\{\w+\}/g, '[^/]+')}$`).test(path),
  );
  const form = found?.answers[told.status];
  if (typeof form === 'object' && form.schema !== undefined) v.parse(form.schema, told.body);
  return told;
}

/** @param key added where the document sends none and the gateway wants one */
export async function curl(
  gateway: Gateway,
  line: string,
  changes: Record<string, string> = {},
  key?: string,
): Promise<Told> {
  let command = line
    .replace('http://localhost:5000', `http://127.0.0.1:${gateway.ports.http}`)
    .replace(/^curl /, "curl -s -w '\\n%{http_code}' ");
  for (const [from, to] of Object.entries(changes)) command = command.replaceAll(from, to);
  if (key !== undefined) command += ` -H "X-API-Key: ${key}"`;
  const { stdout } = await run('bash', ['-c', command]);
  const end = stdout.lastIndexOf('\n');
  const [, method = 'GET'] = /-X (\w+)/.exec(line) ?? [];
  const [, path = ''] = /localhost:5000([^?"\s]+)/.exec(line) ?? [];
  const told = { status: Number(stdout.slice(end + 1)), body: JSON.parse(stdout.slice(0, end)) };
  return asDescribed(method, path, told);
}

/** A request as an `http` block of a document has it; what HTTP/1.1 wants besides is added. */
export async function send(
  gateway: Gateway,
  block: string,
  changes: Record<string, string> = {},
  key?: string,
): Promise<Told> {
  let text = block;
  for (const [from, to] of Object.entries(changes)) text = text.replaceAll(from, to);
  const [head = '', ...rest] = text.split('\n\n');
  const body = rest.join('\n\n');
  const [line = '', ...headers] = head.trimEnd().split('\n');
  const all = [
    `${line} HTTP/1.1`,
    'Host: 127.0.0.1',
    'Connection: close',
    ...headers,
    ...(key === undefined ? [] : [`X-API-Key: ${key}`]),
    ...(body === '' ? [] : [`Content-Length: ${Buffer.byteLength(body)}`]),
  ];
  const answer = await askRaw({ port: gateway.ports.http ?? 0 }, `${all.join('\r\n')}\r\n\r\n${body}`);
  const [, status = ''] = /^HTTP\/1\.1 (\d{3})/.exec(answer) ?? [];
  const [method = '', path = ''] = line.split(/[ ?]/);
  const found = JSON.parse(answer.slice(answer.indexOf('{'), answer.lastIndexOf('}') + 1));
  return asDescribed(method, path, { status: Number(status), body: found });
}

/** The API token of an administrator. */
export async function adminOf(gateway: Gateway): Promise<string> {
  const call = async (name: string, args: Record<string, unknown>) =>
    await gateway.operations.get(name)?.(args);
  await call('users.add', { name: 'anna', role: 'admin', password: 'correct horse battery' });
  return ((await call('users.token_add', { name: 'anna', label: 'test' })) as { token: string }).token;
}
