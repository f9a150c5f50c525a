// What the journal promises to the rest of the house. Other rooms import these types and no more.

import type { Transport } from '../model/message.ts';
import type { PointClass, PointTime } from '../model/point.ts';

/** One write of hot state: small keyed values that change with traffic and ride the journal's group commit. */
export interface StateWrite {
  /** `{tenant}/…`, at most 512 bytes of UTF-8. */
  readonly key: string;
  /** Undefined deletes. */
  readonly value: Buffer | undefined;
}

export interface Append {
  readonly class: PointClass;
  /** Line protocol with nanosecond timestamps; every line ends in `\n`. */
  readonly lines: string;
  /** Some of the lines end in ` b<boot>+<nanoseconds>`: handed out once their dates are known, and not before. */
  readonly undated?: true;
  /** How many lines. Zero is allowed when only state is written. */
  readonly points: number;
  /** Written in the same frame: after a power cut either all of this append is there or none. */
  readonly state?: readonly StateWrite[];
}

/**
 * Says when a point without a date was. Where that can only be bounded, `isCertain` is false and the time is the
 * latest it can have been.
 */
export type Dating = (
  boot: number,
  bootNs: bigint,
) => { readonly timeNs: bigint; readonly isCertain: boolean };

export interface Appender {
  /**
   * Resolves only after everything in it has been fsynced; appends made meanwhile share the next fsync.
   * Resolves in the order of the calls.
   * @throws GatewayError `JOURNAL_FULL` (no room: refused, nothing stored), `JOURNAL_STALLED` (more bytes wait
   * for the disk than `pendingBytesMax`), `JOURNAL_FAILED` (the write failed; whether it is stored is unknown),
   * `JOURNAL_TOO_LARGE` (more than 1 MiB, or than a small segment holds: refused for good, nothing stored),
   * `JOURNAL_CLOSED` (refused, nothing stored).
   */
  append(append: Append): Promise<void>;
  /** Bytes accepted by `append` and not yet durable. */
  readonly pendingBytes: number;
}

export interface HotState {
  /** All live entries whose key starts with the prefix, in key order. */
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]>;
  get(key: string): Promise<Buffer | undefined>;
  /** Resolves when durable, in the same group commit as everything else. Throws as `append` does. */
  write(writes: readonly StateWrite[]): Promise<void>;
  /**
   * For what may be repeated after a power cut (an acknowledgement of a message that would only be sent twice):
   * rides with the next commit, at the latest after `lazyMs`. Reads see it at once. Never throws for the disk.
   */
  writeLazily(writes: readonly StateWrite[]): void;
}

/** `fresh`: what came in since the uplink last returned. `backlog`: everything older. `urgent`: alarms, events. */
export type Lane = 'urgent' | 'fresh' | 'backlog';

/**
 * Points handed to the forwarder. Exactly one of accept, bury or release ends it. When accept or bury rejects, the
 * batch is still held.
 */
export interface Batch {
  readonly lane: Lane;
  readonly points: number;
  /** Encoding of `body`: line protocol as is, or gzip (possibly several members). */
  readonly encoding: 'identity' | 'gzip';
  readonly body: Buffer;
}

export interface DeadLetter {
  /** Who refused it: `ingest`, `influx`, `bridge`. */
  readonly stage: string;
  /** Stable, for machines: `FIELD_TYPE_CONFLICT`, `NOT_JSON`, `INFLUX_REJECTED`. */
  readonly code: string;
  /** For people: which field, what was expected. */
  readonly reason: string;
  readonly deviceId?: string;
  /** Where it came from: the topic, or the measurement. */
  readonly origin?: string;
  /** The original payload, or the line that was refused. */
  readonly bytes: Buffer;
  /** What it would have been stored as; telemetry when absent. */
  readonly class?: PointClass;
  readonly transport?: Transport;
  /** The time a sample gets that says nothing about its own: that of its arrival, never that of a replay. */
  readonly time?: PointTime;
  /** How often it was replayed and refused again. */
  readonly attempts?: number;
}

/** A letter as it is kept. */
export interface StoredLetter extends DeadLetter {
  readonly id: string;
  /** When it was added, by the wall clock. */
  readonly wallMs: number;
  /** Whether `bytes` is only the beginning. */
  readonly isCut: boolean;
}

export interface DeadLetters {
  /** Resolves when durable. At the cap the oldest letters go, counted. */
  add(letter: DeadLetter): Promise<void>;
  /**
   * What a letter became when it was replayed, in its place: the points and the letters, and the end of the old
   * one, in one append; after a power cut either the letter is there or what it became. Resolves to false when
   * there is no such letter, or somebody else replaces it just now.
   * @throws GatewayError as `append` does; the letter is then still there.
   */
  replace(id: string, append: Append, letters: readonly DeadLetter[]): Promise<boolean>;
}

/** The journal as the forwarder sees it. */
export interface Spool {
  /**
   * The oldest points of the lane that nobody holds and whose dates are known, at most `pointsMax` of them (a single stored entry may
   * exceed it). Undefined when there is nothing to take.
   */
  take(lane: Lane, pointsMax: number): Promise<Batch | undefined>;
  /** InfluxDB took all of it: forget it. */
  accept(batch: Batch): Promise<void>;
  /**
   * InfluxDB took all but these lines, which become dead letters before the batch is forgotten. When it rejects,
   * some of them may be there already; trying again adds them once more.
   * @throws GatewayError as `append` does.
   */
  bury(batch: Batch, letters: readonly DeadLetter[]): Promise<void>;
  /** Not delivered: it is the first to be taken again. */
  release(batch: Batch): void;
  /** The uplink came back: what waits now is backlog, what comes from now on is fresh. */
  uplinkReturned(): void;
  /** Called soon after points became available to `take` (at most once per commit). One listener. */
  onAvailable(listener: () => void): void;
  /** Points waiting or held, by lane; cheap. Without those whose dates are not known yet. */
  pending(): Readonly<Record<Lane, number>>;
}
