import { gzipSync } from 'node:zlib';
import { describe, expect, onTestFinished, test } from 'vitest';
import { Forwarder } from '../../src/forwarder/forwarder.ts';
import { LearntTypes } from '../../src/forwarder/server-types.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { createLog } from '../../src/platform/log.ts';
import { FakeInflux, type FakeInfluxOptions } from '../../src/simulator/influx.ts';
import { MemoryJournal } from '../ingest/fakes.ts';
import { hasCommand } from '../support/debian.ts';
import { startInfluxDb1 } from '../support/influxdb-1.ts';
import { MemorySpool } from '../support/memory-spool.ts';
import { until } from '../support/until.ts';
import { startVictoriaMetrics } from '../support/victoria-metrics.ts';

const target = { url: 'http://127.0.0.1:1', org: 'home', bucket: 'water' };
const level = { measurement: 'level', field: 'value' } as const;

describe('What InfluxDB said about types', () => {
  test('outlives a restart, but not another bucket', async () => {
    const journal = new MemoryJournal();
    const first = await LearntTypes.open(journal, target);
    first.learn({ ...level, type: 'integer' }, false);
    expect((await LearntTypes.open(journal, target)).typeOf('level', 'value')).toBe('integer');
    // Not configured for a while is no other bucket.
    expect((await LearntTypes.open(journal, undefined)).size).toBe(1);
    expect((await LearntTypes.open(journal, { ...target, bucket: 'attic' })).size).toBe(0);
    expect((await LearntTypes.open(journal, target)).size).toBe(0);
  });

  test('is bounded: what was learnt longest ago goes, from the disk as well', async () => {
    const journal = new MemoryJournal();
    const types = await LearntTypes.open(journal, target, 3);
    for (const field of ['a', 'b', 'c', 'd'])
      types.learn({ measurement: 'm', field, type: 'integer' }, false);
    expect(types.list().map(({ field }) => field)).toEqual(['b', 'c', 'd']);
    expect(
      (await LearntTypes.open(journal, target, 3))
        .list()
        .map(({ field }) => field)
        .sort(),
    ).toEqual(['b', 'c', 'd']);
  });

  test('can be forgotten; what is said of old points does not replace what is known of new ones', async () => {
    const journal = new MemoryJournal();
    const types = await LearntTypes.open(journal, target);
    types.learn({ ...level, type: 'integer' }, false);
    types.learn({ ...level, type: 'float' }, true);
    expect(types.typeOf('level', 'value')).toBe('integer');
    types.learn({ ...level, type: 'float' }, false);
    expect(types.typeOf('level', 'value')).toBe('float');
    expect(await types.forget('level', 'value')).toBe(true);
    expect(await types.forget('level', 'value')).toBe(false);
    expect((await LearntTypes.open(journal, target)).size).toBe(0);
  });
});

async function startForwarder(spool: MemorySpool, url: string, types: LearntTypes): Promise<Forwarder> {
  const forwarder = Forwarder.start({
    spool,
    target: { url, token: 'very-secret', org: 'home', bucket: 'water' },
    types,
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    options: { flushIntervalMs: 20, retryMinMs: 10, retryMaxMs: 40, isolationPaceMs: 1 },
  });
  onTestFinished(() => forwarder.close({ deadlineMs: 200 }));
  return forwarder;
}

async function start(options: FakeInfluxOptions = {}) {
  const influx = await FakeInflux.start({ token: 'very-secret', ...options });
  onTestFinished(() => influx.close());
  const types = await LearntTypes.open(new MemoryJournal(), target);
  const spool = new MemorySpool();
  const forwarder = await startForwarder(spool, influx.url, types);
  return { influx, types, spool, forwarder };
}

const startNs = 1_700_000_000_000_000_000n;

/** Every tenth value has a fraction. */
function lines(from: number, count: number): string[] {
  return Array.from({ length: count }, (_, index) => {
    const n = from + index;
    return `level,device_id=tank value=${n % 10 === 3 ? n + 0.5 : n},other=${n}.25 ${startNs + BigInt(n)}`;
  });
}

function addBlock(spool: MemorySpool, block: readonly string[]): void {
  spool.addBlock(gzipSync(`${block.join('\n')}\n`), block.length);
}

describe('A backlog of floats for a field that InfluxDB keeps as an integer', () => {
  test.each(['v1', 'v2', 'v3'] as const)(
    'whole numbers arrive, the others are explained, for a few requests a batch (%s)',
    async (dialect) => {
      const { influx, types, spool, forwarder } = await start({
        dialect,
        types: { 'level value': 'integer' },
      });
      addBlock(spool, lines(0, 1000));
      await until(() => spool.total === 0);
      expect(influx.count).toBe(900);
      expect(spool.buried).toHaveLength(100);
      expect(spool.buried[0]).toMatchObject({
        code: 'FIELD_TYPE_CONFLICT',
        deviceId: 'tank',
        origin: 'level',
        bytes: Buffer.from(`level,device_id=tank value=3.5,other=3.25 ${startNs + 3n}`),
      });
      expect(spool.buried[0]?.reason).toMatch(
        /^field "value" of level: InfluxDB keeps it as integer, and 3.5 is not/,
      );
      expect(types.list()).toEqual([{ ...level, type: 'integer' }]);
      const first = influx.requests;
      addBlock(spool, lines(1000, 1000));
      await until(() => spool.total === 0);
      expect(influx.count).toBe(1800);
      expect(first).toBeLessThanOrEqual(8);
      expect(influx.requests - first).toBeLessThanOrEqual(5);
      expect(forwarder.stats()).toMatchObject({ serverTypes: 1, acceptedPoints: 1800, buriedPoints: 200 });
    },
  );

  test('without a misfit, what is known costs no request more than anything else', async () => {
    const { influx, types, spool } = await start({ types: { 'level value': 'integer' } });
    types.learn({ ...level, type: 'integer' }, false);
    addBlock(spool, lines(0, 2));
    spool.add('fresh', lines(4, 5));
    await until(() => spool.total === 0);
    expect(influx.count).toBe(7);
    expect(influx.requests).toBe(2);
  });

  test('a type that is not so any more blocks nothing: the line goes as it was, and the new type is learnt', async () => {
    const { influx, types, spool } = await start({ types: { 'level value': 'float' } });
    types.learn({ ...level, type: 'integer' }, false);
    spool.add('fresh', lines(0, 10));
    await until(() => spool.total === 0);
    expect(spool.buried).toEqual([]);
    expect(influx.count).toBe(10);
    expect(types.typeOf('level', 'value')).toBe('float');
  });

  test('texts and flags for a number stay letters with the reason', async () => {
    const { influx, spool } = await start({ types: { 'level value': 'float' } });
    spool.add('fresh', ['level value="n/a" 1', 'level value=true 2', 'level value=3 3']);
    await until(() => spool.total === 0);
    expect(influx.count).toBe(1);
    expect(spool.buried.map(({ reason }) => reason.split(';')[0]).sort()).toEqual([
      'field "value" of level: InfluxDB keeps it as float, and "n/a" is not a float',
      'field "value" of level: InfluxDB keeps it as float, and true is not a float',
    ]);
  });
});

describe.skipIf(!hasCommand('influxd'))('InfluxDB 1.6 (needs Debian package influxdb)', () => {
  test('its own words are understood: whole numbers arrive as integers, the others are explained', async () => {
    const server = await startInfluxDb1('water');
    const types = await LearntTypes.open(new MemoryJournal(), target);
    const spool = new MemorySpool();
    await startForwarder(spool, server.url, types);
    spool.add('fresh', [`level,device_id=tank value=1i ${startNs - 1n}`]);
    await until(() => spool.total === 0);
    const before = server.writes;
    addBlock(spool, lines(0, 5000));
    await until(() => spool.total === 0);
    expect(await server.count('water', 'level', 'value')).toBe(4501);
    expect(spool.buried).toHaveLength(500);
    expect(spool.buried[0]?.reason).toMatch(/InfluxDB keeps it as integer.*field type conflict/);
    expect(types.list()).toEqual([{ ...level, type: 'integer' }]);
    expect(server.writes - before).toBeLessThanOrEqual(8);
    expect((await server.query('SELECT MAX(value) FROM level', 'water'))[0]?.[1]).toBe(4999);
  });

  test('a type may differ from week to week: nothing that one of them takes is refused', async () => {
    const server = await startInfluxDb1('water');
    const types = await LearntTypes.open(new MemoryJournal(), target);
    const spool = new MemorySpool();
    await startForwarder(spool, server.url, types);
    const fiveWeeksNs = 35n * 86_400_000_000_000n;
    const line = (value: string, week: number, n: number) =>
      `level value=${value} ${startNs + BigInt(week) * fiveWeeksNs + BigInt(n)}`;
    spool.add('fresh', [line('1i', 0, 0), line('1.5', 1, 0)]);
    await until(() => spool.total === 0);
    addBlock(
      spool,
      [0, 1].flatMap((week) => [2, 3, 4, 5].map((n) => line(String(n), week, n))),
    );
    await until(() => spool.total === 0);
    addBlock(
      spool,
      [0, 1].flatMap((week) => [6, 7, 8, 9].map((n) => line(String(n), week, n))),
    );
    await until(() => spool.total === 0);
    expect(spool.buried).toEqual([]);
    const count = async (week: number) => {
      const from = startNs + BigInt(week) * fiveWeeksNs;
      const rows = await server.query(
        `SELECT COUNT(value) FROM level WHERE time >= ${from} AND time < ${from + 1000n}`,
        'water',
      );
      return Number(rows[0]?.[1] ?? 0);
    };
    expect(await count(0)).toBe(9);
    expect(await count(1)).toBe(9);
  });
});

describe.skipIf(!hasCommand('victoria-metrics'))(
  'VictoriaMetrics (needs Debian package victoria-metrics)',
  () => {
    test('takes what was converted as the same numbers', async () => {
      const server = await startVictoriaMetrics();
      const types = await LearntTypes.open(new MemoryJournal(), target);
      types.learn({ ...level, type: 'integer' }, false);
      const spool = new MemorySpool();
      await startForwarder(spool, server.url, types);
      spool.add(
        'fresh',
        [5, 6, 7.5].map((value, n) => `level value=${value} ${startNs + BigInt(n) * 1_000_000_000n}`),
      );
      await until(() => spool.total === 0);
      const [series] = await server.exportAll('{__name__="level_value"}');
      expect(series?.values).toEqual([5, 6, 7.5]);
    });
  },
);
