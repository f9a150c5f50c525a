// The table of the documents' routes in docs/http-api.md is complete, and each of its rows is true.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ask } from '../support/api.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

const root = join(import.meta.dirname, '..', '..');

/** Every route the documents list. */
const printed = [
  ...['POST register', 'GET status', 'POST heartbeat', 'PUT config', 'POST telemetry'].map((line) =>
    line.replace(' ', ' /api/v1/devices/'),
  ),
  'GET /api/v1/telemetry/{device_id}',
  'GET /api/v1/telemetry/{device_id}/latest',
  'GET /api/v1/telemetry/{device_id}/aggregated',
  'DELETE /api/v1/telemetry/{device_id}',
  'GET /api/v1/admin/devices',
  'GET /api/v1/admin/devices/{id}',
  'PUT /api/v1/admin/devices/{id}',
  'DELETE /api/v1/admin/devices/{id}',
  'GET /api/v1/admin/dashboard',
  'GET /health',
  'GET /api/v1/telemetry/status',
  'GET /api/v1/influxdb/health',
  'POST /api/v1/influxdb/telemetry',
  'POST /api/v1/influxdb/telemetry/batch',
  'GET /api/v1/influxdb/device/{device_id}/data',
  'GET /api/v1/influxdb/device/{device_id}/latest',
  'DELETE /api/v1/influxdb/device/{device_id}/data',
];

function rows(): { route: string; tests: string[] }[] {
  const text = readFileSync(join(root, 'docs', 'http-api.md'), 'utf8');
  const [, section = ''] = text.split('## The documents this comes from\n');
  const lines = (section.split('\n## ')[0] ?? '').split('\n').filter((line) => line.startsWith('| '));
  return lines.slice(1).map((line) => {
    const [, , route = '', , tests = ''] = line.split('|');
    return {
      route: /`([^`]+)`/.exec(route)?.[1] ?? '',
      tests: [...tests.matchAll(/`([^`]+)`/g)].map(([, path]) => path ?? ''),
    };
  });
}

test('the table has every route of the documents, with a test that is there', () => {
  const found = rows();
  expect(found.map(({ route }) => route)).toEqual(expect.arrayContaining(printed));
  for (const { route, tests } of found) {
    expect([route, tests.length > 0]).toEqual([route, true]);
    for (const path of tests) expect([path, existsSync(join(root, path))]).toEqual([path, true]);
  }
});

test('the gateway has every route of the table', async () => {
  const gateway = await openGateway(tempFolder());
  const { body } = await ask({ port: gateway.ports.http }, '/api/v1/openapi.json');
  const { paths } = JSON.parse(body) as { paths: Record<string, Record<string, unknown>> };
  const served = Object.entries(paths).flatMap(([path, methods]) =>
    Object.keys(methods).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const missing = rows().filter(({ route }) => / \//.test(route) && !served.includes(route));
  expect(missing).toEqual([]);
  expect(served).toEqual(expect.arrayContaining(printed));
});
