import { execFileSync, spawn } from 'node:child_process';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { drain, openJournal, spilled } from '../support/journal.ts';
import { tempFolder } from '../support/temp.ts';

const root = join(import.meta.dirname, '..', '..');

/** Lets a journal run under load, kills it, and answers the ids it acknowledged. */
async function runAndKill(built: string, folder: string, firstId: number, lifeMs: number): Promise<number[]> {
  const child = spawn(
    process.execPath,
    [join(root, 'test', 'support', 'journal-child.mjs'), built, folder, String(firstId)],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  let printed = '';
  child.stdout.setEncoding('utf8');
  child.stdout.on('data', (text: string) => {
    if (printed === '') setTimeout(() => child.kill('SIGKILL'), lifeMs);
    printed += text;
  });
  await new Promise((resolve) => child.on('close', resolve));
  // A last line without its break was cut by the kill.
  return printed.split('\n').slice(1, -1).map(Number);
}

test('killed ten times under load, the gateway loses nothing it acknowledged and repeats nothing', async () => {
  const built = join(tempFolder(), 'dist');
  execFileSync(process.execPath, [
    join(root, 'node_modules', 'typescript', 'bin', 'tsc'),
    ...['-p', join(root, 'tsconfig.build.json'), '--outDir', built, '--noCheck'],
  ]);
  execFileSync('ln', ['-s', join(root, 'node_modules'), join(built, 'node_modules')]);
  execFileSync('sh', ['-c', `echo '{"type":"module"}' > ${join(built, 'package.json')}`]);

  const folder = tempFolder();
  const acknowledged = new Set<number>();
  const delivered: number[] = [];
  const newest = new Map<number, number>();
  let firstId = 0;
  for (let round = 0; round < 10; round += 1) {
    const ids = await runAndKill(built, folder, firstId, 120 + 40 * round);
    expect(ids.length).toBeGreaterThan(0);
    for (const id of ids) {
      acknowledged.add(id);
      newest.set(id % 10, Math.max(id, newest.get(id % 10) ?? 0));
    }
    firstId = Math.max(...ids) + 1000;
    if (round % 3 !== 2) continue;
    // Now and then a part is delivered in between, and the rest waits on.
    const { journal, close } = await openJournal(folder, { options: { segmentBytes: 256 * 1024 } });
    await spilled(journal);
    delivered.push(...(await drain(journal, round === 2 ? ['urgent'] : ['urgent', 'backlog'])));
    await close();
  }
  const { journal, close } = await openJournal(folder, { options: { segmentBytes: 256 * 1024 } });
  for (const [key, id] of newest) {
    expect(Number(await journal.get(`seen/${key}`))).toBeGreaterThanOrEqual(id);
  }
  expect(journal.stats().quarantined).toMatchObject({ segments: 0, points: 0 });
  await spilled(journal);
  delivered.push(...(await drain(journal)));
  await close();
  const found = new Set(delivered);
  expect([...acknowledged].filter((id) => !found.has(id))).toEqual([]);
  expect(delivered.length).toBe(found.size);
});
