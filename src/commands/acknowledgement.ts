// What a device answers to a command. Lenient: many nodes say no more than that they did it, with an empty payload or
// a bare word. Pure.

export interface Acknowledgement {
  /** Undefined where the node does not know ids. */
  readonly id: string | undefined;
  readonly isDone: boolean;
  readonly message: string | undefined;
}

const messageCharactersMax = 256;

const outcomes: ReadonlyMap<string, boolean> = new Map([
  ['ok', true],
  ['done', true],
  ['true', true],
  ['failed', false],
  ['error', false],
  ['false', false],
]);

function cut(text: string): string {
  return text.slice(0, messageCharactersMax);
}

/** `{"id", "status": "ok" | "failed", "message"?}`, or less. Undefined: it says nothing about how it went. */
export function readAcknowledgement(payload: Buffer): Acknowledgement | undefined {
  const text = payload.toString().trim();
  if (text === '') return { id: undefined, isDone: true, message: undefined };
  const value = parsed(text);
  if (Array.isArray(value)) return undefined;
  if (typeof value !== 'object' || value === null) {
    const isDone = outcomes.get(String(value).toLowerCase());
    return isDone === undefined ? undefined : { id: undefined, isDone, message: undefined };
  }
  const { id, status = 'ok', message } = value as Record<string, unknown>;
  const isDone = outcomes.get(String(status).toLowerCase());
  if (isDone === undefined || (id !== undefined && typeof id !== 'string')) return undefined;
  return { id, isDone, message: typeof message === 'string' ? cut(message) : undefined };
}

/** A bare word is no JSON and means itself. */
function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** As a record of what happened: an answer without words of its own becomes one that says them. */
export function acknowledgementPayload(payload: Buffer): Buffer {
  const known = readAcknowledgement(payload);
  if (known === undefined || payload.toString().trim().startsWith('{')) return payload;
  return Buffer.from(JSON.stringify({ status: known.isDone ? 'ok' : 'failed' }));
}
