// Whether InfluxDB answers, and as what. One question at a time, however many want to know.

import type { QueryTarget } from './influx-query.ts';
import { requestInflux } from './influx-request.ts';

export interface InfluxHealth {
  readonly status: 'pass' | 'fail';
  readonly message: string;
  readonly version?: string;
}

export function influxHealth(target: QueryTarget, timeoutMs: number): () => Promise<InfluxHealth> {
  let asking: Promise<InfluxHealth> | undefined;
  return () => {
    asking ??= ask(target, timeoutMs).finally(() => {
      asking = undefined;
    });
    return asking;
  };
}

async function ask(target: QueryTarget, timeoutMs: number): Promise<InfluxHealth> {
  const { status, text } = await requestInflux(target, { method: 'GET', path: '/health', timeoutMs });
  const told = status === 200 ? parsed(text) : undefined;
  if (told !== undefined) return told;
  if (status === 0) return { status: 'fail', message: text };
  // Older and newer ones answer this alone.
  const ping = await requestInflux(target, { method: 'GET', path: '/ping', timeoutMs });
  const isAlive = ping.status === 204 || ping.status === 200;
  const version = ping.headers['x-influxdb-version'];
  return {
    status: isAlive ? 'pass' : 'fail',
    message: isAlive ? 'OK' : `${ping.status}: not an answer of InfluxDB`,
    ...(typeof version === 'string' && { version }),
  };
}

function parsed(text: string): InfluxHealth | undefined {
  try {
    const { status, message, version } = JSON.parse(text) as Record<string, unknown>;
    if (status !== 'pass' && status !== 'fail') return undefined;
    return {
      status,
      message: typeof message === 'string' ? message : 'OK',
      ...(typeof version === 'string' && { version }),
    };
  } catch {
    return undefined;
  }
}
