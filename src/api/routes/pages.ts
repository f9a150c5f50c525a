// /health and /metrics: what watches the gateway from outside.

import * as v from 'valibot';
import { answerHealth, type Health } from '../health.ts';
import { type MetricFamily, metricsContentType, renderMetrics } from '../metrics.ts';
import { type Route, route } from '../route.ts';

export interface PageParts {
  readonly health: () => Health;
  readonly metrics: () => readonly MetricFamily[];
}

export const healthSchema = v.strictObject({
  status: v.picklist(['ok', 'degraded', 'failing']),
  reasons: v.array(
    v.strictObject({ code: v.pipe(v.string(), v.examples(['UPLINK_DOWN'])), message: v.string() }),
  ),
});

export function pageRoutes({ health, metrics }: PageParts): Route[] {
  return [
    route({
      method: 'GET',
      path: '/health',
      tag: 'gateway',
      summary: 'Whether the gateway does its task',
      access: 'anyone',
      isPlaintextAllowed: true,
      answers: {
        200: { description: 'It does; `reasons` say what is worth knowing', schema: healthSchema },
        503: { description: 'It fails its task', schema: healthSchema },
      },
      handle: () => {
        const { statusCode, body } = answerHealth(health());
        return { status: statusCode, body };
      },
    }),
    route({
      method: 'GET',
      path: '/metrics',
      tag: 'gateway',
      summary: 'Every figure, as Prometheus reads it',
      access: ['service', 'viewer'],
      isLoopbackOpen: true,
      answers: { 200: { description: 'Figures', contentType: metricsContentType, schema: v.string() } },
      handle: () => ({
        status: 200,
        headers: { 'content-type': metricsContentType },
        body: renderMetrics(metrics()),
      }),
    }),
  ];
}
