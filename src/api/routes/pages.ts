// /health and /metrics: what watches the gateway from outside.

import { answerHealth, type Health } from '../health.ts';
import { type MetricFamily, metricsContentType, renderMetrics } from '../metrics.ts';
import { type Route, route } from '../route.ts';

export interface PageParts {
  readonly health: () => Health;
  readonly metrics: () => readonly MetricFamily[];
}

export function pageRoutes({ health, metrics }: PageParts): Route[] {
  return [
    route({
      method: 'GET',
      path: '/health',
      tag: 'gateway',
      summary: 'Whether the gateway does its task',
      access: 'anyone',
      isPlaintextAllowed: true,
      answers: { 200: 'It does; `reasons` say what is worth knowing', 503: 'It fails its task' },
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
      answers: { 200: { description: 'Figures', contentType: metricsContentType } },
      handle: () => ({
        status: 200,
        headers: { 'content-type': metricsContentType },
        body: renderMetrics(metrics()),
      }),
    }),
  ];
}
