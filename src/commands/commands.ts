// The outbox: what devices are to do, kept until they have it. Promises: a command that was accepted survives power
// cuts and reaches its device, asleep or not, at least once and in order, unless it expires, is cancelled or refused
// first; after any of these, or an acknowledgement, it is not handed over again. A caller's idempotency key names one
// command, however often it is asked for.
// Exactly once cannot be had: a power cut between carrying out and saying so leaves both sides unsure. The id in every
// copy lets a node tell. It does not know how devices are reached (model/command.ts) nor what commands mean.

import { createHash } from 'node:crypto';
import { commandKindPattern, type Delivery, type Downlink } from '../model/command.ts';
import type { Message } from '../model/message.ts';
import { backoffMs } from '../platform/backoff.ts';
import type { Clock } from '../platform/clock.ts';
import { GatewayError } from '../platform/errors.ts';
import type { Log } from '../platform/log.ts';
import { readAcknowledgement } from './acknowledgement.ts';
import { ageOf, type CommandTime, momentOf } from './age.ts';
import {
  bytesOf,
  type Command,
  type CommandPayload,
  type CommandState,
  commandKey,
  commandKeyPrefix,
  decodeCommand,
  encodeCommand,
  isFinished,
} from './command.ts';
import { type ShownCommand, shownCommand } from './shown.ts';

interface StateWrite {
  readonly key: string;
  readonly value: Buffer | undefined;
}

/** The journal's hot state, as far as it is needed here. */
export interface CommandKeeper {
  entries(prefix: string): AsyncIterable<readonly [key: string, value: Buffer]>;
  write(writes: readonly StateWrite[]): Promise<void>;
  writeLazily(writes: readonly StateWrite[]): void;
}

export interface CommandLimits {
  /** A caller that names no expiry means this. */
  readonly expiresInMs: number;
  readonly pendingPerDeviceMax: number;
  readonly pendingMax: number;
  /** Finished commands remembered; with one its idempotency key is forgotten. */
  readonly finishedPerDeviceMax: number;
  readonly finishedMax: number;
  /** Payloads of all, finished ones included, which make room first. */
  readonly bytesMax: number;
  /** How often a command is given to a device that does not confirm it, or does not answer it. */
  readonly attemptsMax: number;
  readonly retryMs: number;
  readonly retryMsMax: number;
}

export const defaultCommandLimits: CommandLimits = {
  expiresInMs: 86_400_000,
  pendingPerDeviceMax: 100,
  pendingMax: 2_000,
  finishedPerDeviceMax: 100,
  finishedMax: 5_000,
  bytesMax: 8 * 1024 * 1024,
  attemptsMax: 10,
  retryMs: 10_000,
  retryMsMax: 300_000,
};

export interface CommandsOptions {
  readonly keeper: CommandKeeper;
  readonly time: CommandTime;
  readonly clock: Pick<Clock, 'monotonicMs'>;
  /** Uniform in [0, 1), for jitter. */
  readonly random: () => number;
  readonly randomBytes: (size: number) => Buffer;
  /** The registry's entry; undefined: there is no such device. */
  readonly device: (deviceId: string) => { readonly id: number; readonly status: string } | undefined;
  readonly log: Log;
  readonly limits?: Partial<CommandLimits>;
  /** How long a new command waits for the disk before it goes without. */
  readonly diskPatienceMs?: number;
}

export interface NewCommand {
  readonly deviceId: string;
  readonly kind: string;
  readonly payload: CommandPayload;
  /** Null: never. */
  readonly expiresInMs?: number | null;
  readonly idempotencyKey?: string;
  readonly actor: string;
}

const payloadBytesMax = 8_192;
const expiresInMsMax = 30 * 86_400_000;
const tickMs = 1000;
/** A card takes a commit in less, or hangs. */
const diskPatienceMs = 250;
/** What is wanted now makes obsolete what was wanted before. */
const replacingKinds: ReadonlySet<string> = new Set(['config']);

const revoked = 'the device may not connect any more';

/** What concerns one device. */
interface Lane {
  readonly deviceId: string;
  /** In the order of their numbers, as they are to be delivered. */
  readonly pending: Set<Command>;
  readonly finished: Set<Command>;
  readonly byId: Map<string, Command>;
  readonly byKey: Map<string, Command>;
  /** Monotonic milliseconds before which a command is not given to the device again. */
  readonly dueMs: Map<Command, number>;
  isDelivering: boolean;
  /** It did not listen when last tried; until it does, it is not tried again. */
  isAway: boolean;
  timesReached: number;
  /** It has answered with an id, so it can tell a copy from a new command. */
  knowsIds: boolean;
}

export class Commands {
  readonly #options: CommandsOptions;
  readonly #limits: CommandLimits;
  readonly #lanes = new Map<string, Lane>();
  /** Of all devices, in the order in which they finished. */
  readonly #finished = new Set<Command>();
  readonly #downlinks: Downlink[] = [];
  /** Durable, or being made so, in the state they are in now. */
  readonly #saving = new Map<Command, Promise<void>>();
  readonly #unsaved = new WeakSet<Command>();
  /** Not durable yet, and not given to anybody. */
  readonly #fresh = new Set<Command>();
  /** So that a message that is taken again answers the same command. */
  readonly #answered = new WeakMap<Message, Command>();
  readonly #listeners: ((command: Command) => void)[] = [];
  readonly #counts = {
    submitted: 0,
    repeatedSubmits: 0,
    refusedFull: 0,
    attempts: 0,
    acknowledged: 0,
    failed: 0,
    expired: 0,
    cancelled: 0,
    lateAcknowledgements: 0,
    unmatchedAcknowledgements: 0,
    unreadableAcknowledgements: 0,
    damagedRecords: 0,
  };
  #nextSeq = 1;
  #pending = 0;
  #bytes = 0;
  #ticking: NodeJS.Timeout | undefined;
  #isClosed = false;

  private constructor(options: CommandsOptions) {
    this.#options = options;
    this.#limits = { ...defaultCommandLimits, ...options.limits };
  }

  static async open(options: CommandsOptions): Promise<Commands> {
    const commands = new Commands(options);
    for await (const [key, bytes] of options.keeper.entries(commandKeyPrefix)) {
      const command = decodeCommand(key, bytes);
      if (command === undefined) commands.#counts.damagedRecords += 1;
      if (command !== undefined && isFor(options.device(command.deviceId), command))
        commands.#restore(command);
      else options.keeper.writeLazily([{ key, value: undefined }]);
    }
    for (const lane of commands.#lanes.values()) {
      commands.#replaceOlder(lane);
      // Revoked while no gateway ran.
      if (!mayConnect(options.device(lane.deviceId))) commands.withdraw(lane.deviceId);
    }
    commands.tick();
    commands.#ticking = setInterval(() => commands.tick(), tickMs).unref();
    return commands;
  }

  /** Another way to devices. */
  attach(downlink: Downlink): void {
    this.#downlinks.push(downlink);
    downlink.onReachable((deviceId) => this.#reached(deviceId));
    for (const lane of this.#lanes.values()) {
      lane.isAway = false;
      this.#deliverNext(lane);
    }
  }

  /**
   * Resolves when the command is durable. It goes to its device then, or a moment later if the card hangs: who closes a
   * valve does not wait for that. So a full disk refuses a command whole; rejected later than that, it may have reached
   * its device all the same.
   * @throws GatewayError `DEVICE_UNKNOWN`, `DEVICE_CONFLICT` (it may not connect), `COMMAND_INVALID`,
   * `COMMAND_CONFLICT` (the key names another command), `COMMANDS_FULL`, and as the journal does.
   */
  async submit(wanted: NewCommand): Promise<Command> {
    const { deviceId, idempotencyKey } = wanted;
    checkCommand(wanted);
    const known = this.#lanes.get(deviceId);
    const before = idempotencyKey === undefined ? undefined : known?.byKey.get(idempotencyKey);
    if (before !== undefined) {
      if (!isSame(before, wanted)) {
        throw new GatewayError('COMMAND_CONFLICT', 'this idempotency key was given to another command');
      }
      this.#counts.repeatedSubmits += 1;
      await this.#saved(before);
      return before;
    }
    const deviceNumber = this.#numberOf(deviceId);
    const lane = this.#laneOf(deviceId);
    const command = this.#newCommand(wanted, deviceNumber);
    this.#makeRoom(lane, command.bytes);
    this.#add(lane, command);
    this.#counts.submitted += 1;
    this.#fresh.add(command);
    const release = (): void => {
      if (this.#fresh.delete(command)) this.#deliverNext(lane);
    };
    const patience = setTimeout(release, this.#options.diskPatienceMs ?? diskPatienceMs).unref();
    try {
      await this.#save(command);
    } catch (error) {
      this.#forget(lane, command);
      throw error;
    } finally {
      clearTimeout(patience);
      release();
    }
    this.#replaceOlder(lane);
    this.#tell(command);
    return command;
  }

  find(deviceId: string, commandId: string): Command | undefined {
    return this.#lanes.get(deviceId)?.byId.get(commandId);
  }

  /** All that are known of the device, in the order they were given. */
  list(deviceId: string): Command[] {
    const lane = this.#lanes.get(deviceId);
    if (lane === undefined) return [];
    return [...lane.finished, ...lane.pending].sort((a, b) => a.seq - b.seq);
  }

  /**
   * What the device asks for itself, where it cannot be reached: these are then delivered. Until it answers they are
   * given again.
   */
  collect(deviceId: string): Command[] {
    const lane = this.#lanes.get(deviceId);
    if (lane === undefined) return [];
    this.#expire(lane);
    const given = [...lane.pending].filter((command) => !this.#fresh.has(command) && this.#mayGo(command));
    for (const command of given) {
      command.attempts += 1;
      this.#counts.attempts += 1;
      this.#delivered(lane, command);
    }
    return given;
  }

  /**
   * Resolves when that is durable. A device that has it already may carry it out all the same.
   * @throws GatewayError `COMMAND_UNKNOWN`, `COMMAND_CONFLICT` (it is finished), and as the journal does.
   */
  async cancel(deviceId: string, commandId: string, actor: string): Promise<Command> {
    const lane = this.#lanes.get(deviceId);
    const command = this.find(deviceId, commandId);
    if (lane === undefined || command === undefined) {
      throw new GatewayError('COMMAND_UNKNOWN', `device ${deviceId} has no such command`);
    }
    if (isFinished(command) && command.state !== 'cancelled') {
      throw new GatewayError('COMMAND_CONFLICT', `the command is ${command.state} already`);
    }
    if (!isFinished(command)) this.#finish(lane, command, 'cancelled', `by ${actor}`);
    await this.#saved(command);
    return command;
  }

  /** An answer of the device's, on any transport; resolves when it is durable, rejects as the journal does. */
  async acknowledge(message: Message): Promise<void> {
    const { deviceId, name: kind, payload } = message;
    const given = readAcknowledgement(payload);
    if (given === undefined) {
      this.#counts.unreadableAcknowledgements += 1;
      return;
    }
    const lane = this.#lanes.get(deviceId);
    const command = this.#answered.get(message) ?? (lane && commandMeant(lane, kind, given.id));
    if (lane === undefined || command === undefined) {
      this.#counts.unmatchedAcknowledgements += 1;
      return;
    }
    if (isFinished(command)) {
      if (command.state !== 'acknowledged' && command.state !== 'failed')
        this.#counts.lateAcknowledgements += 1;
      await this.#saved(command);
      return;
    }
    this.#answered.set(message, command);
    if (given.id !== undefined) {
      command.wasAnsweredById = true;
      lane.knowsIds = true;
    }
    command.delivered ??= momentOf(this.#options.time);
    this.#finish(lane, command, given.isDone ? 'acknowledged' : 'failed', given.message);
    await this.#saved(command);
  }

  /** The device may not connect any more: nothing waits for it. */
  withdraw(deviceId: string): void {
    const lane = this.#lanes.get(deviceId);
    if (lane === undefined) return;
    for (const command of [...lane.pending]) this.#finish(lane, command, 'failed', revoked);
  }

  /** There is no such device any more: nothing is known of what it was to do. */
  forget(deviceId: string): void {
    this.withdraw(deviceId);
    const lane = this.#lanes.get(deviceId);
    if (lane === undefined) return;
    this.#lanes.delete(deviceId);
    for (const command of [...lane.finished]) this.#forget(lane, command);
  }

  /** For people and programs: with dates, where they are known. */
  show(command: Command): ShownCommand {
    return shownCommand(command, this.#options.time);
  }

  /** Called after a command was accepted or changed its state. Listeners must not throw. */
  onChange(listener: (command: Command) => void): void {
    this.#listeners.push(listener);
  }

  /** Every second: what has expired goes, what is due is tried again. */
  tick(): void {
    for (const lane of this.#lanes.values()) {
      this.#expire(lane);
      this.#deliverNext(lane);
    }
  }

  stats() {
    let held = 0;
    let oldestMs: number | undefined;
    for (const lane of this.#lanes.values()) {
      for (const command of lane.pending) {
        if (!this.#mayGo(command)) held += 1;
        const { ms } = ageOf(this.#options.time, command.queued);
        oldestMs = Math.max(oldestMs ?? 0, ms);
      }
    }
    return {
      ...this.#counts,
      pending: this.#pending,
      pendingMax: this.#limits.pendingMax,
      /** Not given to anybody because nobody knows yet whether they have expired. */
      held,
      oldestMs,
      remembered: this.#finished.size,
      bytes: this.#bytes,
    };
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    clearInterval(this.#ticking);
    await Promise.allSettled(this.#saving.values());
  }

  #restore(command: Command): void {
    const lane = this.#laneOf(command.deviceId);
    this.#nextSeq = Math.max(this.#nextSeq, command.seq + 1);
    lane.knowsIds ||= command.wasAnsweredById;
    this.#add(lane, command);
    this.#trimFinished(lane);
  }

  #laneOf(deviceId: string): Lane {
    const known = this.#lanes.get(deviceId);
    if (known !== undefined) return known;
    const lane: Lane = {
      deviceId,
      pending: new Set(),
      finished: new Set(),
      byId: new Map(),
      byKey: new Map(),
      dueMs: new Map(),
      isDelivering: false,
      isAway: false,
      timesReached: 0,
      knowsIds: false,
    };
    this.#lanes.set(deviceId, lane);
    return lane;
  }

  #numberOf(deviceId: string): number {
    const device = this.#options.device(deviceId);
    if (device === undefined) {
      throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(deviceId.slice(0, 80))}`);
    }
    if (mayConnect(device)) return device.id;
    throw new GatewayError('DEVICE_CONFLICT', `${deviceId} is ${device.status} and cannot get commands`);
  }

  #newCommand(wanted: NewCommand, deviceNumber: number): Command {
    const { deviceId, kind, payload, expiresInMs, idempotencyKey, actor } = wanted;
    return {
      id: this.#newId(deviceId, idempotencyKey),
      seq: this.#nextSeq++,
      deviceId,
      deviceNumber,
      kind,
      payload,
      idempotencyKey,
      actor,
      expiresInMs: expiresInMs === null ? undefined : (expiresInMs ?? this.#limits.expiresInMs),
      queued: momentOf(this.#options.time),
      bytes: bytesOf(payload),
      state: 'queued',
      attempts: 0,
      delivered: undefined,
      finished: undefined,
      message: undefined,
      wasAnsweredById: false,
    };
  }

  /**
   * With a key it follows from that: a caller that saw no answer because of a power cut asks again, and the device
   * that may have the first copy knows the second by its id.
   */
  #newId(deviceId: string, key: string | undefined): string {
    const bytes =
      key === undefined
        ? this.#options.randomBytes(8)
        : createHash('sha256').update(`${deviceId}\n${key}`).digest().subarray(0, 8);
    return bytes.toString('hex');
  }

  #makeRoom(lane: Lane, bytes: number): void {
    const { pendingMax, pendingPerDeviceMax, bytesMax } = this.#limits;
    const isDeviceFull = lane.pending.size >= pendingPerDeviceMax;
    for (const command of this.#finished) {
      if (this.#bytes + bytes <= bytesMax) break;
      this.#forget(this.#laneOf(command.deviceId), command);
    }
    if (!isDeviceFull && this.#pending < pendingMax && this.#bytes + bytes <= bytesMax) return;
    this.#counts.refusedFull += 1;
    throw new GatewayError(
      'COMMANDS_FULL',
      isDeviceFull
        ? `${lane.pending.size} commands wait for ${lane.deviceId} already; cancel some, or let them expire`
        : 'too many commands wait already; cancel some, or let them expire',
    );
  }

  #add(lane: Lane, command: Command): void {
    lane.byId.set(command.id, command);
    if (command.idempotencyKey !== undefined) lane.byKey.set(command.idempotencyKey, command);
    this.#bytes += command.bytes;
    if (isFinished(command)) {
      lane.finished.add(command);
      this.#finished.add(command);
      return;
    }
    lane.pending.add(command);
    this.#pending += 1;
  }

  /** As if it had never been. */
  #forget(lane: Lane, command: Command): void {
    if (lane.pending.delete(command)) this.#pending -= 1;
    lane.finished.delete(command);
    this.#finished.delete(command);
    this.#fresh.delete(command);
    lane.dueMs.delete(command);
    this.#bytes -= command.bytes;
    if (lane.byId.get(command.id) === command) lane.byId.delete(command.id);
    const { idempotencyKey } = command;
    if (idempotencyKey !== undefined && lane.byKey.get(idempotencyKey) === command) {
      lane.byKey.delete(idempotencyKey);
    }
    this.#options.keeper.writeLazily([{ key: commandKey(command), value: undefined }]);
  }

  #trimFinished(lane: Lane): void {
    const { finishedPerDeviceMax, finishedMax } = this.#limits;
    for (const command of lane.finished) {
      if (lane.finished.size <= finishedPerDeviceMax) break;
      this.#forget(lane, command);
    }
    for (const command of this.#finished) {
      if (this.#finished.size <= finishedMax) break;
      this.#forget(this.#laneOf(command.deviceId), command);
    }
  }

  #save(command: Command): Promise<void> {
    this.#unsaved.add(command);
    const { keeper } = this.#options;
    const write = { key: commandKey(command), value: encodeCommand(command) };
    const written = keeper
      .write([write])
      .then(() => {
        if (this.#saving.get(command) === written) this.#unsaved.delete(command);
      })
      .finally(() => {
        if (this.#saving.get(command) === written) this.#saving.delete(command);
      });
    this.#saving.set(command, written);
    // Who waits for it hears of the failure; for the others it is written once the disk takes it.
    written.catch(() => keeper.writeLazily([write]));
    return written;
  }

  /** Resolves when the state it is in is durable; tries again what failed. */
  #saved(command: Command): Promise<void> {
    const saving = this.#saving.get(command);
    if (saving !== undefined) return saving;
    return this.#unsaved.has(command) ? this.#save(command) : Promise.resolve();
  }

  #finish(lane: Lane, command: Command, state: CommandState, message: string | undefined): void {
    command.state = state;
    command.message = message;
    command.finished = momentOf(this.#options.time);
    if (lane.pending.delete(command)) this.#pending -= 1;
    lane.dueMs.delete(command);
    lane.finished.add(command);
    this.#finished.add(command);
    if (state === 'acknowledged' || state === 'failed' || state === 'expired' || state === 'cancelled') {
      this.#counts[state] += 1;
    }
    void this.#save(command);
    this.#trimFinished(lane);
    this.#tell(command);
    this.#options.log.debug({ event: 'command_finished', id: command.id, state }, 'A command is finished');
  }

  #tell(command: Command): void {
    for (const listener of this.#listeners) listener(command);
  }

  /** Of kinds that replace, only the newest is still wanted. */
  #replaceOlder(lane: Lane): void {
    const newest = new Map<string, Command>();
    for (const command of lane.pending)
      if (replacingKinds.has(command.kind)) newest.set(command.kind, command);
    for (const command of [...lane.pending]) {
      const by = newest.get(command.kind);
      if (by !== undefined && by !== command) {
        this.#finish(lane, command, 'cancelled', `replaced by ${by.id}`);
      }
    }
  }

  #expire(lane: Lane): void {
    for (const command of [...lane.pending]) {
      const { expiresInMs, queued } = command;
      if (expiresInMs === undefined || ageOf(this.#options.time, queued).ms < expiresInMs) continue;
      const message =
        command.state === 'delivered' ? 'the device did not answer in time' : 'not delivered in time';
      this.#finish(lane, command, 'expired', message);
    }
  }

  /** What may have expired while the machine was off must not be carried out days too late. */
  #mayGo({ expiresInMs, queued }: Command): boolean {
    if (expiresInMs === undefined) return true;
    const { ms, isExact } = ageOf(this.#options.time, queued);
    return isExact && ms < expiresInMs;
  }

  #reached(deviceId: string): void {
    const lane = this.#lanes.get(deviceId);
    if (lane === undefined) return;
    lane.timesReached += 1;
    lane.isAway = false;
    // What it did not confirm before it went away it gets at once.
    for (const command of lane.pending) if (command.state === 'queued') lane.dueMs.delete(command);
    this.#deliverNext(lane);
  }

  /** One at a time and in order: the next one goes when the device has this one. */
  #deliverNext(lane: Lane): void {
    if (lane.isDelivering || lane.isAway || this.#isClosed || this.#downlinks.length === 0) return;
    this.#expire(lane);
    const command = this.#nextOf(lane);
    if (command === undefined) return;
    lane.isDelivering = true;
    void this.#deliver(lane, command).then(() => {
      lane.isDelivering = false;
      this.#deliverNext(lane);
    });
  }

  #nextOf(lane: Lane): Command | undefined {
    const nowMs = this.#options.clock.monotonicMs();
    for (const command of lane.pending) {
      const isDue = (lane.dueMs.get(command) ?? 0) <= nowMs;
      if (command.state === 'delivered') {
        const isAgain = lane.knowsIds && command.attempts < this.#limits.attemptsMax;
        if (isAgain && isDue && this.#mayGo(command)) return command;
        continue;
      }
      // New, held back, or waiting to be tried again: those behind it wait as well.
      return isDue && !this.#fresh.has(command) && this.#mayGo(command) ? command : undefined;
    }
    return undefined;
  }

  async #deliver(lane: Lane, command: Command): Promise<void> {
    const { id, kind, payload } = command;
    const { timesReached } = lane;
    const outgoing = { id, kind, payload: Buffer.from(JSON.stringify({ id, kind, ...payload })) };
    // Ahead of the delivery: the answer may come before the confirmation.
    command.attempts += 1;
    let delivery: Delivery = { kind: 'offline', wasSent: false };
    for (const downlink of this.#downlinks) {
      delivery = await downlink.deliver(lane.deviceId, outgoing);
      if (delivery.kind !== 'offline' || delivery.wasSent) break;
    }
    if (wasGiven(delivery)) this.#counts.attempts += 1;
    else command.attempts -= 1;
    if (delivery.kind === 'offline' && lane.timesReached === timesReached) lane.isAway = true;
    if (isFinished(command)) return;
    this.#judge(lane, command, delivery);
  }

  #judge(lane: Lane, command: Command, delivery: Delivery): void {
    const { attemptsMax } = this.#limits;
    switch (delivery.kind) {
      case 'taken':
      case 'sent':
        this.#delivered(lane, command);
        return;
      case 'refused':
        this.#finish(lane, command, 'failed', `the device refused it: ${delivery.reason}`);
        return;
      case 'offline':
        if (!delivery.wasSent) return;
        break;
      case 'busy':
      case 'unanswered':
        break;
    }
    this.#waitForNextTry(lane, command);
    if (command.state === 'queued' && command.attempts >= attemptsMax) {
      this.#finish(lane, command, 'failed', `sent ${command.attempts} times, never confirmed`);
    }
  }

  #delivered(lane: Lane, command: Command): void {
    this.#waitForNextTry(lane, command);
    if (command.state === 'delivered') return;
    command.state = 'delivered';
    command.delivered = momentOf(this.#options.time);
    // Lost in a power cut, it is delivered once more.
    this.#options.keeper.writeLazily([{ key: commandKey(command), value: encodeCommand(command) }]);
    this.#tell(command);
  }

  #waitForNextTry(lane: Lane, command: Command): void {
    const { retryMs, retryMsMax } = this.#limits;
    const { clock, random } = this.#options;
    const waitMs = backoffMs(command.attempts, random, { minMs: retryMs, maxMs: retryMsMax });
    lane.dueMs.set(command, clock.monotonicMs() + waitMs);
  }
}

function wasGiven(delivery: Delivery): boolean {
  return delivery.kind === 'offline' ? delivery.wasSent : delivery.kind !== 'busy';
}

function isFor(device: { readonly id: number } | undefined, { deviceNumber }: Command): boolean {
  return device?.id === deviceNumber;
}

function mayConnect(device: { readonly status: string } | undefined): boolean {
  return device?.status === 'active' || device?.status === 'maintenance';
}

/** The one with the id; of a node that knows no ids, the oldest of the kind that it was given. */
function commandMeant(lane: Lane, kind: string, id: string | undefined): Command | undefined {
  if (id !== undefined) {
    const command = lane.byId.get(id);
    return command?.kind === kind ? command : undefined;
  }
  for (const command of lane.pending) if (command.kind === kind && command.attempts > 0) return command;
  return undefined;
}

function isSame(command: Command, wanted: NewCommand): boolean {
  return command.kind === wanted.kind && JSON.stringify(command.payload) === JSON.stringify(wanted.payload);
}

function checkCommand({ kind, payload, expiresInMs, idempotencyKey }: NewCommand): void {
  const invalid = (message: string) => new GatewayError('COMMAND_INVALID', message);
  if (!commandKindPattern.test(kind)) {
    throw invalid('kind: expected 1 to 64 letters, digits, - and _, the first a letter or digit');
  }
  if (Array.isArray(payload)) throw invalid('payload: expected a JSON object');
  for (const name of ['id', 'kind']) {
    if (Object.hasOwn(payload, name)) {
      throw invalid(`payload.${name}: expected another name, the gateway puts its own there`);
    }
  }
  if (bytesOf(payload) > payloadBytesMax) {
    throw invalid(`payload: expected at most ${payloadBytesMax} bytes of JSON`);
  }
  if (idempotencyKey !== undefined && !/^[\x20-\x7e]{1,128}$/.test(idempotencyKey)) {
    throw invalid('idempotency_key: expected 1 to 128 printable ASCII characters');
  }
  if (expiresInMs === undefined || expiresInMs === null) return;
  if (Number.isInteger(expiresInMs) && expiresInMs >= 1 && expiresInMs <= expiresInMsMax) return;
  throw invalid(`expires_in_ms: expected a whole number from 1 to ${expiresInMsMax}, or null for never`);
}
