// The durable log as this source needs it; the journal's hot state satisfies it. Declared here because a source
// does not import the journal.

export interface LogWrite {
  /** At most 512 bytes of UTF-8. */
  readonly key: string;
  /** Undefined deletes. */
  readonly value: Buffer | undefined;
}

export interface SessionLog {
  /** Milliseconds it has been open, over all starts: what must not end because a clock was set. */
  readonly runningMs: number;
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]>;
  get(key: string): Promise<Buffer | undefined>;
  /** Resolves when durable. Rejects with a `GatewayError` when it may succeed later. */
  write(writes: readonly LogWrite[]): Promise<void>;
  /** For what may be repeated after a power cut. */
  writeLazily(writes: readonly LogWrite[]): void;
}
