// What npm is told to install, checked before it does: .ci/check-lockfile.mjs, on the real lockfile and on doctored ones.

import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { tempFolder } from '../support/temp.ts';

const root = join(import.meta.dirname, '..', '..');

interface Lock {
  readonly packages: Record<string, Record<string, unknown>>;
}

interface Doctored {
  readonly lock?: (packages: Lock['packages']) => void;
  readonly manifest?: (manifest: { dependencies: Record<string, string>; allowScripts: object }) => void;
}

function check(folder: string): { readonly code: number | null; readonly printed: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [join(root, '.ci', 'check-lockfile.mjs'), folder],
    { encoding: 'utf8' },
  );
  return { code: status, printed: stdout + stderr };
}

function checkDoctored({ lock, manifest }: Doctored): ReturnType<typeof check> {
  const folder = tempFolder();
  const edit = <Content>(name: string, change: (content: Content) => void = () => undefined): void => {
    const content = JSON.parse(readFileSync(join(root, name), 'utf8')) as Content;
    change(content);
    writeFileSync(join(folder, name), JSON.stringify(content));
  };
  edit<Lock>('package-lock.json', (content) => lock?.(content.packages));
  edit('package.json', manifest);
  return check(folder);
}

const integrity = `sha512-${'A'.repeat(86)}==`;

test('every package is pinned by its hash, from nowhere in particular, not known to be bad, freely licensed', () => {
  const { code, printed } = check(root);
  expect(printed).toContain('; 0 faults');
  expect(code).toBe(0);
});

test('an untouched copy passes as well: what the others are refused for is what was doctored', () => {
  expect(checkDoctored({}).code).toBe(0);
});

test.each<[string, string, Doctored]>([
  [
    'a version known to be bad, however deep',
    'event-stream@3.3.6: flatmap-stream stole',
    {
      lock: (packages) => {
        packages['node_modules/aedes/node_modules/event-stream'] = {
          version: '3.3.6',
          integrity,
          license: 'MIT',
        };
      },
    },
  ],
  [
    'one that hides behind another name',
    'chalk@5.6.1: taken over',
    {
      lock: (packages) => {
        packages['node_modules/harmless'] = { name: 'chalk', version: '5.6.1', integrity, license: 'MIT' };
      },
    },
  ],
  [
    'every version of a package that is nothing but bad',
    'flatmap-stream@0.1.2',
    {
      lock: (packages) => {
        packages['node_modules/flatmap-stream'] = { version: '0.1.2', integrity, dev: true };
      },
    },
  ],
  [
    'a step back to a version with a known hole',
    'ws@8.17.0: a request with many headers',
    {
      lock: (packages) => {
        Object.assign(packages['node_modules/ws'] ?? {}, { version: '8.17.0' });
      },
    },
  ],
  [
    'a package without its hash',
    'pino@10.4.0: no sha512 integrity',
    {
      lock: (packages) => {
        delete packages['node_modules/pino']?.integrity;
      },
    },
  ],
  [
    'one with a weaker hash',
    'pino@10.4.0: no sha512 integrity',
    {
      lock: (packages) => {
        Object.assign(packages['node_modules/pino'] ?? {}, {
          integrity: 'sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk=',
        });
      },
    },
  ],
  [
    'a package without its hash that calls itself a tool for another machine, but is needed for running',
    'pino@10.4.0: no sha512 integrity',
    {
      lock: (packages) => {
        delete packages['node_modules/pino']?.integrity;
        Object.assign(packages['node_modules/pino'] ?? {}, {
          optional: true,
          os: ['darwin'],
          cpu: ['arm64'],
        });
      },
    },
  ],
  [
    'one from a host of its own',
    'pino@10.4.0: comes from https://elsewhere.example/pino.tgz',
    {
      lock: (packages) => {
        Object.assign(packages['node_modules/pino'] ?? {}, {
          resolved: 'https://elsewhere.example/pino.tgz',
        });
      },
    },
  ],
  [
    'one that wants to run a script at install',
    'pino@10.4.0: runs a script at install',
    {
      lock: (packages) => {
        Object.assign(packages['node_modules/pino'] ?? {}, { hasInstallScript: true });
      },
    },
  ],
  [
    'one for running with a licence nobody looked at',
    'pino@10.4.0: licence AGPL-3.0',
    {
      lock: (packages) => {
        Object.assign(packages['node_modules/pino'] ?? {}, { license: 'AGPL-3.0' });
      },
    },
  ],
  [
    'a range instead of a version',
    'pino: ^10.4.0 is not one exact version',
    {
      manifest: ({ dependencies }) => {
        dependencies.pino = '^10.4.0';
      },
    },
  ],
  [
    'scripts that are allowed again',
    'allowScripts.classic-level is not false',
    {
      manifest: ({ allowScripts }) => {
        Object.assign(allowScripts, { 'classic-level': true });
      },
    },
  ],
])('refused: %s', (_, fault, doctored) => {
  const { code, printed } = checkDoctored(doctored);
  expect(printed).toContain(fault);
  expect(code).toBe(1);
});
