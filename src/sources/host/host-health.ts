// The gateway as a device of its own: CPU, temperature, throttling, memory, disk, network and event-loop delay,
// once an interval, as one message of measurement `host_health` and as gauges. Promises to be cheap enough not
// to show in its own figures, and never to have two looks under way. A sample the journal refuses is counted
// and gone: the next one says it better.

import { type IntervalHistogram, monitorEventLoopDelay } from 'node:perf_hooks';
import type { Sink } from '../../model/message.ts';
import type { Clock } from '../../platform/clock.ts';
import { errorCode } from '../../platform/errors.ts';
import type { Log } from '../../platform/log.ts';
import { type CpuTimes, type SampleOptions, takeSample } from './sample.ts';

/** Undefined is not reported. */
export interface CardWear {
  readonly bytesPerDay: number | undefined;
  readonly ownBytesPerPoint: number | undefined;
  readonly lifeYears: number | undefined;
  readonly budgetBytesPerDay: number;
  readonly lingerMs: number;
}

export interface HostHealthOptions {
  readonly sink: Sink;
  /** Whose points these are. */
  readonly gatewayDeviceId: string;
  readonly dataDirectory: string;
  /** What is known of the card's wear. */
  readonly card?: () => CardWear;
  readonly clock: Clock;
  readonly log: Log;
  readonly intervalMs?: number;
  /** A look that takes longer (a hanging network disk) is given up. */
  readonly sampleMsMax?: number;
  /** Elsewhere in tests. */
  readonly procDirectory?: string;
  readonly sysDirectory?: string;
}

const defaults = {
  intervalMs: 30_000,
  sampleMsMax: 5_000,
  procDirectory: '/proc',
  sysDirectory: '/sys',
  // The finer the resolution, the more often Node wakes up for it.
  eventLoopResolutionMs: 20,
} as const;

export interface HostHealthStats {
  readonly samples: number;
  readonly missed: number;
  /** The newest sample, by field. */
  readonly gauges: Readonly<Record<string, number | boolean>>;
}

export class HostHealth {
  readonly #options: HostHealthOptions;
  readonly #sampleOptions: SampleOptions;
  readonly #eventLoop: IntervalHistogram;
  #timer: NodeJS.Timeout | undefined;
  #cpuTimes: CpuTimes | undefined;
  #underWay: Promise<void> | undefined;
  #gauges: Readonly<Record<string, number | boolean>> = {};
  #samples = 0;
  #missed = 0;

  private constructor(options: HostHealthOptions) {
    this.#options = options;
    this.#sampleOptions = {
      dataDirectory: options.dataDirectory,
      procDirectory: options.procDirectory ?? defaults.procDirectory,
      sysDirectory: options.sysDirectory ?? defaults.sysDirectory,
    };
    this.#eventLoop = monitorEventLoopDelay({ resolution: defaults.eventLoopResolutionMs });
  }

  /** The first sample is taken at once, without a CPU load: that needs two. */
  static start(options: HostHealthOptions): HostHealth {
    const health = new HostHealth(options);
    health.#eventLoop.enable();
    void health.look();
    health.#timer = setInterval(() => {
      if (health.#underWay !== undefined) health.#missed += 1;
      void health.look();
    }, options.intervalMs ?? defaults.intervalMs);
    health.#timer.unref();
    return health;
  }

  /** Takes a sample now, or joins the one under way. Never rejects. */
  look(): Promise<void> {
    this.#underWay ??= this.#sampleOnce().finally(() => {
      this.#underWay = undefined;
    });
    return this.#underWay;
  }

  stats(): HostHealthStats {
    return { samples: this.#samples, missed: this.#missed, gauges: this.#gauges };
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    this.#eventLoop.disable();
    await this.#underWay;
  }

  async #sampleOnce(): Promise<void> {
    try {
      const receivedMonotonicMs = this.#options.clock.monotonicMs();
      const taken = await withinMs(
        takeSample(this.#sampleOptions, this.#cpuTimes),
        this.#options.sampleMsMax ?? defaults.sampleMsMax,
      );
      if (taken === undefined) {
        this.#missed += 1;
        return;
      }
      this.#cpuTimes = taken.cpuTimes ?? this.#cpuTimes;
      this.#addEventLoop(taken.sample);
      this.#addCard(taken.sample);
      this.#gauges = Object.fromEntries(taken.sample);
      await this.#options.sink({
        transport: 'host',
        deviceId: this.#options.gatewayDeviceId,
        channel: 'telemetry',
        name: 'host_health',
        payload: Buffer.from(JSON.stringify(this.#gauges)),
        receivedMonotonicMs,
      });
      this.#samples += 1;
    } catch (error) {
      this.#missed += 1;
      this.#options.log.debug({ event: 'host_sample_missed', code: errorCode(error) }, 'No host sample');
    }
  }

  #addCard(sample: Map<string, number | boolean>): void {
    const card = this.#options.card?.();
    if (card === undefined) return;
    const fields = {
      card_written_bytes_per_day: card.bytesPerDay,
      card_own_bytes_per_point: card.ownBytesPerPoint,
      card_life_years: card.lifeYears,
      card_budget_bytes_per_day: card.budgetBytesPerDay,
      card_linger_ms: card.lingerMs,
    };
    for (const [name, value] of Object.entries(fields)) if (value !== undefined) sample.set(name, value);
  }

  #addEventLoop(sample: Map<string, number | boolean>): void {
    // Nanoseconds; before the first tick the histogram answers with absurd extremes.
    const p99Ms = this.#eventLoop.percentile(99) / 1e6;
    const maxMs = this.#eventLoop.max / 1e6;
    this.#eventLoop.reset();
    const { eventLoopResolutionMs } = defaults;
    if (!Number.isFinite(p99Ms) || p99Ms <= 0 || maxMs <= 0) return;
    sample.set('event_loop_delay_p99_ms', Math.max(0, p99Ms - eventLoopResolutionMs));
    sample.set('event_loop_delay_max_ms', Math.max(0, maxMs - eventLoopResolutionMs));
  }
}

/** Undefined when it takes longer; what it does then is of no interest. */
async function withinMs<T>(work: Promise<T>, timeoutMs: number): Promise<T | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const timeout = new Promise<undefined>((resolve) => {
    timer = setTimeout(() => resolve(undefined), timeoutMs);
  });
  try {
    return await Promise.race([work, timeout]);
  } finally {
    clearTimeout(timer);
  }
}
