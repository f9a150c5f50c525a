// A real InfluxDB storage engine: Debian's influxd 1.6, behind a small proxy that turns the v2 write path into the
// v1 one (1.8 does that itself). So "partial write: field type conflict" is said by who says it in the field.

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, request as httpRequest, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Daemon } from './daemon.ts';
import { commandPath } from './debian.ts';
import { freePort } from './free-port.ts';

/** With one database, the bucket of the v2 path. Stopped and removed when the test is over. */
export async function startInfluxDb1(database: string): Promise<InfluxDb1> {
  const server = await InfluxDb1.start(database);
  onTestFinished(() => server.stop());
  return server;
}

class InfluxDb1 {
  /** Where the v2 write API is. */
  readonly url: string;
  readonly #apiUrl: string;
  readonly #folder: string;
  readonly #daemon: Daemon;
  readonly #proxy: Server;
  #writes = 0;

  private constructor(parts: { url: string; apiUrl: string; folder: string; daemon: Daemon; proxy: Server }) {
    this.url = parts.url;
    this.#apiUrl = parts.apiUrl;
    this.#folder = parts.folder;
    this.#daemon = parts.daemon;
    this.#proxy = parts.proxy;
  }

  static async start(database: string): Promise<InfluxDb1> {
    const command = commandPath('influxd');
    if (command === undefined) throw new Error('needs Debian package influxdb');
    const folder = await mkdtemp(join(tmpdir(), 'iotflow-influxd-'));
    const port = await freePort();
    const config = join(folder, 'influxdb.conf');
    await writeFile(config, configText(folder, port, await freePort()));
    const apiUrl = `http://127.0.0.1:${port}`;
    const isReady = async (): Promise<boolean> => (await fetch(`${apiUrl}/ping`)).status === 204;
    const daemon = await Daemon.start(command, ['-config', config], isReady);
    const proxy = createServer();
    await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
    const address = proxy.address();
    const proxyPort = typeof address === 'object' && address !== null ? address.port : 0;
    const url = `http://127.0.0.1:${proxyPort}`;
    const server = new InfluxDb1({ url, apiUrl, folder, daemon, proxy });
    proxy.on('request', (request, response) => {
      const from = new URL(request.url ?? '/', url);
      if (from.pathname !== '/api/v2/write') return void response.writeHead(404).end();
      server.#writes += 1;
      const query = new URLSearchParams({ db: from.searchParams.get('bucket') ?? '', precision: 'n' });
      const { authorization: _unused, host: _host, ...headers } = request.headers;
      const passed = httpRequest(`${apiUrl}/write?${query}`, { method: 'POST', headers }, (answer) => {
        response.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(response);
      });
      passed.on('error', () => request.socket.destroy());
      request.pipe(passed);
    });
    await server.query(`CREATE DATABASE "${database}"`);
    return server;
  }

  /** Write requests that came through the proxy. */
  get writes(): number {
    return this.#writes;
  }

  /** The rows of the first series an InfluxQL query answers. */
  async query(statement: string, database = ''): Promise<readonly (readonly unknown[])[]> {
    const query = new URLSearchParams({ q: statement, db: database });
    const response = await fetch(`${this.#apiUrl}/query?${query}`, { method: 'POST' });
    const answer = (await response.json()) as {
      results?: readonly {
        error?: string;
        series?: readonly { values: readonly (readonly unknown[])[] }[];
      }[];
    };
    const result = answer.results?.[0];
    if (result?.error !== undefined) throw new Error(result.error);
    return result?.series?.[0]?.values ?? [];
  }

  /** How many points have the field. */
  async count(database: string, measurement: string, field: string): Promise<number> {
    const rows = await this.query(`SELECT COUNT("${field}") FROM "${measurement}"`, database);
    return Number(rows[0]?.[1] ?? 0);
  }

  async stop(): Promise<void> {
    this.#proxy.closeAllConnections();
    this.#proxy.close();
    await this.#daemon.stop('SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function configText(folder: string, port: number, rpcPort: number): string {
  return `reporting-enabled = false
bind-address = "127.0.0.1:${rpcPort}"
[meta]
  dir = "${folder}/meta"
[data]
  dir = "${folder}/data"
  wal-dir = "${folder}/wal"
  cache-max-memory-size = 268435456
[monitor]
  store-enabled = false
[http]
  bind-address = "127.0.0.1:${port}"
  log-enabled = false
`;
}
