import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { type MetricFamily, renderMetrics } from '../../src/api/metrics.ts';

interface ParsedSample {
  readonly name: string;
  readonly labels: ReadonlyMap<string, string>;
  readonly value: number;
}

interface ParsedFamily {
  readonly help: string;
  readonly type: string;
  readonly samples: ParsedSample[];
}

/** The text format 0.0.4, strictly: what promtool would refuse, throws here. */
function parseStrictly(page: string): Map<string, ParsedFamily> {
  if (!page.endsWith('\n')) throw new Error('the last line must end in a line break');
  const families = new Map<string, ParsedFamily>();
  const seen = new Set<string>();
  let help: [string, string] | undefined;
  let current: [string, ParsedFamily] | undefined;
  for (const line of page.slice(0, -1).split('\n')) {
    const helpLine = /^# HELP ([a-zA-Z_:][a-zA-Z0-9_:]*) ((?:[^\\\n]|\\\\|\\n)*)$/.exec(line);
    if (helpLine !== null) {
      help = [helpLine[1]!, helpLine[2]!];
      continue;
    }
    const typeLine = /^# TYPE ([a-zA-Z_:][a-zA-Z0-9_:]*) (counter|gauge|histogram)$/.exec(line);
    if (typeLine !== null) {
      const [, name, type] = typeLine;
      if (help?.[0] !== name) throw new Error(`TYPE without its HELP: ${line}`);
      if (families.has(name!)) throw new Error(`a second family ${name}`);
      current = [name!, { help: help![1], type: type!, samples: [] }];
      families.set(...current);
      continue;
    }
    const sampleLine =
      /^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (NaN|[+-]Inf|-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/s.exec(line);
    if (sampleLine === null || current === undefined)
      throw new Error(`not a sample: ${JSON.stringify(line)}`);
    const [, name, labelText = '', valueText] = sampleLine;
    const suffixes = current[1].type === 'histogram' ? ['_bucket', '_sum', '_count'] : [''];
    if (!suffixes.some((suffix) => name === current![0] + suffix)) throw new Error(`stray sample: ${line}`);
    if (seen.has(`${name}{${labelText}}`)) throw new Error(`twice: ${line}`);
    seen.add(`${name}{${labelText}}`);
    const labels = new Map<string, string>();
    let rest = labelText;
    while (rest !== '') {
      const pair = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,(?=.)|$)/s.exec(rest);
      if (pair === null) throw new Error(`not labels: ${JSON.stringify(rest)}`);
      labels.set(
        pair[1]!,
        pair[2]!.replace(/\\(.)/gs, (_, char: string) => (char === 'n' ? '\n' : char)),
      );
      rest = rest.slice(pair[0].length);
    }
    const value = valueText!.endsWith('Inf') ? Number(`${valueText}inity`) : Number(valueText);
    current[1].samples.push({ name: name!, labels, value });
  }
  return families;
}

const label = fc.string({ unit: 'binary', maxLength: 20 });
const value = fc.oneof(fc.double(), fc.integer());

describe('the page for Prometheus', () => {
  test('holds every figure under its name, with help and type', () => {
    const page = renderMetrics([
      {
        name: 'iotflow_messages_total',
        help: 'Messages taken, by transport.',
        type: 'counter',
        samples: [
          { labels: { transport: 'mqtt' }, value: 5 },
          { labels: { transport: 'host' }, value: 2 },
        ],
      },
      { name: 'iotflow_build_info', help: 'Always 1.', type: 'gauge', samples: [{ value: 1 }] },
    ]);
    expect(page.split('\n').slice(0, 4)).toEqual([
      '# HELP iotflow_messages_total Messages taken, by transport.',
      '# TYPE iotflow_messages_total counter',
      'iotflow_messages_total{transport="mqtt"} 5',
      'iotflow_messages_total{transport="host"} 2',
    ]);
    expect(parseStrictly(page).get('iotflow_build_info')?.samples).toEqual([
      { name: 'iotflow_build_info', labels: new Map(), value: 1 },
    ]);
  });

  test('shows histograms cumulatively, up to infinity', () => {
    const page = renderMetrics([
      {
        name: 'iotflow_alarm_latency_seconds',
        help: 'From the last byte of a message to the buzzer.',
        type: 'histogram',
        samples: [{ labels: { output: 'buzzer' }, bounds: [0.005, 0.02], counts: [3, 2, 1], sum: 0.07 }],
      },
    ]);
    const samples = parseStrictly(page).get('iotflow_alarm_latency_seconds')?.samples;
    expect(
      samples?.map(({ name, labels, value: shown }) => [name.slice(30), labels.get('le'), shown]),
    ).toEqual([
      ['bucket', '0.005', 3],
      ['bucket', '0.02', 5],
      ['bucket', '+Inf', 6],
      ['sum', undefined, 0.07],
      ['count', undefined, 6],
    ]);
  });

  test('stays parsable and exact whatever labels, help and values hold', () => {
    fc.assert(
      fc.property(fc.uniqueArray(label, { maxLength: 5 }), label, value, (labels, help, shown) => {
        const family: MetricFamily = {
          name: 'iotflow_things',
          help,
          type: 'gauge',
          samples: labels.map((text) => ({ labels: { text, other: 'b' }, value: shown })),
        };
        const parsed = parseStrictly(renderMetrics([family])).get('iotflow_things');
        expect(parsed?.samples.map(({ labels: found }) => found.get('text'))).toEqual(labels);
        for (const sample of parsed?.samples ?? [])
          expect(sample.value).toBe(shown === 0 ? sample.value : shown);
      }),
    );
  });

  test('is bounded: a family with too many samples is cut, and the cut is counted', () => {
    const samples = Array.from({ length: 1_500 }, (_, index) => ({
      labels: { n: String(index) },
      value: index,
    }));
    const parsed = parseStrictly(renderMetrics([{ name: 'iotflow_x', help: 'x', type: 'gauge', samples }]));
    expect(parsed.get('iotflow_x')?.samples).toHaveLength(1_000);
    expect(parsed.get('iotflow_metrics_samples_left_out')?.samples[0]?.value).toBe(500);
  });

  test.each([
    [{ name: 'iotflow_messages', help: '', type: 'counter', samples: [] }],
    [{ name: 'other_things', help: '', type: 'gauge', samples: [] }],
    [{ name: 'iotflow_x', help: '', type: 'gauge', samples: [{ labels: { 'a-b': '' }, value: 1 }] }],
    [{ name: 'iotflow_x', help: '', type: 'histogram', samples: [{ bounds: [1], counts: [1], sum: 1 }] }],
  ] satisfies [MetricFamily][])('refuses a family that breaks the conventions: %j', (family) => {
    expect(() => renderMetrics([family])).toThrow('BUG');
  });

  test('refuses one name given twice', () => {
    const family: MetricFamily = { name: 'iotflow_x', help: '', type: 'gauge', samples: [] };
    expect(() => renderMetrics([family, family])).toThrow('BUG');
  });
});
