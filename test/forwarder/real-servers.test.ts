// Against servers nobody here wrote.

import { gzipSync } from 'node:zlib';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Forwarder, type ForwarderOptions } from '../../src/forwarder/forwarder.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { hasCommand } from '../support/debian.ts';
import { startInfluxDb1 } from '../support/influxdb-1.ts';
import { MemorySpool } from '../support/memory-spool.ts';
import { until } from '../support/until.ts';
import { startVictoriaMetrics } from '../support/victoria-metrics.ts';

function startForwarder(spool: MemorySpool, url: string, options: Partial<ForwarderOptions> = {}): Forwarder {
  const forwarder = Forwarder.start({
    spool,
    target: { url, token: 'any', org: 'home', bucket: 'water' },
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    options: { flushIntervalMs: 20, retryMinMs: 20, retryMaxMs: 100, ...options },
  });
  onTestFinished(() => forwarder.close({ deadlineMs: 1000 }));
  return forwarder;
}

const firstMs = 1_700_000_000_000;

/** Values that only survive when every digit travels; each point its own millisecond. */
function makeLines(from: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const n = from + index;
    return `flow,device_id=node-${n % 5} litres=${n / 8},total=${n}.125 ${firstMs + n}000000`;
  });
}

function addBlocks(spool: MemorySpool, from: number, to: number, points: number): void {
  for (let block = from; block < to; block += 1) {
    spool.addBlock(gzipSync(`${makeLines(block * points, points).join('\n')}\n`), points);
  }
}

/** Every `litres` and `total` as stored, by number of the point. */
async function readBack(
  server: Awaited<ReturnType<typeof startVictoriaMetrics>>,
): Promise<{ litres: Map<number, number>; total: Map<number, number> }> {
  const stored = { litres: new Map<number, number>(), total: new Map<number, number>() };
  for (const { metric, values, timestamps } of await server.exportAll()) {
    const field = metric.__name__ === 'flow_litres' ? stored.litres : stored.total;
    for (const [index, value] of values.entries()) field.set((timestamps[index] ?? 0) - firstMs, value);
  }
  return stored;
}

describe.skipIf(!hasCommand('victoria-metrics'))(
  'VictoriaMetrics (needs Debian package victoria-metrics)',
  () => {
    function expectAll(stored: Awaited<ReturnType<typeof readBack>>, count: number): void {
      expect(stored.litres.size).toBe(count);
      expect(stored.total.size).toBe(count);
      for (let n = 0; n < count; n += 1) {
        if (stored.litres.get(n) !== n / 8 || stored.total.get(n) !== n + 0.125)
          throw new Error(`point ${n} differs`);
      }
    }

    test('gets every point with its exact value, from blocks and from fresh lines', async () => {
      const server = await startVictoriaMetrics();
      const spool = new MemorySpool();
      addBlocks(spool, 0, 20, 500);
      spool.add('fresh', makeLines(10_000, 200));
      spool.add('urgent', makeLines(10_200, 1));
      startForwarder(spool, server.url);
      await until(() => spool.total === 0);
      expectAll(await readBack(server), 10_201);
    });

    test('gets every point also when it is killed in the middle of the drain', async () => {
      const server = await startVictoriaMetrics();
      const spool = new MemorySpool();
      addBlocks(spool, 0, 30, 500);
      const forwarder = startForwarder(spool, server.url, { batchPoints: 500 });
      await until(() => spool.acceptedPoints > 5000);
      // What it holds in memory alone when it dies is its loss, not the uplink's: let it write that down first.
      await server.flush();
      const drainedBeforeKill = spool.acceptedPoints;
      const resend = makeLines(0, drainedBeforeKill + 5000);
      await server.kill();
      addBlocks(spool, 30, 60, 500);
      await until(() => forwarder.stats().state === 'retrying');
      expect(spool.total).toBeGreaterThan(0);
      await server.restart();
      await until(() => spool.total === 0);
      expect(spool.returns).toBeGreaterThan(0);
      // Accepted between the flush and the kill: those may be gone with its memory; sending again is harmless.
      spool.add('fresh', resend);
      await until(() => spool.total === 0);
      expectAll(await readBack(server), 30_000);
    });
  },
);

describe.skipIf(!hasCommand('influxd'))('InfluxDB 1.6 (needs Debian package influxdb)', () => {
  test('one conflicting field among 5,000: 4,999 stored, one dead letter, few requests', async () => {
    const server = await startInfluxDb1('water');
    const spool = new MemorySpool();
    startForwarder(spool, server.url);
    spool.add('fresh', makeLines(-1, 1));
    await until(() => spool.total === 0);
    const before = server.writes;
    const lines = makeLines(0, 5000);
    const bad = lines[1234]?.replace(/litres=[^,]+/, 'litres="many"') ?? '';
    lines[1234] = bad;
    spool.addBlock(gzipSync(`${lines.join('\n')}\n`), 5000);
    await until(() => spool.total === 0);
    expect(await server.count('water', 'flow', 'litres')).toBe(5000);
    expect(spool.buried.map((letter) => letter.bytes.toString())).toEqual([bad]);
    expect(spool.buried[0]?.reason).toContain('field type conflict');
    expect(server.writes - before).toBeLessThanOrEqual(4);
  });

  test('a line it cannot parse is a dead letter, the rest arrives', async () => {
    const server = await startInfluxDb1('water');
    const spool = new MemorySpool();
    startForwarder(spool, server.url);
    const lines = makeLines(0, 1000);
    lines[7] = `flow,device_id=node-1 litres= ${firstMs}`;
    spool.addBlock(gzipSync(`${lines.join('\n')}\n`), 1000);
    await until(() => spool.total === 0);
    expect(await server.count('water', 'flow', 'litres')).toBe(999);
    expect(spool.buried.map((letter) => letter.bytes.toString())).toEqual([lines[7]]);
    expect(server.writes).toBeLessThanOrEqual(4);
  });

  test('a batch that conflicts as a whole, across two shards, costs few requests', async () => {
    const server = await startInfluxDb1('water');
    const spool = new MemorySpool();
    startForwarder(spool, server.url);
    const fiveWeeksNs = 35n * 86_400_000_000_000n;
    const early = BigInt(firstMs) * 1_000_000n;
    // A field's type belongs to a shard: both weeks must know it.
    spool.add('fresh', [`flow level=1 ${early}`, `flow level=1 ${early + fiveWeeksNs}`]);
    await until(() => spool.total === 0);
    const before = server.writes;
    const lines = Array.from({ length: 2000 }, (_, index) => {
      const week = index < 900 ? 0n : fiveWeeksNs;
      return `flow level="high" ${early + week + BigInt(index + 1)}`;
    });
    spool.addBlock(gzipSync(`${lines.join('\n')}\n`), 2000);
    await until(() => spool.total === 0);
    expect(spool.buried.length).toBe(2000);
    expect(await server.count('water', 'flow', 'level')).toBe(2);
    expect(server.writes - before).toBeLessThanOrEqual(50);
  });
});
