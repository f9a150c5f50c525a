// A virtual node: a sensor, a link and the patience of real firmware. It numbers its readings, keeps those that were
// not acknowledged, beats its heart and does what it is commanded. Promises an exact count of what it made and of
// what became of it; does not promise to survive its own process.

import type { CommandAnswer, CommandListener, Delivery, Link, NodeCommand } from './link.ts';
import type { Random } from './random.ts';
import { createSensor, type NodeKind, type Reading, type Sensor, type Surroundings } from './readings.ts';

export interface SimulatedNodeOptions {
  readonly kind: NodeKind;
  readonly intervalMs: number;
  /** Share of readings that the node's radio loses before they are sent, 0 to 1. */
  readonly lossShare: number;
  readonly random: Random;
  /** Opens the way to the gateway; the node answers the commands that come in on it. */
  readonly openLink: (onCommand: CommandListener) => Link;
  /** Before the first reading: a fleet does not measure in step. Default 0. */
  readonly startDelayMs?: number;
  /** Between heartbeats; none when absent. */
  readonly heartbeatIntervalMs?: number;
  /** Readings kept while the gateway is away; the newest is dropped. Default 10,000. */
  readonly readingsMax?: number;
}

export interface NodeFigures {
  /** Readings handed to the link. */
  readonly sent: number;
  readonly acknowledged: number;
  /** Refused for good by the gateway. */
  readonly refused: number;
  /** Lost on purpose, by `lossShare`. */
  readonly lost: number;
  /** Made while too many waited for the gateway. */
  readonly overflowed: number;
  /** Heartbeats acknowledged. */
  readonly heartbeats: number;
  /** Commands taken, whatever the answer. */
  readonly commands: number;
  readonly reconnects: number;
  readonly connected: boolean;
  /** Why the gateway last refused a reading, or refused or dropped the connection. */
  readonly lastError: string | undefined;
}

const latenciesMax = 10_000;
const intervalMsMax = 86_400_000;

export class SimulatedNode {
  readonly #options: SimulatedNodeOptions;
  readonly #link: Link;
  readonly #sensor: Sensor;
  readonly #around: Surroundings = { isWet: false, isLocked: true };
  /** Milliseconds from sending to the acknowledgement; the last 10,000. */
  readonly #ackMs: number[] = [];
  #intervalMs: number;
  #timer: NodeJS.Timeout | undefined;
  #heartbeatTimer: NodeJS.Timeout | undefined;
  #isFailed = false;
  #isPaused = false;
  #isCutOff = false;
  #boot = 0;
  #seq = 0;
  #sent = 0;
  #acknowledged = 0;
  #refused = 0;
  #lost = 0;
  #overflowed = 0;
  #heartbeats = 0;
  #commands = 0;
  #refusal: string | undefined;

  private constructor(options: SimulatedNodeOptions) {
    this.#options = options;
    this.#intervalMs = options.intervalMs;
    this.#sensor = createSensor(options.kind, options.random, this.#around);
    this.#link = options.openLink((command) => this.#obey(command));
    this.#startAnew();
  }

  /** Returns at once; the node connects, and connects again, on its own. */
  static start(options: SimulatedNodeOptions): SimulatedNode {
    const node = new SimulatedNode(options);
    const { startDelayMs = 0, heartbeatIntervalMs } = options;
    if (startDelayMs === 0) node.#measure();
    else node.#timer = setTimeout(() => node.#measure(), startDelayMs);
    if (heartbeatIntervalMs !== undefined) {
      node.#heartbeatTimer = setInterval(() => node.#beat(), heartbeatIntervalMs);
    }
    return node;
  }

  #startAnew(): void {
    this.#boot = Math.floor(this.#options.random() * 4_294_967_296);
    this.#seq = 0;
  }

  #measure(): void {
    this.#timer = setTimeout(() => this.#measure(), this.#intervalMs);
    if (this.#isFailed || this.#isPaused) return;
    const reading = this.#sensor(this.#intervalMs);
    this.#seq += 1;
    if (this.#options.random() < this.#options.lossShare) {
      this.#lost += 1;
      return;
    }
    this.#send(reading);
  }

  #send(reading: Reading): void {
    if (this.#sent - this.#acknowledged - this.#refused >= (this.#options.readingsMax ?? 10_000)) {
      this.#overflowed += 1;
      return;
    }
    const sentMs = performance.now();
    this.#sent += 1;
    const extra = { timestamp: Date.now(), boot: this.#boot, seq: this.#seq };
    void this.#link.sendReading(reading, extra).then((delivery) => this.#note(delivery, sentMs));
  }

  #note(delivery: Delivery, sentMs: number): void {
    if (delivery.kind === 'refused') {
      this.#refused += 1;
      this.#refusal = delivery.reason;
      return;
    }
    this.#acknowledged += 1;
    this.#ackMs.push(performance.now() - sentMs);
    if (this.#ackMs.length > latenciesMax) this.#ackMs.shift();
  }

  #beat(): void {
    if (this.#isFailed) return;
    void this.#link.sendHeartbeat().then(({ kind }) => {
      if (kind === 'acknowledged') this.#heartbeats += 1;
    });
  }

  #obey({ kind, payload }: NodeCommand): CommandAnswer {
    this.#commands += 1;
    switch (kind) {
      case 'lock':
      case 'unlock':
        if (this.#options.kind !== 'door-lock') break;
        this.#around.isLocked = kind === 'lock';
        this.#show();
        return { status: 'ok' };
      case 'snapshot':
        if (this.#options.kind !== 'camera') break;
        this.#show();
        return { status: 'ok' };
      case 'config':
        return this.#configure(payload.interval_ms);
      case 'reboot':
        this.#startAnew();
        return { status: 'ok' };
    }
    return { status: 'failed', message: `a ${this.#options.kind} does not know ${kind}` };
  }

  #configure(intervalMs: unknown): CommandAnswer {
    // Keys it does not know are for newer firmware.
    if (intervalMs === undefined) return { status: 'ok' };
    if (typeof intervalMs !== 'number' || !(intervalMs >= 1 && intervalMs <= intervalMsMax)) {
      return { status: 'failed', message: `interval_ms: expected 1 to ${intervalMsMax}` };
    }
    this.setInterval(intervalMs);
    return { status: 'ok' };
  }

  /** A change is sent at once and never lost on purpose, as firmware does. */
  #show(): void {
    if (this.#isFailed) return;
    this.#seq += 1;
    this.#send(this.#sensor(0));
  }

  /** Puts the probe into water, or dries it. */
  setWet(wet: boolean): void {
    if (wet === this.#around.isWet) return;
    this.#around.isWet = wet;
    this.#show();
  }

  /** No power: it measures nothing and its connection ends without a goodbye; with power it starts anew. */
  setFailed(isFailed: boolean): void {
    if (isFailed === this.#isFailed) return;
    this.#isFailed = isFailed;
    if (!isFailed) this.#startAnew();
    this.#link.setReach(!isFailed && !this.#isCutOff);
  }

  /** No network: it measures on, and delivers when it is back. */
  setCutOff(isCutOff: boolean): void {
    this.#isCutOff = isCutOff;
    this.#link.setReach(!isCutOff && !this.#isFailed);
  }

  /** It stays connected and measures nothing. */
  setPaused(isPaused: boolean): void {
    this.#isPaused = isPaused;
  }

  setInterval(intervalMs: number): void {
    this.#intervalMs = intervalMs;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#measure(), intervalMs);
  }

  get isFailed(): boolean {
    return this.#isFailed;
  }

  figures(): NodeFigures {
    const { isConnected, reconnects, lastError } = this.#link.figures();
    return {
      sent: this.#sent,
      acknowledged: this.#acknowledged,
      refused: this.#refused,
      lost: this.#lost,
      overflowed: this.#overflowed,
      heartbeats: this.#heartbeats,
      commands: this.#commands,
      reconnects,
      connected: isConnected,
      lastError: lastError ?? this.#refusal,
    };
  }

  /** Milliseconds from sending to the acknowledgement, unordered; the last 10,000. */
  ackLatenciesMs(): readonly number[] {
    return this.#ackMs;
  }

  /** Stops measuring, waits up to `drainMs` for the outstanding acknowledgements, disconnects. */
  async stop(drainMs: number): Promise<void> {
    clearTimeout(this.#timer);
    clearInterval(this.#heartbeatTimer);
    const deadlineMs = performance.now() + drainMs;
    while (this.#acknowledged + this.#refused < this.#sent && performance.now() < deadlineMs) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    await this.#link.close();
  }
}
