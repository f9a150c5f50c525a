// A real time series database for the gateway to write to: VictoriaMetrics takes InfluxDB's v2 write API.

import { commandPath } from '../../test/support/debian.ts';
import { freePort } from '../../test/support/free-port.ts';
import { startChild, waitForPort } from '../children.ts';

export const victoriaMetricsMissing = (): string | undefined =>
  commandPath('victoria-metrics') === undefined ? 'Debian package victoria-metrics' : undefined;

export interface Sink {
  readonly url: string;
  /** Field values it has taken, by its own count, which it renews once a second. */
  valuesInserted(): Promise<number>;
  stop(): Promise<void>;
}

/** On a given port, so that a gateway can be pointed at it before it runs. */
export async function startVictoriaMetrics(folder: string, port?: number): Promise<Sink> {
  const usedPort = port ?? (await freePort());
  const url = `http://127.0.0.1:${usedPort}`;
  const child = startChild(commandPath('victoria-metrics') ?? 'victoria-metrics', [
    `-httpListenAddr=127.0.0.1:${usedPort}`,
    `-storageDataPath=${folder}/victoria-metrics`,
    '-retentionPeriod=100y',
    '-loggerLevel=ERROR',
  ]);
  await waitForPort(usedPort, child);
  return {
    url,
    valuesInserted: async () => {
      const metrics = await (await fetch(`${url}/metrics`)).text();
      let rows = 0;
      for (const match of metrics.matchAll(/^vm_rows_inserted_total\{type="influx"\} (\S+)$/gm))
        rows += Number(match[1]);
      return rows;
    },
    stop: () => child.stop(30_000),
  };
}
