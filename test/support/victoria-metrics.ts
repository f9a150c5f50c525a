// A real time-series database that takes the v2 write API: Debian's victoria-metrics, on loopback, in a folder of
// its own. It answers 204 to everything it can unpack, so it proves that points arrive, not that errors are handled.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { onTestFinished } from 'vitest';
import { Daemon } from './daemon.ts';
import { commandPath } from './debian.ts';
import { freePort } from './free-port.ts';

/** One exported series. */
export interface ExportedSeries {
  /** Labels; `__name__` is `{measurement}_{field}`. */
  readonly metric: Readonly<Record<string, string>>;
  readonly values: readonly number[];
  /** Milliseconds: it stores no finer ones. */
  readonly timestamps: readonly number[];
}

/** Stopped, and its folder removed, when the test is over. */
export async function startVictoriaMetrics(): Promise<VictoriaMetrics> {
  const server = await VictoriaMetrics.start();
  onTestFinished(() => server.stop());
  return server;
}

class VictoriaMetrics {
  readonly url: string;
  readonly #folder: string;
  readonly #args: readonly string[];
  #daemon: Daemon | undefined;

  private constructor(url: string, folder: string, args: readonly string[]) {
    this.url = url;
    this.#folder = folder;
    this.#args = args;
  }

  static async start(): Promise<VictoriaMetrics> {
    const port = await freePort();
    const folder = await mkdtemp(join(tmpdir(), 'iotflow-vm-'));
    const server = new VictoriaMetrics(`http://127.0.0.1:${port}`, folder, [
      `-storageDataPath=${folder}`,
      `-httpListenAddr=127.0.0.1:${port}`,
      '-retentionPeriod=100y',
      '-search.disableCache',
      '-search.latencyOffset=0s',
      '-memory.allowedPercent=20',
      '-loggerLevel=ERROR',
    ]);
    await server.#run();
    return server;
  }

  async #run(): Promise<void> {
    const command = commandPath('victoria-metrics');
    if (command === undefined) throw new Error('needs Debian package victoria-metrics');
    const isReady = async (): Promise<boolean> => (await fetch(`${this.url}/health`)).ok;
    this.#daemon = await Daemon.start(command, this.#args, isReady);
  }

  /** kill -9: what it acknowledged and had not written yet may be gone. */
  async kill(): Promise<void> {
    await this.#daemon?.stop('SIGKILL');
  }

  /** SIGTERM: everything it acknowledged is kept. */
  async shutDown(): Promise<void> {
    await this.#daemon?.stop('SIGTERM');
  }

  /** Again, on the same port and folder. */
  async restart(): Promise<void> {
    await this.#run();
  }

  /** Makes everything acknowledged so far durable and visible. */
  async flush(): Promise<void> {
    await (await fetch(`${this.url}/internal/force_flush`)).text();
  }

  /** All samples of the series that match, such as `{__name__!=""}`. */
  async exportAll(match = '{__name__!=""}'): Promise<ExportedSeries[]> {
    await this.flush();
    const query = new URLSearchParams({ 'match[]': match });
    const response = await fetch(`${this.url}/api/v1/export?${query}`);
    const text = await response.text();
    if (!response.ok) throw new Error(`export failed: ${text}`);
    return text
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line) as ExportedSeries);
  }

  async stop(): Promise<void> {
    await this.#daemon?.stop('SIGKILL');
    await rm(this.#folder, { recursive: true, force: true });
  }
}
