// config.example.yaml is the manual of the settings: these three tests keep it true.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { load } from 'js-yaml';
import { expect, test } from 'vitest';
import { loadConfig } from '../../src/config/load.ts';
import { settings } from '../../src/config/schema.ts';

const file = join(import.meta.dirname, '..', '..', 'config.example.yaml');

test('the example configuration is a good configuration', () => {
  expect(loadConfig({ file, env: {} })).toMatchObject({ config: { version: 1 }, warnings: [] });
});

test('the example configuration shows the defaults', () => {
  const example = loadConfig({ text: readFileSync(file, 'utf8'), env: {} });
  expect(example).toEqual(loadConfig({ env: {} }));
});

test('every setting there is appears in the example configuration, in the order of the schema', () => {
  function paths(tree: unknown, above: string): string[] {
    if (typeof tree !== 'object' || tree === null) return [above];
    return Object.entries(tree).flatMap(([key, below]) =>
      paths(below, above === '' ? key : `${above}.${key}`),
    );
  }
  expect(paths(load(readFileSync(file, 'utf8')), '')).toEqual(settings.map(({ path }) => path.join('.')));
});
