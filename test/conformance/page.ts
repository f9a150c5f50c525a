// docs/mqtt-conformance.md, made of the list.

import { cases } from './cases.ts';
import { type Clause, clauses3 } from './clauses-3.ts';
import { clauses5 } from './clauses-5.ts';
import { expectedFailures } from './expected-failures.ts';

export interface Score {
  readonly cases: number;
  readonly wrong: readonly string[];
}

export interface Figures {
  readonly gateway: Record<number, Score>;
  readonly mosquitto: Record<number, Score>;
}

export function page(figures: Figures): string {
  return `${[
    ...intro,
    ...scores(figures),
    '',
    ...failures(figures),
    '',
    ...table('MQTT 3.1.1', 4, clauses3),
    '',
    ...table('MQTT 5.0', 5, clauses5),
  ].join('\n')}\n`;
}

const intro = [
  '# MQTT conformance',
  '',
  'The numbered statements of both versions of the standard that bind a server, in our own words, and the cases that',
  'show them. A case is raw packets on a socket and what must come of them; `test/conformance` has them, `npm test`',
  'runs them, and this page is made from the same list (`npm run test:conformance:peers` writes it anew and puts',
  'mosquitto to the same cases, with the same accounts and packet limit). The numbers are those of the OASIS standards',
  'of 29 October 2014 and 7 March 2019, checked against public lists of them. Where the standard leaves a reason code',
  'to the server, closing without one is right as well.',
  '',
];

function scores({ gateway, mosquitto }: Figures): string[] {
  const right = (score: Score | undefined) =>
    score === undefined ? '–' : `${score.cases - score.wrong.length} of ${score.cases}`;
  return [
    '| cases right | this gateway | mosquitto 2.0.11 |',
    '|---|---|---|',
    `| MQTT 3.1.1 | ${right(gateway[4])} | ${right(mosquitto[4])} |`,
    `| MQTT 5.0 | ${right(gateway[5])} | ${right(mosquitto[5])} |`,
  ];
}

function failures({ gateway, mosquitto }: Figures): string[] {
  const lines = ['## Cases not passed', ''];
  for (const [name, scores] of [
    ['This gateway', gateway] as const,
    ['mosquitto 2.0.11', mosquitto] as const,
  ]) {
    for (const [level, title] of [[4, '3.1.1'] as const, [5, '5.0'] as const]) {
      lines.push(`${name}, ${title}:`, '');
      const wrong = scores[level]?.wrong ?? [];
      for (const each of wrong) {
        const reason = name === 'This gateway' ? expectedFailures[each] : undefined;
        lines.push(`- ${each}${reason === undefined ? '' : `: ${reason}`}`);
      }
      lines.push(...(wrong.length === 0 ? ['none', ''] : ['']));
    }
  }
  return lines.slice(0, -1);
}

function table(title: string, level: 4 | 5, clauses: readonly Clause[]): string[] {
  const own = cases.filter((each) => each.level === level);
  return [
    `## ${title}`,
    '',
    '| statement | says | |',
    '|---|---|---|',
    ...clauses.map(({ id, says, status, why }) => {
      const shown = own.filter((each) => each.clauses.includes(id));
      const failing = shown.filter((each) => expectedFailures[each.name] !== undefined).length;
      const count = `${shown.length} ${shown.length === 1 ? 'case' : 'cases'}`;
      const note = status === undefined ? count : `${status}: ${why}`;
      return `| MQTT-${id} | ${says} | ${note}${status === undefined && failing > 0 ? `, ${failing} not passed` : ''} |`;
    }),
  ];
}
