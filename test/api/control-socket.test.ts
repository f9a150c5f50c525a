import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, statSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { describe, expect, onTestFinished, test } from 'vitest';
import { ControlSocket, type ControlSocketOptions } from '../../src/api/control-socket.ts';
import { GatewayError } from '../../src/platform/errors.ts';
import { createLog } from '../../src/platform/log.ts';
import type { Operation } from '../../src/platform/operations.ts';
import { tempFolder } from '../support/temp.ts';

const table: Record<string, Operation> = {
  'test.echo': async (args) => args,
  'test.nothing': async () => undefined,
  'test.refuse': async () => {
    throw new GatewayError('TEST_REFUSED', 'not today');
  },
  'test.crash': async () => {
    throw new Error('geheim');
  },
  'test.hang': () => new Promise(() => undefined),
  'test.strange': async () => 1n,
};

async function open(options: Partial<ControlSocketOptions> = {}) {
  const path = options.path ?? join(tempFolder(), 'run', 'control.sock');
  const control = await ControlSocket.open({
    path,
    operations: new Map(Object.entries(table)),
    log: createLog('silent'),
    ...options,
  });
  onTestFinished(() => control.close());
  return { control, path };
}

/** Writes, ends when told to, and answers with every line that came back until the connection was closed. */
function talk(path: string, bytes: string, { end = true } = {}): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(path, () => (end ? socket.end(bytes) : socket.write(bytes)));
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
    });
    socket.on('close', () =>
      resolve(
        text
          .split('\n')
          .filter(Boolean)
          .map((line) => JSON.parse(line)),
      ),
    );
    socket.on('error', reject);
  });
}

describe('the control socket', () => {
  test('answers each request in order, good ones with a result and others with a code', async () => {
    const { path, control } = await open();
    const requests = [
      { operation: 'test.echo', args: { a: [1, 'ü'] } },
      { operation: 'test.nothing' },
      { operation: 'test.refuse', args: {} },
      { operation: 'test.crash', args: {} },
      { operation: 'test.strange', args: {} },
      { operation: 'toString', args: {} },
      { operation: 'test.echo', args: [] },
      { operation: 7 },
      null,
    ];
    const lines = `${requests.map((request) => JSON.stringify(request)).join('\n')}\nnot json\n`;
    const code = (name: string) => ({ ok: false, error: { code: name, message: expect.any(String) } });
    const answers = await talk(path, lines);
    expect(answers).toEqual([
      { ok: true, result: { a: [1, 'ü'] } },
      { ok: true, result: null },
      { ok: false, error: { code: 'TEST_REFUSED', message: 'not today' } },
      code('INTERNAL'),
      code('INTERNAL'),
      code('OPERATION_UNKNOWN'),
      ...Array.from({ length: 4 }, () => code('REQUEST_INVALID')),
    ]);
    expect(JSON.stringify(answers)).not.toContain('geheim');
    expect(control.stats()).toMatchObject({ requests: 10, failed: 8 });
  });

  test('takes a request that arrives in pieces', async () => {
    const { path } = await open();
    const bytes = Buffer.from(`${JSON.stringify({ operation: 'test.echo', args: { text: 'üü' } })}\n`);
    const answer = await new Promise((resolve) => {
      const socket = connect(path);
      socket.setEncoding('utf8');
      socket.once('data', (chunk: string) => {
        socket.destroy();
        resolve(JSON.parse(chunk));
      });
      let sent = 0;
      const next = (): void => {
        if (sent === bytes.length) return;
        socket.write(bytes.subarray(sent, sent + 1));
        sent += 1;
        setImmediate(next);
      };
      next();
    });
    expect(answer).toEqual({ ok: true, result: { text: 'üü' } });
  });

  test('is open to its own user alone', async () => {
    const folder = join(tempFolder(), 'run');
    mkdirSync(folder, { mode: 0o755 });
    const { path } = await open({ path: join(folder, 'control.sock') });
    expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
  });

  test('takes the place of one a dead process left, never of a living one', async () => {
    const path = join(tempFolder(), 'control.sock');
    const script = `require('net').createServer().listen(${JSON.stringify(path)}, () => process.kill(process.pid, 'SIGKILL'))`;
    spawnSync(process.execPath, ['-e', script]);
    expect(existsSync(path)).toBe(true);
    const { control } = await open({ path });
    await expect(open({ path })).rejects.toMatchObject({ code: 'CONTROL_SOCKET_IN_USE' });
    expect(await talk(path, '{"operation":"test.nothing"}\n')).toEqual([{ ok: true, result: null }]);
    await control.close();
    expect(existsSync(path)).toBe(false);
  });

  test('that cannot be made says why', async () => {
    const folder = tempFolder();
    await expect(open({ path: join(folder, 'x'.repeat(120), 'control.sock') })).rejects.toMatchObject({
      code: 'CONTROL_SOCKET_FAILED',
      message: expect.stringContaining('choose a shorter data_dir'),
    });
    writeFileSync(join(folder, 'file'), '');
    await expect(open({ path: join(folder, 'file', 'control.sock') })).rejects.toMatchObject({
      code: 'CONTROL_SOCKET_FAILED',
    });
  });

  test('refuses a request that is too large, with or without a line break', async () => {
    const { path } = await open({ requestBytesMax: 1_000 });
    for (const bytes of ['x'.repeat(2_000), `${'x'.repeat(2_000)}\n`, 'x'.repeat(1_000_000)]) {
      const answers = await talk(path, bytes, { end: false }).catch(() => []);
      for (const answer of answers) expect(answer).toMatchObject({ error: { code: 'REQUEST_TOO_LARGE' } });
      if (bytes.length < 10_000) expect(answers).toHaveLength(1);
    }
    expect(await talk(path, '{"operation":"test.nothing"}\n')).toHaveLength(1);
  });

  test('ends a connection that says nothing, and an operation that never ends', async () => {
    const { path } = await open({ idleTimeoutMs: 50, operationTimeoutMs: 100 });
    expect(await talk(path, '{"operation":', { end: false })).toEqual([]);
    expect(await talk(path, '{"operation":"test.hang"}\n')).toMatchObject([
      { ok: false, error: { code: 'OPERATION_TIMEOUT' } },
    ]);
  });

  test('ends its connections when it closes', async () => {
    const { control, path } = await open();
    const talking = talk(path, '{"operation":"test.hang"}\n', { end: false });
    while (control.stats().requests === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    await control.close();
    expect(await talking).toEqual([]);
  });
});
