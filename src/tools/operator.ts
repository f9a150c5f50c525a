// How a command reaches the gateway's operations: through the control socket of a running gateway, or, when none
// runs, on the stored state itself. Promises: never both at once (LevelDB's lock decides), and the state is never
// left owned by a user the gateway does not run as.

import { mkdirSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { dataPaths, isBackedUp } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { settleExchange } from '../platform/exchange.ts';
import { LevelStore } from '../platform/level-store.ts';
import { createLog } from '../platform/log.ts';
import type { Operations } from '../platform/operations.ts';
import { auditedOperations } from '../users/audited-operations.ts';
import { storedTrail } from './audit-trail.ts';

const defaults = {
  /** Longer than the gateway's own limit for an operation. */
  answerTimeoutMs: 90_000,
  answerBytesMax: 64 * 1024 * 1024,
  /** A gateway that starts or stops holds the state before, or after, it listens. */
  busyTimeoutMs: 10_000,
  busyRetryMs: 250,
};

export interface OperatorOptions {
  /** Default 10 s. */
  readonly busyTimeoutMs?: number;
  /** Default 90 s. */
  readonly answerTimeoutMs?: number;
}

type Args = Readonly<Record<string, unknown>>;

/** What a stopped gateway left, locked: none can start meanwhile. */
export interface StoredState {
  readonly config: Config;
  readonly state: LevelStore;
}

/** Operations on it; `close` ends what was opened for them, before the state is closed. */
export interface StoredOperations {
  readonly operations: Operations;
  readonly close?: () => Promise<void>;
}

/**
 * How a command works beside a stopped gateway.
 * @throws GatewayError `STORE_LOCKED` when another process holds something of it: tried again for a while.
 */
export type OpenStored = (stored: StoredState) => Promise<StoredOperations>;

/** Runs one operation. Throws GatewayError what the operation throws. */
export type CallOperation = (operation: string, args: Args) => Promise<unknown>;

// The last four are paths at which no gateway could listen either.
const nobodyCodes: ReadonlySet<string> = new Set([
  'ENOENT',
  'ECONNREFUSED',
  'ENOTDIR',
  'ENOTSOCK',
  'ENAMETOOLONG',
  'EINVAL',
]);

/** Nobody listens: no gateway runs with this data, or not yet. */
class NobodyListens extends Error {}

function parseAnswer(line: string): unknown {
  let answer: unknown;
  try {
    answer = JSON.parse(line);
  } catch {
    answer = undefined;
  }
  if (typeof answer === 'object' && answer !== null && 'ok' in answer) {
    if (answer.ok === true && 'result' in answer) return answer.result;
    if ('error' in answer && typeof answer.error === 'object' && answer.error !== null) {
      const { code, message } = answer.error as { code?: unknown; message?: unknown };
      throw new GatewayError(String(code), String(message));
    }
  }
  throw new GatewayError(
    'CONTROL_SOCKET_FAILED',
    'the gateway answered something this version does not know',
  );
}

/** @throws NobodyListens, GatewayError */
function connectTo(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path, () => {
      socket.off('error', refuse);
      resolve(socket);
    });
    const refuse = (error: Error): void => {
      const code = errorCode(error) ?? '';
      const fail = (message: string) =>
        reject(new GatewayError('CONTROL_SOCKET_FAILED', message, { cause: error }));
      if (nobodyCodes.has(code)) {
        reject(new NobodyListens('nobody listens', { cause: error }));
      } else if (code === 'EACCES' || code === 'EPERM') {
        fail(`the gateway with this data runs as another user: ${path} is not yours`);
      } else {
        fail(`cannot ask the gateway: ${code}`);
      }
    };
    socket.once('error', refuse);
  });
}

/** @throws NobodyListens, GatewayError */
async function ask(
  path: string,
  operation: string,
  args: Args,
  { answerTimeoutMs = defaults.answerTimeoutMs }: OperatorOptions,
): Promise<unknown> {
  const socket = await connectTo(path);
  const line = await new Promise<string>((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const fail = (message: string, cause?: unknown): void => {
      socket.destroy();
      reject(new GatewayError('CONTROL_SOCKET_FAILED', message, { cause }));
    };
    socket.setTimeout(answerTimeoutMs, () => fail('the gateway does not answer'));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > defaults.answerBytesMax) fail('the answer of the gateway is too large');
      if (chunk.at(-1) !== 10) return;
      socket.destroy();
      resolve(Buffer.concat(chunks).toString('utf8'));
    });
    socket.on('close', () => fail('the gateway stopped before it answered'));
    socket.on('error', (error) => fail(`cannot ask the gateway: ${errorCode(error) ?? ''}`, error));
    socket.write(`${JSON.stringify({ operation, args })}\n`);
  });
  return parseAnswer(line);
}

/** Makes the data directory; refuses one of another user, whose gateway could not open what we would leave. */
export function prepareDataDir(dataDir: string): void {
  try {
    mkdirSync(dataDir, { recursive: true, mode: 0o700 });
    const { uid } = statSync(dataDir);
    const own = process.getuid?.();
    if (own === undefined || own === uid) return;
    throw new GatewayError(
      'DATA_DIR_FOREIGN',
      `${dataDir} belongs to user ${uid}: run this as that user, for instance with sudo -u '#${uid}'`,
    );
  } catch (error) {
    if (error instanceof GatewayError) throw error;
    throw new GatewayError('DATA_DIR_FAILED', `cannot use ${dataDir}: ${errorCode(error) ?? String(error)}`, {
      cause: error,
    });
  }
}

async function useStored<Result>(
  config: Config,
  openStored: OpenStored,
  use: (call: CallOperation) => Promise<Result>,
): Promise<Result> {
  prepareDataDir(config.dataDir);
  const log = createLog('silent');
  const exchanged = await settleExchange({ directory: config.dataDir, isData: isBackedUp, log });
  const state = await LevelStore.open(dataPaths(config.dataDir).state, { log }).finally(exchanged);
  try {
    const { operations: plain, close } = await openStored({ config, state });
    const operations = auditedOperations(plain, storedTrail(state));
    try {
      return await use(async (operation, args) => {
        const run = operations.get(operation);
        if (run !== undefined) return await run(args);
        throw new GatewayError('OPERATION_UNKNOWN', `${operation} does not work beside a stopped gateway`);
      });
    } finally {
      await close?.();
    }
  } finally {
    await state.close();
  }
}

/**
 * For a command that runs several operations: all of them in the running gateway, or all beside a stopped one, which
 * cannot start meanwhile. Without `openStored` only a running gateway will do.
 * @throws GatewayError what `use` throws; `GATEWAY_NOT_RUNNING` when only a running gateway can do it; `STATE_BUSY`
 * when another process holds the state and does not listen.
 */
export async function withOperations<Result>(
  config: Config,
  openStored: OpenStored | undefined,
  use: (call: CallOperation) => Promise<Result>,
  options: OperatorOptions = {},
): Promise<Result> {
  const endMs = performance.now() + (options.busyTimeoutMs ?? defaults.busyTimeoutMs);
  const { controlSocket, state } = dataPaths(config.dataDir);
  for (;;) {
    let isAnswered = false;
    try {
      (await connectTo(controlSocket)).destroy();
      return await use(async (operation, args) => {
        const result = await ask(controlSocket, operation, args, options);
        isAnswered = true;
        return result;
      });
    } catch (error) {
      if (!(error instanceof NobodyListens)) throw error;
      if (isAnswered) {
        throw new GatewayError('CONTROL_SOCKET_FAILED', 'the gateway stopped meanwhile', { cause: error });
      }
    }
    if (openStored === undefined) {
      throw new GatewayError(
        'GATEWAY_NOT_RUNNING',
        `no gateway runs with the data in ${config.dataDir}; this command asks a running one (iotflow run)`,
      );
    }
    try {
      return await useStored(config, openStored, use);
    } catch (error) {
      if (errorCode(error) !== 'STORE_LOCKED') throw error;
      if (performance.now() >= endMs) {
        throw new GatewayError(
          'STATE_BUSY',
          `another process holds ${state} and does not listen on ${controlSocket}; try again, or stop it`,
          { cause: error },
        );
      }
    }
    await sleep(defaults.busyRetryMs);
  }
}

/**
 * Runs one of the gateway's operations, in the running gateway or, given how, beside a stopped one.
 * @throws GatewayError as `withOperations` does.
 */
export function callOperation(
  config: Config,
  operation: string,
  args: Args,
  openStored?: OpenStored,
  options?: OperatorOptions,
): Promise<unknown> {
  return withOperations(config, openStored, (call) => call(operation, args), options);
}
