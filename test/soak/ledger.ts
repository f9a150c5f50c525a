// Compares what the nodes were told with what lies in the database.

import type { SoakNode } from './nodes.ts';

/** From this moment (of the real clock) on the gateway's clock was so far off. */
export interface ClockSetting {
  readonly fromMs: number;
  readonly offsetMs: number;
}

export interface Findings {
  readonly sent: number;
  readonly acknowledged: number;
  readonly stored: number;
  /** `device/n`, acknowledged and not there. */
  readonly missing: readonly string[];
  /** Values that nobody sent. */
  readonly invented: number;
  /** Of nodes with a clock: another time than theirs. Of others: one no clock of the gateway ever showed. */
  readonly wrongTimes: readonly string[];
  /** Marked as uncertain by the gateway. */
  readonly uncertain: number;
}

interface Series {
  readonly metric: Readonly<Record<string, string>>;
  readonly values: readonly number[];
  readonly timestamps: readonly number[];
}

/** Clocks and networks take their time, and the faked clock is read once a second. */
const toleranceMs = 5_000;

export async function reconcile(
  databaseUrl: string,
  nodes: readonly SoakNode[],
  startMs: number,
  clock: readonly ClockSetting[],
): Promise<Findings> {
  const byDevice = new Map(nodes.map((node) => [node.deviceId, node]));
  const found = new Map<string, Set<number>>(nodes.map((node) => [node.deviceId, new Set()]));
  const wrongTimes: string[] = [];
  let stored = 0;
  let invented = 0;
  let uncertain = 0;
  for (const { metric, values, timestamps } of await exportAll(databaseUrl)) {
    const device = metric.device_id ?? '';
    const node = byDevice.get(device);
    const measurement = (metric.__name__ ?? '').replace(/_n$/, '');
    values.forEach((n, index) => {
      stored += 1;
      const told = node?.ledger[n - 1];
      if (told?.measurement !== measurement) {
        invented += 1;
        return;
      }
      found.get(device)?.add(n);
      if (metric.clock === 'uncertain') uncertain += 1;
      const timeMs = timestamps[index] ?? Number.NaN;
      const isRight =
        measurement === 'soak'
          ? timeMs === startMs + n
          : metric.clock === 'uncertain' || wasShown(timeMs, told.sentMs, told.ackedMs ?? Date.now(), clock);
      if (!isRight) wrongTimes.push(`${device}/${n} at ${new Date(timeMs).toISOString()}`);
    });
  }
  const missing: string[] = [];
  let sent = 0;
  let acknowledged = 0;
  for (const node of nodes) {
    sent += node.ledger.length;
    acknowledged += node.acknowledged;
    node.ledger.forEach((told, index) => {
      if (told.ackedMs !== undefined && found.get(node.deviceId)?.has(index + 1) !== true) {
        missing.push(
          `${node.deviceId}/${index + 1} of ${told.measurement}, sent ${new Date(told.sentMs).toISOString()}, ` +
            `acknowledged ${new Date(told.ackedMs).toISOString()}`,
        );
      }
    });
  }
  return { sent, acknowledged, stored, missing, invented, wrongTimes, uncertain };
}

/** Whether the right clock, or the gateway's, showed this time between sending and acknowledgement. */
function wasShown(timeMs: number, fromMs: number, toMs: number, clock: readonly ClockSetting[]): boolean {
  const offsets = clock.flatMap(({ fromMs: setMs, offsetMs }, index) => {
    const unsetMs = clock[index + 1]?.fromMs ?? Number.POSITIVE_INFINITY;
    return setMs <= toMs + toleranceMs && unsetMs >= fromMs - toleranceMs ? [offsetMs] : [];
  });
  return [0, ...offsets].some(
    (offsetMs) => timeMs - offsetMs >= fromMs - toleranceMs && timeMs - offsetMs <= toMs + toleranceMs,
  );
}

async function exportAll(databaseUrl: string): Promise<Series[]> {
  await (await fetch(`${databaseUrl}/internal/force_flush`)).text();
  const query = new URLSearchParams({
    'match[]': '{__name__=~"(soak|drift[0-9]+)_n",device_id!="poisoner"}',
    start: '0',
    // Else it ends at the present, and the gateway's clock was ahead of it.
    end: '4102444800',
  });
  const response = await fetch(`${databaseUrl}/api/v1/export?${query}`);
  const text = await response.text();
  if (!response.ok) throw new Error(`export failed: ${text}`);
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Series);
}
