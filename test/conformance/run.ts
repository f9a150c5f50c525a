// Runs the cases side by side against one broker; what fails does so within a few seconds.

import { Bench, type Broker } from './broker.ts';
import { type Case, cases } from './cases.ts';

export interface Outcome {
  readonly error: string | undefined;
}

const sideBySide = 12;
const limitMs = 9000;

/** Every case has an account of its own. */
export function accountOf(each: Case): string {
  return `c${cases.indexOf(each)}`;
}

export async function runAll(broker: Broker, list: readonly Case[]): Promise<Map<string, Outcome>> {
  const outcomes = new Map<string, Outcome>();
  const waiting = [...list];
  async function work(): Promise<void> {
    for (let each = waiting.shift(); each !== undefined; each = waiting.shift()) {
      outcomes.set(accountOf(each), { error: await run(broker, each) });
    }
  }
  await Promise.all(Array.from({ length: sideBySide }, work));
  return outcomes;
}

async function run(broker: Broker, each: Case): Promise<string | undefined> {
  const bench = new Bench(broker, accountOf(each), each.level);
  let timer: NodeJS.Timeout | undefined;
  const limit = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came of it within ${limitMs} ms`)), limitMs);
  });
  try {
    await Promise.race([each.run(bench), limit]);
    return undefined;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    clearTimeout(timer);
    bench.close();
  }
}
