// Whether bytes are the UTF-8 that MQTT allows [MQTT-1.5.3-1, -2; 1.5.4 of version 5]: well formed, no surrogates,
// no U+0000. `identifier` also refuses what the specification lets a server refuse: control characters and
// non-characters, which have no place in topics, client ids and user names.

export function isIdentifierText(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) {
    const byte = bytes[at] as number;
    if (byte >= 0x80) return isText(bytes, at, end, true);
    if (byte < 0x20 || byte === 0x7f) return false;
  }
  return true;
}

/** Free text (reason strings, user properties): control characters other than U+0000 are fine. */
export function isFreeText(bytes: Buffer, start: number, end: number): boolean {
  return isText(bytes, start, end, false);
}

function isText(bytes: Buffer, start: number, end: number, identifier: boolean): boolean {
  let at = start;
  while (at < end) {
    const first = bytes[at] as number;
    if (first < 0x80) {
      if (first === 0 || (identifier && (first < 0x20 || first === 0x7f))) return false;
      at += 1;
      continue;
    }
    const length = sequenceLength(first);
    if (length === 0 || at + length > end) return false;
    let code = first & (0x7f >> length);
    for (let next = at + 1; next < at + length; next += 1) {
      const byte = bytes[next] as number;
      if ((byte & 0xc0) !== 0x80) return false;
      code = (code << 6) | (byte & 0x3f);
    }
    if (code < (leastCode[length] as number) || code > 0x10ffff) return false;
    if (code >= 0xd800 && code <= 0xdfff) return false;
    if (identifier && (code < 0xa0 || isNonCharacter(code))) return false;
    at += length;
  }
  return true;
}

/** Smallest code point that needs a sequence of this length: anything below is an overlong form. */
const leastCode = [0, 0, 0x80, 0x800, 0x10000];

function sequenceLength(first: number): number {
  if (first >= 0xc2 && first <= 0xdf) return 2;
  if (first >= 0xe0 && first <= 0xef) return 3;
  if (first >= 0xf0 && first <= 0xf4) return 4;
  return 0;
}

function isNonCharacter(code: number): boolean {
  return (code & 0xfffe) === 0xfffe || (code >= 0xfdd0 && code <= 0xfdef);
}
