// The routes of the InfluxDB document: points of named devices, one or many at once, and what is known of a device
// in the shape of rows. They speak of InfluxDB, and work without it: points go the way all readings go, through the
// journal, and questions are answered from local history.

import * as v from 'valibot';
import {
  askHistory,
  deviceAsked,
  deviceParams,
  type LatestAnswer,
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
import { allTaken, latestRows, oneTaken, rows as rowsAnswer, someTaken } from '../telemetry-answers.ts';
import { type SubmitParts, submitBatch, submitOne } from '../telemetry-bodies.ts';
import { eraseRoute } from './erasures.ts';

const batchPointsMax = 1_000;

const point = v.looseObject({
  device_id: v.optional(v.pipe(v.unknown(), v.description('Default: the device whose key it is.'))),
  measurement: v.optional(v.unknown()),
  fields: v.optional(v.pipe(v.unknown(), v.description('Numbers, true or false, texts.'))),
  tags: v.optional(
    v.pipe(v.unknown(), v.description('Those of the registry are stored; others are dropped and named.')),
  ),
  timestamp: v.optional(
    v.pipe(v.unknown(), v.description('ISO 8601, or an epoch in s, ms, µs or ns; default now.')),
  ),
});

const one = v.pipe(
  point,
  v.examples([
    {
      device_id: 'esp32_001',
      measurement: 'temperature',
      fields: { value: 23.5, humidity: 45.0 },
      tags: { location: 'office', sensor_type: 'dht22' },
      timestamp: '2024-01-01T12:00:00Z',
    },
  ]),
);

const batch = v.pipe(
  v.strictObject({
    points: v.pipe(
      v.array(v.unknown(), 'a list of points'),
      v.minLength(1, 'at least one point'),
      v.maxLength(batchPointsMax, `at most ${batchPointsMax} points`),
    ),
  }),
  v.examples([
    {
      points: [
        {
          device_id: 'esp32_001',
          measurement: 'temperature',
          fields: { value: 23.5 },
          tags: { location: 'office' },
        },
        {
          device_id: 'esp32_002',
          measurement: 'humidity',
          fields: { value: 55.0 },
          tags: { location: 'kitchen' },
        },
      ],
    },
  ]),
);

export function influxdbRoutes(parts: SubmitParts & QueryParts): Route[] {
  const { find, history } = parts;
  return [
    route({
      method: 'POST',
      path: '/api/v1/influxdb/telemetry',
      tag: 'influxdb',
      summary: 'Hand over one point; answered when it is on the disk.',
      access: ['device', 'admin'],
      bodyBytesMax: 256 * 1024,
      body: one,
      answers: { 201: { description: 'It is on the disk.', schema: oneTaken } },
      handle: ({ body, caller }) => submitOne(body, caller, parts),
    }),
    route({
      method: 'POST',
      path: '/api/v1/influxdb/telemetry/batch',
      tag: 'influxdb',
      summary: 'Hand over many points; answered when those that were taken are on the disk.',
      access: ['device', 'admin'],
      bodyBytesMax: 256 * 1024,
      body: batch,
      answers: {
        201: { description: 'All are on the disk.', schema: allTaken },
        207: {
          description:
            'Some are on the disk; `refused` has the others, each with its place in the list and why.',
          schema: someTaken,
        },
      },
      handle: ({ body, caller }) => submitBatch(body.points, caller, parts),
    }),
    route({
      method: 'GET',
      path: '/api/v1/influxdb/device/{device_id}/data',
      tag: 'influxdb',
      summary: 'Readings of a device, the oldest first, a row for each field.',
      access: readers,
      params: deviceParams,
      query: v.strictObject({
        start: optionalText(`inclusive: ${timeForms}`, '-1h'),
        stop: optionalText(`exclusive: ${timeForms}`, 'now()'),
        measurement: measurementParameter,
        ...paging,
      }),
      answers: { 200: { description: 'Rows; `next` leads on where there are more.', schema: rowsAnswer } },
      handle: async ({ params, query, caller, signal }) => {
        const device = deviceAsked(params.device_id, caller, find);
        const { start = '-1h', stop = 'now()' } = query;
        const asked = {
          from: ['start', start],
          to: ['stop', stop],
          measurement: ['measurement', query.measurement],
          limit: ['limit', query.limit],
          after: ['after', query.after],
        } as const;
        const found = await askHistory<RangeAnswer>(history, 'range', device.deviceId, asked, signal);
        const { points, next, ...told } = found;
        const rows = points.flatMap(({ time, measurement, fields }) =>
          Object.entries(fields).map(([field, value]) => row(device, { time, measurement, field, value })),
        );
        return {
          status: 200,
          body: {
            device_id: device.deviceId,
            measurement: query.measurement ?? null,
            start_time: start,
            stop_time: stop,
            data_points: rows,
            count: rows.length,
            next,
            ...toldOf(told),
          },
        };
      },
    }),
    route({
      method: 'GET',
      path: '/api/v1/influxdb/device/{device_id}/latest',
      tag: 'influxdb',
      summary: 'The latest value of every field of a device, a row for each.',
      access: readers,
      params: deviceParams,
      query: v.strictObject({ measurement: measurementParameter }),
      answers: {
        200: { description: 'The latest values.', schema: latestRows },
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
        const rows = measurements.flatMap(({ measurement, fields }) =>
          Object.entries(fields).map(([field, { value, time }]) =>
            row(device, { time, measurement, field, value }),
          ),
        );
        if (rows.length === 0) {
          return refusal('TELEMETRY_UNKNOWN', `nothing has been heard of ${device.deviceId} yet`);
        }
        return {
          status: 200,
          body: {
            device_id: device.deviceId,
            measurement: query.measurement ?? null,
            latest_data: rows,
            count: rows.length,
            ...toldOf(told),
          },
        };
      },
    }),
    eraseRoute(
      { path: '/api/v1/influxdb/device/{device_id}/data', tag: 'influxdb', names: ['start', 'stop'] },
      { find, history },
    ),
  ];
}

interface Reading {
  readonly time: string;
  readonly measurement: string;
  readonly field: string;
  readonly value: unknown;
}

function row(
  { deviceId, location }: { readonly deviceId: string; readonly location: string },
  { time, measurement, field, value }: Reading,
) {
  return { time, measurement, device_id: deviceId, field, value, location };
}
