// `npm run sbom`, as a release makes it; needs npm and no network.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempFolder } from '../support/temp.ts';

const root = join(import.meta.dirname, '..', '..');

interface Component {
  readonly name: string;
  readonly version: string;
}

test('the bill of materials names every package for running with its hash and licence, and nothing of this machine', {
  timeout: 120_000,
}, () => {
  const file = join(tempFolder(), 'sbom.json');
  const { status, stderr } = spawnSync(process.execPath, [join(root, '.ci', 'sbom.mjs'), file], {
    encoding: 'utf8',
  });
  expect(status, stderr).toBe(0);
  const text = readFileSync(file, 'utf8');
  const bill = JSON.parse(text) as {
    readonly bomFormat: string;
    readonly metadata: { readonly component: Component };
    readonly components: readonly Component[];
    readonly dependencies: readonly { readonly ref: string; readonly dependsOn: readonly string[] }[];
  };
  const manifest = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as {
    readonly dependencies: Record<string, string>;
  };
  expect(bill.bomFormat).toBe('CycloneDX');
  expect(bill.metadata.component).toMatchObject({ name: 'iotflow-edge', type: 'application' });
  const direct = Object.entries(manifest.dependencies).map(([name, version]) => `${name}@${version}`);
  expect(bill.components.map(({ name, version }) => `${name}@${version}`)).toEqual(
    expect.arrayContaining(direct),
  );
  expect(bill.dependencies.find(({ ref }) => ref.startsWith('iotflow-edge@'))?.dependsOn.toSorted()).toEqual(
    direct.toSorted(),
  );
  expect(bill.components.map(({ name }) => name)).not.toContain('vitest');
  expect(text).not.toContain(root);
});
