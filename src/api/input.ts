// What a client sent, held against the schema of its route. Promises: the refusal names the one field that is wrong
// as the client wrote it, and what was expected of it. As in config/schema.ts, the messages of schemas say what is
// expected: `v.string('text of 1 to 64 characters')`.

import * as v from 'valibot';
import { refusal } from './refusal.ts';
import type { Answer } from './route.ts';

const codes = { params: 'PARAMETER_INVALID', query: 'QUERY_INVALID', body: 'BODY_INVALID' } as const;

type Part = keyof typeof codes;

type Entries = Readonly<Record<string, v.GenericSchema>>;

function entriesOf(schema: v.GenericSchema | undefined): Entries | undefined {
  const { entries, wrapped } = (schema ?? {}) as { entries?: Entries; wrapped?: v.GenericSchema };
  return wrapped === undefined ? entries : entriesOf(wrapped);
}

function expectedOf(schema: v.GenericSchema, issue: v.BaseIssue<unknown>): string {
  const keys = (issue.path ?? []).map(({ key }) => String(key));
  let holder: v.GenericSchema | undefined = schema;
  for (const key of keys.slice(0, -1)) holder = entriesOf(holder)?.[key];
  const entries = entriesOf(holder);
  const isOfKey = issue.kind === 'schema' && /object$/.test(issue.type) && keys.length > 0;
  if (isOfKey && issue.expected === 'never' && entries !== undefined) {
    return `no other field than ${Object.keys(entries).join(', ')}`;
  }
  // A field that is missing is reported by the object around it; what was expected of it, only the field knows.
  const missing = isOfKey && issue.received === 'undefined' ? entries?.[keys.at(-1) ?? ''] : undefined;
  const told = missing === undefined ? issue : (v.safeParse(missing, undefined).issues?.[0] ?? issue);
  return told.message.startsWith('Invalid ') ? (told.expected ?? 'something else') : told.message;
}

export type Checked = { readonly value: unknown } | { readonly refused: Answer };

export function checkInput(schema: v.GenericSchema, part: Part, given: unknown): Checked {
  const parsed = v.safeParse(schema, given, { abortEarly: true });
  if (parsed.success) return { value: parsed.output };
  const [issue] = parsed.issues;
  const field = v.getDotPath(issue);
  const expected = expectedOf(schema, issue);
  const message = `${field ?? `the ${part}`}: expected ${expected}`;
  return { refused: refusal(codes[part], message, field === null ? { expected } : { field, expected }) };
}
