// Where the forwarder's batches go: InfluxDB, or another room's way to something else.

import type { WriteOutcome } from './answer.ts';

export interface Uplink {
  /** For people: `InfluxDB`. */
  readonly name: string;
  /** Of its dead letters: `influx`. */
  readonly stage: string;
  /** Of what was sent, repetitions included. */
  readonly sentBytes: number;
  /** Resolves always. @param signal cuts it off; the outcome is then `retry` */
  write(body: Buffer, encoding: 'identity' | 'gzip', signal: AbortSignal): Promise<WriteOutcome>;
  close(): void;
}
