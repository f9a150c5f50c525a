// /health and /metrics: what watches the gateway from outside. /ca.crt: what has to trust it. Over plain HTTP the file
// may be exchanged on its way; its fingerprint is shown by `iotflow tls`, on the machine itself.

import * as v from 'valibot';
import { isStranger } from '../access.ts';
import { answerHealth, type Health } from '../health.ts';
import { type MetricFamily, metricsContentType, renderMetrics } from '../metrics.ts';
import { refusal } from '../refusal.ts';
import { type Route, route } from '../route.ts';

export interface PageParts {
  readonly health: () => Health;
  readonly metrics: () => readonly MetricFamily[];
  /** PEM of the authority to trust; undefined when the gateway has no authority of its own in use. */
  readonly ca?: () => string | undefined;
}

const caContentType = 'application/x-x509-ca-cert';

export const healthSchema = v.strictObject({
  status: v.picklist(['ok', 'degraded', 'failing']),
  reasons: v.array(
    v.strictObject({ code: v.pipe(v.string(), v.examples(['UPLINK_DOWN'])), message: v.string() }),
  ),
});

export function pageRoutes({ health, metrics, ca }: PageParts): Route[] {
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
      handle: (request) => {
        const { statusCode, body } = answerHealth(health(), isStranger(request));
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
    route({
      method: 'GET',
      path: '/ca.crt',
      tag: 'gateway',
      summary: 'The certificate of the authority that devices and browsers are to trust',
      access: 'anyone',
      isPlaintextAllowed: true,
      answers: {
        200: { description: 'PEM', contentType: caContentType, schema: v.string() },
        404: 'The gateway shows a certificate of another authority',
      },
      handle: () => {
        const body = ca?.();
        if (body === undefined) {
          return refusal('NOT_FOUND', "the gateway's certificate is of another authority than its own");
        }
        const headers = {
          'content-type': caContentType,
          'content-disposition': 'attachment; filename="iotflow-ca.crt"',
        };
        return { status: 200, headers, body };
      },
    }),
  ];
}
