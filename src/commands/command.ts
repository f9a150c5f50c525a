// A command and its form in the log. Decoding trusts nothing: a damaged record costs itself and no more.

import { commandKindPattern } from '../model/command.ts';
import { isDeviceId } from '../model/topic.ts';

export type CommandState = 'queued' | 'delivered' | 'acknowledged' | 'failed' | 'expired' | 'cancelled';

/** A moment as a machine without a right clock knows it: the boot, and the nanoseconds since its start. */
export interface Moment {
  readonly boot: number;
  readonly bootNs: bigint;
}

export type CommandPayload = Readonly<Record<string, unknown>>;

export interface Command {
  readonly id: string;
  /** Its place in the order of the device's commands. */
  readonly seq: number;
  readonly deviceId: string;
  /** The registry's number of the device: another of the same id, made later, is not meant. */
  readonly deviceNumber: number;
  readonly kind: string;
  readonly payload: CommandPayload;
  readonly idempotencyKey: string | undefined;
  /** Who wants it. */
  readonly actor: string;
  /** Undefined: it waits for as long as it takes. */
  readonly expiresInMs: number | undefined;
  readonly queued: Moment;
  /** Of its payload. */
  readonly bytes: number;
  state: CommandState;
  /** How often it was given to the device. */
  attempts: number;
  delivered: Moment | undefined;
  finished: Moment | undefined;
  /** What the device said, or why it went no further. */
  message: string | undefined;
  /** The device answered with the command's id: it knows them. */
  wasAnsweredById: boolean;
}

const states: ReadonlySet<string> = new Set<CommandState>([
  'queued',
  'delivered',
  'acknowledged',
  'failed',
  'expired',
  'cancelled',
]);

export function isFinished({ state }: Pick<Command, 'state'>): boolean {
  return state !== 'queued' && state !== 'delivered';
}

const prefix = 'commands/';
/** Digits of a sequence number in base 36, so that keys are in its order. */
const seqDigits = 10;

export function commandKey({ deviceId, seq }: Pick<Command, 'deviceId' | 'seq'>): string {
  return `${prefix}${deviceId}/${seq.toString(36).padStart(seqDigits, '0')}`;
}

export const commandKeyPrefix = prefix;

export function bytesOf(payload: CommandPayload): number {
  return Buffer.byteLength(JSON.stringify(payload));
}

export function encodeCommand(command: Command): Buffer {
  const { deviceId: _inKey, seq: _too, bytes: _counted, queued, delivered, finished, ...rest } = command;
  return Buffer.from(
    JSON.stringify({
      v: 1,
      ...rest,
      queued: encodeMoment(queued),
      delivered: delivered && encodeMoment(delivered),
      finished: finished && encodeMoment(finished),
    }),
  );
}

/** Undefined when it is not exactly what `encodeCommand` writes. */
export function decodeCommand(key: string, bytes: Buffer): Command | undefined {
  const [, deviceId = '', digits = ''] = key.split('/');
  const seq = Number.parseInt(digits, 36);
  const value = recordIn(bytes);
  if (value === undefined || value.v !== 1 || !isDeviceId(deviceId)) return undefined;
  const { id, deviceNumber, kind, payload, idempotencyKey, actor, expiresInMs, state, attempts, message } =
    value;
  if (!Number.isSafeInteger(seq) || commandKey({ deviceId, seq }) !== key) return undefined;
  if (typeof deviceNumber !== 'number') return undefined;
  if (typeof id !== 'string' || typeof kind !== 'string' || !commandKindPattern.test(kind)) return undefined;
  if (!isRecord(payload) || typeof actor !== 'string' || typeof state !== 'string') return undefined;
  if (!states.has(state) || typeof attempts !== 'number') return undefined;
  if (idempotencyKey !== undefined && typeof idempotencyKey !== 'string') return undefined;
  if (expiresInMs !== undefined && typeof expiresInMs !== 'number') return undefined;
  const queued = decodeMoment(value.queued);
  if (queued === undefined) return undefined;
  return {
    id,
    seq,
    deviceId,
    deviceNumber,
    kind,
    payload,
    idempotencyKey,
    actor,
    expiresInMs,
    queued,
    bytes: bytesOf(payload),
    state: state as CommandState,
    attempts,
    delivered: decodeMoment(value.delivered),
    finished: decodeMoment(value.finished),
    message: typeof message === 'string' ? message : undefined,
    wasAnsweredById: value.wasAnsweredById === true,
  };
}

function encodeMoment({ boot, bootNs }: Moment): readonly [number, string] {
  return [boot, String(bootNs)];
}

function decodeMoment(value: unknown): Moment | undefined {
  if (!Array.isArray(value)) return undefined;
  const [boot, ns] = value as unknown[];
  if (typeof boot !== 'number' || typeof ns !== 'string' || !/^\d{1,19}$/.test(ns)) return undefined;
  return { boot, bootNs: BigInt(ns) };
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function recordIn(bytes: Buffer): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(bytes.toString());
    return isRecord(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
