// How a command reaches the gateway's operations: through the control socket of a running gateway, or, when none
// runs, on the stored state itself. Promises: never both at once (LevelDB's lock decides), and the state is never
// left owned by a user the gateway does not run as.

import { randomBytes } from 'node:crypto';
import { mkdirSync, statSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { dataPaths } from '../config/paths.ts';
import type { Config } from '../config/schema.ts';
import { systemClock } from '../platform/clock.ts';
import { errorCode, GatewayError } from '../platform/errors.ts';
import { LevelStore } from '../platform/level-store.ts';
import { createLog } from '../platform/log.ts';
import { operations } from '../registry/operations.ts';
import { Registry } from '../registry/registry.ts';

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
}

type Args = Readonly<Record<string, unknown>>;

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
async function ask(path: string, operation: string, args: Args): Promise<unknown> {
  const line = await new Promise<string>((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const socket = connect(path, () => socket.write(`${JSON.stringify({ operation, args })}\n`));
    const fail = (message: string, cause?: unknown): void => {
      socket.destroy();
      reject(new GatewayError('CONTROL_SOCKET_FAILED', message, { cause }));
    };
    socket.setTimeout(defaults.answerTimeoutMs, () => fail('the gateway does not answer'));
    socket.on('data', (chunk) => {
      chunks.push(chunk);
      bytes += chunk.length;
      if (bytes > defaults.answerBytesMax) fail('the answer of the gateway is too large');
      if (chunk.at(-1) !== 10) return;
      socket.destroy();
      resolve(Buffer.concat(chunks).toString('utf8'));
    });
    socket.on('close', () => fail('the gateway stopped before it answered'));
    socket.on('error', (error) => {
      const code = errorCode(error) ?? '';
      if (nobodyCodes.has(code)) {
        reject(new NobodyListens('nobody listens', { cause: error }));
      } else if (code === 'EACCES' || code === 'EPERM') {
        fail(`the gateway with this data runs as another user: ${path} is not yours`, error);
      } else {
        fail(`cannot ask the gateway: ${code}`, error);
      }
    });
  });
  return parseAnswer(line);
}

/** Makes the data directory; refuses one of another user, whose gateway could not open what we would leave. */
function prepareDataDir(dataDir: string): void {
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

/** @throws GatewayError `STORE_LOCKED` and those of the operation. */
async function runOnStoredState(config: Config, operation: string, args: Args): Promise<unknown> {
  prepareDataDir(config.dataDir);
  const state = await LevelStore.open(dataPaths(config.dataDir).state, { log: createLog('silent') });
  try {
    const registry = await Registry.open({
      store: state.room('registry'),
      clock: systemClock(),
      randomBytes,
      devicesMax: config.registry.devicesMax,
    });
    const run = operations(registry).get(operation);
    if (run === undefined) {
      throw new GatewayError('OPERATION_UNKNOWN', `${operation} does not work beside a stopped gateway`);
    }
    return await run(args);
  } finally {
    await state.close();
  }
}

/**
 * Runs one of the gateway's operations, in the running gateway or beside a stopped one.
 * @throws GatewayError what the operation throws; `GATEWAY_NOT_RUNNING` when only a running gateway can do it;
 * `STATE_BUSY` when another process holds the state and does not listen.
 */
export async function callOperation(
  config: Config,
  operation: string,
  args: Args,
  options: OperatorOptions = {},
): Promise<unknown> {
  const endMs = performance.now() + (options.busyTimeoutMs ?? defaults.busyTimeoutMs);
  const { controlSocket, state } = dataPaths(config.dataDir);
  for (;;) {
    try {
      return await ask(controlSocket, operation, args);
    } catch (error) {
      if (!(error instanceof NobodyListens)) throw error;
    }
    if (!operation.startsWith('devices.')) {
      throw new GatewayError(
        'GATEWAY_NOT_RUNNING',
        `no gateway runs with the data in ${config.dataDir}; this command asks a running one (iotflow run)`,
      );
    }
    try {
      return await runOnStoredState(config, operation, args);
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
