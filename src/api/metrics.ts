// Figures in the Prometheus text format 0.0.4, from plain data: stages count in number fields, `gateway.ts` names
// them. Promises: whatever text a label holds, the page stays parsable, and a family never has more samples than
// `samplesMax`; what is left out is counted on the page itself.

import assert from 'node:assert/strict';

/** Label name → value. Never an id per message: each combination is a series of its own for ever. */
export type Labels = Readonly<Record<string, string>>;

export interface Sample {
  readonly labels?: Labels;
  readonly value: number;
}

export interface HistogramSample {
  readonly labels?: Labels;
  /** Upper bounds of the buckets, ascending, in the family's unit; the one for everything above is implied. */
  readonly bounds: readonly number[];
  /** Observations in each bucket, not cumulative; one more than bounds. */
  readonly counts: readonly number[];
  readonly sum: number;
}

interface Family {
  /** `iotflow_…`, snake_case, base unit last; counters end in `_total`. */
  readonly name: string;
  readonly help: string;
}

export type MetricFamily =
  | (Family & { readonly type: 'counter' | 'gauge'; readonly samples: readonly Sample[] })
  | (Family & { readonly type: 'histogram'; readonly samples: readonly HistogramSample[] });

export const metricsContentType = 'text/plain; version=0.0.4; charset=utf-8';

const samplesMax = 1_000;
const namePattern = /^iotflow_[a-z][a-z0-9_]*$/;
const labelPattern = /^[a-z][a-z0-9_]*$/;

function escapeHelp(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n');
}

function escapeLabel(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/\n/g, '\\n').replace(/"/g, '\\"');
}

function formatNumber(value: number): string {
  if (value === Number.POSITIVE_INFINITY) return '+Inf';
  if (value === Number.NEGATIVE_INFINITY) return '-Inf';
  return String(value);
}

function formatLabels(labels: Labels, bound?: string): string {
  const pairs = Object.entries(labels).map(([name, value]) => {
    assert(labelPattern.test(name) && name !== 'le', `BUG: '${name}' is no label name`);
    return `${name}="${escapeLabel(value)}"`;
  });
  if (bound !== undefined) pairs.push(`le="${bound}"`);
  return pairs.length === 0 ? '' : `{${pairs.join(',')}}`;
}

function histogramLines(name: string, sample: HistogramSample): string[] {
  const { bounds, counts, sum, labels = {} } = sample;
  assert(counts.length === bounds.length + 1, `BUG: ${name} needs one count more than bounds`);
  const lines: string[] = [];
  let total = 0;
  for (const [index, count] of counts.entries()) {
    total += count;
    const bound = formatNumber(bounds[index] ?? Number.POSITIVE_INFINITY);
    lines.push(`${name}_bucket${formatLabels(labels, bound)} ${total}`);
  }
  lines.push(`${name}_sum${formatLabels(labels)} ${formatNumber(sum)}`);
  lines.push(`${name}_count${formatLabels(labels)} ${total}`);
  return lines;
}

function familyLines(family: MetricFamily): string[] {
  const { name, help, type } = family;
  assert(namePattern.test(name), `BUG: '${name}' is no metric name`);
  assert(type !== 'counter' || name.endsWith('_total'), `BUG: counter ${name} must end in _total`);
  const lines = [`# HELP ${name} ${escapeHelp(help)}`, `# TYPE ${name} ${type}`];
  if (family.type === 'histogram') {
    return lines.concat(
      family.samples.slice(0, samplesMax).flatMap((sample) => histogramLines(name, sample)),
    );
  }
  const samples = family.samples.slice(0, samplesMax);
  return lines.concat(
    samples.map(({ labels = {}, value }) => `${name}${formatLabels(labels)} ${formatNumber(value)}`),
  );
}

/** The page for Prometheus. Families must have different names. */
export function renderMetrics(families: readonly MetricFamily[]): string {
  const names = new Set(families.map(({ name }) => name));
  assert(names.size === families.length, 'BUG: two metric families have the same name');
  const left = families.reduce((sum, { samples }) => sum + Math.max(0, samples.length - samplesMax), 0);
  const own: MetricFamily = {
    name: 'iotflow_metrics_samples_left_out',
    help: `Samples not on this page: a family shows at most ${samplesMax}.`,
    type: 'gauge',
    samples: [{ value: left }],
  };
  return `${[...families, own].flatMap(familyLines).join('\n')}\n`;
}
