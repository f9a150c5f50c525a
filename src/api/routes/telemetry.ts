// The telemetry routes: a device hands over readings about itself, and whoever may read asks for them. An answer of
// 2xx to a POST means that what it names as taken is on the disk. Reading needs a key: what a house measures says
// when nobody is at home.

import * as v from 'valibot';
import {
  type AggregateAnswer,
  askHistory,
  deviceAsked,
  deviceParams,
  type LatestAnswer,
  type LatestFields,
  measurementParameter,
  optionalText,
  paging,
  type QueryParts,
  type RangeAnswer,
  readers,
  timeForms,
  toldOf,
} from '../recent-queries.ts';
import { refusal } from '../refusal.ts';
import { type Route, route } from '../route.ts';
import { latestReadings, oneTaken, readings, windows } from '../telemetry-answers.ts';
import { type SubmitParts, submitOne } from '../telemetry-bodies.ts';
import { eraseRoute } from './erasures.ts';

const selection = {
  start_time: optionalText(`inclusive: ${timeForms}`, '-1h'),
  stop_time: optionalText(`exclusive: ${timeForms}`, 'now()'),
  measurement: measurementParameter,
  field: optionalText('names of fields with commas between; default all', 'temperature'),
};

const submission = v.pipe(
  v.looseObject({
    data: v.optional(v.pipe(v.unknown(), v.description('Fields: numbers, true or false, texts.'))),
    type: v.optional(v.pipe(v.unknown(), v.description('The measurement; default device_telemetry.'))),
    timestamp: v.optional(
      v.pipe(v.unknown(), v.description('ISO 8601, or an epoch in s, ms, µs or ns; default now.')),
    ),
    boot: v.optional(
      v.pipe(v.unknown(), v.description('With seq: tells a point sent again from a new one.')),
    ),
    seq: v.optional(v.unknown()),
    metadata: v.optional(v.pipe(v.unknown(), v.description('Not stored: the registry describes devices.'))),
  }),
  v.examples([
    {
      data: {
        temperature: 23.5,
        humidity: 65.2,
        pressure: 1013.25,
        battery_level: 87,
        signal_strength: -52,
      },
      metadata: { location: 'Living Room', sensor_status: 'active' },
      timestamp: '2025-07-02T14:30:00Z',
    },
    { data: { temperature: 25.0, humidity: 60.0 }, type: 'environmental' },
  ]),
);

export function telemetryRoutes(parts: SubmitParts & QueryParts): Route[] {
  const { find, history } = parts;
  return [
    route({
      method: 'POST',
      path: '/api/v1/devices/telemetry',
      tag: 'telemetry',
      summary: 'Hand over readings; answered when they are on the disk.',
      access: ['device', 'admin'],
      bodyBytesMax: 256 * 1024,
      body: submission,
      answers: { 201: { description: 'They are on the disk.', schema: oneTaken } },
      handle: ({ body, caller }) => submitOne(body, caller, parts),
    }),
    route({
      method: 'GET',
      path: '/api/v1/telemetry/{device_id}',
      tag: 'telemetry',
      summary: 'Readings of a device, the newest first.',
      access: readers,
      params: deviceParams,
      query: v.strictObject({ ...selection, ...paging }),
      answers: { 200: { description: 'Readings; `next` leads on where there are more.', schema: readings } },
      handle: async ({ params, query, caller, signal }) => {
        const device = deviceAsked(params.device_id, caller, find);
        const asked = {
          from: ['start_time', query.start_time],
          to: ['stop_time', query.stop_time],
          measurement: ['measurement', query.measurement],
          fields: ['field', query.field],
          limit: ['limit', query.limit],
          after: ['after', query.after],
          order: ['order', 'newest-first'],
        } as const;
        const found = await askHistory<RangeAnswer>(history, 'range', device.deviceId, asked, signal);
        const { points, next, ...told } = found;
        const data = points.map(({ time: timestamp, ...rest }) => ({ timestamp, ...rest }));
        return {
          status: 200,
          body: {
            device_id: device.deviceId,
            device_name: device.name,
            device_type: device.type,
            start_time: query.start_time ?? '-1h',
            data,
            count: data.length,
            next,
            ...toldOf(told),
          },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/telemetry/{device_id}/latest',
      tag: 'telemetry',
      summary: 'The latest value of every field of a device.',
      access: readers,
      params: deviceParams,
      query: v.strictObject({ measurement: selection.measurement }),
      answers: {
        200: { description: 'The latest values.', schema: latestReadings },
        404: 'There is no such device, or nothing is known of it.',
      },
      handle: async ({ params, query, caller, signal }) => {
        const device = deviceAsked(params.device_id, caller, find);
        const asked = { measurement: ['measurement', query.measurement] } as const;
        const { measurements, ...told } = await askHistory<LatestAnswer>(
          history,
          'latest',
          device.deviceId,
          asked,
          signal,
        );
        const latest = newestOf(measurements);
        if (latest === undefined) {
          return refusal('TELEMETRY_UNKNOWN', `nothing has been heard of ${device.deviceId} yet`);
        }
        return {
          status: 200,
          body: {
            device_id: device.deviceId,
            device_name: device.name,
            device_type: device.type,
            latest_data: latest,
            measurements,
            count: measurements.length,
            ...toldOf(told),
          },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/telemetry/{device_id}/aggregated',
      tag: 'telemetry',
      summary: 'Readings of a device, summed up by windows of time.',
      access: readers,
      params: deviceParams,
      query: v.strictObject({
        ...selection,
        limit: paging.limit,
        window: optionalText('the length of a window, from 1s to 366d; default 1h', '1h'),
        aggregation: optionalText('some of mean, min, max, sum, count, last with commas between', 'mean'),
      }),
      answers: {
        200: {
          description: 'One row for each window, field and function; windows without readings are left out.',
          schema: windows,
        },
      },
      handle: async ({ params, query, caller, signal }) => {
        const device = deviceAsked(params.device_id, caller, find);
        const { window = '1h', aggregation = 'mean', start_time = '-24h' } = query;
        const asked = {
          from: ['start_time', start_time],
          to: ['stop_time', query.stop_time],
          measurement: ['measurement', query.measurement],
          fields: ['field', query.field],
          limit: ['limit', query.limit],
          window: ['window', window],
          functions: ['aggregation', aggregation],
        } as const;
        const found = await askHistory<AggregateAnswer>(history, 'aggregate', device.deviceId, asked, signal);
        const { next, ...told } = found;
        const data = found.windows.flatMap(({ time: timestamp, measurement, fields }) =>
          Object.entries(fields).flatMap(([field, values]) =>
            Object.entries(values).map(([name, value]) => ({
              timestamp,
              measurement,
              field,
              aggregation: name,
              value,
            })),
          ),
        );
        return {
          status: 200,
          body: {
            device_id: device.deviceId,
            device_name: device.name,
            device_type: device.type,
            aggregation,
            window,
            start_time,
            data,
            count: data.length,
            next,
            ...toldOf(told),
          },
        };
      },
    }),
    eraseRoute(
      { path: '/api/v1/telemetry/{device_id}', tag: 'telemetry', names: ['start_time', 'stop_time'] },
      { find, history },
    ),
  ];
}

/** The latest value of each field, whatever its measurement; undefined when there is none. */
function newestOf(measurements: readonly LatestFields[]) {
  const all = measurements.flatMap(({ fields }) =>
    Object.entries(fields).map(([name, { value, time: timestamp }]) => ({ name, value, timestamp })),
  );
  all.sort((a, b) => Date.parse(a.timestamp) - Date.parse(b.timestamp));
  const last = all.at(-1);
  if (last === undefined) return undefined;
  return {
    timestamp: last.timestamp,
    fields: Object.fromEntries(all.map(({ name, value }) => [name, value])),
  };
}
