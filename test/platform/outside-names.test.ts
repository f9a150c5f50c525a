import { expect, test } from 'vitest';
import { camelCased, snakeCased } from '../../src/platform/outside-names.ts';

const inside = {
  uptimeMs: 1,
  isKnown: false,
  list: [{ deviceId: 'a-B', states: { 'returned-unacknowledged': 2 } }, null, 'camelCase'],
  journal: { blocks: { 'telemetry-1m': { undatedPoints: 0 } }, trouble: undefined },
};

test('names are snake_case outside and camelCase inside; values stay as they are', () => {
  const outside = snakeCased(inside);
  expect(JSON.stringify(outside)).toBe(
    '{"uptime_ms":1,"is_known":false,"list":[{"device_id":"a-B","states":{"returned-unacknowledged":2}},null,"camelCase"],' +
      '"journal":{"blocks":{"telemetry-1m":{"undated_points":0}}}}',
  );
  expect(camelCased(outside)).toEqual(inside);
});
