// The fake InfluxDB with what its users may ask beside writing: Flux queries and deletes, checked as strictly as writes,
// and scripted to fail in the ways a query fails.

import type { IncomingMessage, ServerResponse } from 'node:http';
import { gzipSync } from 'node:zlib';
import { onTestFinished } from 'vitest';
import { parseLine } from '../../src/model/line-protocol.ts';
import { parseTimestamp } from '../../src/model/timestamp.ts';
import { FakeInflux } from '../../src/simulator/influx.ts';
import { annotatedCsv, errorCsv, FluxError, type FluxPoint, lexFlux, runFlux } from './flux.ts';

export const queryToken = 'query-token';

type Scripted =
  /** Accepted, never answered. */
  | 'hang'
  /** Some of the answer, then nothing more. */
  | 'stall'
  /** A good beginning, then a table that tells of a failure. */
  | 'error-table'
  | { readonly status: number; readonly message: string };

export interface FluxInflux {
  readonly influx: FakeInflux;
  readonly url: string;
  /** Scripts that arrived. */
  readonly queries: readonly string[];
  /** Bodies of deletes that were carried out. */
  readonly deletes: readonly Readonly<Record<string, string>>[];
  /** Connections of queries that the other side ended before the answer was complete. */
  readonly gone: () => number;
  script(path: 'query' | 'delete', answers: readonly Scripted[]): void;
  /** Writes line protocol, nanoseconds. */
  write(lines: string): Promise<void>;
}

export async function startFluxInflux(): Promise<FluxInflux> {
  const queries: string[] = [];
  const deletes: Readonly<Record<string, string>>[] = [];
  const scripts: Record<'query' | 'delete', Scripted[]> = { query: [], delete: [] };
  let gone = 0;

  function points(): FluxPoint[] {
    return [...influx.points()].map(({ series, timeNs, fields }) => {
      const { measurement, tags } = parseLine(`${series} f=1`);
      return { measurement, tags, fields, timeNs };
    });
  }

  /** True when the answer has been given, or never will be. */
  function refused(request: IncomingMessage, response: ServerResponse, what: 'query' | 'delete'): boolean {
    const url = new URL(request.url ?? '/', 'http://localhost');
    const scripted = scripts[what].shift();
    response.on('close', () => {
      if (!response.writableFinished) gone += 1;
    });
    if (scripted === 'hang') return true;
    if (scripted === 'stall') {
      response.writeHead(200, { 'content-type': 'text/csv; charset=utf-8' });
      response.write('#datatype,string,long,dateTime:RFC3339');
      return true;
    }
    if (scripted === 'error-table') {
      response.writeHead(200, { 'content-type': 'text/csv; charset=utf-8' });
      response.end(
        `${annotatedCsv(runFlux(queries.at(-1) ?? '', new Map([['telemetry', points]])))}${errorCsv('out of memory')}`,
      );
      return true;
    }
    const fault = scripted ?? faultOf(request, url);
    if (fault === undefined) return false;
    fail(response, fault.status, fault.message);
    return true;
  }

  async function query(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = JSON.parse(await textOf(request)) as Record<string, unknown>;
    queries.push(String(body.query));
    if (refused(request, response, 'query')) return;
    if (body.type !== 'flux') return fail(response, 400, 'unknown query type');
    try {
      const csv = Buffer.from(annotatedCsv(runFlux(String(body.query), new Map([['telemetry', points]]))));
      const isGzip = String(request.headers['accept-encoding']).includes('gzip');
      response.writeHead(200, {
        'content-type': 'text/csv; charset=utf-8',
        ...(isGzip && { 'content-encoding': 'gzip' }),
      });
      response.end(isGzip ? gzipSync(csv) : csv);
    } catch (error) {
      if (!(error instanceof FluxError)) throw error;
      fail(response, 400, `error: ${error.message}`);
    }
  }

  async function remove(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const body = JSON.parse(await textOf(request)) as Record<string, string>;
    if (refused(request, response, 'delete')) return;
    const [start, stop] = [parseTimestamp(body.start), parseTimestamp(body.stop)];
    const wanted = predicateOf(body.predicate ?? '');
    if (start === undefined || stop === undefined || wanted === undefined) {
      return fail(response, 400, 'invalid request; error parsing request json');
    }
    deletes.push(body);
    influx.remove(({ series, timeNs }) => {
      const { measurement, tags } = parseLine(`${series} f=1`);
      const isWanted = wanted.every(([key, value]) =>
        key === '_measurement' ? measurement === value : tags.get(key) === value,
      );
      // Both ends belong to it.
      return isWanted && timeNs >= start && timeNs <= stop;
    });
    response.writeHead(204).end();
  }

  const influx = await FakeInflux.start({
    token: queryToken,
    org: 'iotflow',
    bucket: 'telemetry',
    routes: new Map([
      ['/api/v2/query', query],
      ['/api/v2/delete', remove],
    ]),
  });
  onTestFinished(() => influx.close());
  return {
    influx,
    url: influx.url,
    queries,
    deletes,
    gone: () => gone,
    script: (path, answers) => {
      scripts[path] = [...answers];
    },
    write: async (lines) => {
      const response = await fetch(`${influx.url}/api/v2/write?org=iotflow&bucket=telemetry&precision=ns`, {
        method: 'POST',
        headers: { authorization: `Token ${queryToken}` },
        body: lines,
      });
      if (response.status !== 204) throw new Error(await response.text());
    },
  };
}

function faultOf(request: IncomingMessage, url: URL): { status: number; message: string } | undefined {
  if (request.headers.authorization !== `Token ${queryToken}`) {
    return { status: 401, message: 'unauthorized access' };
  }
  if (url.searchParams.get('org') !== 'iotflow') return { status: 404, message: 'organization not found' };
  if (request.method !== 'POST') return { status: 405, message: 'method not allowed' };
  if (!String(request.headers['content-type']).startsWith('application/json')) {
    return { status: 400, message: 'content type must be application/json' };
  }
  return undefined;
}

/** `key="value" AND …`, all there is in a predicate of a delete; undefined for anything else. */
function predicateOf(text: string): [string, string][] | undefined {
  const tokens = lexFlux(text.replaceAll('=', '=='));
  const found: [string, string][] = [];
  for (let at = 0; at < tokens.length; at += 4) {
    const [key, equals, value, and] = tokens.slice(at, at + 4);
    if (key?.kind !== 'name' || equals?.text !== '==' || value?.kind !== 'text') return undefined;
    if (and !== undefined && and.text !== 'AND') return undefined;
    found.push([key.text, value.text]);
  }
  return found.length > 0 ? found : undefined;
}

function fail(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { 'content-type': 'application/json; charset=utf-8' });
  response.end(JSON.stringify({ code: status === 401 ? 'unauthorized' : 'invalid', message }));
}

async function textOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}
