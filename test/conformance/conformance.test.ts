// Every case of the conformance list against this gateway's broker; docs/mqtt-conformance.md against the list.

import { readFileSync, writeFileSync } from 'node:fs';
import { beforeAll, describe, expect, test } from 'vitest';
import { openGateway, openMosquitto } from './broker.ts';
import { cases } from './cases.ts';
import { clauses3 } from './clauses-3.ts';
import { clauses5 } from './clauses-5.ts';
import { expectedFailures } from './expected-failures.ts';
import { type Figures, page } from './page.ts';
import { accountOf, type Outcome, runAll } from './run.ts';

const figuresFile = new URL('figures.json', import.meta.url);
const pageFile = new URL('../../docs/mqtt-conformance.md', import.meta.url);
/** `npm run test:conformance:peers`: mosquitto as well, and the page written anew. */
const withPeers = process.env.IOTFLOW_CONFORMANCE_PEERS === '1';

const levels = [
  { level: 4, clauses: clauses3 },
  { level: 5, clauses: clauses5 },
] as const;

let outcomes = new Map<string, Outcome>();

beforeAll(async () => {
  const gateway = await openGateway();
  outcomes = await runAll(gateway, cases);
  await gateway.close();
}, 120_000);

describe.each(levels)('MQTT level $level', ({ level, clauses }) => {
  const own = cases.filter((each) => each.level === level);

  test.each(own)('$name', (each) => {
    const reason = expectedFailures[each.name];
    const outcome = outcomes.get(accountOf(each));
    if (reason === undefined || outcome === undefined) expect(outcome?.error).toBeUndefined();
  });

  test('every numbered statement has a case, or says why it has none', () => {
    const shown = new Set(own.flatMap((each) => each.clauses));
    const known = new Set(clauses.map(({ id }) => id));
    expect([...shown].filter((id) => !known.has(id))).toEqual([]);
    expect(
      clauses.filter(({ id, status }) => status === undefined && !shown.has(id)).map(({ id }) => id),
    ).toEqual([]);
    expect(known.size).toBe(clauses.length);
  });

  test('no two cases have the same name', () => {
    expect(new Set(own.map(({ name }) => name)).size).toBe(own.length);
  });
});

test('what is expected to fail is a case', () => {
  expect(Object.keys(expectedFailures).filter((name) => !cases.some((each) => each.name === name))).toEqual(
    [],
  );
});

async function measurePeers(): Promise<void> {
  const mosquitto = await openMosquitto(cases.map(accountOf));
  const theirs = await runAll(mosquitto, cases);
  await mosquitto.close();
  const figures: Figures = { gateway: {}, mosquitto: {} };
  for (const { level } of levels) {
    const own = cases.filter((each) => each.level === level);
    const wrong = (of: Map<string, Outcome>) =>
      own.filter((each) => of.get(accountOf(each))?.error !== undefined).map(({ name }) => name);
    figures.gateway[level] = { cases: own.length, wrong: wrong(outcomes) };
    figures.mosquitto[level] = { cases: own.length, wrong: wrong(theirs) };
  }
  writeFileSync(figuresFile, `${JSON.stringify(figures, undefined, 2)}\n`);
  writeFileSync(pageFile, page(figures));
}

test('docs/mqtt-conformance.md is what the list says', { timeout: 300_000 }, async () => {
  if (withPeers) await measurePeers();
  const figures = JSON.parse(readFileSync(figuresFile, 'utf8')) as Figures;
  for (const { level } of levels) {
    expect(figures.gateway[level]?.cases).toBe(cases.filter((each) => each.level === level).length);
  }
  expect(readFileSync(pageFile, 'utf8')).toBe(page(figures));
});
