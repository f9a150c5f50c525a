// Random damage to a data directory, thousands of times: the journal opens, hands out nothing wrong, keeps what no
// damage touched, and says what is missing. IOTFLOW_CORRUPTION_RUNS for more, IOTFLOW_CORRUPTION_SEED for where to
// begin; every failure names its seed.

import { appendFileSync, lstatSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createLog } from '../../src/platform/log.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { type Damage, damage, filesBelow, isAddition, pick } from '../support/damage.ts';
import {
  copyOf,
  type Home,
  lineOf,
  makeHomes,
  type OpenHome,
  openHome,
  remove,
  stateOf,
  takeAll,
  untouched,
} from '../support/damaged-homes.ts';

const runs = Number(process.env.IOTFLOW_CORRUPTION_RUNS ?? 300);
const firstSeed = Number(process.env.IOTFLOW_CORRUPTION_SEED ?? 1);
/** Where a long run leaves its figures, one line of JSON a case. */
const figuresFile = process.env.IOTFLOW_CORRUPTION_FIGURES;

let homes: Home[] = [];
beforeAll(async () => {
  homes = await makeHomes();
}, 120_000);
afterAll(() => {
  for (const { folder } of homes) remove(folder);
});

interface Said {
  readonly damage: number;
  /** Devices that cannot connect until somebody gives them a new key: said as long as that is so. */
  readonly registry: number;
  readonly lostPoints: number;
}

/** What the gateway would say of itself. */
function saidBy({ journal, state, registry }: OpenHome): Said {
  const { quarantined, lostBlockPoints, lostBlocks, dropped, blockStore } = journal.stats();
  const dropDamage = Object.values(dropped).reduce((sum, reasons) => sum + reasons.damage, 0);
  const store = state.stats();
  return {
    damage:
      quarantined.segments +
      Math.sign(quarantined.points) +
      quarantined.tornTails +
      lostBlocks +
      dropDamage +
      blockStore.repairs +
      blockStore.startedEmpty +
      blockStore.damagedValues +
      store.repairs +
      store.startedEmpty +
      store.damagedValues,
    registry: registry.stats().damagedRecords,
    lostPoints: quarantined.points + lostBlockPoints + dropDamage,
  };
}

function bytesBelow(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((name) => lstatSync(join(folder, name)))
    .reduce((sum, found) => sum + (found.isFile() ? found.size : 0), 0);
}

async function runCase(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const home = pick(random, homes);
  const folder = copyOf(home);
  const damages: Damage[] = [];
  try {
    const area = pick(random, ['journal/ring', 'journal/blocks', 'state', '']);
    const files = filesBelow(home.folder).filter((name) => name.startsWith(area));
    const times = random() < 0.6 ? 1 : 1 + Math.floor(random() * 6);
    for (let count = 0; count < times; count += 1) damages.push(damage(folder, files, random));
    await judge(seed, home, folder, damages);
  } catch (error) {
    const done = damages
      .map((one) => `${one.kind} ${one.file} ${one.from ?? ''}..${one.to ?? ''}`)
      .join('; ');
    throw new Error(`seed ${seed}, ${home.name}: ${done}: ${(error as Error).message}`, { cause: error });
  } finally {
    remove(folder);
  }
}

async function judge(seed: number, home: Home, folder: string, damages: readonly Damage[]): Promise<void> {
  const startMs = performance.now();
  const opened = await openHome(
    folder,
    createLog((process.env.IOTFLOW_CORRUPTION_LOG ?? 'silent') as 'silent'),
  );
  const openMs = performance.now() - startMs;
  const { journal, registry } = opened;

  const found = await takeAll(journal);
  for (const { id, text } of found) {
    expect(home.written.classes.has(id), `id ${id}`).toBe(true);
    expect(text).toBe(lineOf(id));
  }
  const ids = new Set(found.map(({ id }) => id));
  const kept = untouched(home, damages);
  expect(
    [...kept].filter((id) => !ids.has(id)),
    'not touched, and yet missing',
  ).toEqual([]);

  const state = await stateOf(journal);
  for (const [key, value] of state) expect(home.written.state.get(key), key).toContain(value);
  const real = damages.filter((one) => !isAddition(one));
  if (!real.some(({ file }) => /ring|state/.test(file))) expect(state).toEqual(home.stateBefore);
  for (const letter of await journal.listDeadLetters({ limit: 1000 })) {
    expect(home.written.letters).toContain(letter.bytes.toString());
  }
  // The newest record and its witness are two files; both damaged, nothing tells an older record from the newest.
  const isUnwitnessed = real.some(({ file }) => file === 'state/registry-revisions');
  for (const [deviceId, key] of isUnwitnessed ? [] : home.written.endedKeys) {
    expect(registry.verify(deviceId, key), `${deviceId} with a key that ended`).toBeUndefined();
  }
  if (!real.some(({ file }) => file.startsWith('state'))) {
    for (const [deviceId, key] of home.written.keys) expect(registry.verify(deviceId, key)).toBeDefined();
  }

  const said = saidBy(opened);
  const missing = [...home.waiting].filter((id) => !ids.has(id));
  const unsaid = missing.length > 0 && said.lostPoints === 0;
  if (missing.length > 0)
    expect(said.damage, `${missing.length} missing and nothing said`).toBeGreaterThan(0);
  await journal.append({ class: 'telemetry', lines: lineOf(99), points: 1 });
  await opened.close();

  const bytesAfter = bytesBelow(folder);
  const again = await openHome(
    folder,
    createLog((process.env.IOTFLOW_CORRUPTION_LOG ?? 'silent') as 'silent'),
  );
  expect(saidBy(again), 'the second opening').toEqual({ damage: 0, lostPoints: 0, registry: said.registry });
  const second = new Set((await takeAll(again.journal)).map(({ id }) => id));
  expect(
    [...ids].filter((id) => !second.has(id)),
    'gone at the second opening',
  ).toEqual([]);
  expect(second.has(99)).toBe(true);
  await again.close();
  if (figuresFile !== undefined) {
    appendFileSync(
      figuresFile,
      `${JSON.stringify({ seed, home: home.name, damages, openMs, missing: missing.length, said, unsaid, bytesAfter, second: bytesBelow(folder) })}\n`,
    );
  }
}

test(`opens after each of ${runs} random damages, with nothing wrong and everything it should`, async () => {
  const failures: string[] = [];
  for (let seed = firstSeed; seed < firstSeed + runs && failures.length < 20; seed += 1) {
    await runCase(seed).catch((error: unknown) => failures.push(String(error)));
  }
  expect(failures).toEqual([]);
}, 3_600_000);
