import { describe, expect, test } from 'vitest';
import { RateLimits } from '../../src/api/rate-limits.ts';
import type { Caller } from '../../src/api/route.ts';
import { ask, openApi } from '../support/api.ts';

const anyone: Caller = { kind: 'anyone' };
const kitchen: Caller = { kind: 'device', deviceId: 'kitchen' };

function limits(bucketsMax = 100) {
  const clock = { nowMs: 1_000, monotonicMs: () => clock.nowMs };
  const address = { perSecond: 2, burst: 3 };
  return {
    clock,
    limits: new RateLimits({ clock, address, caller: { perSecond: 10, burst: 5 }, bucketsMax }),
  };
}

describe('who asks too often', () => {
  test('waits until there is one more, and after a pause may ask a burst again', () => {
    const { clock, limits: rate } = limits();
    const ask4 = () => Array.from({ length: 4 }, () => rate.take(anyone, '192.0.2.1'));
    expect(ask4()).toEqual([undefined, undefined, undefined, 500]);
    clock.nowMs += 499;
    expect(rate.take(anyone, '192.0.2.1')).toBeCloseTo(1);
    clock.nowMs += 1;
    expect(rate.take(anyone, '192.0.2.1')).toBeUndefined();
    clock.nowMs += 3_600_000;
    expect(ask4()).toEqual([undefined, undefined, undefined, 500]);
  });

  test('does not take from a valid caller of the same address, nor from other addresses', () => {
    const { limits: rate } = limits();
    for (let n = 0; n < 10; n += 1) rate.take(anyone, '192.0.2.1');
    expect(rate.take(anyone, '192.0.2.1')).toBeDefined();
    expect(rate.take(kitchen, '192.0.2.1')).toBeUndefined();
    expect(rate.take(anyone, '192.0.2.2')).toBeUndefined();
  });

  test('gains nothing by the other addresses of an IPv6 network', () => {
    const { limits: rate } = limits();
    const own = ['2001:db8::1', '2001:db8:0:0:1:2:3:4', '2001:db8::ffff:1'];
    for (const address of own) expect(rate.take(anyone, address)).toBeUndefined();
    expect(rate.take(anyone, '2001:db8:0:0:9::1')).toBeDefined();
    expect(rate.take(anyone, '2001:db8:0:1::1')).toBeUndefined();
    expect(rate.take(anyone, '::1')).toBeUndefined();
    expect(rate.take(anyone, '::ffff:192.0.2.1')).toBeUndefined();
  });

  test('cannot fill the memory', () => {
    const { limits: rate } = limits(10);
    for (let n = 0; n < 1_000; n += 1) rate.take(anyone, `10.0.${n >> 8}.${n & 255}`);
    expect(rate.buckets).toBe(10);
  });

  test('is answered with 429 and when to try again, over HTTP', async () => {
    const clock = { monotonicMs: () => 0 };
    const authenticate = { key: (text: string) => (text === 'kitchen' ? kitchen : undefined) };
    const api = await openApi({ clock, authenticate });
    const statuses = new Map<number, number>();
    for (let n = 0; n < 65; n += 1) {
      const { status } = await ask(api, '/health', 'GET', { 'x-api-key': `guess-${n}` });
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    expect([...statuses]).toEqual([
      [200, 60],
      [429, 5],
    ]);
    const refused = await ask(api, '/health');
    expect(refused.headers['retry-after']).toBe('1');
    expect(JSON.parse(refused.body)).toMatchObject({ error: { code: 'RATE_LIMITED' } });
    expect((await ask(api, '/health', 'GET', { 'x-api-key': 'kitchen' })).status).toBe(200);
    expect(api.stats()).toMatchObject({ limited: 6, buckets: 2 });
  });
});
