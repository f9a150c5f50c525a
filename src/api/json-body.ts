// The JSON a client sends, before any schema sees it. Promises: the bytes are UTF-8 and one JSON value, nested no
// deeper than the bound, without the key that would reach an object's prototype. How long it may be is the server's
// to bound.

import { GatewayError } from '../platform/errors.ts';

/** The deepest body of this API is a list of points with fields: 4. */
const depthMax = 16;

function invalid(message: string, cause?: unknown): GatewayError {
  return new GatewayError('BODY_INVALID', message, { cause });
}

/** Before it is parsed: what is nested deeply costs a parser its stack, and whoever walks the value theirs. */
function checkDepth(text: string): void {
  let depth = 0;
  let isText = false;
  for (let at = 0; at < text.length; at += 1) {
    const character = text[at];
    if (isText) {
      if (character === '\\') at += 1;
      else if (character === '"') isText = false;
    } else if (character === '"') isText = true;
    else if (character === '{' || character === '[') {
      depth += 1;
      if (depth > depthMax) throw invalid(`the body is nested deeper than ${depthMax} levels`);
    } else if (character === '}' || character === ']') depth -= 1;
  }
}

/** @throws GatewayError `BODY_INVALID` */
export function parseText(bytes: Buffer): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(bytes);
  } catch (error) {
    throw invalid('the body is not UTF-8', error);
  }
}

/** @throws GatewayError `BODY_INVALID` */
export function parseJson(bytes: Buffer): unknown {
  const text = parseText(bytes);
  checkDepth(text);
  try {
    return JSON.parse(text, (key, value: unknown) => {
      if (key === '__proto__') throw invalid('the body has a key __proto__');
      return value;
    });
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    // V8's words quote the body, which may hold a secret.
    throw invalid('the body is not JSON', error);
  }
}
