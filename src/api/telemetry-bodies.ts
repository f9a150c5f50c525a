// Telemetry as HTTP clients send it → points for ingest, and ingest's verdicts → what the client is answered. One
// reader for both forms of body: `{data, type, …}` of a device about itself, and `{device_id, measurement, fields,
// tags, …}`. Promises: every point of a batch is judged alone; whatever is not stored as it was sent is named, in
// `refused` (the point) or `dropped` (a tag, a member nobody knows, a time no clock could have meant).

import assert from 'node:assert/strict';
import type { SubmittedPoint, Verdict } from '../ingest/submission.ts';
import { timestampText } from '../model/timestamp.ts';
import type { Device } from '../registry/device.ts';
import { type RefusalBody, refusal } from './refusal.ts';
import type { Answer, Caller } from './route.ts';

export interface SubmitParts {
  /** By device id, or by its number. */
  readonly find: (device: string) => Pick<Device, 'deviceId' | 'status'> | undefined;
  /** Resolves when the accepted ones are durable. */
  readonly submit: (points: readonly SubmittedPoint[]) => Promise<readonly Verdict[]>;
  /** The device has been heard of. */
  readonly touch: (deviceId: string) => void;
}

type Members = Readonly<Record<string, unknown>>;

interface Refused {
  readonly code: string;
  readonly message: string;
  readonly field?: string;
}

interface ReadPoint {
  readonly point: SubmittedPoint;
  /** `data` or `fields`. */
  readonly holder: string;
  readonly ignored: readonly string[];
}

type Outcome =
  | { readonly read: ReadPoint; readonly verdict: Extract<Verdict, { kind: 'accepted' }> }
  | { readonly refused: Refused };

const besides = ['timestamp', 'boot', 'seq'] as const;

function isMembers(value: unknown): value is Members {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function invalid(field: string, expected: string): { refused: Refused } {
  return { refused: { code: 'POINT_INVALID', message: `${field}: expected ${expected}`, field } };
}

/** On whose behalf the point is, if the caller may speak for it. */
function speakerOf(
  given: unknown,
  caller: Caller,
  find: SubmitParts['find'],
): { deviceId: string } | { refused: Refused } {
  const named = typeof given === 'number' ? String(given) : given;
  if (named !== undefined && typeof named !== 'string') return invalid('device_id', 'the id of a device');
  if (caller.kind === 'device') {
    if (named === undefined || find(named)?.deviceId === caller.deviceId)
      return { deviceId: caller.deviceId };
    const message = `device_id: the key is that of ${caller.deviceId}, which may write for itself only`;
    return { refused: { code: 'FORBIDDEN', message, field: 'device_id' } };
  }
  if (named === undefined) return invalid('device_id', 'the id of a device');
  const device = find(named);
  if (device !== undefined && device.status !== 'inactive' && device.status !== 'pending') {
    return { deviceId: device.deviceId };
  }
  const what = device === undefined ? 'there is no device' : `the device is ${device.status}:`;
  const message = `device_id: ${what} ${JSON.stringify(named.slice(0, 80))}`;
  return { refused: { code: 'DEVICE_UNKNOWN', message, field: 'device_id' } };
}

function read(given: unknown, caller: Caller, find: SubmitParts['find']): ReadPoint | { refused: Refused } {
  if (!isMembers(given)) {
    return { refused: { code: 'POINT_INVALID', message: 'expected an object with the fields of a point' } };
  }
  const { device_id: device, tags } = given;
  const speaker = speakerOf(device, caller, find);
  if ('refused' in speaker) return speaker;
  const holder = 'fields' in given || !('data' in given) ? 'fields' : 'data';
  const fields = given[holder];
  if (!isMembers(fields)) return invalid(holder, 'an object of fields');
  const namer = 'measurement' in given ? 'measurement' : 'type';
  const measurement = given[namer] ?? '';
  if (typeof measurement !== 'string') return invalid(namer, 'text');
  if (tags !== undefined && tags !== null && !isMembers(tags)) return invalid('tags', 'an object');
  const taken: Record<string, unknown> = { ...fields };
  for (const name of besides) if (given[name] !== undefined) taken[name] = given[name];
  const known: ReadonlySet<string> = new Set(['device_id', 'tags', holder, namer, ...besides]);
  return {
    point: { deviceId: speaker.deviceId, measurement, fields: taken, ...(tags ? { tags } : {}) },
    holder,
    ignored: Object.keys(given).filter((name) => !known.has(name)),
  };
}

function refusedBy({ code, reason, field }: Extract<Verdict, { kind: 'refused' }>, holder: string): Refused {
  if (field === undefined) return { code, message: reason };
  const isOwn = field === 'tags' || besides.some((name) => name === field);
  return { code, message: reason, field: isOwn ? field : `${holder}.${field}` };
}

async function submitted(given: readonly unknown[], caller: Caller, parts: SubmitParts): Promise<Outcome[]> {
  if (caller.kind === 'device') parts.touch(caller.deviceId);
  const all = given.map((one) => read(one, caller, parts.find));
  const verdicts = await parts.submit(all.flatMap((one) => ('point' in one ? [one.point] : [])));
  let answered = 0;
  return all.map((one): Outcome => {
    if ('refused' in one) return one;
    const verdict = verdicts[answered];
    answered += 1;
    assert(verdict !== undefined, 'BUG: ingest did not answer for every point');
    if (verdict.kind === 'refused') return { refused: refusedBy(verdict, one.holder) };
    return { read: one, verdict };
  });
}

/** What the sender may want to know of what was taken. */
function notesOn(outcomes: readonly Outcome[]): { dropped?: readonly string[]; duplicates?: number } {
  const names = new Set<string>();
  let duplicates = 0;
  for (const outcome of outcomes) {
    if ('refused' in outcome) continue;
    const { read: one, verdict } = outcome;
    if (verdict.isCopy) duplicates += 1;
    for (const name of one.ignored) names.add(name);
    for (const key of verdict.tagsDropped) names.add(`tags.${key}`);
    if (verdict.isTimeReplaced) names.add('timestamp');
  }
  return { ...(names.size > 0 && { dropped: [...names] }), ...(duplicates > 0 && { duplicates }) };
}

/** 201 with what is stored, or why not. */
export async function submitOne(body: unknown, caller: Caller, parts: SubmitParts): Promise<Answer> {
  const outcomes = await submitted([body], caller, parts);
  const [outcome] = outcomes;
  if (outcome === undefined || 'refused' in outcome) return alone(outcome?.refused);
  const { point } = outcome.verdict;
  return {
    status: 201,
    body: {
      message: 'Telemetry data received successfully',
      device_id: outcome.read.point.deviceId,
      measurement: point.measurement,
      // While the gateway does not know the date, nobody does.
      timestamp: point.boot === undefined ? timestampText(point.timeNs) : null,
      ...notesOn(outcomes),
    },
  };
}

function alone(refused: Refused = { code: 'POINT_INVALID', message: 'expected a point' }): Answer {
  const { code, message, field } = refused;
  const answer = refusal(code, message, field === undefined ? {} : { field });
  // The codes of ingest are about what the body holds, whatever they end in.
  return code === 'FORBIDDEN' || code === 'DEVICE_UNKNOWN' ? answer : { status: 400, body: answer.body };
}

/** 201 when all are stored, 207 when some are, 400 when none is; each refused one by its place in the list. */
export async function submitBatch(
  points: readonly unknown[],
  caller: Caller,
  parts: SubmitParts,
): Promise<Answer> {
  const outcomes = await submitted(points, caller, parts);
  const refused = outcomes.flatMap((outcome, index): ({ readonly index: number } & RefusalBody)[] =>
    'refused' in outcome ? [{ index, error: outcome.refused }] : [],
  );
  const count = outcomes.length - refused.length;
  if (refused.length === 0) {
    const message = `Successfully written ${count} telemetry points`;
    return { status: 201, body: { message, count, ...notesOn(outcomes) } };
  }
  if (count > 0) {
    const message = `Written ${count} of ${outcomes.length} telemetry points`;
    return { status: 207, body: { message, count, refused, ...notesOn(outcomes) } };
  }
  const error = { code: 'POINTS_INVALID', message: `none of the ${refused.length} points can be taken` };
  return { status: 400, body: { error, count, refused } };
}
