// One question of `iotflow doctor`, and how all of them are asked: at once, each with a time limit, so that what
// hangs is found and keeps nobody waiting. A check answers findings; it does not throw for what it looks for.

import { errorCode } from '../../platform/errors.ts';

export interface Finding {
  readonly status: 'ok' | 'warn' | 'fail' | 'skipped';
  /** How it is, or why not; never a secret. */
  readonly message: string;
  /** What a person should do about it. */
  readonly todo?: string;
}

export interface Check {
  /** As the user knows the thing: `influxdb`, `ports`. */
  readonly name: string;
  run(signal: AbortSignal): Promise<readonly Finding[]>;
}

export interface CheckedFinding extends Finding {
  readonly check: string;
}

export function ok(message: string): Finding {
  return { status: 'ok', message };
}

/** Works, and should not stay so. */
export function warn(message: string, todo: string): Finding {
  return { status: 'warn', message, todo };
}

export function fail(message: string, todo: string): Finding {
  return { status: 'fail', message, todo };
}

/** Does not apply here, or cannot be known. */
export function skipped(why: string): Finding {
  return { status: 'skipped', message: why };
}

const networkTodos: Readonly<Record<string, string>> = {
  ENOTFOUND: 'see the line dns',
  EAI_AGAIN: 'see the line dns',
  ECONNREFUSED: 'see whether the server runs, and its port',
  ENETUNREACH: 'see whether this machine is connected to the network',
  EHOSTUNREACH: 'see whether this machine is connected to the network',
};

/** What to do when a server was not reached. */
export function networkTodo(code: string): string {
  if (/CERT|TLS|SSL/.test(code)) return 'see the line influxdb tls';
  return networkTodos[code] ?? 'see whether the server runs, its port, and a firewall in between';
}

/** Asks all of them at once; answers in their order. */
export async function runChecks(checks: readonly Check[], timeoutMs: number): Promise<CheckedFinding[]> {
  const answers = await Promise.all(
    checks.map(async ({ name, run }) => {
      const findings = await within(run, timeoutMs);
      return findings.map((finding) => ({ check: name, ...finding }));
    }),
  );
  return answers.flat();
}

async function within(run: Check['run'], timeoutMs: number): Promise<readonly Finding[]> {
  const cut = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<readonly Finding[]>((resolve) => {
    timer = setTimeout(() => {
      resolve([fail(`no answer within ${timeoutMs / 1000} s`, 'see what hangs: the network, the disk')]);
      cut.abort();
    }, timeoutMs);
  });
  try {
    return await Promise.race([run(cut.signal), late]);
  } catch (error) {
    const why = errorCode(error) ?? (error instanceof Error ? error.message : String(error));
    return [fail(`could not be checked: ${why}`, 'report this; it should have been a finding')];
  } finally {
    clearTimeout(timer);
  }
}

const words: Readonly<Record<Finding['status'], string>> = {
  ok: 'ok  ',
  warn: 'warn',
  fail: 'FAIL',
  skipped: 'skip',
};

/** One line for people: how it is, and what to do. */
export function findingLine({ check, status, message, todo }: CheckedFinding): string {
  const end = todo === undefined ? '' : `. Do: ${todo}`;
  return `${words[status]} ${check}: ${message}${end}`;
}
