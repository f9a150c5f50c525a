// docs/security.md names a test for what it promises: they exist, and so do their titles.

import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';

const root = join(import.meta.dirname, '..', '..');
const page = readFileSync(join(root, 'docs', 'security.md'), 'utf8');

interface Row {
  readonly provision: string;
  readonly is: string;
  readonly how: string;
}

const rows: readonly Row[] = [...page.matchAll(/^\| ([456][.\d]*-\d+) [^|]*\| ([^|]*) \| ([^|]*)\|$/gm)].map(
  ([, provision = '', is = '', how = '']) => ({ provision, is, how }),
);

/** Of EN 303 645 V2.1.1: its clauses, and how many provisions each has. */
const clauses: readonly (readonly [clause: string, provisions: number])[] = [
  ['4', 1],
  ['5.1', 5],
  ['5.2', 3],
  ['5.3', 16],
  ['5.4', 4],
  ['5.5', 8],
  ['5.6', 9],
  ['5.7', 2],
  ['5.8', 3],
  ['5.9', 3],
  ['5.10', 1],
  ['5.11', 4],
  ['5.12', 3],
  ['5.13', 1],
  ['6', 5],
];

/** As `path “title”`; a title without a path before it belongs to the same file. */
function cited(text: string): { readonly path: string; readonly title: string }[] {
  let path = '';
  return [...text.matchAll(/`(test\/[\w/.-]+\.ts)`|“([^”]+)”/g)].flatMap(([, file, title]) => {
    if (file !== undefined) path = file;
    return title === undefined ? [] : [{ path, title }];
  });
}

/** Whether a test's title, or that of a group, begins so. */
function hasTitle(source: string, title: string): boolean {
  return source
    .split(title)
    .some((before, index, parts) => index < parts.length - 1 && /\(\s*['"`]$/.test(before));
}

test('every provision has a row, once, and every row a judgement', () => {
  const expected = clauses.flatMap(([clause, count]) =>
    Array.from({ length: count }, (_, index) => `${clause}-${index + 1}`),
  );
  expect(rows.map(({ provision }) => provision)).toEqual(expected);
  for (const { provision, is, how } of rows) {
    expect(['met', 'partly', 'not met', 'not applicable'], provision).toContain(is);
    expect(how, `${provision} says nothing`).not.toBe('');
    if (is === 'met')
      expect(/`test\/|`npm |]\(|Node|the table below/.test(how), `${provision} shows nothing`).toBe(true);
  }
});

test('every test it names exists, under the title it names', () => {
  const named = cited(page);
  expect(named.length).toBeGreaterThan(30);
  const missing = named.filter(({ path, title }) => {
    const file = join(root, path);
    return !existsSync(file) || !hasTitle(readFileSync(file, 'utf8'), title);
  });
  expect(missing).toEqual([]);
  for (const [, path = ''] of page.matchAll(/`(test\/[\w/.-]+\.ts)`/g))
    expect(existsSync(join(root, path)), path).toBe(true);
  for (const [, link = ''] of page.matchAll(/\]\(([^)#]+)\)/g))
    expect(existsSync(join(root, 'docs', link)), link).toBe(true);
});

test('a title that is gone, or only in a comment, is missed', () => {
  const source = readFileSync(join(import.meta.dirname, 'page.test.ts'), 'utf8');
  expect(hasTitle(source, 'a title that is gone, or only in a comment')).toBe(true);
  expect(hasTitle(source, 'docs/security.md names a test')).toBe(false);
  expect(hasTitle(source, 'a title nobody ever gave')).toBe(false);
});
