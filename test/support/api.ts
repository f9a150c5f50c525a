// The HTTP API on a free loopback port, and a client that sends what it is told, headers and all.

import { request } from 'node:http';
import { connect } from 'node:net';
import { onTestFinished } from 'vitest';
import { Api, type ApiOptions } from '../../src/api/api.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';

export async function openApi(options: Partial<ApiOptions> = {}): Promise<Api> {
  const api = await Api.open({
    port: 0,
    health: () => ({ ok: true, reasons: [] }),
    metrics: () => [{ name: 'iotflow_up', help: 'Up.', type: 'gauge', samples: [{ value: 1 }] }],
    clock: systemClock(),
    log: createLog('silent'),
    ...options,
  });
  onTestFinished(() => api.close());
  return api;
}

export interface Reply {
  readonly status: number;
  readonly headers: NodeJS.Dict<string | string[]>;
  readonly body: string;
}

export function ask(
  { port }: { readonly port: number | undefined },
  path: string,
  method = 'GET',
  headers: Record<string, string> = {},
  body: string | Buffer = '',
  host = '127.0.0.1',
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    const sent = request({ host, port, path, method, headers }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (chunk: string) => {
        text += chunk;
        // Events have no end.
        if (response.headers['content-type'] !== 'text/event-stream') return;
        told();
        sent.destroy();
      });
      const told = () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: text });
      response.on('end', told);
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

export function askRaw(api: { readonly port: number | undefined }, bytes: string): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(api.port ?? 0, '127.0.0.1', () => socket.write(bytes));
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    socket.on('close', () => resolve(text));
    socket.on('error', reject);
  });
}
