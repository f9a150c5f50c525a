// What the gateway beside the doctor says of itself, and what is worth telling of it. It may be of another version:
// everything it answers may be missing.

import type { Config } from '../../config/schema.ts';
import { errorCode, GatewayError } from '../../platform/errors.ts';
import { camelCased } from '../../platform/outside-names.ts';
import { callOperation } from '../operator.ts';
import { type Check, type Finding, fail, ok, skipped, warn } from './check.ts';

interface Reason {
  readonly code?: string;
  readonly message?: string;
}

/** Of `gateway.status`, what the doctor reads. */
export interface RunningGateway {
  readonly health?: { readonly ok?: boolean; readonly reasons?: readonly Reason[] };
  readonly ports?: Readonly<Record<string, number | undefined>>;
  readonly figures?: {
    readonly uptimeMs?: number;
    readonly journal?: {
      readonly pending?: Readonly<Record<string, number>>;
      readonly deadLetters?: { readonly letters?: number };
    };
    readonly alarms?: { readonly sound?: string };
    readonly wear?: {
      readonly device?: string;
      readonly bytesPerDay?: number;
      readonly lifeYears?: number;
      readonly budgetBytesPerDay?: number;
      readonly measuredMs?: number;
      readonly lingerMs?: number;
    };
  };
}

/** `none`: nobody listens. An error: somebody does, or holds the data, and cannot be asked. */
export type AskedGateway = RunningGateway | 'none' | GatewayError;

export async function askGateway(config: Config, timeoutMs: number): Promise<AskedGateway> {
  try {
    const options = { answerTimeoutMs: timeoutMs };
    const answer = await callOperation(config, 'gateway.status', {}, undefined, options);
    return camelCased(answer) as RunningGateway;
  } catch (error) {
    if (errorCode(error) === 'GATEWAY_NOT_RUNNING') return 'none';
    if (error instanceof GatewayError) return error;
    throw error;
  }
}

export function runs(asked: AskedGateway): RunningGateway | undefined {
  return asked === 'none' || asked instanceof GatewayError ? undefined : asked;
}

export function gatewayCheck(asked: AskedGateway): Check {
  return { name: 'gateway', run: async () => gatewayFindings(asked) };
}

// These have a line of their own.
const toldElsewhere: ReadonlySet<string> = new Set([
  'BUZZER_NOT_CONFIGURED',
  'DEAD_LETTERS',
  'CARD_WEARS_OUT',
]);

function gatewayFindings(asked: AskedGateway): Finding[] {
  if (asked === 'none') return [skipped('none runs with this data')];
  if (asked instanceof GatewayError) {
    return [fail(asked.message, 'run this as the user the gateway runs as; if it hangs, restart it')];
  }
  const hours = Math.floor((asked.figures?.uptimeMs ?? 0) / 3_600_000);
  const reasons = (asked.health?.reasons ?? []).filter(({ code }) => !toldElsewhere.has(code ?? ''));
  const todo = 'see /health, /metrics and the log of the gateway';
  const isFine = asked.health?.ok !== false;
  const told = reasons.map(({ code, message }) => {
    const text = `${code}: ${message}`.replace(/\.$/, '');
    return isFine ? warn(text, todo) : fail(text, todo);
  });
  return [...(isFine ? [ok(`runs for ${hours} h`)] : []), ...told];
}

export function deadLettersCheck(asked: AskedGateway): Check {
  return {
    name: 'dead letters',
    run: async () => {
      const letters = runs(asked)?.figures?.journal?.deadLetters?.letters;
      if (letters === undefined) return [skipped('a running gateway knows them')];
      if (letters === 0) return [ok('none')];
      return [warn(`${letters} readings could not be used`, 'iotflow dead-letters list shows why')];
    },
  };
}

const cardYearsMin = 2;

export function wearCheck(asked: AskedGateway): Check {
  return {
    name: 'card wear',
    run: async () => {
      const wear = runs(asked)?.figures?.wear;
      if (wear === undefined) return [skipped('a running gateway measures it')];
      const { bytesPerDay, lifeYears, device = 'the disk', lingerMs = 0 } = wear;
      // JSON has no undefined: what is not known is not there.
      if (bytesPerDay === undefined || lifeYears === undefined) return [skipped('not measured long enough')];
      const hours = Math.round((wear.measuredMs ?? 0) / 3_600_000);
      const text =
        `${megabytes(bytesPerDay)} a day on ${device} (of ${hours} h): ` +
        `the card lasts ${lifeYears < 100 ? lifeYears.toFixed(1) : 'over 100'} years`;
      if (lifeYears < cardYearsMin) return [warn(text, 'use a larger or better card, or send less often')];
      if (lingerMs === 0) return [ok(text)];
      return [ok(`${text}; acknowledgements wait up to ${lingerMs} ms to spare it`)];
    },
  };
}

export function megabytes(bytes: number): string {
  if (bytes >= 1e10) return `${Math.round(bytes / 1e9)} GB`;
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(1)} GB` : `${Math.round(bytes / 1e6)} MB`;
}
