// What a soak found, as the page that users read.

import type { Findings } from './ledger.ts';

export interface SoakReport {
  readonly minutes: number;
  readonly seed: number;
  readonly faults: readonly (readonly [name: string, times: number])[];
  readonly starts: number;
  readonly slowestStartMs: number;
  readonly memoryMaxMb: number;
  readonly findings: Findings;
  readonly poisonous: number;
  readonly letters: number;
  readonly alarms: number;
  /** Those sounded while nothing had just been killed, frozen or filled. */
  readonly judgedAlarms: number;
  readonly slowestAlarmMs: number;
  readonly drainedMs: number;
  readonly healthSeen: readonly string[];
  readonly healthAtEnd: readonly string[];
  readonly remarks: readonly string[];
  readonly wrong: readonly string[];
}

export function reportText(report: SoakReport): string {
  const { findings } = report;
  const rows = report.faults.map(([name, times]) => `| ${name} | ${times} |`);
  return [
    '# Soak',
    '',
    `${report.minutes.toFixed(1)} minutes, seed ${report.seed}: ${report.wrong.length === 0 ? 'nothing lost' : 'FAILED'}.`,
    '',
    `- ${findings.acknowledged} messages acknowledged of ${findings.sent} sent; ${findings.missing.length} missing, ` +
      `${findings.invented} invented, ${findings.wrongTimes.length} with a wrong time, ${findings.uncertain} marked uncertain; ` +
      `${findings.stored} samples in the database`,
    `- ${report.poisonous} poisonous messages acknowledged, ${report.letters} dead letters`,
    `- ${report.alarms} leaks sounded; of ${report.judgedAlarms} with nothing just killed or filled the slowest took ` +
      `${report.slowestAlarmMs.toFixed(0)} ms from publish to buzzer`,
    `- ${report.starts} starts, the slowest ready after ${report.slowestStartMs.toFixed(0)} ms; ` +
      `${report.memoryMaxMb.toFixed(0)} MB of anonymous memory at most; drained ` +
      `${(report.drainedMs / 1000).toFixed(1)} s after the last fault`,
    `- /health said meanwhile: ${report.healthSeen.join(', ') || 'nothing'}; at the end: ${report.healthAtEnd.join(', ') || 'nothing'}`,
    ...report.remarks.map((remark) => `- ${remark}`),
    ...report.wrong.map((fault) => `- WRONG: ${fault}`),
    '',
    '| fault | times |',
    '| --- | --- |',
    ...rows,
    '',
  ].join('\n');
}
