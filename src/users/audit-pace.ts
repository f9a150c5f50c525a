// How much whoever is no user writes into the audit log. A device that was taken over must not push what people did out
// of it by doing the same thing again and again: after some entries it is one now and then. Promises: what is left out
// is counted, and the next entry of the same actor says how much it was; memory is bounded.

/** Devices, service accounts, and whoever logs in from an address. People and the command line write as they like. */
const paced = /^(device:|service:|anyone@)/;

const burst = 50;
/** At this pace one actor needs a month to fill the log. */
const intervalMs = 5 * 60_000;
const actorsMax = 2_000;

interface Bucket {
  entries: number;
  atMs: number;
  skipped: number;
}

export class AuditPace {
  /** The one that wrote longest ago comes first. */
  readonly #buckets = new Map<string, Bucket>();
  #skipped = 0;

  get skipped(): number {
    return this.#skipped;
  }

  /** How many entries of the actor were left out before this one; undefined: this one is to be left out. */
  pass(actor: string, nowMs: number): number | undefined {
    if (!paced.test(actor)) return 0;
    const bucket = this.#buckets.get(actor) ?? { entries: burst, atMs: nowMs, skipped: 0 };
    this.#buckets.delete(actor);
    this.#buckets.set(actor, bucket);
    const [oldest] = this.#buckets.keys();
    if (this.#buckets.size > actorsMax && oldest !== undefined) this.#buckets.delete(oldest);
    bucket.entries = Math.min(burst, bucket.entries + (nowMs - bucket.atMs) / intervalMs);
    bucket.atMs = nowMs;
    if (bucket.entries < 1) {
      bucket.skipped += 1;
      this.#skipped += 1;
      return undefined;
    }
    const { skipped } = bucket;
    bucket.entries -= 1;
    bucket.skipped = 0;
    return skipped;
  }
}
