import { expect, test } from 'vitest';
import { type GatewayFigures, healthOf, metricFamilies } from '../../src/api/figures.ts';
import { openGateway } from '../support/gateway.ts';
import { tempFolder } from '../support/temp.ts';

test('what the caps of the journal cost is said in words, with the time it is about', async () => {
  const figures = (await openGateway(tempFolder())).figures();
  expect(healthOf(figures).reasons.map(({ code }) => code)).not.toContain('POINTS_THINNED');
  const row = { blocks: 3, points: 1200, bytes: 9000, undatedPoints: 0 };
  const span = { fromMs: Date.UTC(2026, 0, 2, 3, 4), toMs: Date.UTC(2026, 0, 9, 8, 7) };
  const report = { class: 'telemetry', points: 70_000, kept: 1200, bytes: 900_000, ...span } as const;
  const thinned = { points: 70_000, kept: 1200, bytes: 900_000, runs: 1 };
  const journal: GatewayFigures['journal'] = {
    ...figures.journal,
    blocks: { ...figures.journal.blocks, 'telemetry-1m': row },
    dropped: { ...figures.journal.dropped, telemetry: { capacity: 70_000, age: 0, damage: 0 } },
    retention: {
      thinned: { ...figures.journal.retention.thinned, '1m': thinned },
      lastThinned: { kind: 'thinned', detail: '1m', ...report },
      lastDropped: { kind: 'dropped', detail: 'capacity', ...report, kept: 0 },
      isRunning: false,
    },
  };
  const health = healthOf({ ...figures, journal });
  expect(health.ok).toBe(true);
  const message = (code: string) => health.reasons.find((reason) => reason.code === code)?.message;
  expect(message('POINTS_THINNED')).toContain(
    '70000 readings from 2026-01-02 03:04 UTC to 2026-01-09 08:07 UTC to one each minute',
  );
  expect(message('POINTS_DROPPED')).toContain('70000 of class telemetry from 2026-01-02 03:04 UTC');
  const families = metricFamilies({ ...figures, journal });
  const family = families.find(({ name }) => name === 'iotflow_journal_thinned_points_total');
  expect(family?.samples).toContainEqual({ labels: { window: '1m' }, value: 70_000 });
});

test('a card that will not last two years is told once some hours have been measured', async () => {
  const figures = (await openGateway(tempFolder())).figures();
  const codes = (wear: Partial<GatewayFigures['wear']>) =>
    healthOf({ ...figures, wear: { ...figures.wear, ...wear } }).reasons.map(({ code }) => code);
  const day = 86_400_000;
  expect(codes({ lifeYears: 1.5, measuredMs: day })).toContain('CARD_WEARS_OUT');
  expect(codes({ lifeYears: 1.5, measuredMs: day / 24 })).not.toContain('CARD_WEARS_OUT');
  expect(codes({ lifeYears: 2.5, measuredMs: day })).not.toContain('CARD_WEARS_OUT');
  expect(codes({ lifeYears: undefined, measuredMs: day })).not.toContain('CARD_WEARS_OUT');
});

test('dead letters are told with the command to look at them, and those that fell to the cap', async () => {
  const figures = (await openGateway(tempFolder())).figures();
  const messages = (deadLetters: Partial<GatewayFigures['journal']['deadLetters']>) => {
    const journal = { ...figures.journal, deadLetters: { ...figures.journal.deadLetters, ...deadLetters } };
    return healthOf({ ...figures, journal })
      .reasons.filter(({ code }) => code.startsWith('DEAD_LETTERS'))
      .map(({ message }) => message);
  };
  expect(messages({})).toEqual([]);
  expect(messages({ letters: 3 })).toEqual([
    'Readings that could not be used: 3. See iotflow dead-letters list.',
  ]);
  expect(messages({ letters: 3, dropped: 7 })[1]).toContain('7 of the oldest are gone for good');
});

test('a store that was mended is named, with what it held and where the copy is, and counted', async () => {
  const figures = (await openGateway(tempFolder())).figures();
  const reasons = (given: GatewayFigures) =>
    healthOf(given).reasons.filter(({ code }) => code === 'STORE_DAMAGED');
  expect(reasons(figures)).toEqual([]);
  const mended = { ...figures, state: { ...figures.state, repairs: 1, damagedTableBlocks: 3 } };
  expect(reasons(mended)).toHaveLength(1);
  expect(reasons(mended)[0]?.message).toMatch(/devices, alarms and sessions \(data_dir\/state\).*goes away/);
  const family = metricFamilies(mended).find(
    ({ name }) => name === 'iotflow_store_damaged_table_blocks_total',
  );
  expect(family?.samples).toContainEqual({ labels: { store: 'state' }, value: 3 });
});

test('what commands are answered in JSON has names in snake_case throughout', async () => {
  const gateway = await openGateway(tempFolder());
  const answers = await Promise.all(
    ['gateway.status', 'journal.stat', 'alarms.list', 'tls.show'].map((name) =>
      gateway.operations.get(name)?.({}),
    ),
  );
  const names = new Set<string>();
  JSON.stringify(answers, (name, value: unknown) => {
    names.add(name);
    return value;
  });
  expect(names.size).toBeGreaterThan(150);
  expect([...names].filter((name) => /[A-Z]/.test(name))).toEqual([]);
});
