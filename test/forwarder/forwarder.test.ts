import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { afterEach, describe, expect, test } from 'vitest';
import { Forwarder, type ForwarderOptions } from '../../src/forwarder/forwarder.ts';
import { systemClock } from '../../src/platform/clock.ts';
import { openLocalCa } from '../../src/platform/local-ca.ts';
import { createLog } from '../../src/platform/log.ts';
import { FakeInflux, type FakeInfluxOptions } from '../../src/simulator/influx.ts';
import { MemorySpool } from '../support/memory-spool.ts';
import { tempFolder } from '../support/temp.ts';
import { until } from '../support/until.ts';

const token = 'very-secret-token';
const quick: Partial<ForwarderOptions> = {
  flushIntervalMs: 20,
  retryMinMs: 10,
  retryMaxMs: 40,
  pausedRetryMs: 60,
  requestTimeoutMs: 300,
  isolationPaceMs: 1,
};

const open: { forwarder?: Forwarder; influx?: FakeInflux } = {};

afterEach(async () => {
  await open.forwarder?.close({ deadlineMs: 200 });
  await open.influx?.close();
  delete open.forwarder;
  delete open.influx;
});

async function startInflux(options: FakeInfluxOptions = {}): Promise<FakeInflux> {
  const influx = await FakeInflux.start({ token, ...options });
  open.influx = influx;
  return influx;
}

function startForwarder(
  spool: MemorySpool,
  influx: FakeInflux,
  options: Partial<ForwarderOptions> & { token?: string; bucket?: string } = {},
): Forwarder {
  const { token: given, bucket, ...rest } = options;
  const forwarder = Forwarder.start({
    spool,
    target: { url: influx.url, token: given ?? token, org: 'home', bucket: bucket ?? 'water' },
    clock: systemClock(),
    random: Math.random,
    log: createLog('silent'),
    options: { ...quick, ...rest },
  });
  open.forwarder = forwarder;
  return forwarder;
}

let nextTime = 1_700_000_000_000_000_000n;

function makeLines(count: number, measurement = 'flow'): string[] {
  return Array.from({ length: count }, (_, index) => {
    nextTime += 1n;
    return `${measurement},device_id=node-${index % 7} value=${index}.5 ${nextTime}`;
  });
}

function addBlock(spool: MemorySpool, lines: readonly string[]): void {
  // Two members, as stored when a block was closed in two steps.
  const half = Math.ceil(lines.length / 2);
  const members = [lines.slice(0, half), lines.slice(half)].filter((part) => part.length > 0);
  spool.addBlock(Buffer.concat(members.map((part) => gzipSync(`${part.join('\n')}\n`))), lines.length);
}

describe('Forwarder', () => {
  test('points of every lane arrive, blocks as they lie, lines compressed', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    addBlock(spool, makeLines(500));
    spool.add('fresh', makeLines(100));
    spool.add('urgent', makeLines(1));
    const forwarder = startForwarder(spool, influx);
    await until(() => spool.total === 0);
    expect(influx.count).toBe(601);
    expect(influx.writes.filter((write) => write.isGzip).map((write) => write.lines)).toContain(500);
    expect(influx.writes.filter((write) => write.lines === 100)[0]?.isGzip).toBe(true);
    expect(forwarder.stats()).toMatchObject({ acceptedPoints: 601, buriedPoints: 0, failures: 0 });
  });

  test('fresh points wait for company, a full batch and urgent points do not', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    startForwarder(spool, influx, { flushIntervalMs: 3_600_000, batchPoints: 50 });
    spool.add('fresh', makeLines(10));
    spool.add('urgent', makeLines(1));
    await until(() => spool.total === 10);
    expect(influx.count).toBe(1);
    spool.add('fresh', makeLines(40));
    await until(() => spool.total === 0);
    expect(influx.count).toBe(51);
  });

  test('nothing is lost while the internet comes and goes, and the return is announced once per outage', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    const forwarder = startForwarder(spool, influx);
    let added = 0;
    for (let round = 1; round <= 3; round += 1) {
      influx.outage(true);
      spool.add('fresh', makeLines(50));
      await until(() => forwarder.stats().state === 'retrying');
      spool.add('fresh', makeLines(50));
      spool.add('urgent', makeLines(1));
      influx.outage(false);
      added += 101;
      await until(() => spool.total === 0);
      expect(spool.returns).toBe(round);
    }
    expect(influx.count).toBe(added);
    await until(() => forwarder.stats().state === 'idle');
    expect(forwarder.stats().lastError?.message).toBeDefined();
  });

  test('a server that wants to be left alone is left alone', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    for (let block = 0; block < 20; block += 1) addBlock(spool, makeLines(10));
    spool.add('fresh', makeLines(10));
    const hour = { status: 503, headers: { 'retry-after': '3600' } };
    influx.script([hour, hour, hour, hour, hour, hour]);
    const forwarder = startForwarder(spool, influx, { batchPoints: 10, flushIntervalMs: 3_600_000 });
    await until(() => forwarder.stats().state === 'retrying');
    await new Promise((resolve) => setTimeout(resolve, 150));
    // A fresh one and two of the backlog were under way when the first of them failed.
    expect(influx.requests).toBe(3);
    expect(forwarder.stats().nextTryMs).toBeGreaterThan(3_500_000);
    expect(spool.total).toBe(210);
  });

  test('a date to come back at is read by the clock of the server, not by one that may be weeks behind', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    spool.add('fresh', makeLines(1));
    const headers = { date: 'Sun, 01 Nov 2026 10:00:00 GMT', 'retry-after': 'Sun, 01 Nov 2026 10:20:00 GMT' };
    influx.script([{ status: 503, headers }]);
    const forwarder = startForwarder(spool, influx);
    await until(() => forwarder.stats().state === 'retrying');
    const { nextTryMs = 0 } = forwarder.stats();
    expect(Math.round(nextTryMs / 60_000)).toBe(20);
  });

  test('after an outage of an hour the backlog of each gateway waits for a chance of its own, fresh points do not', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    let skippedMs = 0;
    const clock = { ...systemClock(), monotonicMs: () => systemClock().monotonicMs() + skippedMs };
    const forwarder = Forwarder.start({
      spool,
      target: { url: influx.url, token, org: 'home', bucket: 'water' },
      clock,
      random: () => 0.5,
      log: createLog('silent'),
      options: { ...quick, drainJitterMs: 60_000 },
    });
    open.forwarder = forwarder;
    influx.outage(true);
    spool.add('fresh', makeLines(10));
    await until(() => forwarder.stats().state === 'retrying');
    addBlock(spool, makeLines(100));
    skippedMs = 3_600_000;
    influx.outage(false);
    spool.add('fresh', makeLines(1));
    await until(() => spool.returns === 1);
    spool.add('fresh', makeLines(5));
    await until(() => spool.pending().fresh === 0);
    expect(spool.pending().backlog).toBe(100);

    // Half of the sixty seconds, because chance said so.
    skippedMs += 29_000;
    spool.add('fresh', makeLines(5));
    await until(() => spool.pending().fresh === 0);
    expect(spool.pending().backlog).toBe(100);
    skippedMs += 1_000;
    spool.add('fresh', makeLines(5));
    await until(() => spool.total === 0);
    expect(influx.count).toBe(126);
  });

  test('while the uplink is down one probe at a time knocks', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script([{ status: 503 }, 'hang']);
    spool.add('urgent', makeLines(1));
    startForwarder(spool, influx, { requestTimeoutMs: 60_000, batchPoints: 10 });
    await until(() => influx.requests === 2);
    for (let round = 0; round < 10; round += 1) {
      addBlock(spool, makeLines(10));
      spool.add('fresh', makeLines(10));
      spool.add('urgent', makeLines(1));
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    expect(influx.requests).toBe(2);
  });

  test('what failed is not sent again before its time', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script([{ status: 503, headers: { 'retry-after': '3600' } }]);
    addBlock(spool, makeLines(10));
    const forwarder = startForwarder(spool, influx);
    await until(() => forwarder.stats().state === 'retrying');
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(influx.requests).toBe(1);
  });

  test.each([
    ['429 with Retry-After', { status: 429, headers: { 'retry-after': '0' } }],
    ['503', { status: 503 }],
    ['a connection reset twice', 'reset'],
    ['half an answer', 'half-answer'],
    ['no answer at all', 'hang'],
  ] as const)('%s: tried again until it is accepted', async (_name, answer) => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script([answer, answer]);
    spool.add('fresh', makeLines(20));
    const forwarder = startForwarder(spool, influx);
    await until(() => spool.total === 0);
    expect(influx.count).toBe(20);
    expect(spool.buried).toEqual([]);
    expect(forwarder.stats().failures).toBeGreaterThan(0);
    expect(spool.returns).toBe(1);
  });

  test('a kept connection that was closed meanwhile is no outage', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script(['reset']);
    spool.add('fresh', makeLines(20));
    const forwarder = startForwarder(spool, influx);
    await until(() => spool.total === 0);
    expect(forwarder.stats().failures).toBe(0);
  });

  test('a wrong token pauses without losing a point; a new one is tried at once', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    const forwarder = startForwarder(spool, influx, { token: 'wrong-token', pausedRetryMs: 3_600_000 });
    spool.add('fresh', makeLines(30));
    await until(() => forwarder.stats().state === 'paused');
    expect(forwarder.stats().reason).toContain('token is refused');
    expect(JSON.stringify(forwarder.stats())).not.toContain('wrong-token');
    expect(spool.total).toBe(30);
    forwarder.retarget({ url: influx.url, token, org: 'home', bucket: 'water' });
    await until(() => spool.total === 0);
    expect(influx.count).toBe(30);
  });

  test('a missing bucket pauses, and is found once somebody makes it', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    const notFound = {
      status: 404,
      headers: { 'content-type': 'application/json' },
      body: '{"code":"not found"}',
    };
    influx.script([notFound, notFound]);
    const forwarder = startForwarder(spool, influx);
    spool.add('fresh', makeLines(30));
    await until(() => forwarder.stats().state === 'paused');
    expect(forwarder.stats().reason).toContain('bucket');
    await until(() => spool.total === 0);
    expect(influx.count).toBe(30);
  });

  test('an answer that repeats the token is censored', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script([{ status: 403, body: `no rights for Token ${token}` }]);
    const forwarder = startForwarder(spool, influx, { pausedRetryMs: 3_600_000 });
    spool.add('fresh', makeLines(1));
    await until(() => forwarder.stats().state === 'paused');
    expect(forwarder.stats().reason).toContain('[secret]');
    expect(JSON.stringify(forwarder.stats())).not.toContain(token);
  });

  test('a login page that says 200 to everything takes no point', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script([{ status: 200, headers: { 'content-type': 'text/html' }, body: '<html>Welcome</html>' }]);
    const forwarder = startForwarder(spool, influx);
    spool.add('fresh', makeLines(5));
    await until(() => forwarder.stats().state === 'paused');
    expect(spool.total).toBe(5);
    await until(() => spool.total === 0);
    expect(influx.count).toBe(5);
  });

  test.each(['v1', 'v2', 'v3', 'opaque'] as const)(
    'one bad point among 5,000 costs few requests, 4,999 arrive, one is a dead letter (%s)',
    async (dialect) => {
      const influx = await startInflux({ dialect });
      const spool = new MemorySpool();
      spool.add('urgent', makeLines(1, 'leak'));
      spool.add('urgent', ['flow,device_id=node-1 value=1 1']);
      const forwarder = startForwarder(spool, influx);
      await until(() => spool.total === 0);
      const lines = makeLines(5000);
      const bad = lines[3210]?.replace(/value=\S+/, 'value="wet"') ?? '';
      addBlock(
        spool,
        lines.map((line, index) => (index === 3210 ? bad : line)),
      );
      const before = influx.requests;
      await until(() => spool.total === 0);
      expect(influx.count).toBe(5001);
      expect(influx.requests - before).toBeLessThanOrEqual(16);
      expect(spool.buried).toEqual([
        {
          stage: 'influx',
          code: 'INFLUX_REJECTED',
          reason: expect.stringMatching(dialect === 'opaque' ? /write failed/ : /(is type |field::)string/),
          deviceId: 'node-4',
          origin: 'flow',
          bytes: Buffer.from(bad),
        },
      ]);
      expect(forwarder.stats()).toMatchObject({ buriedPoints: 1, acceptedPoints: 5001 });
    },
  );

  test('a server that says no more than no, to everything, is not believed: no point is buried', async () => {
    const influx = await startInflux({ dialect: 'opaque', refuse: () => 'no' });
    const spool = new MemorySpool();
    spool.add('fresh', makeLines(300));
    addBlock(spool, makeLines(5));
    const forwarder = startForwarder(spool, influx);
    await until(() => forwarder.stats().failures >= 4);
    expect(forwarder.stats().state).toBe('paused');
    expect(spool.buried).toEqual([]);
    expect(spool.total).toBe(305);
  });

  test('a long isolation does not hold back fresh points', async () => {
    const influx = await startInflux({
      dialect: 'opaque',
      refuse: (line) => (line.startsWith('bad') ? 'no' : undefined),
    });
    const spool = new MemorySpool();
    spool.add('urgent', makeLines(1));
    const forwarder = startForwarder(spool, influx, { isolationPaceMs: 3_600_000, isolationRequestsMax: 10 });
    await until(() => spool.total === 0);
    spool.add('fresh', makeLines(100, 'bad'));
    await until(() => forwarder.stats().inFlight.pacedIsolations === 1);
    spool.add('fresh', makeLines(100));
    await until(() => spool.total === 100);
    expect(influx.count).toBe(101);
    // And closing does not wait for it.
    await forwarder.close({ deadlineMs: 60_000 });
    expect(spool.buried).toEqual([]);
    expect(await spool.take('fresh', 5000)).toMatchObject({ points: 100 });
  });

  test('fresh points flow beside a slow backlog', async () => {
    const influx = await startInflux({ delayMs: 30 });
    const spool = new MemorySpool();
    for (let block = 0; block < 40; block += 1) addBlock(spool, makeLines(10));
    startForwarder(spool, influx, { batchPoints: 10 });
    await until(() => influx.requests > 0);
    spool.add('fresh', makeLines(3, 'fresh'));
    await until(() => [...influx.points()].some((point) => point.series.startsWith('fresh')));
    expect(spool.pending().backlog).toBeGreaterThan(0);
    await until(() => spool.total === 0);
    expect(influx.count).toBe(403);
  });

  test('a body too large for the server is split, a single line too large becomes a dead letter', async () => {
    const influx = await startInflux({ maxBodyBytes: 2000 });
    const spool = new MemorySpool();
    const giant = `flow text="${'x'.repeat(3000)}" 1`;
    addBlock(spool, [...makeLines(200), giant, ...makeLines(200)]);
    startForwarder(spool, influx);
    await until(() => spool.total === 0);
    expect(influx.count).toBe(400);
    expect(spool.buried.map((letter) => letter.bytes.toString())).toEqual([giant]);
    expect(spool.buried[0]?.reason).toContain('larger than');
  });

  test('a full disk while a batch ends means it is sent again, not forgotten', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    spool.failNextEnd = Object.assign(new Error('no space'), { code: 'ENOSPC' });
    spool.add('fresh', makeLines(10));
    const forwarder = startForwarder(spool, influx);
    await until(() => spool.total === 0);
    expect(spool.acceptedPoints).toBe(10);
    expect(influx.storedLines).toBe(20);
    expect(influx.count).toBe(10);
    expect(forwarder.stats().lastError?.message).toContain('ENOSPC');
  });

  test('a stored block that cannot be unpacked does not block the line', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    spool.addBlock(Buffer.from('not gzip at all'), 7);
    addBlock(spool, makeLines(10));
    startForwarder(spool, influx, { batchPoints: 10 });
    await until(() => spool.total === 0);
    expect(influx.count).toBe(10);
    expect(spool.buried).toMatchObject([{ code: 'BLOCK_UNREADABLE', bytes: Buffer.from('not gzip at all') }]);
  });

  test('a server whose certificate nobody vouches for gets no point and no token', async () => {
    // Issued by this gateway's own authority, which the outgoing side does not trust.
    const { key, certificates } = await openLocalCa({
      folder: tempFolder(),
      names: ['127.0.0.1'],
      clock: systemClock(),
      log: createLog('silent'),
    });
    let requests = 0;
    const server = createServer({ cert: certificates, key }, (_request, response) => {
      requests += 1;
      response.writeHead(204).end();
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const spool = new MemorySpool();
    spool.add('urgent', makeLines(5));
    const forwarder = Forwarder.start({
      spool,
      target: { url: `https://127.0.0.1:${port}`, token, org: 'home', bucket: 'water' },
      clock: systemClock(),
      random: Math.random,
      log: createLog('silent'),
      options: quick,
    });
    open.forwarder = forwarder;
    await until(() => forwarder.stats().failures >= 2);
    expect(forwarder.stats().reason).toMatch(/certificate/);
    expect([requests, spool.total]).toEqual([0, 5]);
    await forwarder.close({ deadlineMs: 0 });
    server.close();
  });

  test('closing lets requests under way finish', async () => {
    const influx = await startInflux({ delayMs: 60 });
    const spool = new MemorySpool();
    spool.add('urgent', makeLines(5));
    const forwarder = startForwarder(spool, influx);
    await until(() => influx.requests === 1);
    await forwarder.close({ deadlineMs: 10_000 });
    expect(spool.acceptedPoints).toBe(5);
  });

  test('closing at the deadline keeps what was not answered', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    influx.script(['hang']);
    spool.add('urgent', makeLines(5));
    const forwarder = startForwarder(spool, influx, { requestTimeoutMs: 60_000 });
    await until(() => influx.requests === 1);
    await forwarder.close({ deadlineMs: 20 });
    expect(await spool.take('urgent', 100)).toMatchObject({ points: 5 });
  });

  test('without a target points stay where they are until one is configured', async () => {
    const influx = await startInflux();
    const spool = new MemorySpool();
    const forwarder = Forwarder.start({
      spool,
      target: undefined,
      clock: systemClock(),
      random: Math.random,
      log: createLog('silent'),
      options: quick,
    });
    open.forwarder = forwarder;
    spool.add('fresh', makeLines(10));
    await new Promise((resolve) => setTimeout(resolve, 60));
    expect(forwarder.stats()).toMatchObject({ state: 'disabled', requests: 0, pending: { fresh: 10 } });
    forwarder.retarget({ url: influx.url, token, org: 'home', bucket: 'water' });
    await until(() => spool.total === 0);
    expect(influx.count).toBe(10);
  });

  test('whatever the network and the server do, every good point arrives and every bad one is buried once', async () => {
    const answers = fc.constantFrom(
      { status: 503 },
      { status: 429, headers: { 'retry-after': '0' } },
      { status: 500, body: 'oops' },
      'reset' as const,
      'half-answer' as const,
      'take' as const,
      'take' as const,
      'take' as const,
    );
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 40 }), { maxLength: 6 }),
        fc.constantFrom('v1' as const, 'v2' as const, 'v3' as const, 'opaque' as const),
        fc.array(answers, { maxLength: 12 }),
        fc.integer({ min: 200, max: 3000 }),
        async (batches, dialect, script, maxBodyBytes) => {
          const influx = await FakeInflux.start({ token, dialect, maxBodyBytes });
          const spool = new MemorySpool();
          spool.add('urgent', ['flow,device_id=node-1 value=1 1']);
          const forwarder = startForwarder(spool, influx, {
            retryMinMs: 1,
            retryMaxMs: 3,
            flushIntervalMs: 1,
            pausedRetryMs: 3,
          });
          await until(() => spool.total === 0);
          influx.script(script);
          const good = new Set<string>();
          const bad: string[] = [];
          for (const [index, kinds] of batches.entries()) {
            const lines = kinds.map((kind) => {
              const [line = ''] = makeLines(1);
              if (kind > 1) {
                good.add(line.replace(/ value=\S+/, ''));
                return line;
              }
              const poison =
                kind === 0 ? line.replace(/value=\S+/, 'value="wet"') : line.replace(/=\d+\.5/, '=');
              bad.push(poison);
              return poison;
            });
            if (index % 2 === 0) addBlock(spool, lines);
            else spool.add('fresh', lines);
          }
          await until(() => spool.total === 0);
          await forwarder.close({ deadlineMs: 1000 });
          const stored = [...influx.points()].map((point) => `${point.series} ${point.timeNs}`);
          await influx.close();
          expect(new Set(stored)).toEqual(new Set([...good, 'flow,device_id=node-1 1']));
          expect(spool.buried.map((letter) => letter.bytes.toString()).sort()).toEqual(bad.sort());
        },
      ),
      { numRuns: 40 },
    );
  });
});
