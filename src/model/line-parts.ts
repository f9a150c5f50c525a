// A line of line protocol taken apart where its fields are, and put together again. Promises: what is not changed
// stays as it was written, digit by digit; the time may be anything, also none or one without a date. Does not
// check what it does not need: `parseLine` does.

export interface LineField {
  readonly name: string;
  /** `name=`, as written. */
  readonly key: string;
  /** As written: `50`, `50i`, `"text"`, `true`. */
  readonly value: string;
}

export interface LineParts {
  readonly measurement: string;
  /** Measurement and tags, as written. */
  readonly series: string;
  readonly fields: readonly LineField[];
  /** From the space before the time on; empty when there is none. */
  readonly tail: string;
}

/** Undefined for what has no series or no field. */
export function takeApart(line: string): LineParts | undefined {
  const measurementEnd = endOf(line, 0, ', ');
  const seriesEnd = endOf(line, measurementEnd, ' ');
  if (measurementEnd === 0 || seriesEnd >= line.length) return undefined;
  const fields: LineField[] = [];
  let at = seriesEnd;
  while (line[at] === ' ') at += 1;
  for (;;) {
    const equals = endOf(line, at, '=, ');
    if (equals === at || line[equals] !== '=') return undefined;
    const end = line[equals + 1] === '"' ? endOfText(line, equals + 1) : endOf(line, equals + 1, ', ');
    if (end === undefined || end === equals + 1) return undefined;
    fields.push({
      name: unescaped(line.slice(at, equals)),
      key: line.slice(at, equals + 1),
      value: line.slice(equals + 1, end),
    });
    at = end + 1;
    if (line[end] === ',') continue;
    if (end < line.length && line[end] !== ' ') return undefined;
    const measurement = unescaped(line.slice(0, measurementEnd));
    return { measurement, series: line.slice(0, seriesEnd), fields, tail: line.slice(end) };
  }
}

/** The line without its line break. At least one field. */
export function putTogether({ series, fields, tail }: LineParts): string {
  return `${series} ${fields.map(({ key, value }) => key + value).join(',')}${tail}`;
}

/** The first unescaped one of the stops from `from` on, or the end of the line. */
function endOf(line: string, from: number, stops: string): number {
  let at = from;
  while (at < line.length && !stops.includes(line[at] ?? '')) at += line[at] === '\\' ? 2 : 1;
  return Math.min(at, line.length);
}

/** Behind the closing quote. */
function endOfText(line: string, quote: number): number | undefined {
  for (let at = quote + 1; at < line.length; at += line[at] === '\\' ? 2 : 1) {
    if (line[at] === '"') return at + 1;
  }
  return undefined;
}

function unescaped(text: string): string {
  return text.includes('\\') ? text.replace(/\\([,= \\"])/g, '$1') : text;
}
