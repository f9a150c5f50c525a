// A route asked as the server asks it, without the server: input held against its schemas, then the handler.

import * as v from 'valibot';
import { expect } from 'vitest';
import { refusal } from '../../../src/api/refusal.ts';
import type { Answer, Caller, Route } from '../../../src/api/route.ts';
import { errorCode } from '../../../src/platform/errors.ts';

export interface Question {
  readonly caller: Caller;
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: unknown;
}

// biome-ignore lint/suspicious/noExplicitAny: an answer's body is looked into
export type Told = { readonly status: number; readonly body: any; readonly headers: Answer['headers'] };

export async function ask(routes: readonly Route[], line: string, question: Question): Promise<Told> {
  const [method, path = ''] = line.split(' ');
  for (const route of routes) {
    const names = [...route.path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name ?? '');
    const values = new RegExp(`^${route.path.replace(/\{\w+\}/g, '([^/]+)')}$`).exec(path);
    if (route.method !== method || values === null) continue;
    const params = Object.fromEntries(names.map((name, index) => [name, values[index + 1]]));
    const answer = await answered(route, params, question);
    const form = route.answers[answer.status];
    // As the OpenAPI document says.
    if (typeof form === 'object' && form.schema !== undefined) v.parse(form.schema, answer.body);
    return { status: answer.status, body: answer.body, headers: answer.headers };
  }
  return expect.fail(`no route for ${line}`);
}

async function answered(
  route: Route,
  params: unknown,
  { caller, query = {}, body }: Question,
): Promise<Answer> {
  try {
    return await route.handle({
      params: route.params && v.parse(route.params, params),
      query: route.query && v.parse(route.query, query),
      body: route.body && v.parse(route.body, body),
      caller,
      address: '127.0.0.1',
      isSecure: false,
      headers: {},
      signal: new AbortController().signal,
    });
  } catch (error) {
    const code = errorCode(error);
    if (code === undefined) throw error;
    return refusal(code, error instanceof Error ? error.message : '');
  }
}
