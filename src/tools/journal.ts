// `iotflow journal …`: what waits, in figures and as line protocol. Beside a stopped gateway the journal is opened as
// the gateway does at its start, and nothing is dropped or sent by that.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { JournalStats } from '../journal/journal.ts';
import { journalOperations } from '../journal/operations.ts';
import { pointClasses } from '../model/point.ts';
import { GatewayError } from '../platform/errors.ts';
import { camelCased } from '../platform/outside-names.ts';
import { answer, type Call, type Command, configOption, formatTable, jsonOption } from './command.ts';
import { requireConfig } from './configuration.ts';
import { type Damage, verifyLines, verifyRing } from './journal-verify.ts';
import { type CallOperation, type OpenStored, withOperations } from './operator.ts';
import { Progress } from './progress.ts';
import { openStoredJournal } from './stored-journal.ts';

const storedJournal: OpenStored = async ({ config, state }) => {
  if (!existsSync(join(config.dataDir, 'journal'))) {
    throw new GatewayError('NO_JOURNAL', `no gateway ever ran with the data in ${config.dataDir}`);
  }
  const journal = await openStoredJournal(config.dataDir, state, config);
  return { operations: journalOperations(journal), close: () => journal.close() };
};

function use<Result>(given: Call, run: (call: CallOperation) => Promise<Result>): Promise<Result> {
  return withOperations(requireConfig(given).config, storedJournal, run);
}

function age(ms: number | undefined): string {
  return ms === undefined ? '-' : `${(ms / 1000).toFixed(0)} s`;
}

const statCommand: Command = {
  name: 'journal stat',
  summary: 'Show what waits in the journal, what was dropped and what is damaged',
  options: { config: configOption, json: jsonOption },
  run: async (given) => {
    const result = await use(given, (call) => call('journal.stat', {}));
    const stats = camelCased(result) as JournalStats;
    const { ring, quarantined, deadLetters } = stats;
    const rows = pointClasses.map((name) => [
      name,
      String(ring.points[name]),
      String(stats.blocks[name].points),
      String(stats.blocks[name].bytes),
      age(stats.oldestAgeMs[name]),
      String(stats.dropped[name].capacity + stats.dropped[name].age),
    ]);
    const text = [
      formatTable(['CLASS', 'IN RING', 'IN BLOCKS', 'BYTES', 'OLDEST', 'DROPPED'], rows),
      `ring: ${ring.used} of ${ring.segments} segments used, ${ring.free} free`,
      `dead letters: ${deadLetters.letters}`,
      `damaged: ${quarantined.segments} regions of the ring, ${stats.lostBlocks} blocks; ` +
        `${quarantined.points + stats.lostBlockPoints} points lost`,
    ].join('\n');
    answer(given, result, text);
    return 0;
  },
};

/** Whether the reader has gone: `| head`. */
function endsQuietly(given: Call): () => boolean {
  let isGone = false;
  const { stdout } = given as { stdout: { on?: (event: string, listener: () => void) => void } };
  stdout.on?.('error', () => {
    isGone = true;
  });
  return () => isGone;
}

/** Waits for a reader that is slower than the journal. */
async function put(given: Call, text: string): Promise<void> {
  const stdout = given.stdout as {
    write(text: string, done?: () => void): unknown;
    writableNeedDrain?: unknown;
  };
  if (stdout.writableNeedDrain === undefined) stdout.write(text);
  else await new Promise<void>((resolve) => stdout.write(text, () => resolve()));
}

const undated = /[ ]b\d+\+\d+$/;

function sinceNs(given: Call): bigint | undefined {
  const text = given.text('since');
  if (text === undefined) return undefined;
  const ms = Date.parse(text);
  if (!Number.isNaN(ms)) return BigInt(ms) * 1_000_000n;
  throw new GatewayError('ARGUMENT_INVALID', '--since: expected a time such as 2026-07-01T00:00:00Z');
}

function isWanted(line: string, device: string | undefined, since: bigint | undefined): boolean {
  if (device !== undefined && !line.split(' ', 1)[0]?.split(',').includes(`device_id=${device}`))
    return false;
  if (since === undefined || undated.test(line)) return true;
  return BigInt(line.slice(line.lastIndexOf(' ') + 1)) >= since;
}

const exportCommand: Command = {
  name: 'journal export',
  summary: 'Write all that waits as line protocol to standard output; nothing is taken',
  options: {
    class: { type: 'string', value: 'CLASS', help: 'Only alarm, event or telemetry' },
    device: { type: 'string', value: 'ID', help: 'Only what carries the tag device_id=ID' },
    since: { type: 'string', value: 'TIME', help: 'Only points of this time or later' },
    config: configOption,
  },
  details: 'Lines whose date is not known yet are comments: "# no date yet: …".',
  run: async (given) => {
    const of = given.text('class');
    const device = given.text('device');
    const since = sinceNs(given);
    const progress = new Progress(given, 'exported');
    const isGone = endsQuietly(given);
    await use(given, async (call) => {
      let after: string | undefined;
      do {
        const args = { ...(of !== undefined && { class: of }), ...(after !== undefined && { after }) };
        const page = (await call('journal.read', args)) as { lines: string; next: string | null };
        const lines = page.lines.split('\n').filter((line) => line !== '' && isWanted(line, device, since));
        const text = lines
          .map((line) => (undated.test(line) ? `# no date yet: ${line}\n` : `${line}\n`))
          .join('');
        if (text !== '') await put(given, text);
        progress.add(text.length);
        after = page.next ?? undefined;
      } while (after !== undefined && !isGone());
    });
    return 0;
  },
};

const verifyCommand: Command = {
  name: 'journal verify',
  summary: 'Read all the journal holds; list what is damaged, and where',
  options: { config: configOption, json: jsonOption },
  details: 'Ends with 1 when something is. Nothing is taken or dropped.',
  run: async (given) => {
    const progress = new Progress(given, 'verified');
    const count = (bytes: number): void => progress.add(bytes);
    // Before anything opens the journal: an opening sets damage aside.
    const { dataDir } = requireConfig(given).config;
    const ring = await verifyRing(join(dataDir, 'journal'), count);
    const lines = await use(given, (call) => verifyLines(call, count));
    const damage = [...ring.damage, ...lines.damage];
    const { segments, frames } = ring;
    const text = [
      `${frames} frames in ${segments} segments and ${lines.lines} waiting lines read`,
      damage.length === 0 ? 'nothing is damaged' : formatTable(['WHERE', 'DAMAGE'], damage.map(rowOf)),
    ].join('\n');
    answer(given, { segments, frames, lines: lines.lines, damage }, text);
    return damage.length === 0 ? 0 : 1;
  },
};

function rowOf({ where, what }: Damage): readonly string[] {
  return [where, what];
}

export const journalCommands: readonly Command[] = [statCommand, verifyCommand, exportCommand];
