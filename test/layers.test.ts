// The house's import table (docs/architecture.md), executed. A room that reaches where it may not fails here.

import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { tempFolder } from './support/temp.ts';

interface Allowance {
  readonly values: readonly string[] | 'any';
  /** Rooms of which only types may be imported. */
  readonly types: readonly string[] | 'any';
}

const everyRoom = [
  'model',
  'platform',
  'config',
  'registry',
  'users',
  'journal',
  'backup',
  'history',
  'rules',
  'alarms',
  'sources',
  'ingest',
  'forwarder',
  'bridge',
  'remote',
  'commands',
  'home-assistant',
  'api',
  'web',
  'simulator',
  'tools',
] as const;

const table: Readonly<Record<string, Allowance>> = {
  model: { values: [], types: [] },
  platform: { values: ['model'], types: [] },
  config: { values: ['model'], types: [] },
  registry: { values: ['model', 'platform'], types: [] },
  users: { values: ['model', 'platform'], types: [] },
  journal: { values: ['model', 'platform'], types: [] },
  backup: { values: ['model', 'platform'], types: ['journal'] },
  history: { values: ['model', 'platform'], types: ['journal'] },
  rules: { values: ['model'], types: [] },
  alarms: { values: ['model', 'platform'], types: [] },
  sources: { values: ['model', 'platform'], types: ['config', 'registry'] },
  ingest: { values: ['model', 'platform'], types: ['journal', 'rules', 'registry'] },
  forwarder: { values: ['model', 'platform'], types: ['journal'] },
  bridge: { values: ['model', 'platform'], types: ['forwarder'] },
  remote: { values: ['model', 'platform'], types: ['history', 'journal'] },
  commands: { values: ['model', 'platform'], types: ['registry'] },
  'home-assistant': { values: ['model'], types: [] },
  api: { values: ['model', 'platform'], types: 'any' },
  web: { values: [], types: [] },
  simulator: { values: ['model'], types: [] },
  tools: { values: everyRoom.filter((room) => room !== 'api').concat(['gateway.ts' as never]), types: 'any' },
  'gateway.ts': { values: everyRoom.filter((room) => room !== 'tools'), types: 'any' },
  'main.ts': { values: 'any', types: 'any' },
};

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

function importsOf(source: string): Import[] {
  const found: Import[] = [];
  const statement = /^\s*(?:import|export)\s+(type\s+)?(?:[^'";]*?\sfrom\s+)?['"]([^'"]+)['"]/gm;
  for (const match of source.matchAll(statement)) {
    found.push({ target: match[2] as string, typeOnly: match[1] !== undefined });
  }
  for (const match of source.matchAll(/\bimport\(\s*['"]([^'"]+)['"]\s*\)/g)) {
    found.push({ target: match[1] as string, typeOnly: false });
  }
  return found;
}

function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .filter((name) => /\.tsx?$/.test(name))
    .map((name) => join(folder, name));
}

/** A source of messages is a room of its own: `sources/mqtt` may not see `sources/host`. */
function roomOf(src: string, file: string): string {
  const [first, second] = relative(src, file).split('/');
  return first === 'sources' && second !== undefined
    ? `sources/${second.replace(/\.ts$/, '')}`
    : (first ?? '');
}

function breaches(src: string): string[] {
  const found: string[] = [];
  for (const file of filesBelow(src)) {
    const room = roomOf(src, file);
    const allowed = table[room.split('/')[0] ?? ''];
    const name = relative(src, file);
    if (allowed === undefined) {
      found.push(`${name}: no room of that name in the table`);
      continue;
    }
    for (const { target, typeOnly } of importsOf(readFileSync(file, 'utf8'))) {
      if (!target.startsWith('.')) {
        if (room === 'model') found.push(`${name}: the model imports nothing, not even ${target}`);
        continue;
      }
      const path = resolve(dirname(file), target);
      if (relative(src, path).startsWith('..')) {
        if (name !== 'main.ts' && !name.startsWith('tools/')) found.push(`${name}: ${target} is outside src`);
        continue;
      }
      const other = roomOf(src, path);
      if (other === room) continue;
      const otherRoom = other.split('/')[0] ?? '';
      const rooms = typeOnly && allowed.types === 'any' ? 'any' : allowed.values;
      const types = typeOnly && allowed.types !== 'any' ? allowed.types : [];
      const fine =
        rooms === 'any' ||
        ((rooms.includes(otherRoom) || types.includes(otherRoom)) && otherRoom !== room.split('/')[0]);
      if (!fine) found.push(`${name}: may not import ${typeOnly ? 'types of ' : ''}${other}`);
    }
  }
  return found;
}

test('every room imports only what the table allows', () => {
  const src = join(import.meta.dirname, '..', 'src');
  expect(filesBelow(src).length).toBeGreaterThan(10);
  expect(breaches(src)).toEqual([]);
});

test('a seeded breach is found, whichever way it is written', () => {
  const src = join(tempFolder(), 'src');
  const seeds: Record<string, string> = {
    'journal/a.ts': "import { x } from '../forwarder/x.ts';\n",
    'rules/b.ts': "import {\n  y,\n} from '../platform/clock.ts';\n",
    'ingest/c.ts': "import { Journal } from '../journal/journal.ts';\n",
    'sources/mqtt/d.ts': "export { z } from '../serial/z.ts';\n",
    'model/e.ts': "import { readFileSync } from 'node:fs';\n",
    'api/f.ts': "const tools = await import('../tools/cli.ts');\n",
    'gateway.ts': "import '../src/tools/cli.ts';\n",
    'utils/g.ts': 'export const nothing = 1;\n',
  };
  for (const [name, text] of Object.entries(seeds)) {
    mkdirSync(dirname(join(src, name)), { recursive: true });
    writeFileSync(join(src, name), text);
  }
  const found = breaches(src);
  for (const name of Object.keys(seeds)) {
    expect(
      found.some((line) => line.startsWith(name)),
      name,
    ).toBe(true);
  }
});

test('types may cross where the table says types', () => {
  const src = join(tempFolder(), 'src');
  mkdirSync(join(src, 'ingest'), { recursive: true });
  writeFileSync(join(src, 'ingest', 'a.ts'), "import type { Appender } from '../journal/contract.ts';\n");
  expect(breaches(src)).toEqual([]);
});
