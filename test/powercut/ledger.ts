// What clients sent, and when each of them was told that it is kept: the ledger a cut is compared with. Times are
// those of `process.hrtime`, which the disk has as well, so a cut says by itself what had been acknowledged.

export function nowNs(): number {
  return Number(process.hrtime.bigint());
}

/** From and to, both included. */
export type Run = readonly [from: number, to: number];

/** Messages of one sender, numbered from 1. */
export class Stream {
  readonly #sentNs: number[] = [0];
  readonly #keptNs: number[] = [0];
  /** Where the ledger no longer asks for a message: the database has it. */
  readonly #storedNs: number[] = [0];

  get sent(): number {
    return this.#sentNs.length - 1;
  }

  get acknowledged(): number {
    return this.#keptNs.reduce((count, ns) => count + (ns > 0 ? 1 : 0), 0);
  }

  /** Answers its number. */
  send(): number {
    this.#sentNs.push(nowNs());
    return this.sent;
  }

  acknowledge(n: number): void {
    this.#keptNs[n] ??= nowNs();
  }

  store(n: number): void {
    this.#storedNs[n] ??= nowNs();
  }

  sentBefore(ns: number): number {
    let count = this.sent;
    while (count > 0 && (this.#sentNs[count] ?? 0) >= ns) count -= 1;
    return count;
  }

  /** Acknowledged before, and not in the database by then. */
  owedAt(ns: number): Run[] {
    return runsOf(
      this.#keptNs.flatMap((keptNs, n) => {
        return n > 0 && keptNs < ns && (this.#storedNs[n] ?? Infinity) >= ns ? [n] : [];
      }),
    );
  }

  /** The newest acknowledged before, 0 when there is none. */
  newestAt(ns: number): number {
    let n = this.sent;
    while (n > 0 && (this.#keptNs[n] ?? Infinity) >= ns) n -= 1;
    return n;
  }

  /** After a cut that is lived on from: what was found is owed from now on, and nothing else of what came before. */
  static resume(sent: number, found: readonly Run[]): Stream {
    const stream = new Stream();
    for (let n = 1; n <= sent; n += 1) stream.#sentNs.push(1);
    for (const n of numbersOf(found)) stream.#keptNs[n] = 1;
    return stream;
  }
}

export function runsOf(numbers: readonly number[]): Run[] {
  const runs: [number, number][] = [];
  for (const n of numbers) {
    const last = runs[runs.length - 1];
    if (last !== undefined && last[1] === n - 1) last[1] = n;
    else runs.push([n, n]);
  }
  return runs;
}

export function* numbersOf(runs: readonly Run[]): Iterable<number> {
  for (const [from, to] of runs) for (let n = from; n <= to; n += 1) yield n;
}

/** What must be found after a cut. Lies beside it, so that a cut can be checked again. */
export interface Expectation {
  readonly kind: string;
  readonly seed: number;
  readonly names: string;
  readonly sectors: string;
  readonly event: string;
  readonly path: string;
  /** Of the gateway that opens it. */
  readonly ringSegments: number;
  /** Every point is `startMs` + its number. */
  readonly startMs: number;
  readonly telemetry: readonly {
    readonly deviceId: string;
    readonly owed: readonly Run[];
    readonly sent: number;
  }[];
  readonly retained: readonly {
    readonly topic: string;
    readonly least: number;
    readonly most: number;
  }[];
  /** Notes for a subscriber that is away. Undefined: it had not subscribed yet. */
  readonly queue: { readonly apiKey: string; readonly owed: readonly Run[] } | undefined;
  readonly accounts: readonly { readonly deviceId: string; readonly apiKey: string }[];
  readonly letters: { readonly least: number; readonly most: number };
  /** Commands of this life's valve, numbered from 1. */
  readonly commands: {
    readonly deviceId: string;
    /** Accepted, whatever became of them. */
    readonly owed: readonly Run[];
    /** Their answer was acknowledged: they must not be given to the valve again. */
    readonly done: readonly Run[];
    readonly sent: number;
  };
  /** Devices whose leak was acknowledged. */
  readonly wet: readonly string[];
  /** The authority devices were told to trust. */
  readonly authority: string | undefined;
  /** Points the gateway itself said it gave up at its cap. */
  readonly dropped: number;
}

/** What clients were told, without what the cut adds. */
export type Owed = Omit<
  Expectation,
  'kind' | 'seed' | 'names' | 'sectors' | 'event' | 'path' | 'ringSegments' | 'authority' | 'dropped'
>;

export interface Verdict {
  /** Acknowledged and not there: none is allowed. */
  readonly lost: readonly string[];
  /** There and never sent, or changed. */
  readonly wrong: readonly string[];
  /** What the gateway reported broken although nothing but the power was. */
  readonly damage: readonly string[];
  readonly found: readonly { readonly deviceId: string; readonly numbers: readonly Run[] }[];
  readonly repairs: number;
  readonly owed: number;
  readonly openMs: number;
  readonly drainMs: number;
}
