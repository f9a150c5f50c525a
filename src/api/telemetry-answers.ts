// What the routes about readings answer, as schemas: for the OpenAPI document, and held against the answers by tests.

import * as v from 'valibot';
import { count } from './device-answers.ts';

const text = v.string();
/** RFC 3339, to the nanosecond where it matters. */
const moment = v.pipe(text, v.examples(['2025-07-02T14:30:00Z', '2025-07-02T14:30:00.000000001Z']));
const value = v.union([v.number(), v.boolean(), text]);
const values = v.record(text, value);

const notes = {
  dropped: v.optional(v.pipe(v.array(text), v.description('What is not stored as it was sent'))),
  duplicates: v.optional(v.pipe(count, v.description('Points that were here already, by boot and seq'))),
};

export const oneTaken = v.strictObject({
  message: text,
  device_id: text,
  measurement: text,
  timestamp: v.pipe(v.nullable(moment), v.description('null while the gateway does not know the date')),
  ...notes,
});

export const allTaken = v.strictObject({ message: text, count, ...notes });

export const someTaken = v.strictObject({
  message: text,
  count,
  refused: v.array(
    v.strictObject({
      index: v.pipe(count, v.description('Its place in the list')),
      error: v.strictObject({ code: text, message: text, field: v.optional(text) }),
    }),
  ),
  ...notes,
});

const told = {
  source: v.pipe(
    v.picklist(['local', 'remote', 'both']),
    v.description('Who answered: this gateway, InfluxDB for what is older, or both'),
  ),
  missing: v.optional(
    v.pipe(
      v.strictObject({ from: moment, to: moment, code: text, reason: text }),
      v.description('What InfluxDB could not be asked for'),
    ),
  ),
};

const device = { device_id: text, device_name: text, device_type: text };
const paged = { count, next: v.pipe(v.nullable(text), v.description('`after` of the next question')) };
const measured = v.strictObject({
  measurement: text,
  fields: v.record(text, v.strictObject({ value, time: moment })),
});

export const readings = v.strictObject({
  ...device,
  start_time: text,
  data: v.array(
    v.strictObject({
      timestamp: moment,
      measurement: text,
      fields: values,
      thinned: v.optional(v.pipe(v.literal(true), v.description('One for all readings of a minute'))),
    }),
  ),
  ...paged,
  ...told,
});

export const latestReadings = v.strictObject({
  ...device,
  latest_data: v.strictObject({ timestamp: moment, fields: values }),
  measurements: v.array(measured),
  count,
  ...told,
});

export const windows = v.strictObject({
  ...device,
  aggregation: text,
  window: text,
  start_time: text,
  data: v.array(
    v.strictObject({ timestamp: moment, measurement: text, field: text, aggregation: text, value }),
  ),
  ...paged,
  ...told,
});

const row = v.strictObject({
  time: moment,
  measurement: text,
  device_id: text,
  field: text,
  value,
  location: text,
});

export const rows = v.strictObject({
  device_id: text,
  measurement: v.nullable(text),
  start_time: text,
  stop_time: text,
  data_points: v.array(row),
  ...paged,
  ...told,
});

export const latestRows = v.strictObject({
  device_id: text,
  measurement: v.nullable(text),
  latest_data: v.array(row),
  count,
  ...told,
});

const erasure = v.strictObject({
  id: count,
  device_id: text,
  from: v.pipe(v.nullable(moment), v.description('null: everything')),
  to: moment,
  local: v.picklist(['waiting', 'done']),
  remote: v.pipe(
    v.picklist(['none', 'waiting', 'done', 'refused']),
    v.description('In InfluxDB; none: there is none'),
  ),
  reason: v.optional(v.pipe(text, v.description('Why it waits, or was refused'))),
});

export const deleted = v.strictObject({
  message: text,
  device_id: text,
  start_time: v.nullable(moment),
  stop_time: moment,
  erasure,
});

export const telemetryStatus = v.strictObject({
  status: v.picklist(['healthy', 'degraded', 'unhealthy']),
  influxdb: v.strictObject({
    configured: v.boolean(),
    connected: v.boolean(),
    state: v.picklist(['disabled', 'idle', 'sending', 'retrying', 'paused']),
    reason: v.optional(text),
    last_written: v.nullable(moment),
    points_written: count,
  }),
  journal: v.strictObject({ points_waiting: count, is_taking: v.boolean(), dead_letters: count }),
  history: v.nullable(v.strictObject({ points: count, bytes: count })),
  ingest: v.strictObject({ messages: count, points: count }),
  erasures: v.optional(v.pipe(v.array(erasure), v.description('Told to users'))),
});

export const influxdbHealth = v.strictObject({
  influxdb: v.strictObject({
    status: v.picklist(['pass', 'fail']),
    message: text,
    version: v.optional(text),
  }),
  connected: v.boolean(),
});
