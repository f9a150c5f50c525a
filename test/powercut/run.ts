// The power-cut suite: `npm run test:powercut`. Gateways live on a disk that loses its power, real clients keep the
// ledger, and what each cut left is opened and compared with it. Progress on stderr, a summary as JSON on stdout;
// ends with 1 when anything was lost, wrong or reported damaged, or when a kind of moment was never hit.
//
//   --cuts N        50 by default; the long form is 1000
//   --seed N        where chance begins; printed, so that a run can be had again as far as time allows
//   --names N       ordered, own or posix, see power-disk.c; by default one life is ordered, the next one own
//   --check FOLDER  opens once more what a cut left that had failed
//   --mutate        takes one durability call after the other out of the program: each must be found
//   --mutant NAME   only that one
//   --part PART     restore or growth: only that part of a life, see life.ts

import { fork, spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import { argv } from 'node:process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { atExit, repositoryRoot } from '../../bench/children.ts';
import { stalledDiskMissing } from '../../bench/stalled-disk/stalled-disk.ts';
import { seededRandom } from '../../src/simulator/random.ts';
import { checkCut } from './check.ts';
import type { Past } from './clients.ts';
import type { Verdict } from './ledger.ts';
import { type Kind, kinds, live, type Part, type TakenCut } from './life.ts';
import { mutants } from './mutants.ts';
import { buildPowerDisk, type Names, powerCutFolder } from './power-disk.ts';

const workers = 2;
/** Images that wait for a worker; the load waits for the rest. */
const waitingMax = 4;
/** A life that goes on from a cut goes on to another one from there. */
const livesOfOneDisk = 3;
/** Every so manieth is opened by the program itself. */
const processEvery = 10;

function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

interface Job {
  readonly cut: TakenCut;
  readonly mainJs: string | undefined;
  readonly done: (verdict: Verdict) => void;
}

/** Two processes that check what cuts left. */
class Checkers {
  readonly #waiting: Job[] = [];
  readonly #idle: (() => void)[] = [];
  #busy = 0;

  check(cut: TakenCut, mainJs: string | undefined): Promise<Verdict> {
    return new Promise((done) => {
      this.#waiting.push({ cut, mainJs, done });
      this.#next();
    });
  }

  /** Resolves when fewer than so many wait. */
  async room(most: number): Promise<void> {
    while (this.#waiting.length + this.#busy > most)
      await new Promise<void>((resolve) => this.#idle.push(resolve));
  }

  readonly #free: ReturnType<typeof fork>[] = [];

  #next(): void {
    while (this.#busy < workers) {
      const job = this.#waiting.shift();
      if (job === undefined) return;
      this.#busy += 1;
      const worker = this.#free.pop() ?? this.#fork();
      const answered = (verdict: Verdict): void => {
        worker.removeAllListeners('message');
        worker.removeAllListeners('exit');
        this.#busy -= 1;
        job.done(verdict);
        for (const resume of this.#idle.splice(0)) resume();
        this.#next();
      };
      worker.once('message', (answer: { verdict?: Verdict; error?: string }) => {
        this.#free.push(worker);
        answered(answer.verdict ?? failedCheck(answer.error ?? ''));
      });
      worker.once('exit', (code, signal) => answered(failedCheck(`the check ended with ${code ?? signal}`)));
      worker.send({ folder: job.cut.folder, mainJs: job.mainJs });
    }
  }

  #fork(): ReturnType<typeof fork> {
    const worker = fork(join(fileURLToPath(import.meta.url), '..', 'check.js'), ['--worker']);
    atExit(() => worker.kill('SIGKILL'));
    return worker;
  }
}

function failedCheck(error: string): Verdict {
  return { lost: [error], wrong: [], damage: [], found: [], repairs: 0, owed: 0, openMs: 0, drainMs: 0 };
}

interface Result {
  readonly seed: number;
  readonly cuts: number;
  readonly lives: number;
  readonly acknowledged: number;
  /** Messages asked for, over all cuts. */
  readonly owed: number;
  readonly lost: number;
  readonly wrong: number;
  readonly damaged: number;
  /** Stores repaired after a cut in a first start: see check.ts. */
  readonly repairs: number;
  readonly kinds: Readonly<Record<string, number>>;
  readonly neverHit: readonly string[];
  readonly openMsMax: number;
  readonly seconds: number;
  readonly failures: readonly string[];
}

/** Of a first start nothing is owed yet; what a restore left is another disk. */
function isLivedOnFrom(kind: Kind, part: Part): boolean {
  if (part === 'growth') return kind === 'stopped';
  return !['first start', 'restore', 'exchange', 'restored'].includes(kind);
}

interface SuiteOptions {
  readonly cuts: number;
  readonly seed: number;
  /** Undefined: in turns. */
  readonly names: Names | undefined;
  readonly mainJs: string;
  readonly program: string;
  readonly folder: string;
  readonly checkers: Checkers;
  readonly stopsAtFailure: boolean;
  readonly name: string;
  readonly part: Part;
}

async function runSuite(options: SuiteOptions): Promise<Result> {
  const { seed, folder, checkers } = options;
  const startMs = performance.now();
  const random = seededRandom(seed);
  const counts = new Map<Kind, number>();
  const failures: string[] = [];
  let cuts = 0;
  let owed = 0;
  let openMsMax = 0;
  let lost = 0;
  let wrong = 0;
  let damaged = 0;
  let repairs = 0;
  let acknowledged = 0;
  let lives = 0;
  let next: { cut: TakenCut; verdict: Promise<Verdict> } | undefined;
  let past: { image: string; ledger: Past } | undefined;
  const isEnough = () => cuts >= options.cuts || (options.stopsAtFailure && failures.length > 0);

  const onCut = async (cut: TakenCut): Promise<void> => {
    cuts += 1;
    counts.set(cut.kind, (counts.get(cut.kind) ?? 0) + 1);
    const number = cuts;
    const verdict = checkers.check(
      cut,
      number % processEvery === 0 ? join(repositoryRoot(), 'dist', 'main.js') : undefined,
    );
    // One cut of each life is lived on from: any of them with the same chance.
    const isNext = isLivedOnFrom(cut.kind, options.part) && random() < (options.part === 'growth' ? 1 : 0.15);
    if (isNext) {
      const former = next;
      next = { cut, verdict };
      void former?.verdict.then(() => rmSync(former.cut.folder, { recursive: true, force: true }));
    }
    void verdict.then((found) => {
      openMsMax = Math.max(openMsMax, found.openMs);
      owed += found.owed;
      repairs += found.repairs;
      lost += found.lost.length > 0 ? 1 : 0;
      wrong += found.wrong.length > 0 ? 1 : 0;
      damaged += found.damage.length > 0 ? 1 : 0;
      const faults = [
        ...found.lost.map((what) => `lost ${what}`),
        ...found.wrong.map((what) => `wrong ${what}`),
        ...found.damage.map((what) => `reported ${what}`),
      ];
      if (faults.length > 0) {
        const kept = join(repositoryRoot(), '.tmp', 'powercut-failures', `${options.name}-${seed}-${number}`);
        if (!options.stopsAtFailure) {
          mkdirSync(join(kept, '..'), { recursive: true });
          // Sockets too, which cpSync refuses.
          spawnSync('cp', ['-a', '--sparse=always', cut.folder, kept]);
        }
        const failure = `cut ${number} (${cut.kind}, ${basename(kept)}): ${faults.join('; ')}`;
        failures.push(failure);
        say(`  ${failure.slice(0, 600)}`);
      }
      if (next?.cut !== cut) rmSync(cut.folder, { recursive: true, force: true });
    });
    await checkers.room(waitingMax);
  };

  while (!isEnough()) {
    lives += 1;
    const lifeFolder = join(folder, `${options.name}-${lives}`);
    acknowledged += await live({
      program: options.program,
      mainJs: options.mainJs,
      folder: lifeFolder,
      part: options.part,
      random,
      names: options.names ?? (lives % 2 === 1 ? 'ordered' : 'own'),
      sectors: () => (random() < 0.5 ? 'ordered' : 'any'),
      ...(past === undefined ? {} : { past }),
      onCut,
      isEnough,
      progress: (text) =>
        say(
          `${options.name}: life ${lives}, ${cuts} cuts, ${Math.round((performance.now() - startMs) / 1000)} s: ${text}`,
        ),
    });
    await checkers.room(0);
    past = undefined;
    const before = next;
    next = undefined;
    if (before !== undefined) {
      const found = await before.verdict;
      if (lives % livesOfOneDisk !== 0 && found.lost.length === 0) {
        const telemetry = new Map(
          found.found.map(({ deviceId, numbers }) => [
            deviceId,
            { sent: before.cut.sent.get(deviceId) ?? 0, found: numbers },
          ]),
        );
        past = { image: join(before.cut.folder, 'image'), ledger: { ...before.cut.past, telemetry } };
      }
    }
    if (past === undefined) rmSync(lifeFolder, { recursive: true, force: true });
  }
  return {
    seed,
    cuts,
    lives,
    acknowledged,
    owed,
    lost,
    wrong,
    damaged,
    repairs,
    kinds: Object.fromEntries(kinds.map((kind) => [kind, counts.get(kind) ?? 0])),
    neverHit: options.part === 'all' ? kinds.filter((kind) => !counts.has(kind)) : [],
    openMsMax: Math.round(openMsMax),
    seconds: Math.round((performance.now() - startMs) / 1000),
    failures,
  };
}

function namesOf(text: string | undefined): Names | undefined {
  if (text === undefined || text === 'ordered' || text === 'own' || text === 'posix') return text;
  throw new Error(`--names: expected ordered, own or posix, not ${text}`);
}

function partOf(text: string): Part {
  if (text === 'all' || text === 'restore' || text === 'growth') return text;
  throw new Error(`--part: expected all, restore or growth, not ${text}`);
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    args: argv.slice(2),
    options: {
      cuts: { type: 'string', default: '50' },
      seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
      names: { type: 'string' },
      check: { type: 'string' },
      mutate: { type: 'boolean', default: false },
      mutant: { type: 'string' },
      part: { type: 'string', default: 'all' },
    },
  });
  if (values.check !== undefined) {
    process.stdout.write(
      `${JSON.stringify({ ...(await checkCut(values.check, undefined)), found: undefined }, null, 2)}\n`,
    );
    return;
  }
  const missing = stalledDiskMissing();
  if (missing !== undefined) {
    say(`The power-cut suite needs ${missing}.`);
    process.exitCode = 2;
    return;
  }
  const folder = powerCutFolder();
  const shared = {
    seed: Number(values.seed),
    names: namesOf(values.names),
    program: await buildPowerDisk(folder),
    folder,
    checkers: new Checkers(),
  };
  const dist = join(repositoryRoot(), 'dist');
  if (values.mutate || values.mutant !== undefined) {
    process.exitCode = (await mutate(shared, Number(values.cuts), dist, values.mutant)) ? 0 : 1;
    return;
  }
  const result = await runSuite({
    ...shared,
    cuts: Number(values.cuts),
    mainJs: join(dist, 'main.js'),
    stopsAtFailure: false,
    name: 'suite',
    part: partOf(values.part),
  });
  process.stdout.write(`${JSON.stringify(result, null, 2)}\n`);
  say(
    `${result.cuts} power cuts in ${result.lives} lives, ${result.acknowledged} messages acknowledged: ` +
      `${result.lost} cuts with a loss, ${result.wrong} with something wrong, ${result.damaged} with damage reported` +
      `${result.neverHit.length > 0 ? `, never hit: ${result.neverHit.join(', ')}` : ''} (seed ${result.seed}, ${result.seconds} s)`,
  );
  if (result.failures.length > 0 || result.neverHit.length > 0) process.exitCode = 1;
}

/** The suite must see what it is there to see. */
async function mutate(
  shared: Pick<SuiteOptions, 'seed' | 'names' | 'program' | 'folder' | 'checkers'>,
  cuts: number,
  dist: string,
  only: string | undefined,
): Promise<boolean> {
  const results = [];
  for (const mutant of mutants.filter(({ name }) => only === undefined || only === name)) {
    const copy = join(repositoryRoot(), '.tmp', 'powercut-mutants', mutant.name);
    rmSync(copy, { recursive: true, force: true });
    mkdirSync(copy, { recursive: true });
    cpSync(dist, join(copy, 'dist'), { recursive: true });
    cpSync(join(repositoryRoot(), 'package.json'), join(copy, 'package.json'));
    mutant.apply(join(copy, 'dist'));
    const result = await runSuite({
      ...shared,
      names: mutant.names,
      cuts,
      mainJs: join(copy, 'dist', 'main.js'),
      stopsAtFailure: true,
      name: mutant.name,
      part: mutant.part,
    });
    const isFound = result.failures.length > 0;
    results.push({
      mutant: mutant.name,
      without: mutant.without,
      names: mutant.names,
      isFound,
      cuts: result.cuts,
      seconds: result.seconds,
      how: result.failures[0],
    });
    say(
      `${mutant.name}: ${isFound ? `found after ${result.cuts} cuts` : `NOT FOUND in ${result.cuts} cuts`}`,
    );
  }
  process.stdout.write(`${JSON.stringify(results, null, 2)}\n`);
  return results.length > 0 && results.every(({ isFound }) => isFound);
}

if (existsSync(argv[1] ?? '') && import.meta.url.endsWith(basename(argv[1] ?? ''))) {
  await main();
  process.exit();
}
