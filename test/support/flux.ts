// Just enough Flux to run what the gateway asks, on points in memory, written from the language's specification and
// not from our scripts: an own lexer (so that a text which leaves its quotes is seen), tables with group keys, windows
// cut at the bounds of the range, refusals of the types each function refuses, annotated CSV as InfluxDB writes it.

import { parseTimestamp, timestampText } from '../../src/model/timestamp.ts';

export type FluxValue = number | boolean | string;

export interface FluxPoint {
  readonly measurement: string;
  readonly tags: ReadonlyMap<string, string>;
  readonly fields: ReadonlyMap<string, FluxValue>;
  readonly timeNs: bigint;
}

/** What InfluxDB answers with 400. */
export class FluxError extends Error {}

type Kind = 'name' | 'text' | 'number' | 'duration' | 'time' | 'mark';
interface Token {
  readonly kind: Kind;
  readonly text: string;
}

const escapes: Readonly<Record<string, string>> = { n: '\n', r: '\r', t: '\t', '"': '"', '\\': '\\', $: '$' };

export function lexFlux(script: string): Token[] {
  const tokens: Token[] = [];
  let at = 0;
  while (at < script.length) {
    const rest = script.slice(at);
    const space = /^(\s+|\/\/[^\n]*)/.exec(rest);
    if (space !== null) {
      at += space[0].length;
      continue;
    }
    if (rest[0] === '"') {
      let text = '';
      at += 1;
      for (; script[at] !== '"'; at += 1) {
        const char = script[at];
        if (char === undefined) throw new FluxError('string literal not terminated');
        if (char === '$' && script[at + 1] === '{') throw new FluxError('an expression in a text');
        if (char !== '\\') {
          text += char;
          continue;
        }
        at += 1;
        const byte = /^x([0-7][0-9a-f])/.exec(script.slice(at, at + 3))?.[1];
        if (byte !== undefined) {
          text += String.fromCharCode(Number.parseInt(byte, 16));
          at += 2;
          continue;
        }
        const meant = escapes[script[at] ?? ''];
        if (meant === undefined) throw new FluxError(`invalid escape \\${script[at]}`);
        text += meant;
      }
      at += 1;
      tokens.push({ kind: 'text', text });
      continue;
    }
    const forms: [Kind, RegExp][] = [
      ['time', /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z/],
      ['duration', /^(\d+(ns|us|ms|mo|s|m|h|d|w|y))+/],
      ['number', /^\d+(\.\d+)?/],
      ['name', /^[A-Za-z_]\w*/],
      ['mark', /^(\|>|=>|==|!=|[()[\]:,={}])/],
    ];
    const found = forms.flatMap(([kind, form]) => {
      const match = form.exec(rest);
      return match === null ? [] : [{ kind, text: match[0] }];
    })[0];
    if (found === undefined) throw new FluxError(`unexpected ${rest[0]}`);
    tokens.push(found);
    at += found.text.length;
  }
  return tokens;
}

type Predicate = (row: ReadonlyMap<string, FluxValue>) => boolean;
type Argument =
  | FluxValue
  | bigint
  | Predicate
  | readonly Argument[]
  | { readonly durationNs: bigint }
  | { readonly named: string };
interface Call {
  readonly name: string;
  readonly args: ReadonlyMap<string, Argument>;
}
export interface FluxStatement {
  readonly assigns: string | undefined;
  /** A variable, or the call it begins with. */
  readonly source: string | Call;
  readonly pipes: readonly Call[];
}

const unitNs: Readonly<Record<string, bigint>> = { ns: 1n, us: 1_000n, ms: 1_000_000n, s: 1_000_000_000n };

export function parseFlux(script: string): FluxStatement[] {
  const tokens = lexFlux(script);
  let at = 0;
  const peek = (offset = 0): string | undefined => {
    const token = tokens[at + offset];
    return token?.kind === 'mark' || token?.kind === 'name' ? token.text : undefined;
  };
  const next = (): Token => {
    const token = tokens[at];
    if (token === undefined) throw new FluxError('unexpected end of the script');
    at += 1;
    return token;
  };
  const expectMark = (text: string): void => {
    const token = next();
    if (token.kind !== 'mark' || token.text !== text)
      throw new FluxError(`expected ${text}, got ${token.text}`);
  };
  const name = (): string => {
    const token = next();
    if (token.kind !== 'name') throw new FluxError(`expected a name, got ${token.text}`);
    return token.text;
  };

  function comparison(variable: string): Predicate {
    if (peek() === '(') {
      expectMark('(');
      const inner = either(variable);
      expectMark(')');
      return inner;
    }
    if (name() !== variable) throw new FluxError('undefined identifier');
    expectMark('[');
    const column = next();
    expectMark(']');
    expectMark('==');
    const value = next();
    if (column.kind !== 'text' || value.kind !== 'text') throw new FluxError('expected a text');
    return (row) => row.get(column.text) === value.text;
  }
  function both(variable: string): Predicate {
    let left = comparison(variable);
    while (peek() === 'and') {
      next();
      const [one, other] = [left, comparison(variable)];
      left = (row) => one(row) && other(row);
    }
    return left;
  }
  function either(variable: string): Predicate {
    let left = both(variable);
    while (peek() === 'or') {
      next();
      const [one, other] = [left, both(variable)];
      left = (row) => one(row) || other(row);
    }
    return left;
  }
  function argument(): Argument {
    if (peek() === '[') {
      expectMark('[');
      const items: Argument[] = [];
      while (peek() !== ']') {
        items.push(argument());
        if (peek() === ',') next();
      }
      expectMark(']');
      return items;
    }
    if (peek() === '(') {
      expectMark('(');
      const variable = name();
      expectMark(')');
      expectMark('=>');
      return either(variable);
    }
    const token = next();
    switch (token.kind) {
      case 'text':
        return token.text;
      case 'number':
        return Number(token.text);
      case 'time':
        return parseTimestamp(token.text) ?? 0n;
      case 'duration': {
        const [, count = '', unit = ''] = /^(\d+)(ns|us|ms|s)$/.exec(token.text) ?? [];
        const lengthNs = unitNs[unit];
        if (lengthNs === undefined) throw new FluxError(`a duration this fake does not know: ${token.text}`);
        return { durationNs: BigInt(count) * lengthNs };
      }
      case 'name':
        if (token.text === 'true' || token.text === 'false') return token.text === 'true';
        return { named: token.text };
      default:
        throw new FluxError(`unexpected ${token.text}`);
    }
  }
  function call(): Call {
    const called = name();
    const args = new Map<string, Argument>();
    expectMark('(');
    while (peek() !== ')') {
      const key = name();
      expectMark(':');
      args.set(key, argument());
      if (peek() === ',') next();
    }
    expectMark(')');
    return { name: called, args };
  }

  const statements: FluxStatement[] = [];
  while (at < tokens.length) {
    const assigns = peek(1) === '=' ? name() : undefined;
    if (assigns !== undefined) expectMark('=');
    const source = peek(1) === '(' ? call() : name();
    const pipes: Call[] = [];
    while (peek() === '|>') {
      next();
      pipes.push(call());
    }
    statements.push({ assigns, source, pipes });
  }
  return statements;
}

type RowValue = FluxValue | bigint;
interface Table {
  readonly key: ReadonlyMap<string, RowValue>;
  readonly rows: readonly ReadonlyMap<string, RowValue>[];
}

const timeOf = (row: ReadonlyMap<string, RowValue>): bigint => row.get('_time') as bigint;

function tablesOf(points: Iterable<FluxPoint>): Table[] {
  const tables = new Map<string, { key: Map<string, RowValue>; rows: Map<string, RowValue>[] }>();
  for (const { measurement, tags, fields, timeNs } of points) {
    for (const [field, value] of fields) {
      const key = new Map<string, RowValue>([['_measurement', measurement], ['_field', field], ...tags]);
      const id = JSON.stringify([[...key].sort(), typeof value]);
      const table = tables.get(id) ?? { key, rows: [] };
      tables.set(id, table);
      table.rows.push(new Map<string, RowValue>([...key, ['_time', timeNs], ['_value', value]]));
    }
  }
  const sorted = [...tables].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, table]) => table);
  for (const { rows } of sorted) rows.sort((a, b) => (timeOf(a) < timeOf(b) ? -1 : 1));
  return sorted;
}

function regroup(rows: readonly ReadonlyMap<string, RowValue>[], columns: readonly string[]): Table[] {
  const tables = new Map<string, { key: Map<string, RowValue>; rows: ReadonlyMap<string, RowValue>[] }>();
  for (const row of rows) {
    const key = new Map(
      columns.flatMap((name) => (row.has(name) ? [[name, row.get(name) as RowValue]] : [])),
    );
    const id = [...key].map(([name, value]) => `${name}=${String(value)}`).join('\0');
    const table = tables.get(id) ?? { key, rows: [] };
    tables.set(id, table);
    const [first] = table.rows;
    if (first !== undefined && typeof first.get('_value') !== typeof row.get('_value')) {
      throw new FluxError('schema collision: cannot group different types together');
    }
    table.rows.push(row);
  }
  return [...tables.values()];
}

function summed(fn: string, values: readonly FluxValue[]): FluxValue | bigint {
  const [first] = values;
  if (fn === 'first' && first !== undefined) return first;
  if (fn === 'last' && first !== undefined) return values.at(-1) as FluxValue;
  if (fn === 'count') return BigInt(values.length);
  const numbers = values.map((value) => {
    if (typeof value !== 'number') throw new FluxError(`unsupported input type for ${fn}: ${typeof value}`);
    return value;
  });
  if (fn === 'sum') return numbers.reduce((sum, value) => sum + value, 0);
  if (fn === 'min') return Math.min(...numbers);
  if (fn === 'max') return Math.max(...numbers);
  throw new FluxError(`undefined identifier ${fn}`);
}

function windows({ key, rows }: Table, args: Call['args']): Table {
  const every = args.get('every') as { durationNs: bigint };
  const fn = (args.get('fn') as { named: string }).named;
  if (args.get('createEmpty') !== false || args.get('timeSrc') !== '_start')
    throw new FluxError('unknown form');
  const byWindow = new Map<bigint, ReadonlyMap<string, RowValue>[]>();
  for (const row of rows) {
    const startNs = timeOf(row) - (timeOf(row) % every.durationNs);
    byWindow.set(startNs, [...(byWindow.get(startNs) ?? []), row]);
  }
  const made = [...byWindow].map(([startNs, some]) => {
    const [first] = some;
    const fromNs = first?.get('_start') as bigint;
    const value = summed(
      fn,
      some.map((row) => row.get('_value') as FluxValue),
    );
    // The first one begins where the range does.
    const isCut = startNs < fromNs;
    return new Map<string, RowValue>([...key, ['_time', isCut ? fromNs : startNs], ['_value', value]]);
  });
  return { key, rows: made };
}

function run(call: Call, tables: readonly Table[]): Table[] {
  const { name, args } = call;
  const text = (key: string) => args.get(key);
  switch (name) {
    case 'range': {
      const [start, stop] = [text('start'), text('stop')];
      if (typeof start !== 'bigint' || typeof stop !== 'bigint') throw new FluxError('range: expected times');
      if (start >= stop) throw new FluxError('cannot query an empty range');
      const bounds: [string, RowValue][] = [
        ['_start', start],
        ['_stop', stop],
      ];
      return tables.map(({ key, rows }) => ({
        key: new Map([...key, ...bounds]),
        rows: rows
          .filter((row) => timeOf(row) >= start && timeOf(row) < stop)
          .map((row) => new Map([...row, ...bounds])),
      }));
    }
    case 'filter': {
      const fn = text('fn') as Predicate;
      return tables.map(({ key, rows }) => ({
        key,
        rows: rows.filter((row) => fn(row as ReadonlyMap<string, FluxValue>)),
      }));
    }
    case 'sort': {
      const direction = text('desc') === true ? -1 : 1;
      return tables.map(({ key, rows }) => ({
        key,
        rows: [...rows].sort((a, b) => (timeOf(a) < timeOf(b) ? -direction : direction)),
      }));
    }
    case 'limit':
      return tables.map(({ key, rows }) => ({ key, rows: rows.slice(0, text('n') as number) }));
    case 'last':
      return tables.map(({ key, rows }) => ({ key, rows: rows.slice(-1) }));
    case 'drop': {
      const gone = new Set(text('columns') as string[]);
      const without = (row: ReadonlyMap<string, RowValue>) =>
        new Map([...row].filter(([key]) => !gone.has(key)));
      return tables.map(({ key, rows }) => ({ key: without(key), rows: rows.map(without) }));
    }
    case 'toFloat':
      return tables.map(({ key, rows }) => ({
        key,
        rows: rows.map((row) => {
          const value = Number(row.get('_value'));
          if (Number.isNaN(value)) throw new FluxError('cannot parse as float');
          return new Map([...row, ['_value', value] as const]);
        }),
      }));
    case 'group':
      return regroup(
        tables.flatMap(({ rows }) => [...rows]),
        text('columns') as string[],
      );
    case 'aggregateWindow':
      return tables.map((table) => windows(table, args));
    default:
      throw new FluxError(`undefined identifier ${name}`);
  }
}

export interface FluxResult {
  readonly name: string;
  readonly tables: readonly Table[];
}

/** @throws FluxError */
export function runFlux(
  script: string,
  buckets: ReadonlyMap<string, () => Iterable<FluxPoint>>,
): FluxResult[] {
  const variables = new Map<string, readonly Table[]>();
  const results: FluxResult[] = [];
  for (const { assigns, source, pipes } of parseFlux(script)) {
    let tables: readonly Table[];
    if (typeof source === 'string') {
      const known = variables.get(source);
      if (known === undefined) throw new FluxError(`undefined identifier ${source}`);
      tables = known;
    } else {
      const bucket = source.args.get('bucket');
      const points = typeof bucket === 'string' ? buckets.get(bucket) : undefined;
      if (source.name !== 'from' || points === undefined)
        throw new FluxError(`could not find bucket ${String(bucket)}`);
      tables = tablesOf(points());
    }
    let yielded: string | undefined;
    for (const pipe of pipes) {
      if (pipe.name === 'yield') yielded = String(pipe.args.get('name'));
      else tables = run(pipe, tables);
    }
    if (assigns !== undefined) variables.set(assigns, tables);
    else results.push({ name: yielded ?? '_result', tables: tables.filter(({ rows }) => rows.length > 0) });
  }
  return results;
}

function typeName(column: string, value: RowValue): string {
  if (column.startsWith('_') && typeof value === 'bigint' && column !== '_value') return 'dateTime:RFC3339';
  if (typeof value === 'bigint') return 'long';
  if (typeof value === 'number') return 'double';
  return typeof value;
}

function cellText(column: string, value: RowValue): string {
  const isTime = typeof value === 'bigint' && column.startsWith('_') && column !== '_value';
  const text = isTime ? timestampText(value) : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Annotated CSV, https://docs.influxdata.com/influxdb/v2/reference/syntax/annotated-csv/ */
export function annotatedCsv(results: readonly FluxResult[]): string {
  let csv = '';
  for (const { name, tables } of results) {
    let header = '';
    for (const [index, { key, rows }] of tables.entries()) {
      const columns = [...(rows[0]?.keys() ?? [])].sort();
      const types = columns.map((column) => typeName(column, rows[0]?.get(column) ?? ''));
      const groups = columns.map((column) => String(key.has(column)));
      const own = [
        `#datatype,string,long,${types.join(',')}`,
        `#group,false,false,${groups.join(',')}`,
        `#default,${name}${','.repeat(columns.length + 1)}`,
        `,result,table,${columns.map((column) => cellText('', column)).join(',')}`,
      ].join('\r\n');
      if (own !== header) csv += `${csv === '' ? '' : '\r\n'}${own}\r\n`;
      header = own;
      for (const row of rows) {
        csv += `,,${index},${columns.map((column) => cellText(column, row.get(column) ?? '')).join(',')}\r\n`;
      }
    }
    header = '';
  }
  return csv === '' ? '\r\n' : `${csv}\r\n`;
}

/** As a failure half-way is told: a table of its own behind what was sent. */
export function errorCsv(message: string): string {
  return `\r\n#datatype,string,string\r\n#group,true,true\r\n#default,,\r\n,error,reference\r\n,${cellText('', message)},897\r\n\r\n`;
}
