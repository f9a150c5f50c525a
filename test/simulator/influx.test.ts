import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test } from 'vitest';
import { FakeInflux, type FakeInfluxOptions } from '../../src/simulator/influx.ts';

let influx: FakeInflux | undefined;

afterEach(async () => {
  await influx?.close();
  influx = undefined;
});

async function start(options: FakeInfluxOptions = {}): Promise<FakeInflux> {
  influx = await FakeInflux.start({ token: 'secret', ...options });
  return influx;
}

async function write(
  fake: FakeInflux,
  body: string | Buffer,
  { query = 'org=home&bucket=water&precision=ns', token = 'secret', gzip = false } = {},
) {
  const response = await fetch(`${fake.url}/api/v2/write?${query}`, {
    method: 'POST',
    headers: { authorization: `Token ${token}`, ...(gzip ? { 'content-encoding': 'gzip' } : {}) },
    body: typeof body === 'string' ? body : new Uint8Array(body),
  });
  return { status: response.status, headers: response.headers, text: await response.text() };
}

describe('The fake InfluxDB', () => {
  test('stores a point once by series and time, however often and in whatever tag order it comes', async () => {
    const fake = await start();
    expect((await write(fake, 'm,b=2,a=1 f=1 5\nm,a=1,b=2 f=2,g=t 5\nm f=1 5\n')).status).toBe(204);
    const points = [...fake.points()];
    expect(points).toEqual([
      {
        series: 'm,a=1,b=2',
        timeNs: 5n,
        fields: new Map<string, unknown>([
          ['f', 2],
          ['g', true],
        ]),
        times: 2,
      },
      { series: 'm', timeNs: 5n, fields: new Map([['f', 1]]), times: 1 },
    ]);
    expect([fake.count, fake.storedLines, fake.requests]).toEqual([2, 3, 1]);
  });

  test('understands every precision', async () => {
    const fake = await start();
    for (const precision of ['s', 'ms', 'us', 'ns']) {
      await write(fake, 'm f=1 1', { query: `org=home&bucket=water&precision=${precision}` });
    }
    expect([...fake.points()].map((point) => point.timeNs)).toEqual([1_000_000_000n, 1_000_000n, 1000n, 1n]);
  });

  test('unpacks gzip of several members, and refuses what is none', async () => {
    const fake = await start();
    const body = Buffer.concat([gzipSync('m f=1 1\n'), gzipSync('m f=2 2\n')]);
    expect((await write(fake, body, { gzip: true })).status).toBe(204);
    expect(fake.count).toBe(2);
    expect((await write(fake, 'm f=1 1', { gzip: true })).status).toBe(400);
  });

  test('401, 404 and 413 store nothing', async () => {
    const fake = await start({ maxBodyBytes: 20 });
    expect((await write(fake, 'm f=1 1', { token: 'wrong' })).status).toBe(401);
    expect((await write(fake, 'm f=1 1', { query: 'org=home&bucket=fire&precision=ns' })).status).toBe(404);
    expect((await write(fake, 'm f=1 1', { query: 'org=none&bucket=water&precision=ns' })).status).toBe(404);
    expect((await write(fake, 'm f=1 1\nm f=1 2\nm f=1 3\n')).status).toBe(413);
    expect(fake.count).toBe(0);
    expect(fake.writes.map((done) => done.status)).toEqual([401, 404, 404, 413]);
  });

  test('2.x: a conflicting field is dropped and counted, the rest stored; integers are not floats', async () => {
    const fake = await start();
    const answer = await write(fake, 'm f=1 1\nm f=2i 2\nm f="x" 3\nm f=4 4\n');
    expect(answer.status).toBe(422);
    expect(JSON.parse(answer.text)).toEqual({
      code: 'unprocessable entity',
      message:
        'failure writing points to database: partial write: field type conflict: input field "f" on measurement "m" is type integer, already exists as type float dropped=2',
    });
    expect(fake.count).toBe(2);
  });

  test('2.x: an unparsable line refuses the whole body and is quoted', async () => {
    const fake = await start();
    const answer = await write(fake, 'm f=1 1\nm f= 2\n');
    expect(answer.status).toBe(400);
    expect(JSON.parse(answer.text).message).toMatch(/^unable to parse 'm f= 2': /);
    expect(fake.count).toBe(0);
  });

  test('1.x: good rows stay beside an unparsable one', async () => {
    const fake = await start({ dialect: 'v1' });
    const answer = await write(fake, 'm f=1 1\nm f= 2\n');
    expect(answer.status).toBe(400);
    expect(JSON.parse(answer.text).error).toMatch(/^partial write: unable to parse 'm f= 2': .* dropped=0$/);
    expect(fake.count).toBe(1);
  });

  test('3: refused lines are numbered, good rows stay', async () => {
    const fake = await start({ dialect: 'v3' });
    const answer = await write(fake, 'm f=1 1\nm f= 2\nm f="x" 3\nm f=4 4\n');
    expect(answer.status).toBe(400);
    const body = JSON.parse(answer.text);
    expect(body.error).toBe('partial write of line protocol occurred');
    expect(body.data.map((line: { line_number: number }) => line.line_number)).toEqual([2, 3]);
    expect(fake.count).toBe(2);
  });

  test('a type learned from a refused body is forgotten with it', async () => {
    const fake = await start({ dialect: 'opaque' });
    expect((await write(fake, 'm f="x" 1\nm f= 2\n')).status).toBe(400);
    expect((await write(fake, 'm f=1 1')).status).toBe(204);
  });

  test('a script answers in order, then it is itself again', async () => {
    const fake = await start();
    fake.script([{ status: 429, headers: { 'retry-after': '7' } }, 'reset', 'half-answer', 'take']);
    const limited = await write(fake, 'm f=1 1');
    expect([limited.status, limited.headers.get('retry-after')]).toEqual([429, '7']);
    await expect(write(fake, 'm f=1 1')).rejects.toThrow();
    expect(fake.count).toBe(0);
    await expect(write(fake, 'm f=1 1')).rejects.toThrow();
    expect((await write(fake, 'm f=1 2')).status).toBe(204);
    expect((await write(fake, 'm f=1 3')).status).toBe(204);
    expect(fake.count).toBe(3);
  });

  test('in an outage nobody gets through; afterwards everybody does', async () => {
    const fake = await start();
    fake.outage(true);
    await expect(write(fake, 'm f=1 1')).rejects.toThrow();
    fake.outage(false);
    expect((await write(fake, 'm f=1 1')).status).toBe(204);
  });

  test('counting keeps no points', async () => {
    const fake = await start({ keep: 'counts' });
    await write(fake, 'm f=1 1\nm f=1 1\n');
    expect([fake.count, fake.storedLines]).toEqual([0, 2]);
  });

  test('says that it is well', async () => {
    const fake = await start();
    expect((await fetch(`${fake.url}/ping`)).status).toBe(204);
    expect(await (await fetch(`${fake.url}/health`)).json()).toMatchObject({ status: 'pass' });
  });
});
