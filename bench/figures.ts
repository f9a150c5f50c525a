// What the benches share to turn samples into figures and figures into a report. Rates on one machine say little
// about another; so every section may carry ratios between rows of the same run, and those are what is judged.

export interface Latencies {
  readonly count: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  readonly maxMs: number;
}

/** Sorts its argument in place. */
export function latenciesOf(samplesMs: Float64Array): Latencies {
  samplesMs.sort();
  return {
    count: samplesMs.length,
    p50Ms: quantile(samplesMs, 0.5),
    p99Ms: quantile(samplesMs, 0.99),
    maxMs: samplesMs.at(-1) ?? Number.NaN,
  };
}

/** Nearest rank: a sample that was measured, never one between two. */
function quantile(sorted: Float64Array, q: number): number {
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}

/** A goal of the project and what this run says about it. */
export interface Goal {
  readonly name: string;
  readonly measured: string;
  readonly wanted: string;
  readonly met: boolean;
}

export interface Section {
  readonly title: string;
  readonly header: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly goals: readonly Goal[];
  /** What a reader must know to judge the figures; also every part that was skipped, by name. */
  readonly remarks: readonly string[];
}

export function sectionText(section: Section): string {
  const lines = [`## ${section.title}`, '', markdownRow(section.header)];
  lines.push(markdownRow(section.header.map(() => '---')));
  for (const row of section.rows) lines.push(markdownRow(row));
  lines.push('');
  for (const goal of section.goals) {
    lines.push(`- ${goal.met ? 'met' : 'NOT MET'}: ${goal.name}: ${goal.measured} (wanted ${goal.wanted})`);
  }
  for (const remark of section.remarks) lines.push(`- ${remark}`);
  return `${lines.join('\n')}\n`;
}

function markdownRow(cells: readonly string[]): string {
  return `| ${cells.join(' | ')} |`;
}

export function thousands(value: number): string {
  return Number.isFinite(value) ? Math.round(value).toLocaleString('en-US') : '–';
}

export function milliseconds(value: number): string {
  if (!Number.isFinite(value)) return '–';
  if (value < 1) return value.toFixed(2);
  return value < 100 ? value.toFixed(1) : value.toFixed(0);
}

export function ratio(value: number): string {
  return Number.isFinite(value) ? value.toFixed(2) : '–';
}

/** Progress goes to stderr, so that stdout is the report alone. */
export function progress(text: string): void {
  process.stderr.write(`${text}\n`);
}
