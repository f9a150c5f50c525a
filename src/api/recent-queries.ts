// Questions about a device's telemetry over HTTP, answered from local history, with no internet; what is older comes
// from InfluxDB where it can be asked. Promises: a device hears of itself only; a refusal names the parameter as the
// client wrote it; an answer says where it is from, and what it lacks.

import * as v from 'valibot';
import { deviceIdPattern } from '../model/topic.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import type { Operations } from '../platform/operations.ts';
import type { Device } from '../registry/device.ts';
import type { Caller } from './route.ts';

/** Who may ask; a device about itself only. */
export const readers = ['device', 'service', 'viewer'] as const;

export const deviceParams = v.object({
  device_id: v.pipe(v.string('the id of a device'), v.examples(['esp32_001', '1'])),
});

/** A parameter that may be left out. History judges it: one idea of a time, here and on the command line. */
export function optionalText(expected: string, ...examples: string[]) {
  return v.optional(v.pipe(v.string(expected), v.description(expected), v.examples(examples)));
}

const wholeLimit = 'a whole number from 1 to 10000';

export const paging = {
  limit: v.optional(
    v.pipe(
      v.string(wholeLimit),
      v.regex(/^\d{1,5}$/, wholeLimit),
      v.description(wholeLimit),
      v.examples(['100']),
    ),
  ),
  after: optionalText('"next" of the answer before'),
};

export const timeForms = 'now(), a time before it such as -1h, RFC 3339, or an epoch';
export const measurementParameter = optionalText('the name of a measurement; default all', 'temperature');

type Described = Pick<Device, 'deviceId' | 'name' | 'type' | 'location'>;

export interface QueryParts {
  /** By device id, or by its number. */
  readonly find: (device: string) => Described | undefined;
  /** Those of history; without them there is none. */
  readonly history: Operations;
}

export interface LatestFields {
  readonly measurement: string;
  readonly fields: Readonly<Record<string, { readonly value: unknown; readonly time: string }>>;
}

/** `missing`: what InfluxDB could not be asked for. */
interface Told {
  readonly source: 'local' | 'remote' | 'both';
  readonly missing?: {
    readonly from: string;
    readonly to: string;
    readonly code: string;
    readonly reason: string;
  };
}

/** The end of every answer. */
export function toldOf({ source, missing }: Told): Told {
  return missing === undefined ? { source } : { source, missing };
}

export interface LatestAnswer extends Told {
  readonly measurements: readonly LatestFields[];
}

export interface RangeAnswer extends Told {
  readonly points: readonly {
    readonly time: string;
    readonly measurement: string;
    readonly fields: Readonly<Record<string, unknown>>;
    readonly thinned?: true;
  }[];
  readonly next: string | null;
}

export interface ErasureAnswer {
  readonly id: number;
  readonly device_id: string;
  readonly from: string | null;
  readonly to: string;
  readonly local: 'waiting' | 'done';
  readonly remote: 'none' | 'waiting' | 'done' | 'refused';
  readonly reason?: string;
}

/** 200 when nothing is left of it here and in InfluxDB, 202 when it goes on by itself. */
export function erasureAnswer(erasure: ErasureAnswer, deviceName: string) {
  const isDone = erasure.local === 'done' && (erasure.remote === 'none' || erasure.remote === 'done');
  const { from, to } = erasure;
  return {
    status: isDone ? 200 : 202,
    body: {
      message: isDone
        ? `Telemetry data of ${deviceName} deleted`
        : `Telemetry data of ${deviceName} is being deleted`,
      device_id: erasure.device_id,
      start_time: from,
      stop_time: to,
      erasure,
    },
    audited: { target: erasure.device_id, detail: { from, to, erasure: erasure.id } },
  };
}

export interface AggregateAnswer extends Told {
  readonly windows: readonly {
    readonly time: string;
    readonly measurement: string;
    readonly fields: Readonly<Record<string, Readonly<Record<string, unknown>>>>;
  }[];
  readonly next: string | null;
}

/** @throws GatewayError `FORBIDDEN` to a device that asks about another, known or not; `DEVICE_UNKNOWN`. */
export function deviceAsked(given: string, caller: Caller, find: QueryParts['find']): Described {
  const device = find(given);
  if (caller.kind === 'device' && device?.deviceId !== caller.deviceId) {
    throw new GatewayError('FORBIDDEN', `the key is that of ${caller.deviceId}, which may read its own only`);
  }
  if (device !== undefined) return device;
  throw new GatewayError('DEVICE_UNKNOWN', `there is no device ${JSON.stringify(given.slice(0, 80))}`);
}

/** Also one that has been removed, by its id: its readings are still there. @throws GatewayError `DEVICE_UNKNOWN` */
export function deviceOnceKnown(given: string, caller: Caller, find: QueryParts['find']) {
  const isGone = find(given) === undefined && deviceIdPattern.test(given);
  return isGone ? { deviceId: given, name: given } : deviceAsked(given, caller, find);
}

/**
 * @param args Parameter of the operation → its name in the URL, and the value. Undefined ones are left out.
 * @throws GatewayError `QUERY_INVALID`, `HISTORY_UNAVAILABLE`.
 */
export async function askHistory<Found>(
  history: Operations,
  operation: 'latest' | 'range' | 'aggregate' | 'erase',
  deviceId: string,
  args: Readonly<Record<string, readonly [name: string, value: string | undefined]>>,
  signal: AbortSignal,
): Promise<Found> {
  const run = history.get(`history.${operation}`);
  if (run === undefined) {
    throw new GatewayError('HISTORY_UNAVAILABLE', 'this gateway keeps no history, or cannot open it');
  }
  const given: Record<string, unknown> = { device_id: deviceId };
  for (const [key, [, value]] of Object.entries(args)) {
    if (value !== undefined) given[key] = key === 'limit' ? Number(value) : value;
  }
  try {
    return (await run(given, signal)) as Found;
  } catch (error) {
    if (errorCode(error) !== 'ARGUMENT_INVALID' || !(error instanceof GatewayError)) throw error;
    const key = error.message.slice(0, error.message.indexOf(':'));
    const name = args[key]?.[0] ?? key;
    throw new GatewayError('QUERY_INVALID', `${name}${error.message.slice(key.length)}`, { cause: error });
  }
}
