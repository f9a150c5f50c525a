// .ci/audit.mjs against registries that answer, that do not, and that are not there.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { expect, onTestFinished, test } from 'vitest';
import { tempFolder } from '../support/temp.ts';

/** Each starts npm. */
const timeout = 120_000;

const script = join(import.meta.dirname, '..', '..', '.ci', 'audit.mjs');

/** A registry that knows these advisories, or answers every question with a status. */
async function registry(answer: number | object): Promise<string> {
  const server = createServer((request, response) => {
    request.resume();
    if (typeof answer === 'number') return response.writeHead(answer).end('{}');
    const isAsked = request.url?.startsWith('/-/npm/v1/security/advisories') === true;
    // npm asks which versions there are of a package with a finding, and of those that need it.
    const name = decodeURIComponent(request.url?.slice(1) ?? '');
    response.setHeader('content-type', 'application/json');
    return response.end(JSON.stringify(isAsked ? answer : { name, versions: {} }));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`;
}

async function audit(url: string): Promise<{ readonly code: number; readonly printed: string }> {
  // npm keeps what registries told it: what these tell stays here.
  const options = [`--registry=${url}`, `--cache=${tempFolder()}`];
  const child = spawn(process.execPath, [script, ...options], { stdio: ['ignore', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.on('data', (chunk: Buffer) => {
    printed += chunk.toString();
  });
  const [code] = (await once(child, 'close')) as [number];
  return { code, printed };
}

const advisory = (severity: string) => ({
  ws: [
    {
      id: 1,
      url: 'https://github.com/advisories/GHSA-test',
      title: 'a hole',
      severity,
      vulnerable_versions: '<=8.23.0',
      cwe: [],
      cvss: { score: 0, vectorString: null },
    },
  ],
});

test('a registry that knows of a grave hole fails the build', { timeout }, async () => {
  const { code, printed } = await audit(await registry(advisory('high')));
  expect(printed).toContain('high: ws');
  expect(code).toBe(1);
});

test('one that knows of a lesser one, or of none, does not', { timeout }, async () => {
  const lesser = await audit(await registry(advisory('low')));
  expect(lesser.printed).toContain('low: ws');
  expect(lesser.code).toBe(0);
  const none = await audit(await registry({}));
  expect(none).toMatchObject({ code: 0, printed: expect.stringContaining('0 findings') });
});

test('one that does not answer the question, or is not there, is said and does not fail the build', {
  timeout,
}, async () => {
  const refusing = await audit(await registry(405));
  expect(refusing).toMatchObject({ code: 0, printed: expect.stringContaining('not answered') });
  const absent = await audit('http://127.0.0.1:1/');
  expect(absent).toMatchObject({ code: 0, printed: expect.stringContaining('not answered') });
});
