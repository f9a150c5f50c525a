// `iotflow status`: how the running gateway is, in a few lines; every figure of it is in --json.

import { camelCased } from '../platform/outside-names.ts';
import { answer, type Command, configOption, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { callOperation } from './operator.ts';

/** Of the answer, what a person reads. Another version may leave out any of it. */
interface Shown {
  readonly health?: {
    readonly ok?: boolean;
    readonly reasons?: readonly { readonly code: string; readonly message: string }[];
  };
  readonly ports?: Readonly<Record<string, number>>;
  readonly figures?: {
    readonly version?: string;
    readonly gatewayId?: string;
    readonly uptimeMs?: number;
    readonly journal?: { readonly undated?: Counts; readonly deadLetters?: { readonly letters?: number } };
    readonly bridge?: unknown;
    readonly forwarder?: {
      readonly state?: string;
      readonly pending?: Counts;
      readonly acceptedPoints?: number;
    };
    readonly registry?: { readonly devices?: number };
    readonly mqtt?: { readonly sockets?: number };
    readonly alarms?: { readonly list?: readonly unknown[] };
    readonly time?: { readonly isKnown?: boolean; readonly source?: string };
    readonly wear?: { readonly lifeYears?: number };
  };
}

type Counts = Readonly<Record<string, number>>;

function sum(counts: Counts = {}): number {
  return Object.values(counts).reduce((total, count) => total + count, 0);
}

function span(ms = 0): string {
  const hours = ms / 3_600_000;
  if (hours >= 48) return `${(hours / 24).toFixed(0)} days`;
  return hours >= 1 ? `${hours.toFixed(1)} hours` : `${(ms / 60_000).toFixed(0)} minutes`;
}

function stateOf({ ok, reasons = [] }: NonNullable<Shown['health']>): string {
  if (ok === false) return 'FAILS ITS TASK';
  return reasons.length === 0 ? 'all is well' : 'works; worth knowing:';
}

function textOf({ health = {}, ports = {}, figures = {} }: Shown): string {
  const { journal, forwarder, registry, mqtt, alarms, time, wear } = figures;
  const undated = sum(journal?.undated);
  const rows = [
    [
      'gateway',
      `${figures.gatewayId ?? '?'}, version ${figures.version ?? '?'}, runs for ${span(figures.uptimeMs)}`,
    ],
    [
      'ports',
      Object.entries(ports)
        .map((entry) => entry.join(' '))
        .join(', '),
    ],
    ['devices', `${registry?.devices ?? '?'}; ${mqtt?.sockets ?? '?'} connections`],
    ['alarms', `${alarms?.list?.length ?? '?'}`],
    [
      figures.bridge === undefined ? 'influxdb' : 'mqtt bridge',
      `${forwarder?.state ?? '?'}; ${forwarder?.acceptedPoints ?? '?'} points delivered since the start`,
    ],
    ['waiting', `${sum(forwarder?.pending)} points${undated > 0 ? `, and ${undated} for their dates` : ''}`],
    ['dead letters', `${journal?.deadLetters?.letters ?? '?'}`],
    ['date', time?.isKnown === true ? `known, by ${time.source ?? '?'}` : 'not known yet'],
    [
      'card',
      wear?.lifeYears === undefined ? 'not measured long enough' : `lasts ${wear.lifeYears.toFixed(1)} years`,
    ],
  ];
  return [
    stateOf(health),
    ...(health.reasons ?? []).map(({ code, message }) => `  ${code}: ${message}`),
    '',
    ...rows.map(([name = '', value = '']) => `${name.padEnd(12)}  ${value}`),
  ].join('\n');
}

export const statusCommand: Command = {
  name: 'status',
  summary: 'Show how the running gateway is',
  options: { config: configOption, json: jsonOption },
  details: 'Exit code 1 when the gateway fails its task. With --json every figure it has.',
  run: async (call) => {
    const result = await callOperation(requireConfig(call).config, 'gateway.status', {});
    answer(call, result, textOf(camelCased(result) as Shown));
    const { health } = (result ?? {}) as { health?: { ok?: unknown } };
    return health?.ok === false ? 1 : 0;
  },
};
